//! What a backend may answer, what the client sees of it, and that a cut answer looks cut.

use std::fmt::Write as _;

use crate::support::{Ask, Backend, Client, Config, Proxy, Reply, Response};

/// What a client gets for this answer of a backend that then closes.
async fn relayed(ask: Ask, reply: Reply) -> (Option<Response>, Client, (Proxy, Backend)) {
    let backend = Backend::start("a").await;
    backend.reply(reply);
    let proxy = Proxy::over(&[&backend]).await;
    let mut client = proxy.client();
    let answer = client.try_ask(&ask).await;
    (answer, client, (proxy, backend))
}

/// A proxy before a backend that gives the n-th of these replies to a request for `/n`.
async fn scripted(replies: &[Reply]) -> (Backend, Proxy) {
    let backend = Backend::start("a").await;
    let replies = replies.to_vec();
    backend.answer(move |request| replies[request.target[1..].parse::<usize>().unwrap()].clone());
    let proxy = Proxy::over(&[&backend]).await;
    (backend, proxy)
}

#[tokio::test]
async fn a_body_cut_short_is_visible_to_the_client() {
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let replies = [
        Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello").then_close(),
        Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello").then_reset(),
        Reply::raw(format!("{chunked}5\r\nhello\r\n")).then_close(),
        Reply::raw(format!("{chunked}ff\r\nhello")).then_close(),
        Reply::raw(format!("{chunked}5\r\nhello\r\nXX\r\n")).then_stall(),
        Reply::raw(format!("{chunked}5\r\nhello\r\n0\r\n")).then_close(),
    ];
    let (_backend, proxy) = scripted(&replies).await;
    for (place, reply) in replies.iter().enumerate() {
        let answer = proxy.client().get(&format!("/{place}")).await;
        assert_eq!(answer.status, 200, "{reply:?}");
        assert!(!answer.whole, "{reply:?}");
        assert!("hello".starts_with(&answer.text()), "{reply:?}: {}", answer.text());
    }
    for line in proxy.logged(replies.len()).await {
        assert_eq!(line["end"], "reset_during_response", "{line}");
    }
}

#[tokio::test]
async fn a_body_until_the_close_arrives_whole_and_the_client_can_go_on() {
    let reply = Reply::raw("HTTP/1.1 200 OK\r\n\r\nhello").then_close();
    let (answer, mut client, _running) = relayed(Ask::get("/"), reply).await;
    let answer = answer.unwrap();
    assert_eq!((answer.text().as_str(), answer.whole), ("hello", true));
    assert_eq!(answer.header("transfer-encoding"), Some("chunked"));
    assert_eq!(client.get("/").await.text(), "hello");
}

#[tokio::test]
async fn a_body_until_the_close_that_is_reset_is_visible_too() {
    let reply = Reply::raw("HTTP/1.1 200 OK\r\n\r\nhello").then_park().then_reset();
    let backend = Backend::start("a").await;
    backend.reply(reply);
    let proxy = Proxy::over(&[&backend]).await;
    let mut wire = proxy.wire().await;
    wire.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
    let mut answer = wire.response_head().await.unwrap();
    backend.parked(1).await;
    backend.release();
    wire.finish_response("GET", &mut answer).await;
    assert!(!answer.whole);
}

#[tokio::test]
async fn an_answer_that_is_no_http_is_a_502() {
    let mut table = vec![
        "junk\r\n\r\n".to_owned(),
        "HTTP/1.1\r\n\r\n".to_owned(),
        "HTTP/1.1 99 Low\r\nContent-Length: 0\r\n\r\n".to_owned(),
        "HTTP/1.1 099 Low\r\nContent-Length: 0\r\n\r\n".to_owned(),
        "HTTP/1.1 600 High\r\nContent-Length: 0\r\n\r\n".to_owned(),
        "HTTP/1.1 1000 High\r\nContent-Length: 0\r\n\r\n".to_owned(),
        "HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n".to_owned(),
        "ICY 200 OK\r\n\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\nX : y\r\nContent-Length: 0\r\n\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\nX: y\r\n folded\r\nContent-Length: 0\r\n\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\nX: y\0z\r\nContent-Length: 0\r\n\r\n".to_owned(),
    ];
    for lines in [
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: 5\r\nContent-Length: 5",
        "Content-Length: 5, 5",
        "Content-Length: -5",
        "Content-Length: 0x5",
        "Content-Length: 99999999999999999999",
        "Transfer-Encoding: gzip",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: chunked, chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: identity",
    ] {
        table.push(format!("HTTP/1.1 200 OK\r\n{lines}\r\n\r\n5\r\nhello\r\n0\r\n\r\n"));
    }
    let replies: Vec<_> = table.iter().map(|bytes| Reply::raw(bytes.as_str()).then_close()).collect();
    let (_backend, proxy) = scripted(&replies).await;
    for (place, bytes) in table.iter().enumerate() {
        let answer = proxy.client().post(&format!("/{place}"), "").await;
        assert_eq!(answer.status, 502, "{bytes:?}");
        assert!(answer.text().contains("502 bad_response"), "{bytes:?}: {}", answer.text());
    }
    for line in proxy.logged(table.len()).await {
        assert_eq!(line["end"], "reset_before_response", "{line}");
    }
}

