//! Bytes that tell where they belong: what is lost, doubled or moved on the way does not fit.

use std::sync::OnceLock;

/// A prime, so that no power of two falls on the same bytes again.
const PERIOD: usize = 65_521;

fn table() -> &'static [u8] {
    static TABLE: OnceLock<Vec<u8>> = OnceLock::new();
    TABLE.get_or_init(|| {
        let mut random = fastrand::Rng::with_seed(1);
        // Twice over: any window of one period is a slice.
        let once: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(PERIOD).collect();
        once.repeat(2)
    })
}

/// The bytes of a long body from a position on, at most `most` of them.
pub fn from(position: u64, most: usize) -> &'static [u8] {
    let start = (position % PERIOD as u64) as usize;
    &table()[start..start + most.min(PERIOD)]
}

/// Whether these are the bytes from that position on.
pub fn fits(mut position: u64, mut bytes: &[u8]) -> bool {
    while !bytes.is_empty() {
        let (now, later) = bytes.split_at(bytes.len().min(PERIOD));
        if now != from(position, now.len()) {
            return false;
        }
        position += now.len() as u64;
        bytes = later;
    }
    true
}
