//! PROXY headers from a balancer in front: who is heard, and who the client then is.
//!
//! What is a header and what is none stands beside the parser; here is what becomes of it.

use std::collections::{BTreeMap, BTreeSet};

use crate::support::{Ask, Backend, Config, H2Client, Keys, Proxy, Response, TlsClient, Wire, eventually};

/// From 203.0.113.9:5000.
const V1: &[u8] = b"PROXY TCP4 203.0.113.9 192.0.2.2 5000 443\r\n";
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n";

/// Version 2: the command and the family, and what follows its length.
fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
    [b"\r\n\r\n\0\r\nQUIT\n", &[command, family][..], &length, rest].concat()
}

/// Of this client, with TLVs that say nothing to us.
fn v2_of(client: [u8; 4]) -> Vec<u8> {
    let rest = [&client[..], &[192, 0, 2, 2, 0x13, 0x88, 1, 0xbb], &[0x02, 0, 1, b'x', 0xea, 0, 0]].concat();
    v2(0x21, 0x11, &rest)
}

/// One pool behind a listener that wants a header; balancers stand at `trusted`.
fn config(backends: &[&Backend], pool: &str, trusted: &str, listener: &str) -> Config {
    Config::app(backends, pool).server(&format!("trusted_proxies = [{trusted}]")).listener(listener)
}

async fn heard(backend: &Backend, version: &str) -> Proxy {
    let listener = format!("proxy_protocol = {version:?}\nfirst_byte_timeout = \"300ms\"");
    Proxy::start(config(&[backend], "", "\"127.0.0.1\"", &listener)).await
}

async fn rejected(proxy: &Proxy, reason: &str, count: f64) {
    let sample = format!("pintle_listener_rejected_total{{listener=\"web\",reason=\"{reason}\"}}");
    eventually(reason, async || proxy.metric(&sample).await == count).await;
}

async fn answer(wire: &mut Wire) -> Response {
    wire.response("GET").await.expect("a response")
}

#[tokio::test]
async fn the_client_is_the_one_whom_the_header_names() {
    let a = Backend::start("a").await;
    let proxy = heard(&a, "any").await;
    let mut of_v6 = "2001:db8::7".parse::<std::net::Ipv6Addr>().unwrap().octets().to_vec();
    of_v6.extend([0; 16].iter().chain(&[0x13, 0x88, 1, 0xbb]));
    let mapped = [&[0; 10][..], &[0xff, 0xff, 203, 0, 113, 11], &[0; 16], &[1, 2, 3, 4]].concat();
    let headers = [
        (V1.to_vec(), "203.0.113.9"),
        (b"PROXY TCP6 2001:db8::7 ::1 5000 443\r\n".to_vec(), "2001:db8::7"),
        (v2_of([203, 0, 113, 10]), "203.0.113.10"),
        (v2(0x21, 0x21, &of_v6), "2001:db8::7"),
        (v2(0x21, 0x21, &mapped), "203.0.113.11"),
    ];
    for (n, (header, client)) in headers.into_iter().enumerate() {
        let mut wire = proxy.wire().await;
        wire.send([&header, REQUEST].concat()).await;
        assert_eq!(answer(&mut wire).await.text(), "a");
        // It holds for the whole connection.
        wire.send(REQUEST).await;
        answer(&mut wire).await;
        for request in [2 * n + 1, 2 * n + 2] {
            assert_eq!(a.seen(request).await.header("x-forwarded-for"), Some(client));
        }
        assert!(proxy.logged(2 * n + 2).await.iter().skip(2 * n).all(|line| line["client"] == client));
    }
}

#[tokio::test]
async fn a_header_that_names_nobody_leaves_the_peer_as_it_is() {
    let a = Backend::start("a").await;
    let proxy = heard(&a, "any").await;
    let headers = [
        b"PROXY UNKNOWN\r\n".to_vec(),
        b"PROXY UNKNOWN 203.0.113.9 203.0.113.9 1 2\r\n".to_vec(),
        v2(0x20, 0x00, &[]),
        v2(0x20, 0x11, &[203, 0, 113, 9, 203, 0, 113, 9, 0, 1, 0, 2]),
        v2(0x21, 0x00, &[]),
        v2(0x21, 0x31, &[b'/'; 216]),
    ];
    for (n, header) in headers.into_iter().enumerate() {
        let mut wire = proxy.wire().await;
        wire.send([&header, REQUEST].concat()).await;
        assert_eq!(answer(&mut wire).await.status, 200, "{header:?}");
        assert_eq!(a.seen(n + 1).await.header("x-forwarded-for"), Some("127.0.0.1"), "{header:?}");
    }
}

