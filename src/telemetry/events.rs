//! Events for people: what changed, one line each, on stderr.
//!
//! Start at [`subscriber`]. Rooms only say `tracing::info!(event = "health", pool, backend, "…")`;
//! the binary installs the subscriber, the library never does. The message is a whole sentence;
//! the fields repeat its facts for programs.

use std::fmt;
use std::io::{self, IsTerminal};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::time::SystemTime;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::{FmtContext, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::{LookupSpan, Registry};
use tracing_subscriber::{EnvFilter, reload};

use super::escape::{json, sentence};
use super::stamp::StampCache;
use crate::plan::{EventFormat, LogPlan};

/// What a process installs as its global subscriber, and the handle by which reloads change it.
pub fn subscriber(plan: &LogPlan) -> Result<(impl Subscriber + Send + Sync + use<>, EventLog), InvalidLevel> {
    build(plan, io::stderr, SystemTime::now)
}

/// Changes the level and the format of the events while the process runs.
#[derive(Clone, Debug)]
pub struct EventLog {
    filter: reload::Handle<EnvFilter, Registry>,
    shape: Arc<AtomicU8>,
}

impl EventLog {
    /// Cannot fail for a level that [`check_level`] accepts.
    pub fn apply(&self, plan: &LogPlan) -> Result<(), InvalidLevel> {
        let filter = parse(&plan.level)?;
        self.shape.store(Shape::of(plan.format) as u8, Relaxed);
        // It can only fail when the subscriber is gone, and then there is nobody to filter for.
        self.filter.reload(filter).ok();
        Ok(())
    }
}

/// A `log.level` that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{part}` is not a level: use error, warn, info, debug, trace or off, alone or as in `info,pintle::pool=debug`"
)]
pub struct InvalidLevel {
    /// The piece between commas that does not fit.
    pub part: String,
}

/// Whether `level` can be applied.
pub fn check_level(level: &str) -> Result<(), InvalidLevel> {
    parse(level).map(drop)
}

/// Stricter than `EnvFilter`, which takes a misspelt level for the name of a target.
fn parse(level: &str) -> Result<EnvFilter, InvalidLevel> {
    let invalid = |part: &str| InvalidLevel { part: part.to_owned() };
    let parts: Vec<&str> = level.split(',').map(str::trim).collect();
    for part in &parts {
        let (target, word) = part.rsplit_once('=').unwrap_or(("pintle", *part));
        if target.is_empty()
            || word.parse::<LevelFilter>().is_err()
            || word.bytes().all(|byte| byte.is_ascii_digit())
        {
            return Err(invalid(part));
        }
    }
    EnvFilter::builder().parse(parts.join(",")).map_err(|_| invalid(level))
}

fn build<W>(
    plan: &LogPlan,
    writer: W,
    now: fn() -> SystemTime,
) -> Result<(impl Subscriber + Send + Sync + use<W>, EventLog), InvalidLevel>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let (filter, handle) = reload::Layer::new(parse(&plan.level)?);
    let shape = Arc::new(AtomicU8::new(Shape::of(plan.format) as u8));
    let lines = Lines { shape: Arc::clone(&shape), now };
    // A broken stderr must not be reported on stderr.
    let layer =
        tracing_subscriber::fmt::layer().event_format(lines).with_writer(writer).log_internal_errors(false);
    Ok((Registry::default().with(filter).with(layer), EventLog { filter: handle, shape }))
}

/// `EventFormat` with `auto` settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    Json,
    Text,
    Colour,
}

impl Shape {
    fn of(format: EventFormat) -> Self {
        let terminal = io::stderr().is_terminal();
        // https://no-color.org: any value but the empty one.
        let colour = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        match format {
            EventFormat::Auto if !terminal => Self::Json,
            EventFormat::Json => Self::Json,
            EventFormat::Auto | EventFormat::Text => {
                if colour {
                    Self::Colour
                } else {
                    Self::Text
                }
            }
        }
    }
}

