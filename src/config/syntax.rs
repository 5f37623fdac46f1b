//! TOML itself: text in, spanned table out, and what to say where the text is not TOML.
//!
//! Start at [`parse`]. One slip in TOML often makes the parser stumble over what follows, so only
//! the first error of a line is told, and no more than [`MAX_TOLD`]. Slips that leave the rest
//! readable (a value without quotes, a key set twice) do not end the search for other problems.

use std::ops::Range;

use toml::de::{DeTable, DeValue, Error};

use super::place::{quoted, shown};
use super::problem::{Draft, Help, Severity};

/// What the parser says at the end of a text in which a list was not closed.
const OPEN_LIST: &str = "unclosed array";

/// How many syntax errors are told at once.
const MAX_TOLD: usize = 3;

pub(crate) struct Parsed<'a> {
    pub(crate) root: DeTable<'a>,
    pub(crate) drafts: Vec<Draft>,
    /// Values that are no values; everything else in the table is as written.
    pub(crate) unread: Vec<Range<usize>>,
    /// Whether the table can be trusted beside `unread`.
    pub(crate) readable: bool,
}

pub(crate) fn parse(text: &str) -> Parsed<'_> {
    let (root, errors) = DeTable::parse_recoverable(text);
    let root = root.into_inner();
    let mut scalars = Vec::new();
    entries(&root, &mut scalars);
    let contained =
        |error: &Error| duplicate(error) || error.span().is_some_and(|span| scalars.contains(&span));
    let readable = errors.iter().all(contained);
    let unread = errors.iter().filter(|error| !duplicate(error)).filter_map(Error::span).collect();
    let mut errors: Vec<&Error> = errors.iter().collect();
    errors.sort_by_key(|error| error.span().map(|span| span.start));
    // What follows an open list is read as part of it, and wrong as such.
    if let Some(first) = errors.iter().any(|error| error.message().starts_with(OPEN_LIST)).then(|| errors[0])
    {
        errors = vec![first];
    }
    let line = |error: &&&Error| text[..start(text, error)].matches('\n').count();
    let mut drafts: Vec<Draft> = Vec::new();
    let mut told = None;
    for error in &errors {
        let here = Some(line(&error));
        if here != told && (readable || drafts.len() < MAX_TOLD) {
            drafts.push(draft(text, error));
        }
        told = here;
    }
    Parsed { root, drafts, unread, readable }
}

fn duplicate(error: &Error) -> bool {
    error.message() == "duplicate key"
}

fn start(text: &str, error: &Error) -> usize {
    text.floor_char_boundary(error.span().map_or(0, |span| span.start).min(text.len()))
}

/// Where the single values of tables stand; those of lists are left out, because an error in a
/// list may have swallowed what follows it.
fn entries(table: &DeTable<'_>, found: &mut Vec<Range<usize>>) {
    for value in table.values() {
        match value.get_ref() {
            DeValue::Table(inner) => entries(inner, found),
            DeValue::Array(list) => list.iter().for_each(|element| {
                if let DeValue::Table(inner) = element.get_ref() {
                    entries(inner, found);
                }
            }),
            _ => found.push(value.span()),
        }
    }
}

/// One error in the operator's words.
fn draft(text: &str, error: &Error) -> Draft {
    let span = error.span().unwrap_or(0..0);
    let typed = text.get(span.clone()).unwrap_or_default();
    let (what, expected) = error.message().split_once(", expected ").unwrap_or((error.message(), ""));
    let mut draft = Draft {
        severity: Severity::Error,
        code: "syntax",
        message: what.to_owned(),
        span: span.clone(),
        label: if expected.is_empty() { String::new() } else { format!("expected {expected}") },
        related: Vec::new(),
        help: None,
    };
    let lower = typed.to_ascii_lowercase();
    match what {
        "duplicate key" => {
            draft.code = "duplicate";
            draft.message = format!("`{}` is set twice", shown(typed));
            draft.label = "again here".to_owned();
            if let Some(first) = first_of(text, &span) {
                draft.related.push((first, "first here".to_owned()));
            }
        }
        "invalid boolean" if lower == "true" || lower == "false" => {
            draft.message = format!("`{typed}` is written in small letters");
            draft.label = String::new();
            draft.help = Some(Help::Write(lower));
        }
        "string values must be quoted" if lower == "yes" || lower == "no" => {
            draft.message = format!("`{typed}` is not a value");
            draft.label = "true or false".to_owned();
            draft.help = Some(Help::Write((lower == "yes").to_string()));
        }
        "string values must be quoted" if !typed.is_empty() => {
            draft.message = format!("`{}` needs quotes", shown(typed));
            draft.label = "text stands in quotes".to_owned();
            draft.help = Some(Help::Write(quoted(typed)));
        }
        "missing comma between array elements" | OPEN_LIST if span.is_empty() => {
            draft.message = "a list is not closed, or a comma is missing".to_owned();
            draft.label = "expected `,` or `]`".to_owned();
        }
        "invalid basic string" if span.is_empty() => {
            draft.message = "a text is not closed".to_owned();
            draft.help = Some(Help::Write("\"".to_owned()));
        }
        "unclosed table" if span.is_empty() => draft.help = Some(Help::Write("]".to_owned())),
        _ => {
            let line = text[..start(text, error)].rfind('\n').map_or(0, |end| end + 1);
            let line = text[line..].lines().next().unwrap_or_default();
            if line.contains(':') && !line.contains('=') {
                draft.help = Some(Help::Say("TOML writes `key = value`".to_owned()));
            }
        }
    }
    draft
}

/// Where a key or a heading that is there twice was first.
fn first_of(text: &str, again: &Range<usize>) -> Option<Range<usize>> {
    let line_start = text[..again.start].rfind('\n').map_or(0, |end| end + 1);
    let line = text[line_start..].lines().next()?.trim();
    let heading = line.starts_with('[');
    let before = &text[..line_start];
    let mut from = line_start;
    for earlier in before.split_inclusive('\n').rev() {
        from -= earlier.len();
        let bare = earlier.trim();
        let key = text[again.clone()].trim_matches(['"', '\'']);
        if heading && bare == line {
            return Some(from..from + earlier.trim_end().len());
        }
        if !heading
            && bare.split(['=', '.']).next().is_some_and(|name| name.trim().trim_matches(['"', '\'']) == key)
        {
            let at = from + earlier.find(key)?;
            return Some(at..at + key.len());
        }
        if !heading && bare.starts_with('[') {
            return None;
        }
    }
    None
}
