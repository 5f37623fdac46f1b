//! One shop that keeps its session in five ways. The app is the same in all; what differs is a
//! file each: [`memory`], [`replicated`], [`central`], [`token`], [`signed`].
//!
//! Start at [`replica`], the shop as a process. Users are in [`shopper`], and [`database`] is the
//! one place for products, users and orders, which every strategy shares.

pub mod central;
pub mod crowd;
pub mod database;
pub mod memory;
mod pages;
pub mod replicated;
mod sessions;
pub mod shopper;
pub mod signed;
pub mod token;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::Semaphore;

pub use self::sessions::{Cart, Kept, Line, Refusal, Session, Sessions, Who, wait_for_peers};
pub use self::shopper::{Notice, Shopper, Visit};
use crate::harness::child::{self, Role};
use crate::harness::http::Http;
use crate::harness::{Balancer, Outcome, Replica, Setup, Stage};
use crate::store::client::Link;

/// The shop's processes.
pub const ROLES: &[(&str, Role)] =
    &[("shop", |setup| Box::pin(replica(setup))), ("database", |setup| Box::pin(database::serve(setup)))];

/// Where the session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
pub enum Strategy {
    /// In the memory of the replica that began it.
    Memory,
    /// In the memory of every replica.
    Replicated,
    /// In the store.
    Central,
    /// In a signed token; the cart stays with the client.
    Token,
    /// All of it with the client: identity in a signed cookie, the cart in its storage.
    Client,
}

impl Strategy {
    pub fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Replicated => "replicated",
            Self::Central => "central store",
            Self::Token => "JWT",
            Self::Client => "client-side",
        }
    }

    /// Whether the cart is with the client, who sends it along.
    pub fn keeps_cart_with_client(self) -> bool {
        matches!(self, Self::Token | Self::Client)
    }

    /// The file that is this strategy, to count its lines.
    pub fn source(self) -> &'static str {
        match self {
            Self::Memory => include_str!("memory.rs"),
            Self::Replicated => include_str!("replicated.rs"),
            Self::Central => include_str!("central.rs"),
            Self::Token => include_str!("token.rs"),
            Self::Client => include_str!("signed.rs"),
        }
    }
}

/// How a replica of the shop is set up. Peers of a replicated one are told by
/// [`wait_for_peers`], when all have an address.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Order {
    pub strategy: Strategy,
    /// Told by [`Stand::open`].
    pub database: SocketAddr,
    /// `redis://…`, for the central store.
    pub store: Option<String>,
    pub link: Link,
    /// Keeps copies of sessions for [`scaled::CACHE_MINUTE`](crate::harness::stage::scaled).
    pub local_copies: bool,
    /// How long a session lives after its last use.
    pub session_life: Duration,
    /// How long a token is good for.
    pub token_life: Duration,
    /// Replicated: whether a write is answered only when every peer has it.
    pub replicate_first: bool,
    pub capacity: Capacity,
}

impl Order {
    /// The shop as the scaling chapter runs it.
    pub fn new(strategy: Strategy) -> Self {
        Self {
            strategy,
            database: SocketAddr::from(([127, 0, 0, 1], 0)),
            store: None,
            link: Link::Multiplexed,
            local_copies: false,
            session_life: Duration::from_secs(3600),
            token_life: Duration::from_secs(24 * 3600),
            replicate_first: true,
            capacity: Capacity::default(),
        }
    }
}

/// What a replica can do at once. Two cores cannot show that more processes do more work, so each
/// replica works for a stated time on a stated number of requests: a model of a busy one.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Capacity {
    pub at_once: usize,
    pub each: Duration,
}

impl Default for Capacity {
    fn default() -> Self {
        Self { at_once: 4, each: Duration::from_millis(10) }
    }
}

impl Capacity {
    /// As fast as the machine can.
    pub const UNLIMITED: Self = Self { at_once: 1024, each: Duration::ZERO };
}

/// What every handler sees.
struct Shop {
    sessions: Sessions,
    database: database::Client,
    capacity: Capacity,
    permits: Semaphore,
}

impl Shop {
    /// Takes the time that a request's work takes.
    async fn work(&self) {
        let _permit = self.permits.acquire().await.expect("it is never closed");
        if !self.capacity.each.is_zero() {
            tokio::time::sleep(self.capacity.each).await;
        }
    }
}

/// A shop with its replicas, its database, and Pintle in front.
pub struct Stand {
    pub replicas: Vec<Replica>,
    pub database: Replica,
    pub balancer: Balancer,
    pub order: Order,
}

impl Stand {
    /// Opens with so many replicas, called `r1`, `r2` and so on. `BACKENDS` in `toml` becomes them.
    pub async fn open(stage: &Stage, order: Order, replicas: usize, toml: &str) -> Outcome<Self> {
        let database = Replica::start("database", "database", ()).await?;
        let order = Order { database: database.address, ..order };
        let mut started = Vec::new();
        for number in 1..=replicas {
            started.push(Replica::start("shop", &format!("r{number}"), &order).await?);
        }
        wait_for_peers(order.strategy, &started).await?;
        let balancer = Balancer::start(stage, toml, &started).await?;
        Ok(Self { replicas: started, database, balancer, order })
    }

    /// One more replica; Pintle does not know of it yet.
    pub async fn add(&mut self) -> Outcome<()> {
        let name = format!("r{}", self.replicas.len() + 1);
        self.replicas.push(Replica::start("shop", &name, &self.order).await?);
        wait_for_peers(self.order.strategy, &self.replicas).await
    }

    /// What each replica counts.
    pub async fn counts(&self) -> Outcome<Vec<Value>> {
        let (http, mut counts) = (Http::default(), Vec::new());
        for replica in &self.replicas {
            counts.push(http.get(replica.address, "/counts").await?);
        }
        Ok(counts)
    }

    pub async fn close(self) {
        self.balancer.shutdown().await;
    }
}

/// The shop as a process of its own.
async fn replica(setup: Setup) -> Outcome<()> {
    let order: Order = setup.order()?;
    let shop = Arc::new(Shop {
        sessions: Sessions::new(&setup.name, &order).await?,
        database: database::Client::new(order.database),
        capacity: order.capacity,
        permits: Semaphore::new(order.capacity.at_once),
    });
    child::serve(setup, pages::app(shop)).await
}
