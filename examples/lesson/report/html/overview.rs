//! What people come for: the lesson's table with our figures, and the picture of who sat where.

use maud::{Markup, html};

use super::exhibit;
use crate::harness::{Run, SeatMap, SeatRow, findings::Cell};
use crate::report::gather;
use crate::report::svg::seats::{self, Seating, shape};
use crate::report::verdict::mark;
use crate::report::words::{COLUMNS, ROWS};

pub fn comparison(run: &Run) -> Markup {
    html! {
        section aria-labelledby="comparison" {
            h2 #comparison { "The comparison table, measured" }
            p { "The lesson’s word stands first in each cell, and under it what this run measured." }
            p.legend {
                span { (tick(Some(true))) " the figure supports the word" }
                span { (tick(Some(false))) " it does not" }
                span { (tick(None)) " it gives no verdict" }
            }
            div.wide tabindex="0" role="region" aria-label="Comparison table" {
                table.comparison {
                    caption.away { "The lesson’s comparison of session strategies, with measured figures" }
                    thead {
                        tr {
                            th scope="col" { "Aspect" }
                            @for (_, name) in COLUMNS { th scope="col" { (name) } }
                        }
                    }
                    tbody {
                        @for (aspect, name, words) in ROWS {
                            tr {
                                th scope="row" { (name) }
                                @for ((column, _), word) in COLUMNS.iter().zip(words) {
                                    td { (cell(word, &gather::cells(run, aspect, *column).collect::<Vec<_>>())) }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn cell(word: &str, figures: &[&Cell]) -> Markup {
    html! {
        span.word { (word) }
        @if figures.is_empty() {
            span.missing { "not measured in this run" }
        } @else {
            ul.figures {
                @for cell in figures { li { (tick(cell.holds)) " " (cell.figure) } }
            }
        }
    }
}

/// A mark that is read aloud as what it means.
fn tick(holds: Option<bool>) -> Markup {
    let (class, said) = match holds {
        Some(true) => ("tick yes", "Supported:"),
        Some(false) => ("tick no", "Not supported:"),
        None => ("tick", "No verdict:"),
    };
    html! { span class=(class) { span aria-hidden="true" { (mark(holds)) } span.away { (said) } } }
}

/// All seat maps; the chapters point here.
pub fn seat_maps(run: &Run) -> Markup {
    let maps = gather::seat_maps(run);
    html! {
        @if !maps.is_empty() {
            section aria-labelledby="seats" {
                h2 #seats { "Who sat where" }
                p {
                    "One mark is one user, at the replica that answered. A user keeps the place as long as \
                     the replica is the same."
                }
                (legend())
                @for (chapter, place, map) in maps { (seat_map(map, &format!("c{chapter}e{place}"))) }
            }
        }
    }
}

/// What the marks of a seat map mean.
pub fn legend() -> Markup {
    html! {
        p.legend {
            (key(false, true, "session kept"))
            (key(false, false, "session lost"))
            (key(true, true, "moved, session kept"))
            (key(true, false, "moved, session lost"))
        }
    }
}

fn key(moved: bool, kept: bool, means: &str) -> Markup {
    let class = format!("{}{}", if kept { "kept" } else { "lost" }, if moved { " moved" } else { "" });
    html! {
        span {
            svg.key viewBox="0 0 8 8" aria-hidden="true" { path class=(class) d=(shape(4.0, 4.0, moved)) {} }
            " " (means)
        }
    }
}

pub fn seat_map(map: &SeatMap, id: &str) -> Markup {
    let columns = map.rows.iter().map(|row| row.frames.len()).max().unwrap_or(1).clamp(1, 8);
    html! {
        figure.seatmap id=(id) {
            figcaption { h3 { (map.title) } @if !map.note.is_empty() { p { (map.note) } } }
            @for (nth, row) in map.rows.iter().enumerate() {
                (strategy(row, &format!("{id}r{nth}"), columns))
            }
            (exhibit::data(&seats::table(map)))
        }
    }
}

fn strategy(row: &SeatRow, id: &str, columns: usize) -> Markup {
    let seating = Seating::of(row);
    html! {
        div.strategy {
            h4 { (row.name) }
            div.frames style=(format!("--frames:{columns}")) {
                @for (nth, frame) in row.frames.iter().enumerate() {
                    @let count = seats::Count::of(frame, |_| true);
                    div.frame {
                        p.moment { (frame.caption) }
                        (seats::draw(row, &seating, nth, &format!("{id}f{nth}")))
                        p.counts {
                            b { (count.all - count.lost) } " kept"
                            span.losses[count.lost > 0] { " · " b { (count.lost) } " lost" }
                            " · " b { (count.moved) } " moved"
                        }
                    }
                }
            }
        }
    }
}
