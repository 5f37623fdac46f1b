//! A changed configuration: applied whole or not at all, and nobody is cut by it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::support::{Ask, Backend, Client, Config, Proxy, Reply, Wire, eventually};

/// Keep-alive clients at full speed until they are told to stop; gives what was answered, and
/// everything that failed.
struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<tokio::task::JoinHandle<(usize, Vec<String>)>>,
}

impl Load {
    fn on(proxy: &Proxy, clients: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let run = |number| {
            let (mut client, stop) = (proxy.client(), stop.clone());
            tokio::spawn(async move {
                let (mut served, mut failed) = (0, Vec::new());
                while !stop.load(Ordering::Relaxed) {
                    let ask = if number % 2 == 0 { Ask::get("/load") } else { Ask::post("/load", "body") };
                    match client.try_ask(&ask).await {
                        Some(answer) if answer.status == 200 && answer.whole => served += 1,
                        Some(answer) => failed.push(answer.text()),
                        None => failed.push("no answer".into()),
                    }
                }
                (served, failed)
            })
        };
        Self { clients: (0..clients).map(run).collect(), stop }
    }

    async fn end(self) -> (usize, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        let (mut served, mut failed) = (0, Vec::new());
        for client in self.clients {
            let (more, wrong) = client.await.unwrap();
            served += more;
            failed.extend(wrong);
        }
        (served, failed)
    }
}

async fn in_order(client: &mut Client, count: usize) -> String {
    let mut order = String::new();
    for _ in 0..count {
        order += client.get("/").await.served_by();
    }
    order
}

/// The addresses of a listener that is in the file.
async fn addresses(proxy: &Proxy, listener: &str) -> Vec<std::net::SocketAddr> {
    let listeners = proxy.status().await.listeners;
    let found = listeners.into_iter().find(|view| view.name == listener);
    let addresses = found.map(|view| view.addresses).unwrap_or_default();
    addresses.iter().map(|address| address.parse().unwrap()).collect()
}

