//! Who joins or comes back gets its share step by step, under every policy that deals by weight.

use crate::support::{Ask, Backend, Client, Config, Proxy, eventually};

const ASKED: usize = 110;

/// How many of so many requests, one after the other, came to `b`.
async fn share_of(b: &Backend, client: &mut Client) -> usize {
    let before = b.count();
    for _ in 0..ASKED {
        client.cookies.clear();
        assert_eq!(client.ask(Ask::get("/")).await.status, 200);
    }
    b.count() - before
}

/// A proxy over `a`, which `b` has just joined.
async fn joined(a: &Backend, b: &Backend, pool: &str) -> Proxy {
    let pool = format!("slow_start = \"1h\"\n{pool}");
    let proxy = Proxy::start(Config::app(&[a], &pool)).await;
    proxy.reload(Config::app(&[a, b], &pool)).await.unwrap();
    assert_eq!(proxy.backend("app/b").await.slow_start_step, 1);
    proxy
}

#[tokio::test]
async fn who_joins_gets_a_tenth_of_its_share_under_every_policy_that_deals_by_weight() {
    // One part in eleven where shares are exact, about as much where they are drawn. `least_time` looks at
    // latencies first, and has no share while nothing is in flight.
    for (policy, least, most) in [
        ("policy = \"round_robin\"", 10, 10),
        ("policy = \"least_conn\"", 10, 10),
        ("policy = \"sticky_cookie\"\nsticky.fallback = \"round_robin\"", 10, 10),
        ("policy = \"sticky_cookie\"", 10, 10),
        ("policy = \"random_two\"", 0, 25),
    ] {
        let [a, b] = Backend::fleet(["a", "b"]).await;
        let proxy = joined(&a, &b, policy).await;
        let share = share_of(&b, &mut proxy.client()).await;
        assert!((least..=most).contains(&share), "{policy}: {share} of {ASKED}");
    }
}

#[tokio::test]
async fn under_load_too_it_has_a_tenth_of_what_others_have_in_flight() {
    for policy in ["least_conn", "random_two", "least_time", "sticky_cookie"] {
        let [a, b] = Backend::fleet(["a", "b"]).await;
        let proxy = joined(&a, &b, &format!("policy = {policy:?}")).await;
        // So that the latency of both is known.
        for _ in 0..2 {
            proxy.client().get("/").await;
        }
        a.hold();
        b.hold();
        let mut waiting = Vec::new();
        for sent in 1..=44 {
            let mut client = proxy.client();
            let before = a.count() + b.count();
            client.send(&Ask::get("/")).await;
            eventually("it arrives", async || a.count() + b.count() > before).await;
            waiting.push(client);
            assert_eq!(waiting.len(), sent);
        }
        let at_b = proxy.backend("app/b").await.in_flight;
        // A latency that is half of the other's doubles the share.
        let most = if policy == "least_time" { 20 } else { 8 };
        assert!((1..=most).contains(&at_b), "{policy}: {at_b} of 44");
        a.release();
        b.release();
    }
}

#[tokio::test]
async fn hashes_give_a_backend_its_whole_share_at_once() {
    let [a, b] = Backend::fleet(["a", "b"]).await;
    let pool = "policy = \"consistent_hash\"\nhash_on = \"path\"";
    let proxy = joined(&a, &b, pool).await;
    let mut client = proxy.client();
    for key in 0..ASKED {
        client.get(&format!("/{key}")).await;
    }
    // Steps would move keys again and again.
    assert!((30..=80).contains(&b.count()), "{} of {ASKED}", b.count());
}

#[tokio::test]
async fn who_was_ejected_or_down_comes_back_slowly_under_every_policy() {
    for policy in ["round_robin", "least_conn", "least_time", "random_two", "sticky_cookie"] {
        let [a, mut b] = Backend::fleet(["a", "b"]).await;
        let pool = format!("policy = {policy:?}\nslow_start = \"1h\"");
        let proxy = Proxy::start(Config::app(&[&a, &b], &pool)).await;
        assert_eq!(proxy.backend("app/b").await.slow_start_step, 10, "not at the start of Pintle");
        b.die().await;
        let mut client = proxy.client();
        eventually("it is down", async || {
            client.cookies.clear();
            assert_eq!(client.get("/").await.served_by(), "a");
            proxy.backend("app/b").await.health.status == "down"
        })
        .await;
        b.come_back();
        eventually("it is up", async || proxy.backend("app/b").await.health.status == "up").await;
        assert_eq!(proxy.backend("app/b").await.slow_start_step, 1, "{policy}");
        if policy != "least_time" {
            let share = share_of(&b, &mut client).await;
            assert!(share <= 25, "{policy}: {share} of {ASKED}");
        }
    }
}
