//! Pools whose backends speak TLS: whom they believe, what is spoken, and what happens where a
//! handshake fails.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use rcgen::{Issuer, KeyPair};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use crate::support::{Ask, Backend, Config, H2Backend, Keys, Proxy, Reply, TlsFront, eventually, within};

const NAME: &str = "app.internal";
/// A certificate of these years is good.
const GOOD: (i32, i32) = (2020, 4000);

/// An authority in `ca.pem`, and a pair called `site` that it has signed for [`NAME`].
fn keys() -> (Keys, Issuer<'static, KeyPair>) {
    let keys = Keys::new();
    let authority = keys.authority("ca.pem");
    keys.signed("site", &[NAME], &authority, GOOD);
    (keys, authority)
}

/// Lines of a pool that believes `ca.pem` and asks for [`NAME`].
fn verified(keys: &Keys, lines: &str) -> String {
    format!("{lines}\ntls.ca = {:?}\ntls.sni = {NAME:?}\n", keys.path("ca.pem"))
}

fn config(fronts: &[(&str, &TlsFront)], lines: &str) -> Config {
    let backends: Vec<_> = fronts.iter().map(|(name, front)| front.toml(name)).collect();
    Config::default().pool_of("app", &backends, lines).server("workers = 1")
}

async fn over(front: &TlsFront, lines: &str) -> Proxy {
    Proxy::start(config(&[("a", front)], lines)).await
}

#[tokio::test]
async fn a_request_goes_over_tls_under_the_name_that_the_file_gives_and_connections_are_kept() {
    let ((keys, _), a) = (keys(), Backend::start("a").await);
    let front = TlsFront::start(&keys, "site", &[("", a.address)]).await;
    a.answer(|request| Reply::text(request.body.clone()));
    let proxy = over(&front, &verified(&keys, "")).await;
    let mut client = proxy.client();
    let body: Vec<u8> = (0..3_000_000_u32).map(|n| n as u8).collect();
    for body in [b"short".to_vec(), body, Vec::new()] {
        let answer = client.post("/", body.clone()).await;
        assert_eq!((answer.status, answer.whole, answer.body == body), (200, true, true));
    }
    assert_eq!(front.shaken(1).await.sni.as_deref(), Some(NAME));
    assert_eq!((front.accepted(), a.accepted()), (1, 1), "one connection for all");
    assert_eq!(a.requests()[0].header("host"), Some("shop.example"));
    let lines = proxy.logged(3).await;
    assert_eq!((&lines[0]["reused"], &lines[2]["reused"]), (&false.into(), &true.into()));
}

#[tokio::test]
async fn without_a_name_in_the_file_the_address_says_what_the_certificate_must_be_for() {
    let (keys, a) = (Keys::new(), Backend::start("a").await);
    let authority = keys.authority("ca.pem");
    keys.signed("site", &["127.0.0.1", "localhost"], &authority, GOOD);
    let front = TlsFront::start(&keys, "site", &[("http/1.1", a.address)]).await;
    let ca = format!("tls.ca = {:?}", keys.path("ca.pem"));
    assert_eq!(over(&front, &ca).await.client().get("/").await.text(), "a");
    assert_eq!(front.shaken(1).await.sni, None, "an address is not asked for");
    let named = format!("\"localhost:{}\"", front.address.port());
    let proxy = Proxy::start(Config::default().pool_of("app", &[named], &ca)).await;
    assert_eq!(proxy.client().get("/").await.text(), "a");
    let shaken = front.shaken(2).await;
    assert_eq!((shaken.sni.as_deref(), shaken.protocol.as_deref()), (Some("localhost"), Some("http/1.1")));
}

