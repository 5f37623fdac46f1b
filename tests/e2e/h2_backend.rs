//! Pools that speak HTTP/2: many requests on few connections, none of them lost with one.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use h2::Reason;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::support::{
    Ask, Backend, Config, H2Backend, H2Reply, Proxy, Request, Response, eventually, within,
};

fn config(backends: &[&H2Backend], lines: &str) -> Config {
    let backends: Vec<_> = backends.iter().map(|backend| backend.toml()).collect();
    Config::default().pool_of("app", &backends, &format!("protocol = \"h2c\"\n{lines}"))
}

async fn over(backends: &[&H2Backend], lines: &str) -> Proxy {
    Proxy::start(config(backends, lines).server("workers = 1")).await
}

/// Asks at the same time, each by a client of its own.
fn crowd(proxy: &Proxy, count: usize, ask: &Ask) -> JoinSet<Option<Response>> {
    let mut crowd = JoinSet::new();
    for _ in 0..count {
        let (mut client, ask) = (proxy.client(), ask.clone());
        crowd.spawn(async move { client.try_ask(&ask).await });
    }
    crowd
}

async fn all_are_served(mut crowd: JoinSet<Option<Response>>) -> usize {
    let mut served = 0;
    while let Some(answer) = within("an answer", crowd.join_next()).await {
        let answer = answer.unwrap().expect("an answer");
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert!(answer.whole);
        served += 1;
    }
    served
}

#[tokio::test]
async fn a_request_is_translated_and_so_is_its_answer() {
    let a = H2Backend::start("a").await;
    let proxy = over(&[&a], "").await;
    let mut client = proxy.client();
    let ask = Ask::post("/x?y=1", "hello")
        .header("Connection", "keep-alive, X-Hop")
        .header("X-Hop", "1")
        .header("Keep-Alive", "timeout=5")
        .header("TE", "trailers, gzip")
        .header("Cookie", "a=1");
    let answer = client.ask(ask).await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "a"));
    assert_eq!(answer.header("transfer-encoding"), Some("chunked"), "no length came");
    let seen = a.requests().remove(0);
    assert_eq!((seen.method.as_str(), seen.target.as_str()), ("POST", "/x?y=1"));
    assert_eq!((seen.header(":authority"), seen.header("host")), (Some("shop.example"), None));
    assert_eq!((seen.text().as_str(), seen.header("content-length")), ("hello", Some("5")));
    assert_eq!((seen.header("te"), seen.header("cookie")), (Some("trailers"), Some("a=1")));
    assert_eq!(seen.header("x-forwarded-for"), Some("127.0.0.1"));
    for hop in ["connection", "keep-alive", "x-hop", "transfer-encoding", "upgrade"] {
        assert_eq!(seen.header(hop), None, "{hop}");
    }
    let line = &proxy.logged(1).await[0];
    assert_eq!((line["end"].as_str(), line["proto"].as_str()), (Some("ok"), Some("http/1.1")));
}

#[tokio::test]
async fn answers_without_a_body_and_with_a_length_are_framed_as_they_should() {
    let a = H2Backend::start("a").await;
    a.answer(|request| match request.target.as_str() {
        "/none" => H2Reply::status(204),
        "/same" => H2Reply::status(304),
        "/length" if request.method == "HEAD" => H2Reply::status(200).header("content-length", "5"),
        _ => H2Reply::text("12345").header("content-length", "5"),
    });
    let proxy = over(&[&a], "host = \"inside.example\"").await;
    let mut client = proxy.client();
    for (method, target, status, length, body) in [
        ("GET", "/none", 204, None, ""),
        ("GET", "/same", 304, None, ""),
        ("HEAD", "/length", 200, Some("5"), ""),
        ("GET", "/length", 200, Some("5"), "12345"),
    ] {
        let answer = client.ask(Ask::new(method, target)).await;
        assert_eq!((answer.status, answer.text().as_str()), (status, body), "{method} {target}");
        assert_eq!(answer.header("content-length"), length, "{method} {target}");
        assert_eq!(answer.header("transfer-encoding"), None, "{method} {target}");
    }
    assert_eq!(a.requests()[0].header(":authority"), Some("inside.example"));
    assert_eq!((a.accepted(), a.resets()), (1, 0), "one connection, and every stream came to its end");
    for line in proxy.logged(4).await {
        assert_eq!(line["end"], "ok");
    }
}

