//! Clients that hold on to what they have: what each costs in memory and descriptors, when it is
//! cut, and that nobody else notices. The balancer has a process of its own, so that what grows is
//! its own; it gives freed memory back at once, so that what is weighed is held.
//!
//! The limits are those of an unoptimised build with room for a busy machine; what was measured is
//! printed (`--nocapture`).

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::task::JoinHandle;

use crate::process::{Folder, Running, get, pool};
use crate::support::{Backend, Client, Keys, Reply, TlsClient, TlsWire, Wire, eventually};

const SITE: &str = "shop.example";

/// Starts with a clear and a TLS listener; lines for both.
async fn start(backend: &Backend, lines: &str, keys: &Keys) -> Running {
    keys.make("site", &[SITE]);
    let folder = Folder::new();
    let tls = format!("[listener.tls]\nbind = \"127.0.0.1:0\"\n{}{lines}\n", keys.tls(&["site"]));
    let text = format!("{}{tls}", folder.config(&pool(&[backend], "")));
    let text = text.replace("[listener.web]\n", &format!("[listener.web]\n{lines}\n"));
    folder.write("pintle.toml", &text);
    let command = folder.command(["serve", "-c", "pintle.toml"]);
    weighed(folder, command).await
}

/// Runs a program whose memory can be weighed: it gives back at once what it frees.
pub async fn weighed(folder: Folder, mut command: Command) -> Running {
    command.env("_RJEM_MALLOC_CONF", "dirty_decay_ms:0,muzzy_decay_ms:0,narenas:2");
    let admin = folder.path("admin.sock").display().to_string();
    Running::spawn(folder, command, &admin).await
}

/// One who behaves, all the time.
pub struct Good {
    over: Arc<AtomicBool>,
    task: JoinHandle<(usize, Duration)>,
}

impl Good {
    pub fn start(mut client: Client) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let stop = over.clone();
        let task = tokio::spawn(async move {
            let (mut answers, mut slowest) = (0, Duration::ZERO);
            while !stop.load(Ordering::Relaxed) {
                let start = Instant::now();
                assert_eq!(client.get("/").await.status, 200);
                (answers, slowest) = (answers + 1, slowest.max(start.elapsed()));
                // A request now and then, not a load.
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            (answers, slowest)
        });
        Self { over, task }
    }

    pub async fn end(self) {
        self.over.store(true, Ordering::Relaxed);
        let (answers, slowest) = self.task.await.expect("everybody else is served");
        assert!(answers > 0 && slowest < Duration::from_secs(1), "{answers} answers, {slowest:?}");
    }
}

/// Waits until the listeners have so many connections.
async fn connected(running: &Running, count: usize) {
    let open = async || {
        let text = get(&running.admin, "/metrics").await;
        let samples = text.lines().filter(|line| line.starts_with("pintle_listener_connections{"));
        let open: f64 = samples.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum();
        open as usize == count
    };
    eventually(&format!("{count} connections"), open).await;
}

/// What a good client's requests alone move.
const SETTLED_KIB: usize = 128;

/// Anonymous memory once it has stopped changing.
pub async fn settled_kib(running: &Running) -> usize {
    let (mut last, mut same) = (0, 0);
    eventually("its memory settles", async || {
        // Idle connections are parked after a second.
        tokio::time::sleep(Duration::from_millis(100)).await;
        let now = running.anonymous_kib();
        same = if now.abs_diff(last) <= SETTLED_KIB { same + 1 } else { 0 };
        last = now;
        same >= 15
    })
    .await;
    last
}

/// How much each of the connections that `open` opens weighs.
async fn weight<T>(running: &Running, count: usize, open: impl AsyncFn() -> T) -> f64 {
    // What the first ones cost once and for all is no connection's.
    let mut first = Vec::new();
    for _ in 0..count / 4 {
        first.push(open().await);
    }
    settled_kib(running).await;
    drop(first);
    connected(running, 0).await;
    let before = settled_kib(running).await;
    let mut all = Vec::new();
    for _ in 0..count {
        all.push(open().await);
    }
    connected(running, count).await;
    let after = settled_kib(running).await;
    drop(all);
    connected(running, 0).await;
    after.saturating_sub(before) as f64 / count as f64
}

const HALF: &str = "GET / HTTP/1.1\r\nHost: shop.example\r\nX-Slow: yes\r\n";
const WHOLE: &str = "GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n";
const UPGRADE: &str =
    "GET /ws HTTP/1.1\r\nHost: shop.example\r\nConnection: upgrade\r\nUpgrade: chat\r\n\r\n";

