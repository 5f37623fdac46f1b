//! Places in the file: the path to a value, and where that stands in the text.
//!
//! Start at [`Place`]. Checks speak of places only; [`span`] turns one into bytes of the text.

use std::fmt;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// The way from the top of the file to a value.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place(Vec<Step>);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Step {
    Key(String),
    Index(usize),
}

impl From<&str> for Step {
    fn from(key: &str) -> Self {
        Self::Key(key.to_owned())
    }
}

impl From<&String> for Step {
    fn from(key: &String) -> Self {
        Self::Key(key.clone())
    }
}

impl From<usize> for Step {
    fn from(index: usize) -> Self {
        Self::Index(index)
    }
}

impl Place {
    /// One step further.
    pub(crate) fn at(&self, step: impl Into<Step>) -> Self {
        let mut steps = self.0.clone();
        steps.push(step.into());
        Self(steps)
    }

    pub(crate) fn parent(&self) -> Self {
        Self(self.0[..self.0.len().saturating_sub(1)].to_vec())
    }

    /// Whether `self` is `other` or holds it.
    pub(crate) fn holds(&self, other: &Self) -> bool {
        other.0.starts_with(&self.0)
    }

    pub(crate) fn depth(&self) -> usize {
        self.0.len()
    }

    /// What stands here, for the beginning of a message.
    pub(crate) fn subject(&self) -> String {
        match self.0.as_slice() {
            [.., Step::Key(key)] => format!("`{key}`"),
            [.., Step::Key(list), Step::Index(_)] => format!("an entry of `{list}`"),
            _ => "the file".to_owned(),
        }
    }

    /// The table at this place as its heading would name it.
    pub(crate) fn heading(&self) -> String {
        let keys = self.0.iter().filter_map(|step| match step {
            Step::Key(key) => Some(quoted_key(key)),
            Step::Index(_) => None,
        });
        let keys = keys.collect::<Vec<_>>().join(".");
        match self.0.as_slice() {
            [Step::Key(_), Step::Index(_)] => format!("[[{keys}]]"),
            _ => format!("[{keys}]"),
        }
    }

    /// Where a key of the table at this place stands, to follow it in a message.
    pub(crate) fn within(&self) -> String {
        match self.0.as_slice() {
            [] => "at the top of the file".to_owned(),
            [_, _, .., Step::Index(_)] => format!("in {}", self.subject()),
            _ => format!("in {}", self.heading()),
        }
    }

    /// What kind of place this is: keys without the names of listeners and pools, no positions.
    #[cfg(test)]
    pub(crate) fn kind(&self) -> String {
        let named = matches!(self.0.first(), Some(Step::Key(key)) if key == "pool" || key == "listener");
        let keys = self.0.iter().enumerate().filter_map(|(depth, step)| match step {
            Step::Key(_) if named && depth == 1 => None,
            Step::Key(key) => Some(key.as_str()),
            Step::Index(_) => None,
        });
        keys.collect::<Vec<_>>().join(".")
    }
}

/// As the file would write it: `pool.app.backends[1].weight`.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (depth, step) in self.0.iter().enumerate() {
            let dot = if depth > 0 { "." } else { "" };
            match step {
                Step::Key(key) => write!(f, "{dot}{}", quoted_key(key))?,
                Step::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

/// A key as TOML writes it: bare where that is possible.
pub(crate) fn quoted_key(key: &str) -> String {
    let bare = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    if bare { key.to_owned() } else { quoted(key) }
}

/// What the operator typed, for a message: on one line, and not endless.
pub(crate) fn shown(text: &str) -> String {
    const MAX: usize = 80;
    let mut shown: String =
        text.chars().take(MAX).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    if text.chars().nth(MAX).is_some() {
        shown.push('…');
    }
    shown
}

/// A string as TOML writes it.
pub(crate) fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// Which part of an entry is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Key,
    Value,
}

/// Where a place stands in the text; where it does not, the nearest table that would hold it.
pub(crate) fn span(root: &DeTable<'_>, place: &Place, part: Part) -> Range<usize> {
    let mut found = 0..0;
    let mut table = Some(root);
    let mut array: Option<&[Spanned<DeValue<'_>>]> = None;
    for (depth, step) in place.0.iter().enumerate() {
        let last = depth + 1 == place.0.len();
        let value = match step {
            Step::Key(key) => {
                let Some((name, value)) = table.and_then(|table| table.get_key_value(key.as_str())) else {
                    break;
                };
                found = if last && part == Part::Key { name.span() } else { value.span() };
                value
            }
            Step::Index(index) => {
                let Some(value) = array.and_then(|array| array.get(*index)) else { break };
                found = value.span();
                value
            }
        };
        (table, array) = match value.get_ref() {
            DeValue::Table(inner) => (Some(inner), None),
            DeValue::Array(inner) => (None, Some(inner.as_ref())),
            _ => (None, None),
        };
    }
    found
}
