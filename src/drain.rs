//! Phases: what an operator, the file or a health answer wants of a backend, and who prevails.
//!
//! Start at [`Words`], then [`Drain`], the way from an order to "safe to stop". Pure: `now` is
//! passed in, and what is being drained is not known here.

use std::fmt;
use std::time::{Duration, Instant};

/// How far a backend, a listener or the process is on its way out. Ordered by how much it
/// restricts, so that the most restrictive of several is their maximum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    #[default]
    Active,
    /// Nobody new; those it knows stay.
    Draining,
    /// Nothing is left on it; it takes nothing until `ready`.
    Drained,
    /// A drain whose deadline has passed, with probes off.
    Stopped,
}

impl Phase {
    /// As it is spelled in the file, the API and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Draining => "draining",
            Self::Drained => "drained",
            Self::Stopped => "stopped",
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        let all = [Self::Active, Self::Draining, Self::Drained, Self::Stopped];
        all.into_iter().find(|phase| phase.name() == name)
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Who asked for a phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    File,
    Operator,
    /// The backend itself, by answering its probe with a `drain_on` status.
    Health,
}

impl Source {
    pub fn name(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Operator => "operator",
            Self::Health => "health",
        }
    }
}

/// What each source wants of one backend. The most restrictive counts, except that an
/// operator's word takes the place of the file's until the file's changes or until `ready`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Words {
    pub file: Phase,
    pub operator: Option<Phase>,
    pub health: Phase,
}

impl Words {
    /// The phase that counts now.
    pub fn phase(&self) -> Phase {
        self.operator.unwrap_or(self.file).max(self.health)
    }

    /// Whose word the phase is: the operator before the file, either before the health answer.
    pub fn source(&self) -> Source {
        let phase = self.phase();
        match self.operator {
            Some(word) if word == phase => Source::Operator,
            None if self.file == phase => Source::File,
            _ => Source::Health,
        }
    }

    /// Takes the file's new word. A change of the file ends the operator's.
    pub fn file_says(&mut self, word: Phase) {
        if word != self.file {
            self.operator = None;
        }
        self.file = word;
    }

    /// `ready`: the operator's word goes back to active. Over a file that says otherwise this
    /// holds and is drift; it cannot overrule the health answer.
    pub fn ready(&mut self) -> Result<(), Source> {
        self.operator = (self.file != Phase::Active).then_some(Phase::Active);
        if self.phase() == Phase::Active { Ok(()) } else { Err(self.source()) }
    }

    /// Whether what runs differs from what the file says.
    pub fn drifts(&self) -> bool {
        self.operator.is_some_and(|word| word != self.file)
    }
}

/// Closing time: the end of a drain with a deadline, in which tokens no longer hold.
const CLOSING_SHARE: u32 = 5;
const CLOSING_MIN: Duration = Duration::from_secs(1);
const CLOSING_MAX: Duration = Duration::from_secs(30);

/// How long those who were cut may take to let go of the backend.
const CUT_GRACE: Duration = Duration::from_secs(1);

/// One drain of one backend, from the order to the moment it is safe to stop it. Whoever owns
/// it calls [`Drain::step`] and does what it says.
#[derive(Clone, Debug)]
pub struct Drain {
    pub began: Instant,
    pub deadline: Option<Instant>,
    /// Known sessions stay until closing time.
    pub keeps: bool,
    /// How often every thread was asked to look.
    asked: u32,
    /// Every thread has seen how the backend stands now: "nothing in flight" means what it says.
    acknowledged: bool,
    /// Until then sessions may come that nobody here has counted.
    strangers_until: Option<Instant>,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Waiting,
    /// Tokens no longer hold.
    Closing,
    Cutting {
        until: Instant,
    },
    Emptying,
    Over,
}

/// What is left on a backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Left {
    pub in_flight: u64,
    pub tunnels: u64,
    pub sessions: u64,
}

/// What the owner of a drain has to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Tokens no longer hold: shut the backend, and [`Drain::ask`].
    CloseTokens,
    /// End what is left, and [`Drain::ask`].
    Cut,
    /// Tokens no longer hold: shut the backend, close the idle connections, then call
    /// [`Drain::emptied`].
    CloseIdle,
}

impl Drain {
    pub fn begin(keeps: bool, deadline: Option<Instant>, now: Instant) -> Self {
        Self {
            began: now,
            deadline,
            keeps,
            asked: 0,
            acknowledged: false,
            strangers_until: None,
            stage: Stage::Waiting,
        }
    }

    /// One that an earlier process began, and may have brought to its end.
    pub fn resume(keeps: bool, deadline: Option<Instant>, began: Instant, over: bool) -> Self {
        let stage = if over { Stage::Over } else { Stage::Waiting };
        Self { stage, ..Self::begin(keeps, deadline, began) }
    }

    /// It goes on from an earlier process, whose sessions are known here only once they come: until
    /// then a count of none does not mean that nobody is left.
    pub fn expect_strangers(&mut self, until: Instant) {
        self.strangers_until = Some(until);
    }

