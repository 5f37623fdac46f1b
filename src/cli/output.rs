//! What a person or a program gets to read: colour, tables, notes and JSON.
//!
//! Start at [`Output`]: results go to stdout, everything said about them to stderr.

use std::io::{self, IsTerminal, Write};

use clap::ColorChoice;
use serde::Serialize;
use serde_json::json;

use super::outcome::{Exit, Failure};

/// Where a command prints.
pub struct Output {
    pub json: bool,
    quiet: bool,
    /// For stdout.
    pub paint: Paint,
    /// For stderr.
    pub paint_notes: Paint,
    /// Columns of the terminal on stdout; `None` where there is none.
    pub width: Option<usize>,
}

impl Output {
    pub fn new(json: bool, quiet: bool, color: ColorChoice) -> Self {
        let painted = |terminal: bool| {
            Paint(match color {
                ColorChoice::Always => true,
                ColorChoice::Never => false,
                ColorChoice::Auto => terminal && wants_color(|name| std::env::var(name).ok()),
            })
        };
        Self {
            json,
            quiet,
            paint: painted(io::stdout().is_terminal()),
            paint_notes: painted(io::stderr().is_terminal()),
            width: width(),
        }
    }

    /// The result itself. A reader that has left ends the command without a word.
    pub fn print(&self, text: &str) -> Result<(), Failure> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(|error| {
            let gone = error.kind() == io::ErrorKind::BrokenPipe;
            Failure::failed(if gone { String::new() } else { format!("cannot write the output: {error}") })
        })
    }

    /// A sentence for people: not with `--json`, not with `--quiet`.
    pub fn say(&self, sentence: &str) -> Result<(), Failure> {
        if self.silent() { Ok(()) } else { self.print(&format!("{sentence}\n")) }
    }

    /// Whether sentences for people are unwanted.
    pub fn silent(&self) -> bool {
        self.json || self.quiet
    }

    pub fn print_json(&self, value: &impl Serialize) -> Result<(), Failure> {
        let text = serde_json::to_string_pretty(value).map_err(|error| Failure::failed(error.to_string()))?;
        self.print(&(text + "\n"))
    }

    /// Something beside the result, on stderr.
    pub fn note(&self, text: &str) {
        if !self.silent() {
            self.aside(text);
        }
    }

    /// What a person must hear even so, on stderr.
    pub fn aside(&self, text: &str) {
        // Without a stderr there is nobody to tell.
        let _ = writeln!(io::stderr().lock(), "{text}");
    }

    pub fn fail(&self, failure: &Failure) {
        if failure.message.is_empty() {
            return;
        }
        if self.json {
            let (exit, help) = (failure.exit as u8, &failure.help);
            let error =
                json!({ "error": failure.message, "exit": exit, "help": help, "problems": failure.problems });
            // Nothing is left to do for somebody who cannot be told.
            let _ = self.print_json(&error);
            return;
        }
        self.aside(&describe(failure, self.paint_notes));
    }
}

/// A failure, as a person reads it.
pub fn describe(failure: &Failure, paint: Paint) -> String {
    let mark = if failure.exit == Exit::DeadlinePassed { "" } else { "error: " };
    let mut text = format!("{}{}", paint.with(Style::Bad, mark), failure.message);
    if let Some(problems) = &failure.text {
        text += &format!("\n{}", problems.trim_end());
    }
    if let Some(help) = &failure.help {
        text += &format!("\n{} {help}", paint.with(Style::Hint, "help:"));
    }
    text
}

/// <https://no-color.org>, and terminals that cannot.
fn wants_color(variable: impl Fn(&str) -> Option<String>) -> bool {
    variable("NO_COLOR").is_none_or(|value| value.is_empty())
        && variable("TERM").is_none_or(|term| term != "dumb")
}

fn width() -> Option<usize> {
    let stdout = io::stdout();
    let columns = rustix::termios::tcgetwinsize(&stdout).ok()?.ws_col;
    // A terminal that does not know its width says 0.
    stdout.is_terminal().then_some(if columns == 0 { 80 } else { columns.into() })
}

/// Colour is never the only carrier of a meaning: every painted word is also a word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Style {
    #[default]
    Plain,
    Title,
    Faint,
    Good,
    Warn,
    Bad,
    Hint,
}

/// Paints, or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Paint(pub bool);