/// Writes an event as one line.
#[derive(Debug)]
struct Lines {
    /// A `Shape`.
    shape: Arc<AtomicU8>,
    now: fn() -> SystemTime,
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut to: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut said = Said::default();
        event.record(&mut said);
        let target = event.metadata().target();
        let word = said.event.as_deref().unwrap_or_else(|| target.rsplit("::").next().unwrap_or(target));

        let mut line = Vec::with_capacity(256);
        let level = *event.metadata().level();
        match self.shape.load(Relaxed) {
            shape if shape == Shape::Json as u8 => said.as_json((self.now)(), level, word, &mut line),
            shape => said.as_text((self.now)(), level, word, shape == Shape::Colour as u8, &mut line),
        }
        line.push(b'\n');
        to.write_str(std::str::from_utf8(&line).map_err(|_| fmt::Error)?)
    }
}

/// What an event's call said.
#[derive(Default)]
struct Said {
    event: Option<String>,
    message: String,
    fields: Vec<(&'static str, Value)>,
}

enum Value {
    Text(String),
    /// A number or a truth value, which JSON writes without quotes.
    Literal(String),
}

impl Said {
    /// `12:04:31.207  INFO  health    app/a1 down after 3 failures: …`. Our own events say it all
    /// in their sentence; those of libraries, which have no event word, get their fields behind it.
    fn as_text(&self, at: SystemTime, level: Level, word: &str, colour: bool, out: &mut Vec<u8>) {
        StampCache::default().time_of_day(at, out);
        let (on, off) = if colour { (paint(level), "\x1b[0m") } else { ("", "") };
        out.extend_from_slice(format!("  {on}{:<5}{off} ", level.as_str()).as_bytes());
        sentence(out, &format!("{word:<9} {}", self.message));
        if self.event.is_none() {
            for (name, value) in &self.fields {
                let (Value::Text(value) | Value::Literal(value)) = value;
                sentence(out, &format!(" {name}={value}"));
            }
        }
    }

    /// `{"ts":…,"level":"warn","event":"reload","message":…,…fields}`
    fn as_json(&self, at: SystemTime, level: Level, word: &str, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"ts\":\"");
        StampCache::default().rfc3339(at, out);
        out.extend_from_slice(b"\",\"level\":");
        json(out, &level.as_str().to_ascii_lowercase());
        out.extend_from_slice(b",\"event\":");
        json(out, word);
        if !self.message.is_empty() {
            out.extend_from_slice(b",\"message\":");
            json(out, &self.message);
        }
        for (name, value) in &self.fields {
            out.push(b',');
            json(out, name);
            out.push(b':');
            match value {
                Value::Text(text) => json(out, text),
                Value::Literal(literal) => out.extend_from_slice(literal.as_bytes()),
            }
        }
        out.push(b'}');
    }

    fn add(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("event", Value::Text(word)) => self.event = Some(word),
            ("message", Value::Text(message)) => self.message = message,
            (name, value) => self.fields.push((name, value)),
        }
    }
}

impl Visit for Said {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, Value::Text(value.to_owned()));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, Value::Text(format!("{value:?}")));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, Value::Literal(value.to_string()));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, Value::Literal(value.to_string()));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, Value::Literal(value.to_string()));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        let literal = if value.is_finite() { value.to_string() } else { "null".to_owned() };
        self.add(field, Value::Literal(literal));
    }

    /// With its causes, since the cause is what an operator can act on.
    fn record_error(&mut self, field: &Field, mut error: &(dyn std::error::Error + 'static)) {
        let mut chain = error.to_string();
        while let Some(cause) = error.source() {
            error = cause;
            chain.push_str(": ");
            chain.push_str(&cause.to_string());
        }
        self.add(field, Value::Text(chain));
    }
}

fn paint(level: Level) -> &'static str {
    match level {
        Level::ERROR => "\x1b[31m",
        Level::WARN => "\x1b[33m",
        Level::INFO => "\x1b[32m",
        Level::DEBUG | Level::TRACE => "\x1b[2m",
    }
}

#[cfg(test)]
mod tests;
