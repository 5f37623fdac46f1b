//! A connection to the store that knows whether it is still open.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use redis::aio::{MultiplexedConnection, PubSub};
use redis::{AsyncConnectionConfig, Cmd, ConnectionInfo, IntoConnectionInfo, Pipeline, RedisResult, Value};
use tokio::net::TcpStream;

use super::PATIENCE;
use crate::harness::Outcome;
use crate::store::relay::Place;

/// Where connections lead, and how many there were.
#[derive(Clone)]
pub struct Target {
    address: String,
    info: ConnectionInfo,
    opened: Arc<AtomicU64>,
}

/// Clones share it: their commands wait in line.
#[derive(Clone)]
pub struct Connection {
    inner: MultiplexedConnection,
    /// Cleared by whoever notices first: the task that reads from it, or a call that failed on it.
    open: Arc<AtomicBool>,
    /// When it was last given back to its pool.
    pub used: Instant,
}

impl Target {
    pub fn of(url: &str, opened: Arc<AtomicU64>) -> Outcome<Self> {
        Ok(Self { address: Place::of(url)?.address, info: url.into_connection_info()?, opened })
    }

    pub async fn open(&self) -> Outcome<Connection> {
        tokio::time::timeout(PATIENCE, async {
            let config = AsyncConnectionConfig::new().set_response_timeout(Some(PATIENCE));
            let (stream, settings) = (self.stream().await?, self.info.redis_settings());
            let (inner, driver) = MultiplexedConnection::new_with_config(settings, stream, config).await?;
            let open = Arc::new(AtomicBool::new(true));
            let closed = open.clone();
            // Ends when the store closes the connection, or when the last clone is dropped.
            tokio::spawn(async move {
                driver.await;
                closed.store(false, Ordering::Release);
            });
            Ok(Connection { inner, open, used: Instant::now() })
        })
        .await?
    }

    /// A connection that is only told what is published.
    pub async fn listen(&self) -> Outcome<PubSub> {
        tokio::time::timeout(PATIENCE, async {
            Ok(PubSub::new(self.info.redis_settings(), self.stream().await?).await?)
        })
        .await?
    }

    async fn stream(&self) -> Outcome<TcpStream> {
        let stream = TcpStream::connect(&self.address).await?;
        stream.set_nodelay(true)?;
        self.opened.fetch_add(1, Ordering::Relaxed);
        Ok(stream)
    }
}

impl Connection {
    pub fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }

    /// How long an answer may take. Clones have their own.
    pub fn set_patience(&mut self, patience: Duration) {
        self.inner.set_response_timeout(patience);
    }

    pub async fn run(&mut self, command: &Cmd) -> RedisResult<Value> {
        let answer = command.query_async(&mut self.inner).await;
        self.judge(answer)
    }

    pub async fn pipeline(&mut self, pipeline: &Pipeline) -> RedisResult<Value> {
        let answer = pipeline.query_async(&mut self.inner).await;
        self.judge(answer)
    }

    /// A connection on which an answer did not come is not used again.
    fn judge(&self, answer: RedisResult<Value>) -> RedisResult<Value> {
        if let Err(error) = &answer
            && (error.is_io_error() || error.is_timeout() || error.is_unrecoverable_error())
        {
            self.open.store(false, Ordering::Release);
        }
        answer
    }
}