impl Paint {
    pub fn with(self, style: Style, text: &str) -> String {
        let code = match style {
            Style::Plain => return text.to_owned(),
            Style::Title => "1",
            Style::Faint => "2",
            Style::Good => "32",
            Style::Warn => "33",
            Style::Bad => "1;31",
            Style::Hint => "1;36",
        };
        if self.0 && !text.is_empty() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// One cell of a table.
pub struct Cell {
    text: String,
    style: Style,
}

impl Cell {
    /// Control characters are left out: some cells repeat what somebody else wrote.
    pub fn new(text: impl AsRef<str>, style: Style) -> Self {
        Self { text: text.as_ref().chars().filter(|character| !character.is_control()).collect(), style }
    }

    pub fn plain(text: impl AsRef<str>) -> Self {
        Self::new(text, Style::Plain)
    }
}

/// Rows as aligned columns, each line indented by two.
pub fn table(rows: &[Vec<Cell>], paint: Paint) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|column| {
            rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.text.chars().count()).max()
        })
        .map(Option::unwrap_or_default)
        .collect();
    rows.iter()
        .map(|row| {
            let mut line = String::from(" ");
            let mut owed = 1;
            for (cell, width) in row.iter().zip(&widths) {
                if !cell.text.is_empty() {
                    line += &" ".repeat(owed);
                    line += &paint.with(cell.style, &cell.text);
                    owed = 0;
                }
                owed += width - cell.text.chars().count() + 2;
            }
            line + "\n"
        })
        .collect()
}

/// A length of time as it is typed: `340ms`, `60s`, `5m`, `3d 4h`.
pub fn span(seconds: f64) -> String {
    let whole = seconds.max(0.0).round() as u64;
    let parts = |big: u64, big_unit: &str, small: u64, small_unit: &str| match small {
        0 => format!("{big}{big_unit}"),
        _ => format!("{big}{big_unit} {small}{small_unit}"),
    };
    match whole {
        _ if seconds < 0.9995 && seconds > 0.0 => format!("{:.0}ms", seconds * 1e3),
        0..120 => format!("{whole}s"),
        120..3600 => parts(whole / 60, "m", whole % 60, "s"),
        3600..86_400 => parts(whole / 3600, "h", whole % 3600 / 60, "m"),
        _ => parts(whole / 86_400, "d", whole % 86_400 / 3600, "h"),
    }
}

/// `1 request`, `2 requests`.
pub fn count(number: u64, thing: &str) -> String {
    if number == 1 { format!("1 {thing}") } else { format!("{number} {thing}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_whether_or_not_they_are_painted() {
        let rows = || {
            vec![
                vec![Cell::plain("A"), Cell::plain("LONGER"), Cell::plain("B")],
                vec![Cell::plain("wide"), Cell::new("up", Style::Good), Cell::plain("x")],
                vec![Cell::plain("w"), Cell::plain(""), Cell::plain("")],
            ]
        };
        assert_eq!(table(&rows(), Paint(false)), "  A     LONGER  B\n  wide  up      x\n  w\n");
        assert_eq!(table(&rows()[1..2], Paint(true)), "  wide  \x1b[32mup\x1b[0m  x\n");
    }

    #[test]
    fn a_cell_cannot_drive_the_terminal() {
        assert_eq!(table(&[vec![Cell::plain("a\x1b[2J\nb")]], Paint(false)), "  a[2Jb\n");
    }

    #[test]
    fn color_gives_way_to_no_color_and_to_dumb_terminals() {
        let with = |name: &'static str, value: &'static str| {
            wants_color(move |asked| (asked == name).then(|| value.to_owned()))
        };
        assert!(with("TERM", "xterm") && with("NO_COLOR", ""));
        assert!(!with("NO_COLOR", "1") && !with("TERM", "dumb"));
    }

    #[test]
    fn spans_read_as_they_are_typed() {
        let spans = [0.0, 0.014, 0.9999, 47.2, 60.0, 300.0, 309.0, 8000.0, 273_600.0].map(span);
        assert_eq!(spans, ["0s", "14ms", "1s", "47s", "60s", "5m", "5m 9s", "2h 13m", "3d 4h"]);
    }

    #[test]
    fn a_failure_says_what_then_the_problems_then_the_help() {
        let mut failure = Failure::new(Exit::ConfigInvalid, "not reloaded").help("run `pintle check`");
        failure.text = Some("problem\n".into());
        assert_eq!(
            describe(&failure, Paint(false)),
            "error: not reloaded\nproblem\nhelp: run `pintle check`"
        );
    }
}
