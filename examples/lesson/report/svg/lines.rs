//! Curves over one axis, labelled where they end, told apart by dashes as well as by colour.

use maud::{Markup, html};

use super::{LETTER, clip, number, ticks, wide};
use crate::harness::exhibit::{Lines, Table};

const WIDTH: f64 = 760.0;
const PLOT: f64 = 220.0;
const LEFT: f64 = 58.0;
const BELOW: f64 = 44.0;
/// Between two labels, one above the other.
const LEADING: f64 = 16.0;
/// The most points of a curve that are drawn; no screen shows more.
pub const POINTS: usize = 600;
const LABEL: usize = 30;

/// From data to the drawing.
struct Frame {
    x: (f64, f64),
    top: f64,
    bottom: f64,
    high: f64,
    low: f64,
    right: f64,
}

impl Frame {
    fn of(lines: &Lines, right: f64, top: f64) -> Option<Self> {
        let points = || lines.series.iter().flat_map(|series| &series.points);
        let points = || points().filter(|point| point.0.is_finite() && point.1.is_finite());
        points().next()?;
        let xs = || points().map(|point| point.0).chain(lines.marks.iter().map(|mark| mark.0));
        let x = (xs().fold(f64::INFINITY, f64::min), xs().fold(f64::NEG_INFINITY, f64::max));
        let low = points().map(|point| point.1).fold(0.0, f64::min);
        let high = points().map(|point| point.1).fold(low, f64::max);
        let high = if high > low { high } else { low + 1.0 };
        Some(Self { x, top, bottom: top + PLOT, high, low, right })
    }

    fn x(&self, x: f64) -> f64 {
        let range = self.x.1 - self.x.0;
        let share = if range > 0.0 { (x - self.x.0) / range } else { 0.5 };
        LEFT + share * (self.right - LEFT)
    }

    fn y(&self, y: f64) -> f64 {
        self.bottom - (y - self.low) / (self.high - self.low) * PLOT
    }
}

pub fn draw(lines: &Lines, id: &str) -> Markup {
    let longest = lines.series.iter().map(|series| wide(&clip(&series.name, LABEL))).fold(0.0, f64::max);
    let right = WIDTH - longest - 44.0;
    let rows = mark_rows(lines, right);
    let top = 22.0 + rows.iter().map(|(row, ..)| row + 1).max().unwrap_or(0) as f64 * LEADING;
    let Some(frame) = Frame::of(lines, right, top) else {
        return html! { p { "No points were measured." } };
    };
    let height = frame.bottom + BELOW;
    html! {
        svg viewBox=(format!("0 0 {WIDTH:.0} {height:.0}")) role="img"
            aria-labelledby=(format!("{id}-t {id}-d")) {
            title id=(format!("{id}-t")) { (lines.title) }
            desc id=(format!("{id}-d")) { (described(lines)) }
            (axes(lines, &frame))
            @for ((x, what), (row, place, end)) in lines.marks.iter().zip(rows) {
                @let at = frame.x(*x);
                @let y = 14.0 + LEADING * row as f64;
                line.mark x1=(at1(at)) x2=(at1(at)) y1=(at1(y - 8.0)) y2=(at1(frame.bottom)) {}
                text.small x=(at1(place)) y=(at1(y)) text-anchor=[end.then_some("end")] { (clip(what, 60)) }
            }
            @for (nth, series) in lines.series.iter().enumerate() {
                @match path(&frame, &series.points) {
                    Some(path) => path class=(style(nth)) d=(path) {},
                    None => @for (x, y) in series.points.iter().take(1) {
                        circle class=(style(nth)) r="3" cx=(at1(frame.x(*x))) cy=(at1(frame.y(*y))) {}
                    },
                }
            }
            @for (nth, y) in label_places(lines, &frame) {
                line class=(style(nth)) x1=(at1(right + 6.0)) x2=(at1(right + 30.0)) y1=(at1(y)) y2=(at1(y)) {}
                text class=(format!("label t{}", nth % 6)) x=(at1(right + 36.0)) y=(at1(y + 4.0)) {
                    (clip(&lines.series[nth].name, LABEL))
                }
            }
        }
    }
}

fn axes(lines: &Lines, frame: &Frame) -> Markup {
    html! {
        @for y in ticks(frame.low, frame.high) {
            line.rule x1=(LEFT) x2=(at1(frame.right)) y1=(at1(frame.y(y))) y2=(at1(frame.y(y))) {}
            text.small x=(LEFT - 8.0) y=(at1(frame.y(y) + 4.0)) text-anchor="end" { (number(y)) }
        }
        @for x in ticks(frame.x.0, frame.x.1) {
            text.small x=(at1(frame.x(x))) y=(at1(frame.bottom + 18.0)) text-anchor="middle" { (number(x)) }
        }
        line.axis x1=(LEFT) x2=(at1(frame.right)) y1=(at1(frame.bottom)) y2=(at1(frame.bottom)) {}
        text.small x=(at1(frame.right)) y=(at1(frame.bottom + 36.0)) text-anchor="end" { (lines.x) }
        text.small x="0" y=(at1(frame.top - 8.0)) { (lines.y) }
    }
}

