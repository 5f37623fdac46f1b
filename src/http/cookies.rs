//! Finding one cookie among many, in the bytes of a `Cookie` header.
//!
//! Split as servers do (RFC 6265 5.4 and what browsers send): at every `;`, the name up to the
//! first `=`, blanks around both dropped, one pair of quotes around the value dropped. Nothing
//! is decoded and nothing is allocated, except when a cookie is taken out.

use memchr::memchr;
use memchr::memmem::Finder;

/// A cookie's name, prepared for looking.
#[derive(Debug)]
pub struct CookieName(Finder<'static>);

impl CookieName {
    pub fn new(name: &str) -> Self {
        Self(Finder::new(name).into_owned())
    }

    /// Every value this cookie has in one header, in order.
    pub fn values<'h>(&self, header: &'h [u8]) -> impl Iterator<Item = &'h [u8]> {
        // Most headers without it are told by one fast look.
        let header = if self.0.find(header).is_some() { header } else { b"" };
        pairs(header).filter_map(|pair| self.value(pair))
    }

    /// The header without this cookie, the others byte for byte as they were; `None` when it was
    /// not there.
    pub fn without(&self, header: &[u8]) -> Option<Vec<u8>> {
        self.values(header).next()?;
        let mut rest = Vec::with_capacity(header.len());
        for pair in pairs(header).filter(|pair| self.value(pair).is_none()) {
            rest.extend_from_slice(if rest.is_empty() { pair.trim_ascii_start() } else { pair });
            rest.push(b';');
        }
        rest.pop();
        // Only blanks and separators left: no cookie is.
        let empty = rest.iter().all(|byte| matches!(byte, b' ' | b'\t' | b';'));
        Some(if empty { Vec::new() } else { rest })
    }

    /// The value, if the pair is of this name.
    fn value<'h>(&self, pair: &'h [u8]) -> Option<&'h [u8]> {
        let equals = memchr(b'=', pair)?;
        let (name, value) = (pair[..equals].trim_ascii(), pair[equals + 1..].trim_ascii());
        (name == self.0.needle()).then(|| unquoted(value))
    }
}

/// What stands between semicolons.
fn pairs(header: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(header);
    std::iter::from_fn(move || {
        let all = rest?;
        let (pair, after) = match memchr(b';', all) {
            Some(end) => (&all[..end], Some(&all[end + 1..])),
            None => (all, None),
        };
        rest = after;
        Some(pair)
    })
}

fn unquoted(value: &[u8]) -> &[u8] {
    match value {
        [b'"', inner @ .., b'"'] => inner,
        _ => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn values<'h>(name: &str, header: &'h str) -> Vec<&'h str> {
        let name = CookieName::new(name);
        name.values(header.as_bytes()).map(|value| str::from_utf8(value).unwrap()).collect()
    }

    fn without(header: &str) -> Option<String> {
        CookieName::new("srv").without(header.as_bytes()).map(|rest| String::from_utf8(rest).unwrap())
    }

    #[test]
    fn the_name_must_match_whole() {
        assert_eq!(values("srv", "srv=a; xsrv=b; srv2=c; SRV=d; e=srv; srv; x=1 srv=2"), ["a"]);
        assert_eq!(values("srv", "a=b;\tsrv = \"q\" ;srv=;srv=x=y"), ["q", "", "x=y"]);
        assert_eq!(values("__Host-srv", "__Host-srv=a"), ["a"]);
    }

    #[test]
    fn taking_it_out_leaves_the_others_as_they_were() {
        assert_eq!(without("a=1; srv=x; b=\"2;  c\""), Some("a=1; b=\"2;  c\"".into()));
        assert_eq!(without("srv=x; a=1"), Some("a=1".into()));
        assert_eq!(without("a=1; srv=x"), Some("a=1".into()));
        assert_eq!(without("srv=x; a=1;srv=\"y\""), Some("a=1".into()));
        assert_eq!(without("srv=x; "), Some("".into()));
        assert_eq!(without("a=1; xsrv=x"), None);
    }

    /// Another way to the same answer: split the whole, then look.
    fn naive(name: &str, header: &str) -> Vec<String> {
        let blank = [' ', '\t'];
        let named = header.split(';').filter_map(|pair| pair.split_once('='));
        let ours = named.filter(|(found, _)| found.trim_matches(blank) == name);
        ours.map(|(_, value)| {
            let value = value.trim_matches(blank);
            value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value).to_owned()
        })
        .collect()
    }

    proptest! {
        #[test]
        fn it_finds_what_a_naive_parser_finds(header in "([ \t]?(a|srv|sr|v)?[ \t]?[=;\"x]?){0,24}") {
            prop_assert_eq!(values("srv", &header), naive("srv", &header));
        }

        #[test]
        fn taken_out_it_is_gone_and_the_others_remain(header in "([ \t]?(a|srv|b)[ \t]?=[\"x=]{0,2}[; \t]{0,2}){0,12}") {
            let rest = without(&header).unwrap_or_else(|| header.clone());
            prop_assert_eq!(naive("srv", &rest), Vec::<String>::new());
            for name in ["a", "b"] {
                prop_assert_eq!(naive(name, &rest), naive(name, &header));
            }
        }

        #[test]
        fn arbitrary_bytes_do_no_harm(header: Vec<u8>, name in "[a-z=; ]{0,3}") {
            let name = CookieName::new(&name);
            let _ = name.values(&header).count();
            let _ = name.without(&header);
        }
    }
}
