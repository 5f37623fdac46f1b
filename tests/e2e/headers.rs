//! What of a head crosses the proxy, what stays, and what is said about the client.

use crate::support::{Ask, Backend, Config, Proxy, Reply, Request, Response};

/// What the backend received of one request to a proxy that trusts 127.0.0.9 (and nobody else).
async fn pass(source: &str, server: &str, pool: &str, ask: Ask) -> (Request, Response) {
    let backend = Backend::start("a").await;
    let config =
        Config::app(&[&backend], pool).server(&format!("trusted_proxies = [\"127.0.0.9\"]\n{server}"));
    let proxy = Proxy::start(config).await;
    let answer = proxy.client_from(source).ask(ask).await;
    (backend.received(1).await, answer)
}

const STRANGER: &str = "127.0.0.5";
const TRUSTED: &str = "127.0.0.9";

/// Everything that says who the client is, all of it a lie.
fn spoofed() -> Ask {
    Ask::get("/")
        .header("X-Forwarded-For", "6.6.6.6")
        .header("X-Forwarded-For", "7.7.7.7")
        .header("X-Forwarded-Proto", "https")
        .header("X-Forwarded-Host", "evil.example")
        .header("X-Forwarded-Port", "443")
        .header("X-Forwarded-Prefix", "/admin")
        .header("X_Forwarded_For", "6.6.6.6")
        .header("X-Forwarded_For", "6.6.6.6")
        .header("Forwarded", "for=6.6.6.6;proto=https")
        .header("X-Real-IP", "6.6.6.6")
        .header("X-Request-Id", "forged")
        .header("X_Request_Id", "forged")
}

#[tokio::test]
async fn what_an_untrusted_peer_says_of_the_client_is_replaced() {
    let (seen, _) = pass(STRANGER, "", "", spoofed()).await;
    assert_eq!(seen.header("x-forwarded-for"), Some(STRANGER));
    assert_eq!(seen.header("x-forwarded-proto"), Some("http"));
    assert_eq!(seen.header("x-forwarded-host"), Some("shop.example"));
    let head = String::from_utf8_lossy(&seen.head).to_lowercase();
    for lie in ["6.6.6.6", "7.7.7.7", "https", "evil.example", "443", "/admin", "forged", "x_", "forwarded_"]
    {
        assert!(!head.contains(lie), "{lie} in {head}");
    }
}

#[tokio::test]
async fn with_forwarded_believed_an_untrusted_peers_is_replaced_too() {
    let (seen, _) = pass(STRANGER, "client_ip_from = \"forwarded\"", "", spoofed()).await;
    assert_eq!(seen.header("forwarded"), Some("for=127.0.0.5;host=\"shop.example\";proto=http"));
    assert_eq!(seen.header("x-forwarded-for"), None);
    let head = String::from_utf8_lossy(&seen.head);
    assert!(!head.contains("6.6.6.6") && !head.contains("evil"), "{head}");
}

#[tokio::test]
async fn a_trusted_chain_is_extended_and_kept() {
    let ask = Ask::get("/")
        .header("X-Forwarded-For", "6.6.6.6, 203.0.113.9")
        .header("X-Forwarded-For", "127.0.0.9")
        .header("X-Forwarded-Proto", "https")
        .header("X-Forwarded-Host", "public.example")
        .header("X-Request-Id", "given-1")
        .header("Forwarded", "for=6.6.6.6");
    let backend = Backend::start("a").await;
    let proxy = Proxy::start(Config::app(&[&backend], "").server("trusted_proxies = [\"127.0.0.9\"]")).await;
    proxy.client_from(TRUSTED).ask(ask).await;
    let seen = backend.received(1).await;
    assert_eq!(seen.header("x-forwarded-for"), Some("6.6.6.6, 203.0.113.9, 127.0.0.9, 127.0.0.9"));
    assert_eq!(seen.header("x-forwarded-proto"), Some("https"));
    assert_eq!(seen.header("x-forwarded-host"), Some("public.example"));
    assert_eq!(seen.header("x-request-id"), Some("given-1"));
    assert_eq!(seen.header("forwarded"), None, "one source is believed, never both");
    let line = &proxy.logged(1).await[0];
    assert_eq!(line["client"], "203.0.113.9", "the first from the right that is not trusted");
    assert_eq!(line["id"], "given-1", "what the backend saw finds the line");
}

