//! WebSockets from clients that speak HTTP/2 (RFC 8441): CONNECT there, an upgrade to the backend.
//!
//! Start at [`Visitor`] and [`Tunnel`]. That a tunnel is a pipe is held in `websocket_relay`; here
//! is what the translation adds, and what streams of one connection must not do to each other.

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use h2::client::ResponseFuture;
use h2::ext::Protocol;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Method, Request, StatusCode, Version};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::TcpListener;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::support::websocket::{FIN, MASK, frame};
use crate::support::{
    Backend, Config, H2Backend, H2Client, Keys, Proxy, Reply, TlsClient, Wire, eventually, within,
};

/// Close 1012, as Pintle writes it to clients.
const CLOSE: [u8; 4] = [FIN | 8, 2, 0x03, 0xf4];

const SITE: &str = "shop.example";
const CLEAR: &str = "protocols = [\"h2c\", \"http/1.1\"]";

/// One HTTP/2 connection of a client.
struct Visitor(H2Client);

impl Visitor {
    async fn over(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Self {
        let client = H2Client::over(stream).await;
        eventually("SETTINGS_ENABLE_CONNECT_PROTOCOL", async || client.may_connect()).await;
        Self(client)
    }

    async fn of(proxy: &Proxy) -> Self {
        Self::over(proxy.wire().await.stream).await
    }

    /// Sends a head and keeps the stream open.
    async fn ask(&mut self, request: Request<()>) -> (ResponseFuture, SendStream<Bytes>) {
        self.0.send(request, false).await
    }

    async fn status(&mut self, request: Request<()>) -> u16 {
        let (answer, _up) = self.ask(request).await;
        within("an answer", answer).await.unwrap().status().as_u16()
    }

    /// The answer to a handshake, its body included.
    async fn refusal(&mut self, path: &str) -> (u16, HeaderMap, Vec<u8>) {
        let (answer, _up) = self.ask(handshake(path)).await;
        let (head, mut body) = within("an answer", answer).await.unwrap().into_parts();
        let mut bytes = Vec::new();
        while let Some(part) = within("a body", body.data()).await {
            bytes.extend(part.unwrap());
        }
        (head.status.as_u16(), head.headers, bytes)
    }

    /// A tunnel, and the head of the answer that opened it.
    async fn open(&mut self) -> (Tunnel, HeaderMap) {
        let (answer, up) = self.ask(handshake("/chat")).await;
        let (head, down) = within("an answer", answer).await.unwrap().into_parts();
        assert_eq!(head.status, StatusCode::OK);
        (Tunnel { up, down, buffer: BytesMut::new() }, head.headers)
    }
}

/// CONNECT with that protocol.
fn connect(path: &str, protocol: &'static str) -> Request<()> {
    let mut request = Request::new(());
    *request.method_mut() = Method::CONNECT;
    *request.uri_mut() = format!("http://{SITE}{path}").parse().unwrap();
    *request.version_mut() = Version::HTTP_2;
    request.extensions_mut().insert(Protocol::from_static(protocol));
    request
}

fn handshake(path: &str) -> Request<()> {
    let mut request = connect(path, "websocket");
    request.headers_mut().insert("sec-websocket-version", "13".parse().unwrap());
    request.headers_mut().insert("sec-websocket-protocol", "chat, superchat".parse().unwrap());
    request
}

/// A stream that has become a tunnel.
struct Tunnel {
    up: SendStream<Bytes>,
    down: RecvStream,
    buffer: BytesMut,
}

impl Tunnel {
    /// Sends all of it, as the windows allow.
    async fn send(&mut self, bytes: &[u8]) {
        let mut rest = Bytes::copy_from_slice(bytes);
        while !rest.is_empty() {
            self.up.reserve_capacity(rest.len());
            let room = within("a window", std::future::poll_fn(|cx| self.up.poll_capacity(cx))).await;
            let room = room.expect("the stream is open").unwrap().min(rest.len());
            self.up.send_data(rest.split_to(room), false).unwrap();
        }
    }

    fn finish(&mut self) {
        self.up.send_data(Bytes::new(), true).unwrap();
    }

