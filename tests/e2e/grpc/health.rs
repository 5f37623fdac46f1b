//! Probes that ask gRPC's health service.

use tonic_health::ServingStatus;

use super::backend::GrpcBackend;
use crate::support::{Backend, Config, H2Backend, H2Reply, Proxy, eventually};

fn probed(backend: String, service: &str) -> Config {
    let health = format!("[pool.app.health]\ngrpc = {service:?}\ninterval = \"100ms\"\njitter = 0.0\n");
    Config::default().pool_of("app", &[backend], &format!("protocol = \"h2c\"\n{health}"))
}

/// Waits until the last probe of the one backend has said so.
async fn says(proxy: &Proxy, status: &str, detail: &str) {
    eventually(&format!("{status}: {detail}"), async || {
        let health = proxy.backend("app/a").await.health;
        (health.status.as_str(), health.detail.as_str()) == (status, detail)
    })
    .await;
}

#[tokio::test]
async fn a_backend_is_up_while_it_says_that_it_serves() {
    let a = GrpcBackend::start("a").await;
    let proxy = Proxy::start(probed(a.toml(), "")).await;
    says(&proxy, "up", "SERVING").await;
    a.health.set_service_status("", ServingStatus::NotServing).await;
    says(&proxy, "down", "NOT_SERVING").await;
    a.health.set_service_status("", ServingStatus::Unknown).await;
    says(&proxy, "down", "UNKNOWN").await;
    a.health.set_service_status("", ServingStatus::Serving).await;
    says(&proxy, "up", "SERVING").await;
    assert_eq!(
        proxy.metric("pintle_health_checks_total{pool=\"app\",backend=\"a\",result=\"fail\"}").await.signum(),
        1.0
    );
}

#[tokio::test]
async fn one_service_is_asked_about_by_its_name() {
    let a = GrpcBackend::start("a").await;
    a.health.set_service_status("", ServingStatus::NotServing).await;
    let proxy = Proxy::start(probed(a.toml(), "shop.v1.Cart")).await;
    says(&proxy, "down", "gRPC NOT_FOUND: it knows no service `shop.v1.Cart`").await;
    a.health.set_service_status("shop.v1.Cart", ServingStatus::Serving).await;
    says(&proxy, "up", "SERVING").await;
    a.kill();
    says(&proxy, "down", "connection refused").await;
}

#[tokio::test]
async fn a_probe_is_asked_as_a_client_would_ask() {
    let a = H2Backend::start("a").await;
    let _proxy = Proxy::start(probed(a.toml(), "shop.v1.Cart")).await;
    let seen = a.seen(1).await;
    assert_eq!((seen.method.as_str(), seen.target.as_str()), ("POST", "/grpc.health.v1.Health/Check"));
    assert_eq!(seen.header(":authority"), Some(a.address.to_string().as_str()));
    assert_eq!(
        (seen.header("content-type"), seen.header("te")),
        (Some("application/grpc"), Some("trailers"))
    );
    assert_eq!(seen.header("grpc-timeout"), Some("1000000u"));
}

#[tokio::test]
async fn what_is_no_health_service_is_told_apart() {
    let grpc = |reply: H2Reply| reply.header("content-type", "application/grpc");
    let a = H2Backend::start("a").await;
    let proxy = Proxy::start(probed(a.toml(), "").text("timeout = \"300ms\"")).await;
    for (reply, detail) in [
        (H2Reply::text("hello"), "an answer that is no gRPC"),
        (H2Reply::status(404), "HTTP 404 instead of gRPC"),
        (
            grpc(H2Reply::status(200)).header("grpc-status", "12"),
            "gRPC UNIMPLEMENTED: it has no health service",
        ),
        (grpc(H2Reply::status(200)), "an answer without a grpc-status"),
        (grpc(H2Reply::text("\0\0\0\0\x02\x08\x01")), "an answer without a grpc-status"),
        (
            grpc(H2Reply::text("\0\0\0\0\x02\x08")).trailer("grpc-status", "0"),
            "an answer that is no HealthCheckResponse",
        ),
        (grpc(H2Reply::text([b'x'; 5000])).trailer("grpc-status", "0"), "an answer without end"),
        (H2Reply::Stall, "no answer in 300ms"),
        (H2Reply::Reset(h2::Reason::INTERNAL_ERROR), "closed before it answered"),
    ] {
        a.reply(reply);
        eventually(detail, async || proxy.backend("app/a").await.health.detail == detail).await;
    }
    says(&proxy, "down", "closed before it answered").await;
    a.reply(grpc(H2Reply::text("\0\0\0\0\x02\x08\x01")).trailer("grpc-status", "0"));
    says(&proxy, "up", "SERVING").await;
}

#[tokio::test]
async fn a_backend_that_speaks_another_protocol_is_down() {
    let a = Backend::start("a").await;
    let proxy = Proxy::start(probed(a.toml(""), "")).await;
    says(&proxy, "down", "an answer that is no HTTP/2").await;
}
