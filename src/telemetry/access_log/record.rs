//! One exchange as one line: [`Record`], and [`write()`] in each [`Format`].
//!
//! Pure and without allocation beyond the buffer. Everything that a client sent is escaped.

use std::io::Write as _;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use super::super::escape::{decimal, json, plain};
use super::super::stamp::StampCache;
use super::super::words::{End, Stick};

/// How lines are written; `auto` has been settled by the time there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Json,
    Logfmt,
    /// Apache's.
    Combined,
    /// For people at a terminal.
    Text,
}

/// What an exchange was. Empty strings and `None` mean that there was no such thing.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    pub at: SystemTime,
    pub id: &'a str,
    pub trace: Option<&'a str>,
    pub client: IpAddr,
    pub listener: &'a str,
    /// `http/1.0`, `http/1.1` or `h2`.
    pub proto: &'a str,
    pub tls: Option<&'a str>,
    pub method: &'a str,
    pub host: &'a str,
    /// As sent, without the query.
    pub path: &'a str,
    /// As sent, without the question mark.
    pub query: Option<&'a str>,
    /// What the client got; 0 if it got nothing.
    pub status: u16,
    pub route: &'a str,
    pub pool: &'a str,
    pub backend: &'a str,
    pub stick: Option<Stick>,
    pub attempts: u32,
    pub reused: bool,
    pub duration: Duration,
    pub ttfb: Option<Duration>,
    /// Our own share of the duration.
    pub proxy: Option<Duration>,
    pub req_bytes: u64,
    pub resp_bytes: u64,
    pub end: End,
    pub user_agent: Option<&'a [u8]>,
    pub referer: Option<&'a [u8]>,
}

/// Appends `record` as one line.
pub fn write(format: Format, record: &Record<'_>, clock: &mut StampCache, out: &mut Vec<u8>) {
    match format {
        Format::Json => {
            out.push(b'{');
            pairs(record, clock, &mut Pairs { json: true, first: true, out });
            out.push(b'}');
        }
        Format::Logfmt => pairs(record, clock, &mut Pairs { json: false, first: true, out }),
        Format::Combined => combined(record, clock, out),
        Format::Text => text(record, clock, out),
    }
    out.push(b'\n');
}

/// The names and their order are a stable interface.
fn pairs(record: &Record<'_>, clock: &mut StampCache, to: &mut Pairs<'_>) {
    to.bare("ts", |out| clock.rfc3339(record.at, out));
    to.text("id", record.id);
    to.some_text("trace", record.trace);
    to.bare("client", |out| address(out, record.client));
    to.text("listener", record.listener);
    to.text("proto", record.proto);
    to.some_text("tls", record.tls);
    to.text("method", record.method);
    to.text("host", record.host);
    to.text("path", record.path);
    to.some_text("query", record.query);
    to.number("status", record.status.into());
    to.some_text("route", present(record.route));
    to.some_text("pool", present(record.pool));
    to.some_text("backend", present(record.backend));
    to.some_text("stick", record.stick.map(Stick::name));
    to.number("attempts", record.attempts.into());
    to.literal("reused", if record.reused { "true" } else { "false" });
    to.millis("dur_ms", Some(record.duration));
    to.millis("ttfb_ms", record.ttfb);
    to.millis("proxy_ms", record.proxy);
    to.number("req_bytes", record.req_bytes);
    to.number("resp_bytes", record.resp_bytes);
    to.text("end", record.end.name());
}

fn present(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

/// `"key":value,` or `key=value `: JSON and logfmt differ in no more than this.
struct Pairs<'a> {
    json: bool,
    first: bool,
    out: &'a mut Vec<u8>,
}

impl Pairs<'_> {
    fn key(&mut self, key: &str) {
        if !self.first {
            self.out.push(if self.json { b',' } else { b' ' });
        }
        self.first = false;
        let (open, close): (&[u8], &[u8]) = if self.json { (b"\"", b"\":") } else { (b"", b"=") };
        self.out.extend_from_slice(open);
        self.out.extend_from_slice(key.as_bytes());
        self.out.extend_from_slice(close);
    }

    fn text(&mut self, key: &str, value: &str) {
        self.key(key);
        // What logfmt readers take without quotes; the rest they unquote as JSON.
        let bare = !value.is_empty()
            && value.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\' | b'='));
        if bare && !self.json {
            self.out.extend_from_slice(value.as_bytes());
        } else {
            json(self.out, value);
        }
    }

    fn some_text(&mut self, key: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.text(key, value);
        }
    }

    /// A value that needs no escaping, quoted in JSON.
    fn bare(&mut self, key: &str, write: impl FnOnce(&mut Vec<u8>)) {
        self.key(key);
        let quote: &[u8] = if self.json { b"\"" } else { b"" };
        self.out.extend_from_slice(quote);
        write(self.out);
        self.out.extend_from_slice(quote);
    }

    /// A literal that is quoted in neither.
    fn literal(&mut self, key: &str, value: &str) {
        self.key(key);
        self.out.extend_from_slice(value.as_bytes());
    }

    fn number(&mut self, key: &str, value: u64) {
        self.key(key);
        decimal(self.out, value);
    }

    fn millis(&mut self, key: &str, value: Option<Duration>) {
        if let Some(value) = value {
            self.key(key);
            let micros = u64::try_from(value.as_micros()).unwrap_or(u64::MAX);
            thousandths(self.out, micros);
        }
    }
}