#[tokio::test]
async fn a_header_that_comes_byte_by_byte_is_heard() {
    let a = Backend::start("a").await;
    let proxy = Proxy::start(config(&[&a], "", "\"127.0.0.1\"", "proxy_protocol = \"any\"")).await;
    for (n, header) in [V1.to_vec(), v2_of([203, 0, 113, 9])].into_iter().enumerate() {
        let mut wire = proxy.wire().await;
        for byte in header.iter().chain(REQUEST) {
            wire.send([*byte]).await;
            tokio::task::yield_now().await;
        }
        assert_eq!(answer(&mut wire).await.status, 200);
        assert_eq!(a.seen(n + 1).await.header("x-forwarded-for"), Some("203.0.113.9"));
    }
}

#[tokio::test]
async fn tls_begins_where_the_header_ends() {
    let (keys, a) = (Keys::for_names(&["shop.example"]), Backend::start("a").await);
    let listener = format!("proxy_protocol = \"v2\"\n{}", keys.tls(&["site"]));
    let proxy = Proxy::start(config(&[&a], "", "\"127.0.0.1\"", &listener)).await;
    let client = TlsClient::new(proxy.address);
    let mut wire = client.open_after(&v2_of([203, 0, 113, 9]), "shop.example").await;
    wire.send(REQUEST).await;
    assert_eq!(wire.response("GET").await.unwrap().text(), "a");
    let seen = a.seen(1).await;
    assert_eq!(
        (seen.header("x-forwarded-for"), seen.header("x-forwarded-proto")),
        (Some("203.0.113.9"), Some("https"))
    );
    // A handshake without a header is none that this listener knows.
    assert!(client.try_open("shop.example").await.is_err());
    rejected(&proxy, "proxy_header", 1.0).await;
}

#[tokio::test]
async fn http2_begins_where_the_header_ends() {
    let (keys, a) = (Keys::for_names(&["shop.example"]), Backend::start("a").await);
    let clear = "proxy_protocol = \"any\"\nprotocols = [\"h2c\", \"http/1.1\"]";
    let proxy = Proxy::start(config(&[&a], "", "\"127.0.0.1\"", clear)).await;
    let mut wire = proxy.wire().await;
    wire.send(V1).await;
    assert_eq!(H2Client::over(wire.stream).await.get("/").await.text(), "a");

    let secure = format!("proxy_protocol = \"any\"\n{}", keys.tls(&["site"]));
    proxy.reload(config(&[&a], "", "\"127.0.0.1\"", &secure)).await.unwrap();
    let client = TlsClient::new(proxy.address).offering(&["h2"]);
    let wire = client.open_after(V1, "shop.example").await;
    assert_eq!(H2Client::over(wire.stream).await.get("/").await.text(), "a");
    for request in [1, 2] {
        assert_eq!(a.seen(request).await.header("x-forwarded-for"), Some("203.0.113.9"));
    }
}

#[tokio::test]
async fn whoever_is_not_trusted_is_closed_unheard() {
    let a = Backend::start("a").await;
    let proxy = heard(&a, "any").await;
    let stranger = "127.0.0.2".parse().ok();
    // At once, and not after `first_byte_timeout`.
    for (n, bytes) in [&b""[..], REQUEST, V1].into_iter().enumerate() {
        let mut wire = Wire::open_from(stranger, proxy.address).await;
        wire.send(bytes).await;
        assert!(wire.rest().await.is_empty());
        rejected(&proxy, "untrusted_proxy", (n + 1) as f64).await;
    }
    rejected(&proxy, "first_byte_timeout", 0.0).await;
    assert_eq!(a.accepted(), 0);
}

#[tokio::test]
async fn a_trusted_peer_cannot_leave_it_out_or_send_another_version() {
    let a = Backend::start("a").await;
    for (version, wrong) in
        [("v1", v2_of([203, 0, 113, 9])), ("v2", V1.to_vec()), ("any", b"PROXY TCP4 nobody\r\n".to_vec())]
    {
        let proxy = heard(&a, version).await;
        for (n, bytes) in [REQUEST.to_vec(), [&wrong, REQUEST].concat()].into_iter().enumerate() {
            assert!(proxy.raw(bytes).await.is_empty(), "{version}");
            rejected(&proxy, "proxy_header", (n + 1) as f64).await;
        }
    }
    assert_eq!(a.accepted(), 0);
}

