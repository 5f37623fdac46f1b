//! Inputs that nobody would send, for tests that try many: real ones, damaged.
//!
//! Start at [`damaged`]. What reads bytes that we did not write has a `fuzz.rs` beside it, with its
//! own seeds; a file that is new there goes the same way. Each tries a few hundred in an ordinary
//! run, and as many as `PROPTEST_CASES` says in a long one (`just fuzz`).

use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::Config;

/// How many inputs are tried where nobody asks for more.
pub fn tries(ordinary: u32) -> Config {
    let asked = std::env::var("PROPTEST_CASES").ok().and_then(|number| number.parse().ok());
    Config::with_cases(asked.unwrap_or(ordinary))
}

/// One of `seeds`, up to six times damaged, with `words` among what is put into it.
pub fn damaged(seeds: Vec<Vec<u8>>, words: &'static [&'static [u8]]) -> impl Strategy<Value = Vec<u8>> {
    assert!(!seeds.is_empty() && !words.is_empty());
    let others = seeds.clone();
    let edit = prop_oneof![
        (any::<usize>(), 0..8u32).prop_map(|(at, bit)| Edit::Flip(at, 1 << bit)),
        (any::<usize>(), any::<u8>()).prop_map(|(at, byte)| Edit::Set(at, byte)),
        (any::<usize>(), select(words)).prop_map(|(at, word)| Edit::Insert(at, word.to_vec())),
        (any::<usize>(), any::<u8>()).prop_map(|(at, byte)| Edit::Insert(at, vec![byte])),
        (any::<usize>(), 1usize..24).prop_map(|(at, length)| Edit::Cut(at, length)),
        (any::<usize>(), 1usize..24, 1usize..40)
            .prop_map(|(at, length, times)| Edit::Repeat(at, length, times)),
        (any::<usize>(), select(others), any::<usize>())
            .prop_map(|(at, other, from)| Edit::Join(at, other, from)),
    ];
    (select(seeds), prop::collection::vec(edit, 0..6))
        .prop_map(|(seed, edits)| edits.into_iter().fold(seed, |bytes, edit| edit.apply(bytes)))
}

#[derive(Clone, Debug)]
enum Edit {
    Flip(usize, u8),
    Set(usize, u8),
    Insert(usize, Vec<u8>),
    Cut(usize, usize),
    Repeat(usize, usize, usize),
    /// Goes on as another seed does from some place.
    Join(usize, Vec<u8>, usize),
}

impl Edit {
    /// Places count round the end, so that every edit does something.
    fn apply(self, mut bytes: Vec<u8>) -> Vec<u8> {
        let border = |at: usize| at % (bytes.len() + 1);
        match self {
            Self::Flip(..) | Self::Set(..) if bytes.is_empty() => {}
            Self::Flip(at, bit) => {
                let at = at % bytes.len();
                bytes[at] ^= bit;
            }
            Self::Set(at, byte) => {
                let at = at % bytes.len();
                bytes[at] = byte;
            }
            Self::Insert(at, word) => {
                let at = border(at);
                bytes.splice(at..at, word);
            }
            Self::Cut(at, length) => {
                let at = border(at);
                let end = (at + length).min(bytes.len());
                bytes.drain(at..end);
            }
            Self::Repeat(at, length, times) => {
                let at = border(at);
                let piece = bytes[at..(at + length).min(bytes.len())].repeat(times);
                bytes.splice(at..at, piece);
            }
            Self::Join(at, other, from) => {
                bytes.truncate(border(at));
                bytes.extend_from_slice(&other[from % (other.len() + 1)..]);
            }
        }
        bytes
    }
}
