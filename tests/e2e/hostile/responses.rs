//! Backends that are broken, or lie.

use std::fmt::Write as _;

use super::{next_request, over_a_socket};
use crate::support::{Ask, Backend, Config, Proxy, Reply, within};

const POISON: &str = "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\npoisoned";

#[tokio::test]
async fn an_answer_that_could_be_read_two_ways_is_a_502() {
    let ok = |lines: &str| format!("HTTP/1.1 200 OK\r\n{lines}\r\n\r\n5\r\nhello\r\n0\r\n\r\n");
    let mut table: Vec<String> = [
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: 5\r\nContent-Length: 5",
        "Content-Length: +5",
        "Content-Length: 5,5",
        "Content-Length: ",
        "Content-Length: 18446744073709551616",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: chunked,",
        "Transfer-Encoding: chunked, gzip",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        "Content-Length: 5\r\nTransfer-Encoding: gzip",
        "X: a\rb",
        "X: a\0b",
        "X: a\u{1}b",
        "X: a\r\n b",
        "X : a",
        ": a",
        " X: a",
        "no colon",
    ]
    .iter()
    .map(|lines| ok(lines))
    .collect();
    for line in [
        "HTTP/1.1 200OK",
        "HTTP/1.1  200 OK",
        "HTTP/1.1 20 OK",
        "HTTP/1.1 2000 OK",
        "HTTP/1.1 -20 OK",
        "HTTP/1.1 abc OK",
        "HTTP/1.1 000 OK",
        "HTTP/1.1 600 OK",
        "HTTP/1.1 999 OK",
        "HTTP/1.2 200 OK",
        "HTTP/0.9 200 OK",
        "http/1.1 200 OK",
        "200 OK",
        "HTTP/1.1 200 a\0b",
        "HTTP/1.1 200 a\rb",
        "<html>",
    ] {
        table.push(format!("{line}\r\nContent-Length: 0\r\n\r\n"));
    }
    let backend = Backend::start("a").await;
    let replies = table.clone();
    backend.answer(move |request| {
        Reply::raw(replies[request.target[1..].parse::<usize>().unwrap()].clone()).then_close()
    });
    let proxy = Proxy::over(&[&backend]).await;
    for (place, bytes) in table.iter().enumerate() {
        let answer = proxy.client().post(&format!("/{place}"), "").await;
        assert_eq!(answer.status, 502, "{bytes:?}");
    }
}

#[tokio::test]
async fn a_head_without_end_or_with_too_many_lines_is_a_502() {
    let mut many = String::new();
    for n in 0..101 {
        write!(many, "X-{n}: 1\r\n").unwrap();
    }
    let endless = "X: y\r\n".repeat(50_000);
    let long = format!("X: {}\r\n", "x".repeat(100_000));
    for lines in [many, endless, long] {
        let backend = Backend::start("a").await;
        backend.reply(Reply::raw(format!("HTTP/1.1 200 OK\r\n{lines}")).then_stall());
        let proxy = Proxy::over(&[&backend]).await;
        let status = proxy.client().post("/", "").await.status;
        // A hundred lines and one more: the head has not even ended.
        assert_eq!(status, 502, "{}", lines.len());
        backend.deserted().await;
    }
}

#[tokio::test]
async fn what_a_backend_adds_to_its_answer_never_becomes_the_next_one() {
    for (method, answer, body) in [
        ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "ok"),
        ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", ""),
        ("GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", "ok"),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\n", ""),
        ("GET", "HTTP/1.1 204 No Content\r\nContent-Length: 61\r\n\r\n", ""),
        ("GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 61\r\n\r\n", ""),
        ("GET", "HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n", ""),
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 61\r\n\r\n", ""),
        ("HEAD", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", ""),
        ("POST", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "ok"),
    ] {
        let backend = Backend::start("a").await;
        backend.reply(Reply::raw(format!("{answer}{POISON}")));
        let proxy = Proxy::over(&[&backend]).await;
        let mut clients = [proxy.client(), proxy.client()];
        for round in 0..6 {
            let got = clients[round % 2].ask(Ask::new(method, "/")).await;
            assert_eq!(got.text(), body, "{method} {answer:?}");
        }
        assert_eq!(backend.accepted(), 6, "{method} {answer:?}: no connection is used again");
    }
}

#[tokio::test]
async fn an_answer_that_nobody_waits_for_ends_its_connection() {
    let backend = Backend::start("a").await;
    backend.reply(Reply::text("ok").then_park().then(Reply::raw(POISON)));
    let proxy = Proxy::over(&[&backend]).await;
    let mut client = proxy.client();
    assert_eq!(client.get("/").await.text(), "ok");
    backend.parked(1).await;
    backend.release();
    backend.deserted().await;
    backend.reply(Reply::text("ok"));
    assert_eq!(client.get("/").await.text(), "ok");
}

