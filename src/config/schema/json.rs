//! The JSON Schema of the file: annotated for `check`, plain for editors.

use std::sync::OnceLock;

use schemars::generate::SchemaSettings;
use serde_json::Value;

use super::File;
use crate::config::spelling::FORMATS;

/// With every type written out in place and our own `x-` words kept.
pub(crate) fn annotated() -> &'static Value {
    static SCHEMA: OnceLock<Value> = OnceLock::new();
    SCHEMA.get_or_init(|| {
        let settings = SchemaSettings::draft2020_12().with(|s| s.inline_subschemas = true);
        let mut schema = settings.into_generator().into_root_schema_for::<File>().to_value();
        drop_null(&mut schema);
        schema
    })
}

/// As `pintle schema` prints it.
pub(crate) fn published() -> Value {
    let mut schema = annotated().clone();
    drop_words(&mut schema);
    schema
}

/// TOML has no null: a key that may be left out is simply not required.
fn drop_null(schema: &mut Value) {
    if let Value::Object(map) = schema {
        // Nor does a table's default say more than those of its keys.
        if map.get("default").is_some_and(|default| default.is_null() || default.is_object()) {
            map.remove("default");
        }
        if let Some(Value::Array(types)) = map.get_mut("type") {
            types.retain(|name| name != "null");
            if let [only] = types.as_slice() {
                let only = only.clone();
                map.insert("type".to_owned(), only);
            }
        }
        if let Some(Value::Array(words)) = map.get_mut("enum") {
            words.retain(|word| !word.is_null());
        }
        if let Some(Value::Array(choices)) = map.get_mut("anyOf") {
            choices.retain(|choice| choice.get("type").is_none_or(|name| name != "null"));
            if let [Value::Object(only)] = choices.as_mut_slice() {
                let only = std::mem::take(only);
                map.remove("anyOf");
                for (key, value) in only {
                    map.entry(key).or_insert(value);
                }
            }
        }
    }
    children(schema).for_each(drop_null);
}

/// Editors know neither our own words nor our formats, some of which (`duration`) mean something
/// else to them: a pattern says what can be said.
fn drop_words(schema: &mut Value) {
    if let Value::Object(map) = schema {
        map.retain(|key, _| !key.starts_with("x-"));
        if let Some(Value::String(format)) = map.get("format") {
            let pattern = FORMATS.iter().find(|known| known.name == format).and_then(|known| known.pattern);
            map.remove("format");
            if let Some(pattern) = pattern {
                map.insert("pattern".to_owned(), pattern.into());
            }
        }
    }
    children(schema).for_each(drop_words);
}

fn children(schema: &mut Value) -> Box<dyn Iterator<Item = &mut Value> + '_> {
    match schema {
        Value::Object(map) => Box::new(map.values_mut()),
        Value::Array(list) => Box::new(list.iter_mut()),
        _ => Box::new(std::iter::empty()),
    }
}
