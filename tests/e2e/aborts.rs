//! Clients that leave: their requests end at the backend at once, and nobody else is blamed.

use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::SendStream;
use h2::client::ResponseFuture;
use http::Request;
use tokio::io::AsyncWriteExt;

use crate::support::{
    Backend, Config, H2Backend, H2Client, H2Reply, Proxy, Reply, Wire, eventually, h2_client, within,
};

/// Within this the backend knows, on a machine that has other things to do as well.
const AT_ONCE: Duration = Duration::from_secs(1);

/// More than all buffers on the way hold.
const MUCH: usize = 64 * 1024 * 1024;

/// Where the request is when its client leaves.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Amid {
    Wait,
    Answer,
    Upload,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Leaves {
    /// HTTP/1 closes, HTTP/2 takes the one request back.
    Politely,
    /// The connection is reset, or gone with all that it carried.
    Rudely,
}

/// A client in the middle of a request.
enum Client {
    Http1(Wire),
    Http2(H2Client, Option<ResponseFuture>, SendStream<Bytes>),
}

impl Client {
    async fn http1(proxy: &Proxy, amid: Amid) -> Self {
        let mut wire = proxy.wire().await;
        match amid {
            Amid::Upload => wire.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99\r\n\r\nhalf").await,
            Amid::Wait | Amid::Answer => wire.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await,
        }
        if amid == Amid::Answer {
            wire.head().await.expect("a head");
        }
        Self::Http1(wire)
    }

    async fn http2(proxy: &Proxy, amid: Amid) -> Self {
        let mut client = H2Client::open(proxy.address).await;
        if amid == Amid::Upload {
            let post = Request::post("http://test.example/").body(()).unwrap();
            let (answer, mut upload) = client.send(post, false).await;
            upload.send_data("half".into(), false).unwrap();
            return Self::Http2(client, Some(answer), upload);
        }
        let (answer, upload) = client.send(h2_client::get("/"), true).await;
        Self::Http2(client, Some(answer), upload)
    }

    async fn leave(self, leaves: Leaves, amid: Amid) -> Option<H2Client> {
        match (self, leaves) {
            (Self::Http1(wire), Leaves::Politely) => drop(wire),
            (Self::Http1(wire), Leaves::Rudely) => wire.reset(),
            (Self::Http2(client, answer, upload), _) => {
                let mut answer = answer.expect("begun");
                let incoming =
                    if amid == Amid::Answer { Some((&mut answer).await.expect("a head")) } else { None };
                if leaves == Leaves::Rudely {
                    client.hang_up();
                    return None;
                }
                drop((incoming, answer, upload));
                // The connection goes on, for others.
                return Some(client);
            }
        }
        None
    }
}

/// A backend of either protocol.
enum Behind {
    Http1(Backend),
    H2c(H2Backend),
}

impl Behind {
    /// It has the request, and will be in the midst of it for long.
    fn prepare(&self, amid: Amid) {
        match (self, amid) {
            (Self::Http1(a), Amid::Answer) => {
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {MUCH}\r\n\r\n");
                a.reply(Reply::raw([head.as_bytes(), &vec![b'x'; MUCH / 2]].concat()).then_stall());
            }
            (Self::Http1(a), _) => a.reply(Reply::stall()),
            (Self::H2c(a), Amid::Answer) => a.reply(H2Reply::Flood(MUCH)),
            (Self::H2c(a), _) => a.reply(H2Reply::Stall),
        }
    }

    async fn is_amid(&self, count: usize, amid: Amid) {
        match self {
            Self::Http1(a) => drop(a.seen(count).await),
            Self::H2c(a) => drop(a.seen(count).await),
        }
        let half = || match self {
            Self::Http1(a) => a.requests()[count - 1].text() == "half",
            Self::H2c(a) => a.requests()[count - 1].text() == "half",
        };
        eventually("half of it has come", async || amid != Amid::Upload || half()).await;
    }

    async fn lets_go(&self, count: usize) {
        match self {
            Self::Http1(a) => a.deserted().await,
            Self::H2c(a) => eventually("the stream is reset", async || a.resets() == count).await,
        }
    }
}

