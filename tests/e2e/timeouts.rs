//! Every wait has its limit, and nobody who makes progress is cut by it.

use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use crate::support::{Ask, Backend, Config, H2Client, Proxy, Reply, eventually, h2_client, within};

/// More than the wheel's step, less than anybody would notice.
const SHORT: &str = "\"300ms\"";
const SHORTLY: Duration = Duration::from_millis(300);
/// No short limit takes this long, no long one is so short.
const LONG: Duration = Duration::from_secs(5);

/// How long `wait` took.
async fn took(wait: impl Future<Output = ()>) -> Duration {
    let start = Instant::now();
    wait.await;
    start.elapsed()
}

fn shortly(took: Duration) {
    assert!(took >= SHORTLY && took < LONG, "{took:?}");
}

async fn with_listener(backend: &Backend, lines: &str) -> Proxy {
    Proxy::start(Config::app(&[backend], "").listener(lines)).await
}

#[tokio::test]
async fn a_connection_that_says_nothing_is_closed_after_the_first_byte_timeout() {
    let backend = Backend::start("a").await;
    let proxy = with_listener(&backend, &format!("first_byte_timeout = {SHORT}")).await;
    let mut wire = proxy.wire().await;
    shortly(took(async { assert!(wire.rest().await.is_empty()) }).await);
    let sample = r#"pintle_listener_rejected_total{listener="web",reason="first_byte_timeout"}"#;
    eventually("it is counted", async || proxy.metric(sample).await == 1.0).await;
}

#[tokio::test]
async fn a_head_that_dawdles_is_a_408_however_busy_its_bytes() {
    let backend = Backend::start("a").await;
    let proxy = with_listener(&backend, &format!("header_timeout = {SHORT}")).await;
    let mut wire = proxy.wire().await;
    wire.send("GET / HTTP/1.1\r\nHost: h\r\n").await;
    let mut answer = None;
    let drip = async {
        while answer.is_none() {
            wire.send("X: y\r\n").await;
            let next = tokio::time::timeout(Duration::from_millis(20), wire.response_head());
            answer = next.await.ok();
        }
    };
    shortly(took(within("an answer to half a head", drip)).await);
    assert_eq!(answer.flatten().unwrap().status, 408);
    assert_eq!(backend.count(), 0);
    drop(wire);
    let sample = r#"pintle_listener_rejected_total{listener="web",reason="header_timeout"}"#;
    eventually("it is counted", async || proxy.metric(sample).await == 1.0).await;
}

#[tokio::test]
async fn the_second_head_on_a_connection_is_timed_as_the_first() {
    let backend = Backend::start("a").await;
    let proxy = with_listener(&backend, &format!("header_timeout = {SHORT}")).await;
    let mut client = proxy.client();
    client.get("/").await;
    let wire = client.wire().await;
    wire.send("GET / HTTP/1.1\r\n").await;
    shortly(took(async { assert_eq!(wire.response("GET").await.unwrap().status, 408) }).await);
}

#[tokio::test]
async fn an_idle_connection_is_closed_after_the_idle_timeout_and_a_busy_one_is_not() {
    let backend = Backend::start("a").await;
    let proxy = with_listener(&backend, &format!("idle_timeout = {SHORT}")).await;
    let mut client = proxy.client();
    client.get("/").await;
    let wire = client.wire().await;
    shortly(took(async { assert!(wire.rest().await.is_empty()) }).await);

    // Who waits for a backend that thinks longer than that is not idle: the first is answered and
    // then closed for idleness, while the second still waits.
    let (mut first, mut second) = (proxy.client(), proxy.client());
    backend.hold();
    first.send(&Ask::get("/")).await;
    backend.parked(1).await;
    second.send(&Ask::get("/")).await;
    backend.parked(2).await;
    backend.release_one();
    assert_eq!(first.read("GET").await.unwrap().status, 200);
    first.wire().await.rest().await;
    backend.release();
    assert_eq!(second.read("GET").await.unwrap().status, 200);
}

#[tokio::test]
async fn a_parked_connection_still_serves_and_still_ends() {
    let backend = Backend::start("a").await;
    // Longer than the second after which an idle connection is parked.
    let proxy = with_listener(&backend, "idle_timeout = \"1500ms\"").await;
    let mut client = proxy.client();
    client.get("/").await;
    let wire = client.wire().await;
    let idle = took(async { assert!(wire.rest().await.is_empty()) }).await;
    assert!(idle >= Duration::from_millis(1500) && idle < LONG, "{idle:?}");
}

#[tokio::test]
async fn a_backend_that_does_not_answer_in_time_is_a_504() {
    let backend = Backend::start("a").await;
    backend.reply(Reply::stall());
    let proxy = Proxy::start(Config::app(&[&backend], &format!("timeouts.response = {SHORT}"))).await;
    let mut client = proxy.client();
    for ask in [Ask::get("/"), Ask::post("/", "body")] {
        let waited = took(async {
            let answer = client.ask(ask).await;
            assert_eq!(answer.status, 504);
            assert!(answer.text().contains("504 response_timeout"), "{}", answer.text());
        });
        shortly(waited.await);
    }
    // Nobody else gets the late answer, and the waiting connection is given up.
    backend.deserted().await;
    assert_eq!(backend.count(), 2, "a slow answer is not asked for again");
}

