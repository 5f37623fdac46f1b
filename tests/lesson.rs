//! The lesson example comes out as it says: every claim against both stores, and not when
//! something is broken on purpose.
//!
//! A real Redis is used where `redis-server` is installed; without one that test says that it is
//! skipped. The runs take turns: two at once would measure each other.

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;

/// Every system of the lesson.
const CHAPTERS: [&str; 14] = [
    "scaling",
    "rolling",
    "restart",
    "replication",
    "lookups",
    "jwt",
    "client",
    "websocket",
    "jobs",
    "cache",
    "uploads",
    "mistakes",
    "game",
    "chat",
];
const PATIENCE: Duration = Duration::from_secs(10);

#[test]
fn every_claim_comes_out_as_expected_with_the_embedded_store() {
    let run = Lesson::small(&[]).run();
    assert_eq!(run.told["store"], "embedded RESP server");
    run.assert_all_as_expected();
}

#[test]
fn every_claim_comes_out_as_expected_with_a_real_redis() {
    let Some(redis) = Redis::start() else {
        eprintln!("skipped: redis-server is not installed");
        return;
    };
    let run = Lesson::small(&[]).store(&redis.url).run();
    assert!(
        run.told["store"].as_str().is_some_and(|store| store.starts_with("Redis ")),
        "{}",
        run.told["store"]
    );
    run.assert_all_as_expected();
}

#[test]
fn without_sticky_cookies_the_claims_about_them_do_not_hold() {
    assert_spoilt("sticky", &["scaling", "rolling", "websocket"]);
}

#[test]
fn without_draining_the_claims_about_it_do_not_hold() {
    assert_spoilt("drain", &["scaling", "rolling", "websocket"]);
}

#[test]
fn with_local_copies_the_claims_about_the_store_do_not_hold() {
    assert_spoilt("cache", &["scaling", "lookups"]);
}

#[test]
fn a_store_that_is_not_empty_is_left_alone() {
    let Some(redis) = Redis::start() else {
        eprintln!("skipped: redis-server is not installed");
        return;
    };
    redis.ask("SET somebody elses");
    let output = Lesson::small(&["restart"]).store(&redis.url).output();
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("not empty"), "{said}");
    assert!(redis.ask("GET somebody").contains("elses"));
}

#[test]
fn its_processes_end_with_it_even_when_it_is_killed() {
    let lesson = Lesson::small(&["rolling"]);
    let mut running =
        lesson.command().stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
    let children = eventually("it has replicas", || {
        let children = children_of(running.id());
        (children.len() >= 3).then_some(children)
    });
    running.kill().expect("it runs");
    running.wait().expect("it is ours");
    eventually("they have ended", || children.iter().all(|pid| !runs(*pid)).then_some(()));
}

#[test]
fn chapters_are_listed_and_a_wrong_name_is_an_error() {
    let listed = succeed(&mut Lesson::small(&[]).with(&["--list"]).command());
    let names: Vec<_> = listed.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(BTreeSet::from_iter(names), BTreeSet::from(CHAPTERS));

    let output = Lesson::small(&["scalling"]).output();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("scaling"), "{output:?}");
}

/// Breaks something in each chapter, one after the other, and expects a claim of it to fail.
fn assert_spoilt(how: &str, chapters: &[&str]) {
    for chapter in chapters {
        let run = Lesson::small(&[chapter]).with(&["--spoil", how]).run();
        let failed = run.unexpected();
        assert!(!failed.is_empty(), "{chapter} does not notice that `{how}` is spoilt");
        assert!(failed.iter().any(|claim| claim["holds"] == false), "{failed:?}");
        assert_eq!(run.code, Some(1), "{failed:?}");
    }
}

/// A way to start the example.
struct Lesson {
    arguments: Vec<String>,
    store: Option<String>,
    _turn: MutexGuard<'static, ()>,
}

/// What came out.
struct Run {
    told: Value,
    code: Option<i32>,
    stderr: String,
}

impl Lesson {
    fn small(chapters: &[&str]) -> Self {
        static TURN: Mutex<()> = Mutex::new(());
        let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let chapters = chapters.iter().flat_map(|chapter| ["--chapter", chapter]);
        let arguments = ["--scale", "small"].into_iter().chain(chapters).map(str::to_owned).collect();
        Self { arguments, store: None, _turn }
    }

