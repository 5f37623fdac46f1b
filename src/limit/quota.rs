//! How many requests one client may make: a rate, and how many may come at once. Pure.
//!
//! The generic cell rate algorithm, as ATM networks police their cells: the virtual scheduling
//! algorithm of ITU-T I.371, annex A.1, and of the ATM Forum's Traffic Management Specification 4.0
//! (af-tm-0056.000). Of a client one number is kept: when its next request would be due if they came
//! evenly. Whoever comes earlier than that by more than the burst allows is refused, and a refusal
//! costs nothing.

use crate::plan::LimitPlan;

/// In nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Between two requests that come evenly.
    interval: u64,
    /// How much too early a request may come.
    tolerance: u64,
}

impl Quota {
    /// A rate that does not divide the second is rounded up, to whole nanoseconds between requests.
    pub fn new(plan: &LimitPlan) -> Self {
        let per = u64::try_from(plan.per.as_nanos()).unwrap_or(u64::MAX);
        let interval = per / u64::from(plan.requests.max(1));
        Self { interval, tolerance: interval.saturating_mul(u64::from(plan.burst.max(1)) - 1) }
    }

    /// One more request of a client whose next is `due`, and when the one after it is due; or how long
    /// it has to wait for its turn.
    pub(super) fn ask(self, due: u64, now: u64) -> (u64, Result<(), u64>) {
        // Under an earlier quota a client may have come to owe more than anybody can under this one.
        let most = now.saturating_add(self.interval).saturating_add(self.tolerance);
        let due = due.clamp(now, most);
        match (due - now).checked_sub(self.tolerance) {
            Some(wait) if wait > 0 => (due, Err(wait)),
            _ => (due.saturating_add(self.interval), Ok(())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::HashOn;
    use proptest::prelude::*;
    use std::time::Duration;

    const SECOND: u64 = 1_000_000_000;

    fn quota(requests: u32, per: u64, burst: u32) -> Quota {
        let per = Duration::from_secs(per);
        Quota::new(&LimitPlan { requests, per, burst, key: HashOn::ClientIp })
    }

    /// What passes of requests at these times.
    fn passes(quota: Quota, times: impl IntoIterator<Item = u64>) -> Vec<u64> {
        let mut due = 0;
        let mut passed = Vec::new();
        for now in times {
            let (next, answer) = quota.ask(due, now);
            due = next;
            if answer.is_ok() {
                passed.push(now);
            }
        }
        passed
    }

    #[test]
    fn a_burst_passes_at_once_and_then_one_for_each_interval() {
        let quota = quota(10, 1, 3);
        let tenth = SECOND / 10;
        let times = [0, 0, 0, 0, tenth - 1, tenth, tenth, 5 * tenth, 5 * tenth, 5 * tenth, 5 * tenth];
        assert_eq!(passes(quota, times), [0, 0, 0, tenth, 5 * tenth, 5 * tenth, 5 * tenth]);
    }

    #[test]
    fn who_is_refused_is_told_when_to_come_and_passes_then() {
        let quota = quota(2, 3600, 1);
        let (due, first) = quota.ask(0, 0);
        let (due, second) = quota.ask(due, 600 * SECOND);
        assert_eq!((first, second), (Ok(()), Err(1200 * SECOND)));
        assert_eq!(quota.ask(due, 1800 * SECOND - 1).1, Err(1));
        assert_eq!(quota.ask(due, 1800 * SECOND).1, Ok(()));
    }

    #[test]
    fn what_was_owed_under_a_slower_rate_is_cut_to_what_this_one_lets_owe() {
        let (slow, fast) = (quota(1, 3600, 2), quota(10, 1, 2));
        let owed = passes(slow, [0, 0]).len() as u64 * 3600 * SECOND;
        let (due, answer) = fast.ask(owed, 0);
        assert_eq!((due, answer), (SECOND / 5, Err(SECOND / 10)));
        assert_eq!(fast.ask(due, SECOND / 10).1, Ok(()));
    }

    #[test]
    fn the_largest_numbers_overflow_nothing() {
        for quota in [quota(1, 3600, 1_000_000), quota(u32::MAX, 3600, 1_000_000), quota(0, 1, 0)] {
            for now in [0, SECOND, u64::MAX / 2, u64::MAX] {
                let (due, _) = quota.ask(u64::MAX, now);
                let _ = quota.ask(due, u64::MAX);
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]
        #[test]
        fn no_window_lets_more_pass_than_the_burst_and_the_rate(
            (requests, per) in (1_u32..2000, prop::sample::select(vec![1_u64, 60])),
            burst in 1_u32..20,
            pauses in prop::collection::vec(prop_oneof![Just(0), 0_u64..2_000_000, 0..SECOND, 0..90 * SECOND], 1..120),
        ) {
            let quota = quota(requests, per, burst);
            let mut now = 0;
            let times = pauses.into_iter().map(|pause| { now += pause; now });
            let passed = passes(quota, times);
            for (first, from) in passed.iter().enumerate() {
                for (last, to) in passed.iter().enumerate().skip(first) {
                    let most = u64::from(burst) + (to - from) / quota.interval;
                    prop_assert!((last - first + 1) as u64 <= most, "{from} to {to}: {:?}", passed);
                }
            }
            prop_assert!(!passed.is_empty());
        }

        #[test]
        fn who_keeps_to_the_rate_is_never_refused(
            (requests, per) in (1_u32..2000, prop::sample::select(vec![1_u64, 60, 3600])),
            burst in 1_u32..20,
            late in prop::collection::vec(prop_oneof![Just(0), 0_u64..10 * SECOND], 1..120),
        ) {
            let quota = quota(requests, per, burst);
            // A request in each interval at least, after the one before.
            let evenly = (per * SECOND).div_ceil(requests.into());
            let mut now = 0;
            let times: Vec<_> = late.into_iter().map(|late| { now += evenly + late; now }).collect();
            prop_assert_eq!(passes(quota, times.clone()), times);
        }

        #[test]
        fn nor_is_who_comes_in_bursts_that_the_rate_makes_up_for(
            (requests, burst) in (1_u32..2000, 1_u32..20),
            bursts in prop::collection::vec(0_u64..10 * SECOND, 1..20),
        ) {
            let quota = quota(requests, 1, burst);
            let mut now = 0;
            let mut times = Vec::new();
            for late in bursts {
                now += quota.interval * u64::from(burst) + late;
                times.extend(vec![now; burst as usize]);
            }
            prop_assert_eq!(passes(quota, times.clone()), times);
        }
    }
}
