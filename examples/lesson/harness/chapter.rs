//! What a chapter is, and a run of several.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use super::child::Role;
use super::findings::Findings;
use super::stage::{Scale, Stage};

pub type Failure = Box<dyn std::error::Error + Send + Sync>;
pub type Outcome<T> = Result<T, Failure>;
pub type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// A system of the lesson, run for real.
pub struct Chapter {
    /// What `--chapter` calls it.
    pub name: &'static str,
    pub title: &'static str,
    /// What it is about to do, in one or two sentences.
    pub about: &'static str,
    /// A question for the reader to guess at before the figures come.
    pub guess: &'static str,
    /// What this chapter runs as processes of their own: this program, started again.
    pub roles: &'static [(&'static str, Role)],
    pub run: for<'a> fn(&'a Stage) -> Boxed<'a, Outcome<Findings>>,
}

/// A chapter that has been run.
pub struct Told {
    pub chapter: &'static Chapter,
    /// Empty when it failed.
    pub findings: Findings,
    /// What went wrong, when the chapter could not be told to its end.
    pub failed: Option<String>,
    pub took: Duration,
}

/// Everything that this run found.
pub struct Run {
    pub seed: u64,
    pub scale: Scale,
    /// `embedded`, or the version and address of a real Redis.
    pub store: String,
    pub told: Vec<Told>,
    pub took: Duration,
}

impl Run {
    /// Whether every chapter was told to its end and every claim came out as expected.
    pub fn succeeded(&self) -> bool {
        self.told.iter().all(|told| told.failed.is_none()) && self.unexpected().next().is_none()
    }

    /// The claims that did not come out as this program expects of them.
    pub fn unexpected(&self) -> impl Iterator<Item = &super::findings::Claim> {
        self.told.iter().flat_map(|told| &told.findings.claims).filter(|claim| !claim.is_as_expected())
    }
}
