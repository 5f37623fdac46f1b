//! What a request must look like: refused with the right status, or passed on in one clear form,
//! and never read as two.

use crate::support::{Backend, Config, Proxy, Reply, Response, Wire, eventually};

/// Follows every refused request on the same connection: it must reach nobody.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n";

/// Sends `bytes`, then what would be smuggled; what the client is answered first.
async fn answer(proxy: &Proxy, bytes: &[u8]) -> (Wire, Option<Response>) {
    let mut wire = proxy.wire().await;
    wire.send([bytes, SMUGGLED.as_bytes()].concat()).await;
    let answer = wire.response("GET").await;
    (wire, answer)
}

/// Each is refused with its status, the connection ends, and no backend hears of it.
async fn are_refused(listener: &str, table: &[(u16, Vec<u8>)]) {
    let backend = Backend::start("a").await;
    let proxy = Proxy::start(Config::app(&[&backend], "").listener(listener)).await;
    for (status, bytes) in table {
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(200)]).into_owned();
        let (mut wire, answer) = answer(&proxy, bytes).await;
        let answer = answer.unwrap_or_else(|| panic!("no answer to {shown:?}"));
        assert_eq!(answer.status, *status, "{shown:?}");
        assert!(wire.rest().await.is_empty(), "a second answer after {shown:?}");
        // Whoever got through would be seen before a later request.
        assert_eq!(backend.count(), 0, "{shown:?} reached the backend");
    }
}

fn table(rows: &[(u16, &str)]) -> Vec<(u16, Vec<u8>)> {
    rows.iter().map(|(status, text)| (*status, text.as_bytes().to_vec())).collect()
}

