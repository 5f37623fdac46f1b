//! What probes, answers and refused connections say of a backend, and what traffic makes of it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::support::{Ask, Backend, Config, Proxy, Reply, eventually};

const PROBED: &str = "[pool.app.health]\npath = \"/healthz\"\ninterval = \"100ms\"\njitter = 0.0\n";

/// What a backend answers its probes with: what is scripted first, then the last of it for ever.
#[derive(Clone, Default)]
struct Pulse(Arc<Mutex<(VecDeque<u16>, u16, usize)>>);

impl Pulse {
    fn of(backend: &Backend) -> Self {
        let pulse = Self(Arc::new(Mutex::new((VecDeque::new(), 200, 0))));
        let told = pulse.clone();
        backend.answer(move |request| match request.target.as_str() {
            "/healthz" => Reply::status(told.next()),
            _ => Reply::text("x"),
        });
        pulse
    }

    fn next(&self) -> u16 {
        let (script, last, asked) = &mut *self.0.lock().unwrap();
        *asked += 1;
        *last = script.pop_front().unwrap_or(*last);
        *last
    }

    /// From the next probe on.
    fn beats(&self, statuses: &[u16]) {
        self.0.lock().unwrap().0.extend(statuses);
    }

    /// Waits until everything scripted has been asked for, and once more.
    async fn heard(&self) {
        eventually("the script is heard", async || self.0.lock().unwrap().0.is_empty()).await;
        let asked = self.0.lock().unwrap().2;
        eventually("one more probe", async || self.0.lock().unwrap().2 > asked + 1).await;
    }
}

async fn status(proxy: &Proxy, backend: &str) -> String {
    proxy.backend(backend).await.health.status
}

async fn is(proxy: &Proxy, backend: &str, wanted: &str) {
    eventually(&format!("{backend} is {wanted}"), async || status(proxy, backend).await == wanted).await;
}

fn visits(backend: &Backend) -> usize {
    backend.requests().iter().filter(|request| request.target != "/healthz").count()
}

#[tokio::test]
async fn nobody_is_sent_to_a_backend_before_its_first_pass() {
    let [a, b] = Backend::fleet(["a", "b"]).await;
    b.hold();
    let proxy = Proxy::start(Config::app(&[&a, &b], &format!("{PROBED}timeout = \"1m\"\nrise = 10"))).await;
    is(&proxy, "app/a", "up").await;
    b.parked(1).await;
    for _ in 0..10 {
        assert_eq!(proxy.client().get("/").await.served_by(), "a");
    }
    assert_eq!((status(&proxy, "app/b").await.as_str(), visits(&b)), ("unknown", 0));
    b.release();
    eventually("the first pass admits", async || proxy.client().get("/").await.served_by() == "b").await;
    assert!(b.count() - visits(&b) < 10, "one pass is enough, whatever `rise` says");
}

#[tokio::test]
async fn init_up_takes_traffic_at_once() {
    let a = Backend::start("a").await;
    a.answer(|request| match request.target.as_str() {
        "/healthz" => Reply::stall(),
        _ => Reply::text("x"),
    });
    let proxy = Proxy::start(Config::app(&[&a], &format!("hold.max = 0\n{PROBED}init = \"up\""))).await;
    assert_eq!(proxy.client().get("/").await.status, 200);
}

#[tokio::test]
async fn it_takes_fall_failures_in_a_row_to_go_and_rise_passes_to_come_back() {
    let [a, b] = Backend::fleet(["a", "b"]).await;
    let pulse = Pulse::of(&a);
    let proxy = Proxy::start(Config::app(&[&a, &b], &format!("{PROBED}fall = 3\nrise = 3"))).await;
    is(&proxy, "app/a", "up").await;
    let since = proxy.backend("app/a").await.health.since;
    pulse.beats(&[500, 500, 200, 500, 500, 200]);
    pulse.heard().await;
    assert_eq!(proxy.backend("app/a").await.health.since, since, "two in a row are not three");
    pulse.beats(&[500, 500, 500]);
    is(&proxy, "app/a", "down").await;
    let health = proxy.backend("app/a").await.health;
    assert_eq!((health.detail.as_str(), health.streak >= 3), ("500", true));
    let seen = visits(&a);
    for _ in 0..6 {
        assert_eq!(proxy.client().get("/").await.served_by(), "b");
    }
    assert_eq!(visits(&a), seen);
    pulse.beats(&[200, 200, 500]);
    pulse.heard().await;
    assert_eq!(proxy.backend("app/a").await.health.since, health.since, "two in a row are not three");
    pulse.beats(&[200, 200, 200]);
    is(&proxy, "app/a", "up").await;
}

