//! Bodies that dawdle: `min_body_rate`. One window is ten seconds, so everything that has to
//! outlast it does so at the same time.

use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use crate::support::{Backend, Config, H2Backend, H2Reply, Proxy, Reply, Wire};

/// One window of `min_body_rate`, and what a busy machine may add.
const WINDOW: Duration = Duration::from_secs(10);
const LATE: Duration = Duration::from_secs(5);

const POST: &str = "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n";

/// Sends a byte again and again until something comes back, or the time is up; what came.
async fn dribble(wire: &mut Wire, pause: Duration, most: Duration) -> Option<(u16, Duration)> {
    let start = Instant::now();
    while start.elapsed() < most {
        let sent = wire.try_send("1\r\nx\r\n").await;
        match tokio::time::timeout(pause, wire.more()).await {
            Err(_) if sent.is_ok() => {}
            _ => {
                let head = wire.response_head().await.map_or(0, |answer| answer.status);
                return Some((head, start.elapsed()));
            }
        }
    }
    None
}

fn in_time(took: Duration) {
    assert!(took >= WINDOW && took < WINDOW + LATE, "{took:?}");
}

#[tokio::test]
async fn a_body_that_dribbles_is_a_408_and_its_backend_is_let_go() {
    let backend = Backend::start("a").await;
    let proxy = Proxy::over(&[&backend]).await;
    let mut wire = proxy.wire().await;
    wire.send(format!("{POST}\r\n")).await;
    let cut = dribble(&mut wire, Duration::from_millis(50), WINDOW + LATE).await;
    let (status, took) = cut.expect("it is cut");
    assert_eq!(status, 408);
    in_time(took);
    let text = String::from_utf8(tokio::time::timeout(WINDOW, wire.rest()).await.unwrap()).unwrap();
    assert!(text.contains("408 min_body_rate: the request's body came too slowly. request "), "{text}");
    backend.deserted().await;
    let line = &proxy.logged(1).await[0];
    assert_eq!((&line["status"], &line["end"]), (&408.into(), &"idle_timeout".into()));
    assert_eq!(proxy.client().get("/").await.status, 200);
}

#[tokio::test]
async fn a_silent_body_is_cut_over_http_2_to_the_backend_as_well() {
    let backend = H2Backend::start("a").await;
    let text = format!("[pool.app]\nprotocol = \"h2c\"\nbackends = [{}]\n", backend.toml());
    let proxy = Proxy::start(Config::from(text.as_str()).server("workers = 1")).await;
    let mut wire = proxy.wire().await;
    let start = Instant::now();
    wire.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nx").await;
    tokio::time::timeout(WINDOW + LATE, wire.more()).await.unwrap();
    in_time(start.elapsed());
    assert_eq!(wire.response("POST").await.expect("an answer").status, 408);
    backend.reply(H2Reply::text("b"));
    assert_eq!(proxy.client().get("/").await.text(), "b");
    assert_eq!(backend.accepted(), 1, "the connection that others share goes on");
}

#[tokio::test]
async fn a_body_that_dawdles_after_its_answer_has_begun_breaks_it_off() {
    let backend = Backend::start("a").await;
    let begun = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello";
    backend.answer_early(move |_| Reply::raw(begun).then_park());
    let proxy = Proxy::over(&[&backend]).await;
    let mut wire = proxy.wire().await;
    wire.send(format!("{POST}\r\n1\r\nx\r\n")).await;
    let mut answer = wire.response_head().await.unwrap();
    assert_eq!(answer.status, 200);
    let cut = async { while wire.more().await {} };
    tokio::time::timeout(WINDOW + LATE, cut).await.expect("it is cut");
    wire.finish_response("POST", &mut answer).await;
    assert_eq!((&*answer.text(), answer.whole), ("hello", false));
    assert_eq!(proxy.logged(1).await[0]["end"], "idle_timeout");
}

