//! Calls that end before their end: given up, cut off, out of time, in a drain.

use std::time::{Duration, Instant};

use tonic::Code;

use super::backend::GrpcBackend;
use super::client::GrpcClient;
use super::raw::Raw;
use super::{config, listens, order, over};
use crate::support::{Backend, Config, H2Backend, H2Reply, Keys, Proxy, Reply, TlsFront, eventually, within};

/// An empty message behind its prefix.
const MESSAGE: &[u8] = &[0; 5];

#[tokio::test]
async fn a_call_that_its_client_gives_up_ends_at_the_backend_at_once() {
    let a = GrpcBackend::start("a").await;
    let (proxy, client) = over(&[&a], "").await;
    let stalled = tokio::spawn(async move { client.say("Stall", "x").await });
    a.until("a call", |seen| seen.open == 1).await;
    stalled.abort();
    a.until("its end", |seen| seen.open == 0).await;
    // In the middle of a stream, with both directions open.
    let mut raw = Raw::open(proxy.address).await;
    let mut call = raw.call(&[], false).await;
    let mut answer = call.answer().await.unwrap();
    call.send(MESSAGE).unwrap();
    assert!(answer.next().await.is_some());
    assert_eq!(a.seen().open, 1);
    drop((call, answer));
    a.until("its end", |seen| seen.open == 0).await;
    for line in proxy.logged(2).await {
        assert_eq!(line["end"], "client_abort");
    }
}

#[tokio::test]
async fn an_upload_that_its_client_gives_up_never_looks_whole() {
    let (a, _proxy, mut raw) = stalled("").await;
    a.reply(H2Reply::status(200));
    a.hold();
    for number in 0..20 {
        let mut call = raw.call(&[], false).await;
        call.send(MESSAGE).unwrap();
        eventually("a message", async || a.requests().get(number).is_some_and(|call| call.body == MESSAGE))
            .await;
        drop(call);
    }
    eventually("the end of each", async || a.resets() == 20).await;
    assert!(a.requests().iter().all(|call| !call.whole), "taken for whole");
}

#[tokio::test]
async fn a_backend_that_dies_in_the_middle_of_a_stream_is_no_good_end() {
    let a = GrpcBackend::start("a").await;
    let (proxy, client) = over(&[&a], "").await;
    let mut talk = client.talk("Echo").await.unwrap();
    talk.exchange("x").await;
    a.kill();
    let status = talk.hear().await.unwrap_err();
    assert!(matches!(status.code(), Code::Unavailable | Code::Internal), "{status:?}");
    assert_eq!(proxy.logged(1).await[0]["end"], "reset_during_response");
}

async fn stalled(lines: &str) -> (H2Backend, Proxy, Raw) {
    let a = H2Backend::start("a").await;
    a.answer_early(|_| H2Reply::Stall);
    let pool = Config::default().pool_of("app", &[a.toml()], &format!("protocol = \"h2c\"\n{lines}"));
    let proxy = Proxy::start(listens(pool).server("workers = 1")).await;
    let raw = Raw::open(proxy.address).await;
    (a, proxy, raw)
}

#[tokio::test]
async fn a_call_whose_time_is_over_is_told_so_and_taken_from_the_backend() {
    let (a, proxy, mut raw) = stalled("").await;
    // The backend reads, and waits for the end of what it reads.
    a.reply(H2Reply::status(200));
    a.hold();
    let start = Instant::now();
    let mut call = raw.call(&[("grpc-timeout", "200m")], false).await;
    let heard = || a.requests().first().map_or(0, |call| call.body.len());
    // Sending on is no reason to wait longer.
    let answer = within("an end", async {
        loop {
            let before = heard();
            let _ = call.send(MESSAGE);
            tokio::select! {
                answer = call.answer() => break answer.unwrap(),
                () = eventually("a message", async || heard() > before) => {}
            }
        }
    })
    .await;
    assert!(start.elapsed() >= Duration::from_millis(200));
    assert_eq!((answer.status, answer.bare, answer.field("grpc-status")), (200, true, Some("4")));
    eventually("the stream is reset", async || a.resets() == 1).await;
    assert_eq!(a.seen(1).await.header("grpc-timeout"), Some("200m"), "it has not waited here");
    let line = &proxy.logged(1).await[0];
    assert_eq!((line["status"].as_u64(), line["end"].as_str()), (Some(504), Some("response_timeout")));
}

