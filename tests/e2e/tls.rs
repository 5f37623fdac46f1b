//! TLS from clients: the right certificate, within its limits, and everything above it as ever.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use rustls::ProtocolVersion;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use crate::support::{
    Ask, Backend, Config, Keys, Proxy, Reply, Response, TlsClient, TlsWire, eventually, within,
};

const SITE: &str = "shop.example";
const SHORT: &str = "first_byte_timeout = \"300ms\"\n";

/// One backend behind a listener that shows `site`, with further lines of the listener.
async fn behind_tls(backend: &Backend, keys: &Keys, lines: &str) -> Proxy {
    Proxy::start(Config::app(&[backend], "").listener(&keys.tls(&["site"])).listener(lines)).await
}

async fn ask(wire: &mut TlsWire, ask: &Ask) -> Response {
    wire.send(ask.bytes(&BTreeMap::new())).await;
    wire.response(ask.method()).await.expect("a response")
}

async fn get(wire: &mut TlsWire) -> Response {
    ask(wire, &Ask::get("/")).await
}

async fn rejected(proxy: &Proxy, reason: &str, count: f64) {
    let sample = format!("pintle_listener_rejected_total{{listener=\"web\",reason=\"{reason}\"}}");
    eventually(reason, async || proxy.metric(&sample).await == count).await;
}

#[tokio::test]
async fn the_certificate_is_chosen_by_the_name_that_is_asked_for() {
    let (keys, a) = (Keys::new(), Backend::start("a").await);
    let first = keys.make("first", &["first.example"]);
    let wild = keys.make("wild", &["*.shop.example"]);
    let exact = keys.make("exact", &["www.shop.example", "shop.example"]);
    let tls = keys.tls(&["first", "wild", "exact"]);
    let proxy = Proxy::start(Config::app(&[&a], "").listener(&tls)).await;
    let client = TlsClient::new(proxy.address);
    for (name, expected) in [
        ("first.example", &first),
        ("shop.example", &exact),
        ("www.shop.example", &exact),
        ("WWW.Shop.Example", &exact),
        ("img.shop.example", &wild),
        // A wildcard stands for one label.
        ("a.img.shop.example", &first),
        ("other.example", &first),
        ("127.0.0.1", &first),
    ] {
        let mut wire = client.open(name).await;
        assert_eq!(&wire.shown(), expected, "{name}");
        assert_eq!(get(&mut wire).await.text(), "a");
    }
}

