//! Who among eligible backends takes a request, as seen through sockets.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::support::{Ask, Backend, Client, Config, Proxy, eventually};

/// How often each backend answered.
async fn shares(clients: &mut [Client], rounds: usize) -> BTreeMap<String, usize> {
    let mut shares = BTreeMap::new();
    for _ in 0..rounds {
        for client in &mut *clients {
            *shares.entry(client.get("/").await.served_by().to_owned()).or_default() += 1;
        }
    }
    shares
}

fn counts(expected: &[(&str, usize)]) -> BTreeMap<String, usize> {
    expected.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
}

#[tokio::test]
async fn round_robin_gives_equal_shares_whichever_thread_serves() {
    let [a, b, c] = Backend::fleet(["a", "b", "c"]).await;
    let proxy = Proxy::over(&[&a, &b, &c]).await;
    let mut clients: Vec<_> = (0..10).map(|_| proxy.client()).collect();
    assert_eq!(shares(&mut clients, 12).await, counts(&[("a", 40), ("b", 40), ("c", 40)]));
}

#[tokio::test]
async fn round_robin_follows_weights_exactly_and_smoothly() {
    let [a, b] = Backend::fleet(["a", "b"]).await;
    let backends = [a.toml("weight = 3"), b.toml("")];
    let proxy = Proxy::start(Config::default().pool_of("app", &backends, "")).await;
    let mut clients: Vec<_> = (0..4).map(|_| proxy.client()).collect();
    assert_eq!(shares(&mut clients, 10).await, counts(&[("a", 30), ("b", 10)]));
    // Smooth: whatever four in a row, one of them is b's.
    assert_eq!(shares(&mut clients[..1], 4).await, counts(&[("a", 3), ("b", 1)]));
}

#[tokio::test]
async fn a_backup_serves_only_while_no_other_can() {
    let mut a = Backend::start("a").await;
    let spare = Backend::start("spare").await;
    let backends = [a.toml(""), spare.toml("backup = true")];
    let proxy = Proxy::start(Config::default().pool_of("app", &backends, "")).await;
    let mut client = proxy.client();
    for _ in 0..6 {
        assert_eq!(client.get("/").await.served_by(), "a");
    }
    a.die().await;
    for _ in 0..3 {
        assert_eq!(client.get("/").await.served_by(), "spare");
    }
    a.come_back();
    eventually("the first is used again", async || client.get("/").await.served_by() == "a").await;
    let before = spare.count();
    for _ in 0..6 {
        assert_eq!(client.get("/").await.served_by(), "a");
    }
    assert_eq!(spare.count(), before);
}

/// Sends one request on a connection of its own and leaves it waiting.
async fn send(proxy: &Proxy) -> Client {
    let mut client = proxy.client();
    client.send(&Ask::get("/")).await;
    client
}

/// Sends requests one by one, each seen by a backend before the next; how many `a` took.
async fn taken(proxy: &Proxy, a: &Backend, b: &Backend, requests: usize) -> (Vec<Client>, usize) {
    let (mut waiting, before) = (Vec::new(), a.count());
    for _ in 0..requests {
        let total = a.count() + b.count();
        waiting.push(send(proxy).await);
        eventually("the request arrives", async || a.count() + b.count() > total).await;
    }
    (waiting, a.count() - before)
}

#[tokio::test]
async fn least_conn_sends_to_whoever_has_fewest_in_flight_over_all_threads() {
    let [a, b] = Backend::fleet(["a", "b"]).await;
    let proxy = Proxy::start(Config::app(&[&a, &b], "policy = \"least_conn\"")).await;
    a.hold();
    b.hold();
    let (first, at_a) = taken(&proxy, &a, &b, 6).await;
    assert_eq!(at_a, 3);
    a.release();
    eventually("a is idle", async || proxy.backend("app/a").await.in_flight == 0).await;
    a.hold();
    let (second, at_a) = taken(&proxy, &a, &b, 3).await;
    assert_eq!(at_a, 3, "b still has three");
    b.release();
    a.release();
    for mut client in first.into_iter().chain(second) {
        assert_eq!(client.read("GET").await.unwrap().status, 200);
    }
}

#[tokio::test]
async fn least_conn_counts_by_weight() {
    let [a, b] = Backend::fleet(["a", "b"]).await;
    let backends = [a.toml("weight = 3"), b.toml("")];
    let proxy = Proxy::start(Config::default().pool_of("app", &backends, "policy = \"least_conn\"")).await;
    a.hold();
    b.hold();
    let (_waiting, at_a) = taken(&proxy, &a, &b, 8).await;
    assert_eq!(at_a, 6);
}

#[tokio::test]
async fn random_two_takes_the_less_busy_of_two() {
    let [a, b] = Backend::fleet(["a", "b"]).await;
    let proxy = Proxy::start(Config::app(&[&a, &b], "policy = \"random_two\"")).await;
    a.hold();
    b.hold();
    let (_waiting, at_a) = taken(&proxy, &a, &b, 8).await;
    assert_eq!(at_a, 4);
    b.release();
    eventually("b is idle", async || proxy.backend("app/b").await.in_flight == 0).await;
    let mut client = proxy.client();
    for _ in 0..10 {
        assert_eq!(client.get("/").await.served_by(), "b");
    }
}