#[tokio::test]
async fn a_crowd_shares_few_connections_and_none_carries_more_than_its_backend_allows() {
    let a = H2Backend::with_streams("a", 20).await;
    a.hold();
    let proxy = over(&[&a], "hold = { max = 500, timeout = \"8s\" }").await;
    let crowd = crowd(&proxy, 200, &Ask::get("/"));
    // Four connections of twenty; the others wait in the proxy, where they are counted.
    a.parked(80).await;
    eventually("the crowd is in", async || proxy.backend("app/a").await.in_flight == 200).await;
    assert_eq!((a.count(), a.accepted(), a.most_streams()), (80, 4, 20));
    a.release_one();
    a.parked(80).await;
    a.release();
    assert_eq!(all_are_served(crowd).await, 200);
    assert_eq!((a.count(), a.accepted(), a.most_streams()), (200, 4, 20));
}

#[tokio::test]
async fn who_waits_too_long_for_a_full_backend_is_told_so_and_who_is_one_too_many_at_once() {
    let a = H2Backend::with_streams("a", 1).await;
    a.hold();
    let proxy = over(&[&a], "hold = { max = 1, timeout = \"300ms\" }").await;
    let full = crowd(&proxy, 4, &Ask::get("/"));
    a.parked(4).await;
    let mut waits = proxy.client();
    waits.send(&Ask::get("/")).await;
    eventually("one waits", async || proxy.backend("app/a").await.in_flight == 5).await;
    assert_eq!(proxy.metric("pintle_pool_held_requests{pool=\"app\"}").await, 1.0);
    let refused = proxy.client().get("/").await;
    assert_eq!(refused.status, 503);
    assert!(refused.text().contains("no_backend"), "{}", refused.text());
    let late = waits.read("GET").await.unwrap();
    assert_eq!(late.status, 503);
    assert!(late.text().contains("hold_timeout"), "{}", late.text());
    assert_eq!(proxy.metric("pintle_pool_held_requests{pool=\"app\"}").await, 0.0);
    a.release();
    assert_eq!(all_are_served(full).await, 4);
}

#[tokio::test]
async fn a_full_backend_is_passed_over_while_another_has_room() {
    let (a, b) = (H2Backend::with_streams("a", 1).await, H2Backend::start("b").await);
    let proxy = over(&[&a, &b], "").await;
    // What a backend allows is known once it has said so.
    for _ in 0..2 {
        proxy.client().get("/").await;
    }
    a.hold();
    b.hold();
    let crowd = crowd(&proxy, 40, &Ask::get("/"));
    b.parked(36).await;
    a.parked(4).await;
    a.release();
    b.release();
    assert_eq!(all_are_served(crowd).await, 40);
}

#[tokio::test]
async fn a_goodbye_under_load_fails_nobody() {
    let a = H2Backend::start("a").await;
    let proxy = over(&[&a], "").await;
    let stop = Arc::new(AtomicUsize::new(0));
    let mut load = JoinSet::new();
    for number in 0..16 {
        let (mut client, stop) = (proxy.client(), stop.clone());
        load.spawn(async move {
            let mut served = 0;
            while stop.load(Ordering::Relaxed) == 0 {
                let ask = if number % 2 == 0 { Ask::get("/") } else { Ask::post("/", "hello") };
                let answer = client.ask(ask).await;
                assert_eq!(answer.status, 200, "{}", answer.text());
                served += 1;
            }
            served
        });
    }
    for round in 1..=10 {
        let before = a.count();
        a.seen(before + 100).await;
        a.goodbye();
        eventually("a new connection", async || a.accepted() > round).await;
    }
    stop.store(1, Ordering::Relaxed);
    let served: usize = load.join_all().await.into_iter().sum();
    assert_eq!(a.count(), served, "nothing was served twice");
    eventually("the old ones are gone", async || a.open() <= 4).await;
}

