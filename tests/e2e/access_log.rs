//! One line per exchange: its fields, the sticky verdict, and every way an exchange can end.

use crate::support::{Ask, Backend, Config, Line, Proxy, Reply};

const SHORT: &str = "\"200ms\"";

#[tokio::test]
async fn a_line_says_who_asked_for_what_and_who_answered() {
    let backend = Backend::start("a2").await;
    backend.reply(Reply::text("hello"));
    let config = Config::app(&[&backend], "")
        .server("trusted_proxies = [\"127.0.0.1\"]")
        .route("name = \"shop\"\npool = \"app\"");
    let proxy = Proxy::start(config).await;
    let mut client = proxy.client();
    for _ in 0..2 {
        let ask = Ask::post("/cart?item=1", "1234")
            .header("Host", "Shop.example:80")
            .header("X-Forwarded-For", "203.0.113.9");
        client.ask(ask).await;
    }
    let lines = proxy.logged(2).await;
    let names: Vec<_> = lines[0].as_object().unwrap().keys().map(String::as_str).collect();
    let mut expected = [
        "ts",
        "id",
        "client",
        "listener",
        "proto",
        "method",
        "host",
        "path",
        "query",
        "status",
        "route",
        "pool",
        "backend",
        "stick",
        "attempts",
        "reused",
        "dur_ms",
        "ttfb_ms",
        "proxy_ms",
        "req_bytes",
        "resp_bytes",
        "end",
    ];
    expected.sort_unstable();
    let mut sorted = names.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, expected);
    for (place, line) in lines.iter().enumerate() {
        for (name, value) in [
            ("client", "203.0.113.9"),
            ("listener", "web"),
            ("proto", "http/1.1"),
            ("method", "POST"),
            ("host", "Shop.example"),
            ("path", "/cart"),
            ("query", "item=1"),
            ("route", "shop"),
            ("pool", "app"),
            ("backend", "a2"),
            ("stick", "none"),
            ("end", "ok"),
        ] {
            assert_eq!(line[name], value, "{name}");
        }
        for (name, value) in [("status", 200), ("attempts", 1), ("req_bytes", 4), ("resp_bytes", 5)] {
            assert_eq!(line[name], value, "{name}");
        }
        assert_eq!(line["reused"], place == 1);
        assert!(line["ts"].as_str().unwrap().ends_with('Z'), "{line}");
        let millis = |name: &str| line[name].as_f64().unwrap();
        assert!(millis("dur_ms") >= millis("ttfb_ms") && millis("ttfb_ms") >= millis("proxy_ms"), "{line}");
    }
}

#[tokio::test]
async fn what_a_client_sends_cannot_break_a_line() {
    let backend = Backend::start("a").await;
    let proxy = Proxy::over(&[&backend]).await;
    assert_eq!(proxy.client().get("/\"x\"?a=\\{}").await.status, 200);
    let line = &proxy.logged(1).await[0];
    assert_eq!((&line["path"], &line["query"]), (&"/\"x\"".into(), &"a=\\{}".into()));
}

/// The last line of a request to a sticky pool that shows this cookie.
async fn verdict(proxy: &Proxy, cookie: Option<&str>, lines: usize) -> (Line, Option<String>) {
    let mut client = proxy.client();
    if let Some(cookie) = cookie {
        client.cookies.insert("pintle_app".into(), cookie.into());
    }
    let answer = client.get("/").await;
    let set = answer.header("set-cookie").map(|_| client.cookies["pintle_app"].clone());
    (proxy.logged(lines).await[lines - 1].clone(), set)
}

#[tokio::test]
async fn a_line_tells_what_the_token_was_worth() {
    let [a, b] = Backend::fleet(["a", "b"]).await;
    let config = Config::app(&[&a, &b], "policy = \"sticky_cookie\"");
    let proxy = Proxy::start(config).await;
    let (line, token) = verdict(&proxy, None, 1).await;
    assert_eq!(line["stick"], "new");
    let token = token.expect("a cookie is set");
    let home = line["backend"].as_str().unwrap().to_owned();

    let (line, set) = verdict(&proxy, Some(&token), 2).await;
    assert_eq!((&line["stick"], &line["backend"], set), (&"valid".into(), &home.clone().into(), None));

    let mut forged = token.clone().into_bytes();
    let middle = forged.len() / 2;
    forged[middle] = if forged[middle] == b'A' { b'B' } else { b'A' };
    let (line, set) = verdict(&proxy, Some(std::str::from_utf8(&forged).unwrap()), 3).await;
    assert_eq!(line["stick"], "forged");
    assert!(set.is_some(), "dealt anew");

    proxy.stop(&format!("app/{home}")).await.unwrap();
    let (line, set) = verdict(&proxy, Some(&token), 4).await;
    assert!(["moved_drain", "moved_down"].contains(&line["stick"].as_str().unwrap()), "{line}");
    assert_ne!(line["backend"], home.as_str());
    assert!(set.is_some(), "re-issued");
}

