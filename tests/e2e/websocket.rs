//! Tunnels: opened by the backend's own 101, sticky by the handshake, cut by nothing but an end.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::client::Response;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::support::{Ask, Backend, Config, Proxy, Reply, Wire, eventually, within};

type Socket = WebSocketStream<TcpStream>;

const POLICIES: [&str; 7] =
    ["round_robin", "least_conn", "least_time", "random_two", "ip_hash", "consistent_hash", "sticky_cookie"];

/// A handshake by a client that is not ours.
async fn handshake(proxy: &Proxy, cookie: Option<&str>) -> Result<(Socket, Response), Error> {
    let mut request = "ws://shop.example/chat".into_client_request().unwrap();
    if let Some(cookie) = cookie {
        request.headers_mut().insert("cookie", cookie.parse().unwrap());
    }
    let stream = TcpStream::connect(proxy.address).await.unwrap();
    within("a handshake", tokio_tungstenite::client_async(request, stream)).await
}

async fn open(proxy: &Proxy) -> Socket {
    handshake(proxy, None).await.expect("a WebSocket").0
}

/// Says something and gives the echo.
async fn say(socket: &mut Socket, text: &str) -> String {
    socket.send(text.into()).await.unwrap();
    let echo = within("an echo", socket.next()).await.expect("a message").unwrap();
    echo.to_text().unwrap().to_owned()
}

async fn tunnels(proxy: &Proxy, count: u64) {
    eventually(&format!("{count} tunnels"), async || proxy.status().await.totals.tunnels == count).await;
}

/// Fresh backends that open WebSockets.
async fn echoes<const N: usize>(names: [&str; N]) -> [Backend; N] {
    let fleet = Backend::fleet(names).await;
    for backend in &fleet {
        backend.reply(Reply::websocket());
    }
    fleet
}

/// An upgrade to a protocol of our own, its 101 read.
async fn raw(proxy: &Proxy) -> Wire {
    let mut wire = proxy.wire().await;
    wire.send("GET /raw HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: own/1\r\n\r\n").await;
    let head = wire.response_head().await.expect("a head");
    assert_eq!((head.status, head.header("upgrade")), (101, Some("own/1")));
    wire
}

#[tokio::test]
async fn a_websocket_works_under_every_policy() {
    let [a, b] = echoes(["a", "b"]).await;
    let proxy = Proxy::over(&[&a, &b]).await;
    for policy in POLICIES {
        proxy.reload(Config::app(&[&a, &b], &format!("policy = {policy:?}"))).await.unwrap();
        let mut socket = open(&proxy).await;
        let echo = say(&mut socket, policy).await;
        assert!(echo == format!("a: {policy}") || echo == format!("b: {policy}"), "{echo}");
        let long = "x".repeat(300_000);
        assert_eq!(say(&mut socket, &long).await.len(), 300_003);
        socket.close(None).await.unwrap();
    }
    tunnels(&proxy, 0).await;
}

