//! While no backend can take a request it waits, in line, and not for ever.

use std::time::{Duration, Instant};

use crate::support::{Ask, Backend, Client, Config, Proxy, Response, eventually};

/// Sends a GET that will be held, and waits until it stands in line as number `place`.
async fn join(proxy: &Proxy, place: u64, target: &str) -> Client {
    let mut client = proxy.client();
    client.send(&Ask::get(target)).await;
    held(proxy, place).await;
    client
}

async fn held(proxy: &Proxy, count: u64) {
    eventually(&format!("{count} held"), async || proxy.status().await.pools[0].held == count).await;
}

async fn answer(client: &mut Client) -> Response {
    client.read("GET").await.expect("a response")
}

#[tokio::test]
async fn requests_wait_in_line_for_a_backend_that_comes_back() {
    let mut a = Backend::refusing("a");
    let config = Config::app(&[&a], "hold.timeout = \"9s\"").server("workers = 1");
    let proxy = Proxy::start(config).await;
    let mut clients = Vec::new();
    for place in 1..=6 {
        clients.push(join(&proxy, place, &format!("/{place}")).await);
    }
    a.come_back();
    for client in &mut clients {
        assert_eq!(answer(client).await.served_by(), "a");
    }
    let mut requests = a.requests();
    requests.sort_by_key(|request| request.connection);
    let targets: Vec<_> = requests.iter().map(|request| request.target.as_str()).collect();
    assert_eq!(targets, ["/1", "/2", "/3", "/4", "/5", "/6"]);
    held(&proxy, 0).await;
}

#[tokio::test]
async fn those_who_wait_on_several_threads_are_all_answered() {
    let mut a = Backend::refusing("a");
    let proxy = Proxy::start(Config::app(&[&a], "hold.timeout = \"9s\"").server("workers = 4")).await;
    let mut clients = Vec::new();
    for place in 1..=40 {
        clients.push(join(&proxy, place, "/").await);
    }
    a.come_back();
    for client in &mut clients {
        assert_eq!(answer(client).await.status, 200);
    }
}

#[tokio::test]
async fn those_whom_a_restart_has_failed_are_all_answered_when_it_is_over() {
    let mut a = Backend::start("a").await;
    let proxy = Proxy::start(Config::app(&[&a], "hold.timeout = \"9s\"").server("workers = 1")).await;
    let mut clients: Vec<_> = (0..6).map(|_| proxy.client()).collect();
    // Twice, so that the second time each has a connection that was used before: one that dies says
    // nothing of its backend, and only the next is refused.
    for round in 1..=2 {
        a.hold();
        for client in &mut clients {
            client.send(&Ask::get("/")).await;
        }
        a.seen(6 * round).await;
        if round == 1 {
            a.release();
            for client in &mut clients {
                assert_eq!(answer(client).await.status, 200);
            }
        }
    }
    a.die().await;
    held(&proxy, 6).await;
    a.release();
    a.come_back();
    for client in &mut clients {
        assert_eq!(answer(client).await.status, 200);
    }
}

#[tokio::test]
async fn a_probe_brings_back_who_is_waited_for_whatever_rise_says() {
    let mut a = Backend::refusing("a");
    let pool = "hold.timeout = \"9s\"\n[pool.app.health]\npath = \"/healthz\"\ninterval = \"1m\"\nrise = 9";
    let proxy = Proxy::start(Config::app(&[&a], pool)).await;
    eventually("it is down", async || proxy.backend("app/a").await.health.status == "down").await;
    let mut client = join(&proxy, 1, "/").await;
    a.come_back();
    assert_eq!(answer(&mut client).await.status, 200);
}

#[tokio::test]
async fn a_wait_that_takes_too_long_is_a_503() {
    let a = Backend::refusing("a");
    let proxy = Proxy::start(Config::app(&[&a], "hold.timeout = \"300ms\"")).await;
    let begun = Instant::now();
    let answer = proxy.client().get("/").await;
    assert_eq!(answer.status, 503);
    assert!(answer.text().starts_with("503 hold_timeout"), "{}", answer.text());
    let took = begun.elapsed();
    assert!((Duration::from_millis(300)..Duration::from_secs(2)).contains(&took), "{took:?}");
    proxy.ended("hold_timeout").await;
}

