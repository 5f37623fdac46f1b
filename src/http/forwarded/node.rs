//! Elements of `X-Forwarded-For` and `Forwarded`, read by somebody who trusts only their right end.
//!
//! Start at [`from_the_right`]. Anything that is not plainly an address is none.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::plan::Scheme;

/// The trimmed parts of a list from the last to the first, not split inside quotes.
///
/// Quotes are counted from the right too: read from the left, one that a client opened would
/// swallow what a proxy appended. An escaped quote is miscounted, so a part with a backslash must
/// not be believed.
pub(super) fn from_the_right(line: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(line);
    std::iter::from_fn(move || {
        let line = rest?;
        let mut quoted = false;
        let at = line.iter().rposition(|byte| {
            quoted ^= *byte == b'"';
            *byte == separator && !quoted
        });
        let (before, part) = match at {
            Some(at) => (Some(&line[..at]), &line[at + 1..]),
            None => (None, line),
        };
        rest = before;
        Some(part.trim_ascii())
    })
}

/// The address in one element of `Forwarded`: its one `for`.
pub(super) fn forwarded_for(element: &[u8]) -> Option<IpAddr> {
    self::element(parameter(element, b"for=")?)
}

/// The scheme in one element of `Forwarded`: its one `proto`.
pub(super) fn forwarded_proto(element: &[u8]) -> Option<Scheme> {
    scheme(parameter(element, b"proto=")?)
}

/// The value of the one parameter that begins so.
fn parameter<'e>(element: &'e [u8], name: &[u8]) -> Option<&'e [u8]> {
    if element.contains(&b'\\') {
        return None;
    }
    let is_it = |pair: &&[u8]| pair.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name));
    let mut pairs = from_the_right(element, b';').filter(is_it);
    let (Some(pair), None) = (pairs.next(), pairs.next()) else { return None };
    Some(&pair[name.len()..])
}

/// A scheme as proxies write it; some name a WebSocket's.
pub(super) fn scheme(text: &[u8]) -> Option<Scheme> {
    let text = text.trim_ascii();
    let text = text.strip_prefix(b"\"").and_then(|text| text.strip_suffix(b"\"")).unwrap_or(text);
    let is = |word: &str| text.eq_ignore_ascii_case(word.as_bytes());
    match (is("http") || is("ws"), is("https") || is("wss")) {
        (true, _) => Some(Scheme::Http),
        (_, true) => Some(Scheme::Https),
        _ => None,
    }
}

/// An address as proxies write it: bare, with a port, in brackets, in quotes.
pub(super) fn element(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?;
    let text = match text.strip_prefix('"') {
        Some(quoted) => quoted.strip_suffix('"')?,
        None => text,
    };
    let address = if let Some(bracketed) = text.strip_prefix('[') {
        let (address, port) = bracketed.split_once(']')?;
        if !port.is_empty() && !port.starts_with(':') {
            return None;
        }
        IpAddr::V6(address.parse::<Ipv6Addr>().ok()?)
    } else if let Ok(address) = text.parse::<IpAddr>() {
        address
    } else {
        let (address, port) = text.split_once(':')?;
        if port.contains(':') {
            return None;
        }
        IpAddr::V4(address.parse::<Ipv4Addr>().ok()?)
    };
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn split(line: &str) -> Vec<&str> {
        from_the_right(line.as_bytes(), b',').map(|part| std::str::from_utf8(part).unwrap()).collect()
    }

    #[test]
    fn a_list_is_split_from_its_end_outside_quotes() {
        assert_eq!(split("a, b ,c"), ["c", "b", "a"]);
        assert_eq!(split("a, \"b, c\", d"), ["d", "\"b, c\"", "a"]);
        assert_eq!(split("\"a, b"), ["b", "\"a"]);
        assert_eq!(split(""), [""]);
    }

    proptest! {
        #[test]
        fn no_bytes_panic_and_the_parts_are_no_more_than_the_commas(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let commas = bytes.iter().filter(|byte| **byte == b',').count();
            prop_assert!(from_the_right(&bytes, b',').count() <= commas + 1);
            let _ = (element(&bytes), forwarded_for(&bytes), forwarded_proto(&bytes), scheme(&bytes));
        }
    }
}