#[tokio::test]
async fn a_refused_stream_is_sent_again_with_its_body_and_counts_once() {
    let a = H2Backend::start("a").await;
    let refused = AtomicUsize::new(0);
    a.answer(move |request| match refused.fetch_add(1, Ordering::Relaxed) % 3 {
        0 | 1 => H2Reply::Reset(Reason::REFUSED_STREAM),
        _ => H2Reply::text(request.body.clone()),
    });
    let proxy = over(&[&a], "").await;
    let mut client = proxy.client();
    let answer = client.post("/", "once more").await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "once more"));
    assert_eq!(client.get("/").await.status, 200);
    assert_eq!(a.count(), 6);
    for line in proxy.logged(2).await {
        assert_eq!(line["attempts"], 1, "{line}");
    }
}

#[tokio::test]
async fn a_body_of_which_too_much_has_gone_is_not_sent_again() {
    let a = H2Backend::start("a").await;
    a.reply(H2Reply::Reset(Reason::REFUSED_STREAM));
    let proxy = over(&[&a], "").await;
    let answer = proxy.client().post("/", vec![b'x'; 100_000]).await;
    assert_eq!(answer.status, 502, "{}", answer.text());
    assert_eq!(a.count(), 1);
}

#[tokio::test]
async fn a_backend_that_refuses_for_ever_is_left_for_another() {
    let (a, b) = (H2Backend::start("a").await, H2Backend::start("b").await);
    a.reply(H2Reply::Reset(Reason::REFUSED_STREAM));
    let proxy = over(&[&a, &b], "").await;
    for _ in 0..4 {
        let answer = proxy.client().post("/", "hello").await;
        assert_eq!((answer.status, answer.served_by()), (200, "b"), "{}", answer.text());
    }
    assert!(a.count() > 0);
    a.reply(H2Reply::Reset(Reason::REFUSED_STREAM));
    b.reply(H2Reply::Reset(Reason::REFUSED_STREAM));
    assert_eq!(proxy.client().post("/", "hello").await.status, 502);
}

#[tokio::test]
async fn a_post_that_a_backend_may_have_seen_is_not_sent_again() {
    let a = H2Backend::start("a").await;
    a.reply(H2Reply::Reset(Reason::INTERNAL_ERROR));
    let proxy = over(&[&a], "").await;
    let mut client = proxy.client();
    let answer = client.post("/", "hello").await;
    assert_eq!(answer.status, 502);
    assert!(answer.text().contains("reset_before_response"), "{}", answer.text());
    assert_eq!(a.count(), 1);
    a.reply(H2Reply::text("well"));
    assert_eq!(client.get("/").await.status, 200);
    assert_eq!(a.accepted(), 1, "a stream has ended, not its connection");
}