#[tokio::test]
async fn who_finds_the_line_full_is_told_at_once() {
    let mut a = Backend::refusing("a");
    let proxy = Proxy::start(Config::app(&[&a], "hold = { max = 1, timeout = \"9s\" }")).await;
    let mut first = join(&proxy, 1, "/").await;
    let second = proxy.client().get("/").await;
    assert!(second.text().starts_with("503 no_backend"), "{}", second.text());
    a.come_back();
    assert_eq!(answer(&mut first).await.status, 200);
}

#[tokio::test]
async fn a_pool_that_holds_nobody_answers_at_once() {
    let a = Backend::refusing("a");
    let proxy = Proxy::start(Config::app(&[&a], "hold.max = 0")).await;
    for _ in 0..3 {
        let begun = Instant::now();
        let answer = proxy.client().get("/").await;
        assert_eq!(answer.status, 503);
        assert!(answer.text().starts_with("503 no_backend"), "{}", answer.text());
        assert!(begun.elapsed() < Duration::from_secs(1));
    }
}

#[tokio::test]
async fn a_client_that_leaves_frees_its_place() {
    let mut a = Backend::refusing("a");
    let proxy = Proxy::start(Config::app(&[&a], "hold = { max = 2, timeout = \"9s\" }")).await;
    let first = join(&proxy, 1, "/1").await;
    let mut second = join(&proxy, 2, "/2").await;
    drop(first);
    held(&proxy, 1).await;
    let mut third = join(&proxy, 2, "/3").await;
    a.come_back();
    assert_eq!((answer(&mut second).await.status, answer(&mut third).await.status), (200, 200));
    assert!(a.requests().iter().all(|request| request.target != "/1"));
    proxy.ended("client_abort").await;
}

#[tokio::test]
async fn a_reload_routes_those_who_wait_anew() {
    let a = Backend::refusing("a");
    let b = Backend::start("b").await;
    let pool = "hold.timeout = \"9s\"";
    let proxy = Proxy::start(Config::app(&[&a], pool)).await;
    let mut first = join(&proxy, 1, "/").await;
    proxy.reload(Config::app(&[&b], pool)).await.unwrap();
    assert_eq!(answer(&mut first).await.served_by(), "b");

    let proxy = Proxy::start(Config::app(&[&a], pool)).await;
    let mut first = join(&proxy, 1, "/").await;
    let other = Config::app(&[&a], pool).pool("other", &[&b], "").route("pool = \"other\"");
    proxy.reload(other).await.unwrap();
    assert_eq!(answer(&mut first).await.served_by(), "b");

    let proxy = Proxy::start(Config::app(&[&a], pool)).await;
    let mut first = join(&proxy, 1, "/").await;
    proxy.reload(Config::default().pool("other", &[&b], "")).await.unwrap();
    assert_eq!(answer(&mut first).await.served_by(), "b", "its pool is gone altogether");
}

#[tokio::test]
async fn a_reload_that_changes_nothing_for_them_leaves_them_in_line() {
    let mut a = Backend::refusing("a");
    let config = || Config::app(&[&a], "hold.timeout = \"9s\"").server("workers = 1");
    let proxy = Proxy::start(config()).await;
    let mut first = join(&proxy, 1, "/1").await;
    let mut second = join(&proxy, 2, "/2").await;
    proxy.reload(config()).await.unwrap();
    held(&proxy, 2).await;
    a.come_back();
    assert_eq!((answer(&mut first).await.status, answer(&mut second).await.status), (200, 200));
    let first = a.requests().into_iter().min_by_key(|request| request.connection).unwrap();
    assert_eq!(first.target, "/1");
}