#[tokio::test]
async fn a_backend_that_asks_to_be_drained_keeps_its_sessions_and_comes_back() {
    let [a, b] = Backend::fleet(["a", "b"]).await;
    let pulse = Pulse::of(&a);
    let pool = format!("policy = \"sticky_cookie\"\n{PROBED}drain_on = \"503\"");
    let proxy = Proxy::start(Config::app(&[&a, &b], &pool)).await;
    is(&proxy, "app/a", "up").await;
    is(&proxy, "app/b", "up").await;
    let mut known = proxy.client();
    while known.get("/").await.served_by() != "a" {
        known.cookies.clear();
    }
    pulse.beats(&[503]);
    eventually("it drains", async || proxy.backend("app/a").await.state == "draining").await;
    let backend = proxy.backend("app/a").await;
    assert_eq!((backend.state_source.as_str(), backend.health.status.as_str()), ("health", "up"));
    for _ in 0..10 {
        assert_eq!(proxy.client().get("/").await.served_by(), "b");
        assert_eq!(known.get("/").await.served_by(), "a");
    }
    pulse.beats(&[200]);
    eventually("the next pass ends it", async || proxy.backend("app/a").await.state == "active").await;
    eventually("it takes new ones", async || proxy.client().get("/").await.served_by() == "a").await;
}

/// Without sessions it is drained at once, and its own next word still ends that.
#[tokio::test]
async fn a_backend_that_drained_itself_comes_back_with_the_next_pass() {
    let [a, b] = Backend::fleet(["a", "b"]).await;
    let pulse = Pulse::of(&a);
    let pool = format!("{PROBED}drain_on = \"503\"\nrise = 10");
    let proxy = Proxy::start(Config::app(&[&a, &b], &pool)).await;
    is(&proxy, "app/a", "up").await;
    is(&proxy, "app/b", "up").await;
    pulse.beats(&[503]);
    eventually("it is drained", async || proxy.backend("app/a").await.state == "drained").await;
    let (probes, ended) = (a.count(), proxy.backend("app/a").await.drain.unwrap());
    pulse.beats(&[200]);
    eventually("it takes new ones", async || proxy.client().get("/").await.served_by() == "a").await;
    assert!(a.count() - visits(&a) < probes + 10, "it did not have to rise");
    assert_eq!(proxy.backend("app/a").await.drain, None);
    assert_eq!(ended.state, "drained");
}

#[tokio::test]
async fn a_probe_may_ask_another_port_by_another_name() {
    let [a, doctor] = Backend::fleet(["a", "doctor"]).await;
    let pool = format!("{PROBED}port = {}\nhost = \"probe.example\"", doctor.address.port());
    let proxy = Proxy::start(Config::app(&[&a], &pool)).await;
    is(&proxy, "app/a", "up").await;
    let probe = doctor.received(1).await;
    assert_eq!((probe.target.as_str(), probe.header("host")), ("/healthz", Some("probe.example")));
    assert!(probe.header("user-agent").is_some_and(|agent| agent.starts_with("pintle/")));
    assert_eq!(a.count(), 0);
    assert_eq!(proxy.client().get("/").await.served_by(), "a");
}

#[tokio::test]
async fn a_probe_names_the_backend_it_asks() {
    let a = Backend::start("a").await;
    let _proxy = Proxy::start(Config::app(&[&a], PROBED)).await;
    assert_eq!(a.received(1).await.header("host"), Some(a.address.to_string().as_str()));
}

#[tokio::test]
async fn what_is_expected_is_the_files_word() {
    let [a, b, c] = Backend::fleet(["a", "b", "c"]).await;
    Pulse::of(&a).beats(&[301]);
    Pulse::of(&b).beats(&[404]);
    c.reply(Reply::raw("this is no HTTP\r\n\r\n").then_close());
    let proxy = Proxy::start(Config::app(&[&a, &b, &c], &format!("{PROBED}expect = \"200-399\""))).await;
    is(&proxy, "app/a", "up").await;
    is(&proxy, "app/b", "down").await;
    is(&proxy, "app/c", "down").await;
    assert_eq!(proxy.backend("app/b").await.health.detail, "404");
    assert_eq!(proxy.backend("app/c").await.health.detail, "an answer that is no HTTP");
}