#[tokio::test]
async fn a_certificate_that_does_not_fit_is_a_tls_error_that_says_in_which_way() {
    let ((keys, authority), a) = (keys(), Backend::start("a").await);
    let other = keys.authority("other.pem");
    keys.signed("misnamed", &["other.internal"], &authority, GOOD);
    keys.signed("untrusted", &[NAME], &other, GOOD);
    keys.signed("expired", &[NAME], &authority, (2000, 2001));
    keys.signed("early", &[NAME], &authority, (3999, 4000));
    let front = TlsFront::start(&keys, "site", &[("", a.address)]).await;
    let proxy = over(&front, &verified(&keys, "")).await;
    let mut count = 0;
    for (pair, sentence) in [
        ("misnamed", "shows a certificate for another name"),
        ("untrusted", "shows a certificate that no known authority has signed"),
        ("expired", "shows a certificate that has expired"),
        ("early", "shows a certificate that is not valid yet"),
    ] {
        front.turn(&keys, pair, &[("", a.address)]);
        for ask in [Ask::get("/"), Ask::post("/", "x")] {
            let answer = proxy.client().ask(ask).await;
            assert_eq!(answer.status, 502, "{pair}");
            let expected = format!("502 tls_error: a backend of pool app {sentence}. request ");
            assert!(answer.text().starts_with(&expected), "{}", answer.text());
            count += 1;
            let line = proxy.logged(count).await.remove(count - 1);
            assert_eq!((&line["end"], &line["attempts"]), (&"tls_error".into(), &0.into()));
        }
    }
    assert_eq!(a.count(), 0);
    let failed = "pintle_backend_connects_total{pool=\"app\",backend=\"a\",result=\"tls_error\"}";
    assert_eq!(proxy.metric(failed).await, 8.0);
    let stands = proxy.backend("app/a").await;
    assert_ne!(stands.health.status, "down", "a failed handshake shuts it for nobody else");

    front.turn(&keys, "site", &[("", a.address)]);
    assert_eq!(proxy.client().get("/").await.text(), "a");
}

#[tokio::test]
async fn with_verify_off_every_certificate_will_do() {
    let ((keys, _), a) = (keys(), Backend::start("a").await);
    keys.make("own", &["whatever.example"]);
    let front = TlsFront::start(&keys, "own", &[("", a.address)]).await;
    let proxy = over(&front, "tls.verify = false").await;
    assert_eq!(proxy.client().get("/").await.text(), "a");
}

#[tokio::test]
async fn a_backend_that_demands_a_certificate_gets_ours() {
    let ((keys, authority), a) = (keys(), Backend::start("a").await);
    let ours = keys.authority("clients.pem");
    keys.signed("pintle", &["pintle.internal"], &ours, GOOD);
    keys.signed("stranger", &["pintle.internal"], &authority, GOOD);
    let front = TlsFront::asking(&keys, "site", &[("", a.address)], Some("clients.pem")).await;
    let with = |pair: &str| {
        let shown = format!(
            "tls.cert = {:?}\ntls.key = {:?}",
            keys.path(&format!("{pair}.crt")),
            keys.path(&format!("{pair}.key"))
        );
        config(&[("a", &front)], &verified(&keys, &shown))
    };
    let proxy = Proxy::start(with("pintle")).await;
    assert_eq!(proxy.client().get("/").await.text(), "a");
    assert!(front.shaken(1).await.has_certificate);
    for wrong in [with("stranger"), config(&[("a", &front)], &verified(&keys, ""))] {
        proxy.reload(wrong).await.unwrap();
        for ask in [Ask::get("/"), Ask::post("/", "x")] {
            let answer = proxy.client().ask(ask).await;
            assert!(answer.text().contains("tls_error: a backend of pool app refused"), "{}", answer.text());
        }
    }
    assert_eq!((a.count(), front.handshakes().len()), (1, 1));
}

