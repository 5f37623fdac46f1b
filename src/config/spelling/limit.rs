//! How many requests in which time, and of whom.

use std::time::Duration;

use super::{Fault, Spelling};
use crate::plan::HashOn;

/// A number of requests, at least 1, in a time; a request has at least [`SHORTEST`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RequestRate {
    pub(crate) requests: u32,
    pub(crate) per: Duration,
}

/// What clients are told apart by.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LimitKey(pub(crate) HashOn);

/// More often than this nobody can be asked in whole nanoseconds and be told right.
const SHORTEST: Duration = Duration::from_micros(1);

const UNITS: &[(&str, u64)] = &[("s", 1), ("m", 60), ("h", 3600)];
const WORDS: &[(&str, &str)] = &[
    ("sec", "s"),
    ("secs", "s"),
    ("second", "s"),
    ("seconds", "s"),
    ("ps", "s"),
    ("min", "m"),
    ("minute", "m"),
    ("minutes", "m"),
    ("pm", "m"),
    ("hr", "h"),
    ("hour", "h"),
    ("hours", "h"),
    ("ph", "h"),
];

impl Spelling for RequestRate {
    const FORMAT: &'static str = "request-rate";
    const WHAT: &'static str = "a rate of requests";
    const EXAMPLE: &'static str = "50/s";
    const PATTERN: Option<&'static str> = Some("^[0-9]+/[smh]$");

    fn read(text: &str) -> Result<Self, Fault> {
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, rest) = text.split_at(digits);
        if number.is_empty() {
            return Err(Fault::new("a whole number and one of /s, /m, /h"));
        }
        let unit = rest.strip_prefix('/').and_then(|unit| UNITS.iter().find(|(known, _)| *known == unit));
        let Some((_, seconds)) = unit else { return Err(no_unit(number, rest)) };
        let per = Duration::from_secs(*seconds);
        match number.parse() {
            Ok(0) => Err(Fault::new("at least 1; a route that takes nobody answers with `respond`")),
            Ok(requests) if per / requests >= SHORTEST => Ok(Self { requests, per }),
            _ => Err(Fault::new("at most 1000000 in a second")),
        }
    }
}

/// The fault of a rate whose unit is missing or unknown, with the likely one: `50r/s`, `50 per second`
/// and `50rps` are what others write.
fn no_unit(number: &str, rest: &str) -> Fault {
    let word = rest.trim().to_ascii_lowercase();
    let word = word.trim_start_matches('r').trim_start_matches("eq").trim_start_matches("per");
    let word = word.trim_start_matches([' ', '/']);
    let known = UNITS.iter().map(|(unit, _)| *unit).find(|unit| *unit == word);
    let meant = || WORDS.iter().find(|(other, _)| *other == word).map(|(_, unit)| *unit);
    let (why, meant) = match rest.trim() {
        "" => (format!("in which time? `{number}` has no unit"), Some("s")),
        _ => ("the units are /s, /m, /h".to_owned(), known.or_else(meant)),
    };
    match meant {
        Some(meant) => Fault::new(why).write(format!("{number}/{meant}")),
        None => Fault::new(why),
    }
}

impl Spelling for LimitKey {
    const FORMAT: &'static str = "limit-key";
    const WHAT: &'static str = "a way to tell clients apart";
    const EXAMPLE: &'static str = "client_ip";

    fn read(text: &str) -> Result<Self, Fault> {
        let shape = || Fault::new("one of client_ip, cookie:NAME, header:NAME");
        match text {
            "$binary_remote_addr" | "$remote_addr" | "src" | "client" | "address" => {
                return Err(shape().write("client_ip"));
            }
            _ => {}
        }
        let kind = text.split_once(':').map(|(kind, _)| kind);
        match HashOn::read(text) {
            Ok(HashOn::Query(_) | HashOn::Path) => Err(shape()),
            Ok(key) => Ok(Self(key)),
            // Of a name that is none it is said why; of anything else, what there is.
            Err(fault) if matches!(kind, Some("cookie" | "header")) => Err(fault),
            Err(fault) => Err(Fault { write: fault.write.filter(|meant| meant == "client_ip"), ..shape() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_a_number_in_a_second_a_minute_or_an_hour() {
        let rate = |text| RequestRate::read(text).map(|rate| (rate.requests, rate.per.as_secs()));
        assert_eq!(rate("50/s"), Ok((50, 1)));
        assert_eq!(rate("600/m"), Ok((600, 60)));
        assert_eq!(rate("1/h"), Ok((1, 3600)));
        assert_eq!(rate("1000000/s"), Ok((1_000_000, 1)));
        assert_eq!(rate("3600000000/h"), Ok((3_600_000_000, 3600)));
        for text in ["", "/s", "0/s", "1000001/s", "99999999999/h", "-1/s", "1.5/s", "5/d", "5/", "5/s/s"] {
            assert!(RequestRate::read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_others_write_is_understood() {
        let write = |text| RequestRate::read(text).unwrap_err().write;
        for text in ["50", "50r/s", "50 per second", "50rps", "50/sec", "50 / s", "50req/s", "50s", "50/S"] {
            assert_eq!(write(text).as_deref(), Some("50/s"), "{text}");
        }
        assert_eq!(write("30r/m").as_deref(), Some("30/m"));
        assert_eq!(write("5 per hour").as_deref(), Some("5/h"));
        assert_eq!(write("5/day"), None);
    }

    #[test]
    fn clients_are_told_apart_by_three_things() {
        let key = |text| LimitKey::read(text).map(|key| key.0);
        assert_eq!(key("client_ip"), Ok(HashOn::ClientIp));
        assert_eq!(key("header:X-User"), Ok(HashOn::Header(http::HeaderName::from_static("x-user"))));
        assert_eq!(key("cookie:sid"), Ok(HashOn::Cookie("sid".into())));
        for text in ["$binary_remote_addr", "ip", "src", "remote_addr"] {
            assert_eq!(key(text).unwrap_err().write.as_deref(), Some("client_ip"), "{text}");
        }
        for text in ["", "path", "query:u", "uri", "header:", "cookie:", "header:a b", "jwt:sub"] {
            assert_eq!(key(text).unwrap_err().write, None, "{text}");
        }
    }
}