    /// Reads once; `None` at the end.
    async fn more(&mut self) -> Option<Result<(), h2::Error>> {
        let part = within("data", self.down.data()).await?;
        Some(part.map(|part| {
            self.down.flow_control().release_capacity(part.len()).unwrap();
            self.buffer.extend_from_slice(&part);
        }))
    }

    async fn bytes(&mut self, length: usize) -> Vec<u8> {
        while self.buffer.len() < length {
            self.more().await.expect("more to come").unwrap();
        }
        self.buffer.split_to(length).to_vec()
    }

    /// Everything until the stream ends, and whether it ended by a reset.
    async fn rest(&mut self) -> (Vec<u8>, Option<Reason>) {
        let reason = loop {
            match self.more().await {
                None => break None,
                Some(Ok(())) => {}
                Some(Err(error)) => break error.reason(),
            }
        };
        (self.buffer.split().to_vec(), reason)
    }

    /// A text there and back.
    async fn say(&mut self, text: &str) -> String {
        self.send(&masked(text)).await;
        let head = self.bytes(2).await;
        assert_eq!(head[0], 0x81, "a whole text, not masked");
        String::from_utf8(self.bytes(head[1].into()).await).unwrap()
    }
}

/// A short text as a client sends it.
fn masked(text: &str) -> Vec<u8> {
    let mask = [7, 13, 200, 1];
    let mut frame = vec![0x81, 0x80 | u8::try_from(text.len()).unwrap()];
    frame.extend(mask);
    frame.extend(text.bytes().enumerate().map(|(at, byte)| byte ^ mask[at % 4]));
    frame
}

/// A balancer before a backend that is a bare socket.
struct Stand {
    proxy: Proxy,
    backend: TcpListener,
}

impl Stand {
    async fn new(route: &str) -> Self {
        let backend = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let pool = format!("[pool.app]\nbackends = [\"{}\"]", backend.local_addr().unwrap());
        let config = Config::from(&*pool).listener(CLEAR).route(&format!("pool = \"app\"\n{route}"));
        Self { proxy: Proxy::start(config).await, backend }
    }

    /// The backend's next connection, and the key that came by it.
    async fn accept(&self) -> (Wire, String) {
        let (stream, _) = within("a connection", self.backend.accept()).await.unwrap();
        let mut wire = Wire::new(stream);
        let head = String::from_utf8(within("a head", wire.head()).await.expect("a head")).unwrap();
        let key = head.lines().find_map(|line| line.strip_prefix("sec-websocket-key: ")).unwrap_or_default();
        (wire, key.to_owned())
    }

    /// An open tunnel and the backend's end of it.
    async fn tunnel(&self, visitor: &mut Visitor) -> (Tunnel, Wire) {
        let granted = async {
            let (mut wire, key) = self.accept().await;
            wire.send(switch(&derive_accept_key(key.as_bytes()))).await;
            wire
        };
        let ((tunnel, _), wire) = tokio::join!(visitor.open(), granted);
        (tunnel, wire)
    }

    async fn tunnels(&self, count: u64) {
        let there = async || self.proxy.status().await.totals.tunnels == count;
        eventually(&format!("{count} tunnels"), there).await;
    }
}

fn switch(accept: &str) -> String {
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: chat\r\n\r\n"
    )
}

fn noise(length: usize, step: usize) -> Vec<u8> {
    (0..length).map(|at| (at * step + at / 251) as u8).collect()
}