#[tokio::test]
async fn a_backend_that_stops_in_the_middle_of_its_answer_is_cut_off() {
    for head in ["Content-Length: 10\r\n\r\nhello", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"] {
        let backend = Backend::start("a").await;
        backend.reply(Reply::raw(format!("HTTP/1.1 200 OK\r\n{head}")).then_stall());
        let proxy = Proxy::start(Config::app(&[&backend], &format!("timeouts.idle = {SHORT}"))).await;
        let mut client = proxy.client();
        let waited = took(async {
            let answer = client.get("/").await;
            assert_eq!((answer.text().as_str(), answer.whole), ("hello", false));
        });
        shortly(waited.await);
        assert_eq!(proxy.logged(1).await[0]["end"], "idle_timeout");
        backend.deserted().await;
    }
}

/// A port where connections are neither taken nor refused.
fn black_hole() -> (Socket, Vec<std::net::TcpStream>, String) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&"127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
    socket.listen(0).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    let mut filling = Vec::new();
    // The queue of those who wait to be accepted is full once the kernel answers no more.
    while let Ok(stream) = std::net::TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
        filling.push(stream);
        assert!(filling.len() < 64, "the queue never fills");
    }
    (socket, filling, address.to_string())
}

#[tokio::test]
async fn a_connect_that_is_not_answered_is_a_504_or_goes_elsewhere() {
    let (_socket, _filling, address) = black_hole();
    let hole = format!("{{ name = \"hole\", address = {address:?} }}");
    let lines = format!("timeouts.connect = {SHORT}\nhold.max = 0\npolicy = \"round_robin\"");
    let proxy = Proxy::start(Config::default().pool_of("app", std::slice::from_ref(&hole), &lines)).await;
    let mut client = proxy.client();
    let waited = took(async {
        let answer = client.post("/", "body").await;
        assert!([503, 504].contains(&answer.status), "{}", answer.text());
    });
    shortly(waited.await);

    let backend = Backend::start("a").await;
    let proxy = Proxy::start(Config::default().pool_of("app", &[hole, backend.toml("")], &lines)).await;
    let mut client = proxy.client();
    for _ in 0..2 {
        assert_eq!(client.post("/", "body").await.served_by(), "a");
    }
    assert_eq!(backend.requests().iter().filter(|request| request.text() == "body").count(), 2);
}

#[tokio::test]
async fn a_routes_timeout_limits_hold_and_all_attempts_together() {
    let down = Backend::refusing("down");
    let slow = Backend::start("slow").await;
    slow.reply(Reply::stall());
    let route =
        format!("timeout = {SHORT}\nretry = {{ attempts = 5, on = [\"connect\", \"response_timeout\"] }}");
    let config = Config::default()
        .pool("down", &[&down], "hold.timeout = \"30s\"")
        .pool("slow", &[&slow], "timeouts.response = \"30s\"")
        .route(&format!("path = \"/down\"\npool = \"down\"\n{route}"))
        .route(&format!("path = \"/slow\"\npool = \"slow\"\n{route}"));
    let proxy = Proxy::start(config).await;
    for (target, status) in [("/down", 503), ("/slow", 504)] {
        let waited = took(async { assert_eq!(proxy.client().get(target).await.status, status, "{target}") });
        shortly(waited.await);
    }
    assert_eq!(slow.count(), 1);
}

