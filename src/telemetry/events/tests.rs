use std::io::Write;
use std::sync::Mutex;
use std::time::{Duration, UNIX_EPOCH};

use super::*;
use crate::plan::{AccessFormat, AccessLogPlan, LogOutput, OnFull};

#[derive(Clone, Default)]
struct Memory(Arc<Mutex<Vec<u8>>>);

impl Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no test panics while it writes").write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn noon() -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(1_795_435_471_207)
}

fn plan(level: &str, format: EventFormat) -> LogPlan {
    LogPlan {
        level: level.to_owned(),
        format,
        access: AccessLogPlan {
            enabled: false,
            format: AccessFormat::Auto,
            output: LogOutput::Stdout,
            on_full: OnFull::Drop,
        },
    }
}

/// What is written while `say` runs.
fn written(level: &str, format: EventFormat, say: impl FnOnce(&EventLog)) -> String {
    let memory = Memory::default();
    let writer = memory.clone();
    let (subscriber, log) = build(&plan(level, format), move || writer.clone(), noon).expect("a level");
    tracing::subscriber::with_default(subscriber, || say(&log));
    String::from_utf8(memory.0.lock().expect("nobody panicked").clone()).expect("UTF-8")
}

fn say_health() {
    tracing::info!(
        event = "health",
        pool = "app",
        backend = "a1",
        after_failures = 3,
        ratio = f64::NAN,
        "app/a1 down after 3 failures: connection refused (10.0.0.11:9001)"
    );
}

#[test]
fn text_is_a_sentence_behind_time_level_and_word() {
    let text = written("info", EventFormat::Text, |_| say_health());
    assert_eq!(
        text,
        "12:04:31.207  INFO  health    app/a1 down after 3 failures: connection refused (10.0.0.11:9001)\n"
    );
}

#[test]
fn json_carries_the_fields_too() {
    let text = written("info", EventFormat::Json, |_| say_health());
    assert_eq!(
        text,
        concat!(
            r#"{"ts":"2026-11-23T12:04:31.207Z","level":"info","event":"health","#,
            r#""message":"app/a1 down after 3 failures: connection refused (10.0.0.11:9001)","#,
            r#""pool":"app","backend":"a1","after_failures":3,"ratio":null}"#,
            "\n"
        )
    );
}

#[test]
fn an_event_of_a_library_is_named_after_its_target_and_shows_its_fields() {
    let text = written("info", EventFormat::Text, |_| {
        tracing::warn!(target: "hyper::proto::h1", bytes = 3, path = "/a\u{1b}[2J", "read\nfailed");
    });
    assert_eq!(text, "12:04:31.207  WARN  h1        read\\nfailed bytes=3 path=/a\\u{1b}[2J\n");
}

#[test]
fn an_error_comes_with_its_causes_and_hostile_text_stays_on_its_line() {
    #[derive(Debug, thiserror::Error)]
    #[error("cannot open")]
    struct Outer(#[source] io::Error);

    let text = written("info", EventFormat::Json, |_| {
        let error = Outer(io::Error::other("no \"such\"\nfile"));
        tracing::error!(event = "reload", error = &error as &dyn std::error::Error, "rejected {}", "\u{9b}x");
    });
    let read: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(read["error"], "cannot open: no \"such\"\nfile");
    assert_eq!((text.lines().count(), text.contains('\u{9b}')), (1, false));
}

#[test]
fn a_reload_changes_level_and_format() {
    let text = written("warn", EventFormat::Text, |log| {
        say_health();
        log.apply(&plan("off,pintle=info", EventFormat::Json)).expect("a level");
        say_health();
        assert!(log.apply(&plan("loud", EventFormat::Text)).is_err(), "and a wrong one changes nothing");
        say_health();
    });
    assert_eq!(text.lines().filter(|line| line.starts_with('{')).count(), 2, "{text}");
    assert_eq!(text.lines().count(), 2, "{text}");
}

#[test]
fn a_misspelt_level_is_found() {
    for good in ["info", "off", "info,pintle::pool=debug", "warn, hyper=off"] {
        assert_eq!(check_level(good), Ok(()), "{good}");
    }
    for (bad, part) in [
        ("infoo", "infoo"),
        ("", ""),
        ("info,pintle=verbose", "pintle=verbose"),
        ("3", "3"),
        ("=info", "=info"),
    ] {
        assert_eq!(check_level(bad), Err(InvalidLevel { part: part.to_owned() }), "{bad}");
    }
}
