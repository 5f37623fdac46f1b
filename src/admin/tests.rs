//! The admin side through real sockets, with a desk that a test answers at.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use http::StatusCode;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinHandle, spawn_local};

use super::view::{
    BackendView, CertificateView, CheckReport, DrainView, Fault, HealthView, ListenerView, PoolView,
    ReloadReport, RouteView, StateAnswer, Status, Totals, UpgradeReport,
};
use super::{Ask, Desk, Document, Door, Events, open_socket, serve_tcp, serve_unix};
use crate::plan::{AdminBind, AdminPlan, Secret};

/// The admin side on both of its sockets, over a desk that answers from fixed values.
struct Stage {
    tcp: String,
    unix: PathBuf,
    events: Events,
    stop: Vec<oneshot::Sender<()>>,
    servers: Vec<JoinHandle<()>>,
}

fn on_stage<F: Future<Output = ()>>(token: Option<&str>, test: impl FnOnce(Stage) -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default());
    runtime.unwrap().block_on(async { test(Stage::open(token).await).await });
}

impl Stage {
    async fn open(token: Option<&str>) -> Self {
        static STAGES: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = STAGES.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let events = Events::default();
        let (desk, inbox) = Desk::new(events.clone());
        spawn_local(answer(inbox));
        let plan = AdminPlan {
            socket: None,
            bind: AdminBind::Default,
            token: token.map(|token| Secret(token.as_bytes().to_vec())),
            hosts: Vec::new(),
        };
        let door = Rc::new(Door::new(desk, &plan, &serde_json::json!({ "title": "Pintle" })));

        let name = format!("pintle-admin-{}-{number}", std::process::id());
        let socket = open_socket(&std::env::temp_dir().join(name).join("admin.sock")).unwrap();
        let unix = socket.path().to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let tcp = listener.local_addr().unwrap().to_string();

        let (stop_unix, unix_stopped) = oneshot::channel::<()>();
        let (stop_tcp, tcp_stopped) = oneshot::channel::<()>();
        let over_unix =
            serve_unix(Arc::new(socket), door.clone(), async { unix_stopped.await.unwrap_or(()) });
        let over_tcp = serve_tcp(listener, door, async { tcp_stopped.await.unwrap_or(()) });
        let servers = vec![spawn_local(async { over_unix.await.unwrap() }), spawn_local(over_tcp)];
        Self { tcp, unix, events, stop: vec![stop_unix, stop_tcp], servers }
    }

    async fn over_tcp(&self, request: &str) -> Answer {
        exchange(TcpStream::connect(&self.tcp).await.unwrap(), request.as_bytes()).await
    }

    async fn over_unix(&self, request: &str) -> Answer {
        exchange(UnixStream::connect(&self.unix).await.unwrap(), request.as_bytes()).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.over_tcp(&request("GET", path, "host: localhost\r\n", "")).await
    }

    /// A reader of `/v1/events`, past the response head.
    async fn watch(&self, headers: &str) -> BufReader<TcpStream> {
        let mut stream = TcpStream::connect(&self.tcp).await.unwrap();
        let head =
            format!("GET /v1/events HTTP/1.1\r\nconnection: close\r\nhost: localhost\r\n{headers}\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut reader = BufReader::new(stream);
        while !line(&mut reader).await.is_empty() {}
        reader
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(self.unix.parent().unwrap_or(Path::new("/nowhere")));
    }
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error} in {}", self.body))
    }

    /// `404 unknown_pool`, after a look at the form of the problem.
    fn problem(&self) -> String {
        assert!(self.head.contains("content-type: application/problem+json"), "{}{}", self.head, self.body);
        let fault: Fault = serde_json::from_str(&self.body).unwrap();
        assert_eq!(fault.status, self.status);
        format!("{} {}", fault.status, fault.code)
    }
}

fn request(method: &str, path: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "{method} {path} HTTP/1.1\r\nconnection: close\r\n{headers}content-length: {length}\r\n\r\n{body}"
    )
}

