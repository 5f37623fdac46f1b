//! Streams of bytes that may be WebSocket frames: what [`Frames`] makes of them, in whatever pieces
//! they come, next to a reader that has all of them at once.

use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::fuzz::{damaged, tries};

/// Texts and pings with and without masks, fragments, a Close, lengths of 16 and of 64 bits, those
/// that stand for more than there is, and kinds that do not exist.
const WORDS: &[&[u8]] = &[
    b"\x81\x05hello",
    b"\x81\x85\x07\x0d\xc8\x01abcde",
    b"\x01\x02ab",
    b"\x00\x80\x01\x02\x03\x04",
    b"\x80\x03end",
    b"\x89\x00",
    b"\x8a\x84\x01\x02\x03\x04pong",
    b"\x88\x02\x03\xf4",
    b"\x88\x80\x01\x02\x03\x04",
    b"\x82\x7e\x00\x03abc",
    b"\x82\xfe\x00\x01\x01\x02\x03\x04a",
    b"\x82\x7f\x00\x00\x00\x00\x00\x00\x00\x02ab",
    b"\xc1\x01z",
    b"\x82\x7e\xff\xff",
    b"\x82\x7f\x7f\xff\xff\xff\xff\xff\xff\xff",
    b"\x82\x7f\x80\x00\x00\x00\x00\x00\x00\x00",
    b"\x83\x00",
    b"\x09\x00",
    b"\x89\x7e\x00\x00",
];

fn seeds() -> Vec<Vec<u8>> {
    vec![WORDS[..13].concat(), [WORDS[0], WORDS[2], WORDS[5], WORDS[4], WORDS[7]].concat(), Vec::new()]
}

/// Where frames begin and end, with their first bytes, in a stream that is there as a whole; and
/// whether that could be told to its end.
fn naive(bytes: &[u8]) -> (Vec<(usize, usize, u8)>, bool) {
    let (mut frames, mut at) = (Vec::new(), 0);
    loop {
        let rest = &bytes[at..];
        let Some(&first) = rest.first() else { return (frames, true) };
        let (opcode, control) = (first & 15, first & 8 != 0);
        if ![0, 1, 2, 8, 9, 10].contains(&opcode) || control && first < 128 {
            return (frames, false);
        }
        let Some(&second) = rest.get(1) else { return (frames, true) };
        let short = usize::from(second & 127);
        if control && short > 125 {
            return (frames, false);
        }
        let bytes_of_length = [2, 8].get(short.wrapping_sub(126)).copied().unwrap_or(0);
        let Some(length) = rest.get(2..2 + bytes_of_length) else { return (frames, true) };
        let length = length.iter().fold(0_u64, |length, byte| length << 8 | u64::from(*byte));
        let payload = if bytes_of_length == 0 { short as u64 } else { length };
        if payload >> 63 == 1 {
            return (frames, false);
        }
        let key = if second >= 128 { 4 } else { 0 };
        let whole = payload + key + 2 + bytes_of_length as u64;
        if whole > rest.len() as u64 {
            return (frames, true);
        }
        frames.push((at, at + whole as usize, first));
        at += whole as usize;
    }
}

proptest! {
    #![proptest_config(tries(2_000))]

    #[test]
    fn a_stream_is_followed_the_same_in_whatever_pieces_it_comes(
        bytes in prop_oneof![
            damaged(seeds(), WORDS),
            prop::collection::vec(select(WORDS), 0..30).prop_map(|words| words.concat()),
        ],
        cuts in prop::collection::vec(1..40_usize, 1..8),
    ) {
        let (mut frames, mut at) = (Frames::default(), 0);
        let (mut ends, mut closes) = (Vec::new(), Vec::new());
        for cut in cuts.iter().cycle() {
            let piece = &bytes[at..(at + cut).min(bytes.len())];
            let seen = frames.feed(piece);
            ends.extend(seen.frame.map(|end| (at + end, seen.message == Some(end))));
            closes.extend(seen.close.map(|begin| at + begin));
            at += piece.len();
            if at == bytes.len() {
                break;
            }
        }
        // What is lost stays lost where it is, and with all bytes at once it ends the same.
        let mut at_once = Frames::default();
        at_once.feed(&bytes);
        prop_assert_eq!(frames, at_once);

        let (expected, told) = naive(&bytes);
        prop_assert_eq!(frames.is_lost(), !told);
        let last = expected.last().map_or(0, |(_, end, _)| *end);
        prop_assert_eq!(frames.is_between_frames(), told && last == bytes.len());
        prop_assert_eq!(frames.has_closed(), expected.iter().any(|(_, _, first)| first & 15 == 8));

        // Each end that was told is one, every frame that ends a piece is told, and whether the
        // message goes on is known.
        let mut fragmented = false;
        let borders: Vec<_> = expected.iter().map(|(_, end, first)| {
            if first & 15 < 3 { fragmented = first & 128 == 0 }
            if first & 15 == 8 { fragmented = false }
            (*end, !fragmented)
        }).collect();
        prop_assert!(ends.iter().all(|end| borders.contains(end)), "{:?} of {:?}", ends, borders);
        prop_assert_eq!(ends.last(), borders.last());
        let first = expected.iter().find(|(_, _, first)| first & 15 == 8).map(|(begin, _, _)| *begin);
        prop_assert!(first.is_none_or(|begin| closes.first() == Some(&begin)));
    }
}