#[tokio::test]
async fn a_stream_whose_time_is_over_is_reset_however_lively_it_is() {
    let a = GrpcBackend::start("a").await;
    let proxy = Proxy::start(config(&[&a], "")).await;
    let mut raw = Raw::open(proxy.address).await;
    let mut call = raw.call(&[("grpc-timeout", "300m")], false).await;
    let mut answer = call.answer().await.unwrap();
    assert_eq!((answer.status, answer.bare), (200, false));
    // The backend, which does not mind its time, has said nothing but its head.
    let (rest, reason) = answer.rest().await;
    assert!(rest.is_empty() && reason.is_some(), "{rest:?} {reason:?}");
    a.until("its end", |seen| seen.open == 0).await;
    assert_eq!(proxy.logged(1).await[0]["end"], "response_timeout");

    // One that goes on and on is over all the same.
    let mut call = raw.call(&[("grpc-timeout", "300m")], false).await;
    let mut answer = call.answer().await.unwrap();
    let mut exchanged = 0;
    while call.send(MESSAGE).is_ok() && answer.next().await.is_some() {
        exchanged += 1;
    }
    assert!(exchanged > 1, "{exchanged}");
    a.until("its end", |seen| seen.open == 0).await;
    assert_eq!(proxy.logged(2).await[1]["end"], "response_timeout");
}

#[tokio::test]
async fn a_backends_own_word_on_the_time_comes_first() {
    let (a, closed) = (H2Backend::start("a").await, H2Backend::start("closed").await);
    a.reply(H2Reply::status(200).header("grpc-status", "4").header("grpc-message", "mine"));
    a.hold();
    let pools = Config::default().pool_of("app", &[a.toml()], "protocol = \"h2c\"");
    let pools = pools.pool_of("closed", &[closed.toml()], "protocol = \"h2c\"");
    let routes = pools.route("pool = \"closed\"").route("hosts = [\"shop.example\"]\npool = \"app\"");
    let proxy = Proxy::start(listens(routes)).await;
    order(&proxy, "closed/closed", "stopped").await;
    let mut raw = Raw::open(proxy.address).await;
    let mut call = raw.call(&[("grpc-timeout", "100m")], true).await;
    a.parked(1).await;
    // One that began later and waits for nobody is over: so is the first one's time.
    let late = raw.call_at("other.example", &[("grpc-timeout", "100m")], true).await.answer().await.unwrap();
    assert_eq!(late.field("grpc-status"), Some("4"));
    a.release();
    assert_eq!(call.answer().await.unwrap().field("grpc-message"), Some("mine"));
}

#[tokio::test]
async fn a_call_that_was_held_goes_out_with_the_time_that_is_left() {
    let a = H2Backend::start("a").await;
    let pool = Config::default().pool_of(
        "app",
        &[a.toml()],
        "protocol = \"h2c\"\nhold = { max = 9, timeout = \"9s\" }",
    );
    let proxy = Proxy::start(listens(pool)).await;
    order(&proxy, "app/a", "stopped").await;
    let mut raw = Raw::open(proxy.address).await;
    let mut call = raw.call(&[("grpc-timeout", "8S")], true).await;
    eventually("it is held", async || proxy.metric("pintle_pool_held_requests{pool=\"app\"}").await == 1.0)
        .await;
    proxy.ready("app/a").await.unwrap();
    call.answer().await.unwrap();
    let seen = a.seen(1).await;
    let left = seen.header("grpc-timeout").unwrap().strip_suffix('u').expect("microseconds");
    let left: u64 = left.parse().unwrap();
    assert!((1..8_000_000).contains(&left), "{left}");

    order(&proxy, "app/a", "stopped").await;
    let answer = raw.ask(&[("grpc-timeout", "100m")]).await;
    assert_eq!(answer.field("grpc-status"), Some("4"), "its time was over before the hold's");
    let line = proxy.ended("hold_timeout").await;
    assert_eq!((line["status"].as_u64(), a.count()), (Some(503), 1));
}

