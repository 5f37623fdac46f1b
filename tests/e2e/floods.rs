//! Floods over HTTP/2: each costs its sender next to nothing, and must cost us no more than it says.
//!
//! While one runs an ordinary client is served by the same threads; what reaches backends is bounded,
//! and when it ends everything is at rest. Memory is watched from outside, where this process's own
//! tests are not in the way.

use std::time::{Duration, Instant};

use crate::support::h2_client::{
    CONTINUATION, DATA, END_HEADERS, GOAWAY, HEADERS, PING, PRIORITY, SETTINGS, WINDOW_UPDATE, block, request,
};
use crate::support::{Backend, Config, Frame, FrameWire, Proxy, Reply, eventually};

/// Frames of each flood.
const MANY: usize = 10_000;

/// Resets that a client may send in a second, as by default.
const MAX_RESETS: usize = 100;

struct Scene {
    backend: Backend,
    proxy: Proxy,
}

impl Scene {
    async fn start() -> Self {
        Self::with("").await
    }

    async fn with(lines: &str) -> Self {
        let backend = Backend::start("a").await;
        backend.answer(|request| match request.target.as_str() {
            "/large" => Reply::text(vec![b'x'; 1_000_000]),
            _ => Reply::text("ok"),
        });
        let listener = format!("protocols = [\"h2c\", \"http/1.1\"]\n{lines}");
        let proxy = Proxy::start(Config::app(&[&backend], "").listener(&listener)).await;
        Self { backend, proxy }
    }

    /// Sends the flood on a connection of its own, while an ordinary client asks; then waits for
    /// rest. Whether the flood was cut.
    async fn suffer(&self, flood: impl Iterator<Item = Vec<Frame>>) -> bool {
        let mut wire = FrameWire::open(self.proxy.address).await;
        let mut good = self.proxy.client();
        let mut cut = false;
        for (n, frames) in flood.enumerate() {
            if !wire.try_send(&frames).await {
                cut = true;
                break;
            }
            if n % 10 == 0 {
                let asked = Instant::now();
                assert_eq!(good.get("/good").await.text(), "ok");
                assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
            }
        }
        let cut = cut || is_cut(&mut wire).await;
        drop(wire);
        eventually("everything is at rest", async || {
            self.proxy.status().await.pools[0].backends[0].in_flight == 0
        })
        .await;
        assert_eq!(self.proxy.client().get("/after").await.text(), "ok");
        cut
    }

    /// Requests of the flood that a backend saw.
    fn reached(&self) -> usize {
        self.backend.requests().iter().filter(|request| request.target.starts_with("/bad")).count()
    }
}

/// What has not been read yet decides too.
async fn is_cut(wire: &mut FrameWire) -> bool {
    if !wire.try_send(&[Frame::new(PING, 0, 0, *b"are you?")]).await {
        return true;
    }
    loop {
        match wire.read().await {
            None => return true,
            Some(frame) if frame.kind == GOAWAY && frame.error() != 0 => return true,
            Some(frame) if frame.kind == PING && frame.payload == b"are you?" => return false,
            Some(_) => {}
        }
    }
}

/// Streams 1, 3, 5 and so on, in batches.
fn streams(batch: usize) -> impl Iterator<Item = Vec<u32>> {
    let all: Vec<u32> = (0..u32::try_from(MANY).unwrap()).map(|n| n * 2 + 1).collect();
    all.chunks(batch).map(<[u32]>::to_vec).collect::<Vec<_>>().into_iter()
}

fn same(frame: Frame, batch: usize) -> impl Iterator<Item = Vec<Frame>> {
    (0..MANY / batch).map(move |_| vec![frame.clone(); batch])
}

#[tokio::test]
async fn a_rapid_reset_is_cut_before_two_hundred_reach_a_backend() {
    for batch in [1, 100] {
        let scene = Scene::start().await;
        let flood = streams(batch)
            .map(|batch| batch.iter().flat_map(|n| [Frame::get(*n, "/bad"), Frame::reset(*n)]).collect());
        assert!(scene.suffer(flood).await);
        assert!(scene.reached() <= 2 * MAX_RESETS, "{}", scene.reached());
    }
}

#[tokio::test]
async fn a_trusted_peer_may_reset_as_many_as_its_clients_do() {
    let backend = Backend::start("a").await;
    let file = Config::app(&[&backend], "")
        .server("trusted_proxies = [\"127.0.0.0/8\"]")
        .listener("protocols = [\"h2c\", \"http/1.1\"]");
    let proxy = Proxy::start(file).await;
    let mut wire = FrameWire::open(proxy.address).await;
    for n in 0..400 {
        let stream = n * 2 + 1;
        wire.send(&[Frame::get(stream, "/")]).await;
        let answer = wire.read_until(HEADERS).await.unwrap();
        assert_eq!(answer.stream, stream);
        wire.send(&[Frame::reset(stream)]).await;
    }
}

