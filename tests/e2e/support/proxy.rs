//! The real balancer, in this process, on ports of its own.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use pintle::admin::view::{BackendView, DrainView, Fault, ReloadReport, StateAnswer, StateOrder, Status};
use pintle::app::{Options, Pintle, ShutdownReport, Source, StartError};
use serde_json::Value;

use super::backend::Backend;
use super::client::Client;
use super::config::Config;
use super::message::Response;
use super::wire::Wire;
use super::{eventually, within};

/// A line of the access log.
pub type Line = Value;

/// A running balancer and the folder it writes to. It ends with this value.
pub struct Proxy {
    /// The first address that is listened on.
    pub address: SocketAddr,
    pub admin: SocketAddr,
    /// Taken by the shutdown alone.
    pintle: Option<Pintle>,
    folder: PathBuf,
}

impl Proxy {
    pub async fn start(config: impl Into<Config>) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("pintle-e2e-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let text = config.into().render(&folder);
        let pintle = match Pintle::start(Source::text(&text), Options::default()).await {
            Ok(pintle) => pintle,
            Err(StartError::Config(problems)) => panic!("{}", problems.render(false)),
            Err(error) => panic!("{error}"),
        };
        let address = pintle.address().expect("it listens");
        let admin = pintle.admin_address().expect("it has an admin address");
        Self { address, admin, pintle: Some(pintle), folder }
    }

    /// One pool named `app` in front of `backends`.
    pub async fn over(backends: &[&Backend]) -> Self {
        Self::start(Config::app(backends, "")).await
    }

    /// The handle that an embedding program has.
    pub fn pintle(&self) -> &Pintle {
        self.pintle.as_ref().expect("not shut down")
    }

    pub fn client(&self) -> Client {
        Client::new(self.address)
    }

    /// A client at another address of this machine, such as 127.0.0.2.
    pub fn client_from(&self, source: &str) -> Client {
        Client::from(source, self.address)
    }

    /// A bare connection.
    pub async fn wire(&self) -> Wire {
        Wire::open(self.address).await
    }

    /// Writes bytes on a connection of their own and reads until it is closed.
    pub async fn raw(&self, bytes: impl AsRef<[u8]>) -> Vec<u8> {
        let mut wire = self.wire().await;
        wire.send(bytes).await;
        wire.rest().await
    }

    // The operator's side

    pub async fn reload(&self, config: impl Into<Config>) -> Result<ReloadReport, Fault> {
        let text = config.into().render(&self.folder);
        within("reload", self.pintle().reload(text)).await
    }

    pub async fn status(&self) -> Status {
        within("status", self.pintle().status()).await.unwrap()
    }

    /// How `pool/backend` stands.
    pub async fn backend(&self, name: &str) -> BackendView {
        let status = self.status().await;
        let mut backends = status.pools.into_iter().flat_map(|pool| pool.backends);
        let found = backends.find(|backend| format!("{}/{}", backend.pool, backend.name) == name);
        found.unwrap_or_else(|| panic!("no backend {name}"))
    }

    pub async fn drain(&self, backend: &str, deadline: Option<Duration>) -> Result<DrainView, Fault> {
        within("drain", self.pintle().drain(backend, deadline)).await
    }

    pub async fn ready(&self, backend: &str) -> Result<StateAnswer, Fault> {
        within("ready", self.pintle().ready(backend)).await
    }

    pub async fn stop(&self, backend: &str) -> Result<StateAnswer, Fault> {
        within("stop", self.pintle().stop(backend)).await
    }

    pub async fn set_state(&self, backend: &str, order: StateOrder) -> Result<StateAnswer, Fault> {
        within("set state", self.pintle().set_state(backend, order)).await
    }

    /// A GET to the admin address.
    pub async fn admin(&self, target: &str) -> Response {
        Client::new(self.admin).get_at(&self.admin.to_string(), target).await
    }

    /// A sample such as `pintle_pool_held{pool="app"}`, 0 while it has not been counted; a family
    /// that does not exist is a failure.
    pub async fn metric(&self, sample: &str) -> f64 {
        let page = self.admin("/metrics").await.text();
        let family = sample.split('{').next().unwrap_or_default();
        assert!(page.contains(&format!("# HELP {family} ")), "no metric {family} in\n{page}");
        let value = page.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
        value.map_or(0.0, |value| value.parse().unwrap())
    }

    pub async fn shutdown(mut self) -> ShutdownReport {
        let pintle = self.pintle.take().expect("shut down once");
        within("shutdown", pintle.shutdown()).await
    }

    // The access log

    /// The lines so far.
    pub fn log(&self) -> Vec<Line> {
        let text = std::fs::read_to_string(self.folder.join("access.log")).unwrap_or_default();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}")))
            .collect()
    }

    /// The first `count` lines, as soon as they are written.
    pub async fn logged(&self, count: usize) -> Vec<Line> {
        eventually("lines of the access log", async || self.log().len() >= count).await;
        self.log()
    }

    /// The first line whose `end` is this word.
    pub async fn ended(&self, word: &str) -> Line {
        let find = || self.log().into_iter().find(|line| line["end"] == word);
        eventually(&format!("a line that ends with {word}"), async || find().is_some()).await;
        find().expect("found just now")
    }
}

impl Drop for Proxy {
    /// A test that has failed must not wait: the balancer ends on a thread of its own.
    fn drop(&mut self) {
        let (pintle, folder) = (self.pintle.take(), std::mem::take(&mut self.folder));
        let end = move || {
            if let Some(pintle) = pintle {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                runtime.expect("a runtime").block_on(pintle.shutdown());
            }
            let _ = std::fs::remove_dir_all(folder);
        };
        std::thread::spawn(end);
    }
}