#[tokio::test]
async fn a_length_beside_chunked_is_dropped() {
    for lines in [
        "Content-Length: 2\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 99",
    ] {
        let reply = Reply::raw(format!("HTTP/1.1 200 OK\r\n{lines}\r\n\r\n5\r\nhello\r\n0\r\n\r\n"));
        let (answer, _, _running) = relayed(Ask::get("/"), reply).await;
        let answer = answer.unwrap();
        assert_eq!((answer.text().as_str(), answer.whole), ("hello", true));
        assert_eq!(
            (answer.header("content-length"), answer.header("transfer-encoding")),
            (None, Some("chunked"))
        );
    }
}

#[tokio::test]
async fn a_101_that_nobody_asked_for_is_a_502() {
    let switch = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nearly";
    let (answer, _, _running) = relayed(Ask::get("/"), Reply::raw(switch).then_stall()).await;
    assert_eq!(answer.unwrap().status, 502);
    let ask = Ask::get("/").header("Connection", "upgrade").header("Upgrade", "chat");
    let (answer, _, _running) = relayed(ask, Reply::raw(switch).then_stall()).await;
    assert_eq!(answer.unwrap().status, 502, "to another protocol");
}

#[tokio::test]
async fn an_upgrade_that_is_declined_is_an_ordinary_answer() {
    let ask = Ask::get("/").header("Connection", "upgrade").header("Upgrade", "websocket");
    let backend = Backend::start("a").await;
    let proxy = Proxy::over(&[&backend]).await;
    let mut client = proxy.client();
    assert_eq!(client.ask(ask.clone()).await.text(), "a");
    assert_eq!(client.ask(ask).await.text(), "a", "on the same connection");
    assert_eq!(backend.accepted(), 1);
}

#[tokio::test]
async fn an_upgrade_carries_bytes_both_ways_and_half_closes() {
    let backend = Backend::start("a").await;
    backend.reply(Reply::upgrade("chat/1", "welcome "));
    let proxy = Proxy::over(&[&backend]).await;
    let mut wire = proxy.wire().await;
    // The first bytes of the tunnel come right behind the request.
    wire.send("GET / HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: chat/1\r\n\r\nhasty ").await;
    let answer = wire.response_head().await.unwrap();
    assert_eq!((answer.status, answer.header("upgrade")), (101, Some("chat/1")));
    assert_eq!(wire.bytes(14).await, b"welcome hasty ");
    wire.send("last words").await;
    wire.finish().await;
    assert_eq!(wire.rest().await, b"last words");
    let lines = proxy.logged(2).await;
    assert_eq!([&lines[0]["end"], &lines[1]["end"]], ["upgraded", "tunnel_closed"]);
    assert_eq!((&lines[1]["req_bytes"], &lines[1]["resp_bytes"]), (&16.into(), &24.into()));
}

#[tokio::test]
async fn interim_answers_do_not_disturb_the_final_one() {
    let mut bytes = String::new();
    for status in [100, 102, 103] {
        write!(bytes, "HTTP/1.1 {status} Interim\r\nLink: </x>\r\n\r\n").unwrap();
    }
    bytes += "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
    let (answer, mut client, _running) = relayed(Ask::get("/"), Reply::raw(bytes)).await;
    let answer = answer.unwrap();
    assert_eq!((answer.status, answer.text().as_str(), answer.header("link")), (200, "hello", None));
    assert_eq!(client.get("/").await.text(), "hello");
}

#[tokio::test]
async fn an_interim_answer_alone_is_no_answer() {
    let reply = Reply::raw("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n").then_close();
    let (answer, _, _running) = relayed(Ask::post("/", ""), reply).await;
    assert_eq!(answer.unwrap().status, 502);
}

