//! Text on a terminal: how wide, in which colours, wrapped and set in columns.
//!
//! Text is wrapped and padded first and painted last, so that colours never count as letters.

use std::io::IsTerminal;

/// Wider lines are hard to read, and the lesson's table fits.
const WIDEST: usize = 100;
const NARROWEST: usize = 72;
/// A column is not squeezed below this; longer words are cut where they must be.
const SLIMMEST: usize = 5;
const GAP: &str = "  ";

/// What is printed on.
#[derive(Clone, Copy, Debug)]
pub struct Page {
    pub width: usize,
    pub colour: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ink {
    Plain,
    Bold,
    Dim,
    Good,
    Bad,
    Alarm,
}

impl Page {
    pub fn of_standard_output() -> Self {
        let stdout = std::io::stdout();
        let window = rustix::termios::tcgetwinsize(&stdout).ok().map(|size| usize::from(size.ws_col));
        let width = window.filter(|columns| *columns > 0).unwrap_or(WIDEST).clamp(NARROWEST, WIDEST);
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { width, colour: stdout.is_terminal() && !refused }
    }

    pub fn paint(&self, ink: Ink, text: &str) -> String {
        let code = match ink {
            Ink::Plain => return text.to_owned(),
            Ink::Bold => "1",
            Ink::Dim => "2",
            Ink::Good => "32",
            Ink::Bad => "33",
            Ink::Alarm => "1;97;41",
        };
        if self.colour && !text.is_empty() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// A paragraph, wrapped: `first` stands before its first line and as much space before the rest.
    pub fn paragraph(&self, first: &str, ink: Ink, text: &str) -> String {
        let indent = " ".repeat(length(first));
        let lines = wrap(text, self.width.saturating_sub(length(first)));
        let lead = |nth| if nth == 0 { first } else { indent.as_str() };
        let line = |(nth, line): (usize, &String)| format!("{}{}\n", lead(nth), self.paint(ink, line));
        lines.iter().enumerate().map(line).collect()
    }

    /// A heading that begins a part, with a rule to the edge where it leaves room for one.
    pub fn heading(&self, text: &str) -> String {
        let lead = self.paint(Ink::Dim, "──");
        let indent = "   ";
        let lines = wrap(text, self.width - indent.len());
        let rule = "─".repeat(self.width.saturating_sub(indent.len() + length(text) + 1));
        let rule = if lines.len() == 1 { format!(" {}", self.paint(Ink::Dim, &rule)) } else { String::new() };
        let lines: Vec<String> = lines.iter().map(|line| self.paint(Ink::Bold, line)).collect();
        format!("\n{lead} {}{}\n\n", lines.join(&format!("\n{indent}")), rule.trim_end())
    }

    /// A table whose cells are wrapped until it fits. `tint` chooses the ink of each line of a
    /// cell from the column, the number of the line and what it says.
    pub fn grid(
        &self,
        indent: usize,
        header: &[String],
        rows: &[Vec<String>],
        ruled: bool,
        tint: impl Fn(usize, usize, &str) -> Ink,
    ) -> String {
        let columns = rows.iter().map(Vec::len).chain([header.len()]).max().unwrap_or(0);
        let widths = widths(header, rows, columns, self.width.saturating_sub(indent));
        let right: Vec<bool> = (0..columns).map(|column| column > 0 && is_figures(rows, column)).collect();
        let row = |cells: &[String], ink: &dyn Fn(usize, usize, &str) -> Ink| {
            let cells: Vec<Vec<String>> = (0..columns)
                .map(|column| wrap(cells.get(column).map_or("", |cell| cell), widths[column]))
                .collect();
            let height = cells.iter().map(Vec::len).max().unwrap_or(0);
            let line = |nth: usize| {
                let piece = |column: usize| {
                    let text = cells[column].get(nth).map_or("", |line| line);
                    let space = " ".repeat(widths[column].saturating_sub(length(text)));
                    let text = self.paint(ink(column, nth, text), text);
                    if right[column] { space + &text } else { text + &space }
                };
                let pieces: Vec<String> = (0..columns).map(piece).collect();
                format!("{}{}\n", " ".repeat(indent), pieces.join(GAP).trim_end())
            };
            (0..height).map(line).collect::<String>()
        };
        let across = widths.iter().sum::<usize>() + GAP.len() * columns.saturating_sub(1);
        let rule = format!("{}{}\n", " ".repeat(indent), self.paint(Ink::Dim, &"─".repeat(across)));
        let body: Vec<String> = rows.iter().map(|cells| row(cells, &tint)).collect();
        row(header, &|_, _, _| Ink::Bold) + &rule + &body.join(if ruled { &rule } else { "" })
    }
}

/// How wide each column may be: as it is, and when that is too wide the widest give way.
fn widths(header: &[String], rows: &[Vec<String>], columns: usize, available: usize) -> Vec<usize> {
    let widest = |column: usize| {
        let cells = rows.iter().map(|row| row.as_slice()).chain([header]).filter_map(|row| row.get(column));
        cells.flat_map(|cell| cell.lines()).map(length).max().unwrap_or(0).max(1)
    };
    let mut widths: Vec<usize> = (0..columns).map(widest).collect();
    let gaps = GAP.len() * columns.saturating_sub(1);
    while widths.iter().sum::<usize>() + gaps > available {
        let Some(most) = widths.iter_mut().max().filter(|most| **most > SLIMMEST) else { break };
        *most -= 1;
    }
    widths
}

/// Whether a column holds figures, which are set to the right.
pub fn is_figures(rows: &[Vec<String>], column: usize) -> bool {
    let figure = |cell: &String| {
        // A unit or `12 of 300 (4 %)` is a figure; a sentence that begins with one is not.
        let letters = cell.chars().filter(|letter| letter.is_alphabetic()).count();
        let first = cell.trim_start_matches(['+', '-', '−', '~', '<', '≤', '≥']).chars().next();
        cell == "—" || cell == "-" || (first.is_some_and(|first| first.is_ascii_digit()) && letters <= 6)
    };
    let mut cells = rows.iter().filter_map(|row| row.get(column)).filter(|cell| !cell.is_empty()).peekable();
    cells.peek().is_some() && cells.all(|cell| figure(cell) && length(cell) <= 24)
}

/// Lines of at most this many letters, broken at spaces where there are any.
pub fn wrap(text: &str, width: usize) -> Vec<String> {
    let width = width.max(1);
    let mut lines = Vec::new();
    for paragraph in text.lines() {
        let mut line = String::new();
        for word in paragraph.split_whitespace() {
            let mut word = word.to_owned();
            if !line.is_empty() && length(&line) + 1 + length(&word) > width {
                lines.push(std::mem::take(&mut line));
            }
            while length(&word) > width {
                let rest = word.split_off(word.char_indices().nth(width).map_or(word.len(), |(at, _)| at));
                lines.push(std::mem::replace(&mut word, rest));
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(&word);
        }
        lines.push(line);
    }
    lines
}

pub fn length(text: &str) -> usize {
    text.chars().count()
}
