//! Strategy 2: every replica has every session. A write is sent to all peers over HTTP; of two
//! writes to one session the one with the higher version wins, and of equals the later name.
//!
//! Start at [`Replicated::write`].

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::sessions::{Cart, Refusal, Session, Who, new_id};
use crate::harness::Outcome;
use crate::harness::http::Http;

/// What is sent to a peer. Without a session it has ended; the version stays, so that a late write
/// does not bring it back.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Write {
    id: String,
    version: u64,
    by: String,
    session: Option<Session>,
    /// When it was written, in microseconds since 1970: all replicas are on one machine.
    at: u64,
}

#[derive(Clone)]
pub struct Replicated(Arc<Shared>);

struct Shared {
    name: String,
    /// Whether a write is answered only when every peer has it.
    first: bool,
    http: Http,
    known: Mutex<HashMap<String, Write>>,
    peers: Mutex<Vec<SocketAddr>>,
    messages: AtomicU64,
    writes: AtomicU64,
    /// Two writes that did not know of each other: one of them is lost.
    conflicts: AtomicU64,
    /// Microseconds from the write to its arrival here, all together and of the last ones.
    lags: Mutex<Vec<u64>>,
}

/// How many lags are kept.
const LAGS: usize = 10_000;

impl Replicated {
    pub fn new(name: &str, first: bool) -> Self {
        Self(Arc::new(Shared {
            name: name.into(),
            first,
            http: Http::default(),
            known: Mutex::default(),
            peers: Mutex::default(),
            messages: AtomicU64::new(0),
            writes: AtomicU64::new(0),
            conflicts: AtomicU64::new(0),
            lags: Mutex::default(),
        }))
    }

    pub async fn begin(&self, who: Who) -> String {
        let id = new_id();
        self.write(&id, Some(Session { who, cart: Cart::new() })).await;
        id
    }

    pub fn find(&self, id: &str) -> Result<Session, Refusal> {
        let known = lock(&self.0.known);
        known.get(id).and_then(|write| write.session.clone()).ok_or(Refusal::NotLoggedIn)
    }

    pub async fn keep(&self, id: &str, session: Session) {
        self.write(id, Some(session)).await;
    }

    pub async fn end(&self, id: &str) {
        self.write(id, None).await;
    }

    /// Writes here and sends it to every peer: N - 1 messages. A peer that is gone has missed it.
    async fn write(&self, id: &str, session: Option<Session>) {
        let version = lock(&self.0.known).get(id).map_or(1, |known| known.version + 1);
        let by = self.0.name.clone();
        let write = Write { id: id.into(), version, by, session, at: now() };
        lock(&self.0.known).insert(id.into(), write.clone());
        self.0.writes.fetch_add(1, Relaxed);

        let peers = lock(&self.0.peers).clone();
        self.0.messages.fetch_add(peers.len() as u64, Relaxed);
        let mut sent = JoinSet::new();
        for peer in peers {
            let (http, write) = (self.0.http.clone(), write.clone());
            sent.spawn(async move { http.post(peer, "/replicate", &write).await.map(drop).is_ok() });
        }
        if self.0.first {
            sent.join_all().await;
        } else {
            sent.detach_all();
        }
    }

    /// A peer's write arrives.
    pub fn receive(&self, write: Write) {
        let mut known = lock(&self.0.known);
        if let Some(mine) = known.get(&write.id) {
            if mine.version == write.version && mine.by != write.by {
                self.0.conflicts.fetch_add(1, Relaxed);
            }
            if (mine.version, &mine.by) >= (write.version, &write.by) {
                return;
            }
        }
        let mut lags = lock(&self.0.lags);
        if lags.len() < LAGS {
            lags.push(now().saturating_sub(write.at));
        }
        known.insert(write.id.clone(), write);
    }

    /// Learns who the peers are, and what they know.
    pub async fn meet(&self, peers: Vec<SocketAddr>) -> Outcome<()> {
        *lock(&self.0.peers) = peers.clone();
        for peer in peers {
            let all = self.0.http.get(peer, "/sessions").await?;
            for write in serde_json::from_value::<Vec<Write>>(all)? {
                self.learn(write);
            }
        }
        Ok(())
    }

    /// As [`receive`](Self::receive), for what is no news.
    fn learn(&self, write: Write) {
        let mut known = lock(&self.0.known);
        let newer = |mine: &Write| (mine.version, &mine.by) >= (write.version, &write.by);
        if !known.get(&write.id).is_some_and(newer) {
            known.insert(write.id.clone(), write);
        }
    }

    pub fn all(&self) -> Vec<Write> {
        lock(&self.0.known).values().cloned().collect()
    }

    pub fn counts(&self) -> Value {
        let sessions = lock(&self.0.known).values().filter(|write| write.session.is_some()).count();
        json!({
            "sessions": sessions,
            "writes": self.0.writes.load(Relaxed),
            "messages": self.0.messages.load(Relaxed),
            "conflicts": self.0.conflicts.load(Relaxed),
            "lag_micros": *lock(&self.0.lags),
        })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
}
