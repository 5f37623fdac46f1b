//! One word for what a run says of a claim, and how many there are of each.

use crate::harness::{Claim, Run};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Holds,
    /// Contradicted, and that is what is shown.
    Refuted,
    /// A time or an amount of memory: it never decides the exit code.
    Weighed(bool),
    /// Not what this program expects of the claim: the run fails.
    Unexpected,
    NotTested,
}

impl Verdict {
    pub fn of(claim: &Claim) -> Self {
        match (claim.holds, claim.expected) {
            _ if !claim.is_as_expected() => Self::Unexpected,
            (None, _) => Self::NotTested,
            (Some(holds), None) => Self::Weighed(holds),
            (Some(true), Some(_)) => Self::Holds,
            (Some(false), Some(_)) => Self::Refuted,
        }
    }

    /// A mark that can be told from the others without colour.
    pub fn mark(self) -> &'static str {
        match self {
            Self::Holds | Self::Weighed(true) => "✓",
            Self::Refuted | Self::Weighed(false) => "✗",
            Self::Unexpected => "!",
            Self::NotTested => "–",
        }
    }

    /// The verdict in words.
    pub fn word(claim: &Claim) -> &'static str {
        match (Self::of(claim), claim.holds) {
            (Self::Holds, _) => "holds",
            (Self::Refuted, _) => "does not hold, as expected here",
            (Self::Weighed(true), _) => "holds (time or memory: not counted)",
            (Self::Weighed(false), _) => "does not hold (time or memory: not counted)",
            (Self::NotTested, _) => "not tested here",
            (Self::Unexpected, Some(true)) => "UNEXPECTED: holds, and must not here",
            (Self::Unexpected, Some(false)) => "UNEXPECTED: does not hold",
            (Self::Unexpected, None) => "UNEXPECTED: not tested",
        }
    }
}

/// The mark for a figure that supports a word of the lesson's table, contradicts it, or neither.
pub fn mark(holds: Option<bool>) -> &'static str {
    match holds {
        Some(true) => "✓",
        Some(false) => "✗",
        None => "·",
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub held: usize,
    pub refuted: usize,
    pub weighed: usize,
    /// Of those weighed.
    pub weighed_held: usize,
    pub unexpected: usize,
    pub not_tested: usize,
    /// Chapters that ended in an error.
    pub failed: usize,
}

impl Counts {
    pub fn of(run: &Run) -> Self {
        let failed = run.told.iter().filter(|told| told.failed.is_some()).count();
        let mut counts = Self { failed, ..Self::default() };
        for claim in run.told.iter().flat_map(|told| &told.findings.claims) {
            match Verdict::of(claim) {
                Verdict::Holds => counts.held += 1,
                Verdict::Refuted => counts.refuted += 1,
                Verdict::Unexpected => counts.unexpected += 1,
                Verdict::NotTested => counts.not_tested += 1,
                Verdict::Weighed(holds) => {
                    counts.weighed += 1;
                    counts.weighed_held += usize::from(holds);
                }
            }
        }
        counts
    }

    pub fn sentence(&self) -> String {
        let all = self.held + self.refuted + self.weighed + self.unexpected + self.not_tested;
        let mut sentence = format!(
            "{all} claims: {} held, {} refuted as expected, {} unexpected, {} not tested",
            self.held, self.refuted, self.unexpected, self.not_tested
        );
        if self.weighed > 0 {
            let (held, weighed) = (self.weighed_held, self.weighed);
            sentence += &format!("; of {weighed} on times and memory, which are not counted, {held} held");
        }
        if self.failed > 0 {
            let s = if self.failed == 1 { "" } else { "s" };
            sentence += &format!("; {} chapter{s} ended in an error", self.failed);
        }
        sentence + "."
    }
}
