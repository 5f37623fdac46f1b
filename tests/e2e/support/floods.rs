//! Floods over HTTP/2: batches of frames that cost their sender next to nothing.

use super::h2_client::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, Frame, HEADERS, PING, PRIORITY, SETTINGS, WINDOW_UPDATE,
    block, request,
};

/// Frames, or streams, of each flood.
pub const MANY: usize = 10_000;

/// What the floods ask for, so that it can be told from what others ask for.
pub const TARGET: &str = "/bad";

/// Batches of frames, each sent at once.
pub type Batches = Box<dyn Iterator<Item = Vec<Frame>> + Send>;

/// Every flood that has to be cut, with its name.
pub fn to_be_cut() -> Vec<(&'static str, Batches)> {
    vec![
        ("rapid reset, one by one", rapid_reset(1)),
        ("rapid reset, by the hundred", rapid_reset(100)),
        ("made you reset", made_you_reset()),
        ("SETTINGS", same(Frame::new(SETTINGS, 0, 0, [0, 4, 0, 1, 0, 0]), 100)),
        ("PING", same(Frame::new(PING, 0, 0, *b"12345678"), 1000)),
        ("CONTINUATION, empty", continuation(&[], 100)),
        ("CONTINUATION, 4 KB", continuation(&block(&[("x-a", &"x".repeat(4000))]), 10)),
        ("DATA, empty", after(Frame::head(1, &request("POST", TARGET), 0), Frame::new(DATA, 0, 1, []))),
    ]
}

/// Those that are borne.
pub fn to_be_borne() -> Vec<(&'static str, Batches)> {
    vec![
        ("PRIORITY", same(Frame::new(PRIORITY, 0, 1, [0, 0, 0, 0, 16]), 100)),
        ("HPACK bomb", Box::new(streams(1).take(200).map(|batch| vec![bomb(batch[0], 10_000)]))),
    ]
}

pub fn rapid_reset(batch: usize) -> Batches {
    let pair = |stream: &u32| [Frame::get(*stream, TARGET), Frame::reset(*stream)];
    Box::new(streams(batch).map(move |batch| batch.iter().flat_map(pair).collect()))
}

/// CVE-2025-8671: each stream is answered, and made invalid by a window that overflows.
pub fn made_you_reset() -> Batches {
    let overflow = |stream: u32| Frame::new(WINDOW_UPDATE, 0, stream, 0x7fff_ffff_u32.to_be_bytes());
    let pair = move |stream: &u32| [Frame::get(*stream, TARGET), overflow(*stream)];
    Box::new(streams(10).map(move |batch| batch.iter().flat_map(pair).collect()))
}

/// A header block without end.
pub fn continuation(payload: &[u8], batch: usize) -> Batches {
    let first = Frame::new(HEADERS, 0, 1, block(&request("GET", TARGET)));
    let frames = same(Frame::new(CONTINUATION, 0, 1, payload), batch);
    Box::new(std::iter::once(vec![first]).chain(frames))
}

/// `first`, then the other without end.
fn after(first: Frame, then: Frame) -> Batches {
    Box::new(std::iter::once(vec![first]).chain(same(then, 100)))
}

fn same(frame: Frame, batch: usize) -> Batches {
    Box::new((0..MANY / batch).map(move |_| vec![frame.clone(); batch]))
}

/// Streams 1, 3, 5 and so on, in batches.
fn streams(batch: usize) -> impl Iterator<Item = Vec<u32>> + Send {
    let all: Vec<u32> = (0..u32::try_from(MANY).unwrap()).map(|n| n * 2 + 1).collect();
    all.chunks(batch).map(<[u32]>::to_vec).collect::<Vec<_>>().into_iter()
}

/// A name and a large value into the dynamic table, and then that entry again and again.
fn bomb(stream: u32, references: usize) -> Frame {
    let mut head = block(&request("GET", TARGET));
    let value = "x".repeat(3000);
    // Literal with indexing (RFC 7541 section 6.2.1).
    let mut entry = block(&[("x-bomb", &value)]);
    entry[0] = 0x40;
    head.extend(entry);
    head.extend(std::iter::repeat_n(0xbe, references));
    Frame::new(HEADERS, END_HEADERS | END_STREAM, stream, head)
}
