//! What every test stands on. Start at [`Proxy`], [`Backend`] and [`Client`].

mod backend;
mod client;
mod config;
pub mod floods;
mod h2_backend;
pub mod h2_client;
mod message;
mod proxy;
mod reply;
mod tls;
mod tls_front;
pub mod websocket;
mod wire;

use std::future::Future;
use std::time::Duration;

pub use backend::Backend;
pub use client::{Ask, Client};
pub use config::Config;
pub use h2_backend::{H2Backend, H2Reply};
pub use h2_client::{Frame, FrameWire, H2Client};
pub use message::{Request, Response};
pub use proxy::{Line, Proxy};
pub use reply::{Reply, Step};
pub use tls::{Keys, TlsClient, TlsWire};
pub use tls_front::TlsFront;
pub use wire::Wire;

/// The one limit of every wait in these tests.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// How often a condition that nobody announces is looked at.
const LOOK: Duration = Duration::from_millis(5);

/// Waits until `condition` holds.
pub async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    within(what, async {
        while !condition().await {
            tokio::time::sleep(LOOK).await;
        }
    })
    .await;
}

/// The output of `future`, which must come in time.
pub async fn within<F: Future>(what: &str, future: F) -> F::Output {
    match tokio::time::timeout(DEADLINE, future).await {
        Ok(output) => output,
        Err(_) => panic!("waited {DEADLINE:?} in vain: {what}"),
    }
}