#[tokio::test]
async fn a_connection_that_died_idle_is_not_noticed_by_the_next() {
    let a = H2Backend::start("a").await;
    let proxy = over(&[&a], "").await;
    let mut client = proxy.client();
    for _ in 0..20 {
        assert_eq!(client.get("/").await.status, 200);
        a.drop_connections().await;
        let answer = client.get("/").await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        a.goodbye();
        let answer = client.post("/", "x").await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
}

#[tokio::test]
async fn requests_of_a_connection_that_dies_are_sent_again_where_that_is_safe() {
    let a = H2Backend::start("a").await;
    let proxy = over(&[&a], "").await;
    proxy.client().get("/").await;
    a.hold();
    let gets = crowd(&proxy, 20, &Ask::get("/"));
    let mut posts = crowd(&proxy, 5, &Ask::post("/", "x"));
    a.parked(25).await;
    a.drop_connections().await;
    a.release();
    assert_eq!(all_are_served(gets).await, 20);
    while let Some(answer) = within("an answer", posts.join_next()).await {
        assert_eq!(answer.unwrap().unwrap().status, 502);
    }
    let posted = a.requests().iter().filter(|request| request.method == "POST").count();
    assert_eq!((posted, a.accepted()), (5, 2), "all share the one new connection");
}

#[tokio::test]
async fn a_connection_is_closed_when_idle_and_when_old() {
    let a = H2Backend::start("a").await;
    let proxy = over(&[&a], "connections = { idle = \"200ms\", max_age = \"1s\" }").await;
    let mut client = proxy.client();
    client.get("/").await;
    a.deserted().await;
    let begun = std::time::Instant::now();
    let mut connections = HashSet::new();
    while begun.elapsed() < Duration::from_millis(1500) {
        client.get("/").await;
        connections.extend(a.requests().last().map(|request| request.connection));
    }
    assert!((2..=3).contains(&connections.len()), "{connections:?}");
}

#[tokio::test]
async fn a_body_cut_short_is_seen_to_be_short() {
    let a = H2Backend::start("a").await;
    a.reply(H2Reply::Broken(b"half".to_vec(), Reason::INTERNAL_ERROR));
    let proxy = over(&[&a], "").await;
    let mut wire = proxy.wire().await;
    wire.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let head = String::from_utf8(wire.head().await.unwrap()).unwrap();
    assert!(head.contains("transfer-encoding: chunked"), "{head}");
    a.release();
    let body = String::from_utf8(wire.rest().await).unwrap();
    assert_eq!(body, "4\r\nhalf\r\n", "no last chunk");
    assert_eq!(proxy.logged(1).await[0]["end"], "reset_during_response");
    a.reply(H2Reply::text("well"));
    assert_eq!(proxy.client().get("/").await.text(), "well");
    assert_eq!(a.accepted(), 1);
}

#[tokio::test]
async fn an_answer_is_complete_when_its_length_has_come_though_its_end_has_not() {
    let a = H2Backend::start("a").await;
    a.reply(H2Reply::EndsLater(b"whole".to_vec()));
    let proxy = over(&[&a], "").await;
    let mut client = proxy.client();
    let answer = client.get("/").await;
    assert_eq!((answer.text().as_str(), answer.whole), ("whole", true));
    assert_eq!(proxy.logged(1).await[0]["end"], "ok");
    a.reply(H2Reply::text("well"));
    assert_eq!(client.get("/").await.text(), "well");
    assert_eq!(a.accepted(), 1);
}

#[tokio::test]
async fn trailers_reach_who_asks_for_them_in_both_directions() {
    let a = H2Backend::start("a").await;
    a.answer(|_| H2Reply::text("sum").header("trailer", "x-sum").trailer("x-sum", "42"));
    let proxy = over(&[&a], "").await;
    let asked = proxy.client().ask(Ask::get("/").header("TE", "trailers")).await;
    assert_eq!((asked.text().as_str(), asked.trailers.get("x-sum")), ("sum", Some("42")));
    let plain = proxy.client().get("/").await;
    assert_eq!((plain.text().as_str(), plain.trailers.get("x-sum")), ("sum", None));
    let sent = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: x-in\r\nConnection: close\r\n\r\n\
                3\r\nabc\r\n0\r\nx-in: 7\r\n\r\n";
    proxy.raw(sent).await;
    let seen = a.seen(3).await;
    assert_eq!((seen.text().as_str(), seen.trailers.get("x-in"), seen.whole), ("abc", Some("7"), true));
    assert_eq!((seen.header("transfer-encoding"), seen.header("content-length")), (None, None));
}

#[tokio::test]
async fn an_upgrade_is_refused() {
    let a = H2Backend::start("a").await;
    let proxy = over(&[&a], "").await;
    let ask = Ask::get("/").header("Connection", "upgrade").header("Upgrade", "websocket");
    let answer = proxy.client().ask(ask).await;
    assert_eq!(answer.status, 502);
    assert!(answer.text().contains("no upgrade over HTTP/2"), "{}", answer.text());
    assert_eq!(a.count(), 0);
}

#[tokio::test]
async fn a_backend_that_speaks_http_1_is_not_mistaken_for_a_dead_one() {
    let a = Backend::start("a").await;
    let proxy = Proxy::start(Config::app(&[&a], "protocol = \"h2c\"").server("workers = 1")).await;
    let answer = proxy.client().get("/").await;
    assert_eq!(answer.status, 502, "{}", answer.text());
    assert_eq!(proxy.backend("app/a").await.state, "active");
}

#[tokio::test]
async fn a_sticky_client_stays() {
    let (a, b) = (H2Backend::start("a").await, H2Backend::start("b").await);
    let proxy = over(&[&a, &b], "policy = \"sticky_cookie\"").await;
    for _ in 0..4 {
        let mut client = proxy.client();
        let first = client.get("/").await.served_by().to_owned();
        for _ in 0..5 {
            assert_eq!(client.get("/").await.served_by(), first);
        }
    }
    assert!(a.count() > 0 && b.count() > 0);
    assert_eq!(a.requests()[0].header("cookie"), None);
}

#[tokio::test]
async fn a_client_that_does_not_read_stops_its_backend_and_nobody_else() {
    let a = H2Backend::start("a").await;
    let size = 32 << 20;
    a.answer(move |request| match request.target.as_str() {
        "/flood" => H2Reply::Flood(size),
        _ => H2Reply::text("well"),
    });
    let proxy = over(&[&a], "").await;
    let mut stalled = proxy.client();
    stalled.send(&Ask::get("/flood")).await;
    a.seen(1).await;
    // It stops when nothing has moved over as many answers to somebody else.
    let (mut other, mut before, mut quiet) = (proxy.client(), 0, 0);
    while quiet < 50 {
        assert_eq!(other.get("/").await.text(), "well");
        quiet = if a.written() == before && before > 0 { quiet + 1 } else { 0 };
        before = a.written();
    }
    // The kernel's buffers take some megabytes, the proxy next to nothing.
    assert!(before < size / 2, "{before} of {size} were taken");
    assert_eq!(a.accepted(), 1);
    let (wire, mut buffer) = (stalled.wire().await, vec![0; 1 << 20]);
    while a.written() < size {
        let taken = within("more of the flood", wire.stream.read(&mut buffer)).await.unwrap();
        assert!(taken > 0, "it ended after {} of {size}", a.written());
    }
}

#[tokio::test]
async fn a_backend_that_does_not_read_stops_its_client() {
    let a = H2Backend::start("a").await;
    a.answer_early(|_| H2Reply::Stall);
    let proxy = over(&[&a], "timeouts.response = \"1s\"").await;
    let mut wire = proxy.wire().await;
    let size = 64 << 20;
    wire.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n")).await;
    let piece = vec![b'x'; 64 * 1024];
    let mut written = 0;
    // A write that is not taken in half a second is not taken.
    while let Ok(done) = tokio::time::timeout(Duration::from_millis(500), wire.stream.write(&piece)).await {
        written += done.unwrap();
        assert!(written < size / 4, "the backend reads nothing, and {written} bytes were taken");
    }
    eventually("its time is up, and the stream is reset", async || a.resets() == 1).await;
    a.reply(H2Reply::text("well"));
    assert_eq!(proxy.client().get("/").await.text(), "well");
    assert_eq!(a.accepted(), 1);
}

#[tokio::test]
async fn a_big_body_goes_both_ways() {
    let a = H2Backend::start("a").await;
    a.answer(|request| H2Reply::text(request.body.clone()));
    let proxy = over(&[&a], "").await;
    let body: Vec<u8> = (0..4_000_000_u32).map(|n| n as u8).collect();
    let answer = proxy.client().post("/", body.clone()).await;
    assert_eq!((answer.status, answer.body == body), (200, true));
}

#[tokio::test]
async fn a_client_that_leaves_resets_its_stream_and_no_other() {
    let a = H2Backend::start("a").await;
    a.hold();
    let proxy = over(&[&a], "").await;
    let mut leaves = proxy.client();
    leaves.send(&Ask::get("/")).await;
    let mut stays = proxy.client();
    stays.send(&Ask::get("/")).await;
    a.parked(2).await;
    leaves.hang_up();
    eventually("one stream is reset", async || a.resets() == 1).await;
    a.release();
    assert_eq!(stays.read("GET").await.unwrap().status, 200);
    assert_eq!(a.accepted(), 1);
}

#[tokio::test]
async fn a_slow_answer_times_out_alone() {
    let a = H2Backend::start("a").await;
    a.answer(|request| match request.target.as_str() {
        "/slow" => H2Reply::Stall,
        _ => H2Reply::text("well"),
    });
    let proxy = over(&[&a], "timeouts.response = \"200ms\"").await;
    let mut client = proxy.client();
    assert_eq!(client.get("/slow").await.status, 504);
    assert_eq!(client.get("/").await.text(), "well");
    eventually("the stream is reset", async || a.resets() == 1).await;
    assert_eq!(a.accepted(), 1);
}

#[tokio::test]
async fn a_drain_waits_for_streams_and_cuts_them_at_its_deadline() {
    let (a, b) = (H2Backend::start("a").await, H2Backend::start("b").await);
    let other = H2Backend::start("other").await;
    let proxy = over(&[&a, &b, &other], "").await;
    a.hold();
    b.hold();
    let crowd = crowd(&proxy, 6, &Ask::get("/"));
    a.parked(2).await;
    b.parked(2).await;
    let release = async {
        eventually("draining", async || proxy.backend("app/a").await.state == "draining").await;
        a.release();
    };
    let (drained, ()) = tokio::join!(proxy.drain("app/a", None), release);
    assert_eq!(drained.unwrap().requests_cut, 0);
    a.deserted().await;
    let post = self::crowd(&proxy, 4, &Ask::post("/", "once"));
    b.parked(4).await;
    let view = proxy.drain("app/b", Some(Duration::from_secs(1))).await.unwrap();
    eventually("cut", async || b.resets() == 4).await;
    assert_eq!(view.requests_cut, 2, "what can be repeated goes elsewhere");
    assert_eq!(all_are_served(crowd).await, 6);
    let answers = post.join_all().await;
    let mut statuses: Vec<_> = answers.into_iter().map(|answer| answer.unwrap().status).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 200, 503, 503]);
    b.deserted().await;
}

