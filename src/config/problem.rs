//! What is wrong with a file, for people and for programs.
//!
//! Start at [`Problems`]. Finding them is `check`'s and `compile`'s work; this is how they are
//! kept, ordered and shown.

use std::fmt;
use std::ops::Range;

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Group, Level, Patch, Renderer, Snippet};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    Error,
    Warning,
}

impl Severity {
    pub fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

/// One thing that is wrong, and where. Lines and columns count from 1, columns in characters.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    pub severity: Severity,
    /// A word for programs: `unknown-key`, `type`, `value`, `reference` …
    pub code: &'static str,
    pub message: String,
    pub line: usize,
    pub column: usize,
    /// The line as it stands in the file.
    pub source_line: String,
    /// The reason or the choices, under the caret.
    pub label: String,
    /// The corrected line, or what to do.
    pub help: Option<String>,
    /// Other places that have a part in it.
    pub related: Vec<Related>,
    span: Range<usize>,
    fix: Option<String>,
}

/// A place that a problem also speaks of.
#[derive(Clone, Debug, PartialEq)]
pub struct Related {
    pub line: usize,
    pub column: usize,
    pub label: String,
    span: Range<usize>,
}

/// A problem before its place has been looked up in the text.
pub(crate) struct Draft {
    pub(crate) severity: Severity,
    pub(crate) code: &'static str,
    pub(crate) message: String,
    pub(crate) span: Range<usize>,
    pub(crate) label: String,
    pub(crate) related: Vec<(Range<usize>, String)>,
    pub(crate) help: Option<Help>,
}

/// How to mend it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Help {
    /// In words, or as lines to add.
    Say(String),
    /// By writing this where the problem is.
    Write(String),
}

/// All problems of one text, ordered by place.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Problems {
    name: String,
    text: String,
    list: Vec<Problem>,
}

impl Problems {
    pub(crate) fn new(name: &str, text: &str, drafts: Vec<Draft>) -> Self {
        let mut list: Vec<Problem> = drafts.into_iter().map(|draft| Problem::new(text, draft)).collect();
        list.sort_by_key(|problem| (problem.span.start, problem.severity));
        Self { name: name.to_owned(), text: text.to_owned(), list }
    }

    /// The one problem of a file whose text is not to be had.
    pub(crate) fn unreadable(name: &str, message: String, help: Option<String>) -> Self {
        let draft = Draft {
            severity: Severity::Error,
            code: "file",
            message,
            span: 0..0,
            label: String::new(),
            related: Vec::new(),
            help: help.map(Help::Say),
        };
        Self::new(name, "", vec![draft])
    }

    pub fn iter(&self) -> std::slice::Iter<'_, Problem> {
        self.list.iter()
    }

    /// The name of the text, as messages give it.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn errors(&self) -> usize {
        self.list.iter().filter(|problem| problem.severity == Severity::Error).count()
    }

    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// `pintle.toml: 2 errors, 1 warning`.
    pub fn summary(&self) -> String {
        let count = |number: usize, word: &str| match number {
            0 => None,
            1 => Some(format!("1 {word}")),
            _ => Some(format!("{number} {word}s")),
        };
        let errors = self.errors();
        let parts: Vec<String> = [count(errors, "error"), count(self.list.len() - errors, "warning")]
            .into_iter()
            .flatten()
            .collect();
        let parts = if parts.is_empty() { "no problems".to_owned() } else { parts.join(", ") };
        format!("{}: {parts}", self.name)
    }

    /// For a person: every problem with its line, an empty line between them, a newline at the end.
    pub fn render(&self, color: bool) -> String {
        let renderer = if color { Renderer::styled() } else { Renderer::plain() };
        let renderer = renderer.decor_style(DecorStyle::Ascii);
        let shown: Vec<String> = self
            .list
            .iter()
            .map(|problem| renderer.render(&problem.groups(&self.name, &self.text)))
            .collect();
        let mut text = String::new();
        for line in shown.join("\n\n").lines() {
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.render(false), self.summary())
    }
}

impl std::error::Error for Problems {}

impl<'a> IntoIterator for &'a Problems {
    type Item = &'a Problem;
    type IntoIter = std::slice::Iter<'a, Problem>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl Problem {
    fn new(text: &str, draft: Draft) -> Self {
        let span = clamp(text, draft.span);
        let (line, column, source_line) = line_of(text, span.start);
        let (help, fix) = match draft.help {
            None => (None, None),
            Some(Help::Say(words)) => (Some(words), None),
            Some(Help::Write(fix)) => (Some(format!("write `{}`", corrected(text, &span, &fix))), Some(fix)),
        };
        let related = draft.related.into_iter().map(|(span, label)| {
            let span = clamp(text, span);
            let (line, column, _) = line_of(text, span.start);
            Related { line, column, label, span }
        });
        Self {
            severity: draft.severity,
            code: draft.code,
            message: draft.message,
            line,
            column,
            source_line: source_line.to_owned(),
            label: draft.label,
            help,
            related: related.collect(),
            span,
            fix,
        }
    }

    fn groups<'a>(&'a self, name: &'a str, text: &'a str) -> Vec<Group<'a>> {
        let level = match self.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let title = level.primary_title(&self.message).id(self.code);
        if text.is_empty() {
            let mut group = title.element(annotate_snippets::Origin::path(name));
            if let Some(help) = &self.help {
                group = group.element(Level::HELP.message(help));
            }
            return vec![group];
        }
        let label = (!self.label.is_empty()).then_some(self.label.as_str());
        let mut snippet = Snippet::source(text)
            .path(name)
            .annotation(AnnotationKind::Primary.span(self.span.clone()).label(label));
        for related in &self.related {
            snippet =
                snippet.annotation(AnnotationKind::Context.span(related.span.clone()).label(&related.label));
        }
        let group = title.element(snippet);
        match (&self.fix, &self.help) {
            (Some(fix), _) => {
                let patch = Patch::new(self.span.clone(), fix);
                vec![group, Level::HELP.secondary_title("write").element(Snippet::source(text).patch(patch))]
            }
            (None, Some(help)) => vec![group.element(Level::HELP.message(help))],
            (None, None) => vec![group],
        }
    }
}

/// A span that lies within the text, on character borders.
fn clamp(text: &str, span: Range<usize>) -> Range<usize> {
    let start = text.floor_char_boundary(span.start.min(text.len()));
    start..text.ceil_char_boundary(span.end.clamp(start, text.len()))
}

/// Line and column of a byte, and that line's text.
fn line_of(text: &str, at: usize) -> (usize, usize, &str) {
    let start = text[..at].rfind('\n').map_or(0, |end| end + 1);
    let line = text[..start].matches('\n').count() + 1;
    let column = text[start..at].chars().count() + 1;
    let whole = text[start..].split('\n').next().unwrap_or_default();
    (line, column, whole.strip_suffix('\r').unwrap_or(whole))
}

/// The line with the correction in it.
fn corrected(text: &str, span: &Range<usize>, fix: &str) -> String {
    let start = text[..span.start].rfind('\n').map_or(0, |end| end + 1);
    let end = text[span.end..].find('\n').map_or(text.len(), |at| span.end + at);
    let line = format!("{}{fix}{}", &text[start..span.start], &text[span.end..end]);
    line.trim().to_owned()
}
