//! Replacing the running binary: nobody loses a connection, nothing is forgotten, and what does not
//! come to serve changes nothing. Linux only, as the sockets' way from process to process is.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use rustix::process::Signal;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_tungstenite::WebSocketStream;

use crate::process::{Folder, Running, free, get, pool};
use crate::support::{Ask, Backend, Client, Keys, Reply, Response, TlsClient, Wire, eventually, within};

/// Without it the running process would follow the file before it is replaced.
const BY_HAND: &str = "watch = false\n";

/// Clients that ask until they are told to stop; each of their answers is looked at.
struct Traffic {
    stop: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
    clients: Vec<JoinHandle<()>>,
}

impl Traffic {
    fn new() -> Self {
        Self { stop: Arc::default(), asked: Arc::default(), clients: Vec::new() }
    }

    /// One more client, of which `look` has to like every answer.
    fn add(
        &mut self,
        mut client: Client,
        reconnects: bool,
        look: impl Fn(&Response) -> bool + Send + 'static,
    ) {
        let (stop, asked) = (self.stop.clone(), self.asked.clone());
        self.clients.push(tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let answer = within("an answer", client.try_ask(&Ask::get("/"))).await;
                let answer = answer.expect("a connection closed without an answer");
                assert!(answer.status == 200 && look(&answer), "{} {}", answer.status, answer.text());
                asked.fetch_add(1, Ordering::Relaxed);
                if reconnects {
                    client.hang_up();
                }
            }
        }));
    }

    /// Waits until there have been so many more answers.
    async fn goes_on(&self, more: usize) {
        let until = self.asked.load(Ordering::Relaxed) + more;
        eventually("answers", async || {
            self.asked.load(Ordering::Relaxed) >= until || self.clients.iter().any(JoinHandle::is_finished)
        })
        .await;
    }

    async fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.await.expect("every answer of this client was right");
        }
    }
}

async fn address(running: &Running) -> SocketAddr {
    running.status().await["listeners"][0]["addresses"][0].as_str().unwrap().parse().unwrap()
}

async fn websocket(address: SocketAddr) -> WebSocketStream<TcpStream> {
    let stream = TcpStream::connect(address).await.unwrap();
    let handshake = tokio_tungstenite::client_async("ws://shop.example/ws", stream);
    within("a handshake", handshake).await.expect("a WebSocket").0
}

async fn say(socket: &mut WebSocketStream<TcpStream>, text: &str) -> String {
    socket.send(text.into()).await.unwrap();
    within("an echo", socket.next()).await.expect("a message").unwrap().to_text().unwrap().to_owned()
}

async fn hang_up(mut socket: WebSocketStream<TcpStream>) {
    socket.close(None).await.unwrap();
    while let Some(Ok(_)) = within("an end", socket.next()).await {}
}

async fn predecessors(running: &Running, count: usize) {
    eventually(&format!("{count} predecessors"), async || {
        running.status().await["predecessors"].as_array().map(Vec::len) == Some(count)
    })
    .await;
}

const HALF: usize = 200_000;

/// Text, WebSockets, and downloads that wait in the middle.
fn serves_all(backend: &Backend) {
    let name = backend.name.clone();
    backend.answer(move |request| match request.target.as_str() {
        "/ws" => Reply::websocket(),
        "/slow" => {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 2 * HALF);
            Reply::raw([head.into_bytes(), vec![b'1'; HALF]].concat())
                .then_park()
                .then(Reply::raw(vec![b'2'; HALF]))
        }
        _ => Reply::text(name.clone()),
    });
}

