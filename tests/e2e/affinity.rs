//! Who stays where by the sticky cookie: issued, honoured, hidden from backends, and refused.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::support::{Ask, Backend, Client, Config, Proxy, Reply, Response, eventually};

const COOKIE: &str = "pintle_app";

/// A pool named `app` under `sticky_cookie`, with further lines of `[pool.app.sticky]`. One
/// thread, so that the log has the order of the requests.
fn sticky(backends: &[&Backend], lines: &str) -> Config {
    Config::app(backends, &format!("policy = \"sticky_cookie\"\n[pool.app.sticky]\n{lines}"))
        .server("workers = 1")
}

/// Key files of one test's own.
struct Keys(PathBuf);

impl Keys {
    fn make(ids: &[&str]) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("pintle-keys-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        for id in ids {
            std::fs::write(folder.join(id), format!("{id:-<32}")).unwrap();
        }
        Self(folder)
    }

    /// `keys = […]`, the first signs.
    fn ring(&self, ids: &[&str]) -> String {
        let key = |id: &&str| format!("{{ id = {id:?}, file = {:?} }}", self.0.join(id));
        format!("keys = [{}]", ids.iter().map(key).collect::<Vec<_>>().join(", "))
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A GET that shows this cookie, on a connection of its own.
async fn show(proxy: &Proxy, token: &str) -> Response {
    proxy.client().ask(Ask::get("/").header("Cookie", &format!("{COOKIE}={token}"))).await
}

/// A client that has a backend, and its token.
async fn settled(proxy: &Proxy) -> (Client, String, String) {
    let mut client = proxy.client();
    let backend = client.get("/").await.served_by().to_owned();
    let token = client.cookies[COOKIE].clone();
    (client, backend, token)
}

/// The stick verdicts of the first `count` exchanges.
async fn verdicts(proxy: &Proxy, count: usize) -> Vec<String> {
    let lines = proxy.logged(count).await;
    lines.iter().map(|line| line["stick"].as_str().unwrap_or("").to_owned()).collect()
}

#[tokio::test]
async fn a_cookie_is_issued_once_and_honoured_from_then_on() {
    let [a, b, c] = Backend::fleet(["a", "b", "c"]).await;
    let proxy = Proxy::start(sticky(&[&a, &b, &c], "")).await;
    let mut client = proxy.client();
    let first = client.get("/").await;
    let cookie = first.header("set-cookie").expect("a cookie").to_owned();
    assert!(cookie.starts_with("pintle_app="), "{cookie}");
    let attributes: Vec<_> = cookie.split("; ").skip(1).collect();
    assert_eq!(attributes.len(), 3, "a session cookie has no age: {cookie}");
    for attribute in ["HttpOnly", "SameSite=Lax", "Path=/"] {
        assert!(attributes.contains(&attribute), "{attribute} is missing: {cookie}");
    }
    for _ in 0..6 {
        let next = client.get("/").await;
        assert_eq!((next.served_by(), next.header("set-cookie")), (first.served_by(), None));
    }
    let verdicts = verdicts(&proxy, 7).await;
    assert_eq!((verdicts[0].as_str(), &verdicts[1..]), ("new", &vec!["valid".to_owned(); 6][..]));
}

#[tokio::test]
async fn a_cookie_leads_back_from_every_connection_and_thread() {
    let [a, b] = Backend::fleet(["a", "b"]).await;
    let pool = "policy = \"sticky_cookie\"\nsticky.fallback = \"round_robin\"";
    let proxy = Proxy::start(Config::app(&[&a, &b], pool).server("workers = 4")).await;
    for _ in 0..2 {
        let (_, backend, token) = settled(&proxy).await;
        for _ in 0..16 {
            assert_eq!(show(&proxy, &token).await.served_by(), backend);
        }
    }
    assert_eq!((a.count(), b.count()), (17, 17), "the first visits are dealt by the fallback");
}

#[tokio::test]
async fn srv_id_for_an_hour_is_on_the_wire_as_nginx_writes_it() {
    let a = Backend::start("a").await;
    let proxy = Proxy::start(sticky(&[&a], "cookie = \"srv_id\"\nmax_idle = \"1h\"")).await;
    let answer = proxy.client().get("/").await;
    let text = answer.header("set-cookie").expect("a cookie");
    let cookie = cookie::Cookie::parse(text).unwrap();
    assert_eq!(cookie.name(), "srv_id");
    assert!(text.contains("; Max-Age=3600"), "{text}");
    assert_eq!((cookie.path(), cookie.http_only(), cookie.secure()), (Some("/"), Some(true), None));
    let expires = cookie.expires_datetime().expect("an Expires").unix_timestamp();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64;
    assert!((3590..=3601).contains(&(expires - now)), "{text}");
}

#[tokio::test]
async fn the_attributes_are_the_files() {
    let a = Backend::start("a").await;
    let lines = "path = \"/shop\"\ndomain = \"shop.example\"\nsecure = true\nhttp_only = false\n\
                 same_site = \"strict\"\nmax_life = \"10m\"";
    let proxy = Proxy::start(sticky(&[&a], lines)).await;
    let answer = proxy.client().get("/").await;
    let text = answer.header("set-cookie").expect("a cookie");
    for part in ["Path=/shop", "Domain=shop.example", "Secure", "SameSite=Strict", "Max-Age=600", "Expires="]
    {
        assert!(text.contains(part), "{part} is missing: {text}");
    }
    assert!(!text.contains("HttpOnly"), "{text}");
}

#[tokio::test]
async fn the_backend_sees_every_cookie_but_ours_byte_for_byte() {
    let a = Backend::start("a").await;
    let proxy = Proxy::start(sticky(&[&a], "")).await;
    let (_, _, token) = settled(&proxy).await;
    let cookies = format!("one=1;  two=\"x y\" ; {COOKIE}={token};three=%20;  four");
    proxy.client().ask(Ask::get("/").header("Cookie", &cookies)).await;
    assert_eq!(a.received(2).await.header("cookie"), Some("one=1;  two=\"x y\" ;three=%20;  four"));
    show(&proxy, &token).await;
    assert_eq!(a.received(3).await.header("cookie"), None, "a header of nothing but ours goes");
    assert_eq!(verdicts(&proxy, 3).await, ["new", "valid", "valid"]);
}

#[tokio::test]
async fn an_answer_that_sets_the_cookie_is_kept_out_of_shared_caches() {
    let a = Backend::start("a").await;
    a.answer(|request| match request.target.strip_prefix("/") {
        Some("") | None => Reply::text("x"),
        Some(cache) => Reply::text("x").header("Cache-Control", cache),
    });
    let proxy = Proxy::start(sticky(&[&a], "")).await;
    let cases = [
        ("/", "private"),
        ("/max-age=60", "max-age=60, private"),
        ("/no-store", "no-store"),
        ("/private,max-age=1", "private,max-age=1"),
    ];
    for (target, expected) in cases {
        let mut client = proxy.client();
        let first = client.get(target).await;
        assert_eq!(first.fields.all("cache-control").join(", "), expected, "{target}");
        let second = client.get("/max-age=60").await;
        assert_eq!(second.header("cache-control"), Some("max-age=60"), "nothing is set, nothing is marked");
    }
}

#[tokio::test]
async fn a_forged_token_is_dealt_anew_and_named_in_the_log() {
    let a = Backend::start("a").await;
    let proxy = Proxy::start(sticky(&[&a], "")).await;
    let (_, _, token) = settled(&proxy).await;
    let (head, last) = token.split_at(token.len() - 2);
    let forged = format!("{head}{}", if last == "AA" { "BB" } else { "AA" });
    let answer = show(&proxy, &forged).await;
    assert_eq!(answer.status, 200);
    assert!(answer.header("set-cookie").is_some(), "a good one is issued instead");
    assert_eq!(verdicts(&proxy, 2).await, ["new", "forged"]);
}

#[tokio::test]
async fn a_token_under_a_key_that_nobody_has_is_told_from_a_forged_one() {
    let a = Backend::start("a").await;
    let keys = Keys::make(&["k1", "k2"]);
    let other = Proxy::start(sticky(&[&a], &keys.ring(&["k2"]))).await;
    let (_, _, token) = settled(&other).await;
    let proxy = Proxy::start(sticky(&[&a], &keys.ring(&["k1"]))).await;
    show(&proxy, &token).await;
    assert_eq!(verdicts(&proxy, 1).await, ["unknown_key"]);
}

#[tokio::test]
async fn a_token_past_its_life_has_expired() {
    let a = Backend::start("a").await;
    let proxy = Proxy::start(sticky(&[&a], "max_life = \"1s\"")).await;
    let (_, _, token) = settled(&proxy).await;
    let expired = async || {
        show(&proxy, &token).await;
        let lines = proxy.log();
        lines.iter().any(|line| line["stick"] == "expired")
    };
    eventually("the token expires", expired).await;
    let last = show(&proxy, &token).await;
    assert!(last.header("set-cookie").is_some(), "who has an expired one gets a new one");
}

#[tokio::test]
async fn a_token_is_good_in_its_own_pool_only() {
    let [a, b] = Backend::fleet(["a", "b"]).await;
    let keys = Keys::make(&["k1"]);
    let pool = format!("policy = \"sticky_cookie\"\nsticky.cookie = \"sid\"\nsticky.{}", keys.ring(&["k1"]));
    let config = Config::default()
        .server("workers = 1")
        .pool("one", &[&a], &pool)
        .pool("two", &[&b], &pool)
        .route("path = \"/one\"\npool = \"one\"")
        .route("path = \"/two\"\npool = \"two\"");
    let proxy = Proxy::start(config).await;
    let mut client = proxy.client();
    client.get("/one").await;
    client.get("/two").await;
    assert_eq!(verdicts(&proxy, 2).await, ["new", "forged"]);
}

#[tokio::test]
async fn replicas_with_the_same_keys_agree() {
    let [a, b, c] = Backend::fleet(["a", "b", "c"]).await;
    let keys = Keys::make(&["k1"]);
    let config = || sticky(&[&a, &b, &c], &keys.ring(&["k1"]));
    let (one, two) = (Proxy::start(config()).await, Proxy::start(config()).await);
    for _ in 0..6 {
        let (_, backend, token) = settled(&one).await;
        let answer = show(&two, &token).await;
        assert_eq!((answer.served_by(), answer.header("set-cookie")), (backend.as_str(), None));
    }
}

#[tokio::test]
async fn a_rotation_of_keys_moves_no_session() {
    let [a, b] = Backend::fleet(["a", "b"]).await;
    let keys = Keys::make(&["k1", "k2"]);
    let ring = |ids: &[&str]| sticky(&[&a, &b], &keys.ring(ids));
    let proxy = Proxy::start(ring(&["k1"])).await;
    let (mut client, backend, token) = settled(&proxy).await;
    for ids in [&["k1", "k2"][..], &["k2", "k1"]] {
        proxy.reload(ring(ids)).await.unwrap();
        assert_eq!(client.get("/").await.served_by(), backend);
        assert_eq!(show(&proxy, &token).await.served_by(), backend);
    }
    // Whoever came under the new key stays when the old one goes; whoever did not is dealt anew.
    let (_, young_backend, young) = settled(&proxy).await;
    proxy.reload(ring(&["k2"])).await.unwrap();
    assert_eq!(show(&proxy, &young).await.served_by(), young_backend);
    show(&proxy, &token).await;
    let verdicts = verdicts(&proxy, 8).await;
    assert_eq!(verdicts, ["new", "valid", "valid", "valid", "valid", "new", "valid", "unknown_key"]);
}

#[tokio::test]
async fn a_token_names_the_backend_and_not_its_address() {
    let [a, b, elsewhere] = Backend::fleet(["a", "b", "elsewhere"]).await;
    let proxy = Proxy::start(sticky(&[&a], "")).await;
    let (_, _, token) = settled(&proxy).await;
    let moved = format!("{{ name = \"a\", address = \"{}\" }}", elsewhere.address);
    let pool = "policy = \"sticky_cookie\"";
    proxy.reload(Config::default().pool_of("app", &[b.toml(""), moved], pool)).await.unwrap();
    assert_eq!(show(&proxy, &token).await.served_by(), "elsewhere");
    assert_eq!(verdicts(&proxy, 2).await, ["new", "valid"]);
}

#[tokio::test]
async fn a_backend_that_is_renamed_or_gone_loses_its_sessions() {
    let [a, b] = Backend::fleet(["a", "b"]).await;
    let proxy = Proxy::start(sticky(&[&a], "")).await;
    let (_, _, token) = settled(&proxy).await;
    let renamed = format!("{{ name = \"a9\", address = \"{}\" }}", a.address);
    let pool = "policy = \"sticky_cookie\"";
    proxy.reload(Config::default().pool_of("app", &[renamed], pool)).await.unwrap();
    assert!(show(&proxy, &token).await.header("set-cookie").is_some());
    proxy.reload(Config::app(&[&b], pool)).await.unwrap();
    assert_eq!(show(&proxy, &token).await.served_by(), "b");
    assert_eq!(verdicts(&proxy, 3).await, ["new", "moved_down", "moved_down"]);
}

#[tokio::test]
async fn every_policy_keeps_the_cookie_from_the_backend() {
    let a = Backend::start("a").await;
    let proxy = Proxy::start(sticky(&[&a], "")).await;
    let (_, _, token) = settled(&proxy).await;
    let policies = ["round_robin", "least_conn", "least_time", "random_two", "ip_hash", "consistent_hash"];
    for (place, policy) in policies.iter().enumerate() {
        proxy.reload(Config::app(&[&a], &format!("policy = {policy:?}"))).await.unwrap();
        let answer = show(&proxy, &token).await;
        assert_eq!(answer.header("set-cookie"), None, "{policy}");
        assert_eq!(a.received(place + 2).await.header("cookie"), None, "{policy}");
    }
    // When sticky_cookie comes back, so does who held one.
    proxy.reload(sticky(&[&a], "")).await.unwrap();
    show(&proxy, &token).await;
    assert_eq!(verdicts(&proxy, 8).await[7], "valid");
}

#[tokio::test]
async fn a_session_whose_backend_is_down_is_picked_anew_and_stays_there() {
    let [mut a, mut b] = Backend::fleet(["a", "b"]).await;
    let proxy = Proxy::start(sticky(&[&a, &b], "")).await;
    let (mut client, first, _) = settled(&proxy).await;
    let (down, other) = if first == "a" { (&mut a, "b") } else { (&mut b, "a") };
    down.die().await;
    let moved = client.get("/").await;
    assert_eq!((moved.status, moved.served_by()), (200, other));
    assert!(moved.header("set-cookie").is_some());
    down.come_back();
    let back = format!("app/{first}");
    eventually("it is back", async || proxy.backend(&back).await.health.status == "up").await;
    assert_eq!(client.get("/").await.served_by(), other);
    assert_eq!(verdicts(&proxy, 3).await, ["new", "moved_down", "valid"]);
}

#[tokio::test]
async fn on_down_fail_answers_503_instead_of_moving() {
    let [mut a, mut b] = Backend::fleet(["a", "b"]).await;
    let proxy = Proxy::start(sticky(&[&a, &b], "on_down = \"fail\"")).await;
    let (mut client, first, _) = settled(&proxy).await;
    let down = if first == "a" { &mut a } else { &mut b };
    down.die().await;
    for _ in 0..2 {
        let answer = client.get("/").await;
        assert_eq!((answer.status, answer.header("set-cookie")), (503, None), "{}", answer.text());
        assert!(answer.text().starts_with("503 no_backend"), "{}", answer.text());
    }
    down.come_back();
    eventually("the session is served again", async || client.get("/").await.status == 200).await;
    assert_eq!(client.get("/").await.served_by(), first);
}

#[tokio::test]
async fn a_split_keeps_each_client_by_its_token() {
    let [a, b] = Backend::fleet(["a", "b"]).await;
    let split = |shares: &str| {
        Config::default()
            .pool("now", &[&a], "policy = \"sticky_cookie\"")
            .pool("next", &[&b], "policy = \"sticky_cookie\"")
            .route(&format!("split = {{ {shares} }}"))
    };
    let proxy = Proxy::start(split("now = 1, next = 1")).await;
    let mut clients = Vec::new();
    for source in 2..34 {
        let mut client = proxy.client_from(&format!("127.0.0.{source}"));
        let backend = client.get("/").await.served_by().to_owned();
        clients.push((client, backend));
    }
    assert!(a.count() > 4 && b.count() > 4, "{} and {}", a.count(), b.count());
    proxy.reload(split("now = 99, next = 1")).await.unwrap();
    for (client, backend) in &mut clients {
        // The token decides, wherever its client comes from.
        let mut moved = proxy.client_from("127.0.0.99");
        moved.cookies.clone_from(&client.cookies);
        assert_eq!(moved.get("/").await.served_by(), backend);
        assert_eq!(client.get("/").await.served_by(), backend);
    }
}

#[tokio::test]
async fn a_session_is_renewed_while_it_is_used() {
    let a = Backend::start("a").await;
    let proxy = Proxy::start(sticky(&[&a], "max_idle = \"4s\"")).await;
    let (mut client, _, token) = settled(&proxy).await;
    // A quarter of `max_idle` later the token is written again, and no sooner.
    assert_eq!(client.get("/").await.header("set-cookie"), None);
    let begun = std::time::Instant::now();
    let renewed = async || client.get("/").await.header("set-cookie").is_some();
    eventually("the cookie is renewed", renewed).await;
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    assert_ne!(client.cookies[COOKIE], token);
    let lines = proxy.log();
    assert!(lines.iter().skip(1).all(|line| line["stick"] == "valid"));
}
