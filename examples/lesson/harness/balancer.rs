//! Pintle in front of a chapter's replicas, through the door that every program has.

use std::fmt::Write;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use pintle::app::{Options, Pintle, Source, StartError};

use super::chapter::{Failure, Outcome};
use super::child::Replica;
use super::stage::{Spoil, Stage};

/// How every chapter's file begins. Users come through loopback, so they are told apart by the
/// `X-Forwarded-For` that a trusted peer sends.
const PREFACE: &str = r#"
[server]
workers = 1
trusted_proxies = ["127.0.0.0/8"]
[log.access]
enabled = false
"#;
/// For a chapter that says nothing about its listener.
const LISTENER: &str = "[listener.web]\nbind = '127.0.0.1:0'\n";

const PATIENCE: Duration = Duration::from_secs(10);

/// A running balancer.
pub struct Balancer {
    pub pintle: Pintle,
    pub address: SocketAddr,
    spoil: Option<Spoil>,
}

impl Balancer {
    /// Runs a chapter's TOML. `BACKENDS` in it is replaced by the replicas, as name and address.
    pub async fn start(stage: &Stage, toml: &str, replicas: &[Replica]) -> Outcome<Self> {
        let text = text(stage.spoil, toml, replicas);
        let pintle = Pintle::start(Source::text(text), Options::default()).await.map_err(whole)?;
        let address = pintle.address().ok_or("the balancer listens nowhere")?;
        let balancer = Self { pintle, address, spoil: stage.spoil };
        for replica in replicas {
            balancer.wait_until(&replica.name, |view| view.health.status != "unknown").await?;
        }
        Ok(balancer)
    }

    /// Replaces the configuration while it runs, as saving the file does.
    pub async fn reload(&self, toml: &str, replicas: &[Replica]) -> Outcome<()> {
        let report = self.pintle.reload(text(self.spoil, toml, replicas)).await;
        report.map(drop).map_err(|fault| fault.detail.into())
    }

    /// Drains `app/r2`: nobody new, known sessions stay until they end or the deadline. Returns
    /// when it is safe to stop it, with who was left. A run that is spoilt on purpose stops it.
    pub async fn drain(&self, backend: &str, deadline: Duration) -> Outcome<pintle::admin::view::DrainView> {
        let deadline = if self.spoil == Some(Spoil::Drain) { Duration::ZERO } else { deadline };
        self.pintle.drain(backend, Some(deadline)).await.map_err(|fault| fault.detail.into())
    }

    /// Waits until a backend is as `wanted`, wherever it is listed.
    pub async fn wait_until(
        &self,
        backend: &str,
        wanted: impl Fn(&pintle::admin::view::BackendView) -> bool,
    ) -> Outcome<()> {
        let patience = Instant::now() + PATIENCE;
        while Instant::now() < patience {
            let status = self.pintle.status().await?;
            let mut views = status.pools.iter().flat_map(|pool| &pool.backends);
            if views.any(|view| view.name == backend && wanted(view)) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Err(format!("{backend} did not get where it should within {PATIENCE:?}").into())
    }

    /// Waits until probes call a backend `up` or `down`.
    pub async fn wait_for(&self, backend: &str, health: &str) -> Outcome<()> {
        self.wait_until(backend, |view| view.health.status == health).await
    }

    pub async fn shutdown(self) {
        self.pintle.shutdown().await;
    }
}

/// A mistake in a chapter's TOML is shown as `pintle check` shows it.
fn whole(error: StartError) -> Failure {
    match error {
        StartError::Config(problems) => problems.render(false).into(),
        other => other.into(),
    }
}

/// The whole file of a chapter.
pub fn text(spoil: Option<Spoil>, toml: &str, replicas: &[Replica]) -> String {
    let mut backends = String::from("[");
    for Replica { name, address, .. } in replicas {
        let _ = write!(backends, "{{ name = '{name}', address = '{address}' }},");
    }
    let listener = if toml.contains("[listener.") { "" } else { LISTENER };
    let text = format!("{PREFACE}{listener}{}", toml.replace("BACKENDS", &(backends + "]")));
    match spoil {
        Some(Spoil::Sticky) => text.replace("sticky_cookie", "round_robin"),
        _ => text,
    }
}