#[tokio::test]
async fn an_upload_that_moves_lives_longer_than_the_response_timeout() {
    let backend = Backend::start("a").await;
    let config = Config::app(&[&backend], &format!("timeouts.response = {SHORT}"))
        .route(&format!("pool = \"app\"\ntimeout = {SHORT}"));
    let proxy = Proxy::start(config).await;
    let mut wire = proxy.wire().await;
    wire.send("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    let start = Instant::now();
    let mut sent = 0;
    while start.elapsed() < 3 * SHORTLY {
        wire.send("1\r\nx\r\n").await;
        sent += 1;
        // The backend sees it, then a moment passes.
        let arrived = async || backend.requests().first().is_some_and(|request| request.body.len() >= sent);
        eventually("the byte arrives", arrived).await;
        let quiet = tokio::time::timeout(Duration::from_millis(20), wire.more()).await;
        assert!(quiet.is_err(), "answered early: {:?}", String::from_utf8_lossy(&wire.buffer));
    }
    wire.send("0\r\n\r\n").await;
    assert_eq!(wire.response("POST").await.unwrap().status, 200);
}

#[tokio::test]
async fn a_download_that_moves_lives_longer_than_every_limit_whatever_its_client_speaks() {
    const PIECES: usize = 6;
    const LIMIT: &str = "\"1s\"";
    let drip = |_: &crate::support::Request| {
        let head = Reply::raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        let pieces = (0..PIECES).fold(head, |reply, _| reply.then(Reply::raw("1\r\nx\r\n")).then_park());
        pieces.then(Reply::raw("0\r\n\r\n"))
    };
    let backend = Backend::start("a").await;
    backend.answer(drip);
    let limits = format!("timeouts = {{ response = {LIMIT}, idle = {LIMIT} }}");
    let config = Config::app(&[&backend], &limits)
        .listener(&format!("idle_timeout = {LIMIT}\nprotocols = [\"h2c\", \"http/1.1\"]"))
        .route(&format!("pool = \"app\"\ntimeout = {LIMIT}"));
    let proxy = Proxy::start(config).await;
    // No pause is too long; all of them together are.
    let pause = async || tokio::time::sleep(Duration::from_millis(400)).await;
    let start = Instant::now();
    let mut wire = proxy.wire().await;
    wire.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
    let mut answer = wire.response_head().await.unwrap();
    for _ in 0..PIECES {
        backend.parked(1).await;
        pause().await;
        backend.release_one();
    }
    wire.finish_response("GET", &mut answer).await;
    assert_eq!((answer.body.len(), answer.whole), (PIECES, true));
    assert!(start.elapsed() > Duration::from_secs(2));

    let mut client = H2Client::open(proxy.address).await;
    let (answer, _) = client.send(h2_client::get("/"), true).await;
    let mut incoming = answer.await.unwrap().into_body();
    let drip = async {
        for _ in 0..PIECES {
            backend.parked(1).await;
            pause().await;
            backend.release_one();
        }
    };
    let (body, ()) = tokio::join!(h2_client::read(&mut incoming), drip);
    assert_eq!(body.unwrap().len(), PIECES);
}

#[tokio::test]
async fn an_upload_that_stops_is_cut_after_the_response_timeout() {
    let backend = Backend::start("a").await;
    let proxy = Proxy::start(Config::app(&[&backend], &format!("timeouts.response = {SHORT}"))).await;
    let mut wire = proxy.wire().await;
    wire.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nhello").await;
    let waited = took(async { assert_eq!(wire.response("POST").await.unwrap().status, 504) });
    shortly(waited.await);
    backend.deserted().await;
}

#[tokio::test]
async fn a_client_that_stops_reading_is_cut_after_the_idle_timeout() {
    let backend = Backend::start("a").await;
    backend.reply(Reply::text(vec![b'x'; 32 * 1024 * 1024]));
    let proxy = with_listener(&backend, &format!("idle_timeout = {SHORT}")).await;
    let mut wire = proxy.wire().await;
    wire.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
    backend.deserted().await;
    let line = &proxy.logged(1).await[0];
    assert_eq!(line["end"], "client_abort");
    assert!(line["resp_bytes"].as_u64().unwrap() < 32 * 1024 * 1024);
    let mut answer = wire.response_head().await.unwrap();
    wire.finish_response("GET", &mut answer).await;
    assert!(!answer.whole);
}

#[tokio::test]
async fn a_client_that_reads_slowly_is_not_cut() {
    let backend = Backend::start("a").await;
    backend.reply(Reply::text(vec![b'x'; 24 * 1024 * 1024]));
    let proxy = with_listener(&backend, &format!("idle_timeout = {SHORT}")).await;
    let mut wire = proxy.wire().await;
    wire.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
    wire.response_head().await.unwrap();
    let start = Instant::now();
    let mut read = wire.buffer.len();
    while start.elapsed() < 3 * SHORTLY {
        read += wire.bytes(64 * 1024).await.len();
        let _ = tokio::time::timeout(Duration::from_millis(10), std::future::pending::<()>()).await;
    }
    while read < 24 * 1024 * 1024 {
        let part = wire.bytes(64 * 1024).await.len();
        assert!(part > 0, "cut after {read} bytes");
        read += part;
    }
}

#[tokio::test]
async fn a_silent_tunnel_ends_after_its_own_idle_timeout() {
    let backend = Backend::start("a").await;
    backend.reply(Reply::upgrade("chat", "hi"));
    let config = Config::app(&[&backend], "timeouts.idle = \"100ms\"")
        .listener("idle_timeout = \"100ms\"")
        .route("pool = \"app\"\nwebsocket.idle_timeout = \"1s\"");
    let proxy = Proxy::start(config).await;
    let mut wire = proxy.wire().await;
    wire.send("GET / HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: chat\r\n\r\n").await;
    assert_eq!(wire.response_head().await.unwrap().status, 101);
    let waited = took(async { assert_eq!(wire.rest().await, b"hi") }).await;
    assert!(waited > Duration::from_millis(900) && waited < LONG, "{waited:?}");
    assert_eq!(proxy.logged(2).await[1]["end"], "idle_timeout");
}

#[tokio::test]
async fn a_request_that_is_held_too_long_is_a_503() {
    let backend = Backend::refusing("a");
    let proxy = Proxy::start(Config::app(&[&backend], &format!("hold.timeout = {SHORT}"))).await;
    let mut client = proxy.client();
    let waited = took(async {
        let answer = client.get("/").await;
        assert_eq!(answer.status, 503);
        assert!(answer.text().contains("503 hold_timeout"), "{}", answer.text());
    });
    shortly(waited.await);
}
