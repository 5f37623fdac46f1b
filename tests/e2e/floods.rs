//! Floods over HTTP/2: each costs its sender next to nothing, and must cost us no more than it says.
//!
//! While one runs an ordinary client is served by the same threads; what reaches backends is bounded,
//! and when it ends everything is at rest. Memory is watched from outside, where this process's own
//! tests are not in the way.

use std::time::{Duration, Instant};

use crate::support::floods::{Batches, TARGET, to_be_borne, to_be_cut};
use crate::support::h2_client::{GOAWAY, HEADERS, PING, SETTINGS};
use crate::support::{Backend, Config, Frame, FrameWire, Proxy, Reply, eventually};

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
    async fn suffer(&self, flood: Batches) -> bool {
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
        self.backend.requests().iter().filter(|request| request.target == TARGET).count()
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

#[tokio::test]
async fn each_flood_is_cut_before_two_hundred_requests_of_it_reach_a_backend() {
    for (name, flood) in to_be_cut() {
        let scene = Scene::start().await;
        assert!(scene.suffer(flood).await, "{name} is cut");
        let reached = scene.reached();
        assert!(reached <= 2 * MAX_RESETS, "{name}: {reached}");
        assert!(reached == 0 || !name.starts_with("CONTINUATION"), "{name}: {reached}");
    }
}

#[tokio::test]
async fn what_is_cut_for_its_number_is_counted() {
    let scene = Scene::start().await;
    let counted = |name: &str| ["SETTINGS", "PING"].contains(&name);
    for (_, flood) in to_be_cut().into_iter().filter(|(name, _)| counted(name)) {
        assert!(scene.suffer(flood).await);
    }
    let flood = "pintle_listener_rejected_total{listener=\"web\",reason=\"flood\"}";
    eventually("both are counted", async || scene.proxy.metric(flood).await == 2.0).await;
}

#[tokio::test]
async fn priorities_and_one_byte_that_means_three_thousand_reach_nobody() {
    for (name, flood) in to_be_borne() {
        let scene = Scene::start().await;
        scene.suffer(flood).await;
        assert_eq!(scene.reached(), 0, "{name}");
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