#[tokio::test]
async fn a_renewed_authority_is_picked_up_and_connections_of_the_old_one_are_not_used_again() {
    let ((keys, _), a) = (keys(), Backend::start("a").await);
    let next = keys.authority("next.pem");
    keys.signed("next", &[NAME], &next, GOOD);
    let front = TlsFront::start(&keys, "site", &[("", a.address)]).await;
    let proxy = over(&front, &verified(&keys, "connections.idle = \"1h\"")).await;
    assert_eq!(proxy.client().get("/").await.text(), "a");
    front.turn(&keys, "next", &[("", a.address)]);
    std::fs::rename(keys.path("next.pem"), keys.path("ca.pem")).unwrap();
    eventually("the file is read again", async || proxy.status().await.generation == 2).await;
    eventually("the old connection is closed", async || a.open() == 0).await;
    assert_eq!(proxy.client().get("/").await.text(), "a");
    assert_eq!(front.handshakes().len(), 2);
    let told = proxy.status().await.last_reload.unwrap();
    assert!(told.ok);
}

#[tokio::test]
async fn a_pool_turns_to_tls_and_back_and_its_connections_start_anew() {
    let ((keys, _), a) = (keys(), Backend::start("a").await);
    let front = TlsFront::start(&keys, "site", &[("", a.address)]).await;
    let backend = |address: SocketAddr| vec![format!("{{ name = \"a\", address = \"{address}\" }}")];
    let clear = || Config::default().pool_of("app", &backend(a.address), "connections.idle = \"1h\"");
    let secure = || {
        let lines = verified(&keys, "connections.idle = \"1h\"");
        Config::default().pool_of("app", &backend(front.address), &lines)
    };
    let proxy = Proxy::start(clear()).await;
    assert_eq!(proxy.client().get("/").await.text(), "a");
    for (turn, shaken) in [(secure(), 1), (clear(), 1), (secure(), 2)] {
        let report = proxy.reload(turn).await.unwrap();
        assert!(report.changed.iter().any(|line| line.contains("TLS to its backends")), "{report:?}");
        assert_eq!(proxy.client().get("/").await.text(), "a");
        assert_eq!(front.handshakes().len(), shaken);
    }
    // The same text again changes nothing.
    assert!(proxy.reload(secure()).await.unwrap().changed.is_empty());
    eventually("the others are closed", async || a.open() <= 1).await;
    assert_eq!(proxy.client().get("/").await.text(), "a");
    assert!(front.handshakes().len() <= 3, "one for each data thread at most");
}

#[tokio::test]
async fn a_session_is_resumed() {
    let ((keys, _), a) = (keys(), Backend::start("a").await);
    let front = TlsFront::start(&keys, "site", &[("", a.address)]).await;
    a.answer(|_| Reply::text("a").header("Connection", "close"));
    let proxy = over(&front, &verified(&keys, "")).await;
    for _ in 0..3 {
        assert_eq!(proxy.client().get("/").await.text(), "a");
    }
    let resumed: Vec<bool> = front.handshakes().iter().map(|shaken| shaken.resumed).collect();
    assert_eq!(resumed, [false, true, true]);
}

#[tokio::test]
async fn a_websocket_runs_over_tls_and_an_answer_cut_short_is_seen_to_be() {
    let ((keys, _), a) = (keys(), Backend::start("a").await);
    let front = TlsFront::start(&keys, "site", &[("", a.address)]).await;
    a.reply(Reply::websocket());
    let proxy = over(&front, &verified(&keys, "")).await;
    let request = "ws://shop.example/chat".into_client_request().unwrap();
    let wire = proxy.wire().await;
    let (mut socket, _) =
        within("a handshake", tokio_tungstenite::client_async(request, wire.stream)).await.unwrap();
    for size in [1, 125, 65_536, 2_000_000] {
        socket.send("x".repeat(size).into()).await.unwrap();
        let echo = within("an echo", socket.next()).await.unwrap().unwrap();
        assert_eq!(echo.len(), size + 3);
    }
    socket.close(None).await.unwrap();

    a.reply(Reply::raw("HTTP/1.1 200 OK\r\n\r\nhalf").then_stall());
    let mut wire = proxy.wire().await;
    wire.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let head = wire.response_head().await.unwrap();
    assert_eq!(head.header("transfer-encoding"), Some("chunked"));
    wire.bytes(9).await;
    front.cut();
    assert_eq!(wire.rest().await, b"", "no last chunk");
    proxy.ended("reset_during_response").await;
}

