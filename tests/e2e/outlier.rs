//! Backends that fail in traffic sit out for a while, and health that is ignored when too few are left.

use std::time::{Duration, Instant};

use pintle::admin::view::BackendView;

use crate::support::{Ask, Backend, Config, Proxy, Reply, Wire, eventually, within};

async fn ejected(proxy: &Proxy, backend: &str) -> BackendView {
    eventually(&format!("{backend} is ejected"), async || {
        proxy.backend(backend).await.health.status == "ejected"
    })
    .await;
    proxy.backend(backend).await
}

/// What the operator is told as it happens.
struct Events(Wire);

impl Events {
    async fn of(proxy: &Proxy) -> Self {
        let mut wire = Wire::open(proxy.admin).await;
        wire.send(format!("GET /v1/events HTTP/1.1\r\nHost: {}\r\n\r\n", proxy.admin)).await;
        wire.head().await.expect("a head");
        Self(wire)
    }

    async fn tell(&mut self, what: &str) {
        let told = |bytes: &[u8]| bytes.windows(what.len()).any(|part| part == what.as_bytes());
        within(what, async {
            while !told(&self.0.buffer) {
                assert!(self.0.more().await, "the stream has ended");
            }
        })
        .await;
    }
}

/// Asks until `backend` has been asked `times` more.
async fn until_asked(proxy: &Proxy, backend: &Backend, times: usize) {
    let before = backend.count();
    for _ in 0..20 * times {
        if backend.count() >= before + times {
            return;
        }
        proxy.client().get("/").await;
    }
    panic!("{} was asked {} times", backend.name, backend.count() - before);
}

#[tokio::test]
async fn three_attempts_in_a_row_without_an_answer_eject_a_backend_and_no_client_sees_it() {
    let [a, b] = Backend::fleet(["a", "b"]).await;
    a.reply(Reply::reset());
    let pool = "[pool.app.outlier]\neject = \"5m\"";
    let proxy = Proxy::start(Config::app(&[&a, &b], pool)).await;
    let mut asked = 0;
    while a.count() < 3 {
        assert_eq!(proxy.client().get("/").await.served_by(), "b");
        asked += 1;
        assert!(asked < 50, "a was asked {} times", a.count());
    }
    let view = ejected(&proxy, "app/a").await;
    assert!(view.health.detail.starts_with("3 attempts without an answer, "), "{}", view.health.detail);
    let before = a.count();
    for _ in 0..10 {
        assert_eq!(proxy.client().get("/").await.served_by(), "b");
    }
    assert_eq!(a.count(), before, "nothing goes there any more");
    let labels = "pool=\"app\",backend=\"a\"";
    let sample = format!("pintle_ejections_total{{{labels},reason=\"consecutive_errors\"}}");
    assert_eq!(proxy.metric(&sample).await, 1.0);
    assert_eq!(proxy.metric(&format!("pintle_backend_ejected{{{labels}}}")).await, 1.0);
}

#[tokio::test]
async fn an_ejection_ends_by_time_and_the_backend_starts_slowly() {
    let [a, b] = Backend::fleet(["a", "b"]).await;
    a.reply(Reply::reset());
    let pool = "slow_start = \"1h\"\n[pool.app.outlier]\neject = \"300ms\"";
    let proxy = Proxy::start(Config::app(&[&a, &b], pool)).await;
    until_asked(&proxy, &a, 3).await;
    ejected(&proxy, "app/a").await;
    a.reply(Reply::text("well again"));
    eventually("it is back", async || proxy.backend("app/a").await.health.status == "up").await;
    assert_eq!(proxy.backend("app/a").await.slow_start_step, 1);
    until_asked(&proxy, &a, 1).await;
}

