//! `max_connections_per_client`: how many connections each client has at a time.

use crate::support::{Ask, Backend, Client, Config, Keys, Proxy, Reply, TlsClient, Wire, eventually};

const REJECTED: &str =
    "pintle_listener_rejected_total{listener=\"web\",reason=\"max_connections_per_client\"}";

fn at_most(most: u32, backends: &[&Backend]) -> Config {
    Config::app(backends, "").listener(&format!("max_connections_per_client = {most}"))
}

/// A connection that is in, from this address.
async fn admitted(proxy: &Proxy, source: &str) -> Client {
    let mut client = proxy.client_from(source);
    assert_eq!(client.get("/").await.status, 200, "{source}");
    client
}

/// Whether a connection from this address is turned away.
async fn is_refused(proxy: &Proxy, source: &str) -> bool {
    let mut wire = Wire::open_from(Some(source.parse().unwrap()), proxy.address).await;
    // The answer stands there before anything is asked, or never.
    match wire.response("GET").await {
        Some(answer) => {
            assert_eq!((answer.status, answer.header("connection")), (429, Some("close")));
            assert!(answer.text().starts_with("429 max_connections_per_client"), "{}", answer.text());
            true
        }
        None => false,
    }
}

/// A connection from this address, once there is room for it.
async fn admitted_again(proxy: &Proxy, source: &str) {
    eventually("there is room again", async || {
        let answer = proxy.client_from(source).try_ask(&Ask::get("/")).await;
        answer.is_some_and(|answer| answer.status == 200)
    })
    .await;
}

#[tokio::test]
async fn one_connection_too_many_is_closed_and_told_why_and_others_are_not() {
    let a = Backend::start("a").await;
    let proxy = Proxy::start(at_most(2, &[&a])).await;
    let (first, mut second) = (admitted(&proxy, "127.0.0.2").await, admitted(&proxy, "127.0.0.2").await);
    assert!(is_refused(&proxy, "127.0.0.2").await);
    assert!(is_refused(&proxy, "127.0.0.2").await);
    assert_eq!(proxy.metric(REJECTED).await, 2.0);
    admitted(&proxy, "127.0.0.3").await;
    assert_eq!(second.get("/").await.status, 200, "who is in stays in");
    drop(first);
    admitted_again(&proxy, "127.0.0.2").await;
}

#[tokio::test]
async fn connections_are_counted_over_all_threads() {
    let a = Backend::start("a").await;
    let proxy = Proxy::start(at_most(5, &[&a]).server("workers = 4")).await;
    let (mut clients, mut refused) = (Vec::new(), 0);
    for _ in 0..30 {
        let mut client = proxy.client_from("127.0.0.2");
        match client.try_ask(&Ask::get("/")).await {
            Some(answer) if answer.status == 200 => clients.push(client),
            answer => {
                assert!(answer.is_none_or(|answer| answer.status == 429));
                refused += 1;
            }
        }
    }
    assert_eq!((clients.len(), refused), (5, 25));
    assert_eq!(proxy.metric(REJECTED).await, 25.0);
}

#[tokio::test]
async fn a_tunnel_counts_until_it_closes() {
    let a = Backend::start("a").await;
    a.answer(|request| match request.header("upgrade") {
        Some(_) => Reply::upgrade("echo", ""),
        None => Reply::text("a"),
    });
    let proxy = Proxy::start(at_most(1, &[&a])).await;
    let mut tunnel = Wire::open_from(Some("127.0.0.2".parse().unwrap()), proxy.address).await;
    tunnel.send("GET / HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n").await;
    assert_eq!(tunnel.response_head().await.unwrap().status, 101);
    tunnel.send("ping").await;
    assert_eq!(tunnel.bytes(4).await, b"ping");
    assert!(is_refused(&proxy, "127.0.0.2").await);
    tunnel.send("pong").await;
    assert_eq!(tunnel.bytes(4).await, b"pong");
    drop(tunnel);
    admitted_again(&proxy, "127.0.0.2").await;
}

#[tokio::test]
async fn trusted_peers_are_not_counted_and_who_stands_behind_them_is() {
    let a = Backend::start("a").await;
    let trusts = |config: Config| config.server("trusted_proxies = [\"127.0.0.1\"]");
    let proxy = Proxy::start(trusts(at_most(1, &[&a]))).await;
    let _clients = [admitted(&proxy, "127.0.0.1").await, admitted(&proxy, "127.0.0.1").await];

    let config = trusts(at_most(1, &[&a]).listener("proxy_protocol = \"v1\""));
    let proxy = Proxy::start(config).await;
    let request = "GET / HTTP/1.1\r\nHost: h\r\n\r\n";
    let mut wires = Vec::new();
    for (client, status) in [
        ("TCP4 203.0.113.9 192.0.2.2 5000 443", 200),
        ("TCP4 203.0.113.10 192.0.2.2 5000 443", 200),
        ("TCP4 203.0.113.9 192.0.2.2 5001 443", 429),
        ("TCP6 2001:db8::1 ::1 5000 443", 200),
        ("TCP6 2001:db8::2 ::1 5000 443", 429),
        ("UNKNOWN", 200),
        ("UNKNOWN", 200),
    ] {
        let mut wire = proxy.wire().await;
        // A header alone: what is closed with bytes unread is reset.
        wire.send(format!("PROXY {client}\r\n")).await;
        if status == 200 {
            wire.send(request).await;
        }
        assert_eq!(wire.response("GET").await.unwrap().status, status, "{client}");
        wires.push(wire);
    }
    wires.remove(0);
    eventually("its place is free", async || {
        let mut wire = proxy.wire().await;
        wire.send(format!("PROXY TCP4 203.0.113.9 192.0.2.2 5002 443\r\n{request}")).await;
        wire.response("GET").await.is_some_and(|answer| answer.status == 200)
    })
    .await;
}

#[tokio::test]
async fn by_tls_one_too_many_is_closed_before_the_handshake() {
    let (keys, a) = (Keys::for_names(&["shop.example"]), Backend::start("a").await);
    let config = Config::app(&[&a], "").listener("max_connections_per_client = 1");
    let proxy = Proxy::start(config.listener(&keys.tls(&["site"]))).await;
    let client = TlsClient::new(proxy.address);
    let mut first = client.open("shop.example").await;
    first.send("GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n").await;
    assert_eq!(first.response("GET").await.unwrap().status, 200);
    assert!(proxy.wire().await.rest().await.is_empty(), "nothing in the clear");
    assert_eq!(proxy.metric(REJECTED).await, 1.0);
}

#[tokio::test]
async fn a_reload_changes_the_limit_and_keeps_the_count() {
    let a = Backend::start("a").await;
    let proxy = Proxy::start(at_most(1, &[&a])).await;
    let mut clients = vec![admitted(&proxy, "127.0.0.2").await];
    assert!(is_refused(&proxy, "127.0.0.2").await);
    proxy.reload(at_most(2, &[&a])).await.unwrap();
    clients.push(admitted(&proxy, "127.0.0.2").await);
    assert!(is_refused(&proxy, "127.0.0.2").await);
    proxy.reload(at_most(1, &[&a])).await.unwrap();
    clients.pop();
    let count = async || proxy.status().await.listeners[0].connections;
    eventually("it has closed", async || count().await == 1).await;
    assert!(is_refused(&proxy, "127.0.0.2").await, "the one that is left counts");
    assert_eq!(clients[0].get("/").await.status, 200);
    proxy.reload(at_most(0, &[&a])).await.unwrap();
    clients.push(admitted(&proxy, "127.0.0.2").await);
}