#[tokio::test]
async fn a_backend_with_a_bad_certificate_is_left_for_a_good_one() {
    let ((keys, authority), a, b) = (keys(), Backend::start("a").await, Backend::start("b").await);
    keys.signed("expired", &[NAME], &authority, (2000, 2001));
    let bad = TlsFront::start(&keys, "expired", &[("", a.address)]).await;
    let good = TlsFront::start(&keys, "site", &[("", b.address)]).await;
    let proxy = Proxy::start(config(&[("a", &bad), ("b", &good)], &verified(&keys, ""))).await;
    for ask in [Ask::get("/"), Ask::post("/", "x")].iter().cycle().take(8) {
        let answer = proxy.client().ask(ask.clone()).await;
        assert_eq!((answer.status, answer.served_by()), (200, "b"), "{}", answer.text());
    }
    assert!(bad.accepted() > 0 && a.count() == 0);
}

#[tokio::test]
async fn probes_go_over_the_same_tls() {
    let ((keys, authority), a, b) = (keys(), Backend::start("a").await, Backend::start("b").await);
    keys.signed("expired", &[NAME], &authority, (2000, 2001));
    let good = TlsFront::start(&keys, "site", &[("", a.address)]).await;
    let bad = TlsFront::start(&keys, "expired", &[("", b.address)]).await;
    for probe in ["path = \"/healthz\"", "tcp = true"] {
        let health = format!("health = {{ {probe}, interval = \"100ms\", fall = 1 }}");
        let lines = verified(&keys, &health);
        let proxy = Proxy::start(config(&[("a", &good), ("b", &bad)], &lines)).await;
        eventually("a is up", async || proxy.backend("app/a").await.health.status == "up").await;
        eventually("b is down", async || proxy.backend("app/b").await.health.status == "down").await;
        let why = proxy.backend("app/b").await.health.detail;
        assert!(why.contains("has expired"), "{why}");
        assert_eq!(proxy.client().get("/").await.served_by(), "a");
        bad.turn(&keys, "site", &[("", b.address)]);
        eventually("b is back", async || proxy.backend("app/b").await.health.status == "up").await;
        bad.turn(&keys, "expired", &[("", b.address)]);
    }
    assert_eq!(a.requests()[0].target, "/healthz");
    assert!(good.handshakes().iter().all(|shaken| shaken.sni.as_deref() == Some(NAME)));
}

/// A server that does this with every connection.
async fn server<F>(act: impl Fn(tokio::net::TcpStream) -> F + Send + 'static) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(act(socket));
        }
    });
    address
}

#[tokio::test]
async fn what_a_backend_says_in_the_clear_goes_to_nobody() {
    let (keys, _) = keys();
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged";
    let plain = server(move |mut socket| async move {
        let _ = socket.write_all(answer.as_bytes()).await;
        let mut bytes = Vec::new();
        let _ = tokio::io::AsyncReadExt::read_to_end(&mut socket, &mut bytes).await;
    })
    .await;
    let backend = format!("\"{plain}\"");
    let proxy = Proxy::start(Config::default().pool_of("app", &[backend], &verified(&keys, ""))).await;
    let answer = proxy.client().get("/").await;
    assert_eq!(answer.status, 502);
    assert!(
        answer.text().contains("tls_error: a backend of pool app does not speak TLS"),
        "{}",
        answer.text()
    );
}