#[tokio::test]
async fn three_upgrades_in_a_row_lose_nobody() {
    let [a, b] = Backend::fleet(["a", "b"]).await;
    [&a, &b].into_iter().for_each(serves_all);
    let mut running = Running::over(&[&a, &b], "policy = \"sticky_cookie\"").await;
    let address = address(&running).await;

    let mut traffic = Traffic::new();
    for reconnects in [false, true, false, true] {
        traffic.add(Client::new(address), reconnects, |_| true);
        // The key of its cookie is in no file.
        let mut sticky = Client::new(address);
        let home = sticky.get("/").await.text();
        traffic.add(sticky, reconnects, move |answer| answer.text() == home);
    }
    let (mut downloads, mut sockets) = (Vec::new(), Vec::new());
    for round in 1..=3 {
        let mut download = Wire::open(address).await;
        download.send("GET /slow HTTP/1.1\r\nHost: shop.example\r\n\r\n").await;
        assert_eq!(download.response_head().await.expect("a head").status, 200);
        downloads.push(download);
        let mut socket = websocket(address).await;
        say(&mut socket, "before").await;
        sockets.push(socket);
        running.upgrade().await;
        assert_eq!(running.status().await["predecessors"].as_array().map(Vec::len), Some(round));
        traffic.goes_on(50).await;
    }
    traffic.end().await;

    for mut socket in sockets {
        let echo = say(&mut socket, "after").await;
        assert!(echo.ends_with(": after"), "{echo}");
        hang_up(socket).await;
    }
    // Each was begun in another process.
    for backend in [&a, &b] {
        backend.release();
    }
    for download in &mut downloads {
        let body = download.bytes(2 * HALF).await;
        assert!(
            body[..HALF].iter().all(|byte| *byte == b'1') && body[HALF..].iter().all(|byte| *byte == b'2')
        );
        assert_eq!(body.len(), 2 * HALF);
    }
    drop(downloads);
    assert_eq!(running.ends().await.code(), Some(0));
    predecessors(&running, 0).await;
    for part in ["0 requests and 0 tunnels cut", "upgraded to 0.1.0"] {
        assert_eq!(running.told().matches(part).count(), 3, "{part} in {}", running.told());
    }
}

#[tokio::test]
async fn whom_an_operator_took_out_stays_out_and_drains_keep_their_numbers() {
    let [a, b, c] = Backend::fleet(["a", "b", "c"]).await;
    let running = Running::over(&[&a, &b, &c], "").await;
    let drained = running.command(&["drain", "app/a", "--reason", "deploy 42", "--wait", "--json"]).await;
    let id = drained.json()["id"].as_u64().unwrap();
    assert_eq!(running.command(&["stop", "app/b"]).await.exit, Some(0));
    running.upgrade().await;
    let status = running.status().await;
    let backends = status["pools"][0]["backends"].as_array().unwrap();
    let state = |index: usize| {
        let backend = &backends[index];
        (backend["state"].as_str().unwrap(), backend["state_source"].as_str().unwrap())
    };
    assert_eq!([state(0), state(1)], [("drained", "operator"), ("stopped", "operator")], "{status}");
    assert_eq!((state(2), backends[0]["reason"].as_str()), (("active", "file"), Some("deploy 42")));
    assert!(get(&running.admin, &format!("/v1/drains/{id}")).await.contains("\"drained\""));
    let mut client = running.client().await;
    for _ in 0..6 {
        assert_eq!(client.get("/").await.text(), "c");
    }
    // And their words can still be taken back.
    assert_eq!(running.command(&["ready", "app/a"]).await.exit, Some(0));
    running.upgrade().await;
    let mut client = running.client().await;
    let answers = [client.get("/").await.text(), client.get("/").await.text()];
    assert!(answers.contains(&"a".to_owned()), "{answers:?}");
}

