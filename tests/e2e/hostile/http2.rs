//! HTTP/2 requests that HTTP/1 could not say, or would say as two.
//!
//! Each is refused, by an answer or by a reset, on its own stream; nothing of it reaches a backend,
//! and the connection's next request is served.

use crate::support::h2_client::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, RST_STREAM, SETTINGS, WINDOW_UPDATE, block,
    request,
};
use crate::support::{Backend, Config, Frame, FrameWire, Proxy, Reply};

async fn proxy(backend: &Backend) -> Proxy {
    Proxy::start(Config::app(&[backend], "").listener("protocols = [\"h2c\", \"http/1.1\"]")).await
}

/// What came of a stream.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Status(u16),
    Reset,
    Closed,
}

/// The answer's status, from a head that the codec wrote: the static table has the common ones.
fn status(head: &[u8]) -> u16 {
    match head[0] {
        0x88..=0x8e => [200, 204, 206, 304, 400, 404, 500][usize::from(head[0] - 0x88)],
        // The table's size, which comes first.
        0x20..=0x3f => status(&head[1..]),
        _ => {
            // A literal with the name `:status`, its digits plain or in Huffman's code.
            let (huffman, length) = (head[1] & 0x80 != 0, usize::from(head[1] & 0x7f));
            let text = &head[2..2 + length];
            if huffman { unhuffman(text) } else { std::str::from_utf8(text).unwrap().parse().unwrap() }
        }
    }
}

/// Three digits (RFC 7541 appendix B): `0` to `2` in five bits, the others in six.
fn unhuffman(text: &[u8]) -> u16 {
    let bits: String = text.iter().map(|byte| format!("{byte:08b}")).collect();
    let (mut at, mut number) = (0, 0);
    for _ in 0..3 {
        let five = u16::from_str_radix(&bits[at..at + 5], 2).unwrap();
        if five <= 2 {
            (at, number) = (at + 5, number * 10 + five);
        } else {
            let six = u16::from_str_radix(&bits[at..at + 6], 2).unwrap();
            (at, number) = (at + 6, number * 10 + six - 0x19 + 3);
        }
    }
    number
}

async fn verdict(wire: &mut FrameWire, stream: u32) -> Verdict {
    loop {
        match wire.read().await {
            Some(frame) if frame.stream == stream && frame.kind == HEADERS => {
                return Verdict::Status(status(&frame.payload));
            }
            Some(frame) if frame.stream == stream && frame.kind == RST_STREAM => return Verdict::Reset,
            Some(frame) if frame.kind == GOAWAY && frame.error() != 0 => return Verdict::Closed,
            Some(_) => {}
            None => return Verdict::Closed,
        }
    }
}

/// What it is, its fields, and what comes of it.
type Case<'a> = (&'a str, Vec<(&'a str, &'a str)>, Verdict);

/// Sends each head on a stream of its own, all on one connection.
async fn heads(cases: &[Case<'_>]) {
    let backend = Backend::start("a").await;
    let proxy = proxy(&backend).await;
    let mut wire = FrameWire::open(proxy.address).await;
    for (n, (what, fields, expected)) in cases.iter().enumerate() {
        let stream = u32::try_from(n).unwrap() * 2 + 1;
        wire.send(&[Frame::head(stream, fields, END_STREAM)]).await;
        assert_eq!(&verdict(&mut wire, stream).await, expected, "{what}");
    }
    assert_eq!(backend.count(), 0, "nothing of it reaches a backend");
    let last = u32::try_from(cases.len()).unwrap() * 2 + 1;
    wire.send(&[Frame::get(last, "/fine")]).await;
    assert_eq!(verdict(&mut wire, last).await, Verdict::Status(200));
    assert_eq!(backend.seen(1).await.target, "/fine");
}

fn with<'a>(extra: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    [&request("GET", "/")[..], extra].concat()
}

fn without<'a>(name: &str, extra: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let fields = request("GET", "/").into_iter().filter(|(field, _)| *field != name);
    fields.chain(extra.iter().copied()).collect()
}

