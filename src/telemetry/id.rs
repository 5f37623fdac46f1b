//! Request ids: twelve characters that tell one request from every other.
//!
//! Start at [`RequestIds`]. They identify, they are no secret and carry no time.

use std::cell::Cell;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::time::SystemTime;

/// Crockford's base 32: no I, L, O or U to misread.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// Ten bits name the thread and fifty count from a random start. Within a process ids cannot
/// meet; for two processes to meet, one of 2^50 starts has to fall into the other's stretch.
const COUNTER_BITS: u32 = 50;

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Id([u8; 12]);

impl Id {
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("the alphabet is ASCII")
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The ids of one data thread. Asks the system for randomness once, never for an id.
#[derive(Debug)]
pub struct RequestIds {
    prefix: u64,
    counter: Cell<u64>,
}

impl RequestIds {
    pub fn new(thread: usize) -> Self {
        let entropy = RandomState::new().hash_one((thread, std::process::id(), SystemTime::now()));
        Self::starting_at(thread, entropy)
    }

    fn starting_at(thread: usize, start: u64) -> Self {
        Self { prefix: (thread as u64) << COUNTER_BITS, counter: Cell::new(start) }
    }

    /// Never ends, and needs no `mut`, so it is no `Iterator`.
    pub fn next(&self) -> Id {
        let count = self.counter.get();
        self.counter.set(count.wrapping_add(1));
        let number = self.prefix | (count & ((1 << COUNTER_BITS) - 1));
        Id(std::array::from_fn(|place| ALPHABET[(number >> (55 - 5 * place)) as usize & 31]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn a_million_ids_of_several_threads_differ() {
        let threads = [0, 1, 2, 1023].map(RequestIds::new);
        let ids: HashSet<Id> = (0..1_000_000).map(|n| threads[n % threads.len()].next()).collect();
        assert_eq!(ids.len(), 1_000_000);
    }

    #[test]
    fn threads_differ_even_from_the_same_start_and_the_counter_wraps_within_its_bits() {
        let (a, b) = (RequestIds::starting_at(1, u64::MAX), RequestIds::starting_at(33, u64::MAX));
        assert_eq!((a.next().as_str(), b.next().as_str()), ("01ZZZZZZZZZZ", "11ZZZZZZZZZZ"));
        assert_eq!((a.next().as_str(), a.next().as_str()), ("010000000000", "010000000001"));
    }

    #[test]
    fn a_restart_begins_elsewhere() {
        assert_ne!(RequestIds::new(0).next(), RequestIds::new(0).next());
    }
}