#[tokio::test]
async fn least_time_avoids_who_was_slow() {
    let [a, b] = Backend::fleet(["a", "b"]).await;
    let proxy = Proxy::start(Config::app(&[&a, &b], "policy = \"least_time\"")).await;
    a.hold();
    b.hold();
    let (_waiting, at_a) = taken(&proxy, &a, &b, 2).await;
    assert_eq!(at_a, 1, "each is asked once before anybody is asked twice");
    b.release();
    let start = Instant::now();
    eventually("a has been slow", async || start.elapsed() > Duration::from_secs(1)).await;
    a.release();
    eventually("a is idle", async || proxy.backend("app/a").await.in_flight == 0).await;
    let mut client = proxy.client();
    for _ in 0..10 {
        assert_eq!(client.get("/").await.served_by(), "b");
    }
}

/// Who serves each of these addresses.
async fn homes(proxy: &Proxy, hosts: impl Iterator<Item = u8>) -> BTreeMap<u8, String> {
    let mut homes = BTreeMap::new();
    for host in hosts {
        let mut client = proxy.client_from(&format!("127.0.0.{host}"));
        homes.insert(host, client.get("/").await.served_by().to_owned());
    }
    homes
}

#[tokio::test]
async fn ip_hash_keeps_an_address_on_its_backend_and_moves_only_the_share_that_left() {
    let [a, b, c] = Backend::fleet(["a", "b", "c"]).await;
    let proxy = Proxy::start(Config::app(&[&a, &b, &c], "policy = \"ip_hash\"")).await;
    let before = homes(&proxy, 1..=30).await;
    assert_eq!(before.values().collect::<BTreeSet<_>>().len(), 3, "{before:?}");
    assert_eq!(homes(&proxy, 1..=30).await, before);
    proxy.stop("app/b").await.unwrap();
    for (host, home) in homes(&proxy, 1..=30).await {
        assert_ne!(home, "b");
        assert!(before[&host] == home || before[&host] == "b", "127.0.0.{host} moved from {}", before[&host]);
    }
    proxy.ready("app/b").await.unwrap();
    eventually("b is back", async || proxy.backend("app/b").await.state == "active").await;
    assert_eq!(homes(&proxy, 1..=30).await, before);
}

#[tokio::test]
async fn ip_hash_takes_the_address_that_a_trusted_peer_names_and_no_other() {
    let [a, b, c] = Backend::fleet(["a", "b", "c"]).await;
    let config =
        Config::app(&[&a, &b, &c], "policy = \"ip_hash\"").server("trusted_proxies = [\"127.0.0.250/32\"]");
    let proxy = Proxy::start(config).await;
    let direct = homes(&proxy, 1..=30).await;
    let mut trusted = proxy.client_from("127.0.0.250");
    let mut stranger = proxy.client_from("127.0.0.1");
    for (host, home) in &direct {
        let ask = || Ask::get("/").header("X-Forwarded-For", &format!("9.9.9.9, 127.0.0.{host}"));
        assert_eq!(trusted.ask(ask()).await.served_by(), home, "127.0.0.{host}");
        assert_eq!(stranger.ask(ask()).await.served_by(), direct[&1], "127.0.0.{host}");
    }
}

#[tokio::test]
async fn ip_prefix_puts_neighbours_together() {
    let [a, b, c] = Backend::fleet(["a", "b", "c"]).await;
    let proxy =
        Proxy::start(Config::app(&[&a, &b, &c], "policy = \"ip_hash\"\nip_prefix = { v4 = 24, v6 = 64 }"))
            .await;
    let homes = homes(&proxy, 1..=12).await;
    assert_eq!(homes.values().collect::<BTreeSet<_>>().len(), 1, "{homes:?}");
}

#[tokio::test]
async fn consistent_hash_goes_by_what_it_is_told_to() {
    let [a, b, c] = Backend::fleet(["a", "b", "c"]).await;
    type Make = fn(usize) -> Ask;
    let table: [(&str, Make); 4] = [
        ("header:x-tenant", |key| Ask::get("/").header("X-Tenant", &format!("tenant-{key}"))),
        ("cookie:user", |key| Ask::get("/").header("Cookie", &format!("a=b; user=u{key}; c=d"))),
        ("query:id", |key| Ask::get(&format!("/?other={}&id={key}&z", key % 2))),
        ("path", |key| Ask::get(&format!("/item/{key}?x"))),
    ];
    for (on, make) in table {
        let lines = format!("policy = \"consistent_hash\"\nhash_on = {on:?}");
        let proxy = Proxy::start(Config::app(&[&a, &b, &c], &lines)).await;
        let mut used = BTreeSet::new();
        for key in 0..24 {
            let home = proxy.client_from("127.0.0.7").ask(make(key)).await.served_by().to_owned();
            let elsewhere = proxy.client_from("127.0.0.8").ask(make(key)).await;
            assert_eq!(elsewhere.served_by(), home, "{on} {key}");
            used.insert(home);
        }
        assert_eq!(used.len(), 3, "{on}: {used:?}");
    }
}

#[tokio::test]
async fn consistent_hash_without_its_key_goes_by_the_clients_address() {
    let [a, b, c] = Backend::fleet(["a", "b", "c"]).await;
    let lines = "policy = \"consistent_hash\"\nhash_on = \"header:x-tenant\"";
    let proxy = Proxy::start(Config::app(&[&a, &b, &c], lines)).await;
    let before = homes(&proxy, 1..=20).await;
    assert_eq!(before.values().collect::<BTreeSet<_>>().len(), 3, "{before:?}");
    assert_eq!(homes(&proxy, 1..=20).await, before);
}