#[tokio::test]
async fn who_waits_weighs_little() {
    let (backend, keys) = (Backend::start("a").await, Keys::new());
    backend.answer(|request| match request.target.as_str() {
        "/ws" => Reply::upgrade("chat", ""),
        "/big" => Reply::text(vec![b'x'; 8 * 1024 * 1024]),
        _ => Reply::text("a"),
    });
    let patient = "header_timeout = \"5m\"\nidle_timeout = \"5m\"";
    let running = start(&backend, patient, &keys).await;
    let [web, tls] = running.addresses().await;
    let clear = async || Wire::open(web).await;
    let client = TlsClient::new(tls);
    let secure = async || client.open(SITE).await;

    let mut weights = Vec::new();
    let mut note = |what: &str, kib: f64, most: f64| {
        println!("{what}: {kib:.1} KiB each, at most {most}");
        weights.push((what.to_owned(), kib, most));
    };
    let half = weight(&running, 400, async || {
        let mut wire = clear().await;
        wire.send(HALF).await;
        wire
    });
    note("half a head", half.await, 6.0);
    let half = weight(&running, 400, async || {
        let mut wire = secure().await;
        wire.send(HALF).await;
        wire
    });
    note("half a head over TLS", half.await, 14.0);
    let idle = weight(&running, 400, async || {
        let mut wire = clear().await;
        wire.send(WHOLE).await;
        assert_eq!(wire.response("GET").await.unwrap().status, 200);
        wire
    });
    note("an idle connection", idle.await, 6.0);
    let idle = weight(&running, 400, async || idle_over_tls(&client).await);
    note("an idle connection over TLS", idle.await, 14.0);
    let tunnel = weight(&running, 200, async || {
        let mut wire = clear().await;
        wire.send(UPGRADE).await;
        assert_eq!(wire.response_head().await.unwrap().status, 101);
        wire
    });
    note("an idle tunnel", tunnel.await, 12.0);
    let stalled = weight(&running, 50, async || {
        let mut wire = clear().await;
        wire.send("GET /big HTTP/1.1\r\nHost: shop.example\r\n\r\n").await;
        assert_eq!(wire.response_head().await.unwrap().status, 200);
        wire
    });
    note("a stalled download", stalled.await, 96.0);
    for (what, kib, most) in weights {
        assert!(kib <= most, "{what} weighs {kib:.1} KiB, more than {most}");
    }
}

async fn idle_over_tls(client: &TlsClient) -> TlsWire {
    let mut wire = client.open(SITE).await;
    wire.send(WHOLE).await;
    assert_eq!(wire.response("GET").await.unwrap().status, 200);
    wire
}

