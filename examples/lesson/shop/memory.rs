//! Strategy 1: the session is in the memory of the replica that began it. Fast and simple, and
//! gone with the process.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use super::sessions::{Cart, Refusal, Session, Who, new_id};

#[derive(Default)]
pub struct Memory(Mutex<HashMap<String, Session>>);

impl Memory {
    pub fn begin(&self, who: Who) -> String {
        let id = new_id();
        self.map().insert(id.clone(), Session { who, cart: Cart::new() });
        id
    }

    pub fn find(&self, id: &str) -> Result<Session, Refusal> {
        self.map().get(id).cloned().ok_or(Refusal::NotLoggedIn)
    }

    pub fn keep(&self, id: &str, session: Session) {
        self.map().insert(id.to_owned(), session);
    }

    pub fn end(&self, id: &str) {
        self.map().remove(id);
    }

    pub fn len(&self) -> usize {
        self.map().len()
    }

    fn map(&self) -> std::sync::MutexGuard<'_, HashMap<String, Session>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
