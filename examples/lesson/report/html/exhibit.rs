//! Exhibits as figures: a chart with its table folded beneath it, a table, or text as it was printed.

use maud::{Markup, html};

use crate::harness::exhibit::{Exhibit, Table};
use crate::report::svg::{bars, lines, seats};
use crate::report::terminal::layout::is_figures;

pub fn show(exhibit: &Exhibit, id: &str) -> Markup {
    match exhibit {
        Exhibit::Lines(one) => chart(&one.title, &one.note, lines::draw(one, id), &lines::table(one)),
        Exhibit::Bars(one) => chart(&one.title, &one.note, bars::draw(one, id), &bars::table(one)),
        Exhibit::Seats(one) => html! { (data(&seats::table(one))) },
        Exhibit::Table(one) => html! {
            figure { (caption(&one.title, &one.note)) (table(one)) }
        },
        Exhibit::Text(one) => html! {
            figure {
                (caption(&one.title, &one.note))
                pre tabindex="0" role="region" aria-label=(one.title) { (one.text) }
            }
        },
    }
}

fn chart(title: &str, note: &str, drawing: Markup, data_of: &Table) -> Markup {
    html! {
        figure {
            (caption(title, note))
            div.wide.chart tabindex="0" role="region" aria-label=(title) { (drawing) }
            (data(data_of))
        }
    }
}

fn caption(title: &str, note: &str) -> Markup {
    html! { figcaption { h3 { (title) } @if !note.is_empty() { p { (note) } } } }
}

/// The figures of a chart, folded away until somebody wants them.
pub fn data(of: &Table) -> Markup {
    html! {
        details {
            summary { "The figures as a table" span.away { ": " (of.title) } }
            @if !of.note.is_empty() { p.note { (of.note) } }
            (table(of))
        }
    }
}

pub fn table(table: &Table) -> Markup {
    let right: Vec<bool> =
        (0..table.columns.len()).map(|column| column > 0 && is_figures(&table.rows, column)).collect();
    let right = |column: usize| right.get(column).copied().unwrap_or(false);
    html! {
        div.wide tabindex="0" role="region" aria-label=(table.title) {
            table {
                caption.away { (table.title) }
                thead {
                    tr {
                        @for (nth, name) in table.columns.iter().enumerate() {
                            th.number[right(nth)] scope="col" { (name) }
                        }
                    }
                }
                tbody {
                    @for row in &table.rows {
                        tr {
                            @for (nth, cell) in row.iter().enumerate() {
                                @if nth == 0 { th scope="row" { (cell) } }
                                @else { td.number[right(nth)] { (cell) } }
                            }
                        }
                    }
                }
            }
        }
    }
}