#[tokio::test]
async fn the_policy_changes_under_load_and_nobody_notices() {
    let [a, b, c] = Backend::fleet(["a", "b", "c"]).await;
    for backend in [&a, &b, &c] {
        backend.answer(|request| match request.target.as_str() {
            "/tunnel" => Reply::upgrade("own/1", ""),
            _ => Reply::text("x"),
        });
    }
    let health = "[pool.app.health]\npath = \"/healthz\"\ninterval = \"1s\"";
    let pool = |policy: &str| Config::app(&[&a, &b, &c], &format!("policy = {policy:?}\n{health}"));
    let proxy = Proxy::start(pool("round_robin")).await;
    let all_up = async || {
        let status = proxy.status().await;
        status.pools[0].backends.iter().all(|backend| backend.health.status == "up")
    };
    eventually("all are up", all_up).await;
    let since = proxy.backend("app/a").await.health.since;
    let mut tunnel = proxy.wire().await;
    tunnel.send("GET /tunnel HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: own/1\r\n\r\n").await;
    assert_eq!(tunnel.response_head().await.expect("a head").status, 101);

    let load = Load::on(&proxy, 8);
    for (policy, moves) in [
        ("sticky_cookie", "nobody moves"),
        ("ip_hash", "every client moves whose address hashes elsewhere, about 2 of 3"),
        ("sticky_cookie", "clients without a cookie are placed"),
        ("round_robin", "every client moves with each request"),
    ] {
        let report = proxy.reload(pool(policy)).await.unwrap();
        assert!(report.changed[0].ends_with(&format!("→ {policy}")), "{:?}", report.changed);
        assert!(report.moves[0].contains(moves), "{:?}", report.moves);
        assert!(report.kept[0].contains("3 backends"), "{:?}", report.kept);
        assert_eq!(proxy.status().await.pools[0].policy, policy);
        tunnel.send(policy).await;
        assert_eq!(tunnel.bytes(policy.len()).await, policy.as_bytes());
        // Long enough that every policy serves.
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
    let (served, failed) = load.end().await;
    assert!(served > 100 && failed.is_empty(), "{served} served, {failed:?}");
    assert_eq!(proxy.backend("app/a").await.health.since, since, "health is kept");
}

#[tokio::test]
async fn the_place_in_the_rotation_is_kept() {
    let [a, b, c] = Backend::fleet(["a", "b", "c"]).await;
    let proxy = Proxy::over(&[&a, &b, &c]).await;
    let mut client = proxy.client();
    let mut order = in_order(&mut client, 4).await;
    for timeout in 1..=5 {
        let pool = format!("timeouts.idle = \"{timeout}0s\"");
        proxy.reload(Config::app(&[&a, &b, &c], &pool)).await.unwrap();
        order += &in_order(&mut client, 2).await;
    }
    let expected: String = order[..3].chars().cycle().take(14).collect();
    assert_eq!(order, expected);
}

#[tokio::test]
async fn a_text_with_problems_changes_nothing() {
    let a = Backend::start("a").await;
    let proxy = Proxy::over(&[&a]).await;
    let bad = Config::app(&[&a], "polcy = \"ip_hash\"\nslow_start = \"5\"").route("pool = \"ap\"");
    let fault = proxy.reload(bad).await.unwrap_err();
    assert_eq!(
        (fault.status, fault.code.as_str(), fault.errors.len()),
        (422, "config_invalid", 3),
        "{fault:?}"
    );
    assert!(fault.detail.contains("generation 1 stays"), "{}", fault.detail);
    let status = proxy.status().await;
    assert_eq!((status.generation, status.pools[0].policy.as_str()), (1, "round_robin"));
    assert!(!status.last_reload.expect("it was tried").ok);
    assert_eq!(proxy.client().get("/").await.status, 200);
}

#[tokio::test]
async fn an_address_that_cannot_be_had_changes_nothing() {
    let [a, b] = Backend::fleet(["a", "b"]).await;
    let proxy = Proxy::over(&[&a]).await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listener = format!("[listener.more]\nbind = \"{}\"", taken.local_addr().unwrap());
    let fault = proxy.reload(Config::app(&[&b], "").text(&listener)).await.unwrap_err();
    assert_eq!(fault.code, "cannot_bind", "{fault:?}");
    assert_eq!((proxy.status().await.generation, proxy.client().get("/").await.served_by()), (1, "a"));
}

#[tokio::test]
async fn listeners_come_go_and_stay() {
    let a = Backend::start("a").await;
    let with = |more: &str| Config::app(&[&a], "").text(more);
    let proxy = Proxy::start(with("")).await;
    let mut kept = proxy.client();
    kept.get("/").await;

    proxy.reload(with("[listener.more]\nbind = [\"127.0.0.1:0\", \"[::1]:0\"]")).await.unwrap();
    let more = addresses(&proxy, "more").await;
    assert_eq!(more.len(), 2);
    let mut guest = Client::new(more[0]);
    assert_eq!(guest.get("/").await.header("connection"), None);
    let [mut waiting, mut busy] = [Client::new(more[0]), Client::new(more[0])];
    waiting.get("/").await;
    a.hold();
    busy.send(&Ask::get("/")).await;
    a.parked(1).await;

    proxy.reload(with("")).await.unwrap();
    let gone = async || tokio::net::TcpStream::connect(more[0]).await.is_err();
    eventually("the address is closed", gone).await;
    a.release();
    let last = busy.read("GET").await.expect("what was asked is answered");
    assert_eq!((last.status, last.header("connection")), (200, Some("close")));
    assert!(waiting.wire().await.rest().await.is_empty(), "an idle one is closed");

    assert!(kept.wire.is_some());
    assert_eq!(kept.get("/").await.header("connection"), None, "the other listener's stay as they are");
    assert_eq!(addresses(&proxy, "web").await, [proxy.address]);
}

#[tokio::test]
async fn connections_that_were_handed_to_another_thread_leave_with_their_listener_too() {
    let a = Backend::start("a").await;
    let more =
        || Config::app(&[&a], "").text("[listener.more]\nbind = \"127.0.0.1:0\"").server("workers = 2");
    let proxy = Proxy::start(more()).await;
    let address = addresses(&proxy, "more").await[0];
    let mut clients = Vec::new();
    for _ in 0..60 {
        let mut client = Client::new(address);
        client.get("/").await;
        clients.push(client);
    }
    proxy.reload(Config::app(&[&a], "").server("workers = 2")).await.unwrap();
    for client in &mut clients {
        assert!(client.wire().await.rest().await.is_empty());
    }
}

#[tokio::test]
async fn fifty_reloads_under_load_fail_nobody() {
    let [a, b, c] = Backend::fleet(["a", "b", "c"]).await;
    let proxy = Proxy::over(&[&a, &b, &c]).await;
    let load = Load::on(&proxy, 8);
    for round in 0..50_u32 {
        let backends: &[&Backend] = match round % 3 {
            0 => &[&a, &b],
            1 => &[&b, &c],
            _ => &[&c, &a, &b],
        };
        let policy = ["round_robin", "sticky_cookie", "least_conn", "ip_hash"][round as usize % 4];
        let report = proxy.reload(Config::app(backends, &format!("policy = {policy:?}"))).await.unwrap();
        assert_eq!(report.generation, u64::from(round) + 2);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let (served, failed) = load.end().await;
    assert!(served > 100 && failed.is_empty(), "{served} served, {failed:?}");
}

#[tokio::test]
async fn what_waits_for_a_restart_is_named() {
    let a = Backend::start("a").await;
    let proxy = Proxy::over(&[&a]).await;
    let report =
        proxy.reload(Config::app(&[&a], "").server("workers = 3\nstate_dir = \"/tmp\"")).await.unwrap();
    assert_eq!(report.restart_only, ["server.state_dir", "server.workers"]);
}

#[tokio::test]
async fn a_request_in_flight_ends_as_it_began() {
    let [a, b] = Backend::fleet(["a", "b"]).await;
    let config = |backend: &Backend, tag: &str| {
        Config::app(&[backend], "")
            .route(&format!("pool = \"app\"\nresponse_headers.set = {{ x-tag = {tag:?} }}"))
    };
    let proxy = Proxy::start(config(&a, "old")).await;
    a.hold();
    let mut client = proxy.client();
    client.send(&Ask::get("/")).await;
    a.parked(1).await;
    proxy.reload(config(&b, "new")).await.unwrap();
    a.release();
    let answer = client.read("GET").await.expect("an answer");
    assert_eq!((answer.served_by(), answer.header("x-tag")), ("a", Some("old")));
    let answer = client.get("/").await;
    assert_eq!((answer.served_by(), answer.header("x-tag")), ("b", Some("new")));
}

#[tokio::test]
async fn a_backend_at_a_new_address_is_new_but_for_its_name() {
    let [a, elsewhere] = Backend::fleet(["a", "elsewhere"]).await;
    let proxy = Proxy::over(&[&a]).await;
    a.hold();
    let mut busy = proxy.client();
    busy.send(&Ask::get("/")).await;
    a.parked(1).await;
    let moved = format!("{{ name = \"a\", address = \"{}\" }}", elsewhere.address);
    let report = proxy.reload(Config::default().pool_of("app", &[moved], "")).await.unwrap();
    let expected = format!("address {} → {}", a.address, elsewhere.address);
    assert!(report.changed[0].contains(&expected), "{:?}", report.changed);
    assert_eq!(proxy.client().get("/").await.served_by(), "elsewhere");
    a.release();
    assert_eq!(busy.read("GET").await.expect("an answer").served_by(), "a");
    a.deserted().await;
}

#[tokio::test]
async fn a_body_on_its_way_survives_a_reload() {
    let a = Backend::start("a").await;
    a.answer(|request| Reply::text(request.body.clone()));
    let proxy = Proxy::over(&[&a]).await;
    let mut wire: Wire = proxy.wire().await;
    wire.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhello").await;
    a.seen(1).await;
    proxy.reload(Config::app(&[&a], "policy = \"ip_hash\"")).await.unwrap();
    wire.send("world").await;
    assert_eq!(wire.response("POST").await.expect("an answer").text(), "helloworld");
}
