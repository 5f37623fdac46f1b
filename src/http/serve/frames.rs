//! HTTP/2 frame headers in a stream of bytes: what is coming, and what is only half there.
//!
//! Start at [`Frames::feed`]. Nothing is decoded and nothing kept but the nine bytes of one header
//! (RFC 9113 section 4.1): the codec does the reading, and this sees what it does not tell. What
//! to make of it is decided in [`super::abuse`].

/// What opens every connection (RFC 9113 section 3.4).
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const HEADER: usize = 9;

const END_HEADERS: u8 = 0x4;
const ACK: u8 = 0x1;

/// The frames that matter here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame {
    Data,
    Headers,
    Reset,
    /// Not an acknowledgement.
    Settings,
    /// Not an answer.
    Ping,
    /// More of a header block.
    Continuation,
    Other,
}

/// Where in the stream we are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frames {
    preface: u8,
    header: [u8; HEADER],
    have: u8,
    /// Bytes of the payload that are still to come, and of which frame.
    left: u32,
    inside: Frame,
    /// A header block has begun and not ended.
    block: bool,
}

impl Frames {
    /// From the client's first byte on, the preface included.
    pub fn of_client() -> Self {
        Self { preface: PREFACE.len() as u8, ..Self::of_server() }
    }

    /// From our first byte on.
    pub fn of_server() -> Self {
        Self { preface: 0, header: [0; HEADER], have: 0, left: 0, inside: Frame::Other, block: false }
    }

    /// Goes on to the end of `bytes`, and tells of every frame whose header is whole.
    pub fn feed(&mut self, mut bytes: &[u8], mut seen: impl FnMut(Frame)) {
        let skipped = bytes.len().min(self.preface.into());
        self.preface -= skipped as u8;
        bytes = &bytes[skipped..];
        while !bytes.is_empty() {
            let skipped = bytes.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
            self.left -= skipped as u32;
            bytes = &bytes[skipped..];
            let have = usize::from(self.have);
            let taken = bytes.len().min(HEADER - have);
            self.header[have..have + taken].copy_from_slice(&bytes[..taken]);
            bytes = &bytes[taken..];
            self.have += taken as u8;
            if usize::from(self.have) == HEADER {
                self.begin(&mut seen);
            }
        }
    }

    fn begin(&mut self, seen: &mut impl FnMut(Frame)) {
        let [high, middle, low, kind, flags, ..] = self.header;
        self.have = 0;
        self.left = u32::from_be_bytes([0, high, middle, low]);
        self.inside = match kind {
            0x0 => Frame::Data,
            0x1 => Frame::Headers,
            0x3 => Frame::Reset,
            0x4 if flags & ACK == 0 => Frame::Settings,
            0x6 if flags & ACK == 0 => Frame::Ping,
            0x9 => Frame::Continuation,
            _ => Frame::Other,
        };
        // HEADERS, PUSH_PROMISE and CONTINUATION.
        if matches!(kind, 0x1 | 0x5 | 0x9) {
            self.block = flags & END_HEADERS == 0;
        }
        seen(self.inside);
    }

    /// Whether the preface is still to come, or its end.
    pub fn is_before_preface(&self) -> bool {
        self.preface > 0
    }

    /// Whether something has begun that a client sends in one go: all but a body.
    pub fn is_halfway(&self) -> bool {
        self.block || self.have > 0 || (self.left > 0 && self.inside != Frame::Data)
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

    fn fed(frames: &mut Frames, bytes: &[u8]) -> Vec<Frame> {
        let mut seen = Vec::new();
        frames.feed(bytes, |frame| seen.push(frame));
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
        use Frame::*;
        assert_eq!(seen, [Settings, Other, Headers, Data, Reset, Ping, Other, Other]);
        assert!(frames.is_between() && !frames.is_halfway() && !frames.is_before_preface());
    }

    #[test]
    fn half_a_header_block_is_halfway_and_half_a_body_is_not() {
        let mut frames = Frames::of_server();
        fed(&mut frames, &frame(1, 0, 5));
        assert!(frames.is_between() && frames.is_halfway(), "without END_HEADERS");
        fed(&mut frames, &frame(9, END_HEADERS, 5));
        assert!(!frames.is_halfway());
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
