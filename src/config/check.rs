//! Whether each value is of the kind, in the range and of the spelling that the schema says.
//!
//! Start at [`Check::file`]. Walks the schema and the text together and takes out what is wrong, so
//! that what is left always becomes a [`super::schema::File`]. Single values are judged by `kind`
//! and `scalar`; what needs two values at once is `compile`'s.

use std::ops::Range;

use serde_json::Value;
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::findings::{Finding, Findings, UNKNOWN_KEY};
use super::kind;
use super::place::{Place, quoted, quoted_key, shown};
use super::scalar::{self, format_of};
use super::spelling::FORMATS;
use super::suggest;

/// The longest list of choices that is shown whole.
const MAX_SHOWN: usize = 8;

pub(crate) struct Check<'a, 'f> {
    pub(crate) text: &'a str,
    pub(crate) schema: &'a Value,
    pub(crate) unread: &'a [Range<usize>],
    pub(crate) findings: &'f mut Findings<'a>,
}

impl Check<'_, '_> {
    /// Checks the whole file and takes out what is wrong.
    pub(crate) fn file(&mut self, root: &mut DeTable<'_>) {
        self.table(self.schema, root, &Place::default());
    }

    /// Whether a value may stay.
    fn value(&mut self, schema: &Value, value: &mut Spanned<DeValue<'_>>, place: &Place) -> bool {
        let span = value.span();
        if self.unread.contains(&span) {
            self.findings.mark(place.clone());
            return false;
        }
        let whole = schema;
        let choices =
            schema.get("anyOf").and_then(Value::as_array).map_or(std::slice::from_ref(schema), Vec::as_slice);
        let Some(schema) = choices.iter().find(|choice| kind::fits(choice, value.get_ref())) else {
            self.findings.add(kind::mismatch(schema, value.get_ref(), self.typed(&span), place));
            return false;
        };
        let fine = match value.get_mut() {
            DeValue::Table(table) => return self.table(schema, table, place),
            DeValue::Array(_) => return self.list(schema, value, place),
            DeValue::String(text) => scalar::string(whole, schema, text, place),
            DeValue::Integer(_) | DeValue::Float(_) => {
                scalar::number(schema, value.get_ref(), self.typed(&span), place)
            }
            DeValue::Boolean(_) | DeValue::Datetime(_) => Ok(()),
        };
        match fine {
            Ok(()) => true,
            Err(finding) => {
                self.findings.add(*finding);
                false
            }
        }
    }

    fn typed(&self, span: &Range<usize>) -> &str {
        self.text.get(span.clone()).unwrap_or_default()
    }

    fn table(&mut self, schema: &Value, table: &mut DeTable<'_>, place: &Place) -> bool {
        let known = schema.get("properties").and_then(Value::as_object);
        let named = schema.get("additionalProperties").filter(|named| named.is_object());
        let present: Vec<String> = table.keys().map(|key| key.get_ref().to_string()).collect();
        let entries = std::mem::take(table).into_iter().filter_map(|(key, mut value)| {
            let name: &str = key.get_ref();
            let inner = place.at(name);
            let fine = match (known.and_then(|known| known.get(name)), named) {
                (Some(schema), _) => self.value(schema, &mut value, &inner),
                (None, Some(named)) => {
                    let names = schema.pointer("/propertyNames/format").and_then(Value::as_str);
                    if let Some(finding) = names.and_then(|format| misnamed(format, name, &inner)) {
                        self.findings.add(finding);
                    }
                    self.value(named, &mut value, &inner)
                }
                (None, None) => {
                    let finding = self.unknown_key(schema, place, name, &present);
                    self.findings.add(finding);
                    false
                }
            };
            fine.then_some((key, value))
        });
        *table = entries.collect();
        let required = schema.get("required").and_then(Value::as_array);
        let missing =
            required.into_iter().flatten().filter_map(Value::as_str).find(|key| !table.contains_key(*key));
        if let Some(key) = missing {
            if self.findings.clear(place) {
                self.findings.add(lacks(known.and_then(|known| known.get(key)), key, place));
            }
            self.findings.mark(place.clone());
            return false;
        }
        true
    }

    fn list(&mut self, schema: &Value, value: &mut Spanned<DeValue<'_>>, place: &Place) -> bool {
        let DeValue::Array(list) = value.get_mut() else { return true };
        let limit = |word: &str| {
            schema.get(word).and_then(Value::as_u64).and_then(|limit| usize::try_from(limit).ok())
        };
        let length = list.len();
        if limit("minItems").is_some_and(|least| length < least) {
            let finding = Finding::error("missing", place, format!("{} is empty", place.subject()));
            self.findings.add(finding.label("needs at least one"));
            return false;
        }
        if let Some(most) = limit("maxItems").filter(|most| length > *most) {
            let finding =
                Finding::error("range", place, format!("{} has at most {most} entries", place.subject()));
            self.findings.add(finding.label(format!("these are {length}")));
            return false;
        }
        let Some(items) = schema.get("items") else { return true };
        let mut left = Vec::new();
        let kept = std::mem::replace(list, DeArray::new()).into_iter().enumerate().filter_map(
            |(index, mut element)| {
                let fine = self.value(items, &mut element, &place.at(index));
                fine.then(|| {
                    left.push(index);
                    element
                })
            },
        );
        *list = kept.collect();
        self.findings.note_left(place.clone(), left);
        true
    }

    fn unknown_key(&self, schema: &Value, table: &Place, key: &str, present: &[String]) -> Finding {
        let place = table.at(key);
        let finding =
            Finding::error(UNKNOWN_KEY, &place, format!("unknown key `{}` {}", shown(key), table.within()))
                .on_key();
        let known = schema.get("properties").and_then(Value::as_object);
        let keys = known.into_iter().flat_map(|known| known.keys().map(String::as_str));
        if let Some(meant) = suggest::key(key, keys.clone()) {
            if present.iter().any(|key| key == meant) {
                return finding.label(format!("not a key here, and `{meant}` is there already"));
            }
            return finding.label("not a key here").write(quoted_key(meant));
        }
        let (key, headings) = suggest::elsewhere(self.schema, schema, table, key);
        match headings.as_slice() {
            [] if keys.clone().count() <= MAX_SHOWN => finding
                .label("not a key here")
                .say(format!("the keys are {}", keys.collect::<Vec<_>>().join(", "))),
            [] => finding.label("not a key here"),
            [only] => finding.label(format!("`{key}` belongs in {only}")),
            [first, second, ..] => finding.label(format!("`{key}` belongs in {first} or {second}")),
        }
    }
}

/// A key that names something and is no name.
fn misnamed(format: &str, name: &str, place: &Place) -> Option<Finding> {
    let format = FORMATS.iter().find(|known| known.name == format)?;
    let fault = (format.check)(name).err()?;
    let finding = Finding::error("name", place, format!("`{}` is not {}", shown(name), format.what))
        .on_key()
        .label(fault.why);
    Some(match fault.write {
        Some(meant) => finding.write(quoted_key(&meant)),
        None => finding,
    })
}

fn lacks(schema: Option<&Value>, key: &str, place: &Place) -> Finding {
    let finding =
        Finding::error("missing", place, format!("`{key}` is missing")).label(format!("needs `{key}`"));
    match schema.and_then(format_of) {
        Some(format) => finding.say(format!("add `{key} = {}`", quoted(format.example))),
        None => finding,
    }
}