#[tokio::test]
async fn backends_and_logs_are_told_that_it_was_https() {
    let (keys, a) = (Keys::for_names(&[SITE]), Backend::start("a").await);
    let config = |server: &str| {
        let config = Config::app(&[&a], "policy = \"sticky_cookie\"").server(server);
        config.listener(&keys.tls(&["site"]))
    };
    let proxy = Proxy::start(config("")).await;
    let mut new = TlsClient::new(proxy.address).open(SITE).await;
    assert_eq!(new.stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    let forged = Ask::get("/").header("X-Forwarded-Proto", "http");
    let answer = ask(&mut new, &forged).await;
    assert_eq!(a.seen(1).await.header("x-forwarded-proto"), Some("https"));
    let cookie = answer.header("set-cookie").unwrap();
    assert!(cookie.split("; ").any(|part| part == "Secure"), "{cookie}");

    proxy.reload(config("client_ip_from = \"forwarded\"")).await.unwrap();
    let mut old = TlsClient::with_versions(proxy.address, &[&rustls::version::TLS12]).open(SITE).await;
    get(&mut old).await;
    let told = a.seen(2).await;
    assert!(told.header("forwarded").unwrap().ends_with(";proto=https"), "{told:?}");
    let versions: Vec<_> = proxy.logged(2).await.iter().map(|line| line["tls"].clone()).collect();
    assert_eq!(versions, ["1.3", "1.2"]);
}

#[tokio::test]
async fn a_listener_that_wants_1_3_refuses_1_2() {
    let (keys, a) = (Keys::for_names(&[SITE]), Backend::start("a").await);
    let proxy = behind_tls(&a, &keys, "tls.min_version = \"1.3\"").await;
    let old = TlsClient::with_versions(proxy.address, &[&rustls::version::TLS12]);
    assert!(old.try_open(SITE).await.is_err());
    rejected(&proxy, "tls_handshake", 1.0).await;
    let new = TlsClient::new(proxy.address).open(SITE).await;
    assert_eq!(new.stream.get_ref().1.protocol_version(), Some(ProtocolVersion::TLSv1_3));
}

/// The first flight of a client.
fn client_hello() -> Vec<u8> {
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let name = SITE.try_into().unwrap();
    let mut client = rustls::ClientConnection::new(std::sync::Arc::new(config), name).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    hello
}

#[tokio::test]
async fn a_handshake_that_takes_too_long_is_cut() {
    let (keys, a) = (Keys::for_names(&[SITE]), Backend::start("a").await);
    let proxy = behind_tls(&a, &keys, SHORT).await;
    let hello = client_hello();
    // Nothing, half of a ClientHello, all of it, and a handshake without a request.
    for (n, part) in [&[][..], &hello[..hello.len() / 2], &hello[..]].into_iter().enumerate() {
        let (start, mut wire) = (Instant::now(), proxy.wire().await);
        wire.send(part).await;
        let answer = wire.rest().await;
        assert!(start.elapsed() >= Duration::from_millis(300), "{n}: {:?}", start.elapsed());
        assert_eq!(answer.is_empty(), n < 2);
        rejected(&proxy, "first_byte_timeout", (n + 1) as f64).await;
    }
    let start = Instant::now();
    let mut silent = TlsClient::new(proxy.address).open(SITE).await;
    assert!(silent.ends_properly().await);
    assert!(start.elapsed() >= Duration::from_millis(300), "{:?}", start.elapsed());
    rejected(&proxy, "first_byte_timeout", 4.0).await;
    eventually("nobody is left", async || {
        proxy.metric("pintle_listener_connections{listener=\"web\"}").await == 0.0
    })
    .await;
}

#[tokio::test]
async fn a_client_hello_that_drips_is_cut_as_one_that_stops() {
    let (keys, a) = (Keys::for_names(&[SITE]), Backend::start("a").await);
    let proxy = behind_tls(&a, &keys, SHORT).await;
    let (start, mut wire) = (Instant::now(), proxy.wire().await);
    let hello = client_hello();
    let drip = async {
        for byte in hello.iter().take(hello.len() - 1).cycle() {
            wire.send([*byte]).await;
            if let Ok(false) = tokio::time::timeout(Duration::from_millis(5), wire.more()).await {
                break;
            }
        }
    };
    within("the end of it", drip).await;
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    rejected(&proxy, "first_byte_timeout", 1.0).await;
}

#[tokio::test]
async fn a_client_hello_in_single_bytes_is_understood() {
    let (keys, a) = (Keys::for_names(&[SITE]), Backend::start("a").await);
    let proxy = behind_tls(&a, &keys, "").await;
    let mut wire = proxy.wire().await;
    for byte in client_hello() {
        wire.send([byte]).await;
    }
    // A ServerHello, in a record of its own.
    assert_eq!(wire.bytes(6).await[0], 0x16);
}

#[tokio::test]
async fn http_in_the_clear_is_told_so_and_junk_is_not() {
    let (keys, a) = (Keys::for_names(&[SITE]), Backend::start("a").await);
    let proxy = behind_tls(&a, &keys, "").await;
    let mut client = proxy.client();
    let answer = client.get("/").await;
    assert_eq!((answer.status, answer.header("connection")), (400, Some("close")));
    assert!(answer.text().contains("https://"), "{}", answer.text());
    assert!(proxy.raw([0x80, 0x2e, 0x01]).await.is_empty());
    rejected(&proxy, "tls_handshake", 2.0).await;
    assert_eq!(a.count(), 0);
}

#[tokio::test]
async fn requests_follow_each_other_on_one_connection_with_large_bodies_both_ways() {
    let (keys, a) = (Keys::for_names(&[SITE]), Backend::start("a").await);
    a.answer(|request| Reply::text(request.body.clone()));
    let proxy = behind_tls(&a, &keys, "").await;
    for versions in [&[&rustls::version::TLS12], &[&rustls::version::TLS13]] {
        let mut wire = TlsClient::with_versions(proxy.address, versions).open(SITE).await;
        for size in [0, 1, 16_384, 16_385, 3_000_000] {
            let body: Vec<u8> = (0..size).map(|n: u32| (n % 251) as u8).collect();
            let answer = ask(&mut wire, &Ask::post("/", body.clone())).await;
            assert!(answer.whole && answer.body == body, "{size}");
        }
    }
    // One for each data thread at most.
    assert!(a.accepted() <= 2, "{}", a.accepted());
}

#[tokio::test]
async fn an_answer_that_breaks_off_does_not_end_properly() {
    let (keys, a) = (Keys::for_names(&[SITE]), Backend::start("a").await);
    a.reply(Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").then_reset());
    let proxy = behind_tls(&a, &keys, "").await;
    // Also where nothing but the close could tell: an HTTP/1.0 client gets no chunks.
    for version in ["1.1", "1.0"] {
        let mut wire = TlsClient::new(proxy.address).open(SITE).await;
        wire.send(format!("GET / HTTP/{version}\r\nHost: {SITE}\r\n\r\n")).await;
        wire.response_head().await;
        let end = within("an end", wire.stream.read_to_end(&mut wire.buffer)).await;
        assert!(end.is_err(), "HTTP/{version}");
    }
}

#[tokio::test]
async fn a_websocket_runs_over_tls_and_half_of_it_may_close() {
    let (keys, a) = (Keys::for_names(&[SITE]), Backend::start("a").await);
    a.reply(Reply::websocket());
    let proxy = behind_tls(&a, &keys, "").await;
    let client = TlsClient::new(proxy.address);
    let request = "wss://shop.example/chat".into_client_request().unwrap();
    let wire = client.open(SITE).await;
    let (mut socket, _) =
        within("a handshake", tokio_tungstenite::client_async(request, wire.stream)).await.unwrap();
    for size in [1, 125, 65_536, 2_000_000] {
        socket.send("x".repeat(size).into()).await.unwrap();
        let echo = within("an echo", socket.next()).await.unwrap().unwrap();
        assert_eq!(echo.len(), size + 3);
    }
    socket.close(None).await.unwrap();

    a.reply(Reply::upgrade("own/1", "hello"));
    let mut wire = client.open(SITE).await;
    wire.send("GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: own/1\r\n\r\n").await;
    assert_eq!(wire.response_head().await.unwrap().status, 101);
    wire.send("last words").await;
    wire.stream.shutdown().await.unwrap();
    let mut heard = std::mem::take(&mut wire.buffer);
    let end = within("the other half", wire.stream.read_to_end(&mut heard)).await;
    assert_eq!((end.is_ok(), heard.as_slice()), (true, &b"hellolast words"[..]));
}

#[tokio::test]
async fn a_head_that_dawdles_is_a_408() {
    let (keys, a) = (Keys::for_names(&[SITE]), Backend::start("a").await);
    let proxy = behind_tls(&a, &keys, "header_timeout = \"300ms\"").await;
    let mut wire = TlsClient::new(proxy.address).open(SITE).await;
    wire.send("GET / HTTP/1.1\r\n").await;
    assert_eq!(wire.response("GET").await.unwrap().status, 408);
    assert!(wire.ends_properly().await);
}

#[tokio::test]
async fn an_idle_connection_is_parked_wakes_and_ends_properly() {
    let (keys, a) = (Keys::for_names(&[SITE]), Backend::start("a").await);
    let proxy = behind_tls(&a, &keys, "idle_timeout = \"2s\"").await;
    let mut wire = TlsClient::new(proxy.address).open(SITE).await;
    for _ in 0..2 {
        assert_eq!(get(&mut wire).await.text(), "a");
        // Longer than it takes to be parked; nothing may come meanwhile.
        let silence = tokio::time::timeout(Duration::from_millis(1500), wire.more()).await;
        assert!(silence.is_err());
    }
    assert!(wire.ends_properly().await);
    assert_eq!(a.accepted(), 1);
}

#[tokio::test]
async fn a_shutdown_finishes_answers_and_says_goodbye() {
    let (keys, a) = (Keys::for_names(&[SITE]), Backend::start("a").await);
    let proxy = behind_tls(&a, &keys, "").await;
    let client = TlsClient::new(proxy.address);
    let (mut idle, mut fresh, mut busy) =
        (client.open(SITE).await, client.open(SITE).await, client.open(SITE).await);
    get(&mut idle).await;
    a.hold();
    busy.send(Ask::get("/").bytes(&BTreeMap::new())).await;
    a.parked(1).await;
    let ending = tokio::spawn(proxy.shutdown());
    assert!(idle.ends_properly().await);
    assert!(fresh.ends_properly().await);
    a.release();
    let answer = busy.response("GET").await.expect("an answer");
    assert_eq!((answer.text().as_str(), answer.header("connection")), ("a", Some("close")));
    assert!(busy.ends_properly().await);
    assert_eq!(ending.await.unwrap().finished, 1);
}

#[tokio::test]
async fn a_listener_turns_to_tls_and_back_without_a_cut() {
    let (keys, a) = (Keys::for_names(&[SITE]), Backend::start("a").await);
    let clear = || Config::app(&[&a], "");
    let proxy = Proxy::start(clear()).await;
    let mut old = proxy.client();
    old.get("/").await;
    proxy.reload(clear().listener(&keys.tls(&["site"]))).await.unwrap();
    let mut secured = TlsClient::new(proxy.address).open(SITE).await;
    assert_eq!((get(&mut secured).await.status, old.get("/").await.status), (200, 200));
    proxy.reload(clear()).await.unwrap();
    assert_eq!((get(&mut secured).await.status, proxy.client().get("/").await.status), (200, 200));
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_without_a_restart_or_a_cut() {
    let keys = Keys::new();
    let (first, a) = (keys.make("site", &[SITE]), Backend::start("a").await);
    let proxy = behind_tls(&a, &keys, "").await;
    let client = TlsClient::new(proxy.address);
    let mut old = client.open(SITE).await;
    get(&mut old).await;
    let second = keys.make("site", &[SITE]);
    eventually("the new certificate", async || client.open(SITE).await.shown() == second).await;
    assert_eq!((get(&mut old).await.status, old.shown()), (200, first));
    assert_eq!(proxy.status().await.generation, 2);
    assert_eq!(a.accepted(), 1, "the backend's connection was kept");
}

#[tokio::test]
async fn half_a_renewed_pair_is_refused_and_the_old_one_serves_until_it_is_whole() {
    let keys = Keys::new();
    let (first, a) = (keys.make("site", &[SITE]), Backend::start("a").await);
    let proxy = behind_tls(&a, &keys, "").await;
    let client = TlsClient::new(proxy.address);
    let second = keys.make("next", &[SITE]);
    std::fs::rename(keys.path("next.crt"), keys.path("site.crt")).unwrap();
    eventually("the refusal", async || {
        proxy.status().await.last_reload.is_some_and(|reload| {
            !reload.ok && reload.detail.is_some_and(|detail| detail.contains("generation 1 stays"))
        })
    })
    .await;
    assert_eq!(client.open(SITE).await.shown(), first);
    std::fs::rename(keys.path("next.key"), keys.path("site.key")).unwrap();
    eventually("the new certificate", async || client.open(SITE).await.shown() == second).await;
    assert!(proxy.status().await.last_reload.unwrap().ok);
}

#[tokio::test]
async fn sessions_are_resumed_over_a_reload_on_every_thread() {
    let (keys, a) = (Keys::for_names(&[SITE]), Backend::start("a").await);
    let config = || Config::app(&[&a], "").listener(&keys.tls(&["site"]));
    let proxy = Proxy::start(config()).await;
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let client = TlsClient::with_versions(proxy.address, &[version]);
        let mut first = client.open(SITE).await;
        assert!(!first.is_resumed());
        get(&mut first).await;
        proxy.reload(config().server("drain_timeout = \"20s\"")).await.unwrap();
        for _ in 0..8 {
            let mut next = client.open(SITE).await;
            assert!(next.is_resumed());
            get(&mut next).await;
        }
    }
}

/// Asks once; `None` where the handshake or what follows it fails. In TLS 1.3 a client learns only
/// then that its certificate was refused.
async fn once(client: &TlsClient, request: &Ask) -> Option<Response> {
    let mut wire = client.try_open(SITE).await.ok()?;
    wire.send(request.bytes(&BTreeMap::new())).await;
    wire.response(request.method()).await
}

#[tokio::test]
async fn client_certificates_are_not_asked_for_welcome_or_required() {
    let (keys, a) = (Keys::for_names(&[SITE]), Backend::start("a").await);
    let (ours, others) = (keys.authority("clients.pem"), keys.authority("others.pem"));
    let config = |auth: &str| {
        let lines = format!("tls.client_ca = {:?}\ntls.client_auth = {auth:?}", keys.path("clients.pem"));
        Config::app(&[&a], "").listener(&keys.tls(&["site"])).listener(&lines)
    };
    let proxy = Proxy::start(config("off")).await;
    let known = TlsClient::called(proxy.address, "M\u{fc}ller, Eva", &ours);
    let (unknown, nobody) = (TlsClient::called(proxy.address, "eve", &others), TlsClient::new(proxy.address));
    let forged = Ask::get("/").header("X-Client-Subject", "CN=root").header("X_Client_Subject", "CN=root");
    let mut seen = 0;
    for (auth, welcome) in [
        ("off", [Some(None), Some(None), Some(None)]),
        ("optional", [Some(Some("CN=M%C3%BCller\\, Eva")), None, Some(None)]),
        ("required", [Some(Some("CN=M%C3%BCller\\, Eva")), None, None]),
    ] {
        proxy.reload(config(auth)).await.unwrap();
        for (client, expected) in [&known, &unknown, &nobody].into_iter().zip(welcome) {
            let answer = once(client, &forged.clone().header("Host", SITE)).await;
            assert_eq!(answer.map(|answer| answer.status), expected.map(|_| 200), "{auth} {expected:?}");
            let Some(subject) = expected else { continue };
            seen += 1;
            let request = a.seen(seen).await;
            assert_eq!(request.header("x-client-subject"), subject, "{auth}");
            assert_eq!(request.header("x_client_subject"), None, "{auth}");
        }
    }
    rejected(&proxy, "tls_handshake", 3.0).await;
}

#[tokio::test]
async fn where_certificates_are_asked_for_nothing_is_resumed_and_no_other_host_is_answered() {
    let (keys, a) = (Keys::for_names(&[SITE, "other.example"]), Backend::start("a").await);
    let authority = keys.authority("clients.pem");
    let lines = format!("tls.client_ca = {:?}\ntls.client_auth = \"optional\"", keys.path("clients.pem"));
    let proxy = behind_tls(&a, &keys, &lines).await;
    let client = TlsClient::called(proxy.address, "eva", &authority);
    for _ in 0..3 {
        let mut wire = client.open(SITE).await;
        assert!(!wire.is_resumed());
        for (host, status) in [(SITE, 200), ("Shop.Example:443", 200), ("other.example", 421), (SITE, 200)] {
            assert_eq!(ask(&mut wire, &Ask::get("/").header("Host", host)).await.status, status, "{host}");
        }
    }
    assert!(a.requests().iter().all(|request| request.header("host") != Some("other.example")));
    // Whoever names nobody in the handshake is bound to nobody.
    let mut unnamed = client.open("127.0.0.1").await;
    assert_eq!(ask(&mut unnamed, &Ask::get("/").header("Host", "other.example")).await.status, 200);
}

#[tokio::test]
async fn the_subject_cannot_be_forged_by_another_door() {
    let (keys, a) = (Keys::for_names(&[SITE]), Backend::start("a").await);
    let _ = keys.authority("clients.pem");
    let door = format!(
        "[listener.secure]\nbind = \"127.0.0.1:0\"\n{}tls.client_ca = {:?}\ntls.client_subject_header = \"X-Who\"",
        keys.tls(&["site"]),
        keys.path("clients.pem")
    );
    let proxy = Proxy::start(Config::app(&[&a], "").text(&door)).await;
    proxy.client().ask(Ask::get("/").header("X-Who", "CN=root")).await;
    assert_eq!(a.seen(1).await.header("x-who"), None);
}

#[tokio::test]
async fn certificates_and_their_ends_are_told() {
    let (keys, a) = (Keys::for_names(&[SITE, "*.shop.example"]), Backend::start("a").await);
    let proxy = behind_tls(&a, &keys, "").await;
    let listed: serde_json::Value =
        serde_json::from_str(&proxy.admin("/v1/certificates").await.text()).unwrap();
    assert_eq!(listed[0]["listener"], "web");
    assert_eq!(listed[0]["names"], serde_json::json!([SITE, "*.shop.example"]));
    assert_eq!(listed[0]["not_after"], "4096-01-01T00:00:00Z");
    assert!(listed[0]["days_left"].as_i64().unwrap() > 700_000);
    let file = keys.path("site.crt");
    let sample = format!(
        "pintle_certificate_expiry_timestamp_seconds{{listener=\"web\",name=\"{SITE}\",file={file:?}}}"
    );
    assert_eq!(proxy.metric(&sample).await, 67090118400.0);
}