#[tokio::test]
async fn a_client_that_makes_us_reset_is_cut() {
    // CVE-2025-8671: each stream is answered, and made invalid by a window that overflows.
    let scene = Scene::start().await;
    let overflow = |n: u32| Frame::new(WINDOW_UPDATE, 0, n, 0x7fff_ffff_u32.to_be_bytes());
    let flood =
        streams(10).map(|batch| batch.iter().flat_map(|n| [Frame::get(*n, "/bad"), overflow(*n)]).collect());
    assert!(scene.suffer(flood).await);
    assert!(scene.reached() <= 200, "{}", scene.reached());
}

#[tokio::test]
async fn settings_and_pings_without_end_are_cut() {
    let scene = Scene::start().await;
    assert!(scene.suffer(same(Frame::new(SETTINGS, 0, 0, [0, 4, 0, 1, 0, 0]), 100)).await);
    assert!(scene.suffer(same(Frame::new(PING, 0, 0, *b"12345678"), 1000)).await);
    let flood = "pintle_listener_rejected_total{listener=\"web\",reason=\"flood\"}";
    eventually("both are counted", async || scene.proxy.metric(flood).await == 2.0).await;
}

#[tokio::test]
async fn a_header_block_without_end_is_cut() {
    for (payload, batch) in [(vec![], 100), (block(&[("x-a", &"x".repeat(4000))]), 10)] {
        let scene = Scene::start().await;
        let mut first = Some(Frame::new(HEADERS, 0, 1, block(&request("GET", "/bad"))));
        let flood = same(Frame::new(CONTINUATION, 0, 1, payload), batch).map(move |mut frames| {
            if let Some(first) = first.take() {
                frames.insert(0, first);
            }
            frames
        });
        assert!(scene.suffer(flood).await);
        assert_eq!(scene.reached(), 0);
    }
}

#[tokio::test]
async fn empty_data_without_end_is_cut() {
    let scene = Scene::start().await;
    let mut first = Some(Frame::head(1, &request("POST", "/bad"), 0));
    let flood = same(Frame::new(DATA, 0, 1, []), 100).map(move |mut frames| {
        if let Some(first) = first.take() {
            frames.insert(0, first);
        }
        frames
    });
    assert!(scene.suffer(flood).await);
}

#[tokio::test]
async fn priorities_without_end_are_read_and_forgotten() {
    let scene = Scene::start().await;
    scene.suffer(same(Frame::new(PRIORITY, 0, 1, [0, 0, 0, 0, 16]), 100)).await;
}

/// A name and a large value into the dynamic table, and then that entry again and again.
fn bomb(stream: u32, references: usize) -> Frame {
    let mut head = block(&request("GET", "/bad"));
    let value = "x".repeat(3000);
    // Literal with indexing (RFC 7541 section 6.2.1).
    let mut entry = block(&[("x-bomb", &value)]);
    entry[0] = 0x40;
    head.extend(entry);
    head.extend(std::iter::repeat_n(0xbe, references));
    Frame::new(HEADERS, END_HEADERS | 1, stream, head)
}

#[tokio::test]
async fn one_byte_that_means_three_thousand_is_counted_as_what_it_means() {
    let scene = Scene::start().await;
    let flood = streams(1).take(200).map(|batch| vec![bomb(batch[0], 10_000)]);
    scene.suffer(flood).await;
    assert_eq!(scene.reached(), 0);
}

#[tokio::test]
async fn windows_that_stay_shut_hold_little_and_not_for_ever() {
    let scene = Scene::with("idle_timeout = \"1s\"").await;
    let mut wire = FrameWire::open(scene.proxy.address).await;
    wire.send(&[Frame::new(SETTINGS, 0, 0, [0, 4, 0, 0, 0, 0])]).await;
    for n in 0..100 {
        wire.send(&[Frame::get(n * 2 + 1, "/large")]).await;
    }
    let mut good = scene.proxy.client();
    for _ in 0..50 {
        assert_eq!(good.get("/good").await.text(), "ok");
    }
    eventually("they are given up", async || scene.proxy.status().await.pools[0].backends[0].in_flight == 0)
        .await;
    assert_eq!(scene.proxy.ended("client_abort").await["path"], "/large");
}
