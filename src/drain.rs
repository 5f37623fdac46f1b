//! Phases: what an operator, the file or a health answer wants of a backend, and who prevails.
//!
//! Start at [`Words`]. Pure: no clock, no task, no knowledge of what is being drained.

use std::fmt;

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
}
