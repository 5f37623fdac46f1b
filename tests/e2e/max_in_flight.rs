//! `max_in_flight`: how many a backend has at a time, over all threads, and who waits for a slot.

use std::time::{Duration, Instant};

use crate::support::{Ask, Backend, Client, Config, Proxy, Response, eventually};

async fn held(proxy: &Proxy, count: u64) {
    eventually(&format!("{count} held"), async || proxy.status().await.pools[0].held == count).await;
}

/// Sends a GET and waits until it stands in line as number `place`.
async fn join(proxy: &Proxy, place: u64, target: &str) -> Client {
    let mut client = proxy.client();
    client.send(&Ask::get(target)).await;
    held(proxy, place).await;
    client
}

async fn answer(client: &mut Client) -> Response {
    client.read("GET").await.expect("a response")
}

/// A client whose request the backend has, as the `count`th.
async fn occupy(proxy: &Proxy, backend: &Backend, count: usize) -> Client {
    let mut client = proxy.client();
    client.send(&Ask::get("/occupies")).await;
    backend.parked(count).await;
    client
}

#[tokio::test]
async fn no_backend_ever_has_more_than_its_limit_whichever_thread_asks() {
    const LIMIT: usize = 3;
    const CLIENTS: usize = 40;
    for policy in ["round_robin", "least_conn", "random_two", "ip_hash"] {
        let [a, b] = Backend::fleet(["a", "b"]).await;
        let backends = [&a, &b];
        backends.iter().for_each(|backend| backend.hold());
        let pool = format!("policy = \"{policy}\"\nmax_in_flight = {LIMIT}\nhold.timeout = \"9s\"");
        let proxy = Proxy::start(Config::app(&backends, &pool).server("workers = 3")).await;
        let mut clients = Vec::new();
        for _ in 0..CLIENTS {
            let mut client = proxy.client();
            client.send(&Ask::get("/")).await;
            clients.push(client);
        }
        held(&proxy, (CLIENTS - 2 * LIMIT) as u64).await;
        for backend in backends {
            backend.seen(LIMIT).await;
        }
        assert_eq!((a.count(), b.count()), (LIMIT, LIMIT), "{policy}");
        let mut released = [0, 0];
        for round in 2 * LIMIT + 1..=CLIENTS {
            let turn = round % 2;
            backends[turn].release_one();
            released[turn] += 1;
            backends[turn].seen(LIMIT + released[turn]).await;
            for (backend, released) in backends.iter().zip(released) {
                assert_eq!(backend.count() - released, LIMIT, "{policy}, round {round}");
            }
        }
        backends.iter().for_each(|backend| backend.release());
        for client in &mut clients {
            assert_eq!(answer(client).await.status, 200);
        }
        held(&proxy, 0).await;
    }
}

#[tokio::test]
async fn slots_are_handed_out_in_the_order_of_arrival_over_all_threads() {
    let a = Backend::start("a").await;
    a.hold();
    let pool = "max_in_flight = 1\nhold.timeout = \"9s\"";
    let proxy = Proxy::start(Config::app(&[&a], pool).server("workers = 4")).await;
    let mut clients = vec![occupy(&proxy, &a, 1).await];
    for place in 1..=8 {
        clients.push(join(&proxy, place, &format!("/{place}")).await);
    }
    for (place, client) in clients.iter_mut().enumerate() {
        a.release_one();
        assert_eq!(answer(client).await.status, 200);
        if place < 8 {
            assert_eq!(a.seen(place + 2).await.target, format!("/{}", place + 1));
        }
    }
    let waited = proxy.logged(9).await.last().expect("lines")["proxy_ms"].clone();
    assert!(waited.as_f64().is_some_and(|own| own < 1000.0), "the wait is not our own time: {waited}");
}

#[tokio::test]
async fn a_full_backend_is_passed_over() {
    let [a, b] = Backend::fleet(["a", "b"]).await;
    let proxy = Proxy::start(Config::app(&[&a, &b], "max_in_flight = 1")).await;
    a.hold();
    b.hold();
    let mut first = proxy.client();
    first.send(&Ask::get("/")).await;
    eventually("one of them has it", async || a.count() + b.count() == 1).await;
    let (full, other) = if a.count() == 1 { (&a, &b) } else { (&b, &a) };
    other.release();
    for _ in 0..6 {
        assert_eq!(proxy.client().get("/").await.served_by(), other.name);
    }
    full.release();
    assert_eq!(answer(&mut first).await.served_by(), full.name);
}

#[tokio::test]
async fn who_finds_everybody_full_and_so_the_line_is_told_so() {
    let a = Backend::start("a").await;
    a.hold();
    let pool = "max_in_flight = 1\nhold = { max = 1, timeout = \"9s\" }";
    let proxy = Proxy::start(Config::app(&[&a], pool)).await;
    let mut first = occupy(&proxy, &a, 1).await;
    let mut second = join(&proxy, 1, "/").await;
    let third = proxy.client().get("/").await;
    assert_eq!(third.status, 503);
    assert!(third.text().starts_with("503 no_backend: every backend of pool app that is up is full"));
    a.release();
    assert_eq!((answer(&mut first).await.status, answer(&mut second).await.status), (200, 200));
}

