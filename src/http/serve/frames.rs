//! HTTP/2 frame headers in a stream of bytes: what is coming, and what is only half there.
//!
//! Start at [`Frames::feed`]. Nothing is decoded and nothing kept but the nine bytes of one header
//! (RFC 9113 section 4.1): the codec does the reading, and this sees what it does not tell. What
//! to make of it is decided in [`super::abuse`].

/// What opens every connection (RFC 9113 section 3.4).
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const HEADER: usize = 9;
const SETTING: usize = 6;

pub const END_STREAM: u8 = 0x1;
pub const ACK: u8 = 0x1;
const END_HEADERS: u8 = 0x4;

/// The header of a frame, and what is looked at of a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    Frame(Head),
    /// A setting's name and value.
    Setting(u16, u32),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    pub kind: Kind,
    pub flags: u8,
    /// Of the payload.
    pub length: u32,
    pub stream: u32,
}

/// The frames that matter here (RFC 9113 section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Data,
    Headers,
    Priority,
    Reset,
    Settings,
    Push,
    Ping,
    WindowUpdate,
    /// More of a header block.
    Continuation,
    Other,
}

impl Head {
    pub fn is(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// Where in the stream we are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frames {
    preface: u8,
    /// A header, or a setting, as far as it has come.
    part: [u8; HEADER],
    have: u8,
    /// Bytes of the payload that are still to come, and of which kind of frame.
    left: u32,
    inside: Kind,
    /// A header block has begun and not ended.
    block: bool,
    /// Bytes of what is only half there.
    half: usize,
}

impl Frames {
    /// From the client's first byte on, the preface included.
    pub fn of_client() -> Self {
        Self { preface: PREFACE.len() as u8, ..Self::of_server() }
    }

    /// From our first byte on.
    pub fn of_server() -> Self {
        Self { preface: 0, part: [0; HEADER], have: 0, left: 0, inside: Kind::Other, block: false, half: 0 }
    }

    /// Goes on to the end of `bytes`, and tells of every frame whose header is whole, and whether a
    /// header block had begun before it and not ended.
    pub fn feed(&mut self, mut bytes: &[u8], mut seen: impl FnMut(Seen, bool)) {
        let skipped = bytes.len().min(self.preface.into());
        self.preface -= skipped as u8;
        bytes = &bytes[skipped..];
        while !bytes.is_empty() {
            if self.left > 0 && self.inside != Kind::Settings {
                let skipped = bytes.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
                self.left -= skipped as u32;
                bytes = &bytes[skipped..];
                self.note(skipped);
                continue;
            }
            let (in_header, have) = (self.left == 0, usize::from(self.have));
            let whole = if in_header { HEADER } else { SETTING.min(have + self.left as usize) };
            let taken = bytes.len().min(whole - have);
            self.part[have..have + taken].copy_from_slice(&bytes[..taken]);
            bytes = &bytes[taken..];
            self.have += taken as u8;
            if !in_header {
                self.left -= taken as u32;
            }
            if have + taken == whole {
                self.have = 0;
                if in_header { self.begin(&mut seen) } else { self.setting(whole, &mut seen) }
            }
            self.note(taken);
        }
    }

    fn note(&mut self, taken: usize) {
        self.half = if self.is_halfway() { self.half + taken } else { 0 };
    }

    fn begin(&mut self, seen: &mut impl FnMut(Seen, bool)) {
        let [high, middle, low, kind, flags, a, b, c, d] = self.part;
        self.left = u32::from_be_bytes([0, high, middle, low]);
        self.inside = match kind {
            0x0 => Kind::Data,
            0x1 => Kind::Headers,
            0x2 => Kind::Priority,
            0x3 => Kind::Reset,
            0x4 => Kind::Settings,
            0x5 => Kind::Push,
            0x6 => Kind::Ping,
            0x8 => Kind::WindowUpdate,
            0x9 => Kind::Continuation,
            _ => Kind::Other,
        };
        let in_block = self.block;
        // HEADERS, PUSH_PROMISE and CONTINUATION.
        if matches!(kind, 0x1 | 0x5 | 0x9) {
            self.block = flags & END_HEADERS == 0;
        }
        let stream = u32::from_be_bytes([a & 0x7f, b, c, d]);
        seen(Seen::Frame(Head { kind: self.inside, flags, length: self.left, stream }), in_block);
    }

    fn setting(&self, length: usize, seen: &mut impl FnMut(Seen, bool)) {
        if length == SETTING {
            let [high, low, a, b, c, d, ..] = self.part;
            seen(
                Seen::Setting(u16::from_be_bytes([high, low]), u32::from_be_bytes([a, b, c, d])),
                self.block,
            );
        }
    }