#[tokio::test]
async fn lengths_that_leave_a_choice_are_refused() {
    are_refused(
        "",
        &table(&[
            (400, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello"),
            (400, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5, 6\r\n\r\nhello"),
            (400, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: +5\r\n\r\nhello"),
            (400, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: -5\r\n\r\nhello"),
            (400, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0x5\r\n\r\nhello"),
            (400, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5 5\r\n\r\nhello"),
            (400, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: five\r\n\r\nhello"),
            (400, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length:\r\n\r\nhello"),
            (400, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 99999999999999999999\r\n\r\nhello"),
            (400, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 18446744073709551616\r\n\r\nhello"),
        ]),
    )
    .await;
}

#[tokio::test]
async fn a_transfer_encoding_in_disguise_is_refused() {
    let with = |status, line: &str| {
        (status, format!("POST / HTTP/1.1\r\nHost: h\r\n{line}\r\n\r\n0\r\n\r\n").into_bytes())
    };
    are_refused(
        "",
        &[
            with(501, "Transfer-Encoding: gzip, chunked"),
            with(400, "Transfer-Encoding: gzip"),
            with(400, "Transfer-Encoding: identity"),
            with(400, "Transfer-Encoding: chunked, chunked"),
            with(400, "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"),
            with(400, "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked"),
            with(400, "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity"),
            with(400, "Transfer-Encoding: chunked,"),
            with(400, "Transfer-Encoding: ,chunked"),
            with(400, "Transfer-Encoding: \u{b}chunked"),
            with(400, "Transfer-Encoding: xchunked"),
            with(400, "Transfer-Encoding: \"chunked\""),
            with(400, "Transfer-Encoding: chunked;q=1"),
            with(400, "Transfer-Encoding:"),
            with(400, "Transfer-Encoding : chunked"),
            with(400, "Transfer-Encoding\t: chunked"),
            with(400, " Transfer-Encoding: chunked"),
            with(400, "X: y\r\n\tTransfer-Encoding: chunked"),
            with(400, "Transfer-Encoding: \r\n chunked"),
        ],
    )
    .await;
}

#[tokio::test]
async fn an_unclear_line_is_refused() {
    are_refused(
        "",
        &[
            (400, b"GET / HTTP/1.1\r\nHost: h\r\nX: a\r\n b\r\n\r\n".to_vec()),
            (400, b"GET / HTTP/1.1\r\nHost: h\r\nX: a\0b\r\n\r\n".to_vec()),
            (400, b"GET / HTTP/1.1\r\nHost: h\r\nX: a\rb\r\n\r\n".to_vec()),
            (400, b"GET / HTTP/1.1\r\nHost: h\r\nX: a\x01b\r\n\r\n".to_vec()),
            (400, b"GET / HTTP/1.1\r\nHost: h\r\nX: a\x7fb\r\n\r\n".to_vec()),
            (400, b"GET / HTTP/1.1\r\nHost: h\r\nX : a\r\n\r\n".to_vec()),
            (400, b"GET / HTTP/1.1\r\nHost: h\r\n: a\r\n\r\n".to_vec()),
            (400, b"GET / HTTP/1.1\r\nHost: h\r\nnocolon\r\n\r\n".to_vec()),
            (400, b"GET / HTTP/1.1\r\nHost: h\r\nX\xff: a\r\n\r\n".to_vec()),
            (400, b"GET / HTTP/1.1\r\nHost: h\r\nX(y): a\r\n\r\n".to_vec()),
            (400, b"GET /\0 HTTP/1.1\r\nHost: h\r\n\r\n".to_vec()),
            (400, b"GET /\x01 HTTP/1.1\r\nHost: h\r\n\r\n".to_vec()),
            (400, b"GET  / HTTP/1.1\r\nHost: h\r\n\r\n".to_vec()),
            (400, b"GET / x HTTP/1.1\r\nHost: h\r\n\r\n".to_vec()),
            (400, b" GET / HTTP/1.1\r\nHost: h\r\n\r\n".to_vec()),
            (400, b"G@T / HTTP/1.1\r\nHost: h\r\n\r\n".to_vec()),
        ],
    )
    .await;
}

#[tokio::test]
async fn another_version_is_refused() {
    are_refused(
        "",
        &table(&[
            (400, "GET /\r\n\r\n"),
            (400, "GET / HTTP/0.9\r\nHost: h\r\n\r\n"),
            (400, "GET / HTTP/1.2\r\nHost: h\r\n\r\n"),
            (400, "GET / HTTP/2.0\r\nHost: h\r\n\r\n"),
            (400, "GET / HTTP/1.11\r\nHost: h\r\n\r\n"),
            (400, "GET / http/1.1\r\nHost: h\r\n\r\n"),
            (400, "GET / HTTP/1.1x\r\nHost: h\r\n\r\n"),
            (400, "\x16\x03\x01\x02\0\x01\0\x01\r\n\r\n"),
        ]),
    )
    .await;
}

#[tokio::test]
async fn a_client_that_speaks_http_2_unasked_is_hung_up_on() {
    let backend = Backend::start("a").await;
    let proxy = Proxy::over(&[&backend]).await;
    let mut preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    preface.extend(SMUGGLED.as_bytes());
    let answer = proxy.raw(preface).await;
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 400"), "{answer:?}");
    assert_eq!(backend.count(), 0);
}

#[tokio::test]
async fn there_is_exactly_one_valid_host() {
    are_refused(
        "",
        &table(&[
            (400, "GET / HTTP/1.1\r\n\r\n"),
            (400, "GET / HTTP/1.1\r\nHost:\r\n\r\n"),
            (400, "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"),
            (400, "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
            (400, "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n"),
            (400, "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"),
            (400, "GET / HTTP/1.1\r\nHost: user@a\r\n\r\n"),
            (400, "GET / HTTP/1.1\r\nHost: a b\r\n\r\n"),
            (400, "GET / HTTP/1.1\r\nHost: a:x\r\n\r\n"),
            (400, "GET / HTTP/1.1\r\nHost: a:99999\r\n\r\n"),
            (400, "GET / HTTP/1.1\r\nHost: a%00\r\n\r\n"),
            (400, "GET http://a/ HTTP/1.1\r\n\r\n"),
            (400, "GET http://a/ HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"),
        ]),
    )
    .await;
}

#[tokio::test]
async fn a_target_is_a_path_or_an_http_address() {
    are_refused(
        "",
        &table(&[
            (400, "GET x HTTP/1.1\r\nHost: h\r\n\r\n"),
            (400, "GET h:80 HTTP/1.1\r\nHost: h\r\n\r\n"),
            (400, "GET * HTTP/1.1\r\nHost: h\r\n\r\n"),
            (400, "GET ?q HTTP/1.1\r\nHost: h\r\n\r\n"),
            (400, "GET ftp://h/ HTTP/1.1\r\nHost: h\r\n\r\n"),
            (400, "GET http:///x HTTP/1.1\r\nHost: h\r\n\r\n"),
            (400, "GET http://user:pw@h/ HTTP/1.1\r\nHost: h\r\n\r\n"),
            (405, "CONNECT h:443 HTTP/1.1\r\nHost: h\r\n\r\n"),
            (405, "TRACE / HTTP/1.1\r\nHost: h\r\n\r\n"),
        ]),
    )
    .await;
}

#[tokio::test]
async fn an_absolute_target_outranks_host_and_goes_out_as_a_path() {
    let backend = Backend::start("a").await;
    let proxy = Proxy::over(&[&backend]).await;
    for (target, line, host) in [
        ("http://real.example:81/a?b", "GET /a?b HTTP/1.1\r\n", "real.example:81"),
        ("https://real.example", "GET / HTTP/1.1\r\n", "real.example"),
        ("http://real.example?q", "GET /?q HTTP/1.1\r\n", "real.example"),
    ] {
        let mut wire = proxy.wire().await;
        wire.send(format!("GET {target} HTTP/1.1\r\nHost: other.example\r\n\r\n")).await;
        assert_eq!(wire.response("GET").await.unwrap().status, 200);
        let seen = backend.requests().pop().unwrap();
        assert!(seen.head.starts_with(line.as_bytes()), "{:?}", String::from_utf8_lossy(&seen.head));
        assert_eq!(seen.header("host"), Some(host));
    }
    let mut wire = proxy.wire().await;
    wire.send("OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n").await;
    assert_eq!(wire.response("OPTIONS").await.unwrap().status, 200);
    assert_eq!(backend.requests().pop().unwrap().target, "*");
}

#[tokio::test]
async fn what_is_too_long_or_too_much_is_refused() {
    let get =
        |target: &str, lines: &str| format!("GET {target} HTTP/1.1\r\nHost: h\r\n{lines}\r\n").into_bytes();
    let many: String = (0..100).map(|n| format!("X-{n}: 1\r\n")).collect();
    let long = |length: usize| format!("X: {}\r\n", "x".repeat(length));
    are_refused(
        "",
        &[
            (414, get(&format!("/{}", "a".repeat(16 * 1024)), "")),
            (431, get("/", &many)),
            (431, get("/", &long(33 * 1024))),
            (431, get("/", &long(200 * 1024))),
            (431, get(&format!("/{}", "a".repeat(33 * 1024)), "")),
        ],
    )
    .await;
    are_refused(
        "max_header_size = \"1KiB\"\nmax_headers = 3",
        &[(431, get("/", &long(1024))), (431, get("/", "A: 1\r\nB: 2\r\nC: 3\r\n"))],
    )
    .await;
}

#[tokio::test]
async fn what_is_just_within_the_limits_passes() {
    let backend = Backend::start("a").await;
    let proxy = Proxy::start(Config::app(&[&backend], "").listener("max_headers = 3")).await;
    let mut wire = proxy.wire().await;
    let path = format!("/{}", "a".repeat(16 * 1024 - 1));
    wire.send(format!("GET {path} HTTP/1.1\r\nHost: h\r\nA: 1\r\nB: {}\r\n\r\n", "x".repeat(8 * 1024))).await;
    assert_eq!(wire.response("GET").await.unwrap().status, 200);
    assert_eq!(backend.received(1).await.target, path);
}

#[tokio::test]
async fn a_broken_chunked_body_is_refused_and_nothing_after_it_is_read() {
    let backend = Backend::start("a").await;
    let proxy = Proxy::over(&[&backend]).await;
    for chunks in [
        "x\r\nhello\r\n0\r\n\r\n",
        "\r\nhello\r\n0\r\n\r\n",
        "-5\r\nhello\r\n0\r\n\r\n",
        "+5\r\nhello\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "5 5\r\nhello\r\n0\r\n\r\n",
        "10000000000000000\r\nhello\r\n0\r\n\r\n",
        "ffffffffffffffffff\r\nhello\r\n0\r\n\r\n",
        "5\rhello\r\n0\r\n\r\n",
        "5\nhello\r\n0\r\n\r\n",
        "5\r\nhelloXX0\r\n\r\n",
        "5\r\nhello world\r\n0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5;a\nb\r\nhello\r\n0\r\n\r\n",
        "0\r\nbad trailer\r\n\r\n",
        "0\r\nA: b\r\n folded\r\n\r\n",
    ] {
        let bytes = format!("POST /bad HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}");
        let (mut wire, answer) = answer(&proxy, bytes.as_bytes()).await;
        assert_eq!(answer.map(|answer| answer.status), Some(400), "{chunks:?}");
        assert!(wire.rest().await.is_empty(), "a second answer after {chunks:?}");
    }
    assert!(backend.requests().iter().all(|request| request.target == "/bad" && !request.whole));
}

#[tokio::test]
async fn an_endless_chunk_extension_is_cut_off() {
    let backend = Backend::start("a").await;
    let proxy = Proxy::over(&[&backend]).await;
    let extension = "x".repeat(20 * 1024);
    let bytes = format!(
        "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5;{extension}\r\nhello\r\n0\r\n\r\n"
    );
    let (mut wire, answer) = answer(&proxy, bytes.as_bytes()).await;
    assert_eq!(answer.map(|answer| answer.status), Some(400));
    assert!(wire.rest().await.is_empty());
}

#[tokio::test]
async fn a_clear_chunked_body_is_sent_on_in_chunks_of_our_own() {
    let backend = Backend::start("a").await;
    let proxy = Proxy::over(&[&backend]).await;
    let mut wire = proxy.wire().await;
    for head in ["POST", "GET", "DELETE"] {
        wire.send(format!(
            "{head} / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: Chunked\r\n\r\n\
             5;name=value\r\nhello\r\n0006\r\n world\r\n000\r\n\r\n"
        ))
        .await;
        assert_eq!(wire.response(head).await.unwrap().status, 200, "{head}");
        let seen = backend.requests().pop().unwrap();
        assert_eq!((seen.text().as_str(), seen.whole), ("hello world", true), "{head}");
        assert_eq!(seen.header("transfer-encoding"), Some("chunked"));
        assert_eq!(seen.header("content-length"), None);
    }
}

#[tokio::test]
async fn with_both_lengths_chunked_counts_one_goes_out_and_the_connection_ends() {
    let backend = Backend::start("a").await;
    let proxy = Proxy::over(&[&backend]).await;
    for lines in [
        "Content-Length: 4\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 4",
        "Transfer-Encoding: chunked\r\nContent-Length: 0",
    ] {
        let before = backend.count();
        let bytes = format!("POST /both HTTP/1.1\r\nHost: h\r\n{lines}\r\n\r\n5\r\nhello\r\n0\r\n\r\n");
        let (mut wire, answer) = answer(&proxy, bytes.as_bytes()).await;
        let status = answer.unwrap().status;
        assert!(wire.rest().await.is_empty(), "a second answer after {lines:?}");
        if status == 200 {
            let seen = backend.received(before + 1).await;
            assert_eq!((seen.text().as_str(), seen.header("content-length")), ("hello", None), "{lines:?}");
            assert_eq!(seen.fields.all("transfer-encoding"), ["chunked"]);
        } else {
            assert_eq!(status, 400, "{lines:?}");
        }
        assert!(backend.requests().iter().all(|request| request.target == "/both"));
    }
}

#[tokio::test]
async fn equal_lengths_and_bare_line_feeds_go_out_in_one_clear_form() {
    let backend = Backend::start("a").await;
    let proxy = Proxy::over(&[&backend]).await;
    for bytes in [
        "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
        "POST / HTTP/1.1\nHost: h\nContent-Length: 5\n\nhello",
        "\r\n\r\nPOST / HTTP/1.1\r\nHost: h\r\nContent-Length: 00005\r\n\r\nhello",
    ] {
        let before = backend.count();
        let mut wire = proxy.wire().await;
        wire.send(bytes).await;
        let status = wire.response("POST").await.unwrap().status;
        if status == 400 {
            continue;
        }
        assert_eq!(status, 200, "{bytes:?}");
        let seen = backend.received(before + 1).await;
        assert_eq!(seen.text(), "hello", "{bytes:?}");
        assert_eq!(seen.fields.all("content-length").len(), 1, "{bytes:?}");
        let text = String::from_utf8(seen.head).unwrap();
        assert_eq!(text.matches('\n').count(), text.matches("\r\n").count(), "{text:?}");
    }
}

#[tokio::test]
async fn a_body_that_is_announced_as_too_large_is_a_413_without_a_100() {
    let backend = Backend::start("a").await;
    let proxy = Proxy::start(Config::app(&[&backend], "").listener("max_body = \"1KiB\"")).await;
    let mut wire = proxy.wire().await;
    wire.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1025\r\nExpect: 100-continue\r\n\r\n").await;
    assert_eq!(wire.response_head().await.unwrap().status, 413, "not a 100");
    assert_eq!(backend.count(), 0);

    let mut wire = proxy.wire().await;
    wire.send(format!("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1024\r\n\r\n{}", "x".repeat(1024)))
        .await;
    assert_eq!(wire.response("POST").await.unwrap().status, 200);
}

#[tokio::test]
async fn a_chunked_body_that_grows_too_large_is_a_413_and_the_backend_sees_it_cut() {
    let backend = Backend::start("a").await;
    let proxy = Proxy::start(Config::app(&[&backend], "").listener("max_body = \"1KiB\"")).await;
    let mut wire = proxy.wire().await;
    wire.send("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    for _ in 0..3 {
        wire.send(format!("200\r\n{}\r\n", "x".repeat(0x200))).await;
    }
    assert_eq!(wire.response("POST").await.unwrap().status, 413);
    assert!(wire.rest().await.is_empty());
    backend.deserted().await;
    let seen = backend.seen(1).await;
    assert!(!seen.whole && seen.body.len() <= 1024, "{}", seen.body.len());
}

#[tokio::test]
async fn a_refused_upload_is_never_asked_for() {
    let backend = Backend::refusing("a");
    let config = Config::app(&[&backend], "hold.max = 0")
        .route("path = \"/no\"\nrespond.status = 403")
        .route("path = \"/app\"\npool = \"app\"");
    let proxy = Proxy::start(config).await;
    for (target, statuses) in [("/no", &[403][..]), ("/nowhere", &[404]), ("/app", &[502, 503])] {
        let mut wire = proxy.wire().await;
        wire.send(format!(
            "POST {target} HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
        ))
        .await;
        let status = wire.response_head().await.unwrap().status;
        assert!(statuses.contains(&status), "{target}: {status}");
    }
}

#[tokio::test]
async fn an_http_1_0_client_gets_an_answer_that_it_can_read() {
    let backend = Backend::start("a").await;
    let proxy = Proxy::over(&[&backend]).await;
    let answer = String::from_utf8(proxy.raw("GET /old HTTP/1.0\r\n\r\n").await).unwrap();
    assert!(answer.starts_with("HTTP/1.0 200") && answer.ends_with("\r\n\r\na"), "{answer}");
    let seen = backend.received(1).await;
    assert!(seen.head.starts_with(b"GET /old HTTP/1.1\r\n"));
    assert_eq!(seen.header("host"), Some(&*backend.address.to_string()));

    let mut wire = proxy.wire().await;
    for _ in 0..2 {
        wire.send("GET / HTTP/1.0\r\nHost: h\r\nConnection: keep-alive\r\n\r\n").await;
        let answer = wire.response("GET").await.expect("it is kept alive");
        assert_eq!((answer.status, answer.header("content-length")), (200, Some("1")));
        assert!(answer.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("keep-alive")));
    }
}

#[tokio::test]
async fn a_chunked_answer_reaches_an_http_1_0_client_without_chunks() {
    let backend = Backend::start("a").await;
    backend.reply(Reply::raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"));
    let proxy = Proxy::over(&[&backend]).await;
    let answer =
        String::from_utf8(proxy.raw("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").await).unwrap();
    assert!(answer.ends_with("\r\n\r\nhello"), "{answer}");
    assert!(!answer.to_lowercase().contains("transfer-encoding"), "{answer}");
}

#[tokio::test]
async fn a_coding_in_http_1_0_is_refused() {
    are_refused(
        "",
        &table(&[(400, "POST / HTTP/1.0\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")]),
    )
    .await;
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let backend = Backend::start("a").await;
    backend.answer(|request| Reply::text(format!("{} {}", request.target, request.text())));
    let proxy = Proxy::over(&[&backend]).await;
    let mut wire = proxy.wire().await;
    let mut bytes = String::new();
    for n in 0..20 {
        bytes += &format!("POST /{n} HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc");
        bytes += &format!("GET /{n} HTTP/1.1\r\nHost: h\r\n\r\n");
    }
    wire.send(bytes).await;
    for n in 0..20 {
        assert_eq!(wire.response("POST").await.unwrap().text(), format!("/{n} abc"));
        assert_eq!(wire.response("GET").await.unwrap().text(), format!("/{n} "));
    }
}

#[tokio::test]
async fn an_upgrade_with_a_body_is_refused() {
    let ask = |lines: &str| {
        let head = "GET / HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: websocket\r\n";
        (400, format!("{head}{lines}\r\n\r\n").into_bytes())
    };
    are_refused("", &[ask("Content-Length: 5"), ask("Transfer-Encoding: chunked")]).await;
}

#[tokio::test]
async fn refusals_are_counted() {
    let backend = Backend::start("a").await;
    let proxy = Proxy::over(&[&backend]).await;
    let answer = proxy.raw("GET / HTTP/1.1\r\nHost : h\r\n\r\n").await;
    assert!(answer.starts_with(b"HTTP/1.1 400"), "{}", String::from_utf8_lossy(&answer));
    let sample = r#"pintle_listener_rejected_total{listener="web",reason="bad_request"}"#;
    eventually("it is counted", async || proxy.metric(sample).await == 1.0).await;
}