#[tokio::test]
async fn a_websocket_over_http_2_is_an_upgrade_to_the_backend() {
    let (keys, a) = (Keys::for_names(&[SITE]), Backend::start("a").await);
    a.reply(Reply::websocket());
    for tls in [false, true] {
        let listener = if tls { keys.tls(&["site"]) } else { CLEAR.to_owned() };
        let proxy = Proxy::start(Config::app(&[&a], "policy = \"sticky_cookie\"").listener(&listener)).await;
        let mut visitor = if tls {
            Visitor::over(TlsClient::new(proxy.address).offering(&["h2"]).open(SITE).await.stream).await
        } else {
            Visitor::of(&proxy).await
        };
        let (mut tunnel, head) = visitor.open().await;
        for gone in ["sec-websocket-accept", "connection", "upgrade", "content-length"] {
            assert!(!head.contains_key(gone), "{gone}");
        }
        assert!(head["set-cookie"].to_str().unwrap().starts_with("pintle_app="));
        assert_eq!(tunnel.say("hello").await, "a: hello");
        assert_eq!(tunnel.say("again").await, "a: again");

        let request = a.requests().pop().expect("a request");
        assert_eq!((request.method.as_str(), request.target.as_str()), ("GET", "/chat"));
        let expected = [
            ("host", SITE),
            ("connection", "upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-protocol", "chat, superchat"),
            ("x-forwarded-proto", if tls { "https" } else { "http" }),
        ];
        for (name, value) in expected {
            assert_eq!(request.header(name), Some(value), "{name}");
        }
        assert_eq!(request.header("sec-websocket-key").map(str::len), Some(24));

        assert_eq!(proxy.backend("app/a").await.tunnels, 1);
        tunnel.finish();
        assert_eq!(tunnel.rest().await, (Vec::new(), None));
        let (opened, closed) = (proxy.ended("upgraded").await, proxy.ended("tunnel_closed").await);
        assert_eq!(
            (&opened["proto"], &opened["status"], &opened["method"]),
            (&"h2".into(), &200.into(), &"GET".into())
        );
        assert_eq!(opened["id"], closed["id"]);
        assert_eq!(proxy.backend("app/a").await.tunnels, 0);
    }
}

#[tokio::test]
async fn frames_cross_in_the_pieces_that_were_sent_however_they_are_split() {
    let stand = Stand::new("").await;
    let mut visitor = Visitor::of(&stand.proxy).await;
    let (mut tunnel, mut backend) = stand.tunnel(&mut visitor).await;
    let frame = [masked("a text"), vec![0x89, 0x00], noise(300, 3)].concat();
    for at in 1..frame.len() {
        for piece in [&frame[..at], &frame[at..]] {
            tunnel.send(piece).await;
            assert_eq!(backend.bytes(piece.len()).await, piece);
            backend.send(piece).await;
            assert_eq!(tunnel.bytes(piece.len()).await, piece);
        }
    }
}

#[tokio::test]
async fn both_directions_carry_more_than_their_windows_at_once() {
    let stand = Stand::new("").await;
    let mut visitor = Visitor::of(&stand.proxy).await;
    let (mut tunnel, backend) = stand.tunnel(&mut visitor).await;
    let (up, down) = (noise(3 << 20, 7), noise(3 << 20, 11));
    let (mut reads, mut writes) = backend.stream.into_split();
    let (mut at_backend, mut at_client) = (vec![0; up.len()], Vec::new());
    let Tunnel { up: to_backend, down: from_backend, .. } = &mut tunnel;
    let sends = async {
        for piece in up.chunks(50_000) {
            let mut rest = Bytes::copy_from_slice(piece);
            while !rest.is_empty() {
                to_backend.reserve_capacity(rest.len());
                let room = std::future::poll_fn(|cx| to_backend.poll_capacity(cx)).await.unwrap().unwrap();
                to_backend.send_data(rest.split_to(room.min(rest.len())), false).unwrap();
            }
        }
    };
    let receives = async {
        while at_client.len() < down.len() {
            let part = from_backend.data().await.expect("more to come").unwrap();
            from_backend.flow_control().release_capacity(part.len()).unwrap();
            at_client.extend_from_slice(&part);
        }
    };
    let backend_sends = async { tokio::io::AsyncWriteExt::write_all(&mut writes, &down).await.unwrap() };
    let backend_receives = async { reads.read_exact(&mut at_backend).await.map(drop).unwrap() };
    within("all of it", async { tokio::join!(sends, receives, backend_sends, backend_receives) }).await;
    assert!(at_backend == up && at_client == down, "what arrives is what was sent");
}

#[tokio::test]
async fn an_end_of_either_side_leaves_the_other_open() {
    let stand = Stand::new("").await;
    let mut visitor = Visitor::of(&stand.proxy).await;
    let (mut tunnel, mut backend) = stand.tunnel(&mut visitor).await;
    tunnel.send(b"last words").await;
    tunnel.finish();
    assert_eq!(backend.rest().await, b"last words");
    backend.send("still here").await;
    assert_eq!(tunnel.bytes(10).await, b"still here");
    backend.finish().await;
    assert_eq!(tunnel.rest().await, (Vec::new(), None));
    stand.tunnels(0).await;

    let (mut tunnel, mut backend) = stand.tunnel(&mut visitor).await;
    backend.send("bye").await;
    backend.finish().await;
    assert_eq!(tunnel.rest().await, (b"bye".to_vec(), None));
    tunnel.send(b"still here").await;
    assert_eq!(backend.bytes(10).await, b"still here");
    stand.tunnels(1).await;
    tunnel.finish();
    assert_eq!(backend.rest().await, b"");
    stand.tunnels(0).await;
}

