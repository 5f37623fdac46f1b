//! How a replica talks to the store, in one of three ways. Start at [`Link`] and [`Client::run`].
//!
//! No command is ever sent twice: after an outage the first to come opens a new connection, and what
//! was on its way fails. Every wait is bounded, so that a replica can say 503 instead of hanging.

mod connection;
pub mod subscription;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use redis::{Cmd, FromRedisValue, Pipeline, Value};
use tokio::sync::{Mutex, Semaphore};

use self::connection::{Connection, Target};
use self::subscription::Subscription;
use crate::harness::Outcome;

/// How long a connection may take to open, an answer to come, and a free connection to be had.
pub const PATIENCE: Duration = Duration::from_millis(500);

/// How many calls may be made at once where connections do not limit them.
const CALLS_MAX: usize = 1024;
/// How long a pool keeps a connection that nobody needs and that it need not keep.
const SPARE: Duration = Duration::from_secs(2);

/// The ways to connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Link {
    /// A connection per call.
    PerRequest,
    /// As many as are needed at once, at most `max`; `min` stay open when nobody needs them, the
    /// others for a moment. Each serves one call at a time.
    Pool { min: usize, max: usize },
    /// One connection for all, which wait in line on it.
    Multiplexed,
}

impl Link {
    /// What the lesson says: min 5, max 20.
    pub const POOL: Self = Self::Pool { min: 5, max: 20 };
}

/// Cheap to clone; clones share their connections.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    target: Target,
    link: Link,
    /// Connections that nobody uses. The shared one stays here while it is used.
    idle: Mutex<Vec<Connection>>,
    /// How many calls may be made at once.
    seats: Semaphore,
    /// Connections on which somebody waits for a push, and then leaves them here.
    waiting: Mutex<Vec<Connection>>,
    opened: Arc<AtomicU64>,
}

impl Client {
    /// A client whose store answers.
    pub async fn connect(url: &str, link: Link) -> Outcome<Self> {
        let opened = Arc::<AtomicU64>::default();
        let target = Target::of(url, opened.clone())?;
        let seats = match link {
            Link::Pool { max, .. } => Semaphore::new(max),
            Link::PerRequest | Link::Multiplexed => Semaphore::new(CALLS_MAX),
        };
        let mut idle = Vec::new();
        let first = match link {
            Link::PerRequest => 0,
            Link::Multiplexed => 1,
            Link::Pool { min, .. } => min,
        };
        for _ in 0..first {
            idle.push(target.open().await?);
        }
        let (idle, waiting) = (Mutex::new(idle), Mutex::default());
        Ok(Self(Arc::new(Inner { target, link, idle, seats, waiting, opened })))
    }

    /// Runs a command and reads its answer.
    pub async fn run<T: FromRedisValue>(&self, command: &Cmd) -> Outcome<T> {
        let inner = &*self.0;
        let seat = tokio::time::timeout(PATIENCE, inner.seats.acquire()).await;
        let _seat = seat.map_err(|_| "no connection to the store became free in time")??;
        let mut connection = inner.take().await?;
        let value = connection.run(command).await;
        inner.give_back(connection).await;
        Ok(T::from_redis_value(value?)?)
    }

    /// Runs several commands in one round trip; with `pipeline.atomic()`, nobody's in between.
    pub async fn pipeline<T: FromRedisValue>(&self, pipeline: &Pipeline) -> Outcome<T> {
        let inner = &*self.0;
        let seat = tokio::time::timeout(PATIENCE, inner.seats.acquire()).await;
        let _seat = seat.map_err(|_| "no connection to the store became free in time")??;
        let mut connection = inner.take().await?;
        let value: redis::RedisResult<Value> = connection.pipeline(pipeline).await;
        inner.give_back(connection).await;
        Ok(T::from_redis_value(value?)?)
    }

    /// Runs a command that waits in the store, such as BLMOVE, for at most `longest`. It has a
    /// connection to itself, because whoever came behind it on that connection would wait too.
    pub async fn wait<T: FromRedisValue>(&self, command: &Cmd, longest: Duration) -> Outcome<T> {
        let inner = &*self.0;
        let kept = take_open(&mut *inner.waiting.lock().await);
        let mut connection = match kept {
            Some(connection) => connection,
            None => inner.target.open().await?,
        };
        connection.set_patience(longest + PATIENCE);
        let value = connection.run(command).await;
        if connection.is_open() {
            inner.waiting.lock().await.push(connection);
        }
        Ok(T::from_redis_value(value?)?)
    }

    /// Listens to channels; a name with a `*` in it is a pattern. Returns once the store has
    /// confirmed them, so what is published from then on arrives.
    pub async fn subscribe<S: Into<String>>(
        &self,
        channels: impl IntoIterator<Item = S>,
    ) -> Outcome<Subscription> {
        let channels = channels.into_iter().map(Into::into).collect();
        Subscription::start(self.0.target.clone(), channels).await
    }

    /// How many connections were opened so far, by this client and its clones.
    pub fn connections_opened(&self) -> u64 {
        self.0.opened.load(Ordering::Relaxed)
    }
}

impl Inner {
    /// A connection for one call. One that has broken meanwhile is not taken.
    async fn take(&self) -> Outcome<Connection> {
        if self.link == Link::PerRequest {
            return self.target.open().await;
        }
        let mut idle = self.idle.lock().await;
        let Some(connection) = take_open(&mut idle) else {
            if self.link == Link::Multiplexed {
                // Nobody else opens one meanwhile: they wait for this.
                let connection = self.target.open().await?;
                idle.push(connection.clone());
                return Ok(connection);
            }
            drop(idle);
            return self.target.open().await;
        };
        if self.link == Link::Multiplexed {
            idle.push(connection.clone());
        }
        Ok(connection)
    }

    /// The one that was used last is taken next, so those in front are not needed.
    async fn give_back(&self, mut connection: Connection) {
        let Link::Pool { min, .. } = self.link else { return };
        if !connection.is_open() {
            return;
        }
        connection.used = Instant::now();
        let mut idle = self.idle.lock().await;
        idle.push(connection);
        let spare = idle.len().saturating_sub(min);
        let stale = idle.iter().take(spare).take_while(|spare| spare.used.elapsed() > SPARE).count();
        idle.drain(..stale);
    }
}

fn take_open(connections: &mut Vec<Connection>) -> Option<Connection> {
    connections.retain(Connection::is_open);
    connections.pop()
}
