//! Streams of bytes that may be HTTP/2: what the watcher of frames makes of them, in whatever pieces
//! they come, next to a reader that has all of them at once.

use proptest::prelude::*;

use super::frames::{Frames, Head, Kind, PREFACE, Seen};
use super::rules::Rules;
use crate::fuzz::{damaged, tries};

/// SETTINGS, an acknowledgement, HEADERS, CONTINUATION, DATA, PING, RST_STREAM, GOAWAY, WINDOW_UPDATE,
/// PUSH_PROMISE, a frame of an unknown kind, and one of the greatest length.
const WORDS: &[&[u8]] = &[
    b"\0\0\x06\x04\0\0\0\0\0\0\x03\0\0\0\x64",
    b"\0\0\0\x04\x01\0\0\0\0",
    b"\0\0\x03\x01\x04\0\0\0\x01abc",
    b"\0\0\x03\x01\0\0\0\0\x01abc",
    b"\0\0\x02\x09\x04\0\0\0\x01de",
    b"\0\0\x05\0\x01\0\0\0\x01hello",
    b"\0\0\x08\x06\0\0\0\0\0pingpong",
    b"\0\0\x08\x06\x01\0\0\0\0pingpong",
    b"\0\0\x04\x03\0\0\0\0\x01\0\0\0\x08",
    b"\0\0\x08\x07\0\0\0\0\0\0\0\0\x01\0\0\0\0",
    b"\0\0\x04\x08\0\0\0\0\0\0\0\0\x01",
    b"\0\0\x04\x05\x04\0\0\0\x01\0\0\0\x02",
    b"\0\0\x01\xff\xff\xff\xff\xff\xffx",
    b"\xff\xff\xff\0\0\0\0\0\x01",
];

fn seeds() -> Vec<Vec<u8>> {
    let all = [&PREFACE[..], &WORDS[..12].concat()].concat();
    vec![all.clone(), [&all[..], &WORDS[..12].concat()].concat(), PREFACE.to_vec(), Vec::new()]
}

/// What a reader of RFC 9113 section 4.1 sees who has all the bytes, and whether it is in the middle
/// of a header block; and how many bytes the last frame still lacks.
fn naive(bytes: &[u8]) -> (Vec<(Seen, bool)>, usize) {
    let mut rest = bytes.get(PREFACE.len()..).unwrap_or_default();
    let (mut seen, mut block) = (Vec::new(), false);
    while let [high, middle, low, number, flags, a, b, c, d, after @ ..] = rest {
        let length = u32::from_be_bytes([0, *high, *middle, *low]);
        let stream = u32::from_be_bytes([*a, *b, *c, *d]) & 0x7fff_ffff;
        let head = Head { kind: kind(*number), flags: *flags, length, stream };
        seen.push((Seen::Frame(head), block));
        if [1, 5, 9].contains(number) {
            block = flags & 4 == 0;
        }
        let (payload, more) = after.split_at(after.len().min(length as usize));
        if *number == 4 {
            for setting in payload.chunks_exact(6) {
                let (name, value) = setting.split_at(2);
                let name = u16::from_be_bytes(name.try_into().unwrap());
                seen.push((Seen::Setting(name, u32::from_be_bytes(value.try_into().unwrap())), block));
            }
        }
        if payload.len() < length as usize {
            return (seen, length as usize - payload.len());
        }
        rest = more;
    }
    (seen, 0)
}

fn kind(number: u8) -> Kind {
    let kinds = [
        Kind::Data,
        Kind::Headers,
        Kind::Priority,
        Kind::Reset,
        Kind::Settings,
        Kind::Push,
        Kind::Ping,
        Kind::Other,
        Kind::WindowUpdate,
        Kind::Continuation,
    ];
    kinds.get(usize::from(number)).copied().unwrap_or(Kind::Other)
}

proptest! {
    #![proptest_config(tries(1_500))]

    #[test]
    fn every_frame_is_seen_once_in_whatever_pieces_it_comes(
        bytes in damaged(seeds(), WORDS),
        cuts in prop::collection::vec(1..40_usize, 1..8),
    ) {
        let (mut frames, mut seen, mut rest) = (Frames::of_client(), Vec::new(), &bytes[..]);
        for cut in cuts.iter().cycle() {
            let (piece, more) = rest.split_at((*cut).min(rest.len()));
            frames.feed(piece, |one, in_block| seen.push((one, in_block)));
            rest = more;
            if rest.is_empty() {
                break;
            }
        }
        let (expected, missing) = naive(&bytes);
        prop_assert_eq!(&seen, &expected);
        prop_assert_eq!(frames.is_before_preface(), bytes.len() < PREFACE.len());
        let last = expected.iter().rev().find_map(|(one, _)| match one {
            Seen::Frame(head) => Some(head.kind),
            Seen::Setting(..) => None,
        });
        if missing > 0 && last != Some(Kind::Data) {
            prop_assert!(frames.is_halfway() && !frames.is_between());
        }
        let mut rules = Rules::default();
        for (one, in_block) in seen {
            let _ = rules.judge(one, in_block);
        }
    }
}
