//! What is sent again, what never is, and what a client sees when nothing helps.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::support::{Ask, Backend, Config, Proxy, Reply, Response, Step, eventually};

/// Sends the request until it comes to `backend`, and gives that answer.
async fn ask_at(proxy: &Proxy, backend: &Backend, ask: &Ask) -> Response {
    let seen = backend.count();
    for _ in 0..10 {
        let answer = proxy.client().ask(ask.clone()).await;
        if backend.count() > seen {
            return answer;
        }
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    panic!("nothing came to {}", backend.name);
}

#[tokio::test]
async fn a_get_over_a_connection_that_the_backend_has_closed_never_fails() {
    let a = Backend::start("a").await;
    let idle = Duration::from_millis(10);
    a.close_after_idle(idle);
    let proxy = Proxy::over(&[&a]).await;
    let mut client = proxy.client();
    // Pauses around the moment at which the backend closes.
    for round in 0..120 {
        tokio::time::sleep(idle.mul_f64(0.7 + 0.05 * f64::from(round % 12))).await;
        assert_eq!(client.get("/").await.status, 200, "round {round}");
    }
    assert!(a.accepted() > 2, "the backend has closed connections: {} opened", a.accepted());
}

#[tokio::test]
async fn a_post_never_arrives_twice_and_seldom_fails() {
    let a = Backend::start("a").await;
    let idle = Duration::from_millis(10);
    a.close_after_idle(idle);
    let proxy = Proxy::over(&[&a]).await;
    let mut client = proxy.client();
    let mut failed = 0;
    for round in 0..120 {
        tokio::time::sleep(idle.mul_f64(0.7 + 0.05 * f64::from(round % 12))).await;
        let answer = client.post("/", format!("id {round}")).await;
        if answer.status != 200 {
            assert!(answer.text().starts_with("502 reset_before_response"), "{}", answer.text());
            failed += 1;
        }
    }
    let mut times = HashMap::new();
    for request in a.requests() {
        *times.entry(request.text()).or_insert(0) += 1;
    }
    assert!(times.len() >= 120 - failed && times.values().all(|times| *times == 1), "{times:?}");
    assert!(failed < 12, "{failed} of 120 failed");
}

#[tokio::test]
async fn a_dead_connection_says_nothing_of_its_backend() {
    let [a, b] = Backend::fleet(["a", "b"]).await;
    for backend in [&a, &b] {
        // The second request on a connection finds it dead.
        let known = Mutex::new(HashSet::new());
        backend.answer(move |request| match known.lock().unwrap().insert(request.connection) {
            true => Reply::text("x"),
            false => Reply::close(),
        });
    }
    let proxy = Proxy::start(Config::app(&[&a, &b], "").server("workers = 1")).await;
    let mut client = proxy.client();
    let mut order = Vec::new();
    for _ in 0..12 {
        let answer = client.get("/").await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        order.push(answer.served_by().to_owned());
    }
    assert!(order.windows(2).all(|pair| pair[0] != pair[1]), "the same backend is asked again: {order:?}");
    let lines = proxy.logged(12).await;
    assert!(lines.iter().all(|line| line["attempts"] == 1), "and that is no attempt of its own");
    assert!(a.count() + b.count() > 12, "{} and {}", a.count(), b.count());
}

#[tokio::test]
async fn a_refused_connect_goes_elsewhere_whatever_the_method() {
    let [mut a, b] = Backend::fleet(["a", "b"]).await;
    a.die().await;
    let proxy = Proxy::over(&[&a, &b]).await;
    for count in 1..=3 {
        let answer = proxy.client().post("/", "once").await;
        assert_eq!((answer.status, answer.served_by()), (200, "b"));
        assert_eq!(b.received(count).await.text(), "once");
    }
    for line in proxy.logged(3).await {
        assert_eq!((line["end"].as_str(), line["attempts"].as_u64()), (Some("ok"), Some(1)), "{line}");
    }
}

#[tokio::test]
async fn a_get_that_is_reset_goes_elsewhere() {
    let [a, b] = Backend::fleet(["a", "b"]).await;
    a.reply(Reply::reset());
    let proxy = Proxy::over(&[&a, &b]).await;
    let answer = ask_at(&proxy, &a, &Ask::get("/")).await;
    assert_eq!((answer.status, answer.served_by()), (200, "b"));
    let retried = async || proxy.log().iter().any(|line| line["attempts"] == 2);
    eventually("both attempts are in the log", retried).await;
}

#[tokio::test]
async fn two_attempts_are_all_there_are() {
    let [a, b, c] = Backend::fleet(["a", "b", "c"]).await;
    for backend in [&a, &b, &c] {
        backend.reply(Reply::reset());
    }
    let proxy = Proxy::over(&[&a, &b, &c]).await;
    let answer = proxy.client().get("/").await;
    assert!(answer.text().starts_with("502 reset_before_response"), "{}", answer.text());
    assert_eq!(a.count() + b.count() + c.count(), 2);
}

#[tokio::test]
async fn a_get_that_is_reset_where_nobody_else_is_asks_there_once_more_and_is_not_held() {
    let a = Backend::start("a").await;
    a.reply(Reply::reset());
    let proxy = Proxy::start(Config::app(&[&a], "hold.timeout = \"5s\"")).await;
    let begun = Instant::now();
    let answer = proxy.client().get("/").await;
    assert!(answer.text().starts_with("502 reset_before_response"), "{}", answer.text());
    assert!(begun.elapsed() < Duration::from_secs(2), "it was held for {:?}", begun.elapsed());
    assert_eq!(a.count(), 2);
    let first = Mutex::new(true);
    a.answer(move |_| match std::mem::take(&mut *first.lock().unwrap()) {
        true => Reply::reset(),
        false => Reply::text("x"),
    });
    assert_eq!(proxy.client().get("/").await.status, 200);
}

#[tokio::test]
async fn a_backup_is_asked_when_every_primary_has_failed_the_request() {
    for reply in [Reply::reset(), Reply::status(503)] {
        let [a, b, spare] = Backend::fleet(["a", "b", "spare"]).await;
        a.reply(reply.clone());
        b.reply(reply);
        let backends = [a.toml(""), b.toml(""), spare.toml("backup = true")];
        let route = "pool = \"app\"\nretry = { attempts = 3, on = [\"503\", \"reset_before_response\"] }";
        let proxy = Proxy::start(Config::default().pool_of("app", &backends, "").route(route)).await;
        let answer = proxy.client().get("/").await;
        assert_eq!((answer.status, answer.served_by()), (200, "spare"));
        assert_eq!((a.count(), b.count()), (1, 1), "each is asked once");
    }
}

#[tokio::test]
async fn a_backup_takes_what_a_primary_refuses_without_a_wait() {
    let [mut a, spare] = Backend::fleet(["a", "spare"]).await;
    let backends = [a.toml(""), spare.toml("backup = true")];
    // Nobody may wait, so that only who is asked at once can answer.
    let proxy = Proxy::start(Config::default().pool_of("app", &backends, "hold.max = 0")).await;
    a.die().await;
    for _ in 0..3 {
        assert_eq!(proxy.client().post("/", "once").await.served_by(), "spare");
    }
}

#[tokio::test]
async fn a_post_that_is_reset_is_a_502_and_goes_nowhere_else() {
    let [a, b] = Backend::fleet(["a", "b"]).await;
    a.reply(Reply::reset());
    let proxy = Proxy::over(&[&a, &b]).await;
    let answer = ask_at(&proxy, &a, &Ask::post("/", "body")).await;
    assert!(answer.text().starts_with("502 reset_before_response"), "{}", answer.text());
    assert_eq!(a.count(), 1);
    assert_eq!(proxy.ended("reset_before_response").await["attempts"], 1);
}

/// As many bytes of a body as are kept to be sent again.
const KEPT: usize = 64 * 1024;

#[tokio::test]
async fn a_put_whose_body_has_gone_is_sent_again_as_long_as_that_is_short() {
    let [a, b] = Backend::fleet(["a", "b"]).await;
    a.reply(Reply::reset());
    let proxy = Proxy::over(&[&a, &b]).await;
    for method in ["PUT", "DELETE", "POST"] {
        for (length, again) in [(4, true), (KEPT, true), (KEPT + 1, false), (40 * KEPT, false)] {
            let body: Vec<u8> = (0..length).map(|at| at as u8).collect();
            let ask = Ask::with(method, "/", body.clone());
            let answer = ask_at(&proxy, &a, &ask).await;
            let again = again && method != "POST";
            assert_eq!(answer.status, if again { 200 } else { 502 }, "{method}, {length} bytes");
            if again {
                assert!(
                    b.requests().last().is_some_and(|last| last.body == body),
                    "{method}, {length} bytes"
                );
            } else {
                assert!(answer.text().starts_with("502 reset_before_response"), "{}", answer.text());
            }
        }
    }
}

#[tokio::test]
async fn a_put_in_chunks_whose_backend_breaks_off_half_way_arrives_whole_at_another() {
    let [a, b] = Backend::fleet(["a", "b"]).await;
    let backends = [a.toml(""), b.toml("backup = true")];
    let proxy = Proxy::start(Config::default().pool_of("app", &backends, "")).await;
    a.answer_early(|_| Reply(vec![Step::Park, Step::Reset]));
    let mut wire = proxy.wire().await;
    let head = "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n";
    wire.send(format!("{head}4\r\none \r\n")).await;
    a.parked(1).await;
    a.release();
    let request = b.seen(1).await;
    assert_eq!(request.header("transfer-encoding"), Some("chunked"));
    wire.send("5\r\ntwo, \r\n5\r\nthree\r\n0\r\nX-Sum: 9\r\n\r\n").await;
    assert_eq!(wire.response("PUT").await.expect("an answer").served_by(), "b");
    let whole = b.received(1).await;
    assert_eq!((whole.text(), whole.trailers.get("x-sum")), ("one two, three".to_owned(), Some("9")));
    // The client's connection is as good as after any other request.
    a.reply(Reply::text("a"));
    wire.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(wire.response("GET").await.expect("an answer").status, 200);
    assert_eq!(proxy.logged(1).await[0]["req_bytes"], 14);
}

#[tokio::test]
async fn a_put_that_waits_to_be_asked_for_its_body_is_asked_once_whoever_takes_it_in_the_end() {
    const ASKS: &str = "HTTP/1.1 100 Continue\r\n\r\n";
    for asked_before in [false, true] {
        let [a, b] = Backend::fleet(["a", "b"]).await;
        let backends = [a.toml(""), b.toml("backup = true")];
        let proxy = Proxy::start(Config::default().pool_of("app", &backends, "")).await;
        a.answer_early(move |_| match asked_before {
            true => Reply::raw(ASKS).then_park().then_reset(),
            false => Reply::reset(),
        });
        b.answer_early(|request| match request.header("expect") {
            Some(_) => Reply::raw(ASKS).then_park().then(Reply::text("asked")),
            None => Reply(vec![Step::Park]).then(Reply::text("not asked")),
        });
        let mut wire = proxy.wire().await;
        wire.send("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n").await;
        assert_eq!(wire.head().await.as_deref(), Some(ASKS.as_bytes()));
        wire.send("whole").await;
        if asked_before {
            a.parked(1).await;
            a.release();
        }
        b.parked(1).await;
        b.release();
        let answer = wire.response("PUT").await.expect("an answer");
        assert_eq!(answer.text(), if asked_before { "not asked" } else { "asked" });
        assert_eq!(b.received(1).await.text(), "whole");
    }
}

#[tokio::test]
async fn a_body_that_was_kept_leaves_its_connection_to_the_next() {
    let a = Backend::start("a").await;
    let proxy = Proxy::start(Config::app(&[&a], "").server("workers = 1")).await;
    let mut wire = proxy.wire().await;
    let head = "PUT / HTTP/1.1\r\nHost: a\r\n";
    for (fields, body) in [
        ("Content-Length: 5", "whole".to_owned()),
        ("Content-Length: 200000", "x".repeat(200_000)),
        ("Transfer-Encoding: chunked", "5\r\nwhole\r\n0\r\n\r\n".to_owned()),
        ("Transfer-Encoding: chunked\r\nTrailer: X-Sum", "5\r\nwhole\r\n0\r\nX-Sum: 5\r\n\r\n".to_owned()),
    ] {
        for round in 0..3 {
            wire.send(format!("{head}{fields}\r\n\r\n{body}")).await;
            let answer = wire.response("PUT").await.expect("an answer");
            assert_eq!((answer.status, a.accepted()), (200, 1), "{fields}, {round}");
        }
    }
}

#[tokio::test]
async fn a_put_over_a_connection_that_turns_out_dead_goes_out_again_with_its_body() {
    let a = Backend::start("a").await;
    // The second request on a connection finds it dead, after its body has been read.
    let known = Mutex::new(HashSet::new());
    a.answer(move |request| match known.lock().unwrap().insert(request.connection) {
        true => Reply::text("x"),
        false => Reply::close(),
    });
    let proxy = Proxy::start(Config::app(&[&a], "").server("workers = 1")).await;
    let mut client = proxy.client();
    for round in 0..6 {
        assert_eq!(client.ask(Ask::put("/", "body")).await.status, 200, "round {round}");
    }
    assert!(a.requests().iter().all(|request| request.text() == "body"));
    assert!(a.count() > 6, "{}", a.count());
    assert!(proxy.logged(6).await.iter().all(|line| line["attempts"] == 1));
}

#[tokio::test]
async fn an_early_503_is_passed_on_whole_while_the_body_is_still_on_its_way() {
    let [a, b] = Backend::fleet(["a", "b"]).await;
    let backends = [a.toml(""), b.toml("backup = true")];
    let route = "pool = \"app\"\nretry.on = [\"503\"]";
    let proxy = Proxy::start(Config::default().pool_of("app", &backends, "").route(route)).await;
    a.answer_early(|_| Reply::status(503));
    let mut wire = proxy.wire().await;
    wire.send("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf").await;
    assert_eq!(wire.response("PUT").await.expect("an answer").status, 503);
    a.answer(|_| Reply::status(503));
    let answer = proxy.client().ask(Ask::put("/", "whole")).await;
    assert_eq!((answer.status, answer.served_by()), (200, "b"), "what has gone to its end can be repeated");
    assert_eq!(b.received(1).await.text(), "whole");
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_not_asked_for_again() {
    let [a, b] = Backend::fleet(["a", "b"]).await;
    a.reply(Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf").then_reset());
    let proxy = Proxy::over(&[&a, &b]).await;
    let answer = ask_at(&proxy, &a, &Ask::get("/")).await;
    assert!(!answer.whole, "the client sees that it is cut short");
    proxy.ended("reset_during_response").await;
}

#[tokio::test]
async fn retry_can_be_turned_off() {
    let [a, b] = Backend::fleet(["a", "b"]).await;
    a.reply(Reply::reset());
    let route = "pool = \"app\"\nretry = { attempts = 1 }";
    let proxy = Proxy::start(Config::app(&[&a, &b], "").route(route)).await;
    assert_eq!(ask_at(&proxy, &a, &Ask::get("/")).await.status, 502);
}

#[tokio::test]
async fn a_503_is_asked_for_elsewhere_where_the_route_says_so() {
    let [a, b] = Backend::fleet(["a", "b"]).await;
    a.reply(Reply::status(503));
    let route = "pool = \"app\"\nretry.on = [\"503\"]";
    let proxy = Proxy::start(Config::app(&[&a, &b], "").route(route)).await;
    let answer = ask_at(&proxy, &a, &Ask::get("/")).await;
    assert_eq!((answer.status, answer.served_by()), (200, "b"));
    eventually("both attempts are in the log", async || proxy.log().iter().any(|line| line["attempts"] == 2))
        .await;
    assert_eq!(proxy.metric("pintle_retries_total{pool=\"app\",reason=\"status\"}").await, 1.0);
    assert_eq!(ask_at(&proxy, &a, &Ask::post("/", "once")).await.status, 503, "no POST is sent again");
    a.reply(Reply::status(502));
    assert_eq!(ask_at(&proxy, &a, &Ask::get("/")).await.status, 502, "and no other status");
}

#[tokio::test]
async fn a_503_that_nobody_else_can_better_is_passed_on_whole() {
    let [a, b] = Backend::fleet(["a", "b"]).await;
    let busy = Reply(vec![Step::Answer {
        status: 503,
        fields: vec![("Retry-After".into(), "7".into())],
        body: b"busy".to_vec(),
    }]);
    let route = "pool = \"app\"\nretry = { on = [\"503\"], attempts = 3 }";
    let alone = Proxy::start(Config::app(&[&a], "").route(route)).await;
    a.reply(busy.clone());
    let answer = alone.client().get("/").await;
    assert_eq!((answer.status, answer.text(), a.count()), (503, "busy".to_owned(), 1));
    assert_eq!(answer.fields.get("retry-after"), Some("7"));
    b.reply(busy);
    let both = Proxy::start(Config::app(&[&a, &b], "").route(route)).await;
    let answer = both.client().get("/").await;
    assert_eq!((answer.status, answer.text(), a.count() + b.count()), (503, "busy".to_owned(), 3));
}

#[tokio::test]
async fn a_503_does_not_take_a_client_away_from_its_token() {
    let [a, b] = Backend::fleet(["a", "b"]).await;
    let route = "pool = \"app\"\nretry.on = [\"503\", \"connect\"]";
    let proxy = Proxy::start(Config::app(&[&a, &b], "policy = \"sticky_cookie\"").route(route)).await;
    let mut client = proxy.client();
    let home = client.get("/").await.served_by().to_owned();
    let (own, other) = if home == "a" { (&a, &b) } else { (&b, &a) };
    own.reply(Reply::status(503));
    assert_eq!(client.get("/").await.status, 503);
    assert_eq!(other.count(), 0);
}

#[tokio::test]
async fn an_attempt_that_takes_too_long_is_made_elsewhere_where_the_route_says_so_body_and_all() {
    let [a, b] = Backend::fleet(["a", "b"]).await;
    a.reply(Reply::stall());
    let backends = [a.toml(""), b.toml("backup = true")];
    let route = "pool = \"app\"\nretry.on = [\"response_timeout\"]";
    let pool = "timeouts.response = \"200ms\"";
    let proxy = Proxy::start(Config::default().pool_of("app", &backends, pool).route(route)).await;
    for ask in [Ask::get("/"), Ask::put("/", "body")] {
        let body = proxy.client().ask(ask).await;
        assert_eq!((body.status, body.served_by()), (200, "b"));
    }
    assert_eq!(b.received(2).await.text(), "body");
    assert_eq!(proxy.client().post("/", "once").await.status, 504);
    assert_eq!((a.count(), b.count()), (3, 2));
}

#[tokio::test]
async fn a_token_that_admits_no_other_backend_is_asked_for_there_once_more() {
    let [a, b] = Backend::fleet(["a", "b"]).await;
    let pool = "policy = \"sticky_cookie\"\nsticky.on_down = \"fail\"";
    let proxy = Proxy::start(Config::app(&[&a, &b], pool)).await;
    let mut client = proxy.client();
    let home = client.get("/").await.served_by().to_owned();
    let (own, other) = if home == "a" { (&a, &b) } else { (&b, &a) };
    own.reply(Reply::reset());
    let answer = client.get("/").await;
    assert!(answer.text().starts_with("502 reset_before_response"), "{}", answer.text());
    // The first, a dead connection, and two attempts.
    assert_eq!((own.count(), other.count()), (4, 0));
}

#[tokio::test]
async fn a_failing_fleet_is_not_asked_more_often_than_the_budget_allows() {
    const ASKED: usize = 300;
    let [a, b] = Backend::fleet(["a", "b"]).await;
    for backend in [&a, &b] {
        backend.reply(Reply::status(503));
    }
    let route = |budget: f64| format!("pool = \"app\"\nretry = {{ on = [\"503\"], budget = {budget} }}");
    for (budget, most) in [(0.1, 60), (0.0, 0)] {
        let config = Config::app(&[&a, &b], "").route(&route(budget)).server("workers = 1");
        let proxy = Proxy::start(config).await;
        let before = a.count() + b.count();
        let mut client = proxy.client();
        for _ in 0..ASKED {
            assert_eq!(client.get("/").await.status, 503);
        }
        let again = a.count() + b.count() - before - ASKED;
        assert!(again <= most && (again >= 30 || most == 0), "{again} were sent again, of {most}");
        let refused = proxy.metric("pintle_retries_refused_total{pool=\"app\"}").await;
        assert_eq!(refused as usize, ASKED - again);
    }
}

#[tokio::test]
async fn pauses_as_long_as_the_backend_s_keep_alive_lose_no_get_and_double_no_post() {
    const IDLE: Duration = Duration::from_millis(200);
    let a = Backend::start("a").await;
    a.close_after_idle(IDLE);
    let proxy = Proxy::over(&[&a]).await;
    let clients = (0..20_u32).map(|number| {
        let mut client = proxy.client();
        async move {
            let mut failed = 0;
            for round in 0..20_u32 {
                tokio::time::sleep(IDLE.mul_f64(0.95 + 0.01 * f64::from((number + round) % 11))).await;
                if (number + round) % 4 == 0 {
                    let answer = client.post("/", format!("{number}/{round}")).await;
                    failed += u32::from(answer.status != 200);
                } else {
                    assert_eq!(client.get("/").await.status, 200, "client {number}, round {round}");
                }
            }
            failed
        }
    });
    let failed: u32 = futures_util::future::join_all(clients).await.into_iter().sum();
    let mut times = HashMap::new();
    for post in a.requests().iter().filter(|request| request.method == "POST") {
        *times.entry(post.text()).or_insert(0) += 1;
    }
    assert!(times.len() as u32 + failed >= 100 && times.values().all(|times| *times == 1), "{times:?}");
    assert!(failed <= 5, "{failed} of 100 failed, before it was learnt when the backend closes");
}

#[tokio::test]
async fn a_connection_is_let_go_before_the_time_that_the_backend_names() {
    let a = Backend::start("a").await;
    a.reply(Reply::text("x").header("Keep-Alive", "timeout=1, max=100"));
    let proxy = Proxy::start(Config::app(&[&a], "connections.idle = \"1h\"")).await;
    assert_eq!(proxy.client().get("/").await.status, 200);
    a.deserted().await;
}
