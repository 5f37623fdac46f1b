//! How many bytes request heads hold that have not come whole, over all threads.
//!
//! Start at [`Held`]. Most heads come in one piece and are never counted here; of the others each
//! client pays for what it has sent, and whoever wants more when nothing is left is refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// A head is never refused for its first bytes, which are as many as most heads have: an ordinary
/// client that is slow comes through while others take all there is.
pub const HEAD_FREE: usize = 2048;

pub struct Heads {
    limit: AtomicUsize,
    held: AtomicUsize,
}

impl Heads {
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit: AtomicUsize::new(limit), held: AtomicUsize::new(0) })
    }

    /// From now on.
    pub fn set_limit(&self, limit: usize) {
        self.limit.store(limit, Relaxed);
    }

    /// Bytes that are held now.
    pub fn held(&self) -> usize {
        self.held.load(Relaxed)
    }
}

/// What one connection holds. It counts as long as this lives.
pub struct Held {
    heads: Arc<Heads>,
    bytes: usize,
}

impl Held {
    pub fn nothing(heads: &Arc<Heads>) -> Self {
        Self { heads: heads.clone(), bytes: 0 }
    }

    /// Holds `bytes` from now on, fewer or more than before. `false`: there is no room for more, and
    /// nothing has changed.
    pub fn set(&mut self, bytes: usize) -> bool {
        let Some(more) = bytes.checked_sub(self.bytes) else {
            self.heads.held.fetch_sub(self.bytes - bytes, Relaxed);
            self.bytes = bytes;
            return true;
        };
        if more == 0 {
            return true;
        }
        let limit = self.heads.limit.load(Relaxed);
        let fits = |held: usize| (bytes <= HEAD_FREE || held + more <= limit).then_some(held + more);
        let held = self.heads.held.fetch_update(Relaxed, Relaxed, fits).is_ok();
        if held {
            self.bytes = bytes;
        }
        held
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.heads.held.fetch_sub(self.bytes, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn when_nothing_is_left_large_heads_are_refused_and_small_ones_are_not() {
        let heads = Heads::new(10_000);
        let mut list: Vec<Held> = (0..4).map(|_| Held::nothing(&heads)).collect();
        assert!(list[0].set(6000) && list[1].set(3000));
        assert!(!list[2].set(3000), "1,000 bytes are left");
        assert!(list[2].set(HEAD_FREE) && list[3].set(HEAD_FREE), "whatever is left");
        assert!(!list[1].set(3001));
        assert_eq!(heads.held(), 9000 + 2 * HEAD_FREE);
        drop(list.remove(0));
        assert!(list[0].set(4000));
        drop(list);
        assert_eq!(heads.held(), 0);
    }

    #[test]
    fn a_new_limit_holds_for_what_is_asked_from_then_on() {
        let heads = Heads::new(100_000);
        let mut held = Held::nothing(&heads);
        assert!(held.set(50_000));
        heads.set_limit(10_000);
        assert!(!held.set(50_001) && held.set(9_999) && held.set(10_000));
    }

    proptest! {
        #[test]
        fn the_sum_is_what_each_holds_and_beyond_the_limit_there_are_only_first_bytes(
            sets in prop::collection::vec((0_usize..12, 0_usize..20_000), 1..100),
        ) {
            let (limit, heads) = (40_000, Heads::new(40_000));
            let mut list: Vec<Held> = (0..12).map(|_| Held::nothing(&heads)).collect();
            for (who, bytes) in sets {
                let before = list[who].bytes;
                let done = list[who].set(bytes);
                prop_assert_eq!(list[who].bytes, if done { bytes } else { before });
                prop_assert_eq!(heads.held(), list.iter().map(|held| held.bytes).sum::<usize>());
                prop_assert!(heads.held() <= limit + list.len() * HEAD_FREE);
            }
        }
    }
}