#[tokio::test]
async fn nobody_waits_for_a_slot_longer_than_the_pool_holds() {
    let a = Backend::start("a").await;
    a.hold();
    let pool = "max_in_flight = 1\nhold.timeout = \"300ms\"";
    let proxy = Proxy::start(Config::app(&[&a], pool)).await;
    let mut first = occupy(&proxy, &a, 1).await;
    let begun = Instant::now();
    let second = proxy.client().get("/").await;
    assert!(second.text().starts_with("503 hold_timeout"), "{}", second.text());
    let took = begun.elapsed();
    assert!((Duration::from_millis(300)..Duration::from_secs(2)).contains(&took), "{took:?}");
    a.release();
    assert_eq!(answer(&mut first).await.status, 200);
    assert_eq!(a.count(), 1, "who gave up was never sent");
    assert_eq!(proxy.client().get("/").await.status, 200, "and took no slot along");
}

#[tokio::test]
async fn a_client_that_leaves_while_it_is_served_or_waits_frees_what_it_had() {
    let a = Backend::start("a").await;
    a.hold();
    let pool = "max_in_flight = 1\nhold.timeout = \"9s\"";
    let proxy = Proxy::start(Config::app(&[&a], pool)).await;
    let first = occupy(&proxy, &a, 1).await;
    let second = join(&proxy, 1, "/2").await;
    let mut third = join(&proxy, 2, "/3").await;
    drop(second);
    held(&proxy, 1).await;
    drop(first);
    assert_eq!(a.seen(2).await.target, "/3");
    a.release();
    assert_eq!(answer(&mut third).await.status, 200);
}

#[tokio::test]
async fn a_tunnel_has_a_slot_and_a_handshake_waits_for_one() {
    let a = Backend::start("a").await;
    a.reply(crate::support::Reply::upgrade("echo", "hello"));
    let pool = "max_in_flight = 1\nhold.timeout = \"9s\"";
    let proxy = Proxy::start(Config::app(&[&a], pool)).await;
    let handshake = "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n";
    let mut first = proxy.wire().await;
    first.send(handshake).await;
    assert!(first.head().await.expect("a head").starts_with(b"HTTP/1.1 101"));
    let mut second = proxy.wire().await;
    second.send(handshake).await;
    held(&proxy, 1).await;
    assert_eq!(a.count(), 1);
    drop(first);
    assert!(second.head().await.expect("a head").starts_with(b"HTTP/1.1 101"));
}

#[tokio::test]
async fn a_token_whose_backend_is_full_waits_for_that_backend_and_keeps_nobody_from_the_others() {
    let [a, b] = Backend::fleet(["a", "b"]).await;
    let pool = "policy = \"sticky_cookie\"\nmax_in_flight = 1\nhold.timeout = \"9s\"";
    let proxy = Proxy::start(Config::app(&[&a, &b], pool)).await;
    let mut known = proxy.client();
    while known.get("/").await.served_by() != "a" {
        known.cookies.clear();
    }
    let before = a.count();
    a.hold();
    let mut occupant = proxy.client();
    occupant.cookies = known.cookies.clone();
    occupant.send(&Ask::get("/")).await;
    a.parked(1).await;
    known.send(&Ask::get("/known")).await;
    held(&proxy, 1).await;
    for _ in 0..5 {
        assert_eq!(proxy.client().get("/").await.served_by(), "b", "others are not behind it");
    }
    a.release_one();
    assert_eq!(answer(&mut occupant).await.served_by(), "a");
    assert_eq!(a.seen(before + 2).await.target, "/known");
    a.release();
    assert_eq!(answer(&mut known).await.served_by(), "a");
}

#[tokio::test]
async fn a_reload_that_lifts_the_limit_lets_those_who_wait_go() {
    let a = Backend::start("a").await;
    a.hold();
    let pool = |max: u32| format!("max_in_flight = {max}\nhold.timeout = \"9s\"");
    let proxy = Proxy::start(Config::app(&[&a], &pool(1))).await;
    let mut first = occupy(&proxy, &a, 1).await;
    let mut others = Vec::new();
    for place in 1..=4 {
        others.push(join(&proxy, place, "/").await);
    }
    proxy.reload(Config::app(&[&a], &pool(3))).await.unwrap();
    a.parked(3).await;
    held(&proxy, 2).await;
    proxy.reload(Config::app(&[&a], &pool(0))).await.unwrap();
    a.parked(5).await;
    a.release();
    assert_eq!(answer(&mut first).await.status, 200);
    for client in &mut others {
        assert_eq!(answer(client).await.status, 200);
    }
}
