//! `Expect: 100-continue`: nobody is asked for a body that nobody wants.

use super::{SMUGGLED, are_refused, head, next_request, over_a_socket};
use crate::support::{Backend, Config, Proxy, Reply, within};

const POST: &str = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[tokio::test]
async fn an_unknown_expectation_fails() {
    let post = |value: &str| {
        (
            417,
            format!("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\nExpect: {value}\r\n\r\n")
                .into_bytes(),
        )
    };
    are_refused(&[
        post("200-ok"),
        post(""),
        post("100-continue, 100-continue"),
        post("100-continue;x"),
        post("x100-continue"),
        post("100-continue\r\nExpect: x"),
    ])
    .await;
}

#[tokio::test]
async fn who_answers_without_a_backend_asks_for_no_body() {
    let backend = Backend::start("a").await;
    let config = Config::app(&[&backend], "")
        .listener("max_body = \"1KiB\"")
        .route("path = \"/own\"\nrespond.status = 403")
        .route("path = \"/moved\"\nredirect = { to = \"https://{host}/\" }")
        .route("path = \"/app\"\npool = \"app\"");
    let proxy = Proxy::start(config).await;
    for (target, length, status) in
        [("/own", 5, 403), ("/nowhere", 5, 404), ("/moved", 5, 308), ("/app", 1025, 413)]
    {
        let mut wire = proxy.wire().await;
        wire.send(format!(
            "POST {target} HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\nExpect: 100-continue\r\n\r\n"
        ))
        .await;
        let mut answer = wire.response_head().await.unwrap();
        assert!(
            answer.status == status || status == 308 && answer.status / 100 == 3,
            "{target}: {}",
            answer.status
        );
        wire.finish_response("POST", &mut answer).await;
        assert_eq!(answer.header("connection"), Some("close"), "{target}");
        // What comes now is the body that was not wanted, or must be taken for it.
        wire.send(SMUGGLED).await;
        assert!(wire.rest().await.is_empty(), "{target}");
    }
    assert_eq!(backend.count(), 0);
}

#[tokio::test]
async fn a_client_is_asked_when_the_backend_asks() {
    let (listener, proxy) = over_a_socket("").await;
    let mut client = proxy.wire().await;
    client.send(POST).await;
    let (mut backend, head) = next_request(&listener).await;
    assert!(head.contains("\r\nexpect: 100-continue\r\n"), "{head}");
    backend.send("HTTP/1.1 100 Continue\r\n\r\n").await;
    assert_eq!(client.response_head().await.unwrap().status, 100);
    client.send("hello").await;
    assert_eq!(backend.bytes(5).await, b"hello");
    backend.send(OK).await;
    assert_eq!(client.response_head().await.unwrap().status, 200, "no second 100");
    assert_eq!(client.bytes(2).await, b"ok");
    // Both connections go on.
    client.send("GET /next HTTP/1.1\r\nHost: h\r\n\r\n").await;
    assert!(within("a head", backend.head()).await.unwrap().starts_with(b"GET /next "));
}

#[tokio::test]
async fn a_client_is_not_asked_for_what_the_backend_refuses() {
    for refusal in ["417 Expectation Failed", "401 Unauthorized", "200 OK"] {
        let (listener, proxy) = over_a_socket("").await;
        let mut client = proxy.wire().await;
        client.send(POST).await;
        let (mut backend, _) = next_request(&listener).await;
        backend
            .send(format!("HTTP/1.1 103 Hints\r\n\r\nHTTP/1.1 {refusal}\r\nContent-Length: 2\r\n\r\nno"))
            .await;
        let mut answer = client.response_head().await.unwrap();
        assert_eq!(answer.status.to_string(), refusal[..3], "not a 100");
        client.finish_response("POST", &mut answer).await;
        assert_eq!((answer.text().as_str(), answer.header("connection")), ("no", Some("close")));
        client.send(SMUGGLED).await;
        assert!(client.rest().await.is_empty(), "{refusal}");
        // A connection that still owes a body carries nobody else's request.
        assert!(backend.rest().await.is_empty(), "{refusal}");
    }
}

#[tokio::test]
async fn a_backend_that_does_not_know_to_ask_gets_the_body_after_a_moment() {
    let backend = Backend::start("a").await;
    let proxy = Proxy::over(&[&backend]).await;
    let mut wire = proxy.wire().await;
    wire.send(POST).await;
    assert_eq!(wire.response_head().await.unwrap().status, 100);
    wire.send("hello").await;
    assert_eq!(wire.response("POST").await.unwrap().status, 200);
    assert_eq!(backend.received(1).await.text(), "hello");
}

#[tokio::test]
async fn a_client_that_does_not_wait_is_served_too() {
    let backend = Backend::start("a").await;
    backend.answer_early(|_| {
        let ask = Reply::raw("HTTP/1.1 100 Continue\r\n\r\n");
        ask.then(Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"))
    });
    let proxy = Proxy::over(&[&backend]).await;
    let mut wire = proxy.wire().await;
    wire.send(format!("{POST}hello")).await;
    assert_eq!(wire.response("POST").await.unwrap().text(), "ok");
}

#[tokio::test]
async fn an_expectation_without_a_body_or_of_http_1_0_goes_no_further() {
    let backend = Backend::start("a").await;
    let proxy = Proxy::over(&[&backend]).await;
    for (request, sent) in [
        ("GET / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\n\r\n", "GET / HTTP/1.1|host: h"),
        (
            "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\nExpect: 100-Continue\r\n\r\n",
            "POST / HTTP/1.1|content-length: 0|host: h",
        ),
        (
            "POST / HTTP/1.0\r\nHost: h\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhello",
            "POST / HTTP/1.1|content-length: 5|host: h",
        ),
        (
            "POST / HTTP/1.0\r\nHost: h\r\nContent-Length: 5\r\nExpect: something\r\n\r\nhello",
            "POST / HTTP/1.1|content-length: 5|host: h",
        ),
    ] {
        let before = backend.count();
        let mut wire = proxy.wire().await;
        wire.send(request).await;
        assert_eq!(wire.response_head().await.unwrap().status, 200, "{request:?}");
        assert_eq!(head(&backend.received(before + 1).await), sent);
    }
}