const REFUSED: Verdict = Verdict::Status(400);

#[tokio::test]
async fn games_with_pseudo_headers_end_with_the_stream() {
    heads(&[
        ("no method", without(":method", &[]), Verdict::Reset),
        ("no scheme", without(":scheme", &[]), Verdict::Reset),
        ("no path", without(":path", &[]), Verdict::Reset),
        ("an empty path", without(":path", &[(":path", "")]), Verdict::Reset),
        ("two methods", with(&[(":method", "GET")]), Verdict::Reset),
        ("two schemes", with(&[(":scheme", "http")]), Verdict::Reset),
        ("two paths", with(&[(":path", "/other")]), Verdict::Reset),
        ("two authorities", with(&[(":authority", "other")]), Verdict::Reset),
        ("one of an answer", with(&[(":status", "200")]), Verdict::Reset),
        ("one that is late", without(":path", &[("x-a", "1"), (":path", "/")]), Verdict::Reset),
        ("a protocol without CONNECT", with(&[(":protocol", "websocket")]), Verdict::Reset),
        ("a path with a blank", without(":path", &[(":path", "/ HTTP/1.1")]), Verdict::Reset),
        ("a path with a line end", without(":path", &[(":path", "/\r\nx: y")]), Verdict::Reset),
        ("a scheme with a blank", without(":scheme", &[(":scheme", "http://x /")]), Verdict::Reset),
        ("an authority with a path", without(":authority", &[(":authority", "a/b")]), Verdict::Reset),
    ])
    .await;
}

#[tokio::test]
async fn targets_that_leave_a_choice_are_refused() {
    let path = |path| without(":path", &[(":path", path)]);
    let authority = |authority| without(":authority", &[(":authority", authority)]);
    heads(&[
        ("a path without a slash", path("x"), Verdict::Reset),
        ("an asterisk", path("*"), REFUSED),
        ("an address for a path", path("http://other/"), Verdict::Reset),
        ("userinfo", authority("user@test.example"), REFUSED),
        ("a port that is none", authority("test.example:x"), REFUSED),
        ("a port too large", authority("test.example:99999"), REFUSED),
        ("an empty label", authority("a..b"), REFUSED),
        ("nobody", without(":authority", &[]), REFUSED),
        ("a host that is empty", without(":authority", &[("host", "")]), REFUSED),
        ("another scheme", without(":scheme", &[(":scheme", "ftp")]), REFUSED),
        ("a host that differs", with(&[("host", "other.example")]), REFUSED),
        ("two hosts", with(&[("host", "test.example"), ("host", "other.example")]), REFUSED),
        ("two hosts and no authority", without(":authority", &[("host", "a"), ("host", "a")]), REFUSED),
    ])
    .await;
}

#[tokio::test]
async fn fields_that_http_1_would_read_otherwise_are_refused() {
    heads(&[
        ("connection", with(&[("connection", "close")]), Verdict::Reset),
        ("transfer-encoding", with(&[("transfer-encoding", "chunked")]), Verdict::Reset),
        ("upgrade", with(&[("upgrade", "websocket")]), Verdict::Reset),
        ("keep-alive", with(&[("keep-alive", "timeout=5")]), Verdict::Reset),
        ("proxy-connection", with(&[("proxy-connection", "close")]), Verdict::Reset),
        ("te", with(&[("te", "gzip")]), Verdict::Reset),
        ("a blank before a value", with(&[("x-a", " 1")]), REFUSED),
        ("a tab after a value", with(&[("x-a", "1\t")]), REFUSED),
        ("two lengths", with(&[("content-length", "0"), ("content-length", "0")]), REFUSED),
        ("a length and no body", with(&[("content-length", "5")]), Verdict::Reset),
        ("a length that is none", with(&[("content-length", "x")]), Verdict::Reset),
        ("a length with a sign", with(&[("content-length", "+5")]), Verdict::Reset),
        ("a method in lower case", without(":method", &[(":method", "get")]), Verdict::Status(400)),
        ("CONNECT", vec![(":method", "CONNECT"), (":authority", "a:443")], Verdict::Status(405)),
        ("TRACE", without(":method", &[(":method", "TRACE")]), Verdict::Status(405)),
    ])
    .await;
}

