//! What one shop knows: its hits, its sessions, whether it is well.
//!
//! Start at [`Shop`]. No sockets and no HTTP here.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;

use tokio::sync::watch;

/// Sessions that a shop remembers; the oldest makes room.
pub const MAX_SESSIONS: usize = 10_000;
/// Things in one cart.
pub const MAX_CART: usize = 50;
/// Characters of a user's or a thing's name.
pub(super) const MAX_NAME: usize = 40;

/// One backend's memory. A crash loses it: who starts the backend again makes a new one.
pub struct Shop {
    name: String,
    hits: Cell<u64>,
    well: Cell<bool>,
    sessions: RefCell<Sessions>,
    crashed: watch::Sender<bool>,
}

#[derive(Default)]
struct Sessions {
    opened: u64,
    by_id: HashMap<String, Session>,
}

struct Session {
    /// Which log-in this was, counted from the shop's start.
    number: u64,
    user: String,
    cart: Vec<String>,
}

/// Who a session cookie stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Visitor {
    Known {
        user: String,
        cart: Vec<String>,
    },
    /// Has a session, but in another backend's memory.
    Stranger,
    /// Has no session.
    Nobody,
}

/// Why a cart did not take a thing.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refused {
    NotLoggedIn,
    CartFull,
}

impl Shop {
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            hits: Cell::new(0),
            well: Cell::new(true),
            sessions: RefCell::default(),
            crashed: watch::Sender::new(false),
        }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// How many sessions would be lost with this shop.
    pub fn sessions(&self) -> usize {
        self.sessions.borrow().by_id.len()
    }

    /// Whether its probe is answered with 200.
    pub fn is_well(&self) -> bool {
        self.well.get()
    }

    pub fn set_well(&self, well: bool) {
        self.well.set(well);
    }

    /// Ends `serve` as a crash would: the listener is gone and every connection is reset.
    pub fn crash(&self) {
        self.crashed.send_replace(true);
    }

    pub(super) fn crashed(&self) -> watch::Receiver<bool> {
        self.crashed.subscribe()
    }

    pub(super) fn hits(&self) -> u64 {
        self.hits.get()
    }

    pub(super) fn count_hit(&self) {
        self.hits.set(self.hits.get() + 1);
    }

    /// A new session under an id that nobody has seen before.
    pub(super) fn log_in(&self, id: String, user: String) {
        let mut sessions = self.sessions.borrow_mut();
        if sessions.by_id.len() >= MAX_SESSIONS {
            let oldest = sessions.by_id.iter().min_by_key(|(_, session)| session.number);
            if let Some(oldest) = oldest.map(|(id, _)| id.clone()) {
                sessions.by_id.remove(&oldest);
            }
        }
        sessions.opened += 1;
        let session = Session { number: sessions.opened, user, cart: Vec::new() };
        sessions.by_id.insert(id, session);
    }

    /// Forgets a session and says whose it was.
    pub(super) fn log_out(&self, id: &str) -> Option<String> {
        self.sessions.borrow_mut().by_id.remove(id).map(|session| session.user)
    }

    pub(super) fn visitor(&self, id: Option<&str>) -> Visitor {
        let Some(id) = id else { return Visitor::Nobody };
        match self.sessions.borrow().by_id.get(id) {
            Some(session) => Visitor::Known { user: session.user.clone(), cart: session.cart.clone() },
            None => Visitor::Stranger,
        }
    }

    pub(super) fn add(&self, id: Option<&str>, item: String) -> Result<(), Refused> {
        let mut sessions = self.sessions.borrow_mut();
        let session = id.and_then(|id| sessions.by_id.get_mut(id)).ok_or(Refused::NotLoggedIn)?;
        if session.cart.len() >= MAX_CART {
            return Err(Refused::CartFull);
        }
        session.cart.push(item);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_session_makes_room() {
        let shop = Shop::new("b1");
        for n in 0..=MAX_SESSIONS {
            shop.log_in(n.to_string(), "ann".to_owned());
        }
        assert_eq!(shop.sessions(), MAX_SESSIONS);
        assert_eq!(shop.visitor(Some("0")), Visitor::Stranger);
        assert_ne!(shop.visitor(Some("1")), Visitor::Stranger);
    }

    #[test]
    fn a_cart_takes_fifty_things() {
        let shop = Shop::new("b1");
        shop.log_in("id".to_owned(), "ann".to_owned());
        for _ in 0..MAX_CART {
            assert_eq!(shop.add(Some("id"), "tea".to_owned()), Ok(()));
        }
        assert_eq!(shop.add(Some("id"), "tea".to_owned()), Err(Refused::CartFull));
        assert_eq!(shop.add(Some("other"), "tea".to_owned()), Err(Refused::NotLoggedIn));
    }
}
