//! How many of a route's requests may be sent again. Pure.
//!
//! Where backends fail because they have too much to do, sending again makes it worse. So what is
//! sent again is limited to a share of what came in the last ten seconds, and a little more, for
//! routes on which little happens. Each thread keeps one for each route: one writer, no lock.

use std::time::Instant;

/// Seconds that are remembered.
const WINDOW: usize = 10;

/// What each thread may always send again in a second, on the average of the window.
const FLOOR_PER_SECOND: u32 = 3;

#[derive(Clone, Debug)]
pub struct Budget {
    /// 0: nothing is sent again.
    share: f64,
    born: Instant,
    /// The current one, counted from birth.
    second: u64,
    slots: [Slot; WINDOW],
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    requests: u32,
    spent: u32,
}

impl Budget {
    pub fn new(share: f64, now: Instant) -> Self {
        Self { share, born: now, second: 0, slots: Default::default() }
    }

    /// The same counts under another share.
    pub fn with_share(&self, share: f64) -> Self {
        Self { share, ..self.clone() }
    }

    /// A request has come.
    pub fn came(&mut self, now: Instant) {
        let slot = self.slot(now);
        slot.requests = slot.requests.saturating_add(1);
    }

    /// Whether a request may be sent again; if so, that is counted.
    pub fn spend(&mut self, now: Instant) -> bool {
        self.slot(now);
        let sum = |of: fn(&Slot) -> u32| self.slots.iter().map(|slot| f64::from(of(slot))).sum::<f64>();
        let floor = if self.share > 0.0 { f64::from(FLOOR_PER_SECOND) * WINDOW as f64 } else { 0.0 };
        let allowed = sum(|slot| slot.requests) * self.share + floor;
        let may = sum(|slot| slot.spent) + 1.0 <= allowed;
        self.slot(now).spent += u32::from(may);
        may
    }

    /// The current second's counts. An older reading of the clock counts as the newest one.
    fn slot(&mut self, now: Instant) -> &mut Slot {
        let second = now.saturating_duration_since(self.born).as_secs();
        let passed = second.saturating_sub(self.second).min(WINDOW as u64);
        self.second = self.second.max(second);
        for ago in 0..passed {
            self.slots[((self.second - ago) % WINDOW as u64) as usize] = Slot::default();
        }
        &mut self.slots[(self.second % WINDOW as u64) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    const FLOOR: usize = FLOOR_PER_SECOND as usize * WINDOW;

    fn spends(budget: &mut Budget, tries: usize, now: Instant) -> usize {
        (0..tries).filter(|_| budget.spend(now)).count()
    }

    #[test]
    fn a_quiet_route_may_send_a_few_again_and_a_busy_one_its_share() {
        let now = Instant::now();
        let mut budget = Budget::new(0.2, now);
        assert_eq!(spends(&mut budget, 100, now), FLOOR);
        (0..1000).for_each(|_| budget.came(now));
        assert_eq!(spends(&mut budget, 1000, now), 200);
        assert_eq!(spends(&mut Budget::new(0.0, now), 5, now), 0);
    }

    #[test]
    fn what_was_is_forgotten_after_the_window_and_not_before() {
        let now = Instant::now();
        let at = |seconds| now + Duration::from_secs(seconds);
        let mut budget = Budget::new(0.5, now);
        assert_eq!(spends(&mut budget, 100, now), FLOOR);
        assert_eq!(spends(&mut budget, 100, at(9)), 0);
        assert_eq!(spends(&mut budget, 100, at(10)), FLOOR);
        (0..100).for_each(|_| budget.came(at(11)));
        assert_eq!(spends(&mut budget, 100, at(20)), 50 + FLOOR, "seconds 11 to 20");
        assert_eq!(spends(&mut budget, 100, at(100_000)), FLOOR);
    }

    proptest! {
        #[test]
        fn no_ten_seconds_spend_more_than_their_share_and_the_floor(
            events in prop::collection::vec((0_u64..3, 0_u32..30, 0_usize..60), 1..60),
            share in 0.01_f64..1.0,
        ) {
            let born = Instant::now();
            let mut budget = Budget::new(share, born);
            let mut history: Vec<(u64, u32, usize)> = Vec::new();
            let mut second = 0;
            for (pause, requests, tries) in events {
                second += pause;
                let now = born + Duration::from_secs(second);
                (0..requests).for_each(|_| budget.came(now));
                let spent = spends(&mut budget, tries, now);
                history.push((second, requests, spent));
                let window = history.iter().filter(|(at, ..)| at + WINDOW as u64 > second);
                let (came, spent) = window.fold((0, 0), |sum, now| (sum.0 + now.1, sum.1 + now.2));
                // What was allowed when it was spent may have been more than is allowed now.
                let before = history.iter().filter(|(at, ..)| at + 2 * WINDOW as u64 > second);
                let most = before.map(|(_, requests, _)| requests).sum::<u32>();
                prop_assert!(spent as f64 <= f64::from(most) * share + FLOOR as f64, "{came} {spent}");
            }
        }
    }
}