#[tokio::test]
async fn each_ejection_in_a_row_lasts_twice_as_long_and_a_good_probe_does_not_end_it() {
    let [a, b] = Backend::fleet(["a", "b"]).await;
    // Its probes pass, its answers fail.
    a.answer(|request| match request.target.as_str() {
        "/healthz" => Reply::status(200),
        _ => Reply::status(500),
    });
    let pool = "[pool.app.outlier]\neject = \"400ms\"\nconsecutive_5xx = 2\n\
                [pool.app.health]\npath = \"/healthz\"\ninterval = \"100ms\"";
    let proxy = Proxy::start(Config::app(&[&a, &b], pool)).await;
    let mut events = Events::of(&proxy).await;
    let begun = Instant::now();
    for length in ["400ms", "800ms", "1s 600ms"] {
        let asking = async {
            loop {
                proxy.client().get("/").await;
            }
        };
        let told = format!("app/a ejected for {length}: 2 answers of 500 to 599 in a row");
        tokio::select! {
            () = events.tell(&told) => {}
            () = asking => {}
        }
    }
    assert!(begun.elapsed() > Duration::from_millis(1200), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn server_errors_eject_only_where_that_is_asked_for() {
    for (keys, ejects) in [("consecutive_5xx = 4", true), ("", false)] {
        let [a, b, marker] = Backend::fleet(["a", "b", "marker"]).await;
        a.reply(Reply::status(500));
        marker.reply(Reply::reset());
        let pool = format!("[pool.app.outlier]\neject = \"5m\"\nmax_ejected = 1.0\n{keys}");
        let proxy = Proxy::start(Config::app(&[&a, &b, &marker], &pool)).await;
        until_asked(&proxy, &a, 4).await;
        // What was told of `a` came before what ejects the other.
        ejected(&proxy, "app/marker").await;
        assert_eq!(proxy.backend("app/a").await.health.status == "ejected", ejects, "{keys}");
    }
}

#[tokio::test]
async fn failures_with_a_good_answer_between_them_eject_nobody() {
    let [a, b, marker] = Backend::fleet(["a", "b", "marker"]).await;
    let turn = std::sync::atomic::AtomicUsize::new(0);
    a.answer(move |_| match turn.fetch_add(1, std::sync::atomic::Ordering::Relaxed) % 3 {
        2 => Reply::text("a").then_close(),
        _ => Reply::reset(),
    });
    let pool = "[pool.app.outlier]\neject = \"5m\"\nmax_ejected = 1.0";
    let proxy = Proxy::start(Config::app(&[&a, &b, &marker], pool).server("workers = 1")).await;
    until_asked(&proxy, &a, 15).await;
    marker.reply(Reply::reset());
    // What was told of `a` came before what ejects the other.
    eventually("the other is ejected", async || {
        proxy.client().get("/").await;
        proxy.backend("app/marker").await.health.status == "ejected"
    })
    .await;
    assert_eq!(proxy.backend("app/a").await.health.status, "up");
}

#[tokio::test]
async fn no_more_than_the_share_is_ejected_and_never_the_last() {
    let [a, b] = Backend::fleet(["a", "b"]).await;
    for backend in [&a, &b] {
        backend.reply(Reply::reset());
    }
    let pool = "[pool.app.outlier]\neject = \"5m\"\nmax_ejected = 1.0";
    let config = Config::app(&[&a, &b], pool).route("pool = \"app\"\nretry.attempts = 1");
    let proxy = Proxy::start(config).await;
    for _ in 0..30 {
        assert_eq!(proxy.client().get("/").await.status, 502);
    }
    let out = async || {
        proxy.status().await.pools[0].backends.iter().filter(|b| b.health.status == "ejected").count()
    };
    eventually("one is ejected", async || out().await > 0).await;
    for _ in 0..10 {
        assert_eq!(proxy.client().get("/").await.status, 502);
    }
    let both = [proxy.backend("app/a").await, proxy.backend("app/b").await];
    let out = both.iter().filter(|backend| backend.health.status == "ejected").count();
    assert_eq!(out, 1, "{both:?}");
}

#[tokio::test]
async fn who_is_ejected_comes_back_at_once_when_nobody_else_is_left() {
    let [a, mut b] = Backend::fleet(["a", "b"]).await;
    a.reply(Reply::reset());
    let pool = "[pool.app.outlier]\neject = \"5m\"";
    let proxy = Proxy::start(Config::app(&[&a, &b], pool)).await;
    until_asked(&proxy, &a, 3).await;
    ejected(&proxy, "app/a").await;
    a.reply(Reply::text("a"));
    b.die().await;
    assert_eq!(proxy.client().get("/").await.served_by(), "a");
}

#[tokio::test]
async fn a_reload_without_the_table_lets_everybody_back() {
    let [a, b] = Backend::fleet(["a", "b"]).await;
    a.reply(Reply::reset());
    let pool = "[pool.app.outlier]\neject = \"5m\"";
    let proxy = Proxy::start(Config::app(&[&a, &b], pool)).await;
    until_asked(&proxy, &a, 3).await;
    ejected(&proxy, "app/a").await;
    proxy.reload(Config::app(&[&a, &b], pool)).await.unwrap();
    assert_eq!(proxy.backend("app/a").await.health.status, "ejected", "it survives a reload");
    proxy.reload(Config::app(&[&a, &b], "")).await.unwrap();
    eventually("it is back", async || proxy.backend("app/a").await.health.status == "up").await;
    a.reply(Reply::text("a"));
    until_asked(&proxy, &a, 1).await;
}

#[tokio::test]
async fn below_the_panic_threshold_backends_are_used_whatever_their_probes_say() {
    let [a, b] = Backend::fleet(["a", "b"]).await;
    let sick = |request: &crate::support::Request| match request.target.as_str() {
        "/healthz" => Reply::status(500),
        _ => Reply::text("b"),
    };
    let pool = |threshold: &str| {
        format!(
            "panic_threshold = {threshold}\n[pool.app.health]\npath = \"/healthz\"\ninterval = \"100ms\"\nfall = 1"
        )
    };
    let proxy = Proxy::start(Config::app(&[&a, &b], &pool("0.6"))).await;
    eventually("both are up", async || {
        let pool = proxy.status().await.pools.remove(0);
        pool.backends.iter().all(|backend| backend.health.status == "up")
    })
    .await;
    assert!(!proxy.status().await.pools[0].panic);
    let mut events = Events::of(&proxy).await;
    b.answer(sick);
    eventually("health is ignored", async || proxy.status().await.pools[0].panic).await;
    events.tell("pool app: less than 0.6 of it is healthy, so health is ignored").await;
    assert_eq!(proxy.backend("app/b").await.health.status, "down");
    let mut served = Vec::new();
    for _ in 0..8 {
        served.push(proxy.client().ask(Ask::get("/")).await.served_by().to_owned());
    }
    assert!(served.contains(&"b".to_owned()) && served.contains(&"a".to_owned()), "{served:?}");
    assert_eq!(proxy.metric("pintle_pool_panic{pool=\"app\"}").await, 1.0);
    proxy.reload(Config::app(&[&a, &b], &pool("0.5"))).await.unwrap();
    assert!(!proxy.status().await.pools[0].panic, "half is not less than a half");
    for _ in 0..4 {
        assert_eq!(proxy.client().get("/").await.served_by(), "a");
    }
}

#[tokio::test]
async fn a_client_that_delays_its_own_request_ejects_nobody_and_a_silent_backend_is_ejected() {
    let [a, b, marker] = Backend::fleet(["a", "b", "marker"]).await;
    let pool = "timeouts.response = \"100ms\"\n[pool.app.outlier]\nconsecutive_errors = 1\n\
                eject = \"5m\"\nmax_ejected = 1.0";
    let proxy = Proxy::start(Config::app(&[&a, &b, &marker], pool)).await;
    for _ in 0..6 {
        let mut wire = proxy.wire().await;
        wire.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf").await;
        assert!(wire.head().await.expect("a head").starts_with(b"HTTP/1.1 504"));
    }
    marker.reply(Reply::stall());
    eventually("the silent one is ejected", async || {
        proxy.client().get("/").await;
        proxy.backend("app/marker").await.health.status == "ejected"
    })
    .await;
    for name in ["app/a", "app/b"] {
        assert_eq!(proxy.backend(name).await.health.status, "up", "{name}");
    }
}
