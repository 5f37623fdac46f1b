//! Kinds of values: whether one is what the schema wants, and what to say when it is not.

use serde_json::Value;
use toml::de::DeValue;

use super::findings::Finding;
use super::place::{Place, quoted};
use super::spelling::FORMATS;

fn name(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "string",
        DeValue::Integer(_) => "integer",
        DeValue::Float(_) => "number",
        DeValue::Boolean(_) => "boolean",
        DeValue::Array(_) => "array",
        DeValue::Table(_) => "object",
        DeValue::Datetime(_) => "datetime",
    }
}

fn in_words(kind: &str) -> &'static str {
    match kind {
        "string" => "a text",
        "integer" => "a whole number",
        "number" => "a number",
        "boolean" => "true or false",
        "array" => "a list",
        "object" => "a table",
        _ => "a date",
    }
}

/// Whether a value is of the kind that a schema without choices wants.
pub(crate) fn fits(schema: &Value, value: &DeValue<'_>) -> bool {
    let Some(wanted) = schema.get("type").and_then(Value::as_str) else {
        return schema.get("anyOf").is_none();
    };
    wanted == name(value) || (wanted == "number" && matches!(value, DeValue::Integer(_)))
}

/// What to say of a value of the wrong kind; `typed` is how it stands in the text.
pub(crate) fn mismatch(schema: &Value, value: &DeValue<'_>, typed: &str, place: &Place) -> Finding {
    let choices =
        schema.get("anyOf").and_then(Value::as_array).map_or(std::slice::from_ref(schema), Vec::as_slice);
    let wanted: Vec<&str> = choices.iter().map(wanted).collect();
    let found = match value {
        DeValue::Boolean(flag) => flag.to_string(),
        other => in_words(name(other)).to_owned(),
    };
    let heading = matches!(value, DeValue::Table(_)) && !typed.starts_with('{');
    let finding =
        Finding::error("type", place, format!("{} is {}, not {found}", place.subject(), wanted.join(" or ")));
    let unit = choices.iter().find_map(|choice| unit(choice, value));
    let hint = schema.get("x-hint").and_then(Value::as_str);
    let finding = match (unit, hint) {
        (Some(_), _) => finding.label(format!("`{typed}` has no unit")),
        (None, Some(hint)) => finding.label(hint),
        (None, None) => finding.label(format!("this is {found}")),
    };
    let meant = unit
        .map(|unit| quoted(&format!("{typed}{unit}")))
        .or_else(|| schema.get("x-write").and_then(Value::as_str).filter(|_| !heading).map(str::to_owned))
        .or_else(|| choices.iter().find_map(|choice| converted(choice, value, typed)));
    match meant {
        Some(meant) => finding.write(meant),
        None => finding,
    }
}

/// What a schema wants, in words.
fn wanted(schema: &Value) -> &'static str {
    let format = schema.get("format").and_then(Value::as_str);
    let spelled = FORMATS.iter().find(|known| Some(known.name) == format);
    match (spelled, schema.get("type").and_then(Value::as_str)) {
        (Some(format), _) => format.what,
        (None, Some("string")) if schema.get("enum").is_some() => "a word",
        (None, kind) => in_words(kind.unwrap_or_default()),
    }
}

/// The unit that a bare number probably meant.
fn unit(schema: &Value, value: &DeValue<'_>) -> Option<&'static str> {
    let DeValue::Integer(number) = value else { return None };
    let plain = number.radix() == 10 && number.as_str().bytes().all(|b| b.is_ascii_digit());
    match schema.get("format").and_then(Value::as_str) {
        Some("duration") if plain => Some("s"),
        Some("size") if plain => Some("B"),
        Some("rate") if plain => Some("B/s"),
        Some("request-rate") if plain => Some("/s"),
        _ => None,
    }
}

/// The same thought written as the kind that is wanted, where that is likely.
fn converted(schema: &Value, value: &DeValue<'_>, typed: &str) -> Option<String> {
    let wanted = schema.get("type").and_then(Value::as_str)?;
    match (wanted, value) {
        ("integer" | "number", DeValue::String(text)) => {
            text.parse::<i64>().is_ok().then(|| text.trim_start_matches('+').to_owned())
        }
        ("boolean", DeValue::String(text)) => match text.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" => Some("true".to_owned()),
            "false" | "no" | "off" => Some("false".to_owned()),
            _ => None,
        },
        ("boolean", DeValue::Integer(number)) => match number.as_str() {
            "0" => Some("false".to_owned()),
            "1" => Some("true".to_owned()),
            _ => None,
        },
        ("string", DeValue::Integer(_) | DeValue::Float(_)) => {
            meant_text(schema, typed).map(|text| quoted(&text))
        }
        ("string", DeValue::Array(list)) => match list.as_ref() {
            [only] if fits(schema, only.get_ref()) => only.get_ref().as_str().map(quoted),
            _ => None,
        },
        ("object", DeValue::String(_)) => {
            let [only] = schema.get("required").and_then(Value::as_array)?.as_slice() else { return None };
            Some(format!("{{ {} = {typed} }}", only.as_str()?))
        }
        // A heading too: `[route]` becomes `[[route]]`.
        ("array", DeValue::String(_) | DeValue::Table(_)) if typed.starts_with(['"', '\'', '{', '[']) => {
            let items = schema.get("items")?;
            let choices = items
                .get("anyOf")
                .and_then(Value::as_array)
                .map_or(std::slice::from_ref(items), Vec::as_slice);
            choices.iter().any(|choice| fits(choice, value)).then(|| format!("[{typed}]"))
        }
        _ => None,
    }
}

/// The text that a schema of strings would take for what was typed without quotes.
fn meant_text(schema: &Value, typed: &str) -> Option<String> {
    let format = schema.get("format").and_then(Value::as_str);
    let spelled = FORMATS.iter().find(|known| Some(known.name) == format);
    match (schema.get("enum").and_then(Value::as_array), spelled) {
        (Some(words), _) => words.iter().any(|word| word == typed).then(|| typed.to_owned()),
        (None, Some(format)) => match (format.check)(typed) {
            Ok(()) => Some(typed.to_owned()),
            Err(fault) => fault.write,
        },
        (None, None) => Some(typed.to_owned()),
    }
}