#[tokio::test]
async fn a_body_that_is_slow_and_fast_enough_is_carried_to_its_end() {
    let backend = Backend::start("a").await;
    let proxy = Proxy::over(&[&backend]).await;
    let mut wire = proxy.wire().await;
    wire.send(format!("{POST}\r\n")).await;
    // Half as fast again as it must be.
    let (begun, mut sent) = (Instant::now(), 0);
    while begun.elapsed() < WINDOW + WINDOW / 5 {
        wire.send(format!("24\r\n{}\r\n", "x".repeat(36))).await;
        sent += 36;
        let quiet = tokio::time::timeout(Duration::from_millis(100), wire.more()).await;
        assert!(
            quiet.is_err(),
            "cut after {:?}: {:?}",
            begun.elapsed(),
            String::from_utf8_lossy(&wire.buffer)
        );
    }
    wire.send("0\r\n\r\n").await;
    assert_eq!(wire.response("POST").await.expect("an answer").status, 200);
    assert_eq!(backend.received(1).await.body.len(), sent);
}

#[tokio::test]
async fn grpc_and_whoever_is_not_asked_for_more_and_any_rate_are_left_alone() {
    let backend = Backend::start("a").await;
    let deaf = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("\"{}\"", deaf.local_addr().unwrap());
    let config = Config::default()
        .pool("app", &[&backend], "")
        .pool_of("slow", &[address], "")
        .route("pool = \"app\"")
        .route("path = \"/slow\"\npool = \"slow\"")
        .text("[listener.any]\nbind = \"127.0.0.1:0\"\nmin_body_rate = \"0B/s\"");
    let proxy = Proxy::start(config).await;
    let any = proxy.pintle().listeners().into_iter().find(|(name, _)| name == "any").unwrap().1;

    let (mut grpc, mut any) = (proxy.wire().await, Wire::open(any).await);
    let mut unread = proxy.wire().await;
    grpc.send(format!("{POST}Content-Type: application/grpc+proto\r\n\r\n")).await;
    any.send(format!("{POST}\r\n")).await;
    // More than all buffers between here and a backend that reads none of it.
    let body = vec![b'x'; 32 * 1024 * 1024];
    let head = format!("POST /slow HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n", body.len());
    let upload = async {
        unread.send(head).await;
        unread.stream.write_all(&body).await.unwrap();
        unread.response("POST").await.map(|answer| answer.status)
    };
    let most = WINDOW + Duration::from_secs(3);
    let release = async {
        let pause = Duration::from_millis(500);
        let (stream, _) = deaf.accept().await.unwrap();
        let cut = tokio::join!(dribble(&mut grpc, pause, most), dribble(&mut any, pause, most));
        // Only now does it read.
        let mut wire = Wire::new(stream);
        wire.head().await.unwrap();
        assert_eq!(wire.bytes(body.len()).await.len(), body.len());
        wire.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
        cut
    };
    let (cut, status) = tokio::join!(release, upload);
    assert_eq!(cut, (None, None));
    assert_eq!(status, Some(200));
    for (wire, what) in [(&mut grpc, "grpc"), (&mut any, "0B/s")] {
        wire.send("0\r\n\r\n").await;
        assert_eq!(wire.response("POST").await.expect(what).status, 200, "{what}");
    }
}

#[tokio::test]
async fn whoever_ends_its_side_half_way_is_let_go_in_every_phase() {
    let backend = Backend::start("a").await;
    backend.hold();
    let proxy = Proxy::over(&[&backend]).await;
    let begins = ["", "GET / HT", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nx", WAITS];
    let mut wires = Vec::new();
    for bytes in begins {
        let mut wire = proxy.wire().await;
        wire.send(bytes).await;
        wires.push(wire);
    }
    backend.seen(2).await;
    for wire in &mut wires {
        wire.finish().await;
        // An answer or none, but an end.
        wire.rest().await;
    }
    backend.release();
    backend.deserted().await;
    assert_eq!(proxy.client().get("/").await.status, 200);
}

/// Waits for an answer.
const WAITS: &str = "GET / HTTP/1.1\r\nHost: h\r\n\r\n";
