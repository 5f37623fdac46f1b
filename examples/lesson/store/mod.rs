//! The central store: a real Redis, or a small server that speaks its protocol.
//!
//! Start at [`Store`]. Replicas talk to it through [`client`]; the embedded server begins in
//! [`server`]; [`relay`] stands between, where a store must be stopped that is not ours to kill, or
//! is to answer later than it does.

pub mod client;
mod commands;
mod hub;
mod keyspace;
pub mod relay;
mod resp;
mod server;
mod session;
mod source;
#[cfg(test)]
mod tests;
mod waiting;

use std::time::Duration;

use redis::cmd;

pub use client::{Client, Link};
pub use relay::Relay;
pub use source::Source;

use crate::harness::child::Role;
use crate::harness::{Outcome, Replica};

/// What the store runs as a process of its own.
pub const ROLES: &[(&str, Role)] = &[("store", server::role)];

/// A running store.
pub struct Store {
    url: String,
    kind: Kind,
}

enum Kind {
    /// A child, that can be killed and has its own memory to be measured.
    Embedded(Replica),
    /// Somebody's Redis. Where it can be stopped, `url` leads through the relay.
    Redis { url: String, relay: Option<Relay> },
}

impl Store {
    /// An empty store.
    pub async fn open(source: &Source) -> Outcome<Self> {
        let Some(url) = source.url() else {
            let replica = Replica::start("store", "store", ()).await?;
            return Ok(Self { url: format!("redis://{}", replica.address), kind: Kind::Embedded(replica) });
        };
        let store = Self { url: url.into(), kind: Kind::Redis { url: url.into(), relay: None } };
        store.empty().await?;
        Ok(store)
    }

    /// An empty store that can be stopped. One that is not ours to kill is out of reach meanwhile.
    pub async fn open_stoppable(source: &Source) -> Outcome<Self> {
        let mut store = Self::open(source).await?;
        if let Kind::Redis { url, relay } = &mut store.kind {
            let door = Relay::to(url, Duration::ZERO).await?;
            store.url = door.url_for(url)?;
            *relay = Some(door);
        }
        Ok(store)
    }

    /// Where clients connect: `redis://…`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Ends every connection and takes no more. Opened by [`Store::open_stoppable`] only.
    pub fn stop(&mut self) -> Outcome<()> {
        match &mut self.kind {
            Kind::Embedded(replica) => replica.kill(),
            Kind::Redis { relay: Some(relay), .. } => relay.stop(),
            Kind::Redis { relay: None, .. } => return Err("this store was not opened to be stopped".into()),
        }
        Ok(())
    }

    /// Starts again where it was, with nothing in it.
    pub async fn start_empty(&mut self) -> Outcome<()> {
        if let Kind::Embedded(replica) = &mut self.kind {
            return replica.restart().await;
        }
        self.empty().await?;
        match &mut self.kind {
            Kind::Redis { relay: Some(relay), .. } => relay.start().await,
            _ => Err("this store was not opened to be stopped".into()),
        }
    }

    /// What it says its memory holds, in bytes. Redis counts its allocator's blocks and what every
    /// client takes; the embedded server adds up keys and values and estimates the rest.
    pub async fn memory(&self) -> Outcome<u64> {
        let info: String = self.ask(cmd("INFO").arg("memory")).await?;
        let used = source::field(&info, "used_memory").and_then(|used| used.parse().ok());
        used.ok_or_else(|| "the store does not tell what memory it uses".into())
    }

    /// Leaves nothing behind. A child ends by itself; a Redis is emptied.
    pub async fn close(self) -> Outcome<()> {
        match self.kind {
            Kind::Embedded(_) => Ok(()),
            Kind::Redis { .. } => self.empty().await,
        }
    }

    async fn empty(&self) -> Outcome<()> {
        self.ask(&cmd("FLUSHDB")).await
    }

    /// Asks the store itself, past the relay.
    async fn ask<T: redis::FromRedisValue>(&self, command: &redis::Cmd) -> Outcome<T> {
        let url = match &self.kind {
            Kind::Embedded(_) => &self.url,
            Kind::Redis { url, .. } => url,
        };
        Client::connect(url, Link::PerRequest).await?.run(command).await
    }
}