#[tokio::test]
async fn a_handshake_that_stalls_is_a_connect_timeout_and_one_that_is_cut_a_tls_error() {
    let (keys, _) = keys();
    let stalls = server(|socket| async move {
        let _open = socket;
        std::future::pending::<()>().await;
    })
    .await;
    let closes = server(|mut socket| async move {
        let _ = tokio::io::AsyncReadExt::read(&mut socket, &mut [0; 4096]).await;
    })
    .await;
    let lines = verified(&keys, "timeouts.connect = \"300ms\"");
    let of = |address: SocketAddr| Config::default().pool_of("app", &[format!("\"{address}\"")], &lines);
    let (proxy, begun) = (Proxy::start(of(stalls)).await, Instant::now());
    let answer = proxy.client().get("/").await;
    assert_eq!(answer.status, 504, "{}", answer.text());
    assert!(answer.text().contains("connect_timeout"), "{}", answer.text());
    assert!(begun.elapsed() >= Duration::from_millis(300) && begun.elapsed() < Duration::from_secs(3));
    proxy.reload(of(closes)).await.unwrap();
    let answer = proxy.client().get("/").await;
    assert_eq!(answer.status, 502, "{}", answer.text());
    assert!(answer.text().contains("closed in the middle of the TLS handshake"), "{}", answer.text());
}

