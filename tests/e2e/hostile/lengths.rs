//! Where a body ends: `Content-Length` and `Transfer-Encoding`, alone and against each other.

use super::{are_passed, are_refused, first_answer};
use crate::support::{Backend, Proxy};

fn post(version: &str, lines: &str, body: &str) -> Vec<u8> {
    format!("POST / {version}\r\nHost: h\r\n{lines}\r\n\r\n{body}").into_bytes()
}

#[tokio::test]
async fn a_length_that_is_no_plain_number_is_refused() {
    let values = [
        "+5",
        "-5",
        "-0",
        "0x5",
        "5;",
        "5,",
        ",5",
        "5,5",
        "5, 5",
        "5 5",
        "5\t5",
        "5.0",
        "5e0",
        "\"5\"",
        "",
        " ",
        "five",
        "5f",
        "\u{b}5",
        "\u{ff15}",
        "99999999999999999999",
        "18446744073709551616",
        "9999999999999999999999999999999999999999",
    ];
    let table: Vec<_> = values
        .iter()
        .map(|value| (400, post("HTTP/1.1", &format!("Content-Length: {value}"), "hello")))
        .collect();
    are_refused(&table).await;
    // A number that no body reaches.
    are_refused(&[(431, post("HTTP/1.1", "Content-Length: 18446744073709551615", "hello"))]).await;
}

#[tokio::test]
async fn lengths_that_differ_are_refused_in_any_order_and_place() {
    let table: Vec<_> = [
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: 6\r\nContent-Length: 5",
        "Content-Length: 0\r\nContent-Length: 5",
        "Content-Length: 5\r\nX: y\r\ncontent-length: 0",
        "Content-Length: 5\r\nContent-Length: 5\r\nContent-Length: 6",
        "Content-Length: 5\r\nContent-Length: x",
        "Content-Length: 5\r\nContent-Length:",
    ]
    .iter()
    .map(|lines| (400, post("HTTP/1.1", lines, "hello")))
    .collect();
    are_refused(&table).await;
}

#[tokio::test]
async fn a_length_goes_out_once() {
    let once = "POST / HTTP/1.1|content-length: 5|host: h";
    for lines in ["Content-Length: 5", "Content-Length: \t5 ", "Content-Length: 5\r\ncontent-length: 5"] {
        are_passed(&[(&post("HTTP/1.1", lines, "hello"), once, "hello")]).await;
    }
    are_passed(&[
        (&post("HTTP/1.0", "Content-Length: 5", "hello"), once, "hello"),
        (
            b"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello",
            "GET / HTTP/1.1|content-length: 5|host: h",
            "hello",
        ),
    ])
    .await;
}

/// Nginx drops such names; to HTTP they are fields like any other, to CGI they are not.
#[tokio::test]
async fn a_length_spelled_with_an_underscore_is_dropped() {
    are_passed(&[
        (
            &post(
                "HTTP/1.1",
                "Content_Length: 3\r\nTransfer_Encoding: chunked\r\nContent-Length: 5",
                "hello",
            ),
            "POST / HTTP/1.1|content-length: 5|host: h",
            "hello",
        ),
        (
            b"GET / HTTP/1.1\r\nHost: h\r\ncontent_length: 50\r\nMy_Own: 1\r\n\r\n",
            "GET / HTTP/1.1|host: h|my_own: 1",
            "",
        ),
    ])
    .await;
}

#[tokio::test]
async fn a_transfer_encoding_in_disguise_is_refused() {
    let values = [
        (400, "xchunked"),
        (400, "chunkedx"),
        (400, "chunked chunked"),
        (400, "chunked, chunked"),
        (400, "chunked, gzip"),
        (400, "chunked, identity"),
        (400, "identity"),
        (400, "gzip"),
        (400, "trailers"),
        (400, ""),
        (400, "chunked,"),
        (400, "chunked;"),
        (400, "chunked\u{b}"),
        (400, "\u{c}chunked"),
        (400, "chunke\u{301}d"),
        (400, "'chunked'"),
        (501, "identity, chunked"),
        (501, "gzip, chunked"),
        (501, "gzip,deflate, chunked"),
        (400, "gzip\r\nTransfer-Encoding: chunked"),
        (400, "chunked\r\nTransfer-Encoding: gzip"),
        (400, "chunked\r\nTransfer-Encoding:"),
        (400, "chunked\r\nX: y\r\ntransfer-encoding: chunked"),
    ];
    let table: Vec<_> = values
        .iter()
        .map(|(status, value)| {
            (*status, post("HTTP/1.1", &format!("Transfer-Encoding: {value}"), "0\r\n\r\n"))
        })
        .collect();
    are_refused(&table).await;
    // The same beside a length, which must not take over.
    let beside: Vec<_> = ["xchunked", "identity", "chunked, gzip", ""]
        .iter()
        .map(|value| {
            (400, post("HTTP/1.1", &format!("Content-Length: 5\r\nTransfer-Encoding: {value}"), "hello"))
        })
        .collect();
    are_refused(&beside).await;
}

#[tokio::test]
async fn http_1_0_knows_no_transfer_encoding() {
    are_refused(&[
        (400, post("HTTP/1.0", "Transfer-Encoding: chunked", "0\r\n\r\n")),
        (400, post("HTTP/1.0", "Transfer-Encoding: identity", "")),
        (
            400,
            post(
                "HTTP/1.0",
                "Connection: keep-alive\r\nContent-Length: 5\r\nTransfer-Encoding: chunked",
                "0\r\n\r\n",
            ),
        ),
    ])
    .await;
}

#[tokio::test]
async fn a_tab_before_chunked_is_a_blank() {
    are_passed(&[(
        &post("HTTP/1.1", "Transfer-Encoding:\t chunked \t", "5\r\nhello\r\n0\r\n\r\n"),
        "POST / HTTP/1.1|host: h|transfer-encoding: chunked",
        "hello",
    )])
    .await;
}

/// RFC 9112 section 6.3: the coding counts, the length goes, and the connection with it.
#[tokio::test]
async fn a_length_beside_chunked_is_gone_and_nothing_follows_it() {
    let backend = Backend::start("a").await;
    let proxy = Proxy::over(&[&backend]).await;
    for lines in [
        "Content-Length: 4\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 4",
        "Content-Length: 0\r\nTransfer-Encoding: chunked\r\nContent-Length: 99",
        "Transfer-Encoding: chunked\r\nContent-Length: x",
        "Transfer-Encoding: chunked\r\nConnection: keep-alive\r\nContent-Length: 4",
    ] {
        let before = backend.count();
        let (mut wire, answer) =
            first_answer(&proxy, &post("HTTP/1.1", lines, "5\r\nhello\r\n0\r\n\r\n")).await;
        let answer = answer.unwrap();
        assert_eq!((answer.status, answer.header("connection")), (200, Some("close")), "{lines:?}");
        assert!(wire.rest().await.is_empty(), "a second answer after {lines:?}");
        let seen = backend.received(before + 1).await;
        assert_eq!(
            (super::head(&seen).as_str(), seen.text().as_str()),
            ("POST / HTTP/1.1|host: h|transfer-encoding: chunked", "hello"),
            "{lines:?}"
        );
        assert_eq!(backend.count(), before + 1);
    }
}