#[tokio::test]
async fn who_has_a_backend_does_not_wait_behind_those_who_have_none() {
    let [a, mut b] = Backend::fleet(["a", "b"]).await;
    let pool = "policy = \"sticky_cookie\"\nhold.timeout = \"9s\"";
    let proxy = Proxy::start(Config::app(&[&a, &b], pool)).await;
    let mut known = proxy.client();
    while known.get("/").await.served_by() != "a" {
        known.cookies.clear();
    }
    // `a` drains and keeps whom it knows; `b` is down: nobody takes somebody new.
    let drain = pintle::admin::view::StateOrder { state: "draining".into(), ..Default::default() };
    proxy.set_state("app/a", drain).await.unwrap();
    b.die().await;
    let mut new = join(&proxy, 1, "/").await;
    let begun = Instant::now();
    for _ in 0..3 {
        assert_eq!(known.get("/").await.served_by(), "a");
    }
    assert!(begun.elapsed() < Duration::from_secs(2));
    b.come_back();
    assert_eq!(answer(&mut new).await.served_by(), "b");
}

#[tokio::test]
async fn a_reload_serves_everybody_whom_it_can_and_not_the_first_in_line_alone() {
    let mut a = Backend::refusing("a");
    let b = Backend::start("b").await;
    let pool = "hold.timeout = \"9s\"";
    let proxy = Proxy::start(Config::app(&[&a], pool).server("workers = 3")).await;
    let mut first = join(&proxy, 1, "/stays").await;
    let mut others = Vec::new();
    for place in 2..=7 {
        others.push(join(&proxy, place, &format!("/moves/{place}")).await);
    }
    let mut last = join(&proxy, 8, "/stays/too").await;
    b.hold();
    let moves = "path = \"/moves\"\npool = \"other\"";
    let config = Config::app(&[&a], pool).pool("other", &[&b], "").route("pool = \"app\"").route(moves);
    let begun = Instant::now();
    proxy.reload(config.server("workers = 3")).await.unwrap();
    b.parked(6).await;
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    // They look one after the other, as they came.
    let targets: Vec<_> = b.requests().iter().map(|request| request.target.clone()).collect();
    let came: Vec<_> = (2..=7).map(|place| format!("/moves/{place}")).collect();
    assert_eq!(targets.iter().collect::<std::collections::BTreeSet<_>>().len(), 6);
    assert!(targets.iter().zip(&came).filter(|(arrived, came)| arrived == came).count() >= 2, "{targets:?}");
    held(&proxy, 2).await;
    b.release();
    for client in &mut others {
        assert_eq!(answer(client).await.served_by(), "b");
    }
    a.come_back();
    assert_eq!((answer(&mut first).await.served_by(), answer(&mut last).await.served_by()), ("a", "a"));
}

#[tokio::test]
async fn a_reload_in_the_middle_of_the_line_keeps_the_order_of_those_who_stay() {
    let mut a = Backend::refusing("a");
    let config = |more: &str| {
        let config = Config::app(&[&a], &format!("hold.timeout = \"9s\"\n{more}"));
        config.server("workers = 1")
    };
    let proxy = Proxy::start(config("")).await;
    let mut clients = Vec::new();
    for place in 1..=5 {
        clients.push(join(&proxy, place, &format!("/{place}")).await);
    }
    proxy.reload(config("max_in_flight = 1")).await.unwrap();
    held(&proxy, 5).await;
    a.come_back();
    for client in &mut clients {
        assert_eq!(answer(client).await.status, 200);
    }
    let targets: Vec<_> = a.requests().iter().map(|request| request.target.clone()).collect();
    assert_eq!(targets, ["/1", "/2", "/3", "/4", "/5"]);
}

#[tokio::test]
async fn a_websocket_s_handshake_waits_in_line_like_every_request() {
    let mut a = Backend::refusing("a");
    a.reply(crate::support::Reply::upgrade("echo", "hello"));
    let proxy = Proxy::start(Config::app(&[&a], "hold = { max = 2, timeout = \"9s\" }")).await;
    let handshake = "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n";
    let (mut first, mut second, mut third) = (proxy.wire().await, proxy.wire().await, proxy.wire().await);
    first.send(handshake).await;
    held(&proxy, 1).await;
    second.send(handshake).await;
    held(&proxy, 2).await;
    third.send(handshake).await;
    assert_eq!(third.response("GET").await.expect("an answer").status, 503, "the line is full");
    drop(first);
    held(&proxy, 1).await;
    a.come_back();
    assert_eq!(second.response_head().await.expect("a head").status, 101);
    held(&proxy, 0).await;
}
