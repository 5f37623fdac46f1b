//! The files that ship: they load, and the reference is complete and true.

use std::collections::BTreeSet;

use serde_json::Value;
use toml::de::{DeTable, DeValue};

use super::*;
use crate::config::place::{Part, Place, span};
use crate::plan::{HashOn, IpPrefix, PolicyPlan};

const FROM_NGINX: &str = include_str!("../../../config/from-nginx.toml");

#[test]
fn the_files_that_ship_have_no_problems() {
    for text in [INIT, REFERENCE, FROM_NGINX, &uncommented(INIT)] {
        let compiled = compile(text, &origin()).unwrap_or_else(|problems| panic!("{problems}"));
        assert!(compiled.warnings.is_empty(), "{}", compiled.warnings);
    }
}

#[test]
fn nginx_lines_become_what_they_meant() {
    let plan = plan(FROM_NGINX);
    let [by_address, by_cookie] = plan.pools.as_slice() else { panic!("{:?}", plan.pools) };
    let PolicyPlan::IpHash(hash) = &by_address.policy else { panic!("{:?}", by_address.policy) };
    assert_eq!((&hash.on, hash.prefix), (&HashOn::ClientIp, IpPrefix { v4: 24, v6: 128 }));
    assert_eq!(by_address.backends[0].address.to_string(), "backend1.example.com:80");
    assert_eq!((by_cookie.policy_name(), by_cookie.cookie.cookie.as_str()), ("sticky_cookie", "srv_id"));
    assert_eq!(by_cookie.cookie.max_idle.as_secs(), 3600);
}

/// A key that is commented out has no space after its `#`.
fn commented(line: &str) -> Option<&str> {
    line.strip_prefix('#').filter(|rest| !rest.starts_with(' ') && !rest.is_empty())
}

/// The text with every key that is commented out put to use.
fn uncommented(text: &str) -> String {
    text.lines().map(|line| commented(line).unwrap_or(line)).collect::<Vec<_>>().join("\n")
}

/// The reference as it is, and once more for each key that is commented out, with that key in use:
/// some of them exclude each other.
fn variants() -> Vec<String> {
    let lines: Vec<&str> = REFERENCE.lines().collect();
    let one = |at: usize| {
        let mut lines = lines.clone();
        lines[at] = commented(lines[at])?;
        Some(lines.join("\n"))
    };
    std::iter::once(REFERENCE.to_owned()).chain((0..lines.len()).filter_map(one)).collect()
}

fn shown(text: &str) -> (DeTable<'_>, Vec<Place>) {
    let (root, _) = DeTable::parse_recoverable(text);
    let mut found = Vec::new();
    places(root.get_ref(), &Place::default(), &mut found);
    (root.into_inner(), found)
}

fn places(table: &DeTable<'_>, at: &Place, found: &mut Vec<Place>) {
    for (key, value) in table.iter() {
        let name: &str = key.get_ref();
        let place = at.at(name);
        match value.get_ref() {
            DeValue::Table(inner) => places(inner, &place, found),
            DeValue::Array(list) => {
                for (index, element) in list.iter().enumerate() {
                    if let DeValue::Table(inner) = element.get_ref() {
                        places(inner, &place.at(index), found);
                    }
                }
            }
            _ => {}
        }
        found.push(place);
    }
}

/// Every key of the schema, as [`Place::kind`] writes it.
fn kinds(schema: &Value, at: &str, found: &mut BTreeSet<String>) {
    for (key, inner) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        let kind = if at.is_empty() { key.clone() } else { format!("{at}.{key}") };
        kinds(inner, &kind, found);
        found.insert(kind);
    }
    for inner in ["additionalProperties", "items"].into_iter().filter_map(|word| schema.get(word)) {
        kinds(inner, at, found);
    }
    for inner in schema.get("anyOf").and_then(Value::as_array).into_iter().flatten() {
        kinds(inner, at, found);
    }
}

#[test]
fn the_reference_has_every_key() {
    let kinds_of = |text: &String| shown(text).1.iter().map(Place::kind).collect::<Vec<_>>();
    let shown: BTreeSet<String> = variants().iter().flat_map(kinds_of).collect();
    let mut known = BTreeSet::new();
    kinds(schema::annotated(), "", &mut known);
    assert!(known.len() > 90, "{}", known.len());
    let missing: Vec<&String> = known.difference(&shown).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

/// The default of the key at a place, where the schema has one.
fn default_of(schema: &Value, kind: &str) -> Option<Value> {
    let step = |schema: &Value, key: &str| {
        let choices =
            schema.get("anyOf").and_then(Value::as_array).cloned().unwrap_or_else(|| vec![schema.clone()]);
        choices.iter().find_map(|choice| {
            let inner = ["items", "additionalProperties"]
                .into_iter()
                .find_map(|word| choice.get(word).filter(|inner| inner.is_object()));
            let inner = inner.unwrap_or(choice);
            let tables =
                inner.get("anyOf").and_then(Value::as_array).cloned().unwrap_or_else(|| vec![inner.clone()]);
            tables.iter().find_map(|table| table.get("properties")?.get(key).cloned())
        })
    };
    let mut at = schema.clone();
    for key in kind.split('.') {
        at = step(&at, key)?;
    }
    at.get("default").cloned()
}

#[test]
fn what_the_reference_shows_is_the_default_unless_it_says_example() {
    let text = REFERENCE;
    let (root, shown) = shown(text);
    let mut compared = 0;
    for place in shown {
        let found = span(&root, &place, Part::Value);
        let value = text.get(found.clone()).unwrap();
        let line = text[found.start..].lines().next().unwrap();
        let parsed: Option<toml::Table> = format!("v = {value}").parse().ok();
        let Some(parsed) = parsed.filter(|_| !line.contains("# example")) else { continue };
        let Some(default) = default_of(schema::annotated(), &place.kind()) else { continue };
        assert_eq!(serde_json::to_value(&parsed["v"]).unwrap(), default, "{place}");
        compared += 1;
    }
    assert!(compared > 60, "{compared}");
}
