//! Chunked bodies of requests: sizes, extensions and the ends of lines.

use super::{first_answer, shown};
use crate::support::{Backend, Proxy};

const HEAD: &str = "POST /bad HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";

/// Each is a 400, ends the connection, and is never a whole request to the backend.
async fn are_broken(table: &[Vec<u8>]) {
    let backend = Backend::start("a").await;
    let proxy = Proxy::over(&[&backend]).await;
    for chunks in table {
        let (mut wire, answer) = first_answer(&proxy, &[HEAD.as_bytes(), chunks].concat()).await;
        assert_eq!(answer.map(|answer| answer.status), Some(400), "{:?}", shown(chunks));
        assert!(wire.rest().await.is_empty(), "a second answer after {:?}", shown(chunks));
    }
    backend.deserted().await;
    assert!(backend.requests().iter().all(|request| request.target == "/bad" && !request.whole));
}

fn bytes(table: &[&str]) -> Vec<Vec<u8>> {
    table.iter().map(|text| text.as_bytes().to_vec()).collect()
}

#[tokio::test]
async fn a_size_that_is_no_plain_hexadecimal_number_is_refused() {
    are_broken(&bytes(&[
        "-1\r\nhello\r\n0\r\n\r\n",
        "+5\r\nhello\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "5h\r\nhello\r\n0\r\n\r\n",
        "5.\r\nhello\r\n0\r\n\r\n",
        "5,5\r\nhello\r\n0\r\n\r\n",
        "\"5\"\r\nhello\r\n0\r\n\r\n",
        "\r\n5\r\nhello\r\n0\r\n\r\n",
        ";x\r\nhello\r\n0\r\n\r\n",
        "\u{b}5\r\nhello\r\n0\r\n\r\n",
        "5\0\r\nhello\r\n0\r\n\r\n",
        "_5\r\nhello\r\n0\r\n\r\n",
    ]))
    .await;
}

#[tokio::test]
async fn a_size_that_overflows_is_refused() {
    are_broken(&bytes(&[
        "10000000000000000\r\nhello\r\n0\r\n\r\n",
        "10000000000000005\r\nhello\r\n0\r\n\r\n",
        "fffffffffffffffff\r\nhello\r\n0\r\n\r\n",
        "100000000000000000000000000000005\r\nhello\r\n0\r\n\r\n",
        "5\r\nhello\r\n10000000000000000\r\n\r\n",
    ]))
    .await;
}

#[tokio::test]
async fn only_crlf_ends_a_line_or_a_chunk() {
    are_broken(&bytes(&[
        "5\nhello\r\n0\r\n\r\n",
        "5\rhello\r\n0\r\n\r\n",
        "5\r\r\nhello\r\n0\r\n\r\n",
        "5\r\nhello0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5\r\nhello\r0\r\n\r\n",
        "5\r\nhelloXX0\r\n\r\n",
        "5\r\nhello\r\r\n0\r\n\r\n",
        "5\r\nhello world\r\n0\r\n\r\n",
        "5\r\nhello\r\n0\n\n",
        "5\r\nhello\r\n0\r\nX\r\n\r\n",
        "5;a\nhello\r\n0\r\n\r\n",
        "5;a\rb\r\nhello\r\n0\r\n\r\n",
        "5;\n\r\nhello\r\n0\r\n\r\n",
        "5 \n\r\nhello\r\n0\r\n\r\n",
    ]))
    .await;
}

#[tokio::test]
async fn extensions_are_bounded_in_one_line_and_over_many() {
    let one = format!("5;{}\r\nhello\r\n0\r\n\r\n", "x".repeat(17 * 1024));
    let many = "1;abcdefghijklmnop\r\nx\r\n".repeat(1100);
    are_broken(&[one.into_bytes(), format!("{many}0\r\n\r\n").into_bytes()]).await;
}

#[tokio::test]
async fn what_is_clear_goes_out_in_chunks_of_our_own() {
    let backend = Backend::start("a").await;
    let proxy = Proxy::over(&[&backend]).await;
    for chunks in [
        "5\r\nhello\r\n0\r\n\r\n",
        "0005\r\nhello\r\n000\r\n\r\n",
        "2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
        "5;a\r\nhello\r\n0;b=c\r\n\r\n",
        "5;a=\"b\"\r\nhello\r\n0\r\n\r\n",
        "5 \r\nhello\r\n0\r\n\r\n",
    ] {
        let before = backend.count();
        let mut wire = proxy.wire().await;
        wire.send(format!("{HEAD}{chunks}")).await;
        assert_eq!(wire.response("POST").await.unwrap().status, 200, "{chunks:?}");
        let seen = backend.received(before + 1).await;
        assert_eq!((seen.text().as_str(), seen.header("content-length")), ("hello", None), "{chunks:?}");
        wire.send("GET /next HTTP/1.1\r\nHost: h\r\n\r\n").await;
        assert_eq!(wire.response("GET").await.unwrap().status, 200, "{chunks:?}");
        assert_eq!(backend.received(before + 2).await.target, "/next", "{chunks:?}");
    }
}

/// hyper takes the line feed for a trailer, and what follows it up to the next empty line too.
#[tokio::test]
async fn what_follows_a_lone_line_feed_after_the_last_chunk_reaches_nobody() {
    let backend = Backend::start("a").await;
    let proxy = Proxy::over(&[&backend]).await;
    let (_wire, answer) = first_answer(&proxy, format!("{HEAD}5\r\nhello\r\n0\r\n\n").as_bytes()).await;
    let status = answer.unwrap().status;
    assert!([200, 400].contains(&status), "{status}");
    proxy.client().get("/next").await;
    let targets: Vec<_> = backend.requests().into_iter().map(|request| request.target).collect();
    assert!(
        ["/bad", "/next"].ends_with(&targets.iter().map(String::as_str).collect::<Vec<_>>()),
        "{targets:?}"
    );
}

/// One that a proxy once wrote twice, which made the second a request.
#[tokio::test]
async fn an_empty_body_has_one_last_chunk() {
    let (listener, proxy) = super::over_a_socket("").await;
    let mut client = proxy.wire().await;
    client.send(format!("{HEAD}0\r\n\r\n")).await;
    let (mut backend, head) = super::next_request(&listener).await;
    assert!(head.contains("transfer-encoding: chunked\r\n"), "{head}");
    assert_eq!(backend.bytes(5).await, b"0\r\n\r\n");
    backend.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(client.response("POST").await.unwrap().status, 200);
    client.send("GET /next HTTP/1.1\r\nHost: h\r\n\r\n").await;
    let next = crate::support::within("a head", backend.head()).await.expect("a head on the same connection");
    assert!(next.starts_with(b"GET /next "), "{:?}", shown(&next));
}