    /// Whether the preface is still to come, or its end.
    pub fn is_before_preface(&self) -> bool {
        self.preface > 0
    }

    /// Whether something has begun that a client sends in one go: all but a body.
    pub fn is_halfway(&self) -> bool {
        self.block || self.have > 0 || (self.left > 0 && self.inside != Kind::Data)
    }

    /// Bytes of what is only half there.
    pub fn half(&self) -> usize {
        self.half
    }

    /// Whether the codec keeps what it has made of the first part of a header block.
    pub fn is_in_block(&self) -> bool {
        self.block || (self.left > 0 && self.inside == Kind::Continuation)
    }

    /// Whether the next byte begins a frame.
    pub fn is_between(&self) -> bool {
        self.preface == 0 && self.have == 0 && self.left == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(kind: u8, flags: u8, payload: usize) -> Vec<u8> {
        let length = u32::try_from(payload).unwrap().to_be_bytes();
        let mut bytes = vec![length[1], length[2], length[3], kind, flags, 0, 0, 0, 1];
        bytes.resize(HEADER + payload, b'x');
        bytes
    }

    fn fed(frames: &mut Frames, bytes: &[u8]) -> Vec<Seen> {
        let mut seen = Vec::new();
        frames.feed(bytes, |frame, _| seen.push(frame));
        seen
    }

    #[test]
    fn every_frame_is_told_of_once() {
        let mut frames = Frames::of_client();
        assert!(frames.is_before_preface());
        let bytes = [
            PREFACE.to_vec(),
            frame(4, 0, 6),
            frame(4, ACK, 0),
            frame(1, END_HEADERS, 20),
            frame(0, 0, 300),
            frame(3, 0, 4),
            frame(6, 0, 8),
            frame(6, ACK, 8),
            frame(8, 0, 4),
        ];
        let seen = fed(&mut frames, &bytes.concat());
        let kinds = seen.iter().filter_map(|seen| match seen {
            Seen::Frame(head) => Some(head.kind),
            Seen::Setting(..) => None,
        });
        use Kind::*;
        let told = [Settings, Settings, Headers, Data, Reset, Ping, Ping, WindowUpdate];
        assert_eq!(kinds.collect::<Vec<_>>(), told);
        let first = Head { kind: Settings, flags: 0, length: 6, stream: 1 };
        assert_eq!(seen[..2], [Seen::Frame(first), Seen::Setting(0x7878, 0x7878_7878)]);
        assert!(frames.is_between() && !frames.is_halfway() && !frames.is_before_preface());
    }

    #[test]
    fn half_a_header_block_is_halfway_and_half_a_body_is_not() {
        let mut frames = Frames::of_server();
        fed(&mut frames, &frame(1, 0, 5));
        assert!(frames.is_between() && frames.is_halfway(), "without END_HEADERS");
        fed(&mut frames, &frame(9, END_HEADERS, 5)[..12]);
        assert_eq!((frames.half(), frames.is_in_block()), (14 + 12, true));
        fed(&mut frames, &frame(9, END_HEADERS, 5)[12..]);
        assert!(!frames.is_halfway() && frames.half() == 0);
        fed(&mut frames, &frame(0, 0, 5)[..12]);
        assert!(!frames.is_halfway() && !frames.is_between());
        let mut frames = Frames::of_server();
        fed(&mut frames, &frame(1, END_HEADERS, 5)[..12]);
        assert!(frames.is_halfway());
        let mut frames = Frames::of_server();
        fed(&mut frames, &[0]);
        assert!(frames.is_halfway());
    }

    proptest! {
        #[test]
        fn however_the_bytes_are_cut_the_same_is_seen(
            list in prop::collection::vec((0..12_u8, any::<u8>(), 0..40_usize), 0..20),
            rest in prop::collection::vec(any::<u8>(), 0..30),
            cuts in prop::collection::vec(1..20_usize, 1..20),
        ) {
            let mut bytes = PREFACE.to_vec();
            list.iter().for_each(|(kind, flags, payload)| bytes.extend(frame(*kind, *flags, *payload)));
            bytes.extend(rest);
            let mut whole = Frames::of_client();
            let seen = fed(&mut whole, &bytes);
            prop_assert!(seen.len() >= list.len());
            let (mut pieces, mut told, mut left) = (Frames::of_client(), Vec::new(), &bytes[..]);
            for cut in cuts.iter().cycle() {
                let (piece, more) = left.split_at((*cut).min(left.len()));
                told.extend(fed(&mut pieces, piece));
                left = more;
                if left.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(told, seen);
            prop_assert_eq!(pieces, whole);
        }
    }
}