/// Opens as many at once as `bytes` says, and waits until each has been cut.
async fn all_are_cut(running: &Running, address: std::net::SocketAddr, count: usize, bytes: &[u8]) {
    let (start, before) = (running.descriptors(), running.anonymous_kib());
    let good = Good::start(running.client().await);
    let begun = Instant::now();
    let clients = (0..count).map(|_| {
        let bytes = bytes.to_vec();
        tokio::spawn(async move {
            let mut wire = Wire::open(address).await;
            wire.send(&bytes).await;
            while tokio::time::timeout(Duration::from_millis(200), wire.more()).await.unwrap_or(true) {
                // Another byte of a head that never ends, if it is one.
                let _ = wire.try_send("x").await;
            }
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await.unwrap();
    }
    let took = begun.elapsed();
    println!("{count} cut after {took:?}");
    assert!(took >= Duration::from_millis(1500) && took < Duration::from_secs(8), "{took:?}");
    good.end().await;
    eventually("descriptors are given back", async || running.descriptors() <= start + 4).await;
    let grown = settled_kib(running).await.saturating_sub(before);
    assert!(grown <= 8 * 1024, "{grown} KiB were kept");
}

#[tokio::test]
async fn a_thousand_dribbling_heads_are_cut_in_time_and_a_good_client_notices_nothing() {
    let (backend, keys) = (Backend::start("a").await, Keys::new());
    let running = start(&backend, "header_timeout = \"2s\"", &keys).await;
    let [web, _] = running.addresses().await;
    all_are_cut(&running, web, 1000, b"GET / HTTP/1.1\r\nHost: h\r\nX-Slow: ").await;
    assert!(backend.requests().iter().all(|request| request.header("x-slow").is_none()));
}

#[tokio::test]
async fn a_thousand_half_handshakes_are_cut_in_time_and_a_good_client_notices_nothing() {
    let (backend, keys) = (Backend::start("a").await, Keys::new());
    let running = start(&backend, "first_byte_timeout = \"2s\"", &keys).await;
    let [_, tls] = running.addresses().await;
    // The record announces more than ever comes: 200 ms a byte is never enough.
    all_are_cut(&running, tls, 1000, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03").await;
}

#[tokio::test]
async fn without_descriptors_it_waits_says_so_once_and_recovers() {
    let (backend, folder) = (Backend::start("a").await, Folder::new());
    folder.write("pintle.toml", &folder.config(&pool(&[&backend], "")));
    let mut command = folder.command(["serve", "-c", "pintle.toml"]);
    let program = command.get_program().to_owned();
    let limited = ["-c", "ulimit -n 256; exec \"$0\" \"$@\""];
    let inner: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
    let path = command.get_current_dir().expect("the folder").to_owned();
    command = Command::new("sh");
    command.args(limited).arg(program).args(inner).current_dir(path);
    let running = weighed(folder, command).await;
    let mut client = running.client().await;
    assert_eq!(client.get("/").await.status, 200);
    let address = client.wire().await.stream.peer_addr().unwrap();
    let start = running.descriptors();

    let mut greedy = Vec::new();
    for _ in 0..400 {
        greedy.push(Wire::open(address).await);
    }
    eventually("it says that it takes no more", async || refusals(&running) > 0).await;
    // Who is in is served, and nothing spins.
    let (cpu, since) = (running.cpu(), Instant::now());
    while since.elapsed() < Duration::from_secs(1) {
        assert_eq!(client.get("/").await.status, 200);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let used = running.cpu() - cpu;
    assert!(used < Duration::from_millis(500), "{used:?} of CPU in a second");
    assert!(running.descriptors() <= 256);

    drop(greedy);
    eventually("descriptors are given back", async || running.descriptors() <= start + 4).await;
    for _ in 0..20 {
        assert_eq!(Client::new(address).get("/").await.status, 200);
    }
    println!("{} ms of CPU in a second, said {} times", used.as_millis(), refusals(&running));
    // Once on each of two threads, and not again with every try.
    assert!(refusals(&running) <= 4, "{}", running.told());
}

/// How often it said that it accepts nobody: at its own limit, or at the system's.
fn refusals(running: &Running) -> usize {
    let told = running.told();
    told.matches("not accepting").count() + told.matches("cannot accept").count()
}

#[tokio::test]
async fn four_thousand_idle_connections_are_held_cheaply_and_given_back() {
    const CROWD: usize = 4000;
    // Their other ends are here.
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
    let (backend, keys) = (Backend::start("a").await, Keys::new());
    let running = start(&backend, "", &keys).await;
    let [web, _] = running.addresses().await;
    let good = Good::start(running.client().await);
    let (start, before) = (running.descriptors(), settled_kib(&running).await);
    let mut crowd = Vec::new();
    for _ in 0..CROWD {
        let mut wire = Wire::open(web).await;
        wire.send(WHOLE).await;
        assert_eq!(wire.response("GET").await.unwrap().status, 200);
        crowd.push(wire);
    }
    connected(&running, CROWD + 1).await;
    let grown = settled_kib(&running).await - before;
    println!("{CROWD} idle connections hold {grown} KiB");
    assert!(grown <= 6 * CROWD, "{grown} KiB");
    // Every one of them is still there.
    for wire in crowd.iter_mut().step_by(40) {
        wire.send(WHOLE).await;
        assert_eq!(wire.response("GET").await.expect("it was kept").status, 200);
    }
    drop(crowd);
    good.end().await;
    eventually("descriptors are given back", async || running.descriptors() <= start + 4).await;
}

#[tokio::test]
async fn a_flood_of_handshakes_leaves_the_good_client_alone_and_nothing_behind() {
    let (backend, keys) = (Backend::start("a").await, Keys::new());
    let running = start(&backend, "", &keys).await;
    let [_, tls] = running.addresses().await;
    let (start, before) = (running.descriptors(), settled_kib(&running).await);
    let good = Good::start(running.client().await);
    for _ in 0..10 {
        let hands = (0..100).map(|_| tokio::spawn(async move { TlsClient::new(tls).open(SITE).await }));
        for hand in hands.collect::<Vec<_>>() {
            drop(hand.await.unwrap());
        }
    }
    good.end().await;
    eventually("descriptors are given back", async || running.descriptors() <= start + 4).await;
    let grown = settled_kib(&running).await.saturating_sub(before);
    println!("a thousand handshakes left {grown} KiB");
    assert!(grown <= 8 * 1024, "{grown} KiB were kept");
}
