//! Phases: what an operator, the file or a health answer wants of a backend, and who prevails.
//!
//! Start at [`Words`], then [`Drain`], the way from an order to "safe to stop", and [`Spread`], which
//! paces the ends of tunnels. Pure: `now` is passed in, and what is being drained is not known here.

mod spread;
#[cfg(test)]
mod tests;

use std::fmt;
use std::time::{Duration, Instant};

pub use self::spread::{Spread, closing_time};

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

/// How long requests that were cut may take to let go of the backend, and tunnels: a frame that
/// must end and a Close that must be answered take two seconds at most.
const CUT_GRACE: Duration = Duration::from_secs(1);
const TUNNELS_GRACE: Duration = Duration::from_secs(3);

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
    /// The ends of tunnels, once they are told.
    spread: Option<Spread>,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Waiting,
    /// Tokens no longer hold.
    Closing,
    Cutting {
        since: Instant,
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
            spread: None,
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
                self.stage = Stage::Cutting { since: now };
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
            Stage::Cutting { since } => {
                let grace = if left.tunnels == 0 { CUT_GRACE } else { TUNNELS_GRACE };
                if idle || since + grace <= now { self.empty() } else { None }
            }
            _ => None,
        }
    }

    /// How many are told now of `untold` tunnels that may be told to end before the deadline: over
    /// closing time, or over all the time there is where no sessions are kept.
    pub fn tunnels_due(&mut self, untold: u64, now: Instant) -> u64 {
        let open = self.stage == Stage::Closing || self.stage == Stage::Waiting && !self.keeps;
        match self.deadline {
            Some(deadline) if open => {
                self.spread.get_or_insert_with(|| Spread::begin(now)).due(untold, deadline, now)
            }
            _ => 0,
        }
    }

    fn empty(&mut self) -> Option<Step> {
        self.stage = Stage::Emptying;
        Some(Step::CloseIdle)
    }

    fn strangers_may_come(&self, now: Instant) -> bool {
        self.strangers_until.is_some_and(|until| now < until)
    }

    fn closing_began(&self, now: Instant) -> bool {
        self.deadline.is_some_and(|deadline| {
            now + closing_time(deadline.saturating_duration_since(self.began)) >= deadline
        })
    }
}