    fn with(mut self, more: &[&str]) -> Self {
        self.arguments.extend(more.iter().map(|argument| (*argument).to_owned()));
        self
    }

    fn store(mut self, url: &str) -> Self {
        self.store = Some(url.to_owned());
        self
    }

    fn command(&self) -> Command {
        let mut command = Command::new(program());
        command.args(&self.arguments).env_remove("REDIS_URL");
        command.envs(self.store.iter().map(|url| ("REDIS_URL", url)));
        command
    }

    fn output(&self) -> Output {
        self.command().output().expect("it can be started")
    }

    fn run(self) -> Run {
        let output = self.command().arg("--json").output().expect("it can be started");
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        let told = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}\n{stderr}", String::from_utf8_lossy(&output.stdout)));
        Run { told, code: output.status.code(), stderr }
    }
}

impl Run {
    fn chapters(&self) -> impl Iterator<Item = &Value> {
        self.told["chapters"].as_array().expect("a list of chapters").iter()
    }

    fn claims(&self) -> impl Iterator<Item = &Value> {
        self.chapters().flat_map(|chapter| chapter["claims"].as_array().expect("a list of claims"))
    }

    fn unexpected(&self) -> Vec<&Value> {
        self.claims()
            .filter(|claim| !claim["expected"].is_null() && claim["holds"] != claim["expected"])
            .collect()
    }

    fn assert_all_as_expected(&self) {
        let names: Vec<_> = self.chapters().filter_map(|chapter| chapter["name"].as_str()).collect();
        assert_eq!(names, CHAPTERS);
        for chapter in self.chapters() {
            let claims = chapter["claims"].as_array().expect("a list");
            let counted = claims.iter().filter(|claim| claim["expected"].is_boolean());
            assert!(counted.count() >= 3, "{} claims little that a count decides", chapter["name"]);
            assert!(chapter.get("error").is_none(), "{}: {}", chapter["name"], chapter["error"]);
        }
        let ids: BTreeSet<_> = self.claims().map(|claim| claim["id"].as_str().expect("an id")).collect();
        assert_eq!(ids.len(), self.claims().count(), "an id for each claim");
        assert!(self.unexpected().is_empty(), "{:#?}\n{}", self.unexpected(), self.stderr);
        assert_eq!(self.code, Some(0), "{}", self.stderr);
    }
}

/// Builds the example into the folder that this test was built into.
fn program() -> &'static PathBuf {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let this = std::env::current_exe().expect("a test knows where it is");
        let profile = this.ancestors().nth(2).expect("target/PROFILE/deps/test");
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "--locked", "--offline", "--example", "lesson"]);
        build.arg("--target-dir").arg(profile.parent().expect("target"));
        if profile.ends_with("release") {
            build.arg("--release");
        }
        succeed(build.current_dir(env!("CARGO_MANIFEST_DIR")));
        profile.join("examples/lesson")
    })
}

fn succeed(command: &mut Command) -> String {
    let output = command.output().expect("it can be started");
    assert!(output.status.success(), "{command:?}\n{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// A Redis of this test's own, which keeps nothing.
struct Redis {
    process: Child,
    port: u16,
    url: String,
}

impl Redis {
    /// `None` where it is not installed.
    fn start() -> Option<Self> {
        let port =
            TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port").port();
        let mut command = Command::new("redis-server");
        command.args([
            "--port",
            &port.to_string(),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
        ]);
        let process = command.stdout(Stdio::null()).current_dir(std::env::temp_dir()).spawn().ok()?;
        let redis = Self { process, port, url: format!("redis://127.0.0.1:{port}/") };
        eventually("Redis answers", || redis.try_ask("PING").ok().filter(|answer| answer.contains("PONG")));
        Some(redis)
    }

    fn ask(&self, command: &str) -> String {
        self.try_ask(command).expect("Redis answers")
    }

    fn try_ask(&self, command: &str) -> std::io::Result<String> {
        use std::io::{Read, Write};
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(format!("{command}\r\nQUIT\r\n").as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The processes that a process has started.
fn children_of(parent: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| parent_of(*pid) == Some(parent)).collect()
}

/// The fourth word of `stat`, counted after the name, which may hold anything.
fn parent_of(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

/// A zombie no longer runs.
fn runs(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(Instant::now() < until, "not within {PATIENCE:?}: {what}");
        sleep(Duration::from_millis(10));
    }
}
