//! Where a request goes: hosts, paths, methods, and what a route does by itself.

use std::collections::{BTreeMap, BTreeSet};

use crate::support::{Ask, Backend, Client, Config, Keys, Proxy, Reply, TlsClient};

/// A route that answers with its own name.
fn place(config: Config, name: &str, lines: &str) -> Config {
    config.route(&format!("{lines}\nrespond.body = {name:?}"))
}

#[tokio::test]
async fn a_request_goes_to_the_backend_and_its_answer_comes_back() {
    let backend = Backend::start("a").await;
    backend.answer(|request| Reply::text(format!("{} {}", request.method, request.text())));
    let proxy = Proxy::over(&[&backend]).await;
    let answer = proxy.client().post("/x?y=%20#", "body").await;
    assert_eq!((answer.status, answer.served_by(), answer.text()), (200, "a", "POST body".to_owned()));
    assert_eq!(backend.received(1).await.target, "/x?y=%20");
}

#[tokio::test]
async fn an_exact_host_beats_a_suffix_beats_any_and_port_case_and_final_dot_are_ignored() {
    let config = place(Config::default(), "any", "");
    let config = place(config, "suffix", r#"hosts = ["*.shop.example"]"#);
    let config = place(config, "deep", r#"hosts = ["*.a.shop.example"]"#);
    let config = place(config, "exact", r#"hosts = ["b.shop.example"]"#);
    let proxy = Proxy::start(config).await;
    let mut client = proxy.client();
    for (host, expected) in [
        ("b.shop.example", "exact"),
        ("B.Shop.EXAMPLE:8443", "exact"),
        ("b.shop.example.", "exact"),
        ("c.shop.example", "suffix"),
        ("x.b.shop.example", "suffix"),
        ("x.a.shop.example:1", "deep"),
        ("a.shop.example", "suffix"),
        ("shop.example", "any"),
        ("notshop.example", "any"),
        ("127.0.0.1", "any"),
        ("[::1]:80", "any"),
    ] {
        assert_eq!(client.get_at(host, "/").await.text(), expected, "{host}");
    }
}

#[tokio::test]
async fn a_prefix_ends_at_a_segment_border_and_an_exact_path_wins() {
    let config = place(Config::default(), "root", "");
    let config = place(config, "api", r#"path = "/api""#);
    let config = place(config, "users", r#"path = "/api/users/""#);
    let config = place(config, "login", r#"path = "=/api/login""#);
    let proxy = Proxy::start(config).await;
    let mut client = proxy.client();
    for (target, expected) in [
        ("/", "root"),
        ("/apis", "root"),
        ("/api", "api"),
        ("/api?x=1", "api"),
        ("/api/", "api"),
        ("/api/users", "users"),
        ("/api/usersx", "api"),
        ("/api/users/", "users"),
        ("/api/users/1", "users"),
        ("/api/login", "login"),
        ("/api/login?next=/", "login"),
        ("/api/login/", "api"),
        ("/API", "root"),
        ("//api", "root"),
        ("/x/../api", "root"),
        ("/%61pi", "root"),
    ] {
        assert_eq!(client.get(target).await.text(), expected, "{target}");
    }
}

#[tokio::test]
async fn a_route_takes_its_own_methods_and_leaves_the_others_to_a_less_specific_one() {
    let config = place(Config::default(), "root", "hosts = [\"h.example\"]");
    let config = place(config, "writes", "path = \"/m\"\nmethods = [\"POST\", \"PUT\"]");
    let config = place(config, "reads", "path = \"/m\"\nmethods = [\"GET\"]");
    let config = place(config, "deletes", "hosts = [\"h.example\"]\npath = \"/m\"\nmethods = [\"DELETE\"]");
    let proxy = Proxy::start(config).await;
    let mut client = proxy.client();
    for (method, expected) in [("GET", "reads"), ("POST", "writes"), ("PUT", "writes")] {
        assert_eq!(client.ask(Ask::new(method, "/m/1")).await.text(), expected, "{method}");
    }
    assert_eq!(client.ask(Ask::new("DELETE", "/m")).await.status, 404);
    for (method, expected) in [("DELETE", "deletes"), ("GET", "root"), ("POST", "root")] {
        let ask = Ask::new(method, "/m").header("Host", "h.example");
        assert_eq!(client.ask(ask).await.text(), expected, "{method}");
    }
}

#[tokio::test]
async fn an_unknown_place_is_a_404_that_names_host_and_path() {
    let backend = Backend::start("a").await;
    let config =
        Config::app(&[&backend], "").route("hosts = [\"known.example\"]\npath = \"/in\"\npool = \"app\"");
    let proxy = Proxy::start(config).await;
    let answer = proxy.client().get_at("other.example:81", "/out?q=1").await;
    assert_eq!(answer.status, 404);
    let text = answer.text();
    assert!(text.contains("404 no_route: no route for host `other.example` and path `/out`"), "{text}");
    assert!(text.contains(answer.header("x-request-id").unwrap()), "{text}");
    assert_eq!(backend.count(), 0);
}

#[tokio::test]
async fn a_route_answers_by_itself_with_status_body_and_headers() {
    let config = Config::default().route(
        "path = \"/old\"\nrespond = { status = 410, body = \"gone\", headers = { x-why = \"moved\" } }\n\
         response_headers.set = { x-edited = \"yes\" }",
    );
    let proxy = Proxy::start(config).await;
    let mut client = proxy.client();
    // A body that nobody wanted must not become the next request.
    let answer = client.post("/old", "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert_eq!((answer.status, answer.text()), (410, "gone".to_owned()));
    assert_eq!(answer.header("x-why"), Some("moved"));
    assert_eq!(answer.header("x-edited"), Some("yes"));
    assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"));
    let head = client.ask(Ask::new("HEAD", "/old")).await;
    assert_eq!((head.status, head.header("content-length"), head.body.len()), (410, Some("4"), 0));
    let lines = proxy.logged(2).await;
    assert_eq!(lines.len(), 2, "{lines:?}");
}

#[tokio::test]
async fn a_redirect_is_put_together_from_the_request() {
    let config = Config::default()
        .route("redirect = { to = \"https://{host}{path_and_query}\" }")
        .route("path = \"/found\"\nredirect = { to = \"/here{path}?{query}\", status = 302 }");
    let proxy = Proxy::start(config).await;
    let mut client = proxy.client();
    for (host, target, status, location) in [
        ("www.example:8080", "/a/b?c=d", 308, "https://www.example/a/b?c=d"),
        ("www.example", "/", 308, "https://www.example/"),
        ("www.example", "//evil.example/", 308, "https://www.example//evil.example/"),
        ("www.example", "/found/x?y", 302, "/here/found/x?y"),
    ] {
        let answer = client.get_at(host, target).await;
        assert_eq!((answer.status, answer.header("location")), (status, Some(location)), "{target}");
        assert_eq!(answer.header("content-length"), Some("0"));
    }
}

#[tokio::test]
async fn a_split_is_sticky_per_client_and_uses_every_share() {
    let [a, b] = Backend::fleet(["a", "b"]).await;
    let config = Config::default()
        .pool("one", &[&a], "")
        .pool("two", &[&b], "")
        .route("split = { one = 50, two = 50 }");
    let proxy = Proxy::start(config).await;
    let mut used = BTreeSet::new();
    for host in 1..=24 {
        let mut client = proxy.client_from(&format!("127.0.0.{host}"));
        let first = client.get("/").await.served_by().to_owned();
        for _ in 0..3 {
            client.hang_up();
            assert_eq!(client.get("/other").await.served_by(), first, "127.0.0.{host}");
        }
        used.insert(first);
    }
    assert_eq!(used.len(), 2, "{used:?}");
}

#[tokio::test]
async fn headers_are_edited_both_ways_and_the_route_has_the_last_word() {
    let backend = Backend::start("a").await;
    backend.reply(Reply::text("x").header("Server", "secret").header("X-Frame", "theirs"));
    let config = Config::app(&[&backend], "").route(
        r#"
        pool = "app"
        request_headers = { set = { x-tenant = "shop", x-forwarded-proto = "https" }, remove = ["x-internal"] }
        response_headers = { set = { x-frame = "ours" }, remove = ["server"] }"#,
    );
    let proxy = Proxy::start(config).await;
    let ask = Ask::get("/")
        .header("X-Tenant", "evil")
        .header("x_tenant", "evil")
        .header("X-Internal", "1")
        .header("x_internal", "1")
        .header("X-Other", "kept");
    let answer = proxy.client().ask(ask).await;
    assert_eq!((answer.header("x-frame"), answer.header("server")), (Some("ours"), None));
    let seen = backend.received(1).await;
    assert_eq!(seen.header("x-tenant"), Some("shop"));
    assert_eq!(seen.header("x-forwarded-proto"), Some("https"));
    assert_eq!(seen.header("x-other"), Some("kept"));
    for gone in ["x-internal", "x_internal", "x_tenant"] {
        assert_eq!(seen.header(gone), None, "{gone}");
    }
}

/// The handshake of a WebSocket; who took it.
async fn shake_hands(client: &mut Client) -> String {
    let ask = Ask::get("/ws")
        .header("Connection", "Upgrade")
        .header("Upgrade", "websocket")
        .header("Sec-WebSocket-Version", "13")
        .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==");
    let answer = client.ask(ask).await;
    assert_eq!(answer.status, 101);
    assert_eq!(answer.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    client.hang_up();
    answer.served_by().to_owned()
}

#[tokio::test]
async fn on_one_listener_http_takes_turns_while_websockets_are_sticky() {
    let [a, b] = Backend::fleet(["a", "b"]).await;
    for backend in [&a, &b] {
        backend.answer(|request| match request.target.as_str() {
            "/ws" => Reply::websocket(),
            _ => Reply::text("plain"),
        });
    }
    let config = Config::default()
        .pool("app", &[&a, &b], "")
        .pool("chat", &[&a, &b], "policy = \"sticky_cookie\"")
        .route("pool = \"app\"")
        .route("path = \"/ws\"\npool = \"chat\"");
    let proxy = Proxy::start(config).await;
    let mut client = proxy.client();
    let home = shake_hands(&mut client).await;
    assert!(client.cookies.contains_key("pintle_chat"), "{:?}", client.cookies);
    let mut turns = Vec::new();
    for _ in 0..4 {
        assert_eq!(shake_hands(&mut client).await, home);
        turns.push(client.get("/").await.served_by().to_owned());
    }
    assert_eq!((&turns[0], &turns[1]), (&turns[2], &turns[3]));
    assert_ne!(turns[0], turns[1], "HTTP takes turns");
    assert_eq!(a.received(1).await.header("cookie"), None, "the cookie is no backend's business");
}

/// Everything that comes in the clear goes to TLS, and nothing else.
fn to_tls(backend: &Backend) -> Config {
    Config::app(&[backend], "")
        .route("pool = \"app\"")
        .route("hosts = [\"shop.example\"]\npath = \"=/cart\"\nmethods = [\"GET\"]\npool = \"app\"")
        .route("scheme = \"http\"\npath = \"/.well-known\"\nrespond.body = \"challenge\"")
        .route("scheme = \"http\"\nredirect = { to = \"https://{host}{path_and_query}\", status = 308 }")
}

#[tokio::test]
async fn a_route_for_the_clear_takes_whatever_comes_so_before_all_others() {
    let (keys, a) = (Keys::for_names(&["shop.example"]), Backend::start("a").await);
    let tls = format!("[listener.secure]\nbind = \"127.0.0.1:0\"\n{}", keys.tls(&["site"]));
    let proxy = Proxy::start(to_tls(&a).text(&tls)).await;
    let mut clear = proxy.client();
    for (host, target, location) in [
        ("shop.example", "/cart?x=1", "https://shop.example/cart?x=1"),
        ("shop.example:8080", "/", "https://shop.example/"),
        ("[::1]:8080", "/a", "https://[::1]/a"),
        ("other.example", "//evil.example", "https://other.example//evil.example"),
    ] {
        // From an untrusted peer the word is nothing.
        let ask = Ask::get(target).header("Host", host).header("X-Forwarded-Proto", "https");
        let answer = clear.ask(ask).await;
        assert_eq!((answer.status, answer.header("location")), (308, Some(location)), "{target}");
    }
    assert_eq!(clear.get("/.well-known/x").await.text(), "challenge");
    assert_eq!(a.count(), 0);

    let listeners = proxy.pintle().listeners();
    let (_, secure) = listeners.into_iter().find(|(name, _)| name == "secure").unwrap();
    let mut wire = TlsClient::new(secure).open("shop.example").await;
    for target in ["/cart", "/.well-known/x", "/"] {
        let ask = Ask::get(target).header("X-Forwarded-Proto", "http");
        wire.send(ask.bytes(&BTreeMap::new())).await;
        assert_eq!(wire.response("GET").await.unwrap().text(), "a", "{target}");
    }
}

#[tokio::test]
async fn behind_a_trusted_proxy_its_word_is_the_clients_scheme() {
    let a = Backend::start("a").await;
    for (from, name, clear, secure) in [
        (
            "x-forwarded-for",
            "X-Forwarded-Proto",
            ["http", "http, https", "ws"],
            ["https", "HTTPS, http", "wss"],
        ),
        (
            "forwarded",
            "Forwarded",
            [
                "for=203.0.113.9;proto=http",
                "for=203.0.113.9;proto=http, for=127.0.0.2;proto=https",
                "proto=http",
            ],
            [
                "for=203.0.113.9;proto=https",
                "for=203.0.113.9;PROTO=\"https\", for=127.0.0.2;proto=http",
                // What the client itself wrote stands before what the proxy wrote of it.
                "for=6.6.6.6;proto=http, for=203.0.113.9;proto=https",
            ],
        ),
    ] {
        let server = format!("trusted_proxies = [\"127.0.0.0/8\"]\nclient_ip_from = {from:?}");
        let proxy = Proxy::start(to_tls(&a).server(&server)).await;
        let mut client = proxy.client();
        for said in clear {
            assert_eq!(client.ask(Ask::get("/").header(name, said)).await.status, 308, "{said}");
        }
        for said in secure {
            assert_eq!(client.ask(Ask::get("/").header(name, said)).await.status, 200, "{said}");
        }
        // Nothing said, or nothing that is a scheme: by what the proxy itself came.
        assert_eq!(client.get("/").await.status, 308);
        assert_eq!(client.ask(Ask::get("/").header(name, "gopher")).await.status, 308);
    }
}

#[tokio::test]
async fn a_redirect_to_a_host_that_was_not_named_is_a_400() {
    let proxy = Proxy::start(Config::default().route("redirect.to = \"https://{host}{path}\"")).await;
    let answer = String::from_utf8(proxy.raw("GET /x HTTP/1.0\r\n\r\n").await).unwrap();
    assert!(answer.starts_with("HTTP/1.0 400 ") || answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert!(answer.contains("the Host header is missing"), "{answer}");
}
