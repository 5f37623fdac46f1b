//! What `Connection` may take away, and what stays on its hop without being named.

use super::{are_passed, are_refused};
use crate::support::{Ask, Backend, Proxy, Reply};

#[tokio::test]
async fn connection_cannot_take_away_what_others_rely_on() {
    let names = [
        "x-forwarded-for",
        "X-Forwarded-Proto",
        "x-forwarded-anything",
        "forwarded",
        "x-real-ip",
        "x-request-id",
        "via",
        "cookie",
        "Host",
        "content-length",
        "content-type",
        "authorization",
        "traceparent",
        "x-forwarded-for, cookie, host, content-length, authorization, close",
        "close, cookie",
        "close,,,\tcookie",
        "close\r\nConnection: cookie",
        "upgrade, authorization",
    ];
    let mut table: Vec<_> = names
        .iter()
        .map(|names| {
            let head = "POST / HTTP/1.1\r\nHost: h\r\nCookie: a=1\r\nAuthorization: Basic x\r\nContent-Length: 5\r\n";
            (400, format!("{head}Connection: {names}\r\n\r\nhello").into_bytes())
        })
        .collect();
    let many = vec!["x"; 33].join(",");
    table.push((400, format!("GET / HTTP/1.1\r\nHost: h\r\nConnection: {many}\r\n\r\n").into_bytes()));
    are_refused(&table).await;
}

#[tokio::test]
async fn what_was_meant_for_this_hop_reaches_nobody() {
    let get = |lines: &str| format!("GET / HTTP/1.1\r\nHost: h\r\n{lines}\r\n\r\n").into_bytes();
    let plain = "GET / HTTP/1.1|host: h";
    for lines in [
        "Connection: keep-alive\r\nKeep-Alive: timeout=5",
        "Connection: X-Mine\r\nX-Mine: 1\r\nx-mine: 2",
        "Connection: x-a\r\nConnection: x-b, @, \u{e9}\r\nX-A: 1\r\nX-B: 2",
        "X-A: 1\r\nConnection: x-a",
        "Connection: connection",
        "Proxy-Connection: keep-alive",
        "Proxy-Authorization: Basic x",
        "Proxy-Authenticate: Basic",
        "Proxy: http://evil.example",
        "TE: gzip",
        "TE: gzip;q=0.5\r\nConnection: TE",
        "Connection: Transfer-Encoding",
        "Upgrade: h2c",
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA",
        "Connection: Upgrade\r\nUpgrade: TLS/1.2",
        "Connection: Upgrade\r\nUpgrade: websocket, h2c",
        "Connection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c",
        "HTTP2-Settings: x",
        "Trailer: Content-Length",
    ] {
        are_passed(&[(&get(lines), plain, "")]).await;
    }
    are_passed(&[
        (&get("TE: gzip, Trailers"), "GET / HTTP/1.1|connection: te|host: h|te: trailers", ""),
        (
            &get("TE: trailers\r\nConnection: te, x\r\nX: 1"),
            "GET / HTTP/1.1|connection: te|host: h|te: trailers",
            "",
        ),
    ])
    .await;
}

#[tokio::test]
async fn connection_cannot_unframe_a_body() {
    let body = "5\r\nhello\r\n0\r\n\r\n";
    let bytes = format!(
        "POST / HTTP/1.1\r\nHost: h\r\nConnection: transfer-encoding, x\r\nX: 1\r\nTransfer-Encoding: chunked\r\n\r\n{body}"
    );
    are_passed(&[(bytes.as_bytes(), "POST / HTTP/1.1|host: h|transfer-encoding: chunked", "hello")]).await;
}

#[tokio::test]
async fn a_backends_connection_cannot_unframe_its_answer_either() {
    for lines in [
        "Connection: content-length\r\nContent-Length: 5",
        "Connection: transfer-encoding, x\r\nContent-Length: 5\r\nX: 1",
    ] {
        let backend = Backend::start("a").await;
        backend.reply(Reply::raw(format!("HTTP/1.1 200 OK\r\n{lines}\r\n\r\nhello")));
        let proxy = Proxy::over(&[&backend]).await;
        let mut client = proxy.client();
        for _ in 0..2 {
            let answer = client.ask(Ask::get("/")).await;
            assert_eq!(
                (answer.text().as_str(), answer.whole, answer.header("x")),
                ("hello", true, None),
                "{lines:?}"
            );
            assert_eq!(answer.header("content-length"), Some("5"), "{lines:?}");
        }
    }
}