#[tokio::test]
async fn a_stream_that_is_cancelled_ends_its_tunnel_and_no_other() {
    let stand = Stand::new("").await;
    let mut visitor = Visitor::of(&stand.proxy).await;
    let (mut first, mut one) = stand.tunnel(&mut visitor).await;
    let (mut second, mut two) = stand.tunnel(&mut visitor).await;
    // Neither backend does anything of its own.
    first.send(b"last words").await;
    assert_eq!(one.bytes(10).await, b"last words");
    first.up.send_reset(Reason::CANCEL);
    assert_eq!(one.rest().await, b"");
    stand.tunnels(1).await;
    second.send(b"hello").await;
    assert_eq!(two.bytes(5).await, b"hello");
    // And a backend that breaks off ends its stream alone.
    two.reset();
    drop(second.rest().await);
    stand.tunnels(0).await;
    let (mut third, mut three) = stand.tunnel(&mut visitor).await;
    three.send("hello").await;
    assert_eq!(third.bytes(5).await, b"hello");
    // A connection that is gone ends all of its tunnels.
    visitor.0.hang_up();
    assert_eq!(three.rest().await, b"");
    stand.tunnels(0).await;
}

#[tokio::test]
async fn a_handshake_that_is_refused_is_answered_as_the_backend_did() {
    let stand = Stand::new("").await;
    let mut visitor = Visitor::of(&stand.proxy).await;
    for status in [302, 403, 404, 426, 503] {
        let answers = async {
            let (mut wire, _) = stand.accept().await;
            let head = format!("HTTP/1.1 {status} Because\r\nUpgrade: other\r\nX-Why: because\r\n");
            wire.send(format!("{head}Connection: close, upgrade\r\nContent-Length: 2\r\n\r\nno")).await;
        };
        let ((seen, head, body), ()) = tokio::join!(visitor.refusal("/chat"), answers);
        assert_eq!((seen, &head["x-why"], &body[..]), (status, &"because".parse().unwrap(), &b"no"[..]));
        assert!(!head.contains_key("upgrade"));
    }
    stand.tunnels(0).await;
    stand.tunnel(&mut visitor).await;
}