/// Asks `count` times at once; everybody must be served.
async fn crowd(proxy: &Proxy, count: usize, ask: &Ask) {
    let mut crowd = JoinSet::new();
    for _ in 0..count {
        let (mut client, ask) = (proxy.client(), ask.clone());
        crowd.spawn(async move { client.ask(ask).await });
    }
    while let Some(answer) = within("an answer", crowd.join_next()).await {
        let answer = answer.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
}

#[tokio::test]
async fn http_2_is_spoken_over_tls_on_few_connections() {
    let ((keys, _), a) = (keys(), H2Backend::start("a").await);
    let front = TlsFront::start(&keys, "site", &[("h2", a.address)]).await;
    let proxy = over(&front, &verified(&keys, "protocol = \"h2\"")).await;
    crowd(&proxy, 100, &Ask::post("/x", "hello")).await;
    assert!(front.accepted() <= 4, "{}", front.accepted());
    let seen = a.requests().remove(0);
    assert_eq!((seen.text().as_str(), seen.target.as_str()), ("hello", "/x"));
    assert_eq!((seen.header(":scheme"), seen.header(":authority")), (Some("https"), Some("shop.example")));
    let shaken = front.shaken(1).await;
    assert_eq!((shaken.protocol.as_deref(), shaken.sni.as_deref()), (Some("h2"), Some(NAME)));
    a.goodbye();
    crowd(&proxy, 20, &Ask::get("/")).await;
}

#[tokio::test]
async fn a_backend_that_does_not_choose_http_2_is_not_spoken_to_where_it_must() {
    let ((keys, _), a) = (keys(), Backend::start("a").await);
    let front = TlsFront::start(&keys, "site", &[("", a.address)]).await;
    let proxy = over(&front, &verified(&keys, "protocol = \"h2\"")).await;
    for protocols in [[("", a.address)], [("http/1.1", a.address)]] {
        front.turn(&keys, "site", &protocols);
        let answer = proxy.client().get("/").await;
        assert_eq!(answer.status, 502, "{}", answer.text());
        assert!(answer.text().contains("speaks no version of HTTP that it is offered"), "{}", answer.text());
    }
    assert_eq!(a.count(), 0);
}

#[tokio::test]
async fn a_probe_speaks_what_a_backend_chooses() {
    let ((keys, _), one, two) = (keys(), Backend::start("one").await, H2Backend::start("two").await);
    let first = TlsFront::start(&keys, "site", &[("http/1.1", one.address)]).await;
    let second = TlsFront::start(&keys, "site", &[("h2", two.address)]).await;
    let lines = "protocol = \"auto\"\nhealth = { path = \"/healthz\", interval = \"100ms\" }";
    let proxy = Proxy::start(config(&[("one", &first), ("two", &second)], &verified(&keys, lines))).await;
    for name in ["app/one", "app/two"] {
        eventually("it is up", async || proxy.backend(name).await.health.status == "up").await;
    }
    let mut served: Vec<String> = Vec::new();
    for _ in 0..2 {
        served.push(proxy.client().get("/").await.served_by().to_owned());
    }
    served.sort_unstable();
    assert_eq!(served, ["one", "two"]);
}

#[tokio::test]
async fn of_two_versions_each_backend_gets_the_one_that_it_chooses() {
    let ((keys, _), one, two) = (keys(), Backend::start("one").await, H2Backend::start("two").await);
    let both = [("h2", two.address), ("http/1.1", one.address)];
    let front = TlsFront::start(&keys, "site", &both).await;
    let proxy = over(&front, &verified(&keys, "protocol = \"auto\"")).await;
    crowd(&proxy, 60, &Ask::post("/", "x")).await;
    assert_eq!((one.count(), two.count()), (0, 60));
    assert!(front.accepted() <= 4, "a crowd waits for one connection: {}", front.accepted());

    // An upgrade exists in HTTP/1 alone, and there it is asked for.
    one.reply(Reply::websocket());
    let request = "ws://shop.example/chat".into_client_request().unwrap();
    let wire = proxy.wire().await;
    let (mut socket, _) =
        within("a handshake", tokio_tungstenite::client_async(request, wire.stream)).await.unwrap();
    socket.send("hello".into()).await.unwrap();
    assert_eq!(within("an echo", socket.next()).await.unwrap().unwrap().to_text().unwrap(), "one: hello");
    crowd(&proxy, 3, &Ask::get("/")).await;
    assert_eq!((one.count(), two.count()), (1, 63));
}

#[tokio::test]
async fn a_backend_of_http_1_alone_serves_a_crowd_as_well() {
    let ((keys, _), one) = (keys(), Backend::start("one").await);
    for protocol in ["http/1.1", ""] {
        let front = TlsFront::start(&keys, "site", &[(protocol, one.address)]).await;
        let proxy = over(&front, &verified(&keys, "protocol = \"auto\"")).await;
        crowd(&proxy, 60, &Ask::post("/", "x")).await;
        let before = front.accepted();
        proxy.client().get("/").await;
        assert_eq!(front.accepted(), before, "connections are kept");
    }
}

#[tokio::test]
async fn a_backend_that_changes_its_mind_under_load_fails_nobody() {
    let ((keys, _), one, two) = (keys(), Backend::start("one").await, H2Backend::start("two").await);
    let (old, new) = ([("http/1.1", one.address)], [("h2", two.address), ("http/1.1", one.address)]);
    let front = TlsFront::start(&keys, "site", &old).await;
    one.answer(|_| Reply::text("one").header("Connection", "close"));
    let lines = verified(&keys, "protocol = \"auto\"");
    let proxy = Proxy::start(config(&[("a", &front)], &lines)).await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut load = JoinSet::new();
    for number in 0..8 {
        let (mut client, stop) = (proxy.client(), stop.clone());
        load.spawn(async move {
            let mut served = 0;
            while !stop.load(Ordering::Relaxed) {
                let ask = if number % 2 == 0 { Ask::get("/") } else { Ask::post("/", "hello") };
                let answer = client.ask(ask).await;
                assert_eq!(answer.status, 200, "{}", answer.text());
                served += 1;
            }
            served
        });
    }
    for _ in 0..3 {
        let before = one.count();
        one.seen(before + 20).await;
        front.turn(&keys, "site", &new);
        let before = two.count();
        two.seen(before + 50).await;
        front.turn(&keys, "site", &old);
        two.goodbye();
    }
    stop.store(true, Ordering::Relaxed);
    let served: usize = load.join_all().await.into_iter().sum();
    assert_eq!(one.count() + two.count(), served, "nothing was served twice");
}
