use std::fs::{self, File};
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::UNIX_EPOCH;

use super::super::End;
use super::*;
use crate::plan::AccessFormat;

const PATIENCE: Duration = Duration::from_secs(10);

fn record(id: &str) -> Record<'_> {
    Record {
        at: UNIX_EPOCH,
        id,
        trace: None,
        client: IpAddr::from([127, 0, 0, 1]),
        listener: "web",
        proto: "http/1.1",
        tls: None,
        method: "GET",
        host: "localhost",
        path: "/",
        query: None,
        status: 200,
        route: "all",
        pool: "app",
        backend: "a1",
        stick: None,
        attempts: 1,
        reused: false,
        duration: Duration::ZERO,
        ttfb: None,
        proxy: None,
        req_bytes: 0,
        resp_bytes: 0,
        end: End::Ok,
        user_agent: None,
        referer: None,
    }
}

/// A folder that goes away with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("pintle-access-log-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("a folder for the test");
        Self(path)
    }

    fn plan(&self, file: &str) -> AccessLogPlan {
        AccessLogPlan {
            enabled: true,
            format: AccessFormat::Auto,
            output: LogOutput::File(self.0.join(file)),
            on_full: OnFull::Drop,
        }
    }

    /// The ids that were logged to a file, in order; the file must hold whole JSON lines.
    fn ids(&self, file: &str) -> Vec<String> {
        let text = fs::read_to_string(self.0.join(file)).expect("the file is there");
        let id = |line| {
            serde_json::from_str::<serde_json::Value>(line).expect("JSON")["id"].as_str().map(str::to_owned)
        };
        text.lines().filter_map(id).collect()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

#[test]
fn lines_of_several_threads_arrive_whole() {
    let folder = Folder::new("threads");
    let log = AccessLog::start(&folder.plan("a"), Telemetry::new(1)).expect("it starts");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let sink = log.sink();
            scope.spawn(move || (0..1000).for_each(|n| sink.push(&record(&n.to_string()))));
        }
    });
    assert!(log.close(PATIENCE));
    assert_eq!(folder.ids("a").len(), 4000);
}

#[test]
fn a_sink_keeps_lines_until_it_is_flushed_or_full() {
    let folder = Folder::new("flush");
    let log = AccessLog::start(&folder.plan("a"), Telemetry::new(1)).expect("it starts");
    let sink = log.sink();
    sink.push(&record("1"));
    assert!(sink.pending() && log.flush(PATIENCE) && folder.ids("a").is_empty());
    sink.flush();
    assert!(!sink.pending() && log.flush(PATIENCE));
    assert_eq!(folder.ids("a"), ["1"]);
    let pushed = (2..).take_while(|n| {
        sink.push(&record(&n.to_string()));
        sink.pending()
    });
    let pushed = pushed.count();
    assert!((100..1000).contains(&pushed), "{pushed} lines fill a buffer");
}

#[test]
fn reopen_after_a_rename_writes_to_a_new_file() {
    let folder = Folder::new("reopen");
    let log = AccessLog::start(&folder.plan("a"), Telemetry::new(1)).expect("it starts");
    let sink = log.sink();
    let say = |id| {
        sink.push(&record(id));
        sink.flush();
        assert!(log.flush(PATIENCE));
    };
    say("1");
    fs::rename(folder.0.join("a"), folder.0.join("old")).expect("renamed");
    say("2");
    log.reopen().expect("the folder is writable");
    say("3");
    assert_eq!(
        (folder.ids("old"), folder.ids("a")),
        (vec!["1".to_owned(), "2".to_owned()], vec!["3".to_owned()])
    );
}

#[test]
fn a_reload_turns_the_log_off_and_on_elsewhere_under_the_same_sink() {
    let folder = Folder::new("reload");
    let log = AccessLog::start(&folder.plan("a"), Telemetry::new(1)).expect("it starts");
    let sink = log.sink();
    sink.push(&record("1"));
    sink.flush();

    let off = AccessLogPlan { enabled: false, ..folder.plan("nowhere") };
    log.apply(log.prepare(&off).expect("nothing is opened"));
    assert!(!sink.enabled());
    sink.push(&record("2"));

    assert!(log.prepare(&folder.plan("missing/b")).is_err(), "a bad output is found before it is applied");
    log.apply(log.prepare(&folder.plan("b")).expect("opened"));
    sink.push(&record("3"));
    drop(sink);
    assert!(log.close(PATIENCE));
    assert_eq!((folder.ids("a"), folder.ids("b")), (vec!["1".to_owned()], vec!["3".to_owned()]));
    assert!(!folder.0.join("nowhere").exists());
}

#[test]
fn lines_that_find_the_queue_full_are_counted() {
    let telemetry = Telemetry::new(1);
    // No writer, so nothing leaves the queue.
    let shared = Arc::new(Shared::new(Arc::clone(&telemetry)));
    shared.format.store(Format::Json as u8, Relaxed);
    let sink = Sink::new(Arc::clone(&shared));
    let lines = 3 * queue::QUEUE_LIMIT / 256;
    (0..lines).for_each(|_| sink.push(&record("1")));
    drop(sink);

    shared.queue.close();
    let mut kept = 0;
    while let Some(Message::Write(lines)) = shared.queue.next() {
        kept += lines.count;
    }
    let dropped = telemetry.process().log_lines_dropped();
    assert!(kept > 0 && dropped > 0, "{kept} kept, {dropped} dropped");
    assert_eq!(kept + dropped, lines as u64);
}

#[test]
fn a_reader_that_has_gone_costs_lines_and_nothing_else() {
    let folder = Folder::new("pipe");
    let telemetry = Telemetry::new(1);
    let log = AccessLog::start(&folder.plan("a"), Arc::clone(&telemetry)).expect("it starts");
    let (reader, writer) = io::pipe().expect("a pipe");
    drop(reader);
    log.shared.queue.switch(Output::File(File::from(OwnedFd::from(writer))));
    let sink = log.sink();
    sink.push(&record("1"));
    sink.push(&record("2"));
    sink.flush();
    assert!(log.flush(PATIENCE));
    assert_eq!(telemetry.process().log_lines_dropped(), 2);

    log.reopen().expect("the folder is writable");
    sink.push(&record("3"));
    drop(sink);
    assert!(log.close(PATIENCE));
    assert_eq!(folder.ids("a"), ["3"]);
}