#[tokio::test]
async fn what_would_be_taken_for_a_tunnel_and_is_none_is_a_502() {
    let stand = Stand::new("").await;
    let mut visitor = Visitor::of(&stand.proxy).await;
    let answer =
        |status: &str, lines: &str| format!("HTTP/1.1 {status} X\r\n{lines}Content-Length: 2\r\n\r\nno");
    for bytes in [
        answer("200", ""),
        answer("204", "").replace("Content-Length: 2\r\n\r\nno", "\r\n"),
        answer("200", "Connection: upgrade\r\nUpgrade: websocket\r\n"),
        switch("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
        switch("x").replace("Sec-WebSocket-Accept: x\r\n", ""),
        switch("x").replace("Upgrade: websocket", "Upgrade: h2c"),
    ] {
        let answers = async {
            let (mut wire, _) = stand.accept().await;
            wire.send(&bytes).await;
            wire
        };
        let ((seen, ..), mut wire) = tokio::join!(visitor.refusal("/chat"), answers);
        assert_eq!(seen, 502, "{bytes:?}");
        assert_eq!(wire.rest().await, b"", "{bytes:?}");
    }
    stand.tunnels(0).await;
}

#[tokio::test]
async fn connect_opens_nothing_but_websockets() {
    let a = Backend::start("a").await;
    let b = H2Backend::start("b").await;
    let config = Config::app(&[&a], "")
        .text(&format!("[pool.multi]\nprotocol = \"h2c\"\nbackends = [\"{}\"]", b.address))
        .listener(CLEAR)
        .route("pool = \"app\"")
        .route("path = \"/multi\"\npool = \"multi\"")
        .route("path = \"/own\"\nrespond = { status = 200, body = \"mine\" }")
        .route("path = \"/gone\"\nrespond = { status = 410, body = \"gone\" }");
    let proxy = Proxy::start(config).await;
    let mut visitor = Visitor::of(&proxy).await;
    assert_eq!(visitor.status(connect("/chat", "connect-udp")).await, 501);
    assert_eq!(visitor.status(connect("/chat", "websocket2")).await, 501);
    let mut plain = connect("", "");
    *plain.uri_mut() = format!("{SITE}:443").parse().unwrap();
    plain.extensions_mut().remove::<Protocol>();
    assert_eq!(visitor.status(plain).await, 405);
    // Where the route itself answers, or the pool knows no upgrade.
    assert_eq!(visitor.status(handshake("/own")).await, 501);
    assert_eq!(visitor.status(handshake("/gone")).await, 410);
    assert_eq!(visitor.status(handshake("/multi")).await, 502);
    assert_eq!(a.count(), 0);
    let mut get = handshake("/chat");
    *get.method_mut() = Method::GET;
    get.extensions_mut().remove::<Protocol>();
    let (answer, _) = visitor.0.send(get, true).await;
    assert_eq!(within("an answer", answer).await.unwrap().status(), 200);
    assert_eq!((a.count(), proxy.status().await.totals.tunnels), (1, 0));
}

#[tokio::test]
async fn a_backend_gets_nothing_of_a_tunnel_before_its_own_101() {
    let stand = Stand::new("").await;
    let mut visitor = Visitor::of(&stand.proxy).await;
    let (answer, mut up) = visitor.ask(handshake("/chat")).await;
    up.send_data(Bytes::from_static(b"early"), false).unwrap();
    let (mut backend, key) = stand.accept().await;
    // Whatever would be sent is sent before a request that comes later is answered.
    let (later, _up) = visitor.ask(handshake("/chat")).await;
    let (mut other, _) = stand.accept().await;
    other.send("HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(within("an answer", later).await.unwrap().status(), 403);
    let read = backend.stream.try_read(&mut [0]);
    assert!(backend.buffer.is_empty() && read.is_err(), "{read:?}");
    backend.send(format!("{}hello", switch(&derive_accept_key(key.as_bytes())))).await;
    let (head, down) = within("an answer", answer).await.unwrap().into_parts();
    assert_eq!(
        (head.status, &head.headers["sec-websocket-protocol"]),
        (StatusCode::OK, &"chat".parse().unwrap())
    );
    assert_eq!(backend.bytes(5).await, b"early");
    let mut tunnel = Tunnel { up, down, buffer: BytesMut::new() };
    assert_eq!(tunnel.bytes(5).await, b"hello");
}

#[tokio::test]
async fn a_silent_tunnel_is_closed_after_its_idle_timeout_and_a_busy_one_is_not() {
    let stand = Stand::new("websocket.idle_timeout = \"1s\"").await;
    let mut visitor = Visitor::of(&stand.proxy).await;
    let (mut silent, mut one) = stand.tunnel(&mut visitor).await;
    let (mut busy, mut two) = stand.tunnel(&mut visitor).await;
    let begun = Instant::now();
    let talk = async {
        while begun.elapsed() < Duration::from_millis(2500) {
            busy.send(b"I am here").await;
            assert_eq!(two.bytes(9).await, b"I am here");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let end = async {
        let (bytes, _) = silent.rest().await;
        (bytes, one.rest().await, begun.elapsed())
    };
    let ((), (to_client, to_backend, after)) = tokio::join!(talk, end);
    assert!(to_client.is_empty() && to_backend.is_empty());
    assert!((Duration::from_millis(900)..Duration::from_millis(2500)).contains(&after), "{after:?}");
    stand.proxy.ended("idle_timeout").await;
    stand.tunnels(1).await;
}

#[tokio::test]
async fn a_drain_waits_for_a_tunnel_and_closes_it_alone_before_its_deadline() {
    let [a, b] = Backend::fleet(["a", "b"]).await;
    for backend in [&a, &b] {
        backend.reply(Reply::websocket());
    }
    let pool = Config::default().pool_of("app", &[a.toml(""), b.toml("backup = true")], "");
    let proxy = Proxy::start(pool.listener(CLEAR)).await;
    let mut visitor = Visitor::of(&proxy).await;
    let (mut first, _) = visitor.open().await;
    assert_eq!(first.say("1").await, "a: 1");
    let begun = Instant::now();
    let drain = proxy.drain("app/a", Some(Duration::from_secs(2)));
    let talk = async {
        while begun.elapsed() < Duration::from_millis(1500) {
            assert_eq!(first.say("2").await, "a: 2");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let (mut second, _) = visitor.open().await;
        assert_eq!(second.say("3").await, "b: 3");
        assert_eq!(first.bytes(4).await, CLOSE);
        assert!(begun.elapsed() >= Duration::from_millis(1_700));
        first.send(&frame(FIN | 8, Some(MASK), &1012_u16.to_be_bytes())).await;
        assert_eq!(first.rest().await, (Vec::new(), None));
        assert_eq!(second.say("4").await, "b: 4");
    };
    let (view, ()) = tokio::join!(drain, talk);
    let view = view.unwrap();
    assert_eq!((view.state.as_str(), view.websockets_closed, view.tunnels_cut), ("drained", 1, 0));
    assert_eq!(view.requests_cut, 0);
    proxy.ended("drained").await;
}

#[tokio::test]
async fn a_shutdown_does_not_wait_for_a_tunnel_beyond_its_deadline() {
    let a = Backend::start("a").await;
    a.reply(Reply::websocket());
    let config = Config::app(&[&a], "").listener(CLEAR).server("drain_timeout = \"1s\"");
    let proxy = Proxy::start(config).await;
    let mut visitor = Visitor::of(&proxy).await;
    let (mut tunnel, _) = visitor.open().await;
    assert_eq!(tunnel.say("1").await, "a: 1");
    let begun = Instant::now();
    let (report, (bytes, reset)) = tokio::join!(proxy.shutdown(), tunnel.rest());
    // Told, and given up for want of an answer.
    assert_eq!((bytes, reset), (CLOSE.to_vec(), None));
    assert_eq!((report.websockets_closed, report.tunnels_cut), (1, 0));
    assert!((Duration::from_millis(900)..Duration::from_secs(5)).contains(&begun.elapsed()));
}

#[tokio::test]
async fn one_connection_carries_many_tunnels() {
    let a = Backend::start("a").await;
    a.reply(Reply::websocket());
    let proxy = Proxy::start(Config::app(&[&a], "").listener(CLEAR)).await;
    let mut visitor = Visitor::of(&proxy).await;
    let mut tunnels = Vec::new();
    for _ in 0..100 {
        tunnels.push(visitor.open().await.0);
    }
    assert_eq!(proxy.backend("app/a").await.tunnels, 100);
    for turn in 0..3 {
        for (at, tunnel) in tunnels.iter_mut().enumerate() {
            let text = format!("{turn} of {at}");
            assert_eq!(tunnel.say(&text).await, format!("a: {text}"));
        }
    }
    drop(tunnels);
    eventually("no tunnel", async || proxy.status().await.totals.tunnels == 0).await;
}

#[tokio::test]
async fn a_client_that_reads_nothing_of_one_tunnel_is_served_on_the_others() {
    let stand = Stand::new("").await;
    let mut visitor = Visitor::of(&stand.proxy).await;
    let (mut stalled, mut one) = stand.tunnel(&mut visitor).await;
    let (mut lively, mut two) = stand.tunnel(&mut visitor).await;
    // More than all windows and sockets on the way: it is taken no further than they are large.
    let flood = noise(32 << 20, 5);
    let flooding = tokio::spawn({
        let flood = flood.clone();
        async move {
            tokio::io::AsyncWriteExt::write_all(&mut one.stream, &flood).await.unwrap();
            one
        }
    });
    for turn in 0..500 {
        let text = format!("turn {turn}");
        lively.send(text.as_bytes()).await;
        assert_eq!(two.bytes(text.len()).await, text.as_bytes());
        two.send(&text).await;
        assert_eq!(lively.bytes(text.len()).await, text.as_bytes());
    }
    assert!(!flooding.is_finished(), "nobody reads, and all of it was taken");
    assert!(stalled.bytes(flood.len()).await == flood, "what arrives is what was sent");
    drop(within("the flood", flooding).await.unwrap());
}