#[tokio::test]
async fn the_end_of_the_process_cuts_streams_that_do_not_end() {
    let a = H2Backend::start("a").await;
    a.hold();
    let proxy = Proxy::start(config(&[&a], "").server("drain_timeout = \"300ms\"")).await;
    let mut client = proxy.client();
    client.send(&Ask::get("/")).await;
    a.parked(1).await;
    let report = proxy.shutdown().await;
    assert_eq!(report.requests_cut, 1);
    assert_eq!(client.read("GET").await.unwrap().status, 503);
    a.deserted().await;
}

#[tokio::test]
async fn probes_speak_what_the_pool_speaks() {
    let (a, b) = (H2Backend::start("a").await, H2Backend::start("b").await);
    let well = |request: &Request| match request.target.as_str() {
        "/healthz" => H2Reply::status(200),
        _ => H2Reply::text("well"),
    };
    a.answer(well);
    b.answer(|_| H2Reply::status(500));
    let proxy = over(&[&a, &b], "health = { path = \"/healthz\", interval = \"100ms\" }").await;
    eventually("b is down", async || proxy.backend("app/b").await.health.status == "down").await;
    eventually("a is up", async || proxy.backend("app/a").await.health.status == "up").await;
    let answer = proxy.client().get("/").await;
    assert_eq!((answer.status, answer.served_by()), (200, "a"));
    let probe = a.requests().remove(0);
    assert_eq!(
        (probe.target.as_str(), probe.header(":authority")),
        ("/healthz", Some(&*a.address.to_string()))
    );
    b.answer(well);
    eventually("b is back", async || proxy.backend("app/b").await.health.status == "up").await;
    eventually("probes leave nothing open", async || b.open() == 0).await;
}

