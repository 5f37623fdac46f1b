//! A backend on its way out: nobody new, nobody cut before the deadline, and safe to stop.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use pintle::admin::view::{DrainView, StateOrder};
use tokio::task::JoinHandle;

use crate::support::{Ask, Backend, Client, Config, Proxy, Reply, eventually};

const STICKY: &str = "policy = \"sticky_cookie\"";

fn order(state: &str) -> StateOrder {
    StateOrder { state: state.into(), ..StateOrder::default() }
}

fn seconds(seconds: f64) -> Option<Duration> {
    Some(Duration::from_secs_f64(seconds))
}

/// A client that holds `backend`'s token.
async fn client_of(proxy: &Proxy, backend: &str) -> Client {
    for _ in 0..100 {
        let mut client = proxy.client();
        if client.get("/").await.served_by() == backend {
            return client;
        }
    }
    panic!("nobody was placed on {backend}");
}

async fn state(proxy: &Proxy, backend: &str) -> (String, String) {
    let backend = proxy.backend(backend).await;
    (backend.state, backend.state_source)
}

async fn becomes(proxy: &Proxy, backend: &str, wanted: &str) {
    let is = async || proxy.backend(backend).await.state == wanted;
    eventually(&format!("{backend} is {wanted}"), is).await;
}

/// Keep-alive clients that ask as fast as they can, and how many answers were no 200.
struct Traffic {
    stop: Arc<AtomicBool>,
    served: Arc<AtomicUsize>,
    clients: Vec<JoinHandle<Vec<String>>>,
}

impl Traffic {
    fn start(proxy: &Proxy, clients: usize) -> Self {
        let (stop, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let run = |_| {
            let (mut client, stop, served) = (proxy.client(), stop.clone(), served.clone());
            tokio::spawn(async move {
                let mut failed = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    match client.try_ask(&Ask::get("/load")).await {
                        Some(answer) if answer.status == 200 && answer.whole => {}
                        Some(answer) => failed.push(answer.text()),
                        None => failed.push("no answer".into()),
                    }
                    served.fetch_add(1, Ordering::Relaxed);
                }
                failed
            })
        };
        let clients = (0..clients).map(run).collect();
        Self { stop, served, clients }
    }

    async fn more(&self, count: usize) {
        let goal = self.served.load(Ordering::Relaxed) + count;
        eventually("traffic", async || self.served.load(Ordering::Relaxed) >= goal).await;
    }

    /// Everything that failed.
    async fn end(self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        let mut failed = Vec::new();
        for client in self.clients {
            failed.extend(client.await.unwrap());
        }
        failed
    }
}

