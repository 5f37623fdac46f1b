//! What a flood over HTTP/2 costs, seen from outside: memory, time on a CPU, descriptors, and how soon
//! everything is at rest again. What reaches backends, and that each is cut, is `e2e`'s business.
//!
//! What was measured is printed (`--nocapture`).

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::abuse::{Good, settled_kib, weighed};
use crate::process::{Folder, Running, pool};
use crate::support::floods::{Batches, to_be_borne, to_be_cut};
use crate::support::h2_client::{GOAWAY, SETTINGS};
use crate::support::{Backend, Frame, FrameWire, Reply, eventually};

const MOST_KIB: usize = 16 * 1024;
const MOST_CPU: Duration = Duration::from_millis(500);
/// After this long nothing is done for a flood any more.
const REST: Duration = Duration::from_secs(3);

async fn start(backend: &Backend) -> Running {
    let folder = Folder::new();
    let text = folder.config(&pool(&[backend], ""));
    let text = text.replace("[listener.web]\n", "[listener.web]\nprotocols = [\"h2c\", \"http/1.1\"]\n");
    folder.write("pintle.toml", &text);
    let command = folder.command(["serve", "-c", "pintle.toml", "--quiet"]);
    weighed(folder, command).await
}

/// What came of a flood.
struct Cost {
    cpu: Duration,
    peak_kib: usize,
}

/// Sends a flood to its end, or until it is cut, and a little longer.
async fn send(running: &Running, address: SocketAddr, flood: Batches) -> Cost {
    let (cpu, before) = (running.cpu(), running.anonymous_kib());
    let mut peak = before;
    let mut wire = FrameWire::open(address).await;
    for (n, frames) in flood.enumerate() {
        if !wire.try_send(&frames).await {
            break;
        }
        if n % 16 == 0 {
            peak = peak.max(running.anonymous_kib());
        }
    }
    // What is read after the last write counts too.
    let until = Instant::now() + Duration::from_millis(300);
    while Instant::now() < until {
        peak = peak.max(running.anonymous_kib());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    drop(wire);
    Cost { cpu: running.cpu() - cpu, peak_kib: peak - before }
}

/// Whether it uses more than a tenth of a CPU for a moment.
async fn is_busy(running: &Running) -> bool {
    let (cpu, since) = (running.cpu(), Instant::now());
    tokio::time::sleep(Duration::from_millis(300)).await;
    running.cpu() - cpu > since.elapsed() / 10
}

#[tokio::test]
async fn a_flood_costs_little_memory_and_time_and_is_over_when_it_ends() {
    let backend = Backend::start("a").await;
    let running = start(&backend).await;
    let [web] = running.addresses().await;
    // What the first requests cost once and for all is no flood's.
    for _ in 0..100 {
        assert_eq!(running.client().await.get("/").await.status, 200);
    }
    for (name, flood) in to_be_cut().into_iter().chain(to_be_borne()) {
        let descriptors = running.descriptors();
        // What the good client costs meanwhile is counted in.
        let good = Good::start(running.client().await);
        let cost = send(&running, web, flood).await;
        good.end().await;
        eventually("descriptors are given back", async || running.descriptors() <= descriptors + 4).await;
        let ended = Instant::now();
        while is_busy(&running).await {
            assert!(ended.elapsed() < REST, "{name}: nobody asks, and it is busy");
        }
        println!("{name}: {} ms of CPU, {} KiB", cost.cpu.as_millis(), cost.peak_kib);
        assert!(cost.cpu <= MOST_CPU, "{name}: {:?} of CPU", cost.cpu);
        assert!(cost.peak_kib <= MOST_KIB, "{name}: {} KiB", cost.peak_kib);
    }
}

#[tokio::test]
async fn five_hundred_answers_that_nobody_takes_hold_little() {
    let backend = Backend::start("a").await;
    backend.answer(|request| match request.target.as_str() {
        "/large" => Reply::text(vec![b'x'; 1024 * 1024]),
        _ => Reply::text("ok"),
    });
    let running = start(&backend).await;
    let [web] = running.addresses().await;
    assert_eq!(running.client().await.get("/").await.status, 200);
    let before = settled_kib(&running).await;
    let mut wires = Vec::new();
    for _ in 0..5 {
        let mut wire = FrameWire::open(web).await;
        wire.send(&[Frame::new(SETTINGS, 0, 0, [0, 4, 0, 0, 0, 0])]).await;
        wire.send(&(0..100).map(|n| Frame::get(n * 2 + 1, "/large")).collect::<Vec<_>>()).await;
        wires.push(wire);
    }
    let asked =
        async || backend.requests().iter().filter(|request| request.target == "/large").count() == 500;
    eventually("all are asked for", asked).await;
    let good = Good::start(running.client().await);
    let grown = settled_kib(&running).await - before;
    good.end().await;
    println!("500 answers of 1 MiB behind shut windows hold {grown} KiB");
    // Of each, what its stream may hold at most.
    assert!(grown <= 500 * 64, "{grown} KiB");
    for wire in &mut wires {
        assert!(wire.read().await.is_none_or(|frame| frame.kind != GOAWAY));
    }
}
