//! RESP2, the protocol of Redis: commands in, replies out. Start at [`parse`].
//!
//! A command is an array of bulk strings: `*2\r\n$3\r\nGET\r\n$3\r\ncat\r\n`. What the commands mean
//! is no business of this file.

use axum::body::Bytes;
use memchr::memchr;

/// The most words that a command may have.
pub const ARGS_MAX: usize = 1024;
/// The largest word.
pub const BULK_MAX: usize = 8 << 20;
/// The largest command as a whole.
pub const COMMAND_MAX: usize = 32 << 20;
/// A line that says how long something is has at most these many bytes.
const LINE_MAX: usize = 32;

/// What a client is told.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    Status(&'static str),
    Error(String),
    Int(i64),
    Bulk(Bytes),
    /// No such value.
    Nil,
    /// No such array.
    NilArray,
    Array(Vec<Reply>),
}

impl Reply {
    pub const OK: Self = Self::Status("OK");

    pub fn bulk(value: impl Into<Bytes>) -> Self {
        Self::Bulk(value.into())
    }

    /// The value, or that there is none.
    pub fn maybe(value: Option<Bytes>) -> Self {
        value.map_or(Self::Nil, Self::Bulk)
    }

    pub fn count(number: usize) -> Self {
        Self::Int(number as i64)
    }

    pub fn bulks(values: impl IntoIterator<Item = Bytes>) -> Self {
        Self::Array(values.into_iter().map(Self::Bulk).collect())
    }

    /// Writes it as it travels.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Status(text) => line(out, '+', text),
            Self::Error(text) => line(out, '-', text),
            Self::Int(number) => line(out, ':', number),
            Self::Bulk(bytes) => {
                line(out, '$', bytes.len());
                out.extend_from_slice(bytes);
                out.extend_from_slice(b"\r\n");
            }
            Self::Nil => line(out, '$', -1),
            Self::NilArray => line(out, '*', -1),
            Self::Array(replies) => {
                line(out, '*', replies.len());
                replies.iter().for_each(|reply| reply.write(out));
            }
        }
    }
}

fn line(out: &mut Vec<u8>, kind: char, text: impl std::fmt::Display) {
    use std::io::Write;
    write!(out, "{kind}{text}\r\n").expect("writing to memory cannot fail");
}

/// Why a connection cannot go on: nobody knows where the next command would begin.
#[derive(Debug, PartialEq)]
pub struct Broken(pub &'static str);

/// The first command in `input` with the bytes that it takes, or `None` while some of it has yet to
/// come. The words are copies, so that a small value does not keep a large buffer in memory.
pub fn parse(input: &[u8]) -> Result<Option<(Vec<Bytes>, usize)>, Broken> {
    let mut at = 0;
    let Some(count) = length(input, &mut at, b'*', ARGS_MAX, Broken("invalid multibulk length"))? else {
        return Ok(None);
    };
    // The spans first: a large command that is half here must not be copied once per packet.
    let mut spans = Vec::with_capacity(count);
    for _ in 0..count {
        let Some(size) = length(input, &mut at, b'$', BULK_MAX, Broken("invalid bulk length"))? else {
            return Ok(None);
        };
        if at + size + 2 > COMMAND_MAX {
            return Err(Broken("command too large"));
        }
        let Some(end) = input.get(at + size..at + size + 2) else { return Ok(None) };
        if end != b"\r\n" {
            return Err(Broken("a bulk string ends elsewhere than it said"));
        }
        spans.push(at..at + size);
        at += size + 2;
    }
    let words = spans.into_iter().map(|span| Bytes::copy_from_slice(&input[span])).collect();
    Ok(Some((words, at)))
}

/// Reads `*3\r\n` or `$5\r\n` and moves `at` behind it.
fn length(
    input: &[u8],
    at: &mut usize,
    kind: u8,
    max: usize,
    broken: Broken,
) -> Result<Option<usize>, Broken> {
    let rest = &input[*at..];
    match rest.first() {
        None => return Ok(None),
        Some(first) if *first != kind && kind == b'*' => return Err(Broken("expected an array of strings")),
        Some(first) if *first != kind => return Err(Broken("expected '$'")),
        Some(_) => {}
    }
    let Some(end) = memchr(b'\n', &rest[..rest.len().min(LINE_MAX)]) else {
        return if rest.len() < LINE_MAX { Ok(None) } else { Err(broken) };
    };
    let digits = rest[1..end].strip_suffix(b"\r").and_then(|digits| std::str::from_utf8(digits).ok());
    *at += end + 1;
    match digits.and_then(|digits| digits.parse().ok()) {
        Some(number) if number <= max => Ok(Some(number)),
        _ => Err(broken),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_read_however_it_is_cut() {
        let wire = b"*2\r\n$3\r\nGET\r\n$5\r\na\r\nbc\r\n*1\r\n";
        let whole = wire.len() - 4;
        for cut in 0..whole {
            assert_eq!(parse(&wire[..cut]), Ok(None), "at {cut}");
        }
        let words = vec![Bytes::from("GET"), Bytes::from("a\r\nbc")];
        assert_eq!(parse(wire), Ok(Some((words, whole))));
    }

    #[test]
    fn what_is_too_large_or_makes_no_sense_is_refused_before_it_is_read() {
        assert_eq!(parse(b"*1\r\n$8388609\r\n"), Err(Broken("invalid bulk length")));
        assert_eq!(parse(b"*1025\r\n"), Err(Broken("invalid multibulk length")));
        assert_eq!(parse(b"*-1\r\n"), Err(Broken("invalid multibulk length")));
        assert_eq!(parse(&[b'*'; 1]), Ok(None));
        assert_eq!(parse(&[&b"*"[..], &[b'1'; 40]].concat()), Err(Broken("invalid multibulk length")));
        assert_eq!(parse(b"GET / HTTP/1.1\r\n"), Err(Broken("expected an array of strings")));
        assert!(parse(b"*1\r\n$1\r\nabc").is_err());
    }

    #[test]
    fn replies_are_written_as_redis_writes_them() {
        let mut out = Vec::new();
        Reply::Array(vec![Reply::OK, Reply::Int(-3), Reply::bulk("hi"), Reply::Nil, Reply::NilArray])
            .write(&mut out);
        assert_eq!(out, b"*5\r\n+OK\r\n:-3\r\n$2\r\nhi\r\n$-1\r\n*-1\r\n");
    }
}
