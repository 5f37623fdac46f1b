//! Four common mistakes

use crate::harness::{Chapter, Findings, Outcome, Stage};

pub const CHAPTER: Chapter = Chapter {
    name: "mistakes",
    title: "Four common mistakes",
    about: "…",
    guess: "…",
    roles: &[],
    run: |stage| Box::pin(run(stage)),
};

async fn run(_stage: &Stage) -> Outcome<Findings> {
    Ok(Findings::default())
}
