//! A door between replicas and their store that can be closed, and that can make the store answer
//! later than it does. Start at [`Relay`].

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::http::Uri;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

use crate::harness::Outcome;

/// How many connections pass at once; more wait at the door.
const CONNECTIONS_MAX: usize = 1024;
/// What is read at once.
const CHUNK: usize = 64 << 10;
/// How many chunks of a connection may be on their way.
const CHUNKS_MAX: usize = 64;
/// How long a store may take to accept a connection.
const CONNECT: Duration = Duration::from_millis(500);
/// How long no connection is accepted after one could not be.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);

/// Where a `redis://` URL leads.
pub struct Place {
    /// Name and password with their `@`, or nothing.
    user: String,
    /// Host and port.
    pub address: String,
    /// The database: `/9`, or `/`.
    pub path: String,
}

impl Place {
    pub fn of(url: &str) -> Outcome<Self> {
        let wrong = || format!("`{url}` is no address of a Redis; one is redis://127.0.0.1:6379/9");
        let uri: Uri = url.parse().map_err(|_| wrong())?;
        let authority = uri.authority().filter(|_| uri.scheme_str() == Some("redis")).ok_or_else(wrong)?;
        let user = authority.as_str().rfind('@').map_or("", |at| &authority.as_str()[..=at]);
        let address = format!("{}:{}", authority.host(), authority.port_u16().unwrap_or(6379));
        let path = uri.path_and_query().map_or_else(|| "/".into(), ToString::to_string);
        Ok(Self { user: user.into(), address, path })
    }

    /// The same store by another address, as a URL.
    pub fn at(&self, address: SocketAddr) -> String {
        format!("redis://{}{address}{}", self.user, self.path)
    }
}

/// Takes connections on loopback and passes them on to a store.
pub struct Relay {
    address: SocketAddr,
    store: String,
    delay: Duration,
    /// Owns all connections; ended when the door is closed.
    door: Option<Door>,
}

struct Door(JoinHandle<()>);

impl Drop for Door {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Relay {
    /// Opens a door to a store. What the store says arrives `delay` later than it said it, whatever
    /// else is on its way: the delay of a longer wire, not of a slower store. The runtime's timer
    /// rounds it up to the next millisecond.
    pub async fn to(url: &str, delay: Duration) -> Outcome<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let mut relay = Self { address, store: Place::of(url)?.address, delay, door: None };
        relay.open(listener);
        Ok(relay)
    }

    /// The URL of the store, through this door.
    pub fn url_for(&self, url: &str) -> Outcome<String> {
        Ok(Place::of(url)?.at(self.address))
    }

    /// Ends all connections and refuses new ones.
    pub fn stop(&mut self) {
        self.door = None;
    }

    /// Opens the same door again.
    pub async fn start(&mut self) -> Outcome<()> {
        /// How long the closed door may take to be gone.
        const PATIENCE: Duration = Duration::from_secs(2);
        if self.door.is_some() {
            return Ok(());
        }
        let patience = Instant::now() + PATIENCE;
        loop {
            match TcpListener::bind(self.address).await {
                Ok(listener) => break self.open(listener),
                Err(error) if Instant::now() > patience => return Err(error.into()),
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            }
        }
        Ok(())
    }

    fn open(&mut self, listener: TcpListener) {
        self.door = Some(Door(tokio::spawn(accept(listener, self.store.clone(), self.delay))));
    }
}

/// Owns the connections, so that they end with it.
async fn accept(listener: TcpListener, store: String, delay: Duration) {
    let seats = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(seat) = seats.clone().acquire_owned().await else { return };
        let Ok((client, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let store = store.clone();
        connections.spawn(async move {
            // Whatever goes wrong, both sides see their connection end.
            let _ = pass(client, &store, delay).await;
            drop(seat);
        });
    }
}

async fn pass(client: TcpStream, store: &str, delay: Duration) -> Outcome<()> {
    let store = tokio::time::timeout(CONNECT, TcpStream::connect(store)).await??;
    client.set_nodelay(true)?;
    store.set_nodelay(true)?;
    let ((from_client, to_client), (from_store, to_store)) = (client.into_split(), store.into_split());
    tokio::select! {
        ended = carry(from_client, to_store, Duration::ZERO) => ended,
        ended = carry(from_store, to_client, delay) => ended,
    }
}

/// Carries chunks one way. Each leaves `delay` after it came, so that they do not wait for each other.
async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, delay: Duration) -> Outcome<()> {
    if delay.is_zero() {
        tokio::io::copy(&mut from, &mut to).await?;
        return Ok(());
    }
    let (come, mut go) = mpsc::channel::<(Instant, Bytes)>(CHUNKS_MAX);
    let read = async move {
        let mut chunk = vec![0; CHUNK];
        loop {
            let size = from.read(&mut chunk).await?;
            let leaves = Instant::now() + delay;
            let chunk = Bytes::copy_from_slice(&chunk[..size]);
            if size == 0 || come.send((leaves, chunk)).await.is_err() {
                return Outcome::Ok(());
            }
        }
    };
    let write = async move {
        while let Some((leaves, chunk)) = go.recv().await {
            tokio::time::sleep_until(leaves).await;
            to.write_all(&chunk).await?;
        }
        Outcome::Ok(())
    };
    tokio::try_join!(read, write).map(drop)
}