#[tokio::test]
async fn the_handshake_is_sticky() {
    let [a, b] = echoes(["a", "b"]).await;
    let proxy = Proxy::start(Config::app(&[&a, &b], "policy = \"sticky_cookie\"")).await;
    for _ in 0..2 {
        let (mut socket, response) = handshake(&proxy, None).await.unwrap();
        let cookie = response.headers()["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
        let first = say(&mut socket, "x").await;
        for _ in 0..6 {
            let (mut socket, response) = handshake(&proxy, Some(&cookie)).await.unwrap();
            assert_eq!(say(&mut socket, "x").await, first);
            assert!(!response.headers().contains_key("set-cookie"));
        }
    }
    assert!(a.requests().iter().chain(&b.requests()).all(|request| request.header("cookie").is_none()));
}

#[tokio::test]
async fn a_handshake_that_the_backend_refuses_is_passed_on_and_opens_nothing() {
    let a = Backend::start("a").await;
    let proxy = Proxy::over(&[&a]).await;
    for status in [403, 200, 426] {
        a.answer(move |_| Reply::status(status).header("X-Why", "because"));
        match handshake(&proxy, None).await {
            Err(Error::Http(response)) => {
                assert_eq!(
                    (response.status().as_u16(), &response.headers()["x-why"]),
                    (status, &"because".parse().unwrap())
                );
            }
            other => panic!("{status}: {other:?}"),
        }
    }
    // The connection is an ordinary one still.
    let mut client = proxy.client();
    let upgrade = Ask::get("/").header("Connection", "Upgrade").header("Upgrade", "own/1");
    assert_eq!(client.ask(upgrade).await.status, 426);
    assert_eq!(client.get("/").await.status, 426);
    assert_eq!(proxy.status().await.totals.tunnels, 0);
}

#[tokio::test]
async fn nothing_is_switched_before_the_backends_own_101() {
    let a = Backend::start("a").await;
    a.hold();
    a.reply(Reply::upgrade("own/1", "hello"));
    let proxy = Proxy::over(&[&a]).await;
    let mut wire = proxy.wire().await;
    wire.send("GET /raw HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: own/1\r\n\r\nearly").await;
    a.parked(1).await;
    assert_eq!(proxy.status().await.totals.tunnels, 0);
    assert!(wire.buffer.is_empty());
    a.release();
    assert_eq!(wire.response_head().await.expect("a head").status, 101);
    assert_eq!(wire.bytes(10).await, b"helloearly");
    tunnels(&proxy, 1).await;
}

#[tokio::test]
async fn an_end_of_the_clients_side_leaves_the_other_open() {
    let a = Backend::start("a").await;
    a.reply(Reply::upgrade("own/1", "hello "));
    let proxy = Proxy::over(&[&a]).await;
    let mut wire = raw(&proxy).await;
    wire.send("last words").await;
    wire.finish().await;
    assert_eq!(wire.rest().await, b"hello last words");
    tunnels(&proxy, 0).await;
    proxy.ended("tunnel_closed").await;
}

#[tokio::test]
async fn an_end_of_the_backends_side_leaves_the_other_open() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config = format!("[pool.app]\nbackends = [\"{}\"]", listener.local_addr().unwrap());
    let proxy = Proxy::start(config.as_str()).await;
    let backend = tokio::spawn(async move {
        let mut wire = Wire::new(listener.accept().await.unwrap().0);
        wire.head().await.expect("a head");
        wire.send("HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: own/1\r\n\r\nbye").await;
        wire.finish().await;
        wire.rest().await
    });
    let mut wire = raw(&proxy).await;
    assert_eq!(wire.rest().await, b"bye");
    wire.send("still here").await;
    assert_eq!(proxy.status().await.totals.tunnels, 1);
    wire.finish().await;
    assert_eq!(backend.await.unwrap(), b"still here");
    tunnels(&proxy, 0).await;
}

