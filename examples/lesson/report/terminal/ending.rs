//! What stands at the end of a run: the lesson's table with our figures, the audit sheet, the key
//! concepts, what was not tested, and the sum of it all.
//!
//! Start at [`whole`]. A run of a few chapters is told without the parts that only others fill.

use super::layout::{Ink, Page};
use crate::harness::{Run, findings::Cell};
use crate::report::verdict::{Counts, mark};
use crate::report::words::{AUDIT, COLUMNS, CONCEPTS, QUESTIONS, ROWS};
use crate::report::{gather, lasted, machine};

const LEGEND: &str =
    "The lesson's word stands first. ✓ the figure supports it, ✗ it does not, · it gives no verdict.";

pub fn whole(page: &Page, run: &Run) -> String {
    [comparison, audit, concepts, not_tested, unexpected, sum].map(|part| part(page, run)).concat()
}

/// The answers to the lesson's practice questions, and the sum.
pub fn questions(page: &Page, run: &Run) -> String {
    let mut text = page.heading("The lesson's practice questions, with this run's figures");
    for (number, question) in (1..).zip(QUESTIONS) {
        text += &page.paragraph(&format!("  Q{number} "), Ink::Bold, question);
        let lines = gather::answer(run, number);
        for (_, line) in &lines {
            text += &page.paragraph("     ", Ink::Plain, line);
        }
        if lines.is_empty() {
            text += &page.paragraph("     ", Ink::Dim, "not answered in this run");
        }
        text += "\n";
    }
    text + &unexpected(page, run) + &sum(page, run)
}

/// The lesson's comparison table: its word in each cell, and under it what was measured.
fn comparison(page: &Page, run: &Run) -> String {
    if run.told.iter().all(|told| told.findings.cells.is_empty()) {
        return String::new();
    }
    let header: Vec<String> =
        ["Aspect"].into_iter().chain(COLUMNS.map(|(_, name)| name)).map(str::to_owned).collect();
    let cell = |aspect, (column, _), word: &str| {
        let figures: Vec<String> = gather::cells(run, aspect, column).map(figure).collect();
        let figures = if figures.is_empty() { vec!["not measured in this run".into()] } else { figures };
        format!("{word}\n{}", figures.join("\n"))
    };
    let row = |(aspect, name, words): (_, &str, [&str; 4])| {
        let cells = COLUMNS.iter().zip(words).map(|(column, word)| cell(aspect, *column, word));
        [name.to_owned()].into_iter().chain(cells).collect::<Vec<String>>()
    };
    let tint = |_: usize, nth: usize, text: &str| match (nth, text.chars().next()) {
        (0, _) => Ink::Bold,
        (_, Some('✓')) => Ink::Good,
        (_, Some('✗')) => Ink::Bad,
        _ => Ink::Plain,
    };
    let mut text = page.heading("The lesson's comparison table, with what was measured");
    text += &page.grid(0, &header, &ROWS.map(row), true, tint);
    text += "\n";
    text + &page.paragraph("", Ink::Dim, LEGEND)
}

fn figure(cell: &Cell) -> String {
    format!("{} {}", mark(cell.holds), cell.figure)
}

/// Step 1 of the lesson's conversion, filled in.
fn audit(page: &Page, run: &Run) -> String {
    let mut text = page.heading("The audit sheet (Step 1: Identify State)");
    let header: Vec<String> = ["Strategy"].into_iter().chain(AUDIT).map(str::to_owned).collect();
    let cells = |row| gather::audited(row).map(str::to_owned);
    let rows: Vec<Vec<String>> =
        gather::audit(run).map(|row| [vec![row.strategy.clone()], cells(row).to_vec()].concat()).collect();
    if rows.is_empty() {
        return String::new();
    }
    text +=
        &page.grid(0, &header, &rows, true, |column, _, _| if column == 0 { Ink::Bold } else { Ink::Plain });
    text
}

fn concepts(page: &Page, run: &Run) -> String {
    let mut text = String::new();
    for (number, concept) in (1..).zip(CONCEPTS) {
        let shown = gather::concept(run, number);
        if shown.is_empty() {
            continue;
        }
        text += &page.paragraph(&format!("  {number:>2}. "), Ink::Bold, concept);
        for (chapter, line) in &shown {
            text += &page.paragraph(&format!("      {chapter}: "), Ink::Plain, line);
        }
    }
    if text.is_empty() { text } else { page.heading("Key Concepts to Remember") + &text }
}

fn not_tested(page: &Page, run: &Run) -> String {
    let mut text = page.heading("Not tested here");
    let (untested, left_out) = (gather::untested(run), gather::left_out(run));
    for (chapter, claim) in &untested {
        let line = format!("{chapter}: “{}” {}", claim.lesson.words, claim.why);
        text += &page.paragraph("  – ", Ink::Plain, &line);
    }
    for (chapter, sentence) in &left_out {
        text += &page.paragraph("  – ", Ink::Plain, &format!("{chapter}: {sentence}"));
    }
    if untested.is_empty() && left_out.is_empty() {
        text += &page.paragraph("  ", Ink::Dim, "These chapters left no claim untested.");
    }
    text
}

/// What makes this run fail, once more where it cannot be missed.
fn unexpected(page: &Page, run: &Run) -> String {
    let claims = run.unexpected().map(|claim| {
        let words = claim.lesson.words;
        format!("UNEXPECTED {}: “{words}” {}", claim.id, super::figure(claim))
    });
    let failed = gather::failed(run).into_iter().map(|(chapter, error)| format!("FAILED {chapter}: {error}"));
    let lines: Vec<String> = claims.chain(failed).collect();
    if lines.is_empty() {
        return String::new();
    }
    let lines = lines.iter().map(|line| page.paragraph("  ! ", Ink::Alarm, line));
    page.heading("What did not come out as expected") + &lines.collect::<String>()
}

fn sum(page: &Page, run: &Run) -> String {
    let run_as = format!(
        "scale {}, seed {}, store {}, {}, took {}",
        run.scale.name(),
        run.seed,
        run.store,
        machine(),
        lasted(run.took)
    );
    let mut text = page.heading("In sum");
    text += &page.paragraph("  ", Ink::Bold, &Counts::of(run).sentence());
    text + &page.paragraph("  ", Ink::Plain, &run_as) + "\n"
}
