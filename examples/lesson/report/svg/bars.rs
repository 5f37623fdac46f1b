//! Bars that lie on one scale from 0, each with its name before it and its figure behind it.

use maud::{Markup, html};

use super::{clip, number, wide};
use crate::harness::exhibit::{Bars, Table};

const WIDTH: f64 = 760.0;
const BAR: f64 = 16.0;
const STEP: f64 = 24.0;
const HEADING: f64 = 28.0;
const NAME: usize = 36;

pub fn draw(bars: &Bars, id: &str) -> Markup {
    let all = || bars.groups.iter().flat_map(|(_, bars)| bars);
    let top = all().map(|(_, value)| *value).filter(|value| value.is_finite()).fold(f64::EPSILON, f64::max);
    let left = all().map(|(name, _)| wide(&clip(name, NAME))).fold(0.0, f64::max) + 12.0;
    let right = all().map(|(_, value)| wide(&figure(*value, &bars.unit))).fold(0.0, f64::max) + 12.0;
    let room = WIDTH - left - right;
    let mut names: Vec<&str> = Vec::new();
    all().for_each(|(name, _)| {
        if !names.contains(&name.as_str()) {
            names.push(name)
        }
    });
    let (places, height) = places(bars);
    html! {
        svg viewBox=(format!("0 0 {WIDTH:.0} {height:.0}")) role="img"
            aria-labelledby=(format!("{id}-t {id}-d")) {
            title id=(format!("{id}-t")) { (bars.title) }
            desc id=(format!("{id}-d")) { "Bars, in " (bars.unit) ". The table below has the figures." }
            @for ((group, inside), top_of) in bars.groups.iter().zip(places) {
                @if !group.is_empty() { text.group x="0" y=(top_of + 18.0) { (group) } }
                @for (nth, (name, value)) in inside.iter().enumerate() {
                    @let y = top_of + heading(group) + nth as f64 * STEP;
                    @let long = (value / top * room).max(0.0);
                    @let colour = names.iter().position(|known| known == name).unwrap_or(0) % 6;
                    text.label x=(format!("{:.1}", left - 8.0)) y=(y + 13.0) text-anchor="end" {
                        (clip(name, NAME))
                    }
                    rect class=(format!("bar f{colour}")) x=(format!("{left:.1}")) y=(y)
                        width=(format!("{long:.1}")) height=(BAR) {}
                    text.label.figure x=(format!("{:.1}", left + long + 8.0)) y=(y + 13.0) {
                        (figure(*value, &bars.unit))
                    }
                }
            }
            line.axis x1=(format!("{left:.1}")) x2=(format!("{left:.1}")) y1="0" y2=(height) {}
        }
    }
}

/// Where each group begins, and where the last ends.
fn places(bars: &Bars) -> (Vec<f64>, f64) {
    let mut below = 0.0;
    let mut place = |(name, inside): &(String, Vec<(String, f64)>)| {
        let here = below;
        below += heading(name) + inside.len() as f64 * STEP;
        here
    };
    let places = bars.groups.iter().map(&mut place).collect();
    (places, below)
}

/// The height of a group's name.
fn heading(group: &str) -> f64 {
    if group.is_empty() { 8.0 } else { HEADING }
}

fn figure(value: f64, unit: &str) -> String {
    format!("{} {unit}", number(value)).trim_end().to_owned()
}

pub fn table(bars: &Bars) -> Table {
    let grouped = bars.groups.iter().any(|(name, _)| !name.is_empty());
    let head = if grouped { vec!["Group", "Bar"] } else { vec!["Bar"] };
    let columns = head.into_iter().map(str::to_owned).chain([unit(bars)]).collect();
    let rows = bars.groups.iter().flat_map(|(group, inside)| {
        let row = move |(name, value): &(String, f64)| {
            let head = if grouped { vec![group.clone(), name.clone()] } else { vec![name.clone()] };
            head.into_iter().chain([number(*value)]).collect::<Vec<_>>()
        };
        inside.iter().map(row)
    });
    Table { title: bars.title.clone(), note: String::new(), columns, rows: rows.collect() }
}

fn unit(bars: &Bars) -> String {
    if bars.unit.is_empty() { "Value".into() } else { bars.unit.clone() }
}
