//! WebSocket frames, as far as somebody who passes them on must know them: where one ends and the
//! next begins (RFC 6455 section 5.2), and how to say goodbye there.
//!
//! Start at [`Frames`]. It reads headers, skips payloads by their length, keeps neither, and judges
//! nothing that both ends could agree on. The handshake is `upgrade`'s business.

use aws_lc_rs::rand;
use bytes::Bytes;

#[cfg(test)]
mod fuzz;

const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

const FIN: u8 = 0x80;
const OPCODE: u8 = 0x0f;
const MASKED: u8 = 0x80;
const LENGTH: u8 = 0x7f;
/// Of the mask's key, which stands before the payload.
const KEY: usize = 4;
/// The longest payload of a control frame.
const CONTROL: u64 = 125;

/// 1012 "service restart", for clients: come back later, elsewhere, at a random moment (the IANA
/// registry of close codes says 5 to 30 s). It names a service, which is what clients talk to.
const RESTART: [u8; 4] = [FIN | CLOSE, 2, 0x03, 0xf4];

/// 1001 "going away", for backends: to them the client leaves, as when a browser shows another page
/// (RFC 6455 section 7.4.1). Every library knows it; 1012 is younger, and some call it an error.
const GOING_AWAY: [u8; 2] = [0x03, 0xe9];

/// The Close that a client gets.
pub fn close_for_client() -> Bytes {
    Bytes::from_static(&RESTART)
}

/// The Close that a backend gets: from a client, so it is masked.
pub fn close_for_backend() -> Bytes {
    let mut key = [0; KEY];
    rand::fill(&mut key).expect("the system has random bytes");
    let [a, b, c, d] = key;
    let [high, low] = GOING_AWAY;
    Bytes::copy_from_slice(&[FIN | CLOSE, MASKED | 2, a, b, c, d, high ^ a, low ^ b])
}

/// One direction of a WebSocket, of which all bytes so far have been seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Frames {
    /// What is to come of the payload, the mask's key included; while a header comes, its length
    /// so far.
    left: u64,
    /// Bytes of a header that is not whole; 0 where none has begun or it is.
    head: u8,
    first: u8,
    second: u8,
    /// The last data frame was not the last of its message.
    fragmented: bool,
    closed: bool,
    lost: bool,
}

/// What a piece of the stream holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Where the last frame ends that ends in it.
    pub frame: Option<usize>,
    /// The same, after the last frame of a message or between messages.
    pub message: Option<usize>,
    /// Where the first Close begins.
    pub close: Option<usize>,
}

impl Frames {
    /// Follows the stream over its next piece.
    pub fn feed(&mut self, bytes: &[u8]) -> Seen {
        let (mut seen, mut at) = (Seen::default(), 0);
        while at < bytes.len() && !self.lost {
            if self.head == 0 && self.left > 0 {
                let skipped = self.left.min((bytes.len() - at) as u64);
                self.left -= skipped;
                at += skipped as usize;
            } else {
                if self.head == 0 && bytes[at] & OPCODE == CLOSE {
                    seen.close.get_or_insert(at);
                }
                self.read_head(bytes[at]);
                at += 1;
            }
            if self.is_between_frames() {
                self.end_frame();
                seen.frame = Some(at);
                if !self.fragmented {
                    seen.message = Some(at);
                }
            }
        }
        seen
    }

    fn read_head(&mut self, byte: u8) {
        match self.head {
            0 => {
                let opcode = byte & OPCODE;
                let known = matches!(opcode, CONTINUATION | TEXT | BINARY | CLOSE | PING | PONG);
                self.lost = !known || is_control(opcode) && byte & FIN == 0;
                self.first = byte;
            }
            1 => {
                self.second = byte;
                self.left = u64::from(byte & LENGTH);
                self.lost = is_control(self.first & OPCODE) && self.left > CONTROL;
            }
            // The length follows, in 2 bytes or in 8.
            2 => self.left = byte.into(),
            _ => self.left = self.left << 8 | u64::from(byte),
        }
        self.head += 1;
        let whole = match self.second & LENGTH {
            126 => 4,
            127 => 10,
            _ => 2,
        };
        if self.head > 1 && self.head == whole {
            self.head = 0;
            // The highest bit of a length must be 0.
            self.lost |= self.left > u64::MAX >> 1;
            if self.second & MASKED != 0 && !self.lost {
                self.left += KEY as u64;
            }
        }
    }