async fn exchange(mut io: impl AsyncRead + AsyncWrite + Unpin, request: &[u8]) -> Answer {
    io.write_all(request).await.unwrap();
    let mut bytes = Vec::new();
    io.read_to_end(&mut bytes).await.unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head in {text:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}

async fn line(reader: &mut BufReader<TcpStream>) -> String {
    let mut line = String::new();
    reader.read_line(&mut line).await.unwrap();
    line.trim_end().to_owned()
}

/// The next event's kind, id and data, past the chunk sizes between them.
async fn event(reader: &mut BufReader<TcpStream>) -> (String, String, Value) {
    let mut fields = Vec::new();
    while fields.len() < 3 {
        let line = line(reader).await;
        if let Some((name @ ("event" | "id" | "data"), value)) = line.split_once(": ") {
            fields.push((name.to_owned(), value.to_owned()));
        }
    }
    let [kind, id, data] = fields.try_into().unwrap();
    (kind.1, id.1, serde_json::from_str(&data.1).unwrap())
}

/// The process as far as these tests need one.
async fn answer(mut inbox: mpsc::Receiver<Ask>) {
    while let Some(ask) = inbox.recv().await {
        match ask {
            Ask::Status { reply } => drop(reply.send(status())),
            Ask::Routes { reply } => drop(reply.send(vec![RouteView {
                name: "shop".to_owned(),
                scheme: None,
                hosts: vec![],
                path: "/".to_owned(),
                methods: vec![],
                action: "pool app".to_owned(),
                limit: None,
            }])),
            Ask::Config { reply } => drop(
                reply.send(Document { content_type: "application/toml", text: "[pool.app]\n".to_owned() }),
            ),
            Ask::Metrics { reply } => drop(reply.send("pintle_up 1\n".to_owned())),
            Ask::Readiness { reply } => drop(reply.send(Err(vec!["draining".to_owned()]))),
            Ask::Reload { order, reply } => drop(reply.send(match order.text {
                Some(text) if text.contains("bad") => {
                    Err(Fault::new(StatusCode::UNPROCESSABLE_ENTITY, "config_invalid", "1 problem"))
                }
                _ => Ok(ReloadReport { generation: 8, ..ReloadReport::default() }),
            })),
            Ask::Check { text, reply } => {
                drop(reply.send(CheckReport { ok: text == "[pool.app]", ..CheckReport::default() }));
            }
            Ask::SetState { pool, backend, order, reply } => {
                let mut view = backend_view(&backend);
                (view.pool, view.state, view.reason) = (pool, order.state, order.reason);
                drop(reply.send(Ok(StateAnswer { backend: view, drain: Some(7), notes: vec![] })));
            }
            Ask::Drain { id, reply } => drop(reply.send((id == 7).then(drain_view))),
            Ask::Upgrade { reply, .. } => {
                drop(reply.send(Ok(UpgradeReport { pid: 2, ..UpgradeReport::default() })))
            }
            Ask::Shutdown { reply, .. } => drop(reply.send(())),
        }
    }
}

fn status() -> Status {
    Status {
        version: "0.1.0".to_owned(),
        pid: 1,
        source: "<b>pintle.toml".to_owned(),
        uptime_seconds: 61.5,
        generation: 7,
        last_reload: None,
        state: "active".to_owned(),
        listeners: vec![ListenerView {
            name: "web".to_owned(),
            addresses: vec!["0.0.0.0:8080".to_owned()],
            connections: 2,
        }],
        certificates: vec![CertificateView {
            listener: "web".to_owned(),
            file: "tls/site.crt".to_owned(),
            names: vec!["shop.example".to_owned()],
            issuer: "CN=authority".to_owned(),
            not_after: "2026-12-24T00:00:00Z".to_owned(),
            days_left: 30,
            fingerprint: "00ff".to_owned(),
        }],
        pools: vec![PoolView {
            name: "app".to_owned(),
            policy: "sticky_cookie".to_owned(),
            held: 0,
            panic: false,
            backends: vec![backend_view("b1"), backend_view("[::1]:9001")],
        }],
        totals: Totals { connections: 2, requests_in_flight: 3, tunnels: 1, requests: 812, server_errors: 0 },
        predecessors: Vec::new(),
        drift: vec!["app/b1 is draining, the file says active".to_owned()],
    }
}

fn backend_view(name: &str) -> BackendView {
    BackendView {
        pool: "app".to_owned(),
        name: name.to_owned(),
        address: "127.0.0.1:9001".to_owned(),
        resolved: vec![],
        weight: 1,
        backup: false,
        state: "draining".to_owned(),
        state_source: "operator".to_owned(),
        state_since: "2026-11-23T12:04:31Z".to_owned(),
        reason: None,
        removed: false,
        health: HealthView {
            status: "up".to_owned(),
            detail: "200".to_owned(),
            since: "2026-11-23T12:04:31Z".to_owned(),
            streak: 3,
            last_seconds: None,
        },
        slow_start_step: 10,
        in_flight: 3,
        tunnels: 1,
        idle_connections: 0,
        sessions: 12,
        requests: 812,
        errors: 0,
        drain: None,
    }
}

fn drain_view() -> DrainView {
    DrainView {
        id: 7,
        pool: "app".to_owned(),
        backend: "b1".to_owned(),
        state: "draining".to_owned(),
        elapsed_seconds: 1.0,
        deadline_seconds: None,
        in_flight: 3,
        tunnels: 1,
        sessions: 12,
        session_window_seconds: 300.0,
        keeps_sessions: true,
        sessions_ended: 0,
        sessions_moved: 0,
        tunnels_cut: 0,
        requests_cut: 0,
    }
}

#[test]
fn every_read_answers_on_both_sockets() {
    on_stage(None, async |stage| {
        let paths = [
            ("/livez", "text/plain; charset=utf-8", "ok"),
            ("/metrics", "text/plain; version=0.0.4; charset=utf-8", "pintle_up 1"),
            ("/v1/status", "application/json", "\"generation\": 7"),
            ("/v1/config", "application/toml", "[pool.app]"),
            ("/v1/config.schema.json", "application/json", "\"title\": \"Pintle\""),
            ("/v1/pools", "application/json", "\"sticky_cookie\""),
            ("/v1/pools/app", "application/json", "\"sticky_cookie\""),
            ("/v1/pools/app/backends/[::1]:9001", "application/json", "\"name\": \"[::1]:9001\""),
            ("/v1/pools/app/backends/%5B::1%5D%3A9001", "application/json", "\"name\": \"[::1]:9001\""),
            ("/v1/drains/7", "application/json", "\"sessions\": 12"),
            ("/v1/routes", "application/json", "\"pool app\""),
            ("/v1/certificates", "application/json", "\"days_left\": 30"),
            ("/v1/listeners", "application/json", "0.0.0.0:8080"),
        ];
        for (path, content_type, part) in paths {
            for answer in
                [stage.get(path).await, stage.over_unix(&request("GET", path, "host: x\r\n", "")).await]
            {
                assert_eq!(answer.status, 200, "{path}: {}", answer.body);
                assert!(
                    answer.head.contains(&format!("content-type: {content_type}\r\n")),
                    "{}",
                    answer.head
                );
                assert!(answer.body.contains(part), "{path}: {}", answer.body);
            }
        }
    });
}

#[test]
fn the_page_is_text_for_curl_and_a_table_for_a_browser() {
    on_stage(None, async |stage| {
        let text = stage.get("/").await;
        assert!(text.head.contains("text/plain"), "{}", text.head);
        assert!(
            text.body.contains("  [::1]:9001  127.0.0.1:9001  1       draining by operator  up 200"),
            "{}",
            text.body
        );
        assert!(text.body.contains("drift: app/b1 is draining"), "{}", text.body);

        let browser = "host: localhost\r\naccept: text/html,application/xhtml+xml\r\n";
        let page = stage.over_tcp(&request("GET", "/", browser, "")).await;
        assert!(page.head.contains("content-security-policy: default-src 'none'; style-src 'sha256-"));
        assert!(page.body.contains("<td>[::1]:9001</td>") && page.body.contains("&lt;b&gt;pintle.toml"));
        assert!(!page.body.contains("<b>"));
    });
}

#[test]
fn readiness_says_why_not() {
    on_stage(None, async |stage| {
        let answer = stage.get("/readyz").await;
        assert_eq!((answer.status, answer.body.as_str()), (503, "not ready: draining\n"));
    });
}

#[test]
fn head_is_get_without_the_body() {
    on_stage(None, async |stage| {
        let get = stage.get("/v1/status").await;
        let head = stage.over_tcp(&request("HEAD", "/v1/status", "host: localhost\r\n", "")).await;
        assert_eq!((head.status, head.body.as_str()), (200, ""));
        assert!(head.head.contains(&format!("content-length: {}", get.body.len())), "{}", head.head);
        let events = stage.over_tcp(&request("HEAD", "/v1/events", "host: localhost\r\n", "")).await;
        assert_eq!((events.status, events.body.as_str()), (200, ""));
    });
}

#[test]
fn what_is_not_there_is_a_problem() {
    on_stage(None, async |stage| {
        for (path, expected) in [
            ("/v1/pools/nope", "404 unknown_pool"),
            ("/v1/pools/app/backends/nope", "404 unknown_backend"),
            ("/v1/drains/8", "404 unknown_drain"),
            ("/v1/status/", "404 no_such_path"),
            ("/favicon.ico", "404 no_such_path"),
        ] {
            assert_eq!(stage.get(path).await.problem(), expected, "{path}");
        }
        let post = stage.over_unix(&request("POST", "/v1/pools/app/backends/b1", "", "")).await;
        assert_eq!(post.problem(), "405 method_not_allowed");
        assert!(post.head.contains("allow: GET, HEAD, PATCH"), "{}", post.head);
    });
}

#[test]
fn the_socket_obeys_every_order() {
    on_stage(None, async |stage| {
        let json = "content-type: application/json; charset=utf-8\r\n";
        let order = r#"{"state":"draining","deadline_seconds":60,"reason":"deploy 42"}"#;
        let path = "/v1/pools/app/backends/%5B::1%5D:9001";
        let state = stage.over_unix(&request("PATCH", path, json, order)).await.json();
        assert_eq!(state["backend"]["name"], "[::1]:9001");
        assert_eq!((&state["backend"]["reason"], &state["drain"]), (&"deploy 42".into(), &7.into()));

        for body in ["", r#"{"text":"good"}"#] {
            let reload = stage.over_unix(&request("POST", "/v1/reload", json, body)).await;
            assert_eq!((reload.status, &reload.json()["generation"]), (200, &8.into()));
        }
        let refused = stage.over_unix(&request("POST", "/v1/reload", json, r#"{"text":"bad"}"#)).await;
        assert_eq!(refused.problem(), "422 config_invalid");

        let check = stage.over_unix(&request("POST", "/v1/check", "", "[pool.app]")).await;
        assert_eq!((check.status, &check.json()["ok"]), (200, &true.into()));
        let shutdown = stage.over_unix(&request("POST", "/v1/shutdown", "", "")).await;
        assert_eq!((shutdown.status, &shutdown.json()["state"]), (202, &"draining".into()));
    });
}

#[test]
fn a_program_is_started_over_the_socket_and_within_reason() {
    on_stage(Some("s3cret"), async |stage| {
        let json = "content-type: application/json\r\n";
        let order = |body| request("POST", "/v1/upgrade", json, body);
        assert_eq!(stage.over_unix(&order("{}")).await.json()["pid"], 2);
        let refused = stage.over_unix(&order(r#"{"timeout_seconds":1e9}"#)).await;
        assert_eq!(refused.problem(), "422 bad_seconds");
        let token = "content-type: application/json\r\nauthorization: Bearer s3cret\r\n";
        let refused = stage.over_tcp(&request("POST", "/v1/upgrade", token, "{}")).await;
        assert_eq!(refused.problem(), "403 socket_only");
    });
}

#[test]
fn an_order_that_cannot_be_read_is_refused() {
    on_stage(None, async |stage| {
        let path = "/v1/pools/app/backends/b1";
        let json = "content-type: application/json\r\n";
        let form = "content-type: application/x-www-form-urlencoded\r\n";
        let endless = r#"{"state":"draining","deadline_seconds":1e300}"#;
        for (headers, body, expected) in [
            (form, "state=draining", "415 json_only"),
            (json, r#"{"sate":"draining"}"#, "400 bad_json"),
            (json, "[", "400 bad_json"),
            (json, endless, "422 bad_seconds"),
        ] {
            assert_eq!(stage.over_unix(&request("PATCH", path, headers, body)).await.problem(), expected);
        }
    });
}

#[test]
fn a_body_over_the_limit_is_refused_whether_announced_or_not() {
    on_stage(None, async |stage| {
        let size = super::api::MAX_BODY + 1;
        let body = "x".repeat(size);
        let fits = stage.over_unix(&request("POST", "/v1/check", "", &body[1..])).await;
        assert_eq!(fits.status, 200);
        // The rest of the request is not waited for, so no more is sent than is surely read.
        let head = "POST /v1/check HTTP/1.1\r\nconnection: close\r\n";
        let chunked = format!("{head}transfer-encoding: chunked\r\n\r\n{size:x}\r\n{body}");
        assert_eq!(stage.over_unix(&chunked).await.problem(), "413 too_large");
        let announced = stage.over_unix(&request("POST", "/v1/check", "", &body)).await;
        assert_eq!(announced.problem(), "413 too_large");
    });
}

#[test]
fn tcp_reads_freely_and_writes_with_the_token_only() {
    let reload = |headers: &str| request("POST", "/v1/reload", &format!("host: localhost\r\n{headers}"), "");
    on_stage(None, async |stage| {
        assert_eq!(stage.over_tcp(&reload("")).await.problem(), "403 read_only");
        assert!(stage.over_tcp(&reload("")).await.json()["hint"].as_str().unwrap().contains("unix socket"));
    });
    on_stage(Some("s3cret"), async |stage| {
        let without = stage.over_tcp(&reload("")).await;
        assert_eq!(without.problem(), "401 token_needed");
        assert!(without.head.contains("www-authenticate: Bearer"), "{}", without.head);
        assert_eq!(
            stage.over_tcp(&reload("authorization: Bearer no\r\n")).await.problem(),
            "401 wrong_token"
        );
        assert_eq!(stage.over_tcp(&reload("authorization: Bearer s3cret\r\n")).await.status, 200);
        assert_eq!(stage.get("/v1/status").await.status, 200);
        let foreign = "authorization: Bearer s3cret\r\norigin: http://evil.example\r\n";
        assert_eq!(stage.over_tcp(&reload(foreign)).await.problem(), "403 foreign_origin");
    });
}

#[test]
fn a_rebound_name_sees_probes_and_metrics_only() {
    on_stage(None, async |stage| {
        let evil = "host: evil.example\r\n";
        for path in ["/", "/v1/status", "/v1/events", "/nope"] {
            let answer = stage.over_tcp(&request("GET", path, evil, "")).await;
            assert_eq!(answer.problem(), "403 unknown_host", "{path}");
        }
        for (path, status) in [("/livez", 200), ("/readyz", 503), ("/metrics", 200)] {
            assert_eq!(stage.over_tcp(&request("GET", path, evil, "")).await.status, status, "{path}");
        }
    });
}

#[test]
fn events_begin_with_a_snapshot_and_go_on_as_they_come() {
    on_stage(None, async |stage| {
        stage.events.publish("process", None, None, "started");
        let mut reader = stage.watch("").await;
        let (kind, id, data) = event(&mut reader).await;
        assert_eq!((kind.as_str(), id.as_str(), &data["generation"]), ("snapshot", "1", &7.into()));
        stage.events.publish("health", Some("app"), Some("b1"), "b1 down\nafter 3");
        let (kind, id, data) = event(&mut reader).await;
        assert_eq!(
            (kind.as_str(), id.as_str(), &data["message"]),
            ("health", "2", &"b1 down\nafter 3".into())
        );
    });
}

#[test]
fn a_reader_that_comes_back_resumes_after_what_it_saw() {
    on_stage(None, async |stage| {
        for message in ["one", "two", "three"] {
            stage.events.publish("state", Some("app"), None, message);
        }
        let mut reader = stage.watch("last-event-id: 1\r\n").await;
        assert_eq!(event(&mut reader).await.0, "snapshot");
        let (two, three) = (event(&mut reader).await, event(&mut reader).await);
        assert_eq!((two.1.as_str(), two.2["message"].as_str()), ("2", Some("two")));
        assert_eq!((three.1.as_str(), three.2["message"].as_str()), ("3", Some("three")));
    });
}

#[test]
fn a_reader_too_far_behind_is_cut_off() {
    on_stage(None, async |stage| {
        let mut reader = stage.watch("").await;
        event(&mut reader).await;
        // All in one step: the stream is not polled in between.
        for _ in 0..=super::events::MAX_BEHIND {
            stage.events.publish("health", None, None, "flap");
        }
        let mut rest = String::new();
        reader.read_to_string(&mut rest).await.ok();
        assert!(!rest.contains("flap"), "{rest}");
    });
}

#[test]
fn watchers_are_counted_and_their_seats_come_free() {
    on_stage(None, async |stage| {
        let mut watchers = Vec::new();
        for _ in 0..super::door::MAX_EVENT_STREAMS {
            watchers.push(stage.watch("").await);
        }
        assert_eq!(stage.get("/v1/events").await.problem(), "503 too_many_streams");
        assert_eq!(stage.get("/v1/status").await.status, 200);
        watchers.clear();
        // The server learns of the closed connections when it next looks at them.
        while stage.over_tcp(&request("HEAD", "/v1/events", "host: localhost\r\n", "")).await.status != 200 {}
    });
}

#[test]
fn the_stop_ends_streams_and_removes_the_socket() {
    on_stage(None, async |mut stage| {
        let mut reader = stage.watch("").await;
        event(&mut reader).await;
        stage.stop.clear();
        for server in stage.servers.drain(..) {
            server.await.unwrap();
        }
        let mut rest = Vec::new();
        let _ = reader.read_to_end(&mut rest).await;
        assert!(TcpStream::connect(&stage.tcp).await.is_err());
        assert!(!stage.unix.exists());
    });
}

#[test]
fn an_ended_process_says_so() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let (desk, inbox) = Desk::new(Events::default());
        drop(inbox);
        assert_eq!(desk.status().await, Err(super::Gone));
    });
}
