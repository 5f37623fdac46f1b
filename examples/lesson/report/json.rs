//! A run for programs: every claim with its figure and its verdict.

use serde::Serialize;

use crate::harness::{Claim, Outcome, Run, Told};

pub fn whole(run: &Run) -> Outcome<String> {
    let chapters = run.told.iter().map(Chapter::of).collect();
    let run = Whole { seed: run.seed, scale: run.scale.name(), store: &run.store, chapters };
    Ok(serde_json::to_string_pretty(&run)?)
}

#[derive(Serialize)]
struct Whole<'a> {
    seed: u64,
    scale: &'static str,
    store: &'a str,
    chapters: Vec<Chapter<'a>>,
}

#[derive(Serialize)]
struct Chapter<'a> {
    name: &'a str,
    claims: Vec<Said<'a>>,
    /// Only where a chapter could not be told to its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

#[derive(Serialize)]
struct Said<'a> {
    id: &'a str,
    lesson: String,
    measured: &'a str,
    n: u64,
    holds: Option<bool>,
    expected: Option<bool>,
    why: &'a str,
}

impl<'a> Chapter<'a> {
    fn of(told: &'a Told) -> Self {
        let claims = told.findings.claims.iter().map(Said::of).collect();
        Self { name: told.chapter.name, claims, error: told.failed.as_deref() }
    }
}

impl<'a> Said<'a> {
    fn of(claim: &'a Claim) -> Self {
        Self {
            id: &claim.id,
            lesson: format!("{}: {}", claim.lesson.heading, claim.lesson.words),
            measured: &claim.measured,
            n: claim.n,
            holds: claim.holds,
            expected: claim.expected,
            why: &claim.why,
        }
    }
}
