//! Scaling: one shop, five ways to keep its session

use crate::harness::{Chapter, Findings, Outcome, Stage};

pub const CHAPTER: Chapter = Chapter {
    name: "scaling",
    title: "Scaling: one shop, five ways to keep its session",
    about: "…",
    guess: "…",
    roles: &[],
    run: |stage| Box::pin(run(stage)),
};

async fn run(_stage: &Stage) -> Outcome<Findings> {
    Ok(Findings::default())
}