#[tokio::test]
async fn a_silent_tunnel_is_closed_after_its_idle_timeout() {
    let [a] = echoes(["a"]).await;
    let config = Config::app(&[&a], "").route("pool = \"app\"\nwebsocket.idle_timeout = \"1s\"");
    let proxy = Proxy::start(config).await;
    let mut socket = open(&proxy).await;
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(2000) {
        say(&mut socket, "I am here").await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let begun = Instant::now();
    assert!(!matches!(within("the end", socket.next()).await, Some(Ok(_))));
    assert!((Duration::from_millis(800)..Duration::from_secs(3)).contains(&begun.elapsed()));
    proxy.ended("idle_timeout").await;
    tunnels(&proxy, 0).await;
}

#[tokio::test]
async fn a_tunnel_is_counted_and_logged_twice() {
    let [a] = echoes(["a"]).await;
    let proxy = Proxy::over(&[&a]).await;
    let mut socket = open(&proxy).await;
    say(&mut socket, "x").await;
    let backend = proxy.backend("app/a").await;
    assert_eq!((backend.tunnels, backend.in_flight), (1, 0));
    assert_eq!(proxy.metric("pintle_websockets{pool=\"app\"}").await, 1.0);
    let opened = proxy.ended("upgraded").await;
    assert_eq!((opened["status"].as_u64(), opened["backend"].as_str()), (Some(101), Some("a")));
    socket.close(None).await.unwrap();
    drop(socket);
    let closed = proxy.ended("tunnel_closed").await;
    assert_eq!(closed["id"], opened["id"]);
    assert!(closed["resp_bytes"].as_u64() >= Some(6), "{closed}");
    assert_eq!(proxy.backend("app/a").await.tunnels, 0);
    let counted = [
        "pintle_websockets_closed_total{pool=\"app\",reason=\"closed\"}",
        "pintle_sticky_total{pool=\"app\",verdict=\"none\"}",
        "pintle_proxy_overhead_seconds_count{listener=\"web\"}",
    ];
    for sample in counted {
        let family = proxy.admin("/metrics").await.text();
        assert!(family.lines().any(|line| line == format!("{sample} 1")), "{sample} is not 1 in\n{family}");
    }
}

#[tokio::test]
async fn a_reload_cuts_no_tunnel_even_of_a_backend_that_leaves_the_file() {
    let [a, b] = echoes(["a", "b"]).await;
    let proxy = Proxy::over(&[&a]).await;
    let mut socket = open(&proxy).await;
    assert_eq!(say(&mut socket, "1").await, "a: 1");
    proxy.reload(Config::app(&[&a, &b], "policy = \"ip_hash\"")).await.unwrap();
    assert_eq!(say(&mut socket, "2").await, "a: 2");
    proxy.reload(Config::app(&[&b], "")).await.unwrap();
    assert_eq!(say(&mut socket, "3").await, "a: 3");
    let left = proxy.backend("app/a").await;
    assert_eq!((left.removed, left.tunnels), (true, 1));
    socket.close(None).await.unwrap();
    drop(socket);
    let gone = async || proxy.status().await.pools[0].backends.len() == 1;
    eventually("the backend is forgotten with its last tunnel", gone).await;
}

#[tokio::test]
async fn a_drain_waits_for_tunnels_and_closes_them_before_its_deadline() {
    let [a, b] = echoes(["a", "b"]).await;
    let proxy =
        Proxy::start(Config::default().pool_of("app", &[a.toml(""), b.toml("backup = true")], "")).await;
    let mut socket = open(&proxy).await;
    assert_eq!(say(&mut socket, "1").await, "a: 1");
    let begun = Instant::now();
    let drain = proxy.drain("app/a", Some(Duration::from_secs(2)));
    let talk = async {
        while begun.elapsed() < Duration::from_millis(1500) {
            assert_eq!(say(&mut socket, "2").await, "a: 2");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let last = within("the close", socket.next()).await;
        // Reading on sends the answer.
        assert!(within("the end", socket.next()).await.is_none());
        last
    };
    let (view, last) = tokio::join!(drain, talk);
    let view = view.unwrap();
    let Some(Ok(Message::Close(Some(close)))) = last else { panic!("{last:?}") };
    assert_eq!(close.code, CloseCode::Restart);
    assert_eq!((view.state.as_str(), view.websockets_closed, view.tunnels_cut), ("drained", 1, 0));
    assert_eq!(view.requests_cut, 0);
    assert!(begun.elapsed() >= Duration::from_millis(1_700));
    assert_eq!(say(&mut open(&proxy).await, "3").await, "b: 3");
    proxy.ended("drained").await;
}

#[tokio::test]
async fn the_end_of_a_backend_ends_its_tunnels() {
    let [mut a] = echoes(["a"]).await;
    let proxy = Proxy::over(&[&a]).await;
    let mut socket = open(&proxy).await;
    say(&mut socket, "1").await;
    a.die().await;
    assert!(!matches!(within("the end", socket.next()).await, Some(Ok(_))));
    drop(socket);
    tunnels(&proxy, 0).await;
}

#[tokio::test]
async fn tunnels_are_spread_over_threads() {
    let [a] = echoes(["a"]).await;
    let proxy = Proxy::start(Config::app(&[&a], "").server("workers = 4")).await;
    let mut sockets = Vec::new();
    for _ in 0..80 {
        sockets.push(open(&proxy).await);
    }
    // An id begins with its thread.
    let mut threads: HashMap<String, usize> = HashMap::new();
    for line in proxy.logged(80).await {
        *threads.entry(line["id"].as_str().unwrap()[..2].to_owned()).or_default() += 1;
    }
    let (least, most) = (threads.values().min().unwrap(), threads.values().max().unwrap());
    assert!(threads.len() == 4 && most - least <= 10, "{threads:?}");
}

#[tokio::test]
async fn a_flood_that_nobody_reads_is_not_kept_in_memory() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config = format!("[pool.app]\nbackends = [\"{}\"]", listener.local_addr().unwrap());
    let proxy = Proxy::start(config.as_str()).await;
    let backend = tokio::spawn(async move {
        let mut wire = Wire::new(listener.accept().await.unwrap().0);
        wire.head().await.expect("a head");
        wire.send("HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: own/1\r\n\r\n").await;
        wire.stream
    });
    let mut wire = raw(&proxy).await;
    let mut backend = backend.await.unwrap();
    let block = vec![b'x'; 64 * 1024];
    let mut sent = 0;
    while let Ok(written) = tokio::time::timeout(Duration::from_millis(500), wire.stream.write(&block)).await
    {
        sent += written.unwrap();
        assert!(sent < 64 << 20, "nobody reads, and {sent} bytes were taken");
    }
    let mut received = 0;
    let mut buffer = vec![0; 64 * 1024];
    while received < sent {
        received += within("the flood", backend.read(&mut buffer)).await.unwrap();
    }
    assert_eq!(received, sent);
}
