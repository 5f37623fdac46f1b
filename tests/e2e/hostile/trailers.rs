//! What follows a body: passed both ways where it is announced, and never taken for a head.

use crate::support::{Backend, Proxy, Reply, Request, Response};

const FORBIDDEN: [&str; 17] = [
    "Content-Length",
    "Transfer-Encoding",
    "Trailer",
    "TE",
    "Connection",
    "Upgrade",
    "Host",
    "Authorization",
    "Proxy-Authorization",
    "Cookie",
    "Set-Cookie",
    "Content-Type",
    "X-Forwarded-For",
    "X_Forwarded_For",
    "X-Real-IP",
    "X-Request-Id",
    "Forwarded",
];

/// One exchange whose bodies carry these trailers; what each side got of the other's.
async fn exchange(lines: &str, upload: &str, answer: &str) -> (Request, Response) {
    let backend = Backend::start("a").await;
    backend.reply(Reply::raw(format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n{answer}")));
    let proxy = Proxy::over(&[&backend]).await;
    let mut wire = proxy.wire().await;
    wire.send(format!("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n{lines}{upload}")).await;
    let answer = wire.response("POST").await.unwrap();
    assert!(answer.whole);
    let seen = backend.received(1).await;
    wire.send("GET /next HTTP/1.1\r\nHost: h\r\n\r\n").await;
    assert_eq!(wire.response("GET").await.unwrap().status, 200);
    assert_eq!(backend.received(2).await.target, "/next");
    (seen, answer)
}

#[tokio::test]
async fn announced_trailers_pass_both_ways() {
    let (seen, answer) = exchange(
        "TE: trailers\r\nConnection: te\r\nTrailer: X-Up, X-More\r\n",
        "\r\n2\r\nup\r\n0\r\nX-Up: 1\r\nX-Up: 2\r\nX-More: 3\r\n\r\n",
        "Trailer: X-Down\r\n\r\n4\r\ndown\r\n0\r\nX-Down: 4\r\n\r\n",
    )
    .await;
    assert_eq!((seen.text().as_str(), answer.text().as_str()), ("up", "down"));
    assert_eq!((seen.header("trailer"), seen.header("te")), (Some("x-up, x-more"), Some("trailers")));
    assert_eq!((seen.trailers.all("x-up"), seen.trailers.get("x-more")), (vec!["1", "2"], Some("3")));
    assert_eq!((answer.header("trailer"), answer.trailers.get("x-down")), (Some("x-down"), Some("4")));
}

#[tokio::test]
async fn trailers_that_nobody_announced_or_asked_for_are_dropped() {
    let upload = "\r\n2\r\nup\r\n0\r\nX-Up: 1\r\n\r\n";
    let answer = "Trailer: X-Down\r\n\r\n4\r\ndown\r\n0\r\nX-Down: 4\r\nX-Other: 5\r\n\r\n";
    // The client did not say that it takes any.
    let (seen, got) = exchange("", upload, answer).await;
    assert_eq!((seen.trailers.0.len(), got.trailers.0.len()), (0, 0));
    let (_, got) = exchange("TE: trailers\r\nConnection: te\r\n", upload, answer).await;
    assert_eq!((got.trailers.get("x-down"), got.trailers.get("x-other")), (Some("4"), None));
}

#[tokio::test]
async fn what_belongs_into_a_head_does_not_pass_even_if_announced() {
    let names = FORBIDDEN.join(", ");
    let lines: String = FORBIDDEN.iter().map(|name| format!("{name}: 6.6.6.6\r\n")).collect();
    let (seen, answer) = exchange(
        &format!("TE: trailers\r\nConnection: te\r\nTrailer: {names}, X-Up\r\n"),
        &format!("\r\n2\r\nup\r\n0\r\n{lines}X-Up: 1\r\n\r\n"),
        &format!("Trailer: {names}, X-Down\r\n\r\n4\r\ndown\r\n0\r\n{lines}X-Down: 1\r\n\r\n"),
    )
    .await;
    assert_eq!((seen.header("trailer"), answer.header("trailer")), (Some("x-up"), Some("x-down")));
    assert_eq!(seen.trailers.0, [("x-up".to_owned(), "1".to_owned())]);
    assert_eq!(answer.trailers.0, [("x-down".to_owned(), "1".to_owned())]);
    assert_eq!(seen.header("x-forwarded-for"), Some("127.0.0.1"));
    assert!(!String::from_utf8_lossy(&seen.head).contains("6.6.6.6"));
}

#[tokio::test]
async fn trailers_that_are_none_or_too_many_are_refused() {
    let backend = Backend::start("a").await;
    let proxy = Proxy::over(&[&backend]).await;
    let many: String = (0..200).map(|n| format!("X-{n}: 1\r\n")).collect();
    let large = format!("X: {}\r\n", "x".repeat(40 * 1024));
    for trailers in [
        "nocolon\r\n",
        "X : y\r\n",
        ": y\r\n",
        " X: y\r\n",
        "X: y\r\n z\r\n",
        "X: a\0b\r\n",
        "X(: a\r\n",
        "GET /smuggled HTTP/1.1\r\n",
        &many,
        &large,
    ] {
        let upload = format!(
            "POST /bad HTTP/1.1\r\nHost: h\r\nTrailer: X\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nup\r\n0\r\n{trailers}\r\n"
        );
        let (mut wire, answer) = super::first_answer(&proxy, upload.as_bytes()).await;
        let shown = super::shown(trailers.as_bytes());
        assert_eq!(answer.map(|answer| answer.status), Some(400), "{shown:?}");
        assert!(wire.rest().await.is_empty(), "{shown:?}");
    }
    backend.deserted().await;
    assert!(backend.requests().iter().all(|request| request.target == "/bad" && !request.whole));
}

#[tokio::test]
async fn broken_trailers_of_a_backend_are_an_answer_cut_short() {
    let many: String = (0..200).map(|n| format!("X-{n}: 1\r\n")).collect();
    let large = format!("X: {}\r\n", "x".repeat(40 * 1024));
    for trailers in ["nocolon\r\n", "X : y\r\n", "X: y\r\n z\r\n", &many, &large] {
        let backend = Backend::start("a").await;
        backend.reply(Reply::raw(format!(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ndown\r\n0\r\n{trailers}\r\n"
        )));
        let proxy = Proxy::over(&[&backend]).await;
        let answer = proxy.client().get("/").await;
        assert_eq!((answer.status, answer.whole), (200, false), "{:?}", super::shown(trailers.as_bytes()));
    }
}

#[tokio::test]
async fn an_http_1_0_client_gets_no_trailers() {
    let backend = Backend::start("a").await;
    backend.reply(Reply::raw(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Down\r\n\r\n4\r\ndown\r\n0\r\nX-Down: 4\r\n\r\n",
    ));
    let proxy = Proxy::over(&[&backend]).await;
    let answer = proxy.raw("GET / HTTP/1.0\r\nHost: h\r\nTE: trailers\r\nConnection: te\r\n\r\n").await;
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.ends_with("\r\n\r\ndown"), "{answer}");
}