#[tokio::test]
async fn a_reload_turns_a_pool_to_http_2_and_back() {
    let two = H2Backend::start("a").await;
    let one = Backend::start("b").await;
    let pool = |address: &str, protocol: &str| {
        let backend = format!("{{ name = \"a\", address = \"{address}\" }}");
        Config::default()
            .pool_of("app", &[backend], &format!("protocol = \"{protocol}\""))
            .server("workers = 1")
    };
    let (h2, h1) = (two.address.to_string(), one.address.to_string());
    let proxy = Proxy::start(pool(&h1, "http/1.1")).await;
    let mut client = proxy.client();
    assert_eq!(client.get("/").await.served_by(), "b");
    proxy.reload(pool(&h2, "h2c")).await.unwrap();
    assert_eq!(client.get("/").await.served_by(), "a");
    proxy.reload(pool(&h1, "http/1.1")).await.unwrap();
    assert_eq!(client.get("/").await.served_by(), "b");
    two.deserted().await;
}

#[tokio::test]
async fn requests_that_a_goodbye_leaves_out_go_to_a_new_connection_bodies_and_all() {
    let backend = Goodbye::start(5).await;
    let pool = format!("[pool.app]\nprotocol = \"h2c\"\nbackends = [\"{}\"]", backend.address);
    let proxy = Proxy::start(Config::default().text(&pool).server("workers = 1")).await;
    let crowd = crowd(&proxy, 10, &Ask::post("/", "once"));
    assert_eq!(all_are_served(crowd).await, 10);
    assert_eq!(*backend.served.lock().unwrap(), [5, 5]);
    for line in proxy.logged(10).await {
        assert_eq!(line["attempts"], 1, "{line}");
    }
}