#[tokio::test]
async fn a_trusted_forwarded_chain_is_extended() {
    let ask = Ask::get("/")
        .header("Forwarded", "for=\"[2001:db8::1]:99\";proto=https")
        .header("X-Forwarded-For", "6.6.6.6");
    let (seen, _) = pass(TRUSTED, "client_ip_from = \"forwarded\"", "", ask).await;
    assert_eq!(
        seen.header("forwarded"),
        Some("for=\"[2001:db8::1]:99\";proto=https, for=127.0.0.9;host=\"shop.example\";proto=http")
    );
    assert_eq!(seen.header("x-forwarded-for"), None);
}

#[tokio::test]
async fn a_request_without_an_id_gets_one_that_the_log_shows() {
    let backend = Backend::start("a").await;
    let proxy = Proxy::over(&[&backend]).await;
    let mut client = proxy.client();
    client.get("/").await;
    client.get("/").await;
    let seen = backend.requests();
    let ids: Vec<_> = seen.iter().map(|request| request.header("x-request-id").unwrap()).collect();
    assert_ne!(ids[0], ids[1]);
    let lines = proxy.logged(2).await;
    assert_eq!([&lines[0]["id"], &lines[1]["id"]], [ids[0], ids[1]]);
}

#[tokio::test]
async fn a_traceparent_is_passed_on_and_logged() {
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let parent = format!("00-{trace}-00f067aa0ba902b7-01");
    let backend = Backend::start("a").await;
    let proxy = Proxy::over(&[&backend]).await;
    proxy.client().ask(Ask::get("/").header("Traceparent", &parent).header("Tracestate", "a=b")).await;
    let seen = backend.received(1).await;
    assert_eq!((seen.header("traceparent"), seen.header("tracestate")), (Some(&*parent), Some("a=b")));
    assert_eq!(proxy.logged(1).await[0]["trace"], trace);
}

#[tokio::test]
async fn hop_by_hop_headers_stay_on_their_hop_both_ways() {
    let backend = Backend::start("a").await;
    backend.reply(
        Reply::text("x")
            .header("Connection", "X-Backend-Hop, keep-alive")
            .header("X-Backend-Hop", "1")
            .header("Keep-Alive", "timeout=5")
            .header("Proxy-Authenticate", "Basic")
            .header("Proxy-Connection", "keep-alive")
            .header("Upgrade", "h2c")
            .header("TE", "gzip")
            .header("X-End", "1"),
    );
    let proxy = Proxy::over(&[&backend]).await;
    let ask = Ask::get("/")
        .header("Connection", "keep-alive, X-Client-Hop")
        .header("Connection", "Keep-Alive")
        .header("X-Client-Hop", "1")
        .header("Keep-Alive", "timeout=5")
        .header("Proxy-Authorization", "Basic x")
        .header("Proxy-Connection", "keep-alive")
        .header("Proxy", "http://evil.example")
        .header("Upgrade", "h2c")
        .header("HTTP2-Settings", "AAMAAABkAARAAAAAAAIAAAAA")
        .header("TE", "gzip")
        .header("X-End", "1");
    let answer = proxy.client().ask(ask).await;
    let seen = backend.received(1).await;
    let hop = [
        "connection",
        "keep-alive",
        "proxy-authorization",
        "proxy-authenticate",
        "proxy-connection",
        "proxy",
        "upgrade",
        "http2-settings",
        "te",
        "x-client-hop",
        "x-backend-hop",
    ];
    for name in hop {
        assert_eq!(seen.fields.all(name), [""; 0], "{name} reached the backend");
        assert_eq!(answer.fields.all(name), [""; 0], "{name} reached the client");
    }
    assert_eq!((seen.header("x-end"), answer.header("x-end")), (Some("1"), Some("1")));
}