/// A 304 may say how long the body would have been (RFC 9110 section 8.6); it is left out.
#[tokio::test]
async fn what_has_no_body_keeps_its_length_only_where_that_is_allowed() {
    let reply =
        |status: &str| Reply::raw(format!("HTTP/1.1 {status}\r\nContent-Length: 5\r\nX-A: 1\r\n\r\n"));
    for (method, status, length) in
        [("HEAD", "200 OK", Some("5")), ("GET", "304 Not Modified", None), ("GET", "204 No Content", None)]
    {
        let backend = Backend::start("a").await;
        backend.reply(reply(status));
        let proxy = Proxy::over(&[&backend]).await;
        let mut client = proxy.client();
        for _ in 0..2 {
            let answer = client.ask(Ask::new(method, "/")).await;
            assert_eq!(
                (answer.header("content-length"), answer.body.len()),
                (length, 0),
                "{method} {status}"
            );
        }
        assert_eq!(backend.accepted(), 1, "{method} {status}");
    }
    for (method, bytes) in [
        ("HEAD", "HTTP/1.1 200 OK\r\nX-A: 1\r\n\r\n"),
        ("HEAD", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\n"),
        ("GET", "HTTP/1.1 304 Not Modified\r\nETag: x\r\n\r\n"),
    ] {
        let backend = Backend::start("a").await;
        backend.reply(Reply::raw(bytes));
        let proxy = Proxy::over(&[&backend]).await;
        let mut client = proxy.client();
        for _ in 0..2 {
            assert_eq!(client.ask(Ask::new(method, "/")).await.body.len(), 0, "{bytes}");
        }
    }
}

#[tokio::test]
async fn bytes_after_an_answer_never_become_the_next_one() {
    let backend = Backend::start("a").await;
    let poison = "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\npoisoned";
    backend.reply(Reply::raw(format!("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello{poison}")));
    let proxy = Proxy::over(&[&backend]).await;
    let mut clients: Vec<_> = (0..4).map(|_| proxy.client()).collect();
    for _ in 0..5 {
        for client in &mut clients {
            assert_eq!(client.get("/").await.text(), "hello");
        }
    }
}

#[tokio::test]
async fn an_early_answer_reaches_a_client_that_is_still_uploading() {
    let backend = Backend::start("a").await;
    backend.answer_early(|_| Reply::raw("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno"));
    let proxy = Proxy::over(&[&backend]).await;
    let mut wire = proxy.wire().await;
    wire.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\nsome").await;
    let answer = wire.response("POST").await.unwrap();
    assert_eq!((answer.status, answer.text().as_str(), answer.whole), (403, "no", true));
    // The rest of the body is not taken for a request.
    wire.send("GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n").await;
    assert_eq!(proxy.client().get("/next").await.status, 403);
    assert!(backend.requests().iter().all(|request| request.target != "/smuggled"));
}

#[tokio::test]
async fn an_upload_that_breaks_off_is_seen_by_the_backend_and_spoils_nobody_else() {
    let backend = Backend::start("a").await;
    let proxy = Proxy::over(&[&backend]).await;
    for head in ["Content-Length: 100", "Transfer-Encoding: chunked"] {
        let before = backend.count();
        let mut wire = proxy.wire().await;
        wire.send(format!("POST /cut HTTP/1.1\r\nHost: h\r\n{head}\r\n\r\n5\r\nhello\r\n")).await;
        backend.seen(before + 1).await;
        drop(wire);
        backend.deserted().await;
        assert!(!backend.requests()[before].whole, "{head}");
        assert_eq!(proxy.client().get("/next").await.text(), "a");
    }
    let lines = proxy.logged(4).await;
    let cut: Vec<_> = lines.iter().filter(|line| line["path"] == "/cut").map(|line| &line["end"]).collect();
    assert!(cut.iter().all(|end| *end == "client_abort" || *end == "bad_request"), "{cut:?}");
}

#[tokio::test]
async fn trailers_never_become_headers_and_spoil_no_framing() {
    let backend = Backend::start("a").await;
    backend.reply(Reply::raw(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 1\r\nContent-Length: 3\r\n\r\n",
    ));
    let proxy = Proxy::over(&[&backend]).await;
    let mut wire = proxy.wire().await;
    for te in ["", "TE: trailers\r\nConnection: te\r\n"] {
        wire.send(format!(
            "POST / HTTP/1.1\r\nHost: h\r\n{te}Trailer: X-Up\r\nTransfer-Encoding: chunked\r\n\r\n\
             2\r\nup\r\n0\r\nX-Up: 1\r\nContent-Length: 9\r\n\r\n"
        ))
        .await;
        let answer = wire.response("POST").await.unwrap();
        assert_eq!((answer.text().as_str(), answer.whole), ("hello", true));
        assert_eq!((answer.header("x-sum"), answer.header("content-length")), (None, None));
        assert_eq!(answer.trailers.get("content-length"), None);
        let seen = backend.requests().pop().unwrap();
        assert_eq!(
            (seen.text().as_str(), seen.header("x-up"), seen.header("content-length")),
            ("up", None, None)
        );
        assert_eq!(seen.trailers.get("content-length"), None);
    }
}

#[tokio::test]
async fn large_bodies_pass_unchanged_both_ways() {
    let backend = Backend::start("a").await;
    backend.answer(|request| Reply::text(request.body.clone()));
    let proxy = Proxy::start(Config::app(&[&backend], "")).await;
    let body: Vec<u8> = (0..3_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let answer = proxy.client().post("/", body.clone()).await;
    assert!(answer.body == body, "{} of {} bytes", answer.body.len(), body.len());
}
