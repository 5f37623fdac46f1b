//! `max_head_memory`: what heads may hold that have not come whole, over all connections.

use crate::support::h2_client::{GOAWAY, HEADERS, block, request};
use crate::support::{Backend, Config, Frame, FrameWire, H2Client, Proxy, Wire, eventually};

const REJECTED: &str = "pintle_listener_rejected_total{listener=\"web\",reason=\"max_head_memory\"}";
const HELD: &str = "pintle_partial_head_bytes";

const KIB: usize = 1024;

/// The least that there may be: two heads of thirty KiB.
fn small(backends: &[&Backend]) -> Config {
    Config::app(backends, "").server("max_head_memory = \"64KiB\"")
}

/// A connection with half a head of so many bytes.
async fn half(proxy: &Proxy, bytes: usize) -> Wire {
    let mut wire = proxy.wire().await;
    let begin = "GET / HTTP/1.1\r\nHost: h\r\nX-Pad: ";
    wire.send(format!("{begin}{}", "x".repeat(bytes - begin.len()))).await;
    wire
}

/// Half a head that is held, as the total shows.
async fn held(proxy: &Proxy, bytes: usize) -> Wire {
    let before = proxy.metric(HELD).await;
    let wire = half(proxy, bytes).await;
    eventually("it is held", async || proxy.metric(HELD).await >= before + bytes as f64).await;
    wire
}

/// A request in pieces, as an ordinary client that is slow would send it.
async fn is_served_in_pieces(proxy: &Proxy) {
    let mut wire = proxy.wire().await;
    let before = proxy.metric(HELD).await;
    wire.send("GET / HTTP/1.1\r\nHost: h\r\n").await;
    eventually("its beginning is held", async || proxy.metric(HELD).await > before).await;
    wire.send("X-More: y\r\n\r\n").await;
    assert_eq!(wire.response("GET").await.unwrap().status, 200);
}

#[tokio::test]
async fn large_half_heads_fill_the_memory_they_may_and_the_next_is_a_503() {
    const CROWD: usize = 40;
    const LEFT: usize = 520;
    let a = Backend::start("a").await;
    let proxy = Proxy::start(small(&[&a])).await;
    let mut crowd = vec![held(&proxy, 30 * KIB).await, held(&proxy, 30 * KIB).await];
    // What is left is enough for the end of a head, and not for a new one.
    let rest = held(&proxy, 4 * KIB - LEFT).await;
    for _ in 2..CROWD {
        let mut wire = half(&proxy, 30 * KIB).await;
        let answer = wire.response("GET").await.expect("an answer");
        assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
        assert!(answer.text().starts_with("503 max_head_memory"), "{}", answer.text());
        crowd.push(wire);
    }
    // Each is counted once its client has had a moment to read.
    let rejected = async || proxy.metric(REJECTED).await == (CROWD - 2) as f64;
    eventually("they are counted", rejected).await;
    let total = proxy.metric(HELD).await;
    assert_eq!(total, (64 * KIB - LEFT) as f64);

    // Nobody else notices: neither who sends a head in one go, nor who is slow with an ordinary one.
    assert_eq!(proxy.client().get("/").await.status, 200);
    is_served_in_pieces(&proxy).await;

    // Who was let in may go on.
    crowd[0].send("\r\n\r\n").await;
    assert_eq!(crowd[0].response("GET").await.unwrap().status, 200);
    let room = async || proxy.metric(HELD).await <= 34.0 * KIB as f64;
    eventually("its room is free", room).await;
    crowd.push(held(&proxy, 30 * KIB).await);
    drop((crowd, rest));
    eventually("nothing is held", async || proxy.metric(HELD).await == 0.0).await;
}

#[tokio::test]
async fn a_head_that_grows_byte_by_byte_is_refused_when_nothing_is_left() {
    let a = Backend::start("a").await;
    let proxy = Proxy::start(small(&[&a])).await;
    let _full = [held(&proxy, 30 * KIB).await, held(&proxy, 30 * KIB).await, held(&proxy, 2 * KIB).await];
    let mut slow = held(&proxy, KIB).await;
    let mut sent = KIB;
    while slow.buffer.is_empty() {
        assert!(sent <= 6 * KIB, "{sent} bytes were taken");
        let before = proxy.metric(HELD).await;
        slow.send([b'x'; 256]).await;
        sent += 256;
        // It is counted, or was in room that there was, or is answered.
        let next = async { slow.more().await };
        let _ = tokio::time::timeout(std::time::Duration::from_millis(20), next).await;
        assert!(proxy.metric(HELD).await <= before + KIB as f64);
    }
    assert!(slow.buffer.starts_with(b"HTTP/1.1 503"), "{:?}", String::from_utf8_lossy(&slow.buffer));
}

#[tokio::test]
async fn half_a_header_block_counts_as_the_head_that_it_may_become() {
    let a = Backend::start("a").await;
    let config = small(&[&a]).listener("protocols = [\"h2c\", \"http/1.1\"]");
    let proxy = Proxy::start(config).await;
    // A few bytes, without END_HEADERS.
    let begin = Frame::new(HEADERS, 0, 1, block(&request("GET", "/")));
    let mut crowd = Vec::new();
    for place in 1..=2 {
        let mut wire = FrameWire::open(proxy.address).await;
        wire.send(std::slice::from_ref(&begin)).await;
        let total = (place * 32 * KIB) as f64;
        eventually("it is held", async || proxy.metric(HELD).await == total).await;
        crowd.push(wire);
    }
    let mut wire = FrameWire::open(proxy.address).await;
    wire.send(&[begin]).await;
    // ENHANCE_YOUR_CALM
    assert_eq!(wire.read_until(GOAWAY).await.expect("a GOAWAY").error(), 11);
    eventually("it is counted", async || proxy.metric(REJECTED).await == 1.0).await;
    assert_eq!(H2Client::open(proxy.address).await.get("/").await.status, 200, "an ordinary client");
    drop(crowd);
    eventually("nothing is held", async || proxy.metric(HELD).await == 0.0).await;
}

#[tokio::test]
async fn a_reload_changes_the_limit() {
    let a = Backend::start("a").await;
    let proxy = Proxy::start(small(&[&a])).await;
    let mut crowd = vec![held(&proxy, 30 * KIB).await, held(&proxy, 30 * KIB).await];
    proxy.reload(Config::app(&[&a], "").server("max_head_memory = \"96KiB\"")).await.unwrap();
    crowd.push(held(&proxy, 30 * KIB).await);
    assert_eq!(half(&proxy, 30 * KIB).await.response("GET").await.unwrap().status, 503);
}