/// A server of bare frames. Its first connection takes twice as many streams as it answers, and
/// then says that it has not looked at the others; later ones answer everything.
struct Goodbye {
    address: SocketAddr,
    /// Streams answered, by connection.
    served: Arc<Mutex<Vec<usize>>>,
}

impl Goodbye {
    async fn start(good: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, served) = (listener.local_addr().unwrap(), Arc::<Mutex<Vec<usize>>>::default());
        let counts = served.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let number = counts.lock().unwrap().len();
                counts.lock().unwrap().push(0);
                let good = (number == 0).then_some(good);
                tokio::spawn(Self::serve(stream, good, number, counts.clone()));
            }
        });
        Self { address, served }
    }

    async fn serve(
        mut stream: TcpStream,
        good: Option<usize>,
        number: usize,
        served: Arc<Mutex<Vec<usize>>>,
    ) -> std::io::Result<()> {
        stream.read_exact(&mut [0; 24]).await?;
        stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await?;
        let mut begun = Vec::new();
        loop {
            let mut head = [0; 9];
            stream.read_exact(&mut head).await?;
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            stream.read_exact(&mut vec![0; length]).await?;
            let (kind, flags, id) = (head[3], head[4], [head[5], head[6], head[7], head[8]]);
            if kind == 4 && flags & 1 == 0 {
                stream.write_all(&[0, 0, 0, 4, 1, 0, 0, 0, 0]).await?;
            }
            // The end of a request is in its last HEADERS or DATA.
            if kind > 1 || flags & 1 == 0 {
                continue;
            }
            begun.push(id);
            if good.is_some_and(|good| begun.len() < 2 * good) {
                continue;
            }
            begun.sort_unstable();
            if let Some(good) = good {
                begun.truncate(good);
                let last = begun[good - 1];
                stream.write_all(&[&[0, 0, 8, 7, 0, 0, 0, 0, 0][..], &last, &[0; 4]].concat()).await?;
            }
            for id in begun.drain(..) {
                served.lock().unwrap()[number] += 1;
                // `:status: 200`, and nothing more.
                stream.write_all(&[&[0, 0, 1, 1, 5][..], &id, &[0x88]].concat()).await?;
            }
        }
    }
}
