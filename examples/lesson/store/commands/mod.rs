//! What the store can do with its keys. Start at [`COMMANDS`]; each family has a file.
//!
//! A command gets the words behind its name and the time. What needs more than the keys, such as
//! pub/sub or waiting for a push, is in the server.

mod collections;
mod keys;
mod lists;
mod strings;

use std::borrow::Cow;
use std::time::{Duration, Instant};

use axum::body::Bytes;

use super::keyspace::{Keyspace, WrongKind};
use super::resp::Reply;
pub use lists::{End, shift};

pub type Answer = Result<Reply, Refusal>;
type Run = fn(&mut Keyspace, &[Bytes], Instant) -> Answer;

/// The least and the most words behind the name.
type Words = (usize, usize);

const MANY: usize = usize::MAX;

const COMMANDS: &[(&str, Words, Run)] = &[
    ("get", (1, 1), strings::get),
    ("set", (2, MANY), strings::set),
    ("setex", (3, 3), strings::setex),
    ("psetex", (3, 3), strings::psetex),
    ("getex", (1, 3), strings::getex),
    ("getdel", (1, 1), strings::getdel),
    ("mget", (1, MANY), strings::mget),
    ("mset", (2, MANY), strings::mset),
    ("incr", (1, 1), strings::incr),
    ("decr", (1, 1), strings::decr),
    ("incrby", (2, 2), strings::incrby),
    ("decrby", (2, 2), strings::decrby),
    ("strlen", (1, 1), strings::strlen),
    ("append", (2, 2), strings::append),
    ("del", (1, MANY), keys::del),
    ("exists", (1, MANY), keys::exists),
    ("expire", (2, 2), keys::expire),
    ("pexpire", (2, 2), keys::pexpire),
    ("persist", (1, 1), keys::persist),
    ("ttl", (1, 1), keys::ttl),
    ("pttl", (1, 1), keys::pttl),
    ("type", (1, 1), keys::kind),
    ("keys", (1, 1), keys::keys),
    ("scan", (1, 5), keys::scan),
    ("dbsize", (0, 0), keys::dbsize),
    ("flushdb", (0, 1), keys::flushdb),
    ("memory", (1, MANY), keys::memory),
    ("hset", (3, MANY), collections::hset),
    ("hget", (2, 2), collections::hget),
    ("hmget", (2, MANY), collections::hmget),
    ("hdel", (2, MANY), collections::hdel),
    ("hgetall", (1, 1), collections::hgetall),
    ("hincrby", (3, 3), collections::hincrby),
    ("hlen", (1, 1), collections::hlen),
    ("sadd", (2, MANY), collections::sadd),
    ("srem", (2, MANY), collections::srem),
    ("smembers", (1, 1), collections::smembers),
    ("sismember", (2, 2), collections::sismember),
    ("scard", (1, 1), collections::scard),
    ("zadd", (3, MANY), collections::zadd),
    ("zrangebyscore", (3, MANY), collections::zrangebyscore),
    ("zrem", (2, MANY), collections::zrem),
    ("zscore", (2, 2), collections::zscore),
    ("zcard", (1, 1), collections::zcard),
    ("lpush", (2, MANY), lists::lpush),
    ("rpush", (2, MANY), lists::rpush),
    ("lpop", (1, 2), lists::lpop),
    ("rpop", (1, 2), lists::rpop),
    ("lrange", (3, 3), lists::lrange),
    ("ltrim", (3, 3), lists::ltrim),
    ("llen", (1, 1), lists::llen),
    ("lrem", (3, 3), lists::lrem),
    ("lmove", (4, 4), lists::lmove),
    ("echo", (1, 1), |_, words, _| Ok(Reply::Bulk(words[0].clone()))),
    ("ping", (0, 1), |_, words, _| Ok(words.first().cloned().map_or(Reply::Status("PONG"), Reply::Bulk))),
];

/// What a client is told instead of an answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal(pub Cow<'static, str>);

pub const SYNTAX: Refusal = Refusal::new("ERR syntax error");
pub const NOT_AN_INTEGER: Refusal = Refusal::new("ERR value is not an integer or out of range");
const NOT_POSITIVE: Refusal = Refusal::new("ERR value is out of range, must be positive");

impl Refusal {
    pub const fn new(text: &'static str) -> Self {
        Self(Cow::Borrowed(text))
    }

