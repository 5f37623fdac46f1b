//! Signals: finish and end, end now, open the logs again.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::process::{Running, get, pool};
use crate::support::{Ask, Backend, Reply, eventually};

#[tokio::test]
async fn a_sigterm_finishes_what_is_in_flight_and_says_how_it_went() {
    let a = Backend::start("a").await;
    a.hold();
    let mut running = Running::over(&[&a], "").await;
    let mut client = running.client().await;
    client.send(&Ask::get("/")).await;
    a.parked(1).await;
    running.signal(Signal::TERM);
    let leaving = async || get(&running.admin, "/readyz").await.starts_with("HTTP/1.1 503");
    eventually("it is leaving", leaving).await;
    assert!(get(&running.admin, "/livez").await.starts_with("HTTP/1.1 200"));
    a.release();
    let answer = client.read("GET").await.expect("an answer");
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    assert_eq!(running.ends().await.code(), Some(0));
    running
        .tells("ended: 1 request finished, 0 WebSockets closed with 1012, 0 requests and 0 tunnels cut")
        .await;
    assert!(running.folder.read("stdout").contains("\"end\":\"ok\""), "the last line is logged");
}

#[tokio::test]
async fn a_second_signal_ends_it_now() {
    let a = Backend::start("a").await;
    a.reply(Reply::stall());
    let mut running = Running::over(&[&a], "").await;
    let mut client = running.client().await;
    client.send(&Ask::get("/")).await;
    a.seen(1).await;
    running.signal(Signal::TERM);
    running.tells("ending: ").await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let begun = Instant::now();
    running.signal(Signal::INT);
    assert_eq!(running.ends().await.code(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    running
        .tells("ended: 0 requests finished, 0 WebSockets closed with 1012, 1 request and 0 tunnels cut")
        .await;
}

#[tokio::test]
async fn the_command_ends_it_too() {
    let a = Backend::start("a").await;
    let mut running = Running::over(&[&a], "").await;
    let asked = running.command(&["shutdown", "--drain", "5s"]).await;
    assert_eq!(asked.exit, Some(0));
    assert!(asked.stdout.contains("for 5s at most"), "{}", asked.stdout);
    assert!(running.ends().await.success());
}

#[tokio::test]
async fn a_sigusr1_opens_the_access_log_again() {
    let a = Backend::start("a").await;
    let running = Running::file(&format!("{}\n[log.access]\noutput = \"access.log\"", pool(&[&a], ""))).await;
    let mut client = running.client().await;
    client.get("/one").await;
    let logged = async |name: &str, what: &str| {
        eventually(&format!("{what} in {name}"), async || running.folder.read(name).contains(what)).await;
    };
    logged("access.log", "/one").await;
    std::fs::rename(running.folder.path("access.log"), running.folder.path("access.log.1")).unwrap();
    client.get("/two").await;
    logged("access.log.1", "/two").await;
    running.signal(Signal::USR1);
    running.tells("access log opened again").await;
    client.get("/three").await;
    logged("access.log", "/three").await;
    assert!(!running.folder.read("access.log.1").contains("/three"));
}
