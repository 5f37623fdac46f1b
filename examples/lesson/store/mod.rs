//! The central store: a real Redis, or a small server that speaks its protocol.

pub mod client;

use crate::harness::Outcome;

/// Where the store comes from.
#[derive(Clone, Debug)]
pub enum Source {
    /// A child of this example.
    Embedded,
    /// `REDIS_URL`.
    Redis(String),
}

/// A running store.
pub struct Store {
    url: String,
}

impl Store {
    /// An empty store.
    pub async fn open(source: &Source) -> Outcome<Self> {
        match source {
            Source::Embedded => Err("not yet".into()),
            Source::Redis(url) => Ok(Self { url: url.clone() }),
        }
    }

    /// Where clients connect: `redis://…`.
    pub fn url(&self) -> &str {
        &self.url
    }
}