#[tokio::test]
async fn connection_cannot_take_away_what_the_proxy_says_or_the_backend_needs() {
    let backend = Backend::start("a").await;
    let proxy = Proxy::over(&[&backend]).await;
    for named in
        ["x-forwarded-for, cookie", "X-Forwarded-Proto", "close, host", "x-request-id", "Authorization"]
    {
        let answer = proxy.client().ask(Ask::get("/").header("Connection", named)).await;
        assert_eq!(answer.status, 400, "{named}");
    }
    assert_eq!(backend.count(), 0);
}

#[tokio::test]
async fn via_is_sent_only_where_it_is_asked_for() {
    let with = Ask::get("/").header("Via", "1.0 other");
    let (seen, _) = pass(STRANGER, "", "via = true", with.clone()).await;
    assert_eq!(seen.fields.all("via").join(", "), "1.0 other, 1.1 pintle");
    let (seen, _) = pass(STRANGER, "", "", with).await;
    assert_eq!(seen.fields.all("via"), ["1.0 other"]);
}

#[tokio::test]
async fn the_host_that_backends_see_is_the_clients_their_own_or_a_given_one() {
    for (setting, expected) in [
        ("", Some("Shop.Example:81")),
        ("host = \"backend\"", None),
        ("host = \"app.internal\"", Some("app.internal")),
    ] {
        let backend = Backend::start("a").await;
        let proxy = Proxy::start(Config::app(&[&backend], setting)).await;
        proxy.client().get_at("Shop.Example:81", "/").await;
        let seen = backend.received(1).await;
        let address = backend.address.to_string();
        assert_eq!(seen.header("host"), Some(expected.unwrap_or(&address)), "{setting}");
        assert_eq!(seen.header("x-forwarded-host"), Some("Shop.Example:81"));
    }
}

#[tokio::test]
async fn cookies_and_repeated_lines_pass_as_they_came() {
    let backend = Backend::start("a").await;
    backend.reply(
        Reply::text("x")
            .header("Set-Cookie", "a=1; Path=/")
            .header("Set-Cookie", "b=2")
            .header("X-Bin", "\u{e9}"),
    );
    let proxy = Proxy::over(&[&backend]).await;
    let ask = Ask::get("/")
        .header("Cookie", "a=1; b=2")
        .header("Accept", "text/html")
        .header("Accept", "*/*")
        .header("X-Empty", "")
        .header("X-Utf8", "zwölf");
    let answer = proxy.client().ask(ask).await;
    let seen = backend.received(1).await;
    assert_eq!(seen.header("cookie"), Some("a=1; b=2"));
    assert_eq!(seen.fields.all("accept"), ["text/html", "*/*"]);
    assert_eq!((seen.header("x-empty"), seen.header("x-utf8")), (Some(""), Some("zwölf")));
    assert_eq!(answer.fields.all("set-cookie"), ["a=1; Path=/", "b=2"]);
    assert_eq!(answer.header("x-bin"), Some("é"));
}

#[tokio::test]
async fn nothing_is_added_to_an_answer_that_nobody_asked_for() {
    let backend = Backend::start("a").await;
    backend.reply(Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-A: 1\r\n\r\nok"));
    let proxy = Proxy::over(&[&backend]).await;
    let answer = proxy.client().get("/").await;
    let mut names: Vec<_> = answer.fields.0.iter().map(|(name, _)| name.to_lowercase()).collect();
    names.sort();
    assert_eq!(names, ["content-length", "date", "x-a"]);
}
