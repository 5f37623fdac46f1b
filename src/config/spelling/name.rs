//! Names: of pools, backends, routes and listeners, of cookies and keys, of files and variables.

use std::path::PathBuf;

use super::{Fault, Spelling};

/// How long a name may be.
const MAX_NAME: usize = 64;
const MAX_KEY_ID: usize = 16;
/// Browsers drop a cookie whose name and value pass 4096 bytes; the token needs most of it.
const MAX_COOKIE_NAME: usize = 128;

/// Of a pool, backend, route or listener: letters, digits, `-_.:[]`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Name(pub(crate) String);

/// Of a sticky key, as the token carries it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct KeyId(pub(crate) String);

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct CookieName(pub(crate) String);

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct CookiePath(pub(crate) String);

/// Empty means host-only.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct CookieDomain(pub(crate) String);

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct FilePath(pub(crate) PathBuf);

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct EnvName(pub(crate) String);

impl Spelling for Name {
    const FORMAT: &'static str = "name";
    const WHAT: &'static str = "a name";
    const EXAMPLE: &'static str = "app";
    const PATTERN: Option<&'static str> = Some(r"^[A-Za-z0-9_.:\[\]-]{1,64}$");

    fn read(text: &str) -> Result<Self, Fault> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.:[]".contains(c);
        match text {
            "" => Err(Fault::new("a name has at least one character")),
            _ if text.len() > MAX_NAME => {
                Err(Fault::new(format!("a name has at most {MAX_NAME} characters")))
            }
            _ => match text.chars().find(|c| !allowed(*c)) {
                Some(odd) => Err(Fault::new(format!("names are letters, digits and -_.:[], not {odd:?}"))
                    .write(text.replace(|c| !allowed(c), "_"))),
                None => Ok(Self(text.to_owned())),
            },
        }
    }
}

impl Spelling for KeyId {
    const FORMAT: &'static str = "key-id";
    const WHAT: &'static str = "a key's id";
    const EXAMPLE: &'static str = "k1";

    fn read(text: &str) -> Result<Self, Fault> {
        let allowed = text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        if !allowed || !(1..=MAX_KEY_ID).contains(&text.len()) {
            return Err(Fault::new(format!("1 to {MAX_KEY_ID} letters, digits, `-` and `_`")));
        }
        Ok(Self(text.to_owned()))
    }
}

/// RFC 9110, 5.6.2.
fn token_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)
}

/// What the sticky cookie of a pool is called where the file does not say.
pub(crate) fn default_cookie(pool: &str) -> String {
    format!("pintle_{}", pool.replace(|c| !token_char(c), "_"))
}

impl Spelling for CookieName {
    const FORMAT: &'static str = "cookie-name";
    const WHAT: &'static str = "a cookie's name";
    const EXAMPLE: &'static str = "pintle_app";

    fn read(text: &str) -> Result<Self, Fault> {
        match text.chars().find(|c| !token_char(*c)) {
            Some(odd) => Err(Fault::new(format!("{odd:?} cannot stand in a cookie's name"))
                .write(text.replace(|c| !token_char(c), "_"))),
            None if text.is_empty() => Err(Fault::new("a cookie's name has at least one character")),
            None if text.len() > MAX_COOKIE_NAME => {
                Err(Fault::new(format!("a cookie's name has at most {MAX_COOKIE_NAME} characters")))
            }
            None => Ok(Self(text.to_owned())),
        }
    }
}

impl Spelling for CookiePath {
    const FORMAT: &'static str = "cookie-path";
    const WHAT: &'static str = "a cookie's path";
    const EXAMPLE: &'static str = "/";

    fn read(text: &str) -> Result<Self, Fault> {
        if !text.starts_with('/') {
            return Err(Fault::new("a path begins with `/`").write(format!("/{text}")));
        }
        if text.chars().any(|c| !c.is_ascii_graphic() || c == ';') {
            return Err(Fault::new("printable ASCII without spaces and `;`"));
        }
        Ok(Self(text.to_owned()))
    }
}

impl Spelling for CookieDomain {
    const FORMAT: &'static str = "cookie-domain";
    const WHAT: &'static str = "a cookie's domain";
    const EXAMPLE: &'static str = "example.com";

    fn read(text: &str) -> Result<Self, Fault> {
        if let Some(rest) = text.strip_prefix('.') {
            return Err(
                Fault::new("a cookie's domain covers its subdomains without the first dot").write(rest)
            );
        }
        if !text.is_empty() {
            super::address::dns_name(text)?;
        }
        Ok(Self(text.to_ascii_lowercase()))
    }
}

impl Spelling for FilePath {
    const FORMAT: &'static str = "file-path";
    const WHAT: &'static str = "a path";
    const EXAMPLE: &'static str = "admin.token";

    fn read(text: &str) -> Result<Self, Fault> {
        match text {
            "" => Err(Fault::new("a path has at least one character")),
            _ if text.contains('\0') => Err(Fault::new("a path has no NUL byte")),
            _ => Ok(Self(PathBuf::from(text))),
        }
    }
}

impl Spelling for EnvName {
    const FORMAT: &'static str = "env-name";
    const WHAT: &'static str = "the name of an environment variable";
    const EXAMPLE: &'static str = "PINTLE_TOKEN";

    fn read(text: &str) -> Result<Self, Fault> {
        if let Some(name) = text.strip_prefix('$') {
            return Err(Fault::new("the name alone").write(name.trim_matches(['{', '}'])));
        }
        if text.is_empty() || text.contains(['=', '\0']) {
            return Err(Fault::new("at least one character, and no `=`"));
        }
        Ok(Self(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pools_default_cookie_is_a_token_whatever_the_pool_is_called() {
        assert_eq!(default_cookie("app"), "pintle_app");
        assert_eq!(default_cookie("[a]:b.c"), "pintle__a__b.c");
        assert!(CookieName::read(&default_cookie("[::1]:80")).is_ok());
    }

    #[test]
    fn names_have_a_set_of_characters_and_a_length() {
        assert!(Name::read("[::1]:9001").is_ok());
        assert_eq!(Name::read("my app").unwrap_err().write.as_deref(), Some("my_app"));
        assert!(Name::read(&"a".repeat(64)).is_ok());
        assert!(Name::read(&"a".repeat(65)).is_err());
        assert!(KeyId::read("").is_err() && KeyId::read("k.1").is_err() && KeyId::read("2026-11_a").is_ok());
    }
}
