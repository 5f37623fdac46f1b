//! Tunnels that were not granted, and bytes that come too early.

use super::{are_refused, head, next_request, over_a_socket};
use crate::support::{Backend, Proxy, Reply, Wire};

const WEBSOCKET: &str = "GET /chat HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

async fn ask(proxy: &Proxy, early: &str) -> Wire {
    let mut wire = proxy.wire().await;
    wire.send(format!("{WEBSOCKET}{early}")).await;
    wire
}

#[tokio::test]
async fn an_upgrade_that_has_a_body_is_refused() {
    let with = |protocol: &str, lines: &str, body: &str| {
        let head = format!("GET / HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: {protocol}\r\n");
        (400, format!("{head}{lines}\r\n\r\n{body}").into_bytes())
    };
    are_refused(&[
        with("websocket", "Content-Length: 5", "hello"),
        with("own/1", "Content-Length: 5", "hello"),
        with("websocket", "Transfer-Encoding: chunked", "0\r\n\r\n"),
        with("websocket", "Content-Length: 0\r\nTransfer-Encoding: chunked", "0\r\n\r\n"),
    ])
    .await;
}

/// Frames sent right after the handshake are for the tunnel, and where there is none for nobody.
#[tokio::test]
async fn early_bytes_of_a_tunnel_that_is_declined_reach_no_backend() {
    for answer in [
        "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno",
        "HTTP/1.1 200 OK\r\nConnection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 2\r\n\r\nno",
        "HTTP/1.1 426 Upgrade Required\r\nUpgrade: other\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n",
    ] {
        let backend = Backend::start("a").await;
        backend.reply(Reply::raw(answer));
        let proxy = Proxy::over(&[&backend]).await;
        let mut wire = ask(&proxy, "\u{1}\u{5}hello").await;
        let declined = wire.response("GET").await.unwrap();
        assert_eq!(
            (declined.text().as_str(), declined.whole, declined.header("upgrade")),
            ("no", true, None),
            "{answer:?}"
        );
        let rest = wire.rest().await;
        assert!(rest.starts_with(b"HTTP/1.1 400"), "{answer:?}: {}", String::from_utf8_lossy(&rest));
        proxy.client().get("/next").await;
        let seen = backend.requests();
        assert_eq!(
            seen.iter().map(|request| request.target.as_str()).collect::<Vec<_>>(),
            ["/chat", "/next"],
            "{answer:?}"
        );
        assert_eq!(head(&seen[1]), "GET /next HTTP/1.1|host: shop.example");
    }
}

/// A request among them is the client's next one, checked and marked like every other.
#[tokio::test]
async fn an_early_request_after_a_declined_tunnel_is_a_request_of_its_own() {
    let backend = Backend::start("a").await;
    let proxy = Proxy::over(&[&backend]).await;
    let mut wire = ask(&proxy, "GET /two HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n").await;
    assert_eq!(wire.response("GET").await.unwrap().status, 200);
    assert_eq!(wire.response("GET").await.unwrap().status, 200);
    assert_eq!(head(&backend.received(2).await), "GET /two HTTP/1.1|host: h");
}

#[tokio::test]
async fn a_backend_gets_nothing_of_a_tunnel_before_its_own_101() {
    let (listener, proxy) = over_a_socket("").await;
    let mut client = ask(&proxy, "early").await;
    let (mut backend, _) = next_request(&listener).await;
    // Whatever would be sent is sent before a request that comes later is answered.
    let other = tokio::spawn({
        let mut other = proxy.client();
        async move { other.get("/other").await.status }
    });
    let (mut second, _) = next_request(&listener).await;
    second.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(other.await.unwrap(), 200);
    let mut byte = [0];
    let read = backend.stream.try_read(&mut byte);
    assert!(backend.buffer.is_empty() && read.is_err(), "{read:?}");
    backend.send("HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n").await;
    assert_eq!(client.response_head().await.unwrap().status, 101);
    assert_eq!(backend.bytes(5).await, b"early");
}

#[tokio::test]
async fn a_101_to_anything_but_what_was_asked_is_a_502_and_ends_both_ways() {
    for lines in [
        "",
        "Upgrade: h2c\r\n",
        "Upgrade: websocket, h2c\r\n",
        "Upgrade: websocket\r\nUpgrade: h2c\r\n",
        "Upgrade:\r\n",
    ] {
        let (listener, proxy) = over_a_socket("").await;
        let mut client = ask(&proxy, "early").await;
        let (mut backend, _) = next_request(&listener).await;
        backend.send(format!("HTTP/1.1 101 Switching\r\nConnection: upgrade\r\n{lines}\r\nlate")).await;
        assert_eq!(client.response("GET").await.unwrap().status, 502, "{lines:?}");
        assert!(backend.rest().await.is_empty(), "{lines:?}");
        assert_eq!(proxy.status().await.totals.tunnels, 0);
    }
}

#[tokio::test]
async fn what_only_looks_like_an_upgrade_gets_no_tunnel() {
    for request in [
        "GET / HTTP/1.0\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 0\r\n\r\n",
    ] {
        let (listener, proxy) = over_a_socket("").await;
        let mut client = proxy.wire().await;
        client.send(request).await;
        let (mut backend, head) = next_request(&listener).await;
        assert!(!head.to_lowercase().contains("upgrade"), "{head}");
        backend.send("HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nlate").await;
        assert_eq!(client.response("GET").await.unwrap().status, 502, "{request:?}");
        assert_eq!(proxy.status().await.totals.tunnels, 0);
    }
}
