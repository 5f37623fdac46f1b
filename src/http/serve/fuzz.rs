//! Streams of bytes that may be HTTP/2: what the watcher of frames makes of them, in whatever pieces
//! they come, next to a reader that has all of them at once.

use proptest::prelude::*;

use super::frames::{Frame, Frames, PREFACE};
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

/// What a reader of RFC 9113 section 4.1 sees who has all the bytes: the kinds of the frames, and
/// how many bytes of the last are missing.
fn naive(bytes: &[u8]) -> (Vec<(u8, u8)>, usize) {
    let mut rest = bytes.get(PREFACE.len()..).unwrap_or_default();
    let mut seen = Vec::new();
    while rest.len() >= 9 {
        let length = usize::from(rest[0]) << 16 | usize::from(rest[1]) << 8 | usize::from(rest[2]);
        seen.push((rest[3], rest[4]));
        if rest.len() < 9 + length {
            return (seen, 9 + length - rest.len());
        }
        rest = &rest[9 + length..];
    }
    (seen, 0)
}

fn kind(kind: u8, flags: u8) -> Frame {
    match (kind, flags & 1) {
        (0, _) => Frame::Data,
        (1, _) => Frame::Headers,
        (3, _) => Frame::Reset,
        (4, 0) => Frame::Settings,
        (6, 0) => Frame::Ping,
        (9, _) => Frame::Continuation,
        _ => Frame::Other,
    }
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
            frames.feed(piece, |frame| seen.push(frame));
            rest = more;
            if rest.is_empty() {
                break;
            }
        }
        let (expected, missing) = naive(&bytes);
        prop_assert_eq!(seen, expected.iter().map(|(number, flags)| kind(*number, *flags)).collect::<Vec<_>>());
        prop_assert_eq!(frames.is_before_preface(), bytes.len() < PREFACE.len());
        let body = expected.last().is_some_and(|(number, _)| *number == 0);
        if missing > 0 && !body {
            prop_assert!(frames.is_halfway() && !frames.is_between());
        }
    }
}
