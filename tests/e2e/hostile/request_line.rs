//! Methods, targets and versions.

use super::{SMUGGLED, are_passed, are_refused, rows};
use crate::support::{Ask, Backend, Config, Proxy};

#[tokio::test]
async fn what_is_no_request_line_is_refused() {
    are_refused(&rows(
        400,
        &[
            "GET /\r\n",
            "GET\r\nHost: h\r\n\r\n",
            "GET HTTP/1.1\r\nHost: h\r\n\r\n",
            "/ HTTP/1.1\r\nHost: h\r\n\r\n",
            "GET\t/\tHTTP/1.1\r\nHost: h\r\n\r\n",
            "GET /\tHTTP/1.1\r\nHost: h\r\n\r\n",
            "GET /  HTTP/1.1\r\nHost: h\r\n\r\n",
            "GET / HTTP/1.1 \r\nHost: h\r\n\r\n",
            "GET / HTTP/1.1\rHost: h\r\n\r\n",
            "GET /\rX: y HTTP/1.1\r\nHost: h\r\n\r\n",
            "GET /a b HTTP/1.1\r\nHost: h\r\n\r\n",
            "GET /\u{7f} HTTP/1.1\r\nHost: h\r\n\r\n",
            "GET /<x> HTTP/1.1\r\nHost: h\r\n\r\n",
            "GET /a`b HTTP/1.1\r\nHost: h\r\n\r\n",
            "GET / HTTP/1.10\r\nHost: h\r\n\r\n",
            "GET / HTTP/11\r\nHost: h\r\n\r\n",
            "GET / HTTP /1.1\r\nHost: h\r\n\r\n",
            "GET / XTTP/1.1\r\nHost: h\r\n\r\n",
            "GET / HTTP/9.9\r\nHost: h\r\n\r\n",
            "GET: / HTTP/1.1\r\nHost: h\r\n\r\n",
            "G(T / HTTP/1.1\r\nHost: h\r\n\r\n",
            "\0GET / HTTP/1.1\r\nHost: h\r\n\r\n",
        ],
    ))
    .await;
}

#[tokio::test]
async fn every_control_character_in_a_target_is_refused() {
    let target = |byte: u8| [b"GET /a", &[byte][..], b"b HTTP/1.1\r\nHost: h\r\n\r\n"].concat();
    are_refused(
        &(0..0x20)
            .chain([0x7f])
            .map(|byte| (400, target(byte)))
            .filter(|row| row.1[6] != b'\n')
            .collect::<Vec<_>>(),
    )
    .await;
}

#[tokio::test]
async fn a_method_in_another_case_is_refused_and_so_is_an_endless_one() {
    let mut table = rows(
        400,
        &[
            "get / HTTP/1.1\r\nHost: h\r\n\r\n",
            "head / HTTP/1.1\r\nHost: h\r\n\r\n",
            "Post / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n",
            "connect h:443 HTTP/1.1\r\nHost: h\r\n\r\n",
            "trace / HTTP/1.1\r\nHost: h\r\n\r\n",
        ],
    );
    let long = format!("{} / HTTP/1.1\r\nHost: h\r\n\r\n", "A".repeat(65));
    let longer = format!("{} / HTTP/1.1\r\nHost: h\r\n\r\n", "A".repeat(40_000));
    table.extend([(501, long.into_bytes()), (431, longer.into_bytes())]);
    are_refused(&table).await;
}

#[tokio::test]
async fn connect_and_trace_are_not_served_whatever_they_bring() {
    are_refused(&rows(
        405,
        &[
            "CONNECT h:443 HTTP/1.1\r\nHost: h:443\r\n\r\n",
            "CONNECT / HTTP/1.1\r\nHost: h\r\n\r\n",
            "CONNECT http://h/ HTTP/1.1\r\nHost: h\r\n\r\n",
            "CONNECT h:443 HTTP/1.1\r\nHost: h:443\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
            "TRACE / HTTP/1.1\r\nHost: h\r\nMax-Forwards: 0\r\n\r\n",
            "TRACE / HTTP/1.1\r\nHost: h\r\nMax-Forwards: 5\r\nCookie: secret\r\n\r\n",
        ],
    ))
    .await;
}

