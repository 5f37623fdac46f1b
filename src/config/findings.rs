//! The problems found so far, by place, and what they make unknowable.
//!
//! Start at [`Findings::add`]. A mistake is reported once: what follows from it is held back by
//! asking [`Findings::clear`] first.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use toml::de::DeTable;

use super::place::{Part, Place, span};
use super::problem::{Draft, Help, Problems, Severity};

/// The code of a key that the schema does not have.
pub(crate) const UNKNOWN_KEY: &str = "unknown-key";

/// A problem at a place.
pub(crate) struct Finding {
    severity: Severity,
    code: &'static str,
    place: Place,
    part: Part,
    message: String,
    label: String,
    related: Vec<(Place, Part, String)>,
    help: Option<Help>,
}

impl Finding {
    pub(crate) fn error(code: &'static str, place: &Place, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            code,
            place: place.clone(),
            part: Part::Value,
            message: message.into(),
            label: String::new(),
            related: Vec::new(),
            help: None,
        }
    }

    pub(crate) fn warning(code: &'static str, place: &Place, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(code, place, message) }
    }

    /// It is the key, not the value, that is meant.
    pub(crate) fn on_key(self) -> Self {
        Self { part: Part::Key, ..self }
    }

    pub(crate) fn label(self, label: impl Into<String>) -> Self {
        Self { label: label.into(), ..self }
    }

    /// What to do, in words.
    pub(crate) fn say(self, help: impl Into<String>) -> Self {
        Self { help: Some(Help::Say(help.into())), ..self }
    }

    /// What to write where the problem is.
    pub(crate) fn write(self, text: impl Into<String>) -> Self {
        Self { help: Some(Help::Write(text.into())), ..self }
    }

    /// Another place that has a part in it.
    pub(crate) fn with(mut self, place: &Place, label: impl Into<String>) -> Self {
        self.related.push((place.clone(), Part::Value, label.into()));
        self
    }
}

/// What has been found in one text.
pub(crate) struct Findings<'a> {
    root: &'a DeTable<'a>,
    drafts: Vec<Draft>,
    /// Places with an error.
    broken: BTreeSet<Place>,
    /// Tables with a key that nobody knows, which may have been meant for another.
    puzzling: BTreeSet<Place>,
    /// For lists that lost elements to an error: where the ones that are left stood.
    left: BTreeMap<Place, Vec<usize>>,
}

impl<'a> Findings<'a> {
    pub(crate) fn new(root: &'a DeTable<'a>) -> Self {
        Self {
            root,
            drafts: Vec::new(),
            broken: BTreeSet::new(),
            puzzling: BTreeSet::new(),
            left: BTreeMap::new(),
        }
    }

    pub(crate) fn add(&mut self, finding: Finding) {
        if finding.severity == Severity::Error {
            self.broken.insert(finding.place.clone());
        }
        if finding.code == UNKNOWN_KEY {
            self.puzzling.insert(finding.place.parent());
        }
        let related = finding.related.into_iter();
        self.drafts.push(Draft {
            severity: finding.severity,
            code: finding.code,
            span: span(self.root, &finding.place, finding.part),
            message: finding.message,
            label: finding.label,
            related: related.map(|(place, part, label)| (span(self.root, &place, part), label)).collect(),
            help: finding.help,
        });
    }

    /// Takes problems that have no place in the tree: those of syntax.
    pub(crate) fn add_drafts(&mut self, drafts: Vec<Draft>) {
        self.drafts.extend(drafts);
    }

    /// Notes that nothing can be said about a place, without a problem of its own.
    pub(crate) fn mark(&mut self, place: Place) {
        self.broken.insert(place);
    }

    /// Whether a place and the keys directly in it are free of errors, so that what is missing
    /// there is truly missing.
    pub(crate) fn clear(&self, place: &Place) -> bool {
        let limit = place.depth() + 1;
        !self.within(place).any(|broken| broken.depth() <= limit)
    }

    /// Whether every key of a table is one that the schema has.
    pub(crate) fn keys_known(&self, place: &Place) -> bool {
        !self.puzzling.contains(place)
    }

    /// Whether nothing at all is wrong from a place down.
    pub(crate) fn sound(&self, place: &Place) -> bool {
        self.within(place).next().is_none()
    }

    fn within(&self, place: &Place) -> impl Iterator<Item = &Place> {
        self.broken.range(place.clone()..).take_while(|broken| place.holds(broken))
    }

    pub(crate) fn errors(&self) -> usize {
        self.drafts.iter().filter(|draft| draft.severity == Severity::Error).count()
    }

    /// Notes which elements of a list are left.
    pub(crate) fn note_left(&mut self, list: Place, indexes: Vec<usize>) {
        self.left.insert(list, indexes);
    }

    /// Where the `index`th element that is left of a list stood in the file.
    pub(crate) fn element(&self, list: &Place, index: usize) -> Place {
        let original = self.left.get(list).and_then(|left| left.get(index)).copied();
        list.at(original.unwrap_or(index))
    }

    /// Where a place stands in the text.
    pub(crate) fn span(&self, place: &Place) -> Range<usize> {
        span(self.root, place, Part::Value)
    }

    pub(crate) fn into_problems(self, name: &str, text: &str) -> Problems {
        Problems::new(name, text, self.drafts)
    }
}