#[tokio::test]
async fn a_probe_that_gets_no_answer_in_time_has_failed() {
    let [a, b] = Backend::fleet(["a", "b"]).await;
    a.reply(Reply::stall());
    let proxy = Proxy::start(Config::app(&[&a, &b], &format!("{PROBED}timeout = \"150ms\""))).await;
    is(&proxy, "app/a", "down").await;
    assert_eq!(proxy.backend("app/a").await.health.detail, "no answer in 150ms");
}

#[tokio::test]
async fn a_tcp_probe_wants_no_more_than_a_connection() {
    let mut a = Backend::start("a").await;
    let pool = "[pool.app.health]\ntcp = true\ninterval = \"100ms\"\nfall = 1\nrise = 1";
    let proxy = Proxy::start(Config::app(&[&a], pool)).await;
    is(&proxy, "app/a", "up").await;
    a.die().await;
    is(&proxy, "app/a", "down").await;
    assert_eq!(proxy.backend("app/a").await.health.detail, "connection refused");
    a.come_back();
    is(&proxy, "app/a", "up").await;
    assert_eq!(a.count(), 0, "no request was sent");
}

#[tokio::test]
async fn a_refused_connection_moves_traffic_at_once_and_a_connect_brings_it_back() {
    let [mut a, b] = Backend::fleet(["a", "b"]).await;
    let proxy = Proxy::over(&[&a, &b]).await;
    a.die().await;
    for _ in 0..10 {
        assert_eq!(proxy.client().get("/").await.served_by(), "b");
    }
    let backend = proxy.backend("app/a").await;
    assert_eq!(
        (backend.health.status.as_str(), backend.health.detail.as_str()),
        ("down", "connection refused")
    );
    let begun = Instant::now();
    a.come_back();
    is(&proxy, "app/a", "up").await;
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    eventually("traffic is back", async || proxy.client().get("/").await.served_by() == "a").await;
}

#[tokio::test]
async fn a_refused_connection_is_evidence_until_a_probe_passes() {
    let [mut a, b] = Backend::fleet(["a", "b"]).await;
    let pool =
        "[pool.app.health]\npath = \"/healthz\"\ninterval = \"1s\"\njitter = 0.0\nfall = 100\nrise = 100";
    let proxy = Proxy::start(Config::app(&[&a, &b], pool)).await;
    is(&proxy, "app/a", "up").await;
    is(&proxy, "app/b", "up").await;
    a.die().await;
    let down = async || {
        assert_eq!(proxy.client().get("/").await.status, 200);
        status(&proxy, "app/a").await == "down"
    };
    eventually("traffic finds it down", down).await;
    a.come_back();
    is(&proxy, "app/a", "up").await;
}

#[tokio::test]
async fn many_clients_lose_nothing_when_a_backend_is_killed_between_requests() {
    let [mut a, b] = Backend::fleet(["a", "b"]).await;
    let proxy = Proxy::over(&[&a, &b]).await;
    let mut clients: Vec<_> = (0..20).map(|_| proxy.client()).collect();
    for client in &mut clients {
        client.get("/").await;
    }
    a.die().await;
    for client in &mut clients {
        let answer = client.get("/").await;
        assert_eq!((answer.status, answer.served_by()), (200, "b"), "{}", answer.text());
    }
}

#[tokio::test]
async fn who_comes_back_starts_slowly() {
    let [a, b] = Backend::fleet(["a", "b"]).await;
    let proxy = Proxy::start(Config::app(&[&a, &b], "slow_start = \"5m\"")).await;
    assert_eq!(proxy.backend("app/a").await.slow_start_step, 10, "not at the start of Pintle");
    proxy.drain("app/a", None).await.unwrap();
    proxy.ready("app/a").await.unwrap();
    assert_eq!(proxy.backend("app/a").await.slow_start_step, 1);
    let before = (a.count(), b.count());
    let mut client = proxy.client();
    for _ in 0..110 {
        client.get("/").await;
    }
    assert_eq!((a.count() - before.0, b.count() - before.1), (10, 100), "one part against ten");
}

#[tokio::test]
async fn slow_start_ends() {
    let [a, b] = Backend::fleet(["a", "b"]).await;
    let proxy = Proxy::start(Config::app(&[&a, &b], "slow_start = \"1s\"")).await;
    proxy.drain("app/a", None).await.unwrap();
    proxy.ready("app/a").await.unwrap();
    eventually("its full share", async || proxy.backend("app/a").await.slow_start_step == 10).await;
    // The roster follows within a tick.
    let fair = async || {
        let before = (a.count(), b.count());
        let mut client = proxy.client();
        for _ in 0..20 {
            client.get("/").await;
        }
        (a.count() - before.0, b.count() - before.1) == (10, 10)
    };
    eventually("equal shares", fair).await;
}