#[tokio::test]
async fn a_client_that_leaves_ends_its_request_at_the_backend_at_once_and_speaks_against_nobody() {
    for h2c in [false, true] {
        let (a, spare) = (Backend::start("a").await, Backend::start("spare").await);
        let (a, address, protocol) = match h2c {
            false => {
                let address = a.address;
                (Behind::Http1(a), address, "http/1.1")
            }
            true => {
                let a = H2Backend::start("a").await;
                let address = a.address;
                (Behind::H2c(a), address, "h2c")
            }
        };
        // One fault would eject it, and the other takes its place.
        let backends = [format!("{{ name = \"a\", address = \"{address}\" }}"), spare.toml("backup = true")];
        let pool = format!(
            "protocol = {protocol:?}\n[pool.app.outlier]\nconsecutive_errors = 1\nmax_ejected = 1.0\neject = \"5m\""
        );
        let config = Config::default().pool_of("app", &backends, &pool);
        let proxy = Proxy::start(config.listener("protocols = [\"h2c\", \"http/1.1\"]")).await;
        let (mut count, mut slowest) = (0, Duration::ZERO);
        for amid in [Amid::Wait, Amid::Answer, Amid::Upload] {
            a.prepare(amid);
            for (leaves, http2) in [
                (Leaves::Politely, false),
                (Leaves::Rudely, false),
                (Leaves::Politely, true),
                (Leaves::Rudely, true),
            ] {
                let what = format!("{amid:?}, {leaves:?}, from HTTP/2: {http2}, to h2c: {h2c}");
                let client = match http2 {
                    false => Client::http1(&proxy, amid).await,
                    true => Client::http2(&proxy, amid).await,
                };
                count += 1;
                a.is_amid(count, amid).await;
                let kept = client.leave(leaves, amid).await;
                let begun = Instant::now();
                a.lets_go(count).await;
                let took = begun.elapsed();
                assert!(took < AT_ONCE, "{what}: {took:?}");
                slowest = slowest.max(took);
                let line = proxy.logged(count).await.pop().expect("a line");
                assert_eq!(line["end"], "client_abort", "{what}: {line}");
                drop(kept);
            }
        }
        println!("to h2c: {h2c}, slowest {slowest:?}");
        let view = proxy.backend("app/a").await;
        assert_eq!((view.health.status.as_str(), view.in_flight), ("up", 0));
        for reason in ["consecutive_errors", "consecutive_5xx"] {
            let sample = format!("pintle_ejections_total{{pool=\"app\",backend=\"a\",reason=\"{reason}\"}}");
            assert_eq!(proxy.metric(&sample).await, 0.0);
        }
        assert_eq!(spare.count(), 0);
    }
}

#[tokio::test]
async fn while_its_backend_reads_nothing_a_client_that_leaves_is_noticed_by_the_response_timeout() {
    let deaf = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let spare = Backend::start("spare").await;
    let a = format!("{{ name = \"a\", address = \"{}\" }}", deaf.local_addr().unwrap());
    let pool = "timeouts.response = \"1s\"\n\
                [pool.app.outlier]\nconsecutive_errors = 1\nmax_ejected = 1.0\neject = \"5m\"";
    let config = Config::default().pool_of("app", &[a, spare.toml("backup = true")], pool);
    let proxy = Proxy::start(config).await;
    let mut wire = proxy.wire().await;
    wire.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {MUCH}\r\n\r\n")).await;
    let (backend, _) = within("a connection", deaf.accept()).await.unwrap();
    // Until nobody takes any more of it.
    let piece = vec![b'x'; MUCH / 256];
    while tokio::time::timeout(Duration::from_millis(200), wire.stream.write_all(&piece)).await.is_ok() {}
    wire.reset();
    assert_eq!(proxy.logged(1).await[0]["end"], "response_timeout");
    let mut backend = Wire::new(backend);
    within("its connection ends", async { while backend.more().await {} }).await;
    assert_eq!(proxy.backend("app/a").await.health.status, "up");
}

#[tokio::test]
async fn an_http_2_client_that_takes_back_a_request_which_waits_gives_its_place_to_the_next() {
    let mut a = Backend::refusing("a");
    let config = Config::app(&[&a], "hold = { max = 2, timeout = \"9s\" }");
    let proxy = Proxy::start(config.listener("protocols = [\"h2c\", \"http/1.1\"]")).await;
    let held = async |count| {
        eventually(&format!("{count} held"), async || proxy.status().await.pools[0].held == count).await;
    };
    let mut client = H2Client::open(proxy.address).await;
    let first = client.send(h2_client::get("/1"), true).await;
    held(1).await;
    let second = client.send(h2_client::get("/2"), true).await;
    held(2).await;
    drop(first);
    held(1).await;
    let third = client.send(h2_client::get("/3"), true).await;
    held(2).await;
    a.come_back();
    for (answer, _) in [second, third] {
        assert_eq!(answer.await.unwrap().status(), 200);
    }
    assert!(a.requests().iter().all(|request| request.target != "/1"));
    assert_eq!(proxy.ended("client_abort").await["path"], "/1");
}