/// The codec takes them for a header block that cannot be read, which ends the connection.
#[tokio::test]
async fn bytes_that_no_name_and_no_value_has_end_the_connection() {
    let backend = Backend::start("a").await;
    let proxy = proxy(&backend).await;
    for (what, fields) in [
        ("an unknown pseudo-header", with(&[(":cow", "moo")])),
        ("a name in upper case", with(&[("X-A", "1")])),
        ("a name with a colon", with(&[("x:a", "1")])),
        ("a name with a blank", with(&[("x a", "1")])),
        ("a name with a line end", with(&[("x\r\na", "1")])),
        ("an empty name", with(&[("", "1")])),
        ("a line end in a value", with(&[("x-a", "1\r\nx-b: 2")])),
        ("a line feed in a value", with(&[("x-a", "1\n2")])),
        ("a zero in a value", with(&[("x-a", "1\0")])),
        ("a method with a blank", without(":method", &[(":method", "GET /x HTTP/1.1")])),
        ("a method with a line end", without(":method", &[(":method", "GET\r\nx: y")])),
    ] {
        let mut wire = FrameWire::open(proxy.address).await;
        wire.send(&[Frame::head(1, &fields, END_STREAM)]).await;
        assert_eq!(verdict(&mut wire, 1).await, Verdict::Closed, "{what}");
    }
    assert_eq!(backend.count(), 0);
}

#[tokio::test]
async fn a_body_that_is_not_as_long_as_it_says_never_looks_whole_to_a_backend() {
    let backend = Backend::start("a").await;
    backend.answer(|_| Reply::text("ok"));
    let proxy = proxy(&backend).await;
    let mut wire = FrameWire::open(proxy.address).await;
    for (stream, length, body) in [(1, "5", "abc"), (3, "2", "abc"), (5, "0", "abc")] {
        let fields = [&request("POST", "/")[..], &[("content-length", length)]].concat();
        wire.send(&[Frame::head(stream, &fields, 0), Frame::new(DATA, END_STREAM, stream, body)]).await;
        assert_eq!(verdict(&mut wire, stream).await, Verdict::Reset, "{length}");
    }
    assert!(backend.requests().iter().all(|request| !request.whole), "{:?}", backend.requests());
    wire.send(&[Frame::get(7, "/")]).await;
    assert_eq!(verdict(&mut wire, 7).await, Verdict::Status(200));
}

#[tokio::test]
async fn trailers_cannot_smuggle_what_belongs_in_a_head() {
    let backend = Backend::start("a").await;
    backend.answer(|_| Reply::text("ok"));
    let proxy = proxy(&backend).await;
    let mut wire = FrameWire::open(proxy.address).await;
    let head = [&request("POST", "/")[..], &[("te", "trailers"), ("trailer", "x-sum")]].concat();
    let trailers =
        [("x-sum", "1"), ("host", "evil"), ("content-length", "3"), ("x-forwarded-for", "6.6.6.6")];
    wire.send(&[
        Frame::head(1, &head, 0),
        Frame::new(DATA, 0, 1, *b"abc"),
        Frame::head(1, &trailers, END_STREAM),
    ])
    .await;
    assert_eq!(verdict(&mut wire, 1).await, Verdict::Status(200));
    let request = backend.received(1).await;
    assert_eq!(request.trailers.get("x-sum"), Some("1"));
    for name in ["host", "content-length", "x-forwarded-for"] {
        assert_eq!(request.trailers.get(name), None, "{name}");
    }
}