#[tokio::test]
async fn who_joins_starts_slowly_too() {
    let [a, b] = Backend::fleet(["a", "b"]).await;
    let proxy = Proxy::start(Config::app(&[&a], "slow_start = \"5m\"")).await;
    proxy.reload(Config::app(&[&a, &b], "slow_start = \"5m\"")).await.unwrap();
    assert_eq!(proxy.backend("app/b").await.slow_start_step, 1);
    assert_eq!(proxy.backend("app/a").await.slow_start_step, 10);
}

#[tokio::test]
async fn a_name_that_does_not_resolve_harms_nobody_else() {
    let a = Backend::start("a").await;
    let backends = [a.toml(""), "{ name = \"lost\", address = \"lost.invalid:80\" }".into()];
    let proxy = Proxy::start(Config::default().pool_of("app", &backends, "")).await;
    is(&proxy, "app/lost", "unresolved").await;
    for _ in 0..10 {
        assert_eq!(proxy.client().get("/").await.served_by(), "a");
    }
    assert!(proxy.backend("app/lost").await.health.detail.contains("lost.invalid"));
    assert_eq!(proxy.admin("/readyz").await.status, 200);
}

#[tokio::test]
async fn a_backend_can_be_a_name() {
    let a = Backend::start("a").await;
    let port = a.address.port();
    let backends = [format!("\"localhost:{port}\"")];
    let proxy = Proxy::start(Config::default().pool_of("app", &backends, "host = \"backend\"")).await;
    assert_eq!(proxy.client().get("/").await.status, 200);
    assert_eq!(a.received(1).await.header("host"), Some(format!("localhost:{port}").as_str()));
    let backend = proxy.backend(&format!("app/localhost:{port}")).await;
    assert!(backend.resolved.contains(&a.address.to_string()), "{:?}", backend.resolved);
}

#[tokio::test]
async fn readyz_waits_for_the_first_verdict_and_never_takes_it_back() {
    let mut a = Backend::start("a").await;
    a.hold();
    let proxy = Proxy::start(Config::app(&[&a], &format!("{PROBED}timeout = \"1m\""))).await;
    a.parked(1).await;
    let answer = proxy.admin("/readyz").await;
    assert_eq!((answer.status, answer.text().contains("pool app has no probe's verdict yet")), (503, true));
    assert_eq!(proxy.admin("/livez").await.status, 200);
    a.release();
    eventually("it is ready", async || proxy.admin("/readyz").await.status == 200).await;
    a.die().await;
    is(&proxy, "app/a", "down").await;
    assert_eq!(proxy.admin("/readyz").await.status, 200);
}

#[tokio::test]
async fn readyz_does_not_wait_for_ever() {
    let a = Backend::start("a").await;
    a.reply(Reply::stall());
    let begun = Instant::now();
    let proxy = Proxy::start(Config::app(&[&a], &format!("{PROBED}timeout = \"1m\""))).await;
    eventually("it is ready", async || proxy.admin("/readyz").await.status == 200).await;
    assert!((Duration::from_millis(4500)..Duration::from_secs(8)).contains(&begun.elapsed()));
}

#[tokio::test]
async fn what_a_failing_backend_is_answering_goes_on() {
    let [a, b] = Backend::fleet(["a", "b"]).await;
    let sick = Arc::new(AtomicBool::new(false));
    let told = sick.clone();
    a.answer(move |request| match request.target.as_str() {
        "/healthz" => Reply::status(if told.load(Ordering::Relaxed) { 500 } else { 200 }),
        _ => Reply::default().then_park().then(Reply::text("slowly")),
    });
    let backends = [a.toml(""), b.toml("backup = true")];
    let proxy = Proxy::start(Config::default().pool_of("app", &backends, &format!("{PROBED}fall = 1"))).await;
    is(&proxy, "app/a", "up").await;
    let mut client = proxy.client();
    client.send(&Ask::get("/")).await;
    a.parked(1).await;
    sick.store(true, Ordering::Relaxed);
    is(&proxy, "app/a", "down").await;
    assert_eq!(proxy.client().get("/").await.served_by(), "b");
    a.release();
    assert_eq!(client.read("GET").await.expect("an answer").text(), "slowly");
}
