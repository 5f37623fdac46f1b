//! A rolling deploy under load (Q1)

use crate::harness::{Chapter, Findings, Outcome, Stage};

pub const CHAPTER: Chapter = Chapter {
    name: "rolling",
    title: "A rolling deploy under load (Q1)",
    about: "…",
    guess: "…",
    roles: &[],
    run: |stage| Box::pin(run(stage)),
};

async fn run(_stage: &Stage) -> Outcome<Findings> {
    Ok(Findings::default())
}
