//! The page: one file that needs nothing else, no script, light and dark, for a screen, a phone,
//! a printer and a screen reader.
//!
//! Start at [`whole`]. [`overview`] is what people come for, [`chapter`] the claims and exhibits,
//! [`appendix`] the rest; [`exhibit`] puts a table under each chart.

mod appendix;
mod chapter;
mod exhibit;
mod overview;

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::verdict::Counts;
use super::{gather, lasted, machine};
use crate::harness::{Run, SeatMap};

const STYLE: &str = include_str!("../style.css");
const TITLE: &str = "What state costs, and what statelessness buys";

pub fn whole(run: &Run) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (TITLE) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                a.skip href="#main" { "Skip to the findings" }
                (header(run))
                (contents(run))
                main #main {
                    (overview::comparison(run))
                    (overview::seat_maps(run))
                    @for (nth, told) in run.told.iter().enumerate() {
                        (chapter::show(nth, told))
                    }
                    (appendix::audit(run))
                    (appendix::concepts(run))
                    (appendix::questions(run))
                    (appendix::not_tested(run))
                }
                footer {
                    p { "Written by Pintle's " code { "lesson" } " example. Every figure on this page was \
                        measured in the run that wrote it." }
                }
            }
        }
    };
    page.into_string()
}

/// One seat map by itself, drawn anew every second.
pub fn live(map: &SeatMap) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta http-equiv="refresh" content="1";
                title { (map.title) }
                style { (PreEscaped(STYLE)) }
            }
            body { main { (overview::legend()) (overview::seat_map(map, "live")) } }
        }
    };
    page.into_string()
}

fn header(run: &Run) -> Markup {
    let facts = [
        ("Scale", run.scale.name().to_owned()),
        ("Seed", run.seed.to_string()),
        ("Store", run.store.clone()),
        ("Took", lasted(run.took)),
        ("On", machine()),
    ];
    html! {
        header {
            p.over { "Pintle · the lesson “Stateless vs Stateful Architecture”, proven" }
            h1 { (TITLE) }
            p.lede {
                "Real users, real replicas and real sockets, with Pintle in front of them. Each claim of the \
                 lesson stands beside the figure that this run measured for it."
            }
            dl.facts {
                @for (name, value) in facts { div { dt { (name) } dd { (value) } } }
            }
            (tally(run))
        }
    }
}

/// The verdicts, counted; and what failed, where it is seen first.
fn tally(run: &Run) -> Markup {
    let counts = Counts::of(run);
    let failed = gather::failed(run);
    html! {
        p.sum { (counts.sentence()) }
        @if !run.succeeded() {
            div.alarm {
                p { strong { "This run did not come out as expected." } }
                ul {
                    @for claim in run.unexpected() {
                        li { a href=(format!("#{}", anchor(&claim.id))) { (claim.id) } ": " (claim.measured) }
                    }
                    @for (chapter, error) in failed { li { (chapter) ": " (error) } }
                }
            }
        }
    }
}

fn contents(run: &Run) -> Markup {
    let chapters = run.told.iter().enumerate();
    html! {
        nav aria-labelledby="contents" {
            h2 #contents { "Contents" }
            ol {
                li { a href="#comparison" { "The comparison table, measured" } }
                @if !gather::seat_maps(run).is_empty() { li { a href="#seats" { "Who sat where" } } }
                @for (nth, told) in chapters {
                    li { a href=(format!("#chapter-{nth}")) { (told.chapter.title) } }
                }
                li { a href="#audit" { "The audit sheet" } }
                li { a href="#concepts" { "Key concepts" } }
                li { a href="#questions" { "Practice questions" } }
                li { a href="#untested" { "What was not tested" } }
            }
        }
    }
}

/// An id from whatever a claim is called.
fn anchor(id: &str) -> String {
    let letter = |letter: char| if letter.is_ascii_alphanumeric() { letter } else { '-' };
    format!("claim-{}", id.chars().map(letter).collect::<String>())
}
