//! Strategy 3: sessions are in the store, under `session:{id}`, for an hour after their last use.
//! Every replica reads the same; none remembers anything.
//!
//! With `local_copies` a replica believes a copy of its own for a while: faster, and no longer
//! quite stateless.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use lru::LruCache;
use serde_json::{Value, json};

use super::Order;
use super::sessions::{Cart, Refusal, Session, Who, new_id};
use crate::harness::Outcome;
use crate::harness::stage::scaled::CACHE_MINUTE;
use crate::store::client::Client;

/// How many copies a replica keeps, as in the lesson.
const COPIES: NonZeroUsize = NonZeroUsize::new(1000).expect("not 0");

pub struct Central {
    store: Client,
    life: Duration,
    copies: Option<Mutex<LruCache<String, (Instant, Session)>>>,
    lookups: AtomicU64,
}

impl Central {
    pub async fn new(order: &Order) -> Outcome<Self> {
        let url = order.store.as_deref().ok_or("the central store needs an address")?;
        let copies = order.local_copies.then(|| Mutex::new(LruCache::new(COPIES)));
        let store = Client::connect(url, order.link).await?;
        Ok(Self { store, life: order.session_life, copies, lookups: AtomicU64::new(0) })
    }

    pub async fn begin(&self, who: Who) -> Result<String, Refusal> {
        let id = new_id();
        self.set(&id, Session { who, cart: Cart::new() }, "NX").await?;
        Ok(id)
    }

    /// `GETEX`: one message reads the session and renews it.
    pub async fn find(&self, id: &str) -> Result<Session, Refusal> {
        if let Some(copy) = self.copy(id) {
            return Ok(copy);
        }
        self.lookups.fetch_add(1, Relaxed);
        let mut get = redis::cmd("GETEX");
        get.arg(key(id)).arg("PX").arg(self.life.as_millis() as u64);
        let found: Option<String> = self.store.run(&get).await.map_err(|_| Refusal::Unavailable)?;
        let session: Session =
            found.and_then(|text| serde_json::from_str(&text).ok()).ok_or(Refusal::NotLoggedIn)?;
        self.remember(id, &session);
        Ok(session)
    }

    /// `XX`: a cart that changes while its owner logs out elsewhere does not bring the session back.
    pub async fn keep(&self, id: &str, session: Session) -> Result<(), Refusal> {
        self.set(id, session, "XX").await
    }

    async fn set(&self, id: &str, session: Session, only_if: &str) -> Result<(), Refusal> {
        let text = serde_json::to_string(&session).expect("plain values can be written as JSON");
        let mut set = redis::cmd("SET");
        set.arg(key(id)).arg(text).arg("PX").arg(self.life.as_millis() as u64).arg(only_if);
        let done: Option<String> = self.store.run(&set).await.map_err(|_| Refusal::Unavailable)?;
        done.ok_or(Refusal::NotLoggedIn)?;
        self.remember(id, &session);
        Ok(())
    }

    pub async fn end(&self, id: &str) -> Result<(), Refusal> {
        if let Some(mut copies) = self.copies() {
            copies.pop(id);
        }
        self.store.run::<()>(redis::cmd("DEL").arg(key(id))).await.map_err(|_| Refusal::Unavailable)
    }

    /// A copy that is still believed, right or wrong.
    fn copy(&self, id: &str) -> Option<Session> {
        let mut copies = self.copies()?;
        let (since, session) = copies.get(id)?;
        (since.elapsed() < CACHE_MINUTE).then(|| session.clone())
    }

    fn remember(&self, id: &str, session: &Session) {
        if let Some(mut copies) = self.copies() {
            copies.put(id.to_owned(), (Instant::now(), session.clone()));
        }
    }

    fn copies(&self) -> Option<MutexGuard<'_, LruCache<String, (Instant, Session)>>> {
        self.copies.as_ref().map(|copies| copies.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn counts(&self) -> Value {
        let copies = self.copies().map_or(0, |copies| copies.len());
        json!({
            "sessions": copies,
            "lookups": self.lookups.load(Relaxed),
            "connections": self.store.connections_opened(),
        })
    }
}

fn key(id: &str) -> String {
    format!("session:{id}")
}