/// `3120` as `3.12`.
fn thousandths(out: &mut Vec<u8>, number: u64) {
    decimal(out, number / 1000);
    let rest = number % 1000;
    if rest > 0 {
        let digits =
            [b'.', b'0' + (rest / 100) as u8, b'0' + (rest / 10 % 10) as u8, b'0' + (rest % 10) as u8];
        let zeros = digits.iter().rev().take_while(|digit| **digit == b'0').count();
        out.extend_from_slice(&digits[..digits.len() - zeros]);
    }
}

fn address(out: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(v4) => {
            for (place, octet) in v4.octets().into_iter().enumerate() {
                if place > 0 {
                    out.push(b'.');
                }
                decimal(out, octet.into());
            }
        }
        IpAddr::V6(v6) => write!(out, "{v6}").expect("writing to memory cannot fail"),
    }
}

fn combined(record: &Record<'_>, clock: &mut StampCache, out: &mut Vec<u8>) {
    address(out, record.client);
    out.extend_from_slice(b" - - [");
    clock.common(record.at, out);
    out.extend_from_slice(b"] \"");
    plain(out, record.method.as_bytes());
    out.push(b' ');
    target(record, out);
    out.push(b' ');
    match record.proto {
        "http/1.1" => out.extend_from_slice(b"HTTP/1.1"),
        "http/1.0" => out.extend_from_slice(b"HTTP/1.0"),
        "h2" | "h2c" => out.extend_from_slice(b"HTTP/2.0"),
        other => plain(out, other.as_bytes()),
    }
    out.extend_from_slice(b"\" ");
    decimal(out, record.status.into());
    out.push(b' ');
    decimal(out, record.resp_bytes);
    for header in [record.referer, record.user_agent] {
        out.extend_from_slice(b" \"");
        plain(out, header.unwrap_or(b"-"));
        out.push(b'"');
    }
}

fn target(record: &Record<'_>, out: &mut Vec<u8>) {
    plain(out, record.path.as_bytes());
    if let Some(query) = record.query {
        out.push(b'?');
        plain(out, query.as_bytes());
    }
}

/// `12:04:31.207 GET 200 shop → app/a2  3.1ms (2.8) 1.2kB 203.0.113.9 /cart`, and how it ended
/// behind the backend where that was not `ok`.
fn text(record: &Record<'_>, clock: &mut StampCache, out: &mut Vec<u8>) {
    clock.time_of_day(record.at, out);
    out.push(b' ');
    plain(out, record.method.as_bytes());
    out.push(b' ');
    decimal(out, record.status.into());
    out.push(b' ');
    plain(out, present(record.route).unwrap_or("-").as_bytes());
    if !record.pool.is_empty() {
        out.extend_from_slice(" → ".as_bytes());
        plain(out, record.pool.as_bytes());
        if !record.backend.is_empty() {
            out.push(b'/');
            plain(out, record.backend.as_bytes());
        }
    }
    if record.end != End::Ok {
        out.push(b' ');
        out.extend_from_slice(record.end.name().as_bytes());
    }
    out.extend_from_slice(b"  ");
    let unit = span(out, record.duration);
    out.extend_from_slice(unit);
    if let Some(ttfb) = record.ttfb {
        out.extend_from_slice(b" (");
        let unit = span(out, ttfb);
        out.extend_from_slice(if unit == b"ms" { b"" } else { unit });
        out.push(b')');
    }
    out.push(b' ');
    size(out, record.resp_bytes);
    out.push(b' ');
    address(out, record.client);
    out.push(b' ');
    target(record, out);
}

/// One decimal, in the unit that is returned.
fn span(out: &mut Vec<u8>, duration: Duration) -> &'static [u8] {
    let (tenths, unit): (_, &[u8]) = match u64::try_from(duration.as_micros()).unwrap_or(u64::MAX) {
        micros if micros < 1_000_000 => (micros / 100, b"ms"),
        micros => (micros / 100_000, b"s"),
    };
    one_decimal(out, tenths);
    unit
}

fn size(out: &mut Vec<u8>, bytes: u64) {
    let (unit, name): (u64, &[u8]) = match bytes {
        0..1_000 => {
            decimal(out, bytes);
            return out.push(b'B');
        }
        1_000..1_000_000 => (1_000, b"kB"),
        1_000_000..1_000_000_000 => (1_000_000, b"MB"),
        _ => (1_000_000_000, b"GB"),
    };
    one_decimal(out, bytes / (unit / 10));
    out.extend_from_slice(name);
}

/// `31` as `3.1`.
fn one_decimal(out: &mut Vec<u8>, tenths: u64) {
    decimal(out, tenths / 10);
    out.extend_from_slice(&[b'.', b'0' + (tenths % 10) as u8]);
}

#[cfg(test)]
mod tests;
