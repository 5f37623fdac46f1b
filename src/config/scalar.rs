//! Whether a single value is within its limits: the word, the spelling, the length, the range.
//!
//! Start at [`string`] and [`number`]. That the value is of the right kind is known here.

use serde_json::Value;
use toml::de::DeValue;

use super::findings::Finding;
use super::place::{Place, quoted, shown};
use super::spelling::{FORMATS, Format, measure};
use super::suggest;

/// How a schema wants its texts spelled.
pub(crate) fn format_of(schema: &Value) -> Option<&'static Format> {
    let name = schema.get("format").and_then(Value::as_str)?;
    FORMATS.iter().find(|format| format.name == name)
}

/// A text: a word of a list, or spelled as its format says. `whole` has the other choices.
pub(crate) fn string(whole: &Value, schema: &Value, text: &str, place: &Place) -> Result<(), Box<Finding>> {
    if let Some(words) = schema.get("enum").and_then(Value::as_array) {
        if words.iter().any(|word| word == text) {
            return Ok(());
        }
        let flag = whole.pointer("/anyOf/0/type").is_some_and(|kind| kind == "boolean");
        let choices: Vec<Value> = words
            .iter()
            .cloned()
            .chain(flag.then_some(true.into()))
            .chain(flag.then_some(false.into()))
            .collect();
        return Err(Box::new(no_choice(&choices, text, place)));
    }
    let most = schema.get("maxLength").and_then(Value::as_u64);
    if let Some(most) = most.filter(|most| text.len() as u64 > *most) {
        let finding =
            Finding::error("range", place, format!("{} has at most {most} characters", place.subject()));
        return Err(Box::new(finding.label(format!("these are {}", text.len()))));
    }
    let Some(format) = format_of(schema) else { return Ok(()) };
    (format.check)(text).map_err(|fault| {
        let finding = Finding::error("value", place, format!("`{}` is not {}", shown(text), format.what))
            .label(fault.why);
        Box::new(match fault.write {
            Some(meant) => finding.write(quoted(&meant)),
            None => finding,
        })
    })?;
    amount(schema, format, text, place)
}

/// A number: one of a list, or within its limits. `typed` is how it stands in the text.
pub(crate) fn number(
    schema: &Value,
    value: &DeValue<'_>,
    typed: &str,
    place: &Place,
) -> Result<(), Box<Finding>> {
    let number = match value {
        DeValue::Integer(number) => {
            i64::from_str_radix(number.as_str(), number.radix()).ok().map(|n| n as f64)
        }
        DeValue::Float(number) => number.as_str().parse().ok().filter(|number: &f64| number.is_finite()),
        _ => None,
    };
    if let Some(choices) = schema.get("enum").and_then(Value::as_array) {
        let known = number.is_some() && choices.iter().any(|choice| choice.as_f64() == number);
        return if known { Ok(()) } else { Err(Box::new(no_choice(choices, typed, place))) };
    }
    let bound = |word: &str| schema.get(word).and_then(Value::as_f64);
    let (least, most) = (bound("minimum").unwrap_or(f64::MIN), bound("maximum").unwrap_or(f64::MAX));
    if number.is_some_and(|number| (least..=most).contains(&number)) {
        return Ok(());
    }
    let finding =
        Finding::error("range", place, format!("{} is {least} to {most}, not {typed}", place.subject()));
    let small = number.is_some_and(|number| number < least);
    let hint = schema.get("x-too-small").and_then(Value::as_str).filter(|_| small);
    let finding = finding.label(if small { format!("at least {least}") } else { format!("at most {most}") });
    Err(Box::new(match hint {
        Some(hint) => finding.say(hint),
        None => finding,
    }))
}

fn no_choice(choices: &[Value], typed: &str, place: &Place) -> Finding {
    let finding = Finding::error("value", place, format!("{} cannot be `{}`", place.subject(), shown(typed)));
    let all: Vec<String> =
        choices.iter().map(|choice| choice.as_str().map_or(choice.to_string(), str::to_owned)).collect();
    let finding = finding.label(match all.as_slice() {
        [only] => format!("only {only}"),
        _ => format!("one of {}", all.join(", ")),
    });
    let words = choices.iter().filter_map(Value::as_str);
    match suggest::value(typed, words) {
        Some(meant) => finding.write(quoted(meant)),
        None => finding,
    }
}

/// The limits of a duration or size.
fn amount(schema: &Value, format: &Format, text: &str, place: &Place) -> Result<(), Box<Finding>> {
    let Some(value) = measure(format.name, text) else { return Ok(()) };
    let bound = |word: &str| {
        let text = schema.get(word).and_then(Value::as_str)?;
        Some((text, measure(format.name, text)?))
    };
    let off = schema.get("x-zero").is_some();
    let finding = |limit: String| {
        Err(Box::new(
            Finding::error("range", place, format!("{} cannot be `{text}`", place.subject())).label(limit),
        ))
    };
    match (bound("x-min"), bound("x-max")) {
        (Some((least, low)), _) if value < low && off && value > 0 => {
            finding(format!("0s, or at least {least}"))
        }
        (Some((least, low)), _) if value < low && !off => finding(format!("at least {least}")),
        (_, Some((most, high))) if value > high => finding(format!("at most {most}")),
        _ => Ok(()),
    }
}