/// One pool over one backend; `lines` are the pool's.
async fn alone(reply: Reply, lines: &str) -> (Backend, Proxy) {
    let backend = Backend::start("a").await;
    backend.reply(reply);
    let proxy = Proxy::start(Config::app(&[&backend], lines)).await;
    (backend, proxy)
}

#[tokio::test]
async fn ok_and_bad_request_and_too_large() {
    let backend = Backend::start("a").await;
    let proxy = Proxy::start(Config::app(&[&backend], "").listener("max_body = \"1KiB\"")).await;
    let mut client = proxy.client();
    client.get("/").await;
    assert_eq!(proxy.ended("ok").await["status"], 200);
    assert_eq!(client.ask(Ask::new("TRACE", "/")).await.status, 405);
    let line = proxy.ended("bad_request").await;
    assert_eq!(
        (&line["status"], &line["method"], &line["attempts"]),
        (&405.into(), &"TRACE".into(), &0.into())
    );
    assert_eq!(proxy.client().post("/", vec![0; 2000]).await.status, 413);
    assert_eq!(proxy.ended("too_large").await["status"], 413);
}

#[tokio::test]
async fn client_abort_before_and_during_the_answer() {
    let (backend, proxy) = alone(Reply::text("x"), "").await;
    backend.hold();
    let mut client = proxy.client();
    client.send(&Ask::get("/before")).await;
    backend.parked(1).await;
    client.hang_up();
    let line = proxy.ended("client_abort").await;
    assert_eq!((&line["path"], &line["status"]), (&"/before".into(), &0.into()));
    backend.deserted().await;
    backend.release();

    backend.reply(Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello").then_stall());
    let mut wire = proxy.wire().await;
    wire.send("GET /during HTTP/1.1\r\nHost: h\r\n\r\n").await;
    assert_eq!(wire.response_head().await.unwrap().status, 200);
    wire.reset();
    let lines = proxy.logged(2).await;
    assert_eq!((&lines[1]["end"], &lines[1]["status"]), (&"client_abort".into(), &200.into()));
    backend.deserted().await;
}

#[tokio::test]
async fn connect_refused() {
    let backend = Backend::refusing("a");
    let config = Config::app(&[&backend], "").route("pool = \"app\"\nretry.on = []");
    let proxy = Proxy::start(config).await;
    let answer = proxy.client().get("/").await;
    assert_eq!(answer.status, 502);
    assert!(answer.text().contains("502 connect_refused"), "{}", answer.text());
    let line = proxy.ended("connect_refused").await;
    assert_eq!((&line["status"], &line["backend"], &line["attempts"]), (&502.into(), &"a".into(), &0.into()));
    assert!(line.get("ttfb_ms").is_none(), "{line}");
}

#[tokio::test]
async fn reset_before_response() {
    for reply in [Reply::reset(), Reply::close()] {
        let (backend, proxy) = alone(reply, "").await;
        let answer = proxy.client().post("/", "once").await;
        assert_eq!(answer.status, 502);
        let line = proxy.ended("reset_before_response").await;
        assert_eq!((&line["status"], &line["attempts"]), (&502.into(), &1.into()));
        assert_eq!(backend.count(), 1, "a POST is never sent twice");
    }
}

#[tokio::test]
async fn a_get_that_nobody_else_could_answer_ends_as_its_last_attempt_did() {
    let retry =
        "pool = \"app\"\nretry = { attempts = 3, on = [\"reset_before_response\", \"response_timeout\"] }";
    // Who breaks off may be about to restart, and is asked again; who is slow has been asked.
    for (reply, end, status, asked) in
        [(Reply::reset(), "reset_before_response", 502, 3), (Reply::stall(), "response_timeout", 504, 1)]
    {
        let backend = Backend::start("a").await;
        backend.reply(reply);
        let config = Config::app(&[&backend], &format!("timeouts.response = {SHORT}")).route(retry);
        let proxy = Proxy::start(config).await;
        assert_eq!(proxy.client().get("/").await.status, status, "{end}");
        let line = proxy.ended(end).await;
        assert!(line["dur_ms"].as_f64().unwrap() < 1500.0, "not held: {line}");
        assert_eq!(backend.count(), asked);
    }
}

#[tokio::test]
async fn reset_during_response() {
    let reply = Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello").then_close();
    let (_backend, proxy) = alone(reply, "").await;
    assert!(!proxy.client().get("/").await.whole);
    let line = proxy.ended("reset_during_response").await;
    assert_eq!((&line["status"], &line["resp_bytes"]), (&200.into(), &5.into()));
}

#[tokio::test]
async fn response_timeout_and_idle_timeout() {
    let (backend, proxy) =
        alone(Reply::stall(), &format!("timeouts.response = {SHORT}\ntimeouts.idle = {SHORT}")).await;
    proxy.client().get("/").await;
    assert_eq!(proxy.ended("response_timeout").await["status"], 504);
    backend.reply(Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello").then_stall());
    proxy.client().get("/").await;
    assert_eq!(proxy.ended("idle_timeout").await["status"], 200);
}

#[tokio::test]
async fn no_backend_and_hold_timeout() {
    let down = Backend::refusing("down");
    let config = Config::default()
        .pool("impatient", &[&down], "hold.max = 0")
        .pool("patient", &[&down], &format!("hold.timeout = {SHORT}"))
        .route("path = \"/now\"\npool = \"impatient\"")
        .route("path = \"/later\"\npool = \"patient\"");
    let proxy = Proxy::start(config).await;
    for (target, end) in [("/now", "no_backend"), ("/later", "hold_timeout")] {
        let answer = proxy.client().get(target).await;
        assert_eq!(answer.status, 503);
        assert!(answer.text().starts_with(&format!("503 {end}: ")), "{}", answer.text());
        let line = proxy.ended(end).await;
        assert_eq!(line["status"], 503);
        assert!(answer.text().contains(line["id"].as_str().unwrap()), "{line} {}", answer.text());
    }
}

#[tokio::test]
async fn upgraded_and_tunnel_closed() {
    let (_backend, proxy) = alone(Reply::upgrade("chat", "hi"), "").await;
    let mut wire = proxy.wire().await;
    wire.send("GET /chat HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: chat\r\n\r\n").await;
    assert_eq!(wire.response_head().await.unwrap().status, 101);
    let opened = proxy.ended("upgraded").await;
    assert_eq!((&opened["status"], &opened["path"]), (&101.into(), &"/chat".into()));
    assert_eq!(proxy.log().len(), 1, "it is open");
    wire.send("hello").await;
    assert_eq!(wire.bytes(7).await, b"hihello");
    wire.finish().await;
    let closed = proxy.ended("tunnel_closed").await;
    assert_eq!((&closed["id"], &closed["status"]), (&opened["id"], &101.into()));
    assert_eq!((&closed["req_bytes"], &closed["resp_bytes"]), (&5.into(), &7.into()));
}

#[tokio::test]
async fn an_unknown_place_and_an_answer_of_our_own_are_logged_as_ok() {
    let proxy = Proxy::start(Config::default().route("path = \"/gone\"\nrespond.status = 410")).await;
    let mut client = proxy.client();
    client.get("/gone").await;
    client.get("/nowhere").await;
    let lines = proxy.logged(2).await;
    for (line, status) in lines.iter().zip([410, 404]) {
        assert_eq!((&line["status"], &line["end"]), (&status.into(), &"ok".into()));
        assert!(line.get("pool").is_none() && line.get("backend").is_none(), "{line}");
    }
    assert!(lines[1].get("route").is_none());
}

#[tokio::test]
async fn a_log_that_is_turned_off_by_a_reload_writes_no_more() {
    let backend = Backend::start("a").await;
    let proxy = Proxy::over(&[&backend]).await;
    let mut client = proxy.client();
    client.get("/").await;
    proxy.logged(1).await;
    proxy.reload(Config::app(&[&backend], "").log("enabled = false")).await.unwrap();
    client.get("/").await;
    proxy.reload(Config::app(&[&backend], "")).await.unwrap();
    client.get("/last").await;
    assert_eq!(proxy.logged(2).await[1]["path"], "/last");
}