#[tokio::test]
async fn an_answer_of_http_1_0_ends_its_connection_and_keeps_its_end() {
    for (answer, whole) in [
        ("HTTP/1.0 200 OK\r\n\r\nhello", true),
        ("HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", true),
        ("HTTP/1.0 200 OK\r\nContent-Length: 9\r\n\r\nhello", false),
    ] {
        let backend = Backend::start("a").await;
        backend.reply(Reply::raw(answer).then_close());
        let proxy = Proxy::over(&[&backend]).await;
        let mut client = proxy.client();
        for round in 1..=2 {
            let got = client.get("/").await;
            assert_eq!((got.text().as_str(), got.whole), ("hello", whole), "{answer:?}");
            assert!(got.head.starts_with(b"HTTP/1.1 200"), "{answer:?}");
            assert_eq!(backend.accepted(), round, "{answer:?}");
        }
    }
}

#[tokio::test]
async fn an_answer_of_bare_line_feeds_goes_out_in_crlf() {
    let backend = Backend::start("a").await;
    backend.reply(Reply::raw("HTTP/1.1 200 OK\nX-A: 1\nContent-Length: 5\n\nhello"));
    let proxy = Proxy::over(&[&backend]).await;
    let answer = proxy.client().get("/").await;
    let head = String::from_utf8(answer.head.clone()).unwrap();
    assert_eq!((answer.text().as_str(), answer.header("x-a")), ("hello", Some("1")));
    assert_eq!(head.matches(['\r', '\n']).count(), 2 * head.matches("\r\n").count(), "{head:?}");
}

#[tokio::test]
async fn many_interim_answers_are_read_over() {
    let backend = Backend::start("a").await;
    let storm = "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n".repeat(500);
    backend.reply(Reply::raw(format!("{storm}HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")));
    let proxy = Proxy::over(&[&backend]).await;
    for request in ["GET / HTTP/1.1\r\nHost: h\r\n\r\n", "GET / HTTP/1.0\r\nHost: h\r\n\r\n"] {
        let mut wire = proxy.wire().await;
        wire.send(request).await;
        // Neither version of client is shown one: hyper cannot write them.
        let mut answer = wire.response_head().await.unwrap();
        wire.finish_response("GET", &mut answer).await;
        assert_eq!((answer.status, answer.text().as_str(), answer.header("link")), (200, "ok", None));
    }
}

/// A connection that floods is closed, long before its time for an answer is over.
#[tokio::test]
async fn interim_answers_without_end_are_a_502_and_cost_others_nothing() {
    let (listener, proxy) = over_a_socket("timeouts.response = \"1h\"").await;
    let mut client = proxy.wire().await;
    client.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n").await;
    let (mut backend, _) = next_request(&listener).await;
    // Large ones: what is bounded is read, and not every build parses fast.
    let hint = format!("HTTP/1.1 103 Early Hints\r\nLink: <{}>\r\n\r\n", "x".repeat(30_000));
    let storm = tokio::spawn(async move { while backend.try_send(&hint).await.is_ok() {} });
    let mut other = proxy.client();
    let other = tokio::spawn(async move { other.get("/other").await.text() });
    let (mut second, _) = next_request(&listener).await;
    second.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    assert_eq!(other.await.unwrap(), "ok");
    assert_eq!(client.response("POST").await.unwrap().status, 502);
    within("the storm's connection is closed", storm).await.unwrap();
}

/// A trickle of them is bounded by the time that a backend has for its answer.
#[tokio::test]
async fn interim_answers_do_not_extend_the_time_for_the_final_one() {
    let (listener, proxy) = over_a_socket("timeouts.response = \"1s\"").await;
    let mut client = proxy.wire().await;
    client.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n").await;
    let (mut backend, _) = next_request(&listener).await;
    let trickle = tokio::spawn(async move {
        while backend.try_send("HTTP/1.1 102 Processing\r\n\r\n").await.is_ok() {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    });
    assert_eq!(client.response("POST").await.unwrap().status, 504);
    within("the connection is closed", trickle).await.unwrap();
}

#[tokio::test]
async fn an_interim_answer_does_not_open_the_door_to_a_101() {
    let backend = Backend::start("a").await;
    backend.reply(
        Reply::raw("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n").then_stall(),
    );
    let proxy = Proxy::over(&[&backend]).await;
    assert_eq!(proxy.client().get("/").await.status, 502);
}

/// Encoded line ends in a request stay encoded in what we say of it.
#[tokio::test]
async fn a_redirect_is_not_split_by_what_the_client_writes() {
    let config =
        Config::from("[[route]]\npath = \"/\"\nredirect = { to = \"https://{host}{path_and_query}\" }");
    let proxy = Proxy::start(config).await;
    let answer = proxy.client().get("/a%0d%0aX-Evil:%201?b=%0D%0A%0D%0Ax").await;
    assert!((300..400).contains(&answer.status), "{}", answer.status);
    assert_eq!(answer.header("x-evil"), None);
    assert!(answer.header("location").unwrap().contains("%0d%0aX-Evil"), "{:?}", answer.header("location"));
}
