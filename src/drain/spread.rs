//! Ends that are spread over a time, so that not everybody comes back elsewhere in one moment.

use std::time::{Duration, Instant};

/// Closing time: the end of a drain with a deadline, in which tokens no longer hold.
const CLOSING_SHARE: u32 = 5;
const CLOSING_MIN: Duration = Duration::from_secs(1);
const CLOSING_MAX: Duration = Duration::from_secs(30);

/// How long before a deadline the last tunnel is told to end, so that it has a moment for it.
const LEAD: Duration = Duration::from_millis(200);

/// How long closing time is, of the time that a drain or a shutdown has: the last fifth, at least
/// a second of it and at most half a minute.
pub fn closing_time(whole: Duration) -> Duration {
    (whole / CLOSING_SHARE).clamp(CLOSING_MIN, CLOSING_MAX)
}

/// Spreads the ends of tunnels over what is left of a time, evenly. Whoever owns it asks every now
/// and then how many are due; what comes or goes meanwhile is taken into account.
#[derive(Clone, Copy, Debug)]
pub struct Spread {
    looked: Instant,
    /// The part of a tunnel that is due and cannot be told yet.
    owed: f64,
}

impl Spread {
    pub fn begin(now: Instant) -> Self {
        Self { looked: now, owed: 0.0 }
    }

    /// How many of `left` are told now, so that all are by `deadline`, a moment before it.
    pub fn due(&mut self, left: u64, deadline: Instant, now: Instant) -> u64 {
        let passed = now.saturating_duration_since(self.looked).as_secs_f64();
        let ahead = deadline.saturating_duration_since(self.looked).saturating_sub(LEAD).as_secs_f64();
        self.looked = now;
        if passed >= ahead {
            self.owed = 0.0;
            return left;
        }
        self.owed += (left as f64 - self.owed).max(0.0) * (passed / ahead);
        let due = (self.owed as u64).min(left);
        self.owed -= due as f64;
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// However often somebody looks, whoever leaves or comes meanwhile: nobody is left untold
        /// at the deadline, and no look tells more than its share of what is left, and one.
        #[test]
        fn tunnels_are_told_one_after_the_other_and_all_before_the_deadline(
            tunnels in 0..2_000_u64, millis in 300..60_000_u64,
            looks in proptest::collection::vec((1..400_u64, 0..3_u64, 0..3_u64), 1..600),
        ) {
            let began = Instant::now();
            let (mut now, mut before, deadline) = (began, began, began + Duration::from_millis(millis));
            let (mut spread, mut left) = (Spread::begin(began), tunnels);
            for (wait, leave, come) in looks {
                now += Duration::from_millis(wait);
                if now + LEAD >= deadline { break; }
                left = left.saturating_sub(leave) + come;
                let due = spread.due(left, deadline, now);
                let share = (now - before).as_secs_f64() / (deadline - LEAD - before).as_secs_f64();
                prop_assert!(due <= left && due as f64 <= left as f64 * share + 1.0, "{due} of {left}, {share}");
                (left, before) = (left - due, now);
            }
            prop_assert_eq!(spread.due(left, deadline, deadline - LEAD), left);
        }

        /// Looked at every tenth of a second, with nobody coming or going, a minute's tunnels are
        /// told as evenly as whole numbers allow.
        #[test]
        fn an_undisturbed_spread_is_even(tunnels in 1..5_000_u64, seconds in 1..120_u64) {
            let (began, step) = (Instant::now(), Duration::from_millis(100));
            let deadline = began + Duration::from_secs(seconds);
            let (mut spread, mut left, mut now) = (Spread::begin(began), tunnels, began);
            let whole = (deadline - LEAD - began).as_secs_f64();
            while now + LEAD < deadline {
                left -= spread.due(left, deadline, now);
                let expected = tunnels as f64 * (1.0 - (now - began).as_secs_f64() / whole);
                prop_assert!((-0.001..=1.001).contains(&(left as f64 - expected)), "{left}, {expected}");
                now += step;
            }
            prop_assert_eq!(spread.due(left, deadline, now), left);
        }
    }
}