    fn end_frame(&mut self) {
        match self.first & OPCODE {
            CONTINUATION | TEXT | BINARY => self.fragmented = self.first & FIN == 0,
            CLOSE => (self.closed, self.fragmented) = (true, false),
            _ => {}
        }
    }

    /// These are no frames that any endpoint would take, so nobody knows where they end.
    pub fn is_lost(&self) -> bool {
        self.lost
    }

    /// Nothing of a next frame has come.
    pub fn is_between_frames(&self) -> bool {
        self.head == 0 && self.left == 0 && !self.lost
    }

    /// Nothing of a next message has come; pings and pongs are none.
    pub fn is_between_messages(&self) -> bool {
        self.is_between_frames() && !self.fragmented
    }

    /// A Close has come whole: the last frame of this direction.
    pub fn has_closed(&self) -> bool {
        self.closed
    }

    /// The same, or it is on its way.
    pub fn is_closing(&self) -> bool {
        self.closed || !self.is_between_frames() && self.first & OPCODE == CLOSE
    }
}

fn is_control(opcode: u8) -> bool {
    opcode & 0x08 != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_close_is_the_same_to_this_reader_as_to_others() {
        use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;
        use tokio_tungstenite::tungstenite::protocol::frame::coding::{Control, OpCode};
        for (bytes, code) in [(close_for_client(), 1012_u16), (close_for_backend(), 1001)] {
            let mut cursor = std::io::Cursor::new(&bytes);
            let (header, length) = FrameHeader::parse(&mut cursor).unwrap().expect("a whole header");
            assert_eq!((header.opcode, header.is_final, length), (OpCode::Control(Control::Close), true, 2));
            let mut payload = bytes[bytes.len() - 2..].to_vec();
            for (byte, key) in payload.iter_mut().zip(header.mask.unwrap_or_default()) {
                *byte ^= key;
            }
            assert_eq!((payload, header.mask.is_some()), (code.to_be_bytes().to_vec(), code == 1001));

            let mut frames = Frames::default();
            let expected = Seen { frame: Some(bytes.len()), message: Some(bytes.len()), close: Some(0) };
            assert_eq!(frames.feed(&bytes), expected);
            assert!(frames.has_closed() && frames.is_between_messages());
        }
        assert_ne!(close_for_backend(), close_for_backend(), "each has a key of its own");
    }

    #[test]
    fn pings_between_fragments_do_not_end_a_message() {
        let mut frames = Frames::default();
        let piece = [TEXT, 1, b'a', FIN | PING, 0, CONTINUATION, 0];
        assert_eq!(frames.feed(&piece), Seen { frame: Some(7), message: None, close: None });
        assert!(frames.is_between_frames() && !frames.is_between_messages());
        assert_eq!(frames.feed(&[FIN, 1]), Seen::default());
        assert!(!frames.is_between_frames());
        assert_eq!(frames.feed(b"b").message, Some(1));
    }

    #[test]
    fn what_is_no_frame_is_not_followed() {
        let long = [[FIN | BINARY, 127, 0x80].as_slice(), &[0; 7]].concat();
        for stream in [b"GET / HTTP/1.1".as_slice(), &[FIN | 3], &[PING, 0], &[FIN | PONG, 126], &long] {
            let mut frames = Frames::default();
            frames.feed(stream);
            assert!(frames.is_lost() && !frames.is_between_frames(), "{stream:?}");
            assert_eq!(frames.feed(&[FIN | TEXT, 0]), Seen::default());
        }
    }
}
