//! A backend that is stopped lets go of its requests at once: what can be repeated goes elsewhere.

use std::time::Duration;

use pintle::admin::view::StateOrder;

use crate::support::{Ask, Backend, Config, Proxy, Reply, eventually};

#[tokio::test]
async fn what_a_stop_cuts_before_its_answer_goes_elsewhere_where_that_is_safe() {
    let route = "pool = \"app\"\nretry = { attempts = 2, budget = 0.0 }";
    for policy in ["round_robin", "sticky_cookie"] {
        let [a, b] = Backend::fleet(["a", "b"]).await;
        let backends = [a.toml(""), b.toml("backup = true")];
        let pool = format!("policy = {policy:?}");
        let proxy = Proxy::start(Config::default().pool_of("app", &backends, &pool).route(route)).await;
        // The second is in the middle of its answer.
        a.answer(|request| match request.target.as_str() {
            "/half" => Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf").then_stall(),
            "/" => Reply::text("a"),
            _ => Reply::stall(),
        });
        let mut known = proxy.client();
        assert_eq!(known.get("/").await.served_by(), "a");
        let (mut half, mut put, mut post) = (proxy.client(), proxy.client(), proxy.client());
        known.send(&Ask::get("/known")).await;
        half.send(&Ask::get("/half")).await;
        half.wire().await.response_head().await.expect("a head");
        put.send(&Ask::put("/put", "whole")).await;
        post.send(&Ask::post("/post", "once")).await;
        a.received(5).await;
        let view = proxy.drain("app/a", Some(Duration::ZERO)).await.unwrap();
        assert_eq!((view.state.as_str(), view.requests_cut), ("drained", 2), "{policy}");
        assert_eq!(known.read("GET").await.expect("an answer").served_by(), "b", "{policy}");
        assert_eq!(put.read("PUT").await.expect("an answer").served_by(), "b", "{policy}");
        assert!(b.requests().iter().any(|request| request.text() == "whole"), "{policy}");
        assert_eq!(half.wire().await.rest().await, b"half", "{policy}");
        assert!(post.read("POST").await.expect("an answer").text().starts_with("503 drained"));
        assert_eq!(b.count(), 2, "{policy}");
        let sample = "pintle_retries_total{pool=\"app\",reason=\"drained\"}";
        assert_eq!(proxy.metric(sample).await, 2.0, "{policy}");
        let moved = || proxy.log().into_iter().find(|line| line["path"] == "/known");
        eventually("it is in the log", async || moved().is_some()).await;
        let line = moved().expect("found just now");
        let stick = if policy == "sticky_cookie" { "moved_drain" } else { "none" };
        assert_eq!((line["end"].as_str(), line["stick"].as_str()), (Some("ok"), Some(stick)), "{line}");
        assert_eq!(line["attempts"], 2, "{line}");
        a.deserted().await;
    }
}

#[tokio::test]
async fn what_a_stop_cuts_waits_for_a_backend_where_no_other_is() {
    let a = Backend::start("a").await;
    a.hold();
    let proxy = Proxy::start(Config::app(&[&a], "hold.timeout = \"9s\"")).await;
    let mut client = proxy.client();
    client.send(&Ask::get("/")).await;
    a.parked(1).await;
    let stop = StateOrder { state: "stopped".into(), force: true, ..StateOrder::default() };
    proxy.set_state("app/a", stop).await.unwrap();
    eventually("it waits", async || proxy.status().await.pools[0].held == 1).await;
    a.release();
    proxy.ready("app/a").await.unwrap();
    assert_eq!(client.read("GET").await.expect("an answer").served_by(), "a");
}