#[tokio::test]
async fn a_preface_of_http_2_reaches_no_backend() {
    let backend = Backend::start("a").await;
    let proxy = Proxy::over(&[&backend]).await;
    let mut wire = proxy.wire().await;
    wire.send(format!("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n{SMUGGLED}")).await;
    wire.finish().await;
    let answer = wire.rest().await;
    assert!(!answer.starts_with(b"HTTP/1.1 2"), "{}", String::from_utf8_lossy(&answer));
    assert_eq!(proxy.client().get("/next").await.status, 200);
    assert_eq!(backend.count(), 1);
}

/// 414 while the target is what is too long, 431 where the head is.
#[tokio::test]
async fn a_target_without_end_is_refused_by_its_length() {
    let get = |length: usize| format!("GET /{} HTTP/1.1\r\nHost: h\r\n\r\n", "a".repeat(length)).into_bytes();
    are_refused(&[
        (414, get(16 * 1024)),
        (414, get(31 * 1024)),
        (431, get(33 * 1024)),
        (431, get(300 * 1024)),
    ])
    .await;
}

/// Routes match, and backends get, the bytes that came: nothing is decoded, merged or resolved.
#[tokio::test]
async fn a_target_is_sent_on_as_it_came() {
    let targets = [
        "/a/../b",
        "/%2e%2e/x",
        "/a%2Fb",
        "/A%2fb",
        "//a//b",
        "/./a",
        "/a;p=1/b",
        "/?q=%0d%0aX:y",
        "/%00",
        "/%zz",
        "/a\\b",
        "/a|b^c",
        "/a?b?c",
        "/a&b=http://c/",
        "/~%7E",
        "/caf\u{e9}",
    ];
    for target in targets {
        let bytes = format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n");
        are_passed(&[(bytes.as_bytes(), &format!("GET {target} HTTP/1.1|host: h"), "")]).await;
    }
    // A fragment is the client's own business (RFC 9110 section 7.1).
    are_passed(&[(b"GET /a?b#/admin HTTP/1.1\r\nHost: h\r\n\r\n", "GET /a?b HTTP/1.1|host: h", "")]).await;
}

#[tokio::test]
async fn the_path_that_was_matched_is_the_path_that_is_sent() {
    let backend = Backend::start("a").await;
    let config = Config::app(&[&backend], "")
        .route("path = \"/admin\"\nrespond.status = 403")
        .route("path = \"/\"\npool = \"app\"");
    let proxy = Proxy::start(config).await;
    let mut client = proxy.client();
    for target in ["/admin/", "/admin/x", "/admin/../x", "/admin/x#y", "http://h/admin/x", "/admin/?/x"] {
        assert_eq!(client.ask(Ask::get(target)).await.status, 403, "{target}");
    }
    assert_eq!(backend.count(), 0);
    for target in [
        "/x/../admin/",
        "/%61dmin/x",
        "/ADMIN/x",
        "//admin/x",
        "/./admin/x",
        "/admin%2Fx",
        "/x#/admin/",
        "/;/admin/x",
    ] {
        assert_eq!(client.ask(Ask::get(target)).await.status, 200, "{target}");
        let sent = backend.requests().pop().unwrap().target;
        assert!(!sent.starts_with("/admin/"), "{target} became {sent}");
        assert_eq!(client.ask(Ask::get(&sent)).await.status, 200, "{target} became {sent}");
    }
}

#[tokio::test]
async fn a_bad_request_in_a_pipeline_is_the_last_that_is_read() {
    let backend = Backend::start("a").await;
    let proxy = Proxy::over(&[&backend]).await;
    for bad in [
        "GET /bad HTTP/1.1\r\nHost : h\r\n\r\n",
        "GET /bad HTTP/1.1\r\n\r\n",
        "get /bad HTTP/1.1\r\nHost: h\r\n\r\n",
        "POST /bad HTTP/1.1\r\nHost: h\r\nContent-Length: x\r\n\r\n",
        "GET /bad HTTP/1.1\r\nHost: h\r\nConnection: cookie\r\n\r\n",
        "\u{16}\u{3}\u{1}",
    ] {
        let before = backend.count();
        let mut wire = proxy.wire().await;
        wire.send(format!("GET /good HTTP/1.1\r\nHost: h\r\n\r\n{bad}{SMUGGLED}")).await;
        assert_eq!(wire.response("GET").await.unwrap().status, 200, "{bad:?}");
        assert_eq!(wire.response("GET").await.unwrap().status, 400, "{bad:?}");
        assert!(wire.rest().await.is_empty(), "{bad:?}");
        assert_eq!(backend.count(), before + 1, "{bad:?}");
    }
    assert!(backend.requests().iter().all(|request| request.target == "/good"));
}
