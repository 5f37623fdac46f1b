//! What stands after the chapters: audit sheet, key concepts, practice questions, what is missing.

use maud::{Markup, html};

use super::{anchor, exhibit};
use crate::harness::{Run, Table};
use crate::report::gather;
use crate::report::words::{AUDIT, CONCEPTS, QUESTIONS};

/// Step 1 of the lesson's conversion, filled in.
pub fn audit(run: &Run) -> Markup {
    let columns = ["Strategy"].into_iter().chain(AUDIT).map(str::to_owned).collect();
    let row = |row| gather::audited(row).map(str::to_owned).to_vec();
    let rows: Vec<Vec<String>> = gather::audit(run)
        .map(|strategy| [vec![strategy.strategy.clone()], row(strategy)].concat())
        .collect();
    let empty = rows.is_empty();
    let sheet = Table { title: "The audit sheet".into(), note: String::new(), columns, rows };
    html! {
        section aria-labelledby="audit" {
            h2 #audit { "The audit sheet" }
            p { "Step 1 of the lesson’s conversion, “Identify State”, answered for each strategy from the run." }
            @if empty { p.missing { "The chapters of this run did not fill it in." } }
            @else { div.audit { (exhibit::table(&sheet)) } }
        }
    }
}

pub fn concepts(run: &Run) -> Markup {
    html! {
        section aria-labelledby="concepts" {
            h2 #concepts { "Key concepts to remember" }
            ol.concepts {
                @for (number, concept) in (1..).zip(CONCEPTS) {
                    li { strong { (concept) } (shown(&gather::concept(run, number), "Not shown in this run.")) }
                }
            }
        }
    }
}

pub fn questions(run: &Run) -> Markup {
    html! {
        section aria-labelledby="questions" {
            h2 #questions { "Practice questions" }
            @for (number, question) in (1..).zip(QUESTIONS) {
                h3 { "Q" (number) " · " (question) }
                (shown(&gather::answer(run, number), "Not answered in this run."))
            }
        }
    }
}

/// Lines, each with the chapter that it comes from.
fn shown(lines: &[(&'static str, &str)], none: &str) -> Markup {
    html! {
        @if lines.is_empty() { p.missing { (none) } }
        @else {
            ul.shown { @for (chapter, line) in lines { li { (line) " " span.from { (chapter) } } } }
        }
    }
}

pub fn not_tested(run: &Run) -> Markup {
    let (untested, left_out) = (gather::untested(run), gather::left_out(run));
    html! {
        section aria-labelledby="untested" {
            h2 #untested { "What was not tested" }
            @if untested.is_empty() && left_out.is_empty() {
                p { "These chapters left no claim untested." }
            } @else {
                ul.shown {
                    @for (chapter, claim) in untested {
                        li {
                            a href=(format!("#{}", anchor(&claim.id))) { "“" (claim.lesson.words) "”" }
                            " " (claim.why) " " span.from { (chapter) }
                        }
                    }
                    @for (chapter, sentence) in left_out { li { (sentence) " " span.from { (chapter) } } }
                }
            }
        }
    }
}
