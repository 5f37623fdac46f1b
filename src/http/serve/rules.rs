//! The rules of HTTP/2 that the codec either does not keep or names wrongly when they are broken.
//!
//! Start at [`Rules::judge`]. The codec ends such connections too, but says PROTOCOL_ERROR of
//! everything. Pure; what is kept is the numbers of a few streams.

use std::collections::VecDeque;

use super::frames::{ACK, END_STREAM, Head, Kind, Seen};

/// Error codes of RFC 9113 section 7.
pub const PROTOCOL_ERROR: u32 = 0x1;
pub const FLOW_CONTROL_ERROR: u32 = 0x3;
pub const STREAM_CLOSED: u32 = 0x5;
pub const FRAME_SIZE_ERROR: u32 = 0x6;
pub const ENHANCE_YOUR_CALM: u32 = 0xb;

const INITIAL_WINDOW_SIZE: u16 = 0x4;
const MAX_WINDOW: u32 = 0x7fff_ffff;

/// Streams that their clients have ended are remembered up to this many.
const MAX_ENDED: usize = 256;

/// What has begun, and what has ended.
#[derive(Debug, Default)]
pub struct Rules {
    newest: u32,
    /// The last streams that their client has ended.
    ended: VecDeque<u32>,
}

impl Rules {
    /// What a client's frame breaks. In the middle of a header block anything but more of it is
    /// against the rules, and the codec says so.
    pub fn judge(&mut self, seen: Seen, in_block: bool) -> Result<(), u32> {
        match seen {
            Seen::Setting(INITIAL_WINDOW_SIZE, size) if size > MAX_WINDOW => Err(FLOW_CONTROL_ERROR),
            Seen::Setting(..) => Ok(()),
            Seen::Frame(_) if in_block => Ok(()),
            // Section 8.4: a client cannot push.
            Seen::Frame(head) if head.kind == Kind::Push => Err(PROTOCOL_ERROR),
            Seen::Frame(head) if !has_fitting_size(&head) => Err(FRAME_SIZE_ERROR),
            Seen::Frame(head) => self.follow(&head),
        }
    }

    /// The newest stream that a client has begun.
    pub fn newest(&self) -> u32 {
        self.newest
    }

    fn follow(&mut self, head: &Head) -> Result<(), u32> {
        let carries = matches!(head.kind, Kind::Headers | Kind::Data);
        if carries && self.ended.contains(&head.stream) {
            return Err(STREAM_CLOSED);
        }
        if head.kind == Kind::Headers {
            self.newest = self.newest.max(head.stream);
        }
        if head.kind == Kind::Reset || (carries && head.is(END_STREAM)) {
            if self.ended.len() == MAX_ENDED {
                self.ended.pop_front();
            }
            self.ended.push_back(head.stream);
        }
        Ok(())
    }
}

/// RFC 9113 sections 6.3 to 6.9.
fn has_fitting_size(head: &Head) -> bool {
    match head.kind {
        Kind::Priority => head.length == 5,
        Kind::Reset | Kind::WindowUpdate => head.length == 4,
        Kind::Settings if head.is(ACK) => head.length == 0,
        Kind::Settings => head.length.is_multiple_of(6),
        Kind::Ping => head.length == 8,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: Kind, flags: u8, length: u32, stream: u32) -> Seen {
        Seen::Frame(Head { kind, flags, length, stream })
    }

    fn head(stream: u32, flags: u8) -> Seen {
        frame(Kind::Headers, flags, 10, stream)
    }

    fn data(stream: u32, flags: u8) -> Seen {
        frame(Kind::Data, flags, 10, stream)
    }

    fn reset(stream: u32) -> Seen {
        frame(Kind::Reset, 0, 4, stream)
    }

    fn verdicts(list: &[Seen]) -> Vec<Result<(), u32>> {
        let mut rules = Rules::default();
        list.iter().map(|seen| rules.judge(*seen, false)).collect()
    }

    #[test]
    fn frames_of_fixed_size_have_it() {
        for (kind, flags, length) in [
            (Kind::Priority, 0, 5),
            (Kind::Reset, 0, 4),
            (Kind::WindowUpdate, 0, 4),
            (Kind::Settings, 0, 12),
            (Kind::Settings, ACK, 0),
            (Kind::Ping, 0, 8),
        ] {
            assert_eq!(verdicts(&[frame(kind, flags, length, 0)]), [Ok(())], "{kind:?}");
            assert_eq!(verdicts(&[frame(kind, flags, length + 1, 0)]), [Err(FRAME_SIZE_ERROR)], "{kind:?}");
        }
        assert_eq!(verdicts(&[frame(Kind::Push, 4, 10, 1)]), [Err(PROTOCOL_ERROR)]);
        assert_eq!(verdicts(&[Seen::Setting(4, MAX_WINDOW)]), [Ok(())]);
        assert_eq!(verdicts(&[Seen::Setting(4, MAX_WINDOW + 1)]), [Err(FLOW_CONTROL_ERROR)]);
        assert_eq!(verdicts(&[Seen::Setting(5, u32::MAX)]), [Ok(())]);
    }

    #[test]
    fn nothing_follows_what_a_client_has_ended() {
        let closed = Err(STREAM_CLOSED);
        for end in [head(1, END_STREAM), head(1, 0)] {
            let rest = if end == head(1, 0) { data(1, END_STREAM) } else { frame(Kind::Other, 0, 0, 0) };
            assert_eq!(verdicts(&[end, rest, data(1, 0)])[2], closed);
            assert_eq!(verdicts(&[end, rest, head(1, END_STREAM)])[2], closed);
        }
        assert_eq!(verdicts(&[head(1, 0), reset(1), head(1, 0)])[2], closed);
    }

    #[test]
    fn bodies_and_trailers_follow_heads() {
        let list = [head(1, 0), head(3, END_STREAM), data(1, 0), data(1, 0), head(1, END_STREAM)];
        assert!(verdicts(&list).iter().all(Result::is_ok));
    }

    #[test]
    fn what_the_codec_names_rightly_is_left_to_it() {
        assert_eq!(verdicts(&[head(3, END_STREAM), head(1, 0), data(5, 0)]), [Ok(()); 3]);
        let mut rules = Rules::default();
        assert_eq!(rules.judge(head(1, END_STREAM), false), Ok(()));
        assert_eq!(rules.judge(data(1, 0), true), Ok(()), "in the middle of a header block");
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut rules = Rules::default();
        for stream in (1..20_001).step_by(2) {
            assert_eq!(rules.judge(head(stream, END_STREAM), false), Ok(()));
        }
        assert_eq!((rules.ended.len(), rules.newest()), (MAX_ENDED, 19_999));
    }
}
