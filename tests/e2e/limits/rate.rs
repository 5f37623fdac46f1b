//! `limit` on a route: how many requests each client may make.

use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::support::{Ask, Backend, Client, Config, H2Client, Proxy, Response, eventually, within};

/// A route called `shop` to the one pool, with this limit. What is counted by the hour does not come
/// back while a test runs.
fn limited(backends: &[&Backend], limit: &str) -> Config {
    let route = format!("name = \"shop\"\npool = \"app\"\nlimit = {{ {limit} }}");
    Config::app(backends, "").route(&route)
}

async fn statuses(client: &mut Client, asks: &[Ask]) -> Vec<u16> {
    let mut statuses = Vec::new();
    for ask in asks {
        statuses.push(client.ask(ask.clone()).await.status);
    }
    statuses
}

/// The statuses of so many GETs.
async fn gets(client: &mut Client, count: usize) -> Vec<u16> {
    statuses(client, &vec![Ask::get("/"); count]).await
}

fn retry_after(answer: &Response) -> u64 {
    answer.header("retry-after").expect("it says when").parse().unwrap()
}

#[tokio::test]
async fn a_burst_passes_and_what_is_more_is_a_429_that_says_when() {
    let a = Backend::start("a").await;
    let proxy = Proxy::start(limited(&[&a], "rate = \"1/h\", burst = 3")).await;
    let mut client = proxy.client();
    assert_eq!(gets(&mut client, 3).await, [200, 200, 200]);
    let refused = client.get("/cart").await;
    assert_eq!(refused.status, 429);
    let text = refused.text();
    assert!(text.starts_with("429 rate_limited: too many requests; the next may come in 3"), "{text}");
    assert!((3500..=3600).contains(&retry_after(&refused)), "{}", retry_after(&refused));
    let line = proxy.ended("rate_limited").await;
    assert_eq!((line["status"].as_u64(), line["route"].as_str()), (Some(429), Some("shop")));
    assert!(text.contains(line["id"].as_str().unwrap()));
    assert_eq!(a.count(), 3);
    assert_eq!(proxy.metric("pintle_rate_limited_total{route=\"shop\"}").await, 1.0);
    assert_eq!(proxy.metric("pintle_rate_limit_displaced_total{route=\"shop\"}").await, 0.0);
    assert_eq!(gets(&mut client, 2).await, [429, 429], "on the same connection");
    let routes = proxy.admin("/v1/routes").await.text();
    assert!(routes.contains(r#""limit": "1/h, burst 3, by client_ip""#), "{routes}");
    assert_eq!(a.accepted(), 1);
}

#[tokio::test]
async fn whoever_comes_back_when_it_is_told_to_passes_and_no_sooner() {
    let a = Backend::start("a").await;
    let proxy = Proxy::start(limited(&[&a], "rate = \"60/m\", burst = 2")).await;
    let (mut client, begun) = (proxy.client(), Instant::now());
    assert_eq!(gets(&mut client, 2).await, [200, 200]);
    let refused = client.get("/").await;
    // On a machine that stood still for a second there is nothing to see.
    if begun.elapsed() < Duration::from_secs(1) {
        assert_eq!((refused.status, retry_after(&refused)), (429, 1));
    }
    eventually("it passes", async || client.get("/").await.status == 200).await;
    assert!(begun.elapsed() >= Duration::from_secs(1), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn without_a_burst_what_the_rate_names_may_come_at_once() {
    let a = Backend::start("a").await;
    let proxy = Proxy::start(limited(&[&a], "rate = \"5/h\"")).await;
    assert_eq!(gets(&mut proxy.client(), 7).await, [200, 200, 200, 200, 200, 429, 429]);
}

#[tokio::test]
async fn all_threads_keep_one_limit() {
    const BURST: usize = 30;
    let a = Backend::start("a").await;
    let config = limited(&[&a], &format!("rate = \"1/h\", burst = {BURST}")).server("workers = 4");
    let proxy = Proxy::start(config).await;
    let clients: Vec<_> = (0..16)
        .map(|_| {
            let mut client = proxy.client();
            tokio::spawn(async move { gets(&mut client, 5).await })
        })
        .collect();
    let mut all = Vec::new();
    for client in clients {
        all.extend(within("answers", client).await.unwrap());
    }
    assert_eq!(all.iter().filter(|status| **status == 200).count(), BURST);
    assert_eq!(all.iter().filter(|status| **status == 429).count(), 80 - BURST);
    assert_eq!(a.count(), BURST);
}

#[tokio::test]
async fn each_address_has_its_own_quota() {
    let a = Backend::start("a").await;
    let proxy = Proxy::start(limited(&[&a], "rate = \"1/h\", key = \"client_ip\"")).await;
    for source in ["127.0.0.2", "127.0.0.3"] {
        assert_eq!(gets(&mut proxy.client_from(source), 2).await, [200, 429], "{source}");
        assert_eq!(gets(&mut proxy.client_from(source), 1).await, [429], "on another connection");
    }
}

#[tokio::test]
async fn the_client_is_the_one_whom_a_trusted_proxy_names_and_an_ipv6_network_is_one() {
    let a = Backend::start("a").await;
    let config = limited(&[&a], "rate = \"1/h\"").server("trusted_proxies = [\"127.0.0.1\"]");
    let proxy = Proxy::start(config).await;
    let of = |client: &str| Ask::get("/").header("X-Forwarded-For", client);
    let asks = [
        of("203.0.113.9"),
        of("203.0.113.10"),
        of("203.0.113.9"),
        of("::ffff:203.0.113.9"),
        of("2001:db8:1:2::1"),
        of("2001:db8:1:2:ffff::9"),
        of("2001:db8:1:3::1"),
    ];
    let expected = [200, 200, 429, 429, 200, 429, 200];
    assert_eq!(statuses(&mut proxy.client(), &asks).await, expected);
}

#[tokio::test]
async fn a_header_or_a_cookie_tells_clients_apart_and_who_lacks_it_is_known_by_its_address() {
    for (key, field) in [("header:X-User", "X-User: "), ("cookie:sid", "Cookie: a=b; sid=")] {
        let a = Backend::start("a").await;
        let proxy = Proxy::start(limited(&[&a], &format!("rate = \"1/h\", key = \"{key}\""))).await;
        let (name, start) = field.split_once(": ").unwrap();
        let of = |user: &str| Ask::get("/").header(name, &format!("{start}{user}"));
        let asks = [of("ann"), of("bob"), of("ann"), Ask::get("/"), Ask::get("/"), of("bob"), of("cyd")];
        let expected = [200, 200, 429, 200, 429, 429, 200];
        assert_eq!(statuses(&mut proxy.client(), &asks).await, expected, "{key}");
        assert_eq!(gets(&mut proxy.client_from("127.0.0.2"), 2).await, [200, 429], "{key}");
    }
}

#[tokio::test]
async fn what_a_route_answers_by_itself_is_limited_and_other_routes_are_not() {
    let a = Backend::start("a").await;
    let limit = "limit = { rate = \"1/h\" }";
    let config = Config::app(&[&a], "")
        .route(&format!("path = \"/here\"\nrespond = {{ body = \"hi\" }}\n{limit}"))
        .route(&format!("path = \"/there\"\nredirect = {{ to = \"/\" }}\n{limit}"))
        .route("path = \"/\"\npool = \"app\"");
    let proxy = Proxy::start(config).await;
    let mut client = proxy.client();
    let asks = ["/here", "/there", "/here", "/there", "/", "/", "/"].map(Ask::get);
    assert_eq!(statuses(&mut client, &asks).await, [200, 308, 429, 429, 200, 200, 200]);
}

#[tokio::test]
async fn a_request_that_was_held_and_starts_over_counts_once() {
    let mut a = Backend::refusing("a");
    let config = || {
        let route = "name = \"shop\"\npool = \"app\"\nlimit = { rate = \"1/h\" }";
        Config::app(&[&a], "hold.timeout = \"9s\"").route(route)
    };
    let proxy = Proxy::start(config()).await;
    let mut client = proxy.client();
    client.send(&Ask::get("/")).await;
    eventually("it is held", async || proxy.status().await.pools[0].held == 1).await;
    proxy.reload(config()).await.unwrap();
    a.come_back();
    assert_eq!(client.read("GET").await.unwrap().status, 200);
    assert_eq!(client.get("/").await.status, 429);
}

#[tokio::test]
async fn a_reload_keeps_what_was_used_unless_clients_are_told_apart_otherwise() {
    let a = Backend::start("a").await;
    let proxy = Proxy::start(limited(&[&a], "rate = \"2/h\"")).await;
    let mut client = proxy.client();
    assert_eq!(gets(&mut client, 3).await, [200, 200, 429]);
    proxy.reload(limited(&[&a], "rate = \"2/h\"").route("path = \"/more\"\npool = \"app\"")).await.unwrap();
    assert_eq!(gets(&mut client, 1).await, [429], "an edit elsewhere");
    proxy.reload(limited(&[&a], "rate = \"2/h\", burst = 3")).await.unwrap();
    assert_eq!(gets(&mut client, 2).await, [200, 429], "one more at once");
    proxy.reload(limited(&[&a], "rate = \"1/h\", burst = 1")).await.unwrap();
    assert_eq!(gets(&mut client, 1).await, [429], "a lower rate");
    proxy.reload(limited(&[&a], "rate = \"100/s\", burst = 1")).await.unwrap();
    eventually("what was owed is cut to what this rate lets owe", async || {
        client.get("/").await.status == 200
    })
    .await;
    proxy.reload(limited(&[&a], "rate = \"1/h\", key = \"header:x-user\"")).await.unwrap();
    assert_eq!(gets(&mut client, 2).await, [200, 429], "told apart otherwise: all are new");
    proxy.reload(Config::app(&[&a], "")).await.unwrap();
    assert_eq!(gets(&mut client, 2).await, [200, 200], "no limit");
}

#[tokio::test]
async fn the_body_of_who_is_refused_is_not_waited_for_nor_asked_for() {
    let a = Backend::start("a").await;
    let proxy = Proxy::start(limited(&[&a], "rate = \"1/h\"")).await;
    assert_eq!(gets(&mut proxy.client(), 1).await, [200]);
    for expect in ["", "Expect: 100-continue\r\n"] {
        let mut wire = proxy.wire().await;
        let head = format!("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9000000\r\n{expect}\r\n");
        wire.send(head).await;
        assert_eq!(wire.response_head().await.unwrap().status, 429, "{expect:?}");
    }
    assert_eq!(a.count(), 1);
}

#[tokio::test]
async fn over_http_2_a_refusal_is_one_streams_and_the_others_go_on() {
    let a = Backend::start("a").await;
    a.hold();
    let config = limited(&[&a], "rate = \"1/h\", key = \"header:x-user\"");
    let proxy = Proxy::start(config.listener("protocols = [\"h2c\", \"http/1.1\"]")).await;
    let mut client = H2Client::open(proxy.address).await;
    let of = |user: &str, body: Bytes| {
        http::Request::post("http://test.example/").header("x-user", user).body(body).unwrap()
    };
    let (first, _) = client.send(of("ann", Bytes::new()).map(drop), true).await;
    a.parked(1).await;
    let refused = client.ask(of("ann", Bytes::from(vec![b'x'; 200_000]))).await;
    assert_eq!((refused.status, refused.header("retry-after")), (429, Some("3600")));
    assert!(refused.text().starts_with("429 rate_limited"), "{}", refused.text());
    a.release();
    assert_eq!(within("the first", first).await.unwrap().status(), 200);
    assert_eq!(client.ask(of("bob", Bytes::new())).await.status, 200);
}
