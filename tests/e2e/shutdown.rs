//! The end of the process: what is in flight finishes, and nobody waits longer than they must.

use std::time::{Duration, Instant};

use crate::support::{Ask, Backend, Config, Proxy, Reply, eventually};

/// A shutdown under way, and what it will report.
fn end(proxy: Proxy) -> tokio::task::JoinHandle<pintle::app::ShutdownReport> {
    tokio::spawn(proxy.shutdown())
}

#[tokio::test]
async fn what_is_in_flight_is_finished_and_counted() {
    let a = Backend::start("a").await;
    a.hold();
    let proxy = Proxy::over(&[&a]).await;
    let (address, admin) = (proxy.address, proxy.admin);
    let mut client = proxy.client();
    client.send(&Ask::get("/")).await;
    a.parked(1).await;
    let ending = end(proxy);
    eventually("the door is closed", async || tokio::net::TcpStream::connect(address).await.is_err()).await;
    let ready = crate::support::Client::new(admin).get_at("localhost", "/readyz").await;
    assert_eq!(ready.status, 503, "{}", ready.text());
    a.release();
    let answer = client.read("GET").await.expect("the answer");
    assert_eq!((answer.status, answer.text().as_str()), (200, "a"));
    assert_eq!(answer.header("connection"), Some("close"));
    let report = ending.await.unwrap();
    assert_eq!((report.finished, report.requests_cut, report.tunnels_cut), (1, 0, 0));
}

#[tokio::test]
async fn a_request_on_a_kept_connection_is_answered_and_told_to_close() {
    let a = Backend::start("a").await;
    let proxy = Proxy::start(Config::app(&[&a], "").server("drain_grace = \"500ms\"")).await;
    let mut client = proxy.client();
    assert_eq!(client.get("/").await.header("connection"), None);
    let mut late = proxy.client();
    let admin = proxy.admin;
    let ending = end(proxy);
    let leaving =
        async || crate::support::Client::new(admin).get_at("localhost", "/readyz").await.status == 503;
    eventually("it is leaving", leaving).await;
    let answer = client.get("/").await;
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    // Within the grace somebody new is still let in.
    let answer = late.get("/").await;
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    assert_eq!(ending.await.unwrap().finished, 2);
}

#[tokio::test]
async fn an_idle_connection_is_closed_after_about_a_second() {
    let a = Backend::start("a").await;
    let proxy = Proxy::over(&[&a]).await;
    let mut fresh = proxy.client();
    fresh.get("/").await;
    let mut parked = proxy.client();
    parked.get("/").await;
    // After a second of idleness a connection is parked: another way to wait.
    tokio::time::sleep(Duration::from_millis(1300)).await;
    fresh.get("/").await;
    let begun = Instant::now();
    let ending = end(proxy);
    for client in [&mut fresh, &mut parked] {
        assert!(client.wire().await.rest().await.is_empty());
        let took = begun.elapsed();
        assert!((Duration::from_millis(700)..Duration::from_secs(3)).contains(&took), "{took:?}");
    }
    assert_eq!(ending.await.unwrap().requests_cut, 0);
}

#[tokio::test]
async fn a_connection_that_says_nothing_does_not_hold_up_the_end() {
    let a = Backend::start("a").await;
    let proxy = Proxy::start(Config::app(&[&a], "").server("drain_grace = \"300ms\"")).await;
    let _before = proxy.wire().await;
    let (address, admin) = (proxy.address, proxy.admin);
    let begun = Instant::now();
    let ending = end(proxy);
    let leaving =
        async || crate::support::Client::new(admin).get_at("localhost", "/readyz").await.status == 503;
    eventually("it is leaving", leaving).await;
    let _during = crate::support::Wire::open(address).await;
    ending.await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn what_takes_longer_than_the_deadline_is_cut_and_counted() {
    let a = Backend::start("a").await;
    a.answer(|request| match request.target.as_str() {
        "/stall" => Reply::stall(),
        "/half" => Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf").then_stall(),
        _ => Reply::upgrade("echo", "hello"),
    });
    let proxy = Proxy::start(Config::app(&[&a], "").server("drain_timeout = \"500ms\"")).await;
    let (mut stalled, mut half, mut tunnel) = (proxy.client(), proxy.client(), proxy.client());
    stalled.send(&Ask::get("/stall")).await;
    half.send(&Ask::get("/half")).await;
    half.wire().await.response_head().await.expect("a head");
    let upgrade = Ask::get("/echo").header("Connection", "upgrade").header("Upgrade", "echo");
    tunnel.send(&upgrade).await;
    assert_eq!(tunnel.wire().await.response_head().await.expect("a head").status, 101);
    a.seen(3).await;
    eventually("a tunnel", async || proxy.status().await.totals.tunnels == 1).await;
    let begun = Instant::now();
    let report = end(proxy).await.unwrap();
    assert!((Duration::from_millis(500)..Duration::from_secs(3)).contains(&begun.elapsed()));
    assert_eq!((report.requests_cut, report.tunnels_cut), (2, 1));
    let answer = stalled.read("GET").await.expect("an answer");
    assert!(answer.text().starts_with("503 drained"), "{}", answer.text());
    assert_eq!(half.wire().await.rest().await, b"half");
    assert_eq!(tunnel.wire().await.rest().await, b"hello");
}

#[tokio::test]
async fn who_still_waits_for_a_backend_at_the_deadline_is_told_so_and_counted() {
    let a = Backend::refusing("a");
    let config = Config::app(&[&a], "hold.timeout = \"1m\"").server("drain_timeout = \"500ms\"\nworkers = 3");
    let proxy = Proxy::start(config).await;
    let mut clients: Vec<_> = (0..9).map(|_| proxy.client()).collect();
    for client in &mut clients {
        client.send(&Ask::get("/")).await;
    }
    eventually("they wait", async || proxy.status().await.pools[0].held == 9).await;
    let report = end(proxy).await.unwrap();
    assert_eq!(report.requests_cut, 9);
    for client in &mut clients {
        let answer = client.read("GET").await.expect("an answer");
        assert!(answer.text().starts_with("503 drained"), "{}", answer.text());
    }
}

#[tokio::test]
async fn with_nothing_to_do_it_ends_at_once() {
    let a = Backend::start("a").await;
    let proxy = Proxy::over(&[&a]).await;
    proxy.client().get("/").await;
    let begun = Instant::now();
    let report = end(proxy).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    assert_eq!((report.requests_cut, report.tunnels_cut), (0, 0));
}
