//! Whether a client sends its body fast enough.
//!
//! [`Pace`] is the decision, with the time passed in, [`PaceWatch`] the clock and the timer beside
//! it. Only the time that the client is waited for counts. While a backend reads nothing nobody
//! asks the client for more, and its silence is not its fault. What follows is in `body`.

use std::cell::{Cell, OnceCell};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::timer::{Timer, Wheel};

/// What is averaged over, again and again; nobody is judged before its first end.
pub const WINDOW: Duration = Duration::from_secs(10);

/// A body that came more slowly than it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooSlow;

/// How a body has come within the present window.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// In bytes per second.
    least: u64,
    bytes: u64,
    waited: Duration,
    /// The client is waited for, since then.
    since: Option<Instant>,
}

impl Pace {
    pub fn new(least: u64) -> Self {
        Self { least, bytes: 0, waited: Duration::ZERO, since: None }
    }

    /// The client is being waited for. How much longer it may be before this has to be asked again.
    pub fn waits(&mut self, now: Instant) -> Result<Duration, TooSlow> {
        self.count(now);
        self.since = Some(now);
        if self.waited >= WINDOW {
            if u128::from(self.bytes) * 1000 < u128::from(self.least) * self.waited.as_millis() {
                return Err(TooSlow);
            }
            (self.bytes, self.waited) = (0, Duration::ZERO);
        }
        Ok(WINDOW - self.waited)
    }

    pub fn is_waiting(&self) -> bool {
        self.since.is_some()
    }

    /// So many bytes have come, and nobody waits.
    pub fn came(&mut self, now: Instant, bytes: usize) {
        self.count(now);
        self.bytes += bytes as u64;
    }

    fn count(&mut self, now: Instant) {
        if let Some(since) = self.since.take() {
            self.waited += now.saturating_duration_since(since);
        }
    }
}

/// Sees to it that the client does not dawdle.
pub struct PaceWatch {
    pace: Cell<Pace>,
    /// Made when the client is first waited for: most bodies come with their heads.
    timer: OnceCell<Timer>,
    wheel: Wheel,
}

impl PaceWatch {
    /// `least` in bytes per second.
    pub fn new(least: u64, wheel: &Wheel) -> Self {
        Self { pace: Cell::new(Pace::new(least)), timer: OnceCell::new(), wheel: wheel.clone() }
    }

    pub fn came(&self, now: Instant, bytes: usize) {
        let mut pace = self.pace.get();
        pace.came(now, bytes);
        self.pace.set(pace);
    }

    /// Nothing is there. Ready once the client has been waited for too long.
    pub fn poll_too_slow(&self, cx: &mut Context<'_>) -> Poll<TooSlow> {
        let timer = self.timer.get_or_init(|| Timer::new(&self.wheel));
        let mut pace = self.pace.get();
        // The clock is read once per wait, not once per look.
        while !pace.is_waiting() || timer.poll(cx).is_ready() {
            let now = Instant::now();
            match pace.waits(now) {
                Ok(left) => timer.set(now, left),
                Err(too_slow) => return Poll::Ready(too_slow),
            }
            self.pace.set(pace);
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// A client that makes itself waited for, and then sends: (how long, how much, how long the
    /// backend then takes before it wants more).
    type Step = (u64, usize, u64);

    /// When it was found too slow, in time waited for it.
    fn cut(least: u64, steps: &[Step]) -> Option<Duration> {
        let (mut pace, mut now, mut waited) = (Pace::new(least), Instant::now(), Duration::ZERO);
        for (wait, bytes, busy) in steps {
            let until = now + Duration::from_millis(*wait);
            loop {
                let Ok(left) = pace.waits(now) else { return Some(waited) };
                assert!(!left.is_zero(), "asked again at once");
                let step = left.min(until - now);
                (now, waited) = (now + step, waited + step);
                if now == until {
                    break;
                }
            }
            pace.came(now, *bytes);
            assert!(!pace.is_waiting());
            now += Duration::from_millis(*busy);
        }
        None
    }

    #[test]
    fn silence_is_cut_at_the_end_of_the_first_window() {
        assert_eq!(cut(240, &[(60_000, 0, 0)]), Some(WINDOW));
        assert_eq!(cut(1, &[(9_999, 9, 0), (1, 0, 0), (1, 0, 0)]), Some(WINDOW));
        assert_eq!(cut(1, &[(9_999, 10, 0), (1, 0, 0), (9_999, 10, 0)]), None);
    }

    #[test]
    fn what_came_fast_before_does_not_count_for_ever() {
        let stops = [(1_000, 1 << 30, 0), (60_000, 0, 0)];
        assert_eq!(cut(240, &stops), Some(2 * WINDOW));
    }

    proptest! {
        #[test]
        fn whoever_keeps_well_to_the_rate_is_never_cut(
            least in 1u64..100_000,
            steps in prop::collection::vec((1u64..=1_000, 0u64..100_000), 1..400),
        ) {
            // A window may end within a step of at most a second; a fifth more makes up for it.
            let steps: Vec<Step> = steps
                .into_iter()
                .map(|(wait, busy)| (wait, (least * wait * 12).div_ceil(10_000) as usize, busy))
                .collect();
            prop_assert_eq!(cut(least, &steps), None);
        }

        #[test]
        fn whoever_sends_half_of_it_is_cut_when_the_window_ends(
            least in 2u64..100_000,
            wait in 10u64..=1_000,
            busy in 0u64..100_000,
        ) {
            let bytes = (least * wait / 2000) as usize;
            let steps = vec![(wait, bytes, busy); 20_000 / wait as usize];
            let cut = cut(least, &steps);
            prop_assert!(cut.is_some_and(|at| at >= WINDOW && at <= WINDOW + SECOND), "{:?}", cut);
        }

        #[test]
        fn a_backend_that_does_not_read_is_not_the_clients_fault(busy in 0u64..10_000_000) {
            prop_assert_eq!(cut(240, &[(9_000, 0, busy), (900, 0, busy), (99, 0, busy)]), None);
        }
    }
}
