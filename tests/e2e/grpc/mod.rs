//! gRPC through the balancer, with a client and a server that are not ours.
//!
//! What is called is in [`backend`], who calls in [`client`] and
//! [`raw`].

mod backend;
mod client;
mod ends;
mod errors;
mod health;
mod raw;
mod streams;

use pintle::admin::view::StateOrder;

use self::backend::GrpcBackend;
use self::client::GrpcClient;
use crate::support::{Config, Proxy};

/// As large as messages may be by default.
const LARGE: usize = 4 * 1024 * 1024;

/// The one message of the test's service.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Note {
    #[prost(string, tag = "1")]
    pub text: String,
    /// Who answered.
    #[prost(string, tag = "2")]
    pub from: String,
    #[prost(bytes = "vec", tag = "3")]
    pub data: Vec<u8>,
}

impl Note {
    fn text(text: &str) -> Self {
        Self { text: text.into(), ..Self::default() }
    }
}

/// One pool called `app` that speaks HTTP/2 on both sides.
fn config(backends: &[&GrpcBackend], lines: &str) -> Config {
    let backends: Vec<_> = backends.iter().map(|backend| backend.toml()).collect();
    listens(Config::default().pool_of("app", &backends, &format!("protocol = \"h2c\"\n{lines}")))
}

/// With a listener that knows HTTP/2 beforehand.
fn listens(config: Config) -> Config {
    config.listener("protocols = [\"h2c\", \"http/1.1\"]")
}

/// The balancer in front of these, and a client of it. One thread, so that turns are exact.
async fn over(backends: &[&GrpcBackend], lines: &str) -> (Proxy, GrpcClient) {
    let proxy = Proxy::start(config(backends, lines).server("workers = 1")).await;
    let client = GrpcClient::new(proxy.address).await;
    (proxy, client)
}

/// Stops or drains a backend, even the last one, and does not wait for that.
async fn order(proxy: &Proxy, backend: &str, state: &str) {
    let order = StateOrder { state: state.into(), force: true, ..StateOrder::default() };
    proxy.set_state(backend, order).await.unwrap();
}
