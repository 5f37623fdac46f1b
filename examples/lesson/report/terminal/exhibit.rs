//! Exhibits on a terminal: tables, and charts so small that the page is the place to look at them.

use super::layout::{Ink, Page, length};
use crate::harness::exhibit::{Bars, Exhibit, Lines, SeatMap, SeatRow, Series, Table, Text};
use crate::report::svg::{clip, number, seats};

/// More than this is for the page.
const ROWS: usize = 40;
const NAME: usize = 32;
const INDENT: usize = 4;
/// How many letters a curve or the longest bar takes at most, and what is left for its figures.
const LONG: usize = 44;
const FIGURES: usize = 22;
const HEIGHTS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

pub fn show(page: &Page, exhibit: &Exhibit) -> String {
    let (title, note, body) = match exhibit {
        Exhibit::Table(one) => (&one.title, &one.note, table(page, one)),
        Exhibit::Lines(one) => (&one.title, &one.note, lines(page, one)),
        Exhibit::Bars(one) => (&one.title, &one.note, bars(page, one)),
        Exhibit::Seats(one) => (&one.title, &one.note, seat_map(page, one)),
        Exhibit::Text(one) => (&one.title, &one.note, text(page, one)),
    };
    let mut shown = page.paragraph("  ▸ ", Ink::Bold, title) + &body;
    if !note.is_empty() {
        shown += &page.paragraph("    ", Ink::Dim, note);
    }
    shown
}

fn table(page: &Page, table: &Table) -> String {
    let shown = &table.rows[..table.rows.len().min(ROWS)];
    page.grid(INDENT, &table.columns, shown, false, |_, _, _| Ink::Plain)
        + &more(page, table.rows.len(), "rows")
}

fn more(page: &Page, all: usize, what: &str) -> String {
    if all <= ROWS {
        return String::new();
    }
    page.paragraph("    ", Ink::Dim, &format!("… and {} more {what} in the page.", all - ROWS))
}

fn text(page: &Page, text: &Text) -> String {
    let width = page.width - INDENT - 2;
    let cut = |line: &str| {
        let letters: Vec<char> = line.chars().collect();
        let pieces = letters.chunks(width).map(|piece| piece.iter().collect::<String>());
        if letters.is_empty() { vec![String::new()] } else { pieces.collect() }
    };
    let lines = text.text.lines().take(ROWS).flat_map(cut);
    let lines: String = lines
        .map(|line| format!("    {} {line}", page.paint(Ink::Dim, "│")).trim_end().to_owned() + "\n")
        .collect();
    lines + &more(page, text.text.lines().count(), "lines")
}

/// All curves over the same time and on the same height, so that they can be compared.
fn lines(page: &Page, lines: &Lines) -> String {
    let points = || lines.series.iter().flat_map(|series| &series.points);
    let marks = || lines.marks.iter().map(|(x, _)| *x);
    let from = points().map(|point| point.0).chain(marks()).fold(f64::INFINITY, f64::min);
    let to = points().map(|point| point.0).chain(marks()).fold(f64::NEG_INFINITY, f64::max);
    let top = points().map(|point| point.1).fold(0.0, f64::max);
    if !(from.is_finite() && to.is_finite()) {
        return "    (no points)\n".into();
    }
    let names = lines.series.iter().map(|series| length(&series.name)).max().unwrap_or(0).min(NAME);
    let long = room(page, names);
    let at = |x: f64| (((x - from) / (to - from).max(f64::EPSILON) * long as f64) as usize).min(long - 1);
    let mut shown = String::new();
    for series in &lines.series {
        let name = clip(&series.name, names);
        let space = " ".repeat(names.saturating_sub(length(&name)));
        let (low, high) = range(series);
        let curve = curve(series, at, long, top);
        shown += &format!("    {name}{space} {curve} {} to {}\n", number(low), number(high));
    }
    let place = |mark: &(f64, String)| format!("{} {}", number(mark.0), mark.1);
    if !lines.marks.is_empty() {
        let mut under = vec![' '; long];
        lines.marks.iter().for_each(|(x, _)| under[at(*x)] = '^');
        let under: String = under.iter().collect();
        shown += &format!("    {} {}\n", " ".repeat(names), under.trim_end());
        let marks: Vec<String> = lines.marks.iter().map(place).collect();
        shown += &page.paragraph("    ^ ", Ink::Dim, &marks.join(" · "));
    }
    let axes = format!("{} over {} {} to {}", lines.y, lines.x, number(from), number(to));
    shown + &page.paragraph("    ", Ink::Dim, &axes)
}

fn range(series: &Series) -> (f64, f64) {
    let values = || series.points.iter().map(|point| point.1);
    let low = values().reduce(f64::min).unwrap_or_default();
    (low, values().reduce(f64::max).unwrap_or_default())
}

/// The mean of what falls into each letter; a space where nothing does.
fn curve(series: &Series, at: impl Fn(f64) -> usize, long: usize, top: f64) -> String {
    let mut sums = vec![(0.0, 0_u32); long];
    for (x, y) in &series.points {
        let (sum, count) = &mut sums[at(*x)];
        *sum += y;
        *count += 1;
    }
    let letter = |(sum, count): &(f64, u32)| match count {
        0 => ' ',
        _ => {
            HEIGHTS[(sum / f64::from(*count) / top.max(f64::EPSILON) * 7.0).round().clamp(0.0, 7.0) as usize]
        }
    };
    sums.iter().map(letter).collect()
}

fn bars(page: &Page, bars: &Bars) -> String {
    let all = || bars.groups.iter().flat_map(|(_, bars)| bars);
    let top = all().map(|(_, value)| *value).fold(f64::EPSILON, f64::max);
    let names = all().map(|(name, _)| length(name)).max().unwrap_or(0).min(NAME);
    let long = room(page, names);
    let mut shown = String::new();
    for (group, inside) in &bars.groups {
        if !group.is_empty() {
            shown += &page.paragraph("    ", Ink::Plain, group);
        }
        for (name, value) in inside {
            let eighths = (value / top * (long * 8) as f64).round().max(0.0) as usize;
            let part = ['\0', '▏', '▎', '▍', '▌', '▋', '▊', '▉'][eighths % 8];
            let bar = "█".repeat(eighths / 8) + part.to_string().trim_matches('\0');
            let name = clip(name, names);
            let space = " ".repeat(names.saturating_sub(length(&name)));
            let bar = if bar.is_empty() { bar } else { bar + " " };
            let line = format!("      {name}{space} {bar}{} {}", number(*value), bars.unit);
            shown += line.trim_end();
            shown.push('\n');
        }
    }
    shown
}

/// What is left of a line for a curve or a bar.
fn room(page: &Page, names: usize) -> usize {
    page.width.saturating_sub(INDENT + 2 + names + FIGURES).clamp(8, LONG)
}

/// How many sit where, and how many of them have lost something: a table per strategy.
fn seat_map(page: &Page, map: &SeatMap) -> String {
    let strategy = |row: &SeatRow| {
        let one = SeatMap { rows: vec![row.clone()], ..SeatMap::default() };
        let table = seats::table(&one);
        // The strategy stands above, not in each line.
        let rows: Vec<Vec<String>> = table.rows.iter().map(|row| row[1..].to_vec()).collect();
        let name = page.paragraph("    ", Ink::Plain, &row.name);
        name + &page.grid(INDENT, &table.columns[1..], &rows, false, |_, _, _| Ink::Plain)
    };
    map.rows.iter().map(strategy).collect::<Vec<_>>().join("\n")
}