#[tokio::test]
async fn new_sessions_go_elsewhere_and_known_ones_stay_until_closing_time() {
    let [a, b] = Backend::fleet(["a", "b"]).await;
    let proxy = Proxy::start(Config::app(&[&a, &b], STICKY)).await;
    let mut known = client_of(&proxy, "a").await;
    let begun = Instant::now();
    let watch = async {
        becomes(&proxy, "app/a", "draining").await;
        for _ in 0..10 {
            assert_eq!(proxy.client().get("/").await.served_by(), "b");
        }
        let mut stayed = 0;
        loop {
            let answer = known.get("/").await;
            assert_eq!(answer.status, 200);
            if answer.served_by() == "b" {
                assert!(answer.header("set-cookie").is_some(), "it has a new backend");
                break;
            }
            stayed += 1;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // Closing time is the last second of three.
        let moved_after = begun.elapsed();
        assert!(
            (Duration::from_millis(1900)..Duration::from_millis(2900)).contains(&moved_after),
            "{moved_after:?}"
        );
        assert!(stayed > 5, "{stayed}");
    };
    let (view, ()) = tokio::join!(proxy.drain("app/a", seconds(3.0)), watch);
    let view = view.unwrap();
    let DrainView { sessions_moved, requests_cut, tunnels_cut, .. } = view;
    assert_eq!(
        (view.state.as_str(), sessions_moved >= 1, requests_cut, tunnels_cut),
        ("drained", true, 0, 0)
    );
    assert_eq!(known.get("/").await.served_by(), "b");
    let verdict = async || proxy.log().iter().any(|line| line["stick"] == "moved_drain");
    eventually("the move is in the log", verdict).await;
}

#[tokio::test]
async fn on_drain_move_lets_go_of_known_sessions_at_once() {
    let [a, b] = Backend::fleet(["a", "b"]).await;
    let proxy = Proxy::start(Config::app(&[&a, &b], &format!("{STICKY}\nsticky.on_drain = \"move\""))).await;
    let mut known = client_of(&proxy, "a").await;
    proxy.set_state("app/a", order("draining")).await.unwrap();
    assert_eq!(known.get("/").await.served_by(), "b");
    becomes(&proxy, "app/a", "drained").await;
}

#[tokio::test]
async fn a_drain_ends_when_its_sessions_have_fallen_silent() {
    let [a, b] = Backend::fleet(["a", "b"]).await;
    let proxy = Proxy::start(Config::app(&[&a, &b], &format!("{STICKY}\nsticky.max_idle = \"1s\""))).await;
    client_of(&proxy, "a").await;
    let view = proxy.drain("app/a", None).await.unwrap();
    assert_eq!((view.state.as_str(), view.sessions_ended, view.sessions_moved), ("drained", 1, 0));
}

#[tokio::test]
async fn requests_in_flight_finish_before_it_is_drained() {
    let [a, b] = Backend::fleet(["a", "b"]).await;
    let proxy =
        Proxy::start(Config::default().pool_of("app", &[a.toml(""), b.toml("backup = true")], "")).await;
    a.hold();
    let mut client = proxy.client();
    client.send(&Ask::get("/")).await;
    a.parked(1).await;
    proxy.set_state("app/a", order("draining")).await.unwrap();
    for _ in 0..10 {
        assert_eq!(proxy.client().get("/").await.served_by(), "b");
    }
    tokio::time::sleep(Duration::from_millis(400)).await;
    let view = proxy.backend("app/a").await;
    assert_eq!((view.state.as_str(), view.in_flight), ("draining", 1));
    a.release();
    assert_eq!(client.read("GET").await.expect("an answer").served_by(), "a");
    becomes(&proxy, "app/a", "drained").await;
    a.deserted().await;
}

#[tokio::test]
async fn the_deadline_cuts_what_is_left() {
    let [a, b] = Backend::fleet(["a", "b"]).await;
    let proxy =
        Proxy::start(Config::default().pool_of("app", &[a.toml(""), b.toml("backup = true")], "")).await;
    a.reply(Reply::stall());
    let mut client = proxy.client();
    client.send(&Ask::post("/", "once")).await;
    a.seen(1).await;
    let begun = Instant::now();
    let view = proxy.drain("app/a", seconds(1.0)).await.unwrap();
    assert!((Duration::from_millis(950)..Duration::from_secs(3)).contains(&begun.elapsed()));
    assert_eq!((view.state.as_str(), view.requests_cut), ("drained", 1));
    let answer = client.read("POST").await.expect("an answer");
    assert!(answer.text().starts_with("503 drained"), "{}", answer.text());
    proxy.ended("drained").await;
    a.deserted().await;
}

#[tokio::test]
async fn what_is_drained_can_be_stopped_without_one_failed_request() {
    let [mut a, b, c] = Backend::fleet(["a", "b", "c"]).await;
    for policy in ["round_robin", "sticky_cookie", "ip_hash"] {
        let pool = format!("policy = {policy:?}\nsticky.max_idle = \"1s\"\nslow_start = \"1s\"");
        let proxy = Proxy::start(Config::app(&[&a, &b, &c], &pool)).await;
        let traffic = Traffic::start(&proxy, 6);
        traffic.more(200).await;
        let view = proxy.drain("app/a", seconds(2.0)).await.unwrap();
        assert_eq!((view.state.as_str(), view.requests_cut), ("drained", 0), "{policy}");
        assert_eq!(a.open(), 0, "{policy}: no connection is left");
        a.die().await;
        let seen = a.count();
        traffic.more(200).await;
        assert_eq!(a.count(), seen, "{policy}");
        a.come_back();
        proxy.ready("app/a").await.unwrap();
        traffic.more(200).await;
        assert_eq!(traffic.end().await, Vec::<String>::new(), "{policy}");
    }
}

#[tokio::test]
async fn ready_waits_for_rise_probes() {
    let [a, b] = Backend::fleet(["a", "b"]).await;
    let pool = "[pool.app.health]\npath = \"/healthz\"\ninterval = \"300ms\"\njitter = 0.0\nrise = 3";
    let proxy = Proxy::start(Config::app(&[&a, &b], pool)).await;
    let up = async || {
        proxy.backend("app/a").await.health.status == "up"
            && proxy.backend("app/b").await.health.status == "up"
    };
    eventually("both are up", up).await;
    proxy.drain("app/a", None).await.unwrap();
    let probes = || a.requests().iter().filter(|request| request.target == "/healthz").count();
    let before = probes();
    let answer = proxy.ready("app/a").await.unwrap();
    assert_eq!((answer.backend.state.as_str(), answer.backend.health.status.as_str()), ("active", "down"));
    assert!(answer.notes[0].contains("takes traffic once its probes pass"), "{:?}", answer.notes);
    let visits = || a.count() - probes();
    let visited = visits();
    let back = async || {
        proxy.client().get("/").await;
        visits() > visited
    };
    eventually("it takes traffic again", back).await;
    assert!(probes() - before >= 3, "{} probes", probes() - before);
}

#[tokio::test]
async fn the_file_drains_and_brings_back() {
    let [a, b] = Backend::fleet(["a", "b"]).await;
    let file = |keys: &str| Config::default().pool_of("app", &[a.toml(keys), b.toml("")], "");
    let proxy = Proxy::start(file("")).await;
    proxy.reload(file("state = \"draining\"")).await.unwrap();
    becomes(&proxy, "app/a", "drained").await;
    assert_eq!(state(&proxy, "app/a").await.1, "file");
    let seen = a.count();
    for _ in 0..10 {
        assert_eq!(proxy.client().get("/").await.served_by(), "b");
    }
    assert_eq!(a.count(), seen);
    proxy.reload(file("")).await.unwrap();
    assert_eq!(state(&proxy, "app/a").await, ("active".into(), "file".into()));
    let back = async || proxy.client().get("/").await.served_by() == "a";
    eventually("it takes traffic again", back).await;

    proxy.reload(file("state = \"stopped\"")).await.unwrap();
    assert_eq!(state(&proxy, "app/a").await, ("stopped".into(), "file".into()));
}

#[tokio::test]
async fn a_file_that_starts_with_a_draining_backend_gives_it_nobody() {
    let [a, b] = Backend::fleet(["a", "b"]).await;
    let backends = [a.toml("state = \"draining\""), b.toml("")];
    let proxy = Proxy::start(Config::default().pool_of("app", &backends, "")).await;
    for _ in 0..10 {
        assert_eq!(proxy.client().get("/").await.served_by(), "b");
    }
    becomes(&proxy, "app/a", "drained").await;
}

#[tokio::test]
async fn an_operators_word_holds_until_the_files_changes() {
    let [a, b] = Backend::fleet(["a", "b"]).await;
    let file = |keys: &str, more: &str| Config::default().pool_of("app", &[a.toml(keys), b.toml("")], more);
    let proxy = Proxy::start(file("", "")).await;
    proxy.drain("app/a", None).await.unwrap();
    assert_eq!(state(&proxy, "app/a").await, ("drained".into(), "operator".into()));
    assert_eq!(proxy.status().await.drift.len(), 1);

    proxy.reload(file("weight = 3", "policy = \"least_conn\"")).await.unwrap();
    assert_eq!(state(&proxy, "app/a").await, ("drained".into(), "operator".into()), "other edits leave it");

    proxy.reload(file("state = \"draining\"", "")).await.unwrap();
    assert_eq!(state(&proxy, "app/a").await.1, "file");
    assert!(proxy.status().await.drift.is_empty());

    let answer = proxy.ready("app/a").await.unwrap();
    assert_eq!(answer.backend.state, "active");
    let drift = proxy.status().await.drift;
    assert!(
        drift[0].contains("app/a is active by an operator") && drift[0].contains("file says draining"),
        "{drift:?}"
    );
    proxy.reload(file("state = \"draining\"", "policy = \"least_conn\"")).await.unwrap();
    assert_eq!(proxy.backend("app/a").await.state, "active");

    proxy.reload(file("", "")).await.unwrap();
    assert!(proxy.status().await.drift.is_empty());
}

#[tokio::test]
async fn ready_cannot_overrule_the_backends_own_answer() {
    let [a, b] = Backend::fleet(["a", "b"]).await;
    let health = Arc::new(AtomicU16::new(200));
    let told = health.clone();
    a.answer(move |request| match request.target.as_str() {
        "/healthz" => Reply::status(told.load(Ordering::Relaxed)),
        _ => Reply::text("x"),
    });
    let pool = format!(
        "{STICKY}\n[pool.app.health]\npath = \"/healthz\"\ninterval = \"100ms\"\ndrain_on = \"503\"\nrise = 1"
    );
    let proxy = Proxy::start(Config::app(&[&a, &b], &pool)).await;
    let mut known = client_of(&proxy, "a").await;
    health.store(503, Ordering::Relaxed);
    becomes(&proxy, "app/a", "draining").await;
    assert_eq!(state(&proxy, "app/a").await.1, "health");
    assert_eq!(known.get("/").await.served_by(), "a", "its sessions stay");
    assert_eq!(proxy.client().get("/").await.served_by(), "b", "and nobody new comes");

    proxy.set_state("app/a", order("draining")).await.unwrap();
    let answer = proxy.ready("app/a").await.unwrap();
    assert_eq!(answer.backend.state, "draining");
    assert!(answer.notes[0].contains("still held draining by health"), "{:?}", answer.notes);

    health.store(200, Ordering::Relaxed);
    becomes(&proxy, "app/a", "active").await;
    client_of(&proxy, "a").await;
    assert_eq!(known.get("/").await.served_by(), "a");
}

#[tokio::test]
async fn the_last_backend_is_drained_only_by_force() {
    let [a, b] = Backend::fleet(["a", "b"]).await;
    let proxy = Proxy::over(&[&a, &b]).await;
    proxy.drain("app/a", None).await.unwrap();
    for state in ["draining", "stopped"] {
        let fault = proxy.set_state("app/b", order(state)).await.unwrap_err();
        assert_eq!((fault.status, fault.code.as_str()), (409, "would_leave_none"));
        assert!(fault.detail.contains("no other backend of pool app"), "{fault:?}");
    }
    assert_eq!(proxy.client().get("/").await.served_by(), "b");
    let forced = StateOrder { force: true, ..order("draining") };
    assert_eq!(proxy.set_state("app/b", forced).await.unwrap().backend.state, "draining");
    let sooner = StateOrder { deadline_seconds: Some(30.0), ..order("draining") };
    let drain = proxy.set_state("app/b", sooner).await.expect("it takes nobody new already").backend.drain;
    assert_eq!(drain.unwrap().deadline_seconds.map(f64::round), Some(30.0));
    let fault = proxy.set_state("app/nobody", order("draining")).await.unwrap_err();
    assert_eq!((fault.status, fault.code.as_str()), (404, "unknown_backend"));
}

#[tokio::test]
async fn under_ip_hash_its_clients_move_at_once_and_nobody_elses() {
    let [a, b, c] = Backend::fleet(["a", "b", "c"]).await;
    let proxy = Proxy::start(Config::app(&[&a, &b, &c], "policy = \"ip_hash\"")).await;
    let place = async || {
        let mut places = BTreeMap::new();
        for host in 2..50 {
            let mut client = proxy.client_from(&format!("127.0.0.{host}"));
            places.insert(host, client.get("/").await.served_by().to_owned());
        }
        places
    };
    let before = place().await;
    assert!(["a", "b", "c"].iter().all(|name| before.values().any(|backend| backend == name)), "{before:?}");
    proxy.set_state("app/a", order("draining")).await.unwrap();
    for (host, now) in place().await {
        match before[&host].as_str() {
            "a" => assert_ne!(now, "a", "127.0.0.{host}"),
            other => assert_eq!(now, other, "127.0.0.{host}"),
        }
    }
    becomes(&proxy, "app/a", "drained").await;
    proxy.ready("app/a").await.unwrap();
    assert_eq!(place().await, before, "and all come back");
}

#[tokio::test]
async fn a_backend_that_leaves_the_file_finishes_what_it_has() {
    let [a, b] = Backend::fleet(["a", "b"]).await;
    let proxy = Proxy::start(Config::app(&[&a], STICKY)).await;
    let mut known = client_of(&proxy, "a").await;
    a.hold();
    let mut busy = proxy.client();
    busy.send(&Ask::post("/", "body")).await;
    a.parked(1).await;
    let report = proxy.reload(Config::app(&[&b], STICKY)).await.unwrap();
    assert!(report.draining[0].contains("a left the file; 1 request and 0 tunnels"), "{:?}", report.draining);
    assert_eq!(known.get("/").await.served_by(), "b", "not even by token");
    let left = proxy.backend("app/a").await;
    assert_eq!((left.removed, left.in_flight), (true, 1));
    a.release();
    assert_eq!(busy.read("POST").await.expect("an answer").served_by(), "a");
    a.deserted().await;
    let forgotten = async || proxy.status().await.pools[0].backends.len() == 1;
    eventually("it is no longer listed", forgotten).await;
}

#[tokio::test]
async fn stop_cuts_at_once_and_probes_end() {
    let [a, b] = Backend::fleet(["a", "b"]).await;
    a.answer(|request| match request.target.as_str() {
        "/healthz" => Reply::status(200),
        _ => Reply::stall(),
    });
    let pool = "[pool.app.health]\npath = \"/healthz\"\ninterval = \"100ms\"";
    let backends = [a.toml(""), b.toml("backup = true")];
    let proxy = Proxy::start(Config::default().pool_of("app", &backends, pool)).await;
    eventually("it is up", async || proxy.backend("app/a").await.health.status == "up").await;
    let mut client = proxy.client();
    client.send(&Ask::post("/", "once")).await;
    eventually("it is busy", async || proxy.backend("app/a").await.in_flight == 1).await;
    assert_eq!(proxy.stop("app/a").await.unwrap().backend.state, "stopped");
    let answer = client.read("POST").await.expect("an answer");
    assert!(answer.text().starts_with("503 drained"), "{}", answer.text());
    let visits =
        |backend: &Backend| backend.requests().iter().filter(|request| request.target == "/").count();
    assert_eq!((visits(&a), visits(&b)), (1, 0), "a POST that a backend may have seen goes nowhere else");
    a.deserted().await;
    let probes = a.count();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(a.count() <= probes + 1, "{} more probes", a.count() - probes);
    proxy.ready("app/a").await.unwrap();
    eventually("it is back", async || proxy.backend("app/a").await.health.status == "up").await;
}

#[tokio::test]
async fn a_second_order_can_only_hurry_a_drain() {
    let [a, b] = Backend::fleet(["a", "b"]).await;
    let proxy =
        Proxy::start(Config::default().pool_of("app", &[a.toml(""), b.toml("backup = true")], "")).await;
    a.reply(Reply::stall());
    let mut client = proxy.client();
    client.send(&Ask::post("/", "once")).await;
    a.seen(1).await;
    let first = proxy.set_state("app/a", order("draining")).await.unwrap();
    let hurry = StateOrder { deadline_seconds: Some(0.3), ..order("draining") };
    let second = proxy.set_state("app/a", hurry).await.unwrap();
    assert_eq!(first.drain, second.drain);
    becomes(&proxy, "app/a", "drained").await;
    let view = proxy.backend("app/a").await.drain.expect("its drain");
    assert_eq!(view.requests_cut, 1);
}

#[tokio::test]
async fn an_operators_word_survives_a_restart_where_there_is_a_state_dir() {
    let [a, b] = Backend::fleet(["a", "b"]).await;
    let folder = std::env::temp_dir().join(format!("pintle-words-{}", std::process::id()));
    let config = || Config::app(&[&a, &b], STICKY).server(&format!("state_dir = {folder:?}"));
    let proxy = Proxy::start(config()).await;
    let mut known = client_of(&proxy, "a").await;
    let deploy =
        StateOrder { deadline_seconds: Some(600.0), reason: Some("deploy 42".into()), ..order("draining") };
    proxy.set_state("app/a", deploy).await.unwrap();
    proxy.shutdown().await;

    let proxy = Proxy::start(config()).await;
    let left = proxy.backend("app/a").await;
    assert_eq!((left.state.as_str(), left.state_source.as_str()), ("draining", "operator"));
    assert_eq!(left.reason.as_deref(), Some("deploy 42"));
    let deadline = left.drain.and_then(|drain| drain.deadline_seconds).expect("the deadline is kept");
    assert!((500.0..=600.0).contains(&deadline), "{deadline}");
    // It has looked several times at who is left, and counted nobody yet.
    let later = async || proxy.status().await.uptime_seconds > 0.5;
    eventually("half a second has passed", later).await;
    assert_eq!(proxy.backend("app/a").await.state, "draining");
    let mut again = proxy.client();
    again.cookies = std::mem::take(&mut known.cookies);
    assert_eq!(again.get("/").await.served_by(), "a", "the key was kept as well");
    assert_eq!(proxy.client().get("/").await.served_by(), "b");

    // What the file says of the backend has changed meanwhile: the word no longer stands.
    proxy.shutdown().await;
    let backends = [a.toml("state = \"stopped\""), b.toml("")];
    let changed =
        Config::default().pool_of("app", &backends, STICKY).server(&format!("state_dir = {folder:?}"));
    let proxy = Proxy::start(changed).await;
    let left = proxy.backend("app/a").await;
    assert_eq!((left.state.as_str(), left.state_source.as_str()), ("stopped", "file"));
    proxy.shutdown().await;
    std::fs::remove_dir_all(folder).unwrap();
}

#[tokio::test]
async fn a_connection_whose_request_was_cut_serves_the_next_one() {
    let [a, b] = Backend::fleet(["a", "b"]).await;
    let backends = [a.toml(""), b.toml("backup = true")];
    let proxy = Proxy::start(Config::default().pool_of("app", &backends, "")).await;
    a.hold();
    let mut client = proxy.client();
    client.send(&Ask::post("/", "once")).await;
    a.parked(1).await;
    proxy.drain("app/a", Some(Duration::ZERO)).await.unwrap();
    assert_eq!(client.read("POST").await.expect("an answer of ours").status, 503);
    assert_eq!(client.get("/").await.served_by(), "b");
}
