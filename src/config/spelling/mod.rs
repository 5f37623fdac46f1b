//! How single values are spelled in the file: strings with a meaning of their own.
//!
//! Start at [`Spelling`]: a type that can be read from one string and say what is wrong with it.
//! [`Spelled`] carries such a value in the schema types, [`OneOf`] carries a word from a fixed
//! list, and [`FORMATS`] is how `check` finds the reader that a schema names. What needs two
//! values at once, or the file system, belongs in `compile`.

mod address;
mod http;
mod limit;
mod log;
mod name;
mod route;
mod units;

pub(crate) use address::{HostName, ServerName, names_a_port};
pub(crate) use limit::{LimitKey, RequestRate};
pub(crate) use log::LogLevel;
pub(crate) use name::{CookieDomain, CookieName, CookiePath, EnvName, FilePath, KeyId, Name, default_cookie};
pub(crate) use route::{ProbePath, ServiceName, Template};
pub(crate) use units::{Rate, Size, measure};

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::time::Duration;

use ::http::{HeaderName, HeaderValue, Method};
use ipnet::IpNet;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde::{Serialize, Serializer};

use crate::plan::{
    AdminBind, BackendAddress, HashOn, HostHeader, HostPattern, LogOutput, PathPattern, StatusSet,
};

/// A value that the file spells as a string.
pub(crate) trait Spelling: Sized {
    /// The schema's name for it.
    const FORMAT: &'static str;
    /// With its article, to follow "is not".
    const WHAT: &'static str;
    const EXAMPLE: &'static str;
    /// What editors can check, where a regular expression can say it.
    const PATTERN: Option<&'static str> = None;

    fn read(text: &str) -> Result<Self, Fault>;
}

/// Why a text does not spell a value, and the text that would where that is clear.
#[derive(Debug, PartialEq)]
pub(crate) struct Fault {
    pub(crate) why: Cow<'static, str>,
    pub(crate) write: Option<String>,
}

impl Fault {
    pub(crate) fn new(why: impl Into<Cow<'static, str>>) -> Self {
        Self { why: why.into(), write: None }
    }

    pub(crate) fn write(self, text: impl Into<String>) -> Self {
        Self { write: Some(text.into()), ..self }
    }
}

/// What `check` needs to know of a [`Spelling`].
pub(crate) struct Format {
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    pub(crate) example: &'static str,
    pub(crate) pattern: Option<&'static str>,
    pub(crate) check: fn(&str) -> Result<(), Fault>,
}

const fn format<T: Spelling>() -> Format {
    Format {
        name: T::FORMAT,
        what: T::WHAT,
        example: T::EXAMPLE,
        pattern: T::PATTERN,
        check: |text| T::read(text).map(drop),
    }
}

/// Every spelling that a schema may name.
pub(crate) const FORMATS: &[Format] = &[
    format::<Duration>(),
    format::<Size>(),
    format::<Rate>(),
    format::<Name>(),
    format::<KeyId>(),
    format::<FilePath>(),
    format::<EnvName>(),
    format::<CookieName>(),
    format::<CookiePath>(),
    format::<CookieDomain>(),
    format::<SocketAddr>(),
    format::<AdminBind>(),
    format::<BackendAddress>(),
    format::<HostName>(),
    format::<ServerName>(),
    format::<IpNet>(),
    format::<HostPattern>(),
    format::<PathPattern>(),
    format::<Template>(),
    format::<ProbePath>(),
    format::<ServiceName>(),
    format::<Method>(),
    format::<HeaderName>(),
    format::<HeaderValue>(),
    format::<StatusSet>(),
    format::<HashOn>(),
    format::<LimitKey>(),
    format::<RequestRate>(),
    format::<HostHeader>(),
    format::<LogLevel>(),
    format::<LogOutput>(),
];

/// A value and the text it was read from.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Spelled<T> {
    pub(crate) text: String,
    pub(crate) value: T,
}

/// A default, written as the file would.
///
/// # Panics
/// When the text does not spell a value, which the test of every default would show.
pub(crate) fn spelled<T: Spelling>(text: &str) -> Spelled<T> {
    match T::read(text) {
        Ok(value) => Spelled { text: text.to_owned(), value },
        Err(fault) => panic!("the default `{text}` is not {}: {}", T::WHAT, fault.why),
    }
}

impl<'de, T: Spelling> Deserialize<'de> for Spelled<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let value = T::read(&text).map_err(|fault| de::Error::custom(fault.why))?;
        Ok(Self { text, value })
    }
}

impl<T> Serialize for Spelled<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<T: Spelling> JsonSchema for Spelled<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        T::FORMAT.into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": T::FORMAT })
    }
}

/// A type whose values are words from a fixed list.
pub(crate) trait Words: Copy + PartialEq + fmt::Debug + 'static {
    const WORDS: &'static [(&'static str, Self)];
}

/// One of a fixed list of words.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct OneOf<T>(pub(crate) T);

impl<'de, T: Words> Deserialize<'de> for OneOf<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Word<T>(PhantomData<T>);
        impl<T: Words> Visitor<'_> for Word<T> {
            type Value = OneOf<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("one of the words in the schema")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<OneOf<T>, E> {
                let known = T::WORDS.iter().find(|(word, _)| *word == text);
                known.map(|(_, value)| OneOf(*value)).ok_or_else(|| E::custom(format!("`{text}` is no word")))
            }
        }
        deserializer.deserialize_str(Word(PhantomData))
    }
}

impl<T: Words> Serialize for OneOf<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let word = T::WORDS.iter().find(|(_, value)| *value == self.0);
        serializer.serialize_str(word.expect("every value has a word").0)
    }
}

impl<T: Words> JsonSchema for OneOf<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        std::any::type_name::<T>().into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let words: Vec<&str> = T::WORDS.iter().map(|(word, _)| *word).collect();
        json_schema!({ "type": "string", "enum": words })
    }
}
