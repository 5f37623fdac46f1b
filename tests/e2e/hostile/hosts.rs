//! Whom a request is for, where several places say it.

use super::{are_passed, are_refused, rows};
use crate::support::{Backend, Config, Proxy};

#[tokio::test]
async fn a_host_is_named_once_and_plainly() {
    let values = [
        "",
        ":80",
        "a b",
        "a\tb",
        "a,b",
        "a;b",
        "a/b",
        "a\\b",
        "a?b",
        "a#b",
        "a@b",
        "u:p@a",
        "http://a",
        "a%2eb",
        "a%00",
        "a\"b",
        "<a>",
        "a'b",
        "a(b",
        "a*b",
        "*",
        "a=b",
        "a|b",
        "h\u{f6}st",
        ".a",
        "a..b",
        "a:b",
        "a:80:80",
        "a:-1",
        "a:+1",
        "a: 80",
        "a:65536",
        "::1",
        "[::1",
        "[::1]x",
        "[]",
        "[1.2.3.4]",
        "[fe80::1%25eth0]",
    ];
    let mut table: Vec<_> = values
        .iter()
        .map(|value| (400, format!("GET / HTTP/1.1\r\nHost: {value}\r\n\r\n").into_bytes()))
        .collect();
    table.extend(rows(
        400,
        &[
            "GET / HTTP/1.1\r\nX: y\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX: y\r\nhost: b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nHost:\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n Host: b\r\n\r\n",
            "GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n",
            "GET / HTTP/1.0\r\nHost: a@b\r\n\r\n",
            "GET http://a/ HTTP/1.1\r\n\r\n",
            "GET http://a/ HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
            "GET http://a/ HTTP/1.1\r\nHost: a@b\r\n\r\n",
            "GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET http://u:p@a/ HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET http://a@b@c/ HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET http://a:99999/ HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET http://a%2eb/ HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET http:/x HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET ws://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET file:///etc/passwd HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET javascript:x HTTP/1.1\r\nHost: a\r\n\r\n",
            "OPTIONS a:80 HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET * HTTP/1.1\r\nHost: a\r\n\r\n",
            "POST *x HTTP/1.1\r\nHost: a\r\n\r\n",
        ],
    ));
    are_refused(&table).await;
}

#[tokio::test]
async fn the_one_host_that_counts_goes_out() {
    are_passed(&[
        (b"GET http://real/a?b HTTP/1.1\r\nHost: other\r\n\r\n", "GET /a?b HTTP/1.1|host: real", ""),
        (b"GET HTTP://REAL:81 HTTP/1.1\r\nHost: other\r\n\r\n", "GET / HTTP/1.1|host: REAL:81", ""),
        (b"GET http://[::1]:80/ HTTP/1.1\r\nHost: other\r\n\r\n", "GET / HTTP/1.1|host: [::1]:80", ""),
        (
            b"GET http://real/http://x/ HTTP/1.1\r\nHost: other\r\n\r\n",
            "GET /http://x/ HTTP/1.1|host: real",
            "",
        ),
        (b"OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n", "OPTIONS * HTTP/1.1|host: h", ""),
        (b"GET //real/a HTTP/1.1\r\nHost: h\r\n\r\n", "GET //real/a HTTP/1.1|host: h", ""),
        (b"GET / HTTP/1.1\r\nHost: h:\r\n\r\n", "GET / HTTP/1.1|host: h:", ""),
    ])
    .await;
}

#[tokio::test]
async fn nothing_but_the_host_that_goes_out_decides_the_route() {
    let backend = Backend::start("a").await;
    let config = Config::app(&[&backend], "")
        .route("hosts = [\"inner.example\"]\nrespond.status = 403")
        .route("hosts = [\"open.example\"]\npool = \"app\"");
    let proxy = Proxy::start(config).await;
    for (status, request) in [
        (403, "GET http://inner.example/ HTTP/1.1\r\nHost: open.example\r\n\r\n"),
        (403, "GET / HTTP/1.1\r\nHost: INNER.example:8080\r\n\r\n"),
        (403, "GET / HTTP/1.1\r\nHost: inner.example.\r\n\r\n"),
        (403, "GET / HTTP/1.1\r\nHost: inner.example\r\nX-Forwarded-Host: open.example\r\n\r\n"),
        (
            403,
            "GET / HTTP/1.1\r\nHost: inner.example\r\nX-Host: open.example\r\nForwarded: host=open.example\r\n\r\n",
        ),
        (404, "GET / HTTP/1.1\r\nHost: inner.example.evil\r\n\r\n"),
        (200, "GET http://open.example/ HTTP/1.1\r\nHost: inner.example\r\n\r\n"),
        (200, "GET / HTTP/1.1\r\nHost: open.example\r\nX-Forwarded-Host: inner.example\r\n\r\n"),
    ] {
        let mut wire = proxy.wire().await;
        wire.send(request).await;
        assert_eq!(wire.response("GET").await.unwrap().status, status, "{request:?}");
    }
    for seen in backend.requests() {
        assert_eq!(
            (seen.header("host"), seen.header("x-forwarded-host")),
            (Some("open.example"), Some("open.example"))
        );
    }
    assert_eq!(backend.count(), 2);
}