    /// A second order can only hurry the first.
    pub fn hurry(&mut self, deadline: Option<Instant>) {
        self.deadline = match (self.deadline, deadline) {
            (Some(old), Some(new)) => Some(old.min(new)),
            (old, new) => old.or(new),
        };
    }

    /// Every thread is asked to look how the backend stands from now on. Their acknowledgement has
    /// this number.
    pub fn ask(&mut self) -> u32 {
        self.asked += 1;
        self.acknowledged = false;
        self.asked
    }

    /// Every thread has done what was asked under this number. Of a question that was followed by
    /// another it means nothing.
    pub fn acknowledge(&mut self, asked: u32) {
        self.acknowledged |= asked == self.asked;
    }

    /// Every thread has closed its idle connections, and knows that tokens no longer hold. Somebody
    /// may have come by one just before that; who is there after the deadline is not waited for.
    pub fn emptied(&mut self, left: Left, now: Instant) {
        if self.stage == Stage::Emptying {
            let nobody = left.in_flight == 0 && left.tunnels == 0;
            let late = self.deadline.is_some_and(|deadline| deadline <= now);
            self.stage = if nobody || late { Stage::Over } else { Stage::Closing };
        }
    }

    pub fn is_over(&self) -> bool {
        self.stage == Stage::Over
    }

    /// Whether a valid token still leads to the backend.
    pub fn holds_tokens(&self) -> bool {
        self.keeps && self.stage == Stage::Waiting
    }

    pub fn step(&mut self, left: Left, now: Instant) -> Option<Step> {
        let idle = self.acknowledged && left.in_flight == 0 && left.tunnels == 0;
        match self.stage {
            Stage::Waiting | Stage::Closing if self.deadline.is_some_and(|deadline| deadline <= now) => {
                self.stage = Stage::Cutting { until: now + CUT_GRACE };
                Some(Step::Cut)
            }
            Stage::Waiting if self.keeps && self.closing_began(now) => {
                self.stage = Stage::Closing;
                Some(Step::CloseTokens)
            }
            Stage::Waiting
                if idle && (!self.keeps || left.sessions == 0 && !self.strangers_may_come(now)) =>
            {
                self.empty()
            }
            Stage::Closing if idle => self.empty(),
            Stage::Cutting { until } if idle || until <= now => self.empty(),
            _ => None,
        }
    }

    fn empty(&mut self) -> Option<Step> {
        self.stage = Stage::Emptying;
        Some(Step::CloseIdle)
    }

    fn strangers_may_come(&self, now: Instant) -> bool {
        self.strangers_until.is_some_and(|until| now < until)
    }

