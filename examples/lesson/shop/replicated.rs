//! Strategy 2: every replica has every session. A write is sent to all peers over HTTP; of two
//! writes to one session the one with the later stamp wins, and the other is lost.
//!
//! Start at [`Replicated::write`].

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::sessions::{Cart, Refusal, Session, Who, new_id};
use crate::harness::Outcome;
use crate::harness::http::Http;

/// A version and who wrote it. Of equal versions the later name wins, the same on every replica.
type Stamp = (u64, String);

/// What is sent to a peer. Without a session it has ended, and is kept, so that a late write does
/// not bring it back.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Write {
    id: String,
    stamp: Stamp,
    /// What the writer knew of this session until then.
    replaces: Option<Stamp>,
    session: Option<Session>,
}

impl Write {
    fn is_end(&self) -> bool {
        self.session.is_none()
    }
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
    received: AtomicU64,
    /// Writes of this replica that were lost to a peer's that did not know of them.
    conflicts: AtomicU64,
    /// Microseconds from a write until the last peer has confirmed it.
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
            received: AtomicU64::new(0),
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

    /// Writes here, and then at every peer.
    async fn write(&self, id: &str, session: Option<Session>) {
        let write = self.stamp(id, session);
        let spread = self.clone().spread(write);
        if self.0.first {
            spread.await;
        } else {
            tokio::spawn(spread);
        }
    }

    /// Reads the version and writes the next under one lock, so that two writes that come to this
    /// replica at once get two stamps: with one stamp, peers would drop the second. A session that
    /// has ended stays so, whatever was on its way; ids are never used again.
    fn stamp(&self, id: &str, session: Option<Session>) -> Write {
        self.0.writes.fetch_add(1, Relaxed);
        let mut known = lock(&self.0.known);
        let mine = known.get(id);
        let session = if mine.is_some_and(Write::is_end) { None } else { session };
        let replaces = mine.map(|mine| mine.stamp.clone());
        let version = replaces.as_ref().map_or(1, |(version, _)| version + 1);
        let write = Write { id: id.into(), stamp: (version, self.0.name.clone()), replaces, session };
        known.insert(id.into(), write.clone());
        write
    }

    /// Sends a write to every peer: N - 1 messages. A peer that is gone has missed it.
    async fn spread(self, write: Write) {
        let (began, peers) = (Instant::now(), lock(&self.0.peers).clone());
        self.0.messages.fetch_add(peers.len() as u64, Relaxed);
        let mut sent = JoinSet::new();
        for peer in peers {
            let (http, write) = (self.0.http.clone(), write.clone());
            sent.spawn(async move { http.post(peer, "/replicate", &write).await.is_ok() });
        }
        let all_have_it = sent.join_all().await.into_iter().all(|confirmed| confirmed);
        let mut lags = lock(&self.0.lags);
        if all_have_it && lags.len() < LAGS {
            lags.push(began.elapsed().as_micros() as u64);
        }
    }

    /// A peer's write arrives, once or again, in order or not: the later stamp stays, and an end
    /// stays whatever its stamp.
    pub fn receive(&self, write: Write) {
        self.0.received.fetch_add(1, Relaxed);
        let mut known = lock(&self.0.known);
        let Some(mine) = known.get(&write.id) else {
            known.insert(write.id.clone(), write);
            return;
        };
        if (write.is_end(), &write.stamp) <= (mine.is_end(), &mine.stamp) {
            return;
        }
        let unseen = write.replaces.as_ref() < Some(&mine.stamp);
        if unseen && mine.stamp.1 == self.0.name {
            self.0.conflicts.fetch_add(1, Relaxed);
        }
        known.insert(write.id.clone(), write);
    }

    /// Learns who the peers are, and what they know.
    pub async fn meet(&self, peers: Vec<SocketAddr>) -> Outcome<()> {
        *lock(&self.0.peers) = peers.clone();
        for peer in peers {
            let all = self.0.http.get(peer, "/sessions").await?;
            for write in serde_json::from_value::<Vec<Write>>(all)? {
                self.receive(write);
            }
        }
        Ok(())
    }

    pub fn all(&self) -> Vec<Write> {
        lock(&self.0.known).values().cloned().collect()
    }

    pub fn counts(&self) -> Value {
        let sessions = lock(&self.0.known).values().filter(|write| write.session.is_some()).count();
        json!({
            "sessions": sessions,
            "writes": self.0.writes.load(Relaxed),
            "received": self.0.received.load(Relaxed),
            "messages": self.0.messages.load(Relaxed),
            "conflicts": self.0.conflicts.load(Relaxed),
            "lag_micros": *lock(&self.0.lags),
        })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
