//! The table at the end: what was done, what it cost, and why.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::faults::Fault;
use crate::rules::RULES;

/// All phases of one fault together.
#[derive(Default)]
pub struct Row {
    pub phases: u64,
    pub requests: u64,
    /// How often each rule was the reason, by its place in [`RULES`].
    pub explained: BTreeMap<usize, u64>,
    pub violations: Vec<String>,
    pub slowest: Duration,
    /// The longest until Pintle told that the backend was down.
    pub noticed: Option<Duration>,
    /// The longest until nobody was hurt any more.
    pub hurt: Option<Duration>,
}

impl Row {
    pub fn failed(&self) -> u64 {
        self.explained.iter().filter(|(rule, _)| RULES[**rule].fails).map(|(_, count)| count).sum()
    }

    fn cells(&self, fault: Fault) -> [String; 7] {
        let explained: Vec<_> =
            self.explained.iter().map(|(rule, count)| format!("{count} {}", RULES[*rule].what)).collect();
        let time = |time: Option<Duration>| {
            time.map_or("–".to_owned(), |time| format!("{:.2} s", time.as_secs_f64()))
        };
        let times = if self.phases > 1 { format!(" (× {})", self.phases) } else { String::new() };
        [
            format!("{}{times}", fault.title()),
            self.requests.to_string(),
            (self.failed() + self.violations.len() as u64).to_string(),
            if explained.is_empty() { "–".to_owned() } else { explained.join(", ") },
            time(Some(self.slowest)),
            time(self.noticed),
            time(self.hurt),
        ]
    }
}

pub fn table(rows: &BTreeMap<Fault, Row>) {
    let heads =
        ["fault", "requests", "failed", "what happened", "slowest GET", "noticed after", "hurt until"];
    let mut lines = vec![heads.map(str::to_owned)];
    lines.extend(rows.iter().map(|(fault, row)| row.cells(*fault)));
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..heads.len()).map(width).collect();
    println!();
    for line in &lines {
        let cells = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        println!("  {}", cells.collect::<Vec<_>>().join("  ").trim_end());
    }
    let mut used: Vec<usize> = rows.values().flat_map(|row| row.explained.keys().copied()).collect();
    used.sort_unstable();
    used.dedup();
    println!();
    for rule in used {
        println!("  {}: {}", RULES[rule].what, RULES[rule].why);
    }
}
