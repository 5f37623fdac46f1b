//! The embedded store: a small server that speaks the protocol of Redis, as a process of its own.
//!
//! Start at [`Shared::run`], through which every command passes, one at a time, as in Redis. What a
//! connection does is in [`session`](super::session), what commands mean in
//! [`commands`](super::commands), and what is stored in [`keyspace`](super::keyspace). It keeps
//! nothing on disk: a store that is killed comes back empty.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::commands::{self, Answer, Refusal};
use super::hub::Hub;
use super::keyspace::Keyspace;
use super::resp::Reply;
use super::session::Session;
use super::waiting::{Waiting, Wish};
use crate::harness::{Boxed, Outcome, Setup};

/// How many clients may be connected.
const CONNECTIONS_MAX: usize = 4096;
/// How often keys that have expired are looked for, and how many go at once.
const SWEEP_EVERY: Duration = Duration::from_millis(100);
const SWEEP_MAX: usize = 1000;
/// How long no connection is accepted after one could not be.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);

/// What the role of the embedded store does.
pub fn role(setup: Setup) -> Boxed<'static, Outcome<()>> {
    Box::pin(async move { serve(setup.listen().await?).await })
}

pub async fn serve(listener: TcpListener) -> Outcome<()> {
    let shared = Arc::new(Shared::default());
    tokio::spawn(sweep(shared.clone()));
    let seats = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok((mut stream, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let Ok(seat) = seats.clone().try_acquire_owned() else {
            let _ = stream.try_write(b"-ERR max number of clients reached\r\n");
            let _ = stream.shutdown().await;
            continue;
        };
        let shared = shared.clone();
        tokio::spawn(async move {
            // A connection that breaks is its client's affair.
            let _ = stream.set_nodelay(true);
            let _ = Session::new(shared, stream).serve().await;
            drop(seat);
        });
    }
}

async fn sweep(shared: Arc<Shared>) {
    let mut every = tokio::time::interval(SWEEP_EVERY);
    loop {
        every.tick().await;
        shared.lock().keys.sweep(Instant::now(), SWEEP_MAX);
    }
}

/// What all connections share.
#[derive(Default)]
pub struct Shared {
    state: Mutex<State>,
    clients: AtomicU64,
}

#[derive(Default)]
pub struct State {
    pub keys: Keyspace,
    pub hub: Hub,
    pub waiting: Waiting,
}

impl Shared {
    /// A number that no other client has.
    pub fn client(&self) -> u64 {
        self.clients.fetch_add(1, Ordering::Relaxed)
    }

    /// Never held while anything is awaited.
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no command panics")
    }

    /// Runs commands with nobody's in between. What they pushed goes to those who wait.
    pub fn run<'a>(&self, commands: impl IntoIterator<Item = &'a [Bytes]>) -> Vec<Reply> {
        let (mut state, now) = (self.lock(), Instant::now());
        let run = |words| state.run(words, now).unwrap_or_else(Reply::from);
        let replies = commands.into_iter().map(run).collect();
        let State { keys, waiting, .. } = &mut *state;
        waiting.serve(keys, now);
        replies
    }
}

impl State {
    fn run(&mut self, words: &[Bytes], now: Instant) -> Answer {
        if let Some((wish, _)) = Wish::read(words)? {
            // Between MULTI and EXEC there is no waiting.
            return Ok(wish.grant(&mut self.keys, now)?.unwrap_or_else(|| wish.nothing()));
        }
        match Extra::named(words) {
            Some(extra) => self.extra(extra?),
            None => commands::find(words)?(&mut self.keys, &words[1..], now),
        }
    }

    fn extra(&self, extra: Extra<'_>) -> Answer {
        Ok(match extra {
            Extra::Publish(channel, message) => Reply::count(self.hub.publish(channel, message)),
            Extra::Info => {
                let (used, keys, waiting) = (self.keys.used(), self.keys.len(), self.waiting.len());
                let mut info = "# Server\r\nserver_name:embedded\r\n".to_owned();
                info += &format!("# Clients\r\nblocked_clients:{waiting}\r\n");
                info += &format!("# Memory\r\nused_memory:{used}\r\n");
                info += &format!("# Keyspace\r\ndb0:keys={keys}\r\n");
                Reply::bulk(info)
            }
        })
    }

    /// Whether a command can be put aside until EXEC.
    pub fn check(words: &[Bytes]) -> Result<(), Refusal> {
        if Wish::read(words)?.is_some() {
            return Ok(());
        }
        match Extra::named(words) {
            Some(extra) => extra.map(drop),
            None => commands::find(words).map(drop),
        }
    }
}

/// Commands that need more than the keys.
enum Extra<'a> {
    Publish(&'a Bytes, &'a Bytes),
    /// All sections, whichever is asked for.
    Info,
}

impl<'a> Extra<'a> {
    fn named(words: &'a [Bytes]) -> Option<Result<Self, Refusal>> {
        let (name, words) = words.split_first()?;
        let name = name.to_ascii_lowercase();
        match (name.as_slice(), words) {
            (b"publish", [channel, message]) => Some(Ok(Self::Publish(channel, message))),
            (b"info", _) => Some(Ok(Self::Info)),
            (b"publish", _) => Some(Err(Refusal::words(&name))),
            _ => None,
        }
    }
}