#[tokio::test]
async fn header_and_first_byte_have_one_deadline() {
    let a = Backend::start("a").await;
    let proxy = heard(&a, "any").await;
    let header = v2_of([203, 0, 113, 9]);
    // Nothing, half a header, and all of it with nothing after it.
    for (n, part) in [&b""[..], &header[..20], &header].into_iter().enumerate() {
        let mut wire = proxy.wire().await;
        wire.send(part).await;
        assert!(wire.rest().await.is_empty());
        rejected(&proxy, "first_byte_timeout", (n + 1) as f64).await;
    }
    // Who leaves in the middle has done nothing wrong.
    for part in [&b""[..], &header[..20], &header] {
        let mut wire = proxy.wire().await;
        wire.send(part).await;
        wire.finish().await;
        assert!(wire.rest().await.is_empty());
    }
    let open = "pintle_listener_connections{listener=\"web\"}";
    eventually("all are gone", async || proxy.metric(open).await == 0.0).await;
    rejected(&proxy, "first_byte_timeout", 3.0).await;
    rejected(&proxy, "proxy_header", 0.0).await;
}

#[tokio::test]
async fn what_the_named_client_says_of_others_counts_only_if_it_is_trusted_too() {
    let a = Backend::start("a").await;
    let config = config(&[&a], "", "\"127.0.0.1\", \"10.0.0.0/8\"", "proxy_protocol = \"v2\"");
    let proxy = Proxy::start(config).await;
    let said = Ask::get("/").header("X-Forwarded-For", "198.51.100.5").bytes(&BTreeMap::new());
    for (n, (client, told, logged)) in [
        ([203, 0, 113, 9], "203.0.113.9", "203.0.113.9"),
        ([10, 0, 0, 7], "198.51.100.5, 10.0.0.7", "198.51.100.5"),
    ]
    .into_iter()
    .enumerate()
    {
        let mut wire = proxy.wire().await;
        wire.send([&v2_of(client)[..], &said].concat()).await;
        answer(&mut wire).await;
        assert_eq!(a.seen(n + 1).await.header("x-forwarded-for"), Some(told));
        assert_eq!(proxy.logged(n + 1).await[n]["client"], logged);
    }
}

#[tokio::test]
async fn ip_hash_tells_clients_behind_one_balancer_apart() {
    let [a, b] = Backend::fleet(["a", "b"]).await;
    let config = config(&[&a, &b], "policy = \"ip_hash\"", "\"127.0.0.1\"", "proxy_protocol = \"any\"");
    let proxy = Proxy::start(config).await;
    let mut used = BTreeSet::new();
    for client in 1..=16 {
        let mut homes = BTreeSet::new();
        for _ in 0..2 {
            let mut wire = proxy.wire().await;
            wire.send([&v2_of([203, 0, 113, client])[..], REQUEST].concat()).await;
            homes.insert(answer(&mut wire).await.text());
        }
        assert_eq!(homes.len(), 1, "203.0.113.{client}");
        used.extend(homes);
    }
    assert_eq!(used.len(), 2);
}

#[tokio::test]
async fn a_reload_turns_it_on_and_off_for_the_connections_that_come_after() {
    let a = Backend::start("a").await;
    let with = |version: &str| config(&[&a], "", "\"127.0.0.1\"", &format!("proxy_protocol = {version:?}"));
    let proxy = Proxy::start(with("off")).await;
    let mut before = proxy.client();
    assert_eq!(before.get("/").await.status, 200);
    assert!(proxy.raw([V1, REQUEST].concat()).await.starts_with(b"HTTP/1.1 400 "), "no header is expected");

    let report = proxy.reload(with("v1")).await.unwrap();
    assert!(report.changed.contains(&"listeners".to_owned()), "{report:?}");
    let mut wire = proxy.wire().await;
    wire.send([V1, REQUEST].concat()).await;
    assert_eq!(answer(&mut wire).await.status, 200);
    assert!(proxy.raw(REQUEST).await.is_empty());
    assert_eq!(before.get("/").await.status, 200, "it goes on as it began");

    proxy.reload(with("off")).await.unwrap();
    assert_eq!(proxy.client().get("/").await.status, 200);
}
