//! Ejection: a backend whose attempts fail, or whose answers are errors, sits out for a while.
//!
//! Start at [`Outlier::blame`]. Pure, and the control thread's alone: data threads send it evidence
//! of what failed, and nothing of what went well. What went well is read off the backend's counts,
//! which are kept anyway, when evidence comes: if any has been added, the row begins anew. Whether
//! the pool can spare the backend is [`can_spare`]'s decision, and what ejection means for visits
//! `status`'s.

use std::time::{Duration, Instant};

use crate::plan::OutlierPlan;

/// No ejection is longer, and after so long without one the next is as short as the first.
pub const EJECT_MAX: Duration = Duration::from_secs(300);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// An attempt got no answer.
    NoAnswer,
    /// It was answered 500 to 599.
    ServerError,
}

/// What a backend has answered in all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answers {
    pub all: u64,
    pub server_errors: u64,
}

#[derive(Clone, Debug, Default)]
pub struct Outlier {
    silences: Row,
    server_errors: Row,
    /// How often in a row it was ejected.
    times: u32,
    until: Option<Instant>,
    /// When the last ejection ended.
    ended: Option<Instant>,
}

/// Faults with nothing better between them.
#[derive(Clone, Copy, Debug, Default)]
struct Row {
    length: u32,
    better: u64,
}

impl Row {
    fn add(&mut self, better: u64) -> u32 {
        self.length = if self.better == better { self.length + 1 } else { 1 };
        self.better = better;
        self.length
    }
}

impl Outlier {
    /// Takes in a fault. Tells how many there were in a row, once that is enough to be ejected for.
    pub fn blame(&mut self, fault: Fault, answers: Answers, plan: &OutlierPlan) -> Option<u32> {
        if self.is_ejected() {
            return None;
        }
        let (row, enough) = match fault {
            // Any answer shows that it lives.
            Fault::NoAnswer => (self.silences.add(answers.all), plan.consecutive_errors),
            Fault::ServerError => {
                (self.server_errors.add(answers.all - answers.server_errors), plan.consecutive_5xx)
            }
        };
        (enough > 0 && row >= enough).then_some(row)
    }

    /// Ejects it, and tells for how long.
    pub fn eject(&mut self, plan: &OutlierPlan, now: Instant) -> Duration {
        if self.ended.is_some_and(|ended| now.saturating_duration_since(ended) >= EJECT_MAX) {
            self.times = 0;
        }
        let length = plan.eject.saturating_mul(1 << self.times.min(16)).min(EJECT_MAX);
        (self.silences, self.server_errors) = Default::default();
        self.times += 1;
        self.until = Some(now + length);
        length
    }

    pub fn is_ejected(&self) -> bool {
        self.until.is_some()
    }

    /// How much longer it sits out.
    pub fn left(&self, now: Instant) -> Option<Duration> {
        self.until.map(|until| until.saturating_duration_since(now))
    }

    /// Ends an ejection whose time has come; by then it tells so, once.
    pub fn ends(&mut self, now: Instant) -> bool {
        let over = self.until.is_some_and(|until| now >= until);
        if over {
            self.until = None;
            self.ended = Some(now);
        }
        over
    }
}

/// Whether a pool of `backends` of which `ejected` sit out can do without one more; `others_open`:
/// somebody else stands open.
pub fn can_spare(backends: usize, ejected: usize, others_open: bool, plan: &OutlierPlan) -> bool {
    let most = (backends as f64 * plan.max_ejected).floor() as usize;
    others_open && ejected < most
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const EJECT: Duration = Duration::from_secs(30);

    fn plan() -> OutlierPlan {
        OutlierPlan { consecutive_errors: 3, consecutive_5xx: 2, eject: EJECT, max_ejected: 0.5 }
    }

    #[test]
    fn three_silences_in_a_row_eject_and_any_answer_between_them_does_not() {
        let mut outlier = Outlier::default();
        let mut blame = |all| outlier.blame(Fault::NoAnswer, Answers { all, server_errors: 0 }, &plan());
        assert_eq!([blame(7), blame(7), blame(8), blame(8)], [None; 4]);
        assert_eq!(blame(8), Some(3));
    }

    #[test]
    fn server_errors_count_for_themselves_and_only_where_that_is_asked_for() {
        let answers = |all, server_errors| Answers { all, server_errors };
        let mut outlier = Outlier::default();
        assert_eq!(outlier.blame(Fault::ServerError, answers(5, 1), &plan()), None);
        assert_eq!(outlier.blame(Fault::ServerError, answers(7, 2), &plan()), None, "a good one came");
        assert_eq!(outlier.blame(Fault::ServerError, answers(8, 3), &plan()), Some(2));
        let off = OutlierPlan { consecutive_5xx: 0, ..plan() };
        assert_eq!(outlier.blame(Fault::ServerError, answers(9, 4), &off), None);
    }

    #[test]
    fn an_ejection_ends_by_time_doubles_and_is_forgotten() {
        let now = Instant::now();
        let mut outlier = Outlier::default();
        let (mut at, mut lengths) = (now, Vec::new());
        for _ in 0..6 {
            let length = outlier.eject(&plan(), at);
            assert_eq!(outlier.blame(Fault::NoAnswer, Answers::default(), &plan()), None);
            assert!(!outlier.ends(at + length - Duration::from_nanos(1)));
            at += length;
            assert!(outlier.ends(at) && !outlier.ends(at) && !outlier.is_ejected());
            lengths.push(length.as_secs());
        }
        assert_eq!(lengths, [30, 60, 120, 240, 300, 300]);
        assert_eq!(outlier.eject(&plan(), at + EJECT_MAX), EJECT);
    }

    proptest! {
        #[test]
        fn the_last_backend_and_more_than_the_share_are_never_ejected(
            backends in 1_usize..20, max_ejected in 0.0_f64..=1.0,
        ) {
            let plan = OutlierPlan { max_ejected, ..plan() };
            let mut ejected = 0;
            while can_spare(backends, ejected, backends - ejected > 1, &plan) {
                ejected += 1;
            }
            prop_assert!(ejected < backends && ejected as f64 <= backends as f64 * max_ejected);
        }
    }
}
