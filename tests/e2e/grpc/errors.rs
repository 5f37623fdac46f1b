//! What a gRPC client is told where another would get a status and a sentence.

use tonic::{Code, Status};

use super::backend::GrpcBackend;
use super::client::GrpcClient;
use super::raw::Raw;
use super::{config, listens, order, over};
use crate::support::{Config, H2Backend, H2Reply, Proxy};

/// What `status` says, the id in it left out.
fn told(status: &Status) -> &str {
    status.message().split(" request ").next().unwrap_or_default()
}

#[tokio::test]
async fn a_call_for_which_there_is_no_route_is_unimplemented() {
    let a = GrpcBackend::start("a").await;
    let proxy = Proxy::start(config(&[&a], "").route("path = \"/other\"\npool = \"app\"")).await;
    let status = GrpcClient::new(proxy.address).await.say("Echo", "x").await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    let line = &proxy.logged(1).await[0];
    let host = line["host"].as_str().unwrap();
    assert_eq!(
        told(&status),
        format!("404 no_route: no route for host `{host}` and path `/test.Notes/Echo`.")
    );
    assert!(status.message().ends_with(line["id"].as_str().unwrap()), "{}", status.message());
    assert_eq!(status.metadata().get("x-request-id").unwrap(), line["id"].as_str().unwrap());
}

#[tokio::test]
async fn a_refusal_is_a_head_that_ends_the_stream_and_the_log_says_what_it_stands_for() {
    let a = GrpcBackend::start("a").await;
    let proxy = Proxy::start(config(&[&a], "hold = { max = 0, timeout = \"1s\" }")).await;
    order(&proxy, "app/a", "stopped").await;
    let answer = Raw::open(proxy.address).await.ask(&[]).await;
    assert_eq!((answer.status, answer.bare), (200, true));
    assert_eq!(
        (answer.field("content-type"), answer.field("grpc-status")),
        (Some("application/grpc"), Some("14"))
    );
    assert!(answer.field("grpc-message").unwrap().starts_with("503 no_backend: every backend of pool app"));
    assert_eq!(answer.field("content-length"), None);
    let line = &proxy.logged(1).await[0];
    assert_eq!((line["status"].as_u64(), line["end"].as_str()), (Some(503), Some("no_backend")));
}

#[tokio::test]
async fn who_speaks_no_grpc_gets_a_status_and_a_sentence() {
    let a = GrpcBackend::start("a").await;
    let proxy = Proxy::start(config(&[&a], "hold = { max = 0, timeout = \"1s\" }")).await;
    order(&proxy, "app/a", "stopped").await;
    let mut raw = Raw::open(proxy.address).await;
    for content_type in ["application/grpc-web+proto", "application/json"] {
        let mut answer = raw.ask(&[("content-type", content_type)]).await;
        assert_eq!((answer.status, answer.field("grpc-status")), (503, None), "{content_type}");
        assert!(String::from_utf8(answer.rest().await.0).unwrap().starts_with("503 no_backend"));
    }
}

#[tokio::test]
async fn a_call_over_the_routes_limit_is_resource_exhausted() {
    let a = GrpcBackend::start("a").await;
    let proxy = Proxy::start(config(&[&a], "").route("pool = \"app\"\nlimit = { rate = \"1/h\" }")).await;
    let client = GrpcClient::new(proxy.address).await;
    client.say("Echo", "x").await.unwrap();
    let status = client.say("Echo", "x").await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(told(&status).starts_with("429 rate_limited"), "{}", status.message());
    assert!(status.metadata().get("retry-after").is_some());
    let line = proxy.ended("rate_limited").await;
    assert_eq!(line["status"].as_u64(), Some(429));
}

#[tokio::test]
async fn a_backend_that_takes_no_connection_is_unavailable() {
    let a = GrpcBackend::start("a").await;
    let (proxy, client) = over(&[&a], "hold = { max = 0, timeout = \"1s\" }").await;
    a.kill();
    let status = client.say("Echo", "x").await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    let line = &proxy.logged(1).await[0];
    assert_eq!((line["status"].as_u64(), line["end"].as_str()), (Some(503), Some("no_backend")));
}

#[tokio::test]
async fn a_call_that_a_backend_may_have_seen_is_sent_once_and_one_that_it_refused_again() {
    let a = H2Backend::start("a").await;
    let proxy =
        Proxy::start(listens(Config::default().pool_of("app", &[a.toml()], "protocol = \"h2c\""))).await;
    let mut raw = Raw::open(proxy.address).await;
    a.reply(H2Reply::Reset(h2::Reason::INTERNAL_ERROR));
    let answer = raw.ask(&[]).await;
    assert_eq!((answer.field("grpc-status"), a.count()), (Some("14"), 1));
    let refused = std::sync::atomic::AtomicBool::new(false);
    a.answer(move |_| match refused.swap(true, std::sync::atomic::Ordering::Relaxed) {
        false => H2Reply::Reset(h2::Reason::REFUSED_STREAM),
        true => H2Reply::status(200).header("grpc-status", "0"),
    });
    let answer = raw.ask(&[]).await;
    assert_eq!((answer.field("grpc-status"), a.count()), (Some("0"), 3));
}

#[tokio::test]
async fn a_backends_own_refusal_passes_as_it_is_and_is_not_tried_again() {
    let (a, b) = (H2Backend::start("a").await, H2Backend::start("b").await);
    let own = H2Reply::status(200)
        .header("content-type", "application/grpc")
        .header("grpc-status", "14")
        .header("grpc-message", "50%25 full");
    for backend in [&a, &b] {
        backend.reply(own.clone());
    }
    let pool = Config::default().pool_of("app", &[a.toml(), b.toml()], "protocol = \"h2c\"");
    let proxy = Proxy::start(listens(pool)).await;
    let answer = Raw::open(proxy.address).await.ask(&[]).await;
    assert_eq!((answer.status, answer.bare), (200, true));
    assert_eq!((answer.field("grpc-status"), answer.field("grpc-message")), (Some("14"), Some("50%25 full")));
    assert_eq!((answer.field("x-request-id"), a.count() + b.count()), (None, 1));
}
