//! Heads that come in pieces.

use std::time::{Duration, Instant};

use crate::support::{Ask, Backend, Config, Keys, Proxy, Reply, TlsClient, Wire, within};

/// Longer than an idle connection keeps any state.
const PAUSE: Duration = Duration::from_millis(1300);

/// The other side says nothing for so long.
async fn is_silent(wire: &mut Wire, pause: Duration) {
    let quiet = tokio::time::timeout(pause, wire.more()).await;
    assert!(quiet.is_err(), "it spoke or left: {:?}", String::from_utf8_lossy(&wire.buffer));
}

#[tokio::test]
async fn a_head_in_pieces_is_served_as_one_that_came_whole() {
    let backend = Backend::start("a").await;
    let proxy = Proxy::over(&[&backend]).await;
    let whole = b"\r\nPOST /slow?q HTTP/1.1\r\nHost: h\r\nX-One: 1\r\nContent-Length: 4\r\n\r\nbody";
    // Wherever it is cut, the empty line included; the last piece brings the body with it.
    for cut in 1..whole.len() {
        let mut wire = proxy.wire().await;
        let (first, last) = whole.split_at(cut);
        wire.send(first).await;
        is_silent(&mut wire, Duration::from_millis(5)).await;
        wire.send(last).await;
        assert_eq!(wire.response("POST").await.expect("an answer").status, 200, "cut at {cut}");
        let request = backend.received(cut).await;
        assert_eq!((request.target.as_str(), request.header("x-one")), ("/slow?q", Some("1")), "{cut}");
        assert_eq!(request.text(), "body", "cut at {cut}");
    }
}

#[tokio::test]
async fn a_head_byte_by_byte_and_the_next_on_the_same_connection_are_served() {
    let backend = Backend::start("a").await;
    let proxy = Proxy::over(&[&backend]).await;
    let mut wire = proxy.wire().await;
    for turn in 1..=2 {
        for byte in format!("GET /{turn} HTTP/1.1\r\nHost: h\r\n\r\n").as_bytes() {
            wire.send([*byte]).await;
            tokio::task::yield_now().await;
        }
        assert_eq!(wire.response("GET").await.unwrap().status, 200);
        assert_eq!(backend.received(turn).await.target, format!("/{turn}"));
    }
}

#[tokio::test]
async fn half_a_head_behind_a_whole_request_outlasts_the_pause_between_them() {
    let backend = Backend::start("a").await;
    let proxy = Proxy::over(&[&backend]).await;
    let mut wire = proxy.wire().await;
    wire.send("GET /one HTTP/1.1\r\nHost: h\r\n\r\nGET /two HTTP/1.1\r\nHo").await;
    assert_eq!(wire.response("GET").await.unwrap().status, 200);
    is_silent(&mut wire, PAUSE).await;
    wire.send("st: h\r\n\r\n").await;
    assert_eq!(wire.response("GET").await.expect("the half was kept").status, 200);
    assert_eq!(backend.received(2).await.target, "/two");
}

#[tokio::test]
async fn a_head_in_pieces_over_tls_is_served_and_a_slow_one_is_a_408() {
    let (keys, backend) = (Keys::new(), Backend::start("a").await);
    keys.make("site", &["shop.example"]);
    let lines = format!("{}header_timeout = \"1500ms\"\n", keys.tls(&["site"]));
    let proxy = Proxy::start(Config::app(&[&backend], "").listener(&lines)).await;
    let client = TlsClient::new(proxy.address);
    let mut wire = client.open("shop.example").await;
    for piece in ["GET / HT", "TP/1.1\r\nHost: shop.example\r", "\n\r", "\n"] {
        assert!(tokio::time::timeout(Duration::from_millis(50), wire.more()).await.is_err());
        wire.send(piece).await;
    }
    assert_eq!(wire.response("GET").await.unwrap().status, 200);
    let start = Instant::now();
    wire.send("GET / HTTP/1.1\r\n").await;
    assert_eq!(wire.response("GET").await.unwrap().status, 408);
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(1500) && took < Duration::from_secs(4), "{took:?}");
}

#[tokio::test]
async fn going_back_and_forth_wins_a_slow_head_no_time() {
    let backend = Backend::start("a").await;
    let proxy = Proxy::start(Config::app(&[&backend], "").listener("header_timeout = \"1s\"")).await;
    let mut wire = proxy.wire().await;
    let start = Instant::now();
    // Every blank line looks like the end of a head, and is none.
    let drip = async {
        while wire.try_send("\r\n\r\n").await.is_ok() && wire.buffer.is_empty() {
            let _ = tokio::time::timeout(Duration::from_millis(10), wire.more()).await;
        }
    };
    within("it is cut", drip).await;
    let took = start.elapsed();
    assert!(took >= Duration::from_secs(1) && took < Duration::from_secs(4), "{took:?}");
    assert!(wire.buffer.starts_with(b"HTTP/1.1 408"), "{:?}", String::from_utf8_lossy(&wire.buffer));
}

#[tokio::test]
async fn a_head_in_pieces_that_is_too_large_is_a_431_before_more_is_read_than_allowed() {
    let backend = Backend::start("a").await;
    let proxy = Proxy::start(Config::app(&[&backend], "").listener("max_header_size = \"8KiB\"")).await;
    let mut wire = proxy.wire().await;
    wire.send("GET / HTTP/1.1\r\nHost: h\r\n").await;
    let line = format!("X-Bomb: {}\r\n", "b".repeat(500));
    let mut sent = 0;
    while wire.buffer.is_empty() && wire.try_send(&line).await.is_ok() {
        sent += line.len();
        assert!(sent <= 12 * 1024, "{sent} bytes were taken");
        let _ = tokio::time::timeout(Duration::from_millis(10), wire.more()).await;
    }
    assert!(wire.buffer.starts_with(b"HTTP/1.1 431"), "{:?}", String::from_utf8_lossy(&wire.buffer));
    assert_eq!(backend.count(), 0);
}

#[tokio::test]
async fn half_a_head_and_an_end_is_no_request() {
    let backend = Backend::start("a").await;
    let proxy = Proxy::over(&[&backend]).await;
    let mut wire = proxy.wire().await;
    wire.send("GET / HTTP/1.1\r\nHost: h\r\n").await;
    is_silent(&mut wire, Duration::from_millis(50)).await;
    wire.finish().await;
    within("the connection ends", wire.rest()).await;
    assert_eq!(backend.count(), 0);
}

#[tokio::test]
async fn a_tunnel_asked_for_in_pieces_keeps_the_bytes_that_came_too_early() {
    let backend = Backend::start("a").await;
    backend.reply(Reply::upgrade("chat", ""));
    let proxy = Proxy::over(&[&backend]).await;
    let mut wire = proxy.wire().await;
    // So long that what follows it is not read in one go with it.
    let pad = "x".repeat(8000);
    wire.send(format!("GET / HTTP/1.1\r\nHost: h\r\nX-Pad: {pad}\r\nConnection: upgrade\r\n")).await;
    is_silent(&mut wire, Duration::from_millis(50)).await;
    let early = "early ".repeat(3000);
    wire.send(format!("Upgrade: chat\r\n\r\n{early}")).await;
    assert_eq!(wire.response_head().await.unwrap().status, 101);
    assert_eq!(wire.bytes(early.len()).await, early.as_bytes());
    let mut client = proxy.client();
    backend.reply(Reply::text("a"));
    assert_eq!(client.ask(Ask::get("/")).await.status, 200);
}