    /// The last fifth of the deadline, at least a second of it and at most half a minute.
    fn closing_began(&self, now: Instant) -> bool {
        self.deadline.is_some_and(|deadline| {
            let whole = deadline.saturating_duration_since(self.began);
            now + (whole / CLOSING_SHARE).clamp(CLOSING_MIN, CLOSING_MAX) >= deadline
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn phase() -> impl Strategy<Value = Phase> {
        prop_oneof![Just(Phase::Active), Just(Phase::Draining), Just(Phase::Drained), Just(Phase::Stopped)]
    }

    #[test]
    fn an_operators_word_holds_until_the_files_changes() {
        let mut words = Words { operator: Some(Phase::Draining), ..Words::default() };
        words.file_says(Phase::Active);
        assert_eq!(words.phase(), Phase::Draining);
        words.file_says(Phase::Stopped);
        assert_eq!((words.phase(), words.operator), (Phase::Stopped, None));
    }

    #[test]
    fn ready_over_a_file_that_says_draining_is_drift_and_holds() {
        let mut words = Words { file: Phase::Draining, ..Words::default() };
        assert_eq!(words.ready(), Ok(()));
        assert!(words.drifts());
        words.file_says(Phase::Draining);
        assert_eq!(words.phase(), Phase::Active);
    }

    #[test]
    fn a_drain_of_an_earlier_process_waits_for_whom_that_one_knew() {
        let began = Instant::now();
        let at = |seconds| began + Duration::from_secs(seconds);
        let mut drain = Drain::begin(true, Some(at(600)), began);
        drain.expect_strangers(at(300));
        acknowledged(&mut drain);
        assert_eq!(drain.step(Left::default(), at(299)), None);
        assert!(drain.holds_tokens());
        assert_eq!(drain.step(Left { sessions: 1, ..Left::default() }, at(301)), None);
        assert_eq!(drain.step(Left::default(), at(302)), Some(Step::CloseIdle));
    }

    #[test]
    fn a_drain_that_another_process_began_keeps_its_closing_time_and_its_end() {
        let began = Instant::now();
        let at = |seconds| began + Duration::from_secs(seconds);
        let mut drain = Drain::resume(true, Some(at(60)), began, false);
        acknowledged(&mut drain);
        let left = Left { sessions: 1, ..Left::default() };
        assert_eq!(drain.step(left, at(40)), None);
        assert_eq!(drain.step(left, at(48)), Some(Step::CloseTokens));
        let mut drain = Drain::resume(true, None, began, true);
        assert!(drain.is_over() && !drain.holds_tokens());
        assert_eq!(drain.step(left, at(1)), None);
    }

    #[test]
    fn ready_cannot_overrule_the_health_answer() {
        let mut words = Words { health: Phase::Draining, operator: Some(Phase::Stopped), ..Words::default() };
        assert_eq!(words.ready(), Err(Source::Health));
        assert_eq!(words.phase(), Phase::Draining);
    }

    proptest! {
        #[test]
        fn the_source_named_always_holds_the_phase(file in phase(), operator in proptest::option::of(phase()), health in phase()) {
            let words = Words { file, operator, health };
            let held = match words.source() {
                Source::File => words.file,
                Source::Operator => words.operator.expect("the operator has a word when it is the source"),
                Source::Health => words.health,
            };
            prop_assert_eq!(held, words.phase());
        }
    }

    const HALF_AN_HOUR: u64 = 1800;

    fn acknowledged(drain: &mut Drain) {
        let asked = drain.ask();
        drain.acknowledge(asked);
    }

    fn left(in_flight: u64, sessions: u64) -> Left {
        Left { in_flight, tunnels: 0, sessions }
    }

    #[test]
    fn in_flight_zero_means_nothing_before_every_thread_knows() {
        let now = Instant::now();
        let mut drain = Drain::begin(false, None, now);
        assert_eq!(drain.step(left(0, 0), now), None);
        acknowledged(&mut drain);
        assert_eq!(drain.step(left(1, 0), now), None);
        assert_eq!(
            drain.step(left(0, 9), now),
            Some(Step::CloseIdle),
            "a pool without sessions does not wait for any"
        );
        assert!(!drain.is_over());
        drain.emptied(left(1, 0), now);
        assert!(!drain.is_over(), "somebody has come meanwhile");
        assert_eq!(drain.step(left(0, 9), now), Some(Step::CloseIdle));
        drain.emptied(left(0, 9), now);
        assert!(drain.is_over());
    }

    #[test]
    fn who_looked_before_closing_time_has_not_seen_it() {
        let began = Instant::now();
        let closing = began + Duration::from_secs(48);
        let mut drain = Drain::begin(true, Some(began + Duration::from_secs(60)), began);
        let early = drain.ask();
        assert_eq!(drain.step(left(0, 1), closing), Some(Step::CloseTokens));
        let late = drain.ask();
        drain.acknowledge(early);
        assert_eq!(drain.step(left(0, 1), closing), None);
        drain.acknowledge(late);
        assert_eq!(drain.step(left(0, 1), closing), Some(Step::CloseIdle));
    }

    #[test]
    fn sessions_hold_a_drain_until_closing_time_and_requests_until_the_deadline() {
        let began = Instant::now();
        let at = |secs| began + Duration::from_secs(secs);
        let mut drain = Drain::begin(true, Some(at(60)), began);
        acknowledged(&mut drain);
        assert_eq!(drain.step(left(0, 3), at(47)), None);
        assert!(drain.holds_tokens());
        assert_eq!(drain.step(left(1, 3), at(48)), Some(Step::CloseTokens));
        assert!(!drain.holds_tokens());
        acknowledged(&mut drain);
        assert_eq!(drain.step(left(1, 3), at(59)), None);
        assert_eq!(drain.step(left(1, 3), at(60)), Some(Step::Cut));
        assert_eq!(drain.step(left(1, 3), at(60)), None);
        assert_eq!(drain.step(left(0, 3), at(60)), Some(Step::CloseIdle));
    }

    proptest! {
        /// Whatever happens, a drain with a deadline is over soon after it, tokens hold only
        /// before closing time, and nothing is cut before the deadline.
        #[test]
        fn a_deadline_makes_it_true_by_force(
            keeps: bool, secs in 0..HALF_AN_HOUR,
            looks in proptest::collection::vec((0..4_u64, 0..3_u64, 0..120_u64, any::<bool>()), 1..200),
        ) {
            let began = Instant::now();
            let deadline = began + Duration::from_secs(secs);
            let mut drain = Drain::begin(keeps, Some(deadline), began);
            let mut now = began;
            for (in_flight, sessions, wait, acknowledge) in looks {
                now += Duration::from_secs(wait);
                if acknowledge { acknowledged(&mut drain); }
                match drain.step(left(in_flight, sessions), now) {
                    Some(Step::Cut) => prop_assert!(now >= deadline),
                    Some(Step::CloseIdle) => drain.emptied(left(in_flight, sessions), now),
                    _ => {}
                }
                prop_assert!(!drain.holds_tokens() || now < deadline || secs == 0);
            }
            for _ in 0..4 {
                now = now.max(deadline) + CUT_GRACE;
                if drain.step(left(1, 1), now) == Some(Step::CloseIdle) { drain.emptied(left(1, 1), now); }
            }
            prop_assert!(drain.is_over());
        }
    }
}