#[tokio::test]
async fn a_stream_may_be_quiet_for_longer_than_any_other_answer() {
    let a = GrpcBackend::start("a").await;
    let limits = "[pool.app.timeouts]\nresponse = \"100ms\"\nidle = \"100ms\"";
    let proxy = Proxy::start(config(&[&a], limits)).await;
    let client = GrpcClient::new(proxy.address).await;
    let mut talk = client.talk("Echo").await.unwrap();
    talk.exchange("x").await;
    let stalls = tokio::spawn({
        let client = client.clone();
        async move { client.say("Stall", "x").await }
    });
    a.until("both", |seen| seen.open == 2).await;
    // What is no gRPC runs into both limits meanwhile.
    let mut raw = Raw::open(proxy.address).await;
    let json = ("content-type", "application/json");
    let slow = H2Backend::start("slow").await;
    slow.reply(H2Reply::Stall);
    let both = config(&[&a], limits).pool_of(
        "slow",
        &[slow.toml()],
        "protocol = \"h2c\"\n[pool.slow.timeouts]\nresponse = \"100ms\"",
    );
    let both = both.route("hosts = [\"shop.example\"]\npool = \"slow\"").route("pool = \"app\"");
    proxy.reload(both).await.unwrap();
    for _ in 0..3 {
        assert_eq!(raw.ask(&[json]).await.status, 504);
    }
    assert!(!stalls.is_finished());
    talk.exchange("y").await;
    stalls.abort();
}

#[tokio::test]
async fn a_backend_that_nobody_pings_keeps_to_the_limits_of_its_pool() {
    let (a, keys) = (Backend::start("a").await, Keys::for_names(&["a.example"]));
    a.reply(Reply::stall());
    let front = TlsFront::start(&keys, "site", &[("http/1.1", a.address)]).await;
    let limits = "[pool.app.timeouts]\nresponse = \"100ms\"";
    let clear = Config::app(&[&a], limits);
    let chosen = format!("protocol = \"auto\"\ntls.verify = false\n{limits}");
    let chosen = Config::default().pool_of("app", &[front.toml("a")], &chosen);
    for config in [clear, chosen] {
        let proxy = Proxy::start(listens(config).server("workers = 1")).await;
        let mut raw = Raw::open(proxy.address).await;
        // The first one finds out what the backend speaks, if that is not known.
        assert_eq!(raw.ask(&[("grpc-timeout", "100m")]).await.field("grpc-status"), Some("4"));
        assert_eq!(raw.ask(&[]).await.field("grpc-status"), Some("4"), "it set no time itself");
        assert_eq!(proxy.logged(2).await[1]["end"], "response_timeout");
    }
}

#[tokio::test]
async fn a_drain_lets_a_stream_end_and_begins_no_other_there() {
    let (a, b) = (GrpcBackend::start("a").await, GrpcBackend::start("b").await);
    let (proxy, client) = over(&[&a, &b], "").await;
    let mut talks = Vec::new();
    for _ in 0..2 {
        talks.push(client.talk("Echo").await.unwrap());
    }
    order(&proxy, "app/a", "draining").await;
    for _ in 0..10 {
        assert_eq!(client.say("Echo", "x").await.unwrap().get_ref().from, "b");
    }
    let mut served = Vec::new();
    for mut talk in talks {
        served.push(talk.exchange("x").await.from);
        assert_eq!(proxy.backend("app/a").await.state, "draining");
        talk.say = None;
        assert_eq!(talk.hear().await.unwrap(), None);
    }
    served.sort();
    assert_eq!(served, ["a", "b"]);
    eventually("drained", async || proxy.backend("app/a").await.state == "drained").await;
}

#[tokio::test]
async fn a_shutdown_lets_a_stream_end_and_takes_no_other() {
    let a = GrpcBackend::start("a").await;
    let (proxy, client) = over(&[&a], "").await;
    let address = proxy.address;
    let mut talk = client.talk("Echo").await.unwrap();
    talk.exchange("x").await;
    let end = tokio::spawn(proxy.shutdown());
    eventually("nobody listens", async || tokio::net::TcpStream::connect(address).await.is_err()).await;
    for number in 0..10 {
        talk.exchange(&number.to_string()).await;
    }
    assert!(!end.is_finished());
    talk.say = None;
    assert_eq!(talk.hear().await.unwrap(), None);
    assert_eq!(talk.hear.trailers().await.unwrap().unwrap().get("x-served-by").unwrap(), "a");
    let report = end.await.unwrap();
    assert_eq!(report.requests_cut, 0);
}