    /// Too few words, or too many.
    pub fn words(name: &[u8]) -> Self {
        let name = String::from_utf8_lossy(name).to_lowercase();
        Self(format!("ERR wrong number of arguments for '{name}' command").into())
    }

    fn lifetime(name: &str) -> Self {
        Self(format!("ERR invalid expire time in '{name}' command").into())
    }
}

impl From<WrongKind> for Refusal {
    fn from(WrongKind: WrongKind) -> Self {
        Self::new("WRONGTYPE Operation against a key holding the wrong kind of value")
    }
}

impl From<Refusal> for Reply {
    fn from(Refusal(text): Refusal) -> Self {
        // A line break would end the reply early.
        Self::Error(text.replace(['\r', '\n'], " "))
    }
}

/// The command of this name, if it is given as many words as it takes.
pub fn find(words: &[Bytes]) -> Result<Run, Refusal> {
    /// As much of a stranger's words as an answer repeats.
    const SHOWN: usize = 128;
    let (name, words) = words.split_first().ok_or(SYNTAX)?;
    let known = COMMANDS.iter().find(|(known, ..)| known.as_bytes().eq_ignore_ascii_case(name));
    let Some((_, (least, most), run)) = known else {
        let mut shown = String::new();
        for word in words {
            if shown.len() >= SHOWN {
                break;
            }
            shown += &format!("'{}' ", clip(word, SHOWN - shown.len()));
        }
        let name = clip(name, SHOWN);
        return Err(Refusal(
            format!("ERR unknown command '{name}', with args beginning with: {shown}").into(),
        ));
    };
    if !(*least..=*most).contains(&words.len()) {
        return Err(Refusal::words(name));
    }
    Ok(*run)
}

fn clip(word: &[u8], most: usize) -> Cow<'_, str> {
    String::from_utf8_lossy(&word[..word.len().min(most)])
}

/// Whether a word is this option, in capitals or not.
fn is(word: &[u8], option: &str) -> bool {
    word.eq_ignore_ascii_case(option.as_bytes())
}

/// An integer as Redis takes it: no plus sign, no spaces, no zeros in front.
fn integer(word: &[u8]) -> Result<i64, Refusal> {
    let text = std::str::from_utf8(word).map_err(|_| NOT_AN_INTEGER)?;
    let number: i64 = text.parse().map_err(|_| NOT_AN_INTEGER)?;
    if number.to_string() == text { Ok(number) } else { Err(NOT_AN_INTEGER) }
}

/// A lifetime in units of this many milliseconds, counted from now. `None` where it is already over.
fn deadline(word: &[u8], unit: u64, name: &str, now: Instant) -> Result<Option<Instant>, Refusal> {
    let number = integer(word)?;
    let Ok(number) = u64::try_from(number) else { return Ok(None) };
    if number == 0 {
        return Ok(None);
    }
    let millis = number.checked_mul(unit).ok_or_else(|| Refusal::lifetime(name))?;
    let expires = now.checked_add(Duration::from_millis(millis)).ok_or_else(|| Refusal::lifetime(name))?;
    Ok(Some(expires))
}

/// Whether a text is like a pattern, in which `*` stands for anything and the rest for itself.
pub fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let mut pieces = pattern.split(|byte| *byte == b'*');
    let first = pieces.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let Some(last) = pieces.next_back() else { return rest.is_empty() };
    for piece in pieces {
        let Some(at) = memchr::memmem::find(rest, piece) else { return false };
        rest = &rest[at + piece.len()..];
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_anything() {
        for (pattern, text) in [("*", ""), ("room:*", "room:"), ("a*c*e", "abcde"), ("a**", "a"), ("a", "a")]
        {
            assert!(matches(pattern.as_bytes(), text.as_bytes()), "{pattern} {text}");
        }
        for (pattern, text) in [("", "a"), ("room:*", "room"), ("a*a", "a"), ("*b", "abc"), ("a*bc*c", "abc")]
        {
            assert!(!matches(pattern.as_bytes(), text.as_bytes()), "{pattern} {text}");
        }
    }

    #[test]
    fn an_integer_is_written_in_one_way() {
        assert_eq!(integer(b"-12"), Ok(-12));
        for word in ["+1", "01", " 1", "1.0", "", "-0", "9223372036854775808"] {
            assert_eq!(integer(word.as_bytes()), Err(NOT_AN_INTEGER), "{word}");
        }
    }
}
