//! Who was seen: the sessions that one thread has met on one backend, so that a drain can say
//! who is still there.
//!
//! One [`Sessions`] per backend and thread: its lock is contended only while a reader looks.
//! Readers take the [`union`] over threads. Times are coarse seconds, the same clock as tokens.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Sessions remembered per backend and thread, about 2 MB. More are counted, not remembered.
pub const SESSIONS_MAX: usize = 65_536;

#[derive(Debug, Default)]
pub struct Sessions(Mutex<Met>);

#[derive(Debug, Default)]
struct Met {
    /// Session id → when it was last seen. Never more than [`SESSIONS_MAX`].
    seen: HashMap<u64, u64>,
    /// When room was last sought among those out of the window: at most once a second.
    swept: u64,
    /// Visits of sessions that found no room, and when the last one came.
    overflow: u64,
    overflowed: u64,
}

/// What several threads have seen, put together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    pub ids: HashSet<u64>,
    /// Visits of sessions that no thread had room to remember.
    pub overflow: u64,
}

impl Seen {
    /// How many sessions there are. Where memory was too small this is more than the truth, so
    /// that zero always means nobody.
    pub fn count(&self) -> u64 {
        self.ids.len() as u64 + self.overflow
    }
}

impl Sessions {
    /// Remembers that a session was here. `window` is how long silence keeps it alive.
    pub fn seen(&self, id: u64, now: u64, window: Duration) {
        let mut met = self.met();
        if let Some(last) = met.seen.get_mut(&id) {
            *last = now;
            return;
        }
        if met.seen.len() >= SESSIONS_MAX && met.swept != now {
            met.swept = now;
            met.sweep(now, window);
        }
        if met.seen.len() < SESSIONS_MAX {
            met.seen.insert(id, now);
        } else {
            met.overflow += 1;
            met.overflowed = now;
        }
    }

    /// Adds those seen within `window` to `all` and forgets the others.
    pub fn add_to(&self, all: &mut Seen, now: u64, window: Duration) {
        let mut met = self.met();
        met.sweep(now, window);
        all.ids.extend(met.seen.keys());
        all.overflow += met.overflow;
    }

    /// Forgets everybody: what was drained and comes back begins anew.
    pub fn clear(&self) {
        *self.met() = Met::default();
    }

    fn met(&self) -> MutexGuard<'_, Met> {
        // Every state of the map is a valid one, so a panic elsewhere harms nothing.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Met {
    fn sweep(&mut self, now: u64, window: Duration) {
        let alive = |last: u64| now.saturating_sub(last) <= window.as_secs();
        self.seen.retain(|_, last| alive(*last));
        if !alive(self.overflowed) {
            self.overflow = 0;
        }
    }
}

/// The sessions seen within `window` over all threads.
pub fn union<'a>(threads: impl IntoIterator<Item = &'a Sessions>, now: u64, window: Duration) -> Seen {
    let mut all = Seen::default();
    for sessions in threads {
        sessions.add_to(&mut all, now, window);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(300);

    #[test]
    fn a_session_counts_once_over_threads_until_it_was_silent_for_the_window() {
        let threads = [Sessions::default(), Sessions::default()];
        threads[0].seen(1, 1_000, WINDOW);
        threads[1].seen(1, 1_100, WINDOW);
        threads[1].seen(2, 1_000, WINDOW);
        let count = |now| union(&threads, now, WINDOW).count();
        assert_eq!(count(1_300), 2);
        assert_eq!(count(1_301), 1);
        assert_eq!(count(1_400), 1);
        assert_eq!(count(1_401), 0);
    }

    #[test]
    fn memory_is_bounded_and_what_does_not_fit_still_counts_as_somebody() {
        let sessions = Sessions::default();
        (0..SESSIONS_MAX as u64 + 3).for_each(|id| sessions.seen(id, 1_000, WINDOW));
        let seen = union([&sessions], 1_000, WINDOW);
        assert_eq!((seen.ids.len(), seen.overflow), (SESSIONS_MAX, 3));
        sessions.seen(7, 1_200, WINDOW);
        assert_eq!(union([&sessions], 1_301, WINDOW), Seen { ids: HashSet::from([7]), overflow: 0 });
    }

    #[test]
    fn the_silent_make_room_first() {
        let sessions = Sessions::default();
        (0..SESSIONS_MAX as u64).for_each(|id| sessions.seen(id, 1_000, WINDOW));
        sessions.seen(1 << 40, 1_301, WINDOW);
        assert_eq!(union([&sessions], 1_301, WINDOW), Seen { ids: HashSet::from([1 << 40]), overflow: 0 });
    }

    #[test]
    fn what_comes_back_after_a_drain_begins_anew() {
        let sessions = Sessions::default();
        sessions.seen(1, 1_000, WINDOW);
        sessions.clear();
        assert_eq!(union([&sessions], 1_000, WINDOW).count(), 0);
    }
}