#[tokio::test]
async fn the_health_of_backends_is_known_from_the_first_request_on() {
    let (a, b) = (Backend::start("a").await, Backend::refusing("b"));
    let health =
        "hold = { max = 0 }\n[pool.app.health]\npath = \"/healthz\"\ninterval = \"60s\"\ntimeout = \"9s\"";
    let running = Running::over(&[&a, &b], health).await;
    let down = async || running.status().await["pools"][0]["backends"][1]["health"]["status"] == "down";
    eventually("b is down", down).await;
    // No probe of the new process comes to an end.
    a.answer(|request| if request.target == "/healthz" { Reply::stall() } else { Reply::text("a") });
    running.upgrade().await;
    let mut client = running.client().await;
    for _ in 0..4 {
        let answer = client.get("/").await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "a"));
    }
    let backends = running.status().await["pools"][0]["backends"].clone();
    assert_eq!(backends[0]["health"]["status"], "up");
    assert_eq!(backends[1]["health"]["status"], "down");
    assert!(get(&running.admin, "/readyz").await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_drain_is_not_over_before_an_earlier_process_has_finished_there() {
    let [a, b] = Backend::fleet(["a", "b"]).await;
    [&a, &b].into_iter().for_each(serves_all);
    let running = Running::over(&[&a, &b], "").await;
    let mut socket = websocket(address(&running).await).await;
    let home = say(&mut socket, "").await.replace(": ", "");
    running.upgrade().await;
    let name = format!("app/{home}");
    assert_eq!(running.command(&["drain", &name]).await.exit, Some(0));
    // The new process has nothing there, and would otherwise be done after two looks.
    running.tells(&format!("{name} draining")).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let state = async || {
        let status = running.status().await;
        let backends = status["pools"][0]["backends"].as_array().unwrap().clone();
        backends.into_iter().find(|backend| backend["name"] == home.as_str()).unwrap()["state"].clone()
    };
    assert_eq!(state().await, "draining");
    hang_up(socket).await;
    eventually("it is drained", async || state().await == "drained").await;
}

#[tokio::test]
async fn what_does_not_come_to_serve_changes_nothing() {
    let a = Backend::start("a").await;
    let running = Running::over(&[&a], "").await;
    let (pid, good) = (running.pid().await, running.folder.read("pintle.toml"));
    let mut client = running.client().await;
    // The words are `serve -c pintle.toml`: a shell takes the first for the name of a script.
    let script = |text: &str| drop(running.folder.write("serve", text));
    let shell = &["upgrade", "--binary", "/bin/sh", "--timeout", "500ms"];

    script("echo some >&2; echo luck is out >&2; exit 7");
    let failed = running.command(shell).await;
    assert_eq!(failed.exit, Some(1), "{failed:?}");
    for part in ["not upgraded, this process goes on", "exit status: 7", "luck is out"] {
        assert!(failed.stderr.contains(part), "{part} in {}", failed.stderr);
    }
    script("exec sleep 600");
    let failed = running.command(shell).await;
    assert_eq!(failed.exit, Some(1), "{failed:?}");
    assert!(failed.stderr.contains("was not ready within 500ms"), "{}", failed.stderr);
    let failed = running.command(&["upgrade", "--binary", "/nowhere/pintle"]).await;
    assert!(failed.exit == Some(1) && failed.stderr.contains("cannot start `/nowhere/pintle`"), "{failed:?}");

    running.folder.write("pintle.toml", &good.replace("[pool.app]", "[pool.app]\npolcy = 1"));
    let failed = running.command(&["upgrade"]).await;
    assert_eq!(failed.exit, Some(1), "{failed:?}");
    for part in ["refused: ", "pintle.toml:", "policy"] {
        assert!(failed.stderr.contains(part), "{part} in {}", failed.stderr);
    }
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let busy = format!("bind = [\"127.0.0.1:0\", \"{}\"]", taken.local_addr().unwrap());
    running.folder.write("pintle.toml", &good.replace("bind = \"127.0.0.1:0\"", &busy));
    let failed = running.command(&["upgrade"]).await;
    assert!(failed.exit == Some(1) && failed.stderr.contains("cannot listen on"), "{failed:?}");

    assert_eq!((running.pid().await, client.get("/").await.status), (pid, 200));
    assert_eq!(running.client().await.get("/").await.status, 200);
    assert!(running.folder.path("admin.sock").exists());
    running.folder.write("pintle.toml", &good);
    assert_eq!(running.command(&["reload"]).await.exit, Some(0), "it takes orders again");
    running.upgrade().await;
    assert_eq!(running.client().await.get("/").await.status, 200);
}

#[tokio::test]
async fn only_one_at_a_time_and_meanwhile_nothing_can_be_changed() {
    let [a, b] = Backend::fleet(["a", "b"]).await;
    let running = Running::over(&[&a, &b], "").await;
    running.folder.write("serve", "exec sleep 600");
    let slow = ["upgrade", "--binary", "/bin/sh", "--timeout", "4s"];
    let orders = async {
        running.tells("upgrade begun").await;
        running.edit(&pool(&[&a, &b], "policy = \"ip_hash\""));
        let second = running.command(&["upgrade"]).await;
        assert!(second.exit == Some(1) && second.stderr.contains("an upgrade is under way"), "{second:?}");
        for order in [&["drain", "app/a"][..], &["reload"]] {
            let refused = running.command(order).await;
            assert_eq!(refused.exit, Some(1), "{refused:?}");
            assert!(refused.stderr.contains("nothing can be changed"), "{}", refused.stderr);
        }
        assert_eq!(running.client().await.get("/").await.status, 200);
    };
    let (first, ()) = tokio::join!(running.command(&slow), orders);
    assert_eq!(first.exit, Some(1));
    // The file has changed meanwhile, and that is not forgotten.
    eventually("it follows the file", async || running.generation().await == 2).await;
    assert_eq!(running.command(&["drain", "app/a"]).await.exit, Some(0));
}

#[tokio::test]
async fn tls_sessions_are_resumed_in_the_new_process() {
    let (a, keys) = (Backend::start("a").await, Keys::for_names(&["shop.example"]));
    let folder = Folder::new();
    let text = folder.config(&pool(&[&a], ""));
    let listener = format!("[listener.web]\n{}", keys.tls(&["site"]));
    folder.write("pintle.toml", &text.replace("[listener.web]\n", &listener));
    let socket = folder.path("admin.sock").display().to_string();
    let running = Running::start(folder, &["serve", "-c", "pintle.toml"], &socket).await;
    let client = TlsClient::new(address(&running).await);
    for resumed in [false, true, true] {
        let mut wire = client.open("shop.example").await;
        assert_eq!(wire.is_resumed(), resumed);
        wire.send("GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n").await;
        assert_eq!(wire.response("GET").await.expect("an answer").text(), "a");
        drop(wire);
        running.upgrade().await;
    }
}

#[tokio::test]
async fn a_sigusr2_does_the_same() {
    let a = Backend::start("a").await;
    let mut running = Running::over(&[&a], "").await;
    let (pid, address) = (running.pid().await, address(&running).await);
    running.signal(Signal::USR2);
    assert_eq!(running.ends().await.code(), Some(0));
    assert_ne!(running.pid().await, pid);
    assert_eq!(Client::new(address).get("/").await.status, 200);
}

#[tokio::test]
async fn who_stops_every_process_of_a_service_does_not_cut_what_the_old_one_finishes() {
    let a = Backend::start("a").await;
    let mut running = Running::over(&[&a], "").await;
    let (mut first, mut second) = (running.client().await, running.client().await);
    a.hold();
    for client in [&mut first, &mut second] {
        client.send(&Ask::get("/")).await;
    }
    a.parked(2).await;
    running.upgrade().await;
    running.signal(Signal::TERM);
    running.tells("asked to end, which it is about to do").await;
    a.release_one();
    a.parked(1).await;
    // Whichever it was, it was answered and the other was not cut.
    let answer = tokio::select! {
        answer = first.read("GET") => answer,
        answer = second.read("GET") => answer,
    };
    let answer = answer.expect("an answer");
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    running.signal(Signal::TERM);
    assert_eq!(running.ends().await.code(), Some(0));
    running
        .tells("ended: 1 request finished, 0 WebSockets closed with 1012, 1 request and 0 tunnels cut")
        .await;
}

#[tokio::test]
async fn the_admin_socket_and_port_go_over_too() {
    let a = Backend::start("a").await;
    let (folder, tcp) = (Folder::new(), free().to_string());
    let text = folder.config(&pool(&[&a], "")).replace("\"off\"", &format!("{tcp:?}"));
    folder.write("pintle.toml", &text);
    let socket = folder.path("admin.sock").display().to_string();
    let mut running = Running::start(folder, &["serve", "-c", "pintle.toml"], &socket).await;
    let upgraded = running.command(&["upgrade", "--json"]).await.json();
    assert!(running.ends().await.success());
    assert_eq!(running.pid().await, upgraded["pid"].as_u64().unwrap());
    let by_tcp = running.folder.run(&["--admin", &tcp, "status", "--json"]).await.json();
    assert_eq!(by_tcp["pid"], upgraded["pid"]);
    let mode = std::fs::metadata(&socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // From afar nobody starts a program.
    let refused = running.folder.run(&["--admin", &tcp, "upgrade"]).await;
    assert!(refused.exit == Some(1) && refused.stderr.contains("unix socket only"), "{refused:?}");
    assert_eq!(running.command(&["shutdown"]).await.exit, Some(0));
    eventually("the file is tidied away", async || !running.folder.path("admin.sock").exists()).await;
}

#[tokio::test]
async fn every_socket_has_somebody_who_accepts_however_many_workers_there_are() {
    let a = Backend::start("a").await;
    let folder = Folder::new();
    let file = |folder: &Folder, workers: usize| {
        let text = folder.config(&format!("{BY_HAND}{}", pool(&[&a], "")));
        folder.write("pintle.toml", &text.replace("workers = 2", &format!("workers = {workers}")));
    };
    file(&folder, 4);
    let socket = folder.path("admin.sock").display().to_string();
    let running = Running::start(folder, &["serve", "-c", "pintle.toml"], &socket).await;
    let address = address(&running).await;
    for workers in [1, 3, 6, 2] {
        file(&running.folder, workers);
        running.upgrade().await;
        predecessors(&running, 0).await;
        // The kernel deals by hash: every socket of four gets some of them.
        let mut clients: Vec<_> = (0..60).map(|_| Client::new(address)).collect();
        for client in &mut clients {
            assert_eq!(client.get("/").await.status, 200, "{workers} workers");
        }
    }
}

#[tokio::test]
async fn addresses_come_and_go_with_the_new_file() {
    let a = Backend::start("a").await;
    let (kept, gone, new) = (free(), free(), free());
    let folder = Folder::new();
    let file = |folder: &Folder, name: &str, binds: [SocketAddr; 2]| {
        let text = folder.config(&format!("{BY_HAND}{}", pool(&[&a], "")));
        let binds = format!("bind = [\"{}\", \"{}\"]", binds[0], binds[1]);
        let text = text.replace("bind = \"127.0.0.1:0\"", &binds).replace("listener.web", name);
        folder.write("pintle.toml", &text);
    };
    file(&folder, "listener.web", [kept, gone]);
    let socket = folder.path("admin.sock").display().to_string();
    let mut running = Running::start(folder, &["serve", "-c", "pintle.toml"], &socket).await;
    file(&running.folder, "listener.shop", [new, kept]);
    running.upgrade().await;
    assert!(running.ends().await.success());
    for address in [kept, new] {
        assert_eq!(Client::new(address).get("/").await.status, 200);
    }
    assert!(TcpStream::connect(gone).await.is_err());
}

#[tokio::test]
async fn the_one_that_was_replaced_writes_nothing_down_any_more() {
    let [a, b] = Backend::fleet(["a", "b"]).await;
    let lines = "policy = \"sticky_cookie\"";
    let running = Running::file(&format!("{BY_HAND}state_dir = \"state\"\n{}", pool(&[&a, &b], lines))).await;
    [&a, &b].into_iter().for_each(serves_all);
    // It keeps the old process there.
    let _socket = websocket(address(&running).await).await;
    running.command(&["drain", "app/a"]).await;
    running.upgrade().await;
    assert_eq!(running.command(&["ready", "app/a"]).await.exit, Some(0));
    assert_eq!(running.folder.read("state/overrides.json").trim(), "[]");
    // A reload writes them down again; the old one knew others.
    let edited = running.folder.read("pintle.toml").replace("sticky_cookie", "ip_hash");
    running.folder.write("pintle.toml", &edited);
    assert_eq!(running.command(&["reload"]).await.exit, Some(0));
    // The signal goes to the old one.
    running.signal(Signal::HUP);
    running.tells("another process has taken over from this one").await;
    assert_eq!(running.told().matches("reloaded pintle.toml").count(), 1, "{}", running.told());
    assert_eq!(running.folder.read("state/overrides.json").trim(), "[]");
}
