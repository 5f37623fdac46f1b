//! Durations, sizes and rates: whole numbers with units.

use std::time::Duration;

use super::{Fault, Spelling};

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size(pub(crate) u64);

/// A number of bytes per second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rate(pub(crate) u64);

/// Largest first, which is also the order in which a duration names them.
const TIME: &[(&str, u64)] = &[("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
const TIME_WORDS: &[(&str, &str)] = &[
    ("sec", "s"),
    ("secs", "s"),
    ("second", "s"),
    ("seconds", "s"),
    ("min", "m"),
    ("mins", "m"),
    ("minute", "m"),
    ("minutes", "m"),
    ("hr", "h"),
    ("hour", "h"),
    ("hours", "h"),
    ("day", "d"),
    ("days", "d"),
    ("msec", "ms"),
    ("millis", "ms"),
    ("milliseconds", "ms"),
];

const BYTES: &[(&str, u64)] = &[
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("KB", 1_000),
    ("B", 1),
];
const BYTE_WORDS: &[(&str, &str)] =
    &[("k", "KiB"), ("m", "MiB"), ("g", "GiB"), ("byte", "B"), ("bytes", "B")];

impl Spelling for Duration {
    const FORMAT: &'static str = "duration";
    const WHAT: &'static str = "a duration";
    const EXAMPLE: &'static str = "2s";
    const PATTERN: Option<&'static str> = Some("^([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?$");

    fn read(text: &str) -> Result<Self, Fault> {
        if text.is_empty() {
            return Err(Fault::new("a number and one of ms, s, m, h, d"));
        }
        let (mut rest, mut total, mut below) = (text, 0u64, u64::MAX);
        while !rest.is_empty() {
            let (number, unit, after) = amount(rest);
            let Some(&(_, factor)) = TIME.iter().find(|(known, _)| *known == unit) else {
                return Err(no_unit(text, number, unit, TIME_WORDS, TIME, "s", "ms, s, m, h, d"));
            };
            if number.is_empty() {
                return Err(Fault::new("each unit follows a whole number"));
            }
            if factor >= below {
                return Err(Fault::new("larger units come first, each once, as in `1m30s`"));
            }
            let number: Option<u64> = number.parse().ok();
            let sum = number.and_then(|n| n.checked_mul(factor)).and_then(|part| total.checked_add(part));
            total = sum.ok_or_else(|| Fault::new("longer than any clock runs"))?;
            (rest, below) = (after, factor);
        }
        Ok(Self::from_millis(total))
    }
}

impl Spelling for Size {
    const FORMAT: &'static str = "size";
    const WHAT: &'static str = "a size";
    const EXAMPLE: &'static str = "16KiB";
    const PATTERN: Option<&'static str> = Some("^[0-9]+([KMG]i?)?B$");

    fn read(text: &str) -> Result<Self, Fault> {
        let (number, unit, after) = amount(text);
        match BYTES.iter().find(|(known, _)| *known == unit) {
            Some(_) if number.is_empty() => Err(Fault::new("a unit follows a whole number")),
            Some(_) if !after.is_empty() => Err(Fault::new("one number and one unit, as in `16KiB`")),
            Some((_, factor)) => {
                let number: Option<u64> = number.parse().ok();
                let bytes = number.and_then(|n| n.checked_mul(*factor));
                bytes.map(Self).ok_or_else(|| Fault::new("more bytes than can be counted"))
            }
            None => Err(no_unit(text, number, unit, BYTE_WORDS, BYTES, "B", "B, KB, KiB, MB, MiB, GB, GiB")),
        }
    }
}

impl Spelling for Rate {
    const FORMAT: &'static str = "rate";
    const WHAT: &'static str = "a rate";
    const EXAMPLE: &'static str = "240B/s";
    const PATTERN: Option<&'static str> = Some("^[0-9]+([KMG]i?)?B/s$");

    fn read(text: &str) -> Result<Self, Fault> {
        let size = text.strip_suffix("/s");
        match (Size::read(size.unwrap_or(text)), size) {
            (Ok(bytes), Some(_)) => Ok(Self(bytes.0)),
            (Ok(_), None) => Err(Fault::new("a rate ends with `/s`").write(format!("{text}/s"))),
            (Err(fault), _) => Err(Fault { write: fault.write.map(|size| format!("{size}/s")), ..fault }),
        }
    }
}

/// The leading number, the letters after it, and what follows.
fn amount(text: &str) -> (&str, &str, &str) {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, rest) = text.split_at(digits);
    let unit = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
    (number, &rest[..unit], &rest[unit..])
}

/// The fault of a unit that is missing or unknown, with the likely one.
fn no_unit(
    text: &str,
    number: &str,
    unit: &str,
    words: &[(&str, &str)],
    units: &[(&str, u64)],
    usual: &str,
    all: &str,
) -> Fault {
    if number.is_empty() {
        return Fault::new(format!("a whole number and one of {all}"));
    }
    let word = unit.trim().to_ascii_lowercase();
    let meant = match word.as_str() {
        "" => Some(usual),
        word => words.iter().find(|(other, _)| *other == word).map(|(_, unit)| *unit).or_else(|| {
            units.iter().find(|(unit, _)| unit.eq_ignore_ascii_case(word)).map(|(unit, _)| *unit)
        }),
    };
    let why = match word.as_str() {
        "" => format!("`{number}` has no unit"),
        _ => format!("the units are {all}"),
    };
    let only = text.len() == number.len() + unit.len();
    match meant {
        Some(meant) if only => Fault::new(why).write(format!("{number}{meant}")),
        _ => Fault::new(why),
    }
}

/// What a `minimum` or `maximum` of a duration or a size is compared by: milliseconds or bytes.
pub(crate) fn measure(format: &str, text: &str) -> Option<u128> {
    match format {
        Duration::FORMAT => Duration::read(text).ok().map(|duration| duration.as_millis()),
        Size::FORMAT => Size::read(text).ok().map(|size| u128::from(size.0)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_are_whole_numbers_with_units() {
        assert_eq!(Duration::read("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(Duration::read("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(Duration::read("0s"), Ok(Duration::ZERO));
        assert_eq!(Duration::read("1d"), Ok(Duration::from_secs(86_400)));
        assert_eq!(Size::read("16KiB"), Ok(Size(16_384)));
        assert_eq!(Size::read("1MB"), Ok(Size(1_000_000)));
        assert_eq!(Size::read("0B"), Ok(Size(0)));
        assert_eq!(Rate::read("240B/s"), Ok(Rate(240)));
        assert_eq!(Rate::read("2KiB/s"), Ok(Rate(2048)));
        assert_eq!(Rate::read("0B/s"), Ok(Rate(0)));
    }

    #[test]
    fn a_likely_unit_is_offered() {
        let write = |text: &str| Duration::read(text).unwrap_err().write;
        assert_eq!(write("2").as_deref(), Some("2s"));
        assert_eq!(write("10 sec").as_deref(), Some("10s"));
        assert_eq!(write("5 MIN").as_deref(), Some("5m"));
        assert_eq!(write("1.5s"), None);
        let write = |text: &str| Size::read(text).unwrap_err().write;
        assert_eq!(write("16k").as_deref(), Some("16KiB"));
        assert_eq!(write("16kb").as_deref(), Some("16KB"));
        assert_eq!(write("16").as_deref(), Some("16B"));
        let write = |text: &str| Rate::read(text).unwrap_err().write;
        assert_eq!(write("240").as_deref(), Some("240B/s"));
        assert_eq!(write("240B").as_deref(), Some("240B/s"));
        assert_eq!(write("1kib/s").as_deref(), Some("1KiB/s"));
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "s", "1s1s", "1s1m", "-1s", "99999999999999999999s", "1s ", "9999999999999999d"] {
            assert!(Duration::read(text).is_err(), "{text}");
        }
        for text in ["", "/s", "1B/s/s", "1B/m", "1s", "-1B/s"] {
            assert!(Rate::read(text).is_err(), "{text}");
        }
        for text in ["", "B", "1KiB1B", "99999999999999999999B", "99999999999999GiB"] {
            assert!(Size::read(text).is_err(), "{text}");
        }
    }
}
