//! What several chapters say about the same thing, brought together in the order they were told.

use crate::harness::findings::Cell;
use crate::harness::{Aspect, AuditRow, Claim, Column, Run, SeatMap, exhibit::Exhibit};

/// The figures for a cell of the comparison table.
pub fn cells(run: &Run, aspect: Aspect, column: Column) -> impl Iterator<Item = &Cell> {
    let all = run.told.iter().flat_map(|told| &told.findings.cells);
    all.filter(move |cell| cell.aspect == aspect && cell.column == column)
}

pub fn audit(run: &Run) -> impl Iterator<Item = &AuditRow> {
    run.told.iter().flat_map(|told| &told.findings.audit)
}

/// The answers for a strategy, in the order of the lesson's questions.
pub fn audited(row: &AuditRow) -> [&str; 4] {
    [&row.where_sessions_live, &row.in_memory, &row.on_restart, &row.any_server]
}

/// What was shown of a key concept: (chapter, line).
pub fn concept(run: &Run, number: usize) -> Vec<(&'static str, &str)> {
    numbered(run, number, |findings| &findings.concepts)
}

/// What was found about a practice question: (chapter, line).
pub fn answer(run: &Run, question: usize) -> Vec<(&'static str, &str)> {
    numbered(run, question, |findings| &findings.answers)
}

fn numbered(
    run: &Run,
    number: usize,
    pick: fn(&crate::harness::Findings) -> &Vec<(u8, String)>,
) -> Vec<(&'static str, &str)> {
    let lines = |told| {
        let told: &crate::harness::Told = told;
        let lines = pick(&told.findings).iter().filter(move |(of, _)| usize::from(*of) == number);
        lines.map(|(_, line)| (told.chapter.name, line.as_str()))
    };
    run.told.iter().flat_map(lines).collect()
}

/// Claims without a verdict: (chapter, claim).
pub fn untested(run: &Run) -> Vec<(&'static str, &Claim)> {
    let claims = run.told.iter().flat_map(|told| {
        let untested = told.findings.claims.iter().filter(|claim| claim.holds.is_none());
        untested.map(|claim| (told.chapter.name, claim))
    });
    claims.collect()
}

/// What chapters say that they leave out, and those that failed and so left out all: (chapter,
/// sentence).
pub fn left_out(run: &Run) -> Vec<(&'static str, &str)> {
    const FAILED: &str = "This chapter ended in an error, so none of its claims were tested.";
    let sentences = run.told.iter().flat_map(|told| {
        let failed = told.failed.as_ref().map(|_| FAILED);
        let left_out = told.findings.left_out.iter().map(String::as_str).chain(failed);
        left_out.map(|sentence| (told.chapter.name, sentence))
    });
    sentences.collect()
}

/// Chapters that ended in an error: (chapter, error).
pub fn failed(run: &Run) -> Vec<(&'static str, &str)> {
    let failed = |told: &'_ crate::harness::Told| told.failed.is_some();
    let failed = run.told.iter().filter(|told| failed(told));
    failed.map(|told| (told.chapter.name, told.failed.as_deref().unwrap_or_default())).collect()
}

/// All seat maps, with the place they have among their chapter's exhibits.
pub fn seat_maps(run: &Run) -> Vec<(usize, usize, &SeatMap)> {
    let maps = run.told.iter().enumerate().flat_map(|(chapter, told)| {
        let exhibits = told.findings.exhibits.iter().enumerate();
        exhibits.filter_map(move |(place, exhibit)| match exhibit {
            Exhibit::Seats(map) => Some((chapter, place, map)),
            _ => None,
        })
    });
    maps.collect()
}