#[tokio::test]
async fn a_head_that_is_too_large_or_has_too_many_fields_is_a_431() {
    let backend = Backend::start("a").await;
    let proxy = proxy(&backend).await;
    let large = "x".repeat(15_000);
    let mut wire = FrameWire::open(proxy.address).await;
    let first = Frame::new(HEADERS, END_STREAM, 1, block(&with(&[("x-a", &large)])));
    let more = Frame::new(CONTINUATION, 0, 1, block(&[("x-b", &large)]));
    let last = Frame::new(CONTINUATION, END_HEADERS, 1, block(&[("x-c", &large)]));
    wire.send(&[first, more, last]).await;
    assert_eq!(verdict(&mut wire, 1).await, Verdict::Status(431));
    let names: Vec<String> = (0..101).map(|n| format!("x-{n}")).collect();
    let fields: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "1")).collect();
    wire.send(&[Frame::head(3, &with(&fields), END_STREAM)]).await;
    assert_eq!(verdict(&mut wire, 3).await, Verdict::Status(431));
    let path = format!("/{}", "a".repeat(16 * 1024));
    let head = block(&without(":path", &[(":path", &path)]));
    let (first, last) = head.split_at(16_000);
    wire.send(&[Frame::new(HEADERS, END_STREAM, 5, first), Frame::new(CONTINUATION, END_HEADERS, 5, last)])
        .await;
    assert_eq!(verdict(&mut wire, 5).await, Verdict::Status(414));
    assert_eq!(backend.count(), 0);
}

#[tokio::test]
async fn a_stream_that_its_client_has_ended_does_not_begin_again() {
    let backend = Backend::start("a").await;
    let proxy = proxy(&backend).await;
    for again in [Frame::new(DATA, 0, 1, *b"x"), Frame::get(1, "/again"), Frame::new(DATA, 0, 1, [])] {
        let mut wire = FrameWire::open(proxy.address).await;
        wire.send(&[Frame::get(1, "/")]).await;
        assert_eq!(verdict(&mut wire, 1).await, Verdict::Status(200));
        wire.send(&[again]).await;
        let goodbye = wire.read_until(GOAWAY).await.unwrap();
        assert_eq!(goodbye.error(), 5, "STREAM_CLOSED");
    }
    assert!(backend.requests().iter().all(|request| request.target == "/"));
}

#[tokio::test]
async fn a_refusal_is_an_answer_and_a_reset() {
    let backend = Backend::start("a").await;
    let proxy = proxy(&backend).await;
    let mut wire = FrameWire::open(proxy.address).await;
    wire.send(&[Frame::head(1, &with(&[("host", "other.example")]), END_STREAM)]).await;
    assert_eq!(verdict(&mut wire, 1).await, Verdict::Status(400));
    let text = wire.read_until(DATA).await.unwrap().payload;
    assert!(text.starts_with(b"400 bad_request: "), "{}", String::from_utf8_lossy(&text));
    let reset = wire.read_until(RST_STREAM).await.unwrap();
    assert_eq!((reset.stream, reset.error()), (1, 1), "PROTOCOL_ERROR");
}

#[tokio::test]
async fn frames_that_break_the_connections_rules_end_it() {
    let backend = Backend::start("a").await;
    let proxy = proxy(&backend).await;
    let cases = [
        ("DATA on no stream", Frame::new(DATA, 0, 0, *b"x")),
        ("DATA on a stream that never was", Frame::new(DATA, 0, 1, *b"x")),
        ("HEADERS on an even stream", Frame::get(2, "/")),
        ("a reset of a stream that never was", Frame::reset(1)),
        ("SETTINGS on a stream", Frame::new(SETTINGS, 0, 1, [])),
        ("half a setting", Frame::new(SETTINGS, 0, 0, [0, 1, 0])),
        ("a window of nothing", Frame::new(WINDOW_UPDATE, 0, 0, [0; 4])),
        ("a CONTINUATION of nothing", Frame::new(CONTINUATION, END_HEADERS, 1, [])),
        ("a header block that is none", Frame::new(HEADERS, 5, 1, [0xff; 20])),
        ("a frame that is too large", Frame::new(DATA, 0, 1, vec![0; 16_385])),
    ];
    for (what, frame) in cases {
        let mut wire = FrameWire::open(proxy.address).await;
        wire.send(&[frame]).await;
        assert_eq!(verdict(&mut wire, 99).await, Verdict::Closed, "{what}");
    }
    assert_eq!(backend.count(), 0);
}