/// For each mark: the row of its words above the plot, where they begin or end, and which.
fn mark_rows(lines: &Lines, right: f64) -> Vec<(usize, f64, bool)> {
    let Some(frame) = Frame::of(lines, right, 0.0) else { return Vec::new() };
    let mut taken: Vec<Vec<(f64, f64)>> = Vec::new();
    let mut places = Vec::new();
    for (x, what) in &lines.marks {
        let (at, long) = (frame.x(*x), wide(&clip(what, 60)));
        let end = at + long + 8.0 > WIDTH;
        let span = if end { (at - 5.0 - long, at) } else { (at, at + 5.0 + long) };
        let free =
            |row: &Vec<(f64, f64)>| row.iter().all(|(a, b)| span.1 + LETTER < *a || *b + LETTER < span.0);
        let row = taken.iter().position(free).unwrap_or(taken.len());
        if row == taken.len() {
            taken.push(Vec::new());
        }
        taken[row].push(span);
        places.push((row, if end { at - 5.0 } else { at + 5.0 }, end));
    }
    places
}

/// Each label beside the end of its curve, pushed apart where curves end together.
fn label_places(lines: &Lines, frame: &Frame) -> Vec<(usize, f64)> {
    let last = |(nth, series): (usize, &crate::harness::Series)| {
        series.points.last().map(|point| (nth, frame.y(point.1)))
    };
    let mut places: Vec<(usize, f64)> = lines.series.iter().enumerate().filter_map(last).collect();
    places.sort_by(|a, b| a.1.total_cmp(&b.1));
    // Up from the bottom first, so that the last labels stay inside; then down from the top.
    let mut below = frame.bottom + 4.0;
    for (_, y) in places.iter_mut().rev() {
        *y = y.min(below);
        below = *y - LEADING;
    }
    let mut above = frame.top - 8.0;
    for (_, y) in &mut places {
        *y = y.max(above);
        above = *y + LEADING;
    }
    places
}

fn path(frame: &Frame, points: &[(f64, f64)]) -> Option<String> {
    let points = thin(points);
    let step = |(nth, (x, y)): (usize, &(f64, f64))| {
        format!("{}{:.1} {:.1}", if nth == 0 { 'M' } else { 'L' }, frame.x(*x), frame.y(*y))
    };
    (points.len() > 1).then(|| points.iter().enumerate().map(step).collect())
}

/// The lowest and the highest point of each stretch: what stands out stays.
pub fn thin(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let points: Vec<(f64, f64)> =
        points.iter().copied().filter(|point| point.0.is_finite() && point.1.is_finite()).collect();
    if points.len() <= POINTS {
        return points;
    }
    let stretch = points.len().div_ceil(POINTS / 2);
    let ends = |points: &[(f64, f64)]| {
        let by = |nth: &usize| points[*nth].1;
        let low = (0..points.len()).min_by(|a, b| by(a).total_cmp(&by(b)));
        let high = (0..points.len()).max_by(|a, b| by(a).total_cmp(&by(b)));
        let (low, high) = (low.unwrap_or(0), high.unwrap_or(0));
        if low == high { vec![points[low]] } else { vec![points[low.min(high)], points[low.max(high)]] }
    };
    points.chunks(stretch).flat_map(ends).collect()
}

fn described(lines: &Lines) -> String {
    let names: Vec<&str> = lines.series.iter().map(|series| series.name.as_str()).collect();
    format!("Curves of {} over {}: {}. The table below has the figures.", lines.y, lines.x, names.join(", "))
}

/// What the drawing says: one row per x, one column per curve.
pub fn table(lines: &Lines) -> Table {
    let curves: Vec<Vec<(f64, f64)>> = lines.series.iter().map(|series| thin(&series.points)).collect();
    let mut xs: Vec<f64> = curves.iter().flatten().map(|point| point.0).collect();
    xs.sort_by(f64::total_cmp);
    xs.dedup();
    let cell = |curve: &Vec<(f64, f64)>, x: f64| {
        let found = curve.iter().find(|point| point.0 == x);
        found.map_or(String::new(), |point| number(point.1))
    };
    let row = |x: &f64| [number(*x)].into_iter().chain(curves.iter().map(|curve| cell(curve, *x))).collect();
    let rows = xs.iter().map(row).collect();
    let columns = [lines.x.clone()].into_iter().chain(lines.series.iter().map(|series| series.name.clone()));
    let marks: Vec<String> = lines.marks.iter().map(|(x, what)| format!("{} {what}", number(*x))).collect();
    let note = if marks.is_empty() { lines.y.clone() } else { format!("{}; {}", lines.y, marks.join("; ")) };
    Table { title: lines.title.clone(), note, columns: columns.collect(), rows }
}

/// Six colours and four dashes: twelve curves before one looks like another.
fn style(nth: usize) -> String {
    format!("curve s{} d{}", nth % 6, nth % 4)
}

fn at1(value: f64) -> String {
    format!("{value:.1}")
}
