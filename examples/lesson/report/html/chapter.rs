//! A chapter: what it does, the question to guess at, its claims with their verdicts, its exhibits.

use maud::{Markup, html};

use super::{anchor, exhibit};
use crate::harness::{Claim, Told, exhibit::Exhibit};
use crate::report::lasted;
use crate::report::terminal;
use crate::report::verdict::Verdict;

pub fn show(nth: usize, told: &Told) -> Markup {
    let id = format!("chapter-{nth}");
    html! {
        section.chapter aria-labelledby=(id) {
            p.over { "Chapter " (nth + 1) " · " code { (told.chapter.name) } " · " (lasted(told.took)) }
            h2 id=(id) { (told.chapter.title) }
            p { (told.chapter.about) }
            p.guess { strong { "Guess first." } " " (told.chapter.guess) }
            @if let Some(error) = &told.failed {
                div.alarm { p { strong { "This chapter could not be told to its end." } " " (error) } }
            }
            @if !told.findings.claims.is_empty() {
                h3 { "What the lesson says, and what was seen" }
                div.claims { @for one in &told.findings.claims { (claim(one)) } }
            }
            @for (place, one) in told.findings.exhibits.iter().enumerate() {
                @let id = format!("c{nth}e{place}");
                @match one {
                    // It is drawn among the others at the top.
                    Exhibit::Seats(map) => p.elsewhere { "Seat map: " a href=(format!("#{id}")) { (map.title) } },
                    _ => (exhibit::show(one, &id)),
                }
            }
        }
    }
}

fn claim(claim: &Claim) -> Markup {
    let verdict = Verdict::of(claim);
    let class = match verdict {
        Verdict::Holds => "claim holds",
        Verdict::Refuted => "claim refuted",
        Verdict::Weighed(true) => "claim weighed",
        Verdict::Weighed(false) => "claim weighed against",
        Verdict::Unexpected => "claim unexpected",
        Verdict::NotTested => "claim untested",
    };
    let figure = terminal::figure(claim);
    html! {
        article class=(class) id=(anchor(&claim.id)) {
            p.badge { span aria-hidden="true" { (verdict.mark()) } " " (Verdict::word(claim)) }
            blockquote { p { "“" (claim.lesson.words) "”" } footer { (claim.lesson.heading) } }
            @if !figure.is_empty() { p.measured { (figure) } }
            @if !claim.why.is_empty() { p.why { (claim.why) } }
        }
    }
}
