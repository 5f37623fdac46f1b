//! The sticky cookie on its way in and out: what a request shows, and what its answer sets.
//!
//! A verified token is remembered per connection for one generation and compared byte by byte
//! from then on; its times are checked each time.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use http::{HeaderMap, HeaderValue};

use crate::pool::affinity::{Refused, Token, new_session};
use crate::pool::backend::Post;
use crate::pool::{Claim, Pool};
use crate::telemetry::Stick;

/// What one connection remembers of the last valid token that it showed.
#[derive(Default)]
pub struct Memory(RefCell<Option<Remembered>>);

struct Remembered {
    pool: Arc<Pool>,
    text: Box<[u8]>,
    token: Rc<Token>,
}

/// What a request showed.
#[derive(Clone)]
pub enum Shown {
    Nothing,
    Token(Rc<Token>),
    Refused(Refused),
}

impl Shown {
    pub fn claim(&self) -> Claim<'_> {
        match self {
            Self::Nothing => Claim::None,
            Self::Token(token) => Claim::Token(token),
            Self::Refused(refused) => Claim::Refused(*refused),
        }
    }
}

impl Memory {
    /// Reads and verifies the pool's cookie. `now` in seconds since 1970.
    pub fn read(&self, pool: &Arc<Pool>, headers: &HeaderMap, now: u64) -> Shown {
        let Some(text) = pool.affinity.find(headers) else { return Shown::Nothing };
        if let Some(known) = &*self.0.borrow()
            && *known.text == *text
            // Another generation is another pool: its keys may differ.
            && Arc::ptr_eq(&known.pool, pool)
        {
            return match pool.affinity.expired(&known.token, now) {
                false => Shown::Token(known.token.clone()),
                true => Shown::Refused(Refused::Expired),
            };
        }
        match pool.affinity.open(text, now) {
            Ok(token) => {
                let token = Rc::new(token);
                let known = Remembered { pool: pool.clone(), text: text.into(), token: token.clone() };
                self.0.replace(Some(known));
                Shown::Token(token)
            }
            Err(refused) => Shown::Refused(refused),
        }
    }
}

/// Notes the visit, and makes the cookie that the answer sets, if it sets one.
pub fn stamp(
    pool: &Pool,
    post: &Post,
    shown: &Shown,
    stick: Stick,
    now: u64,
    tls: bool,
) -> Option<HeaderValue> {
    let token = match (shown, stick) {
        (Shown::Token(token), Stick::Valid) => {
            post.seen(token.session, now, pool.session_window());
            if !pool.affinity.renew_due(token, now) {
                return None;
            }
            token.seen_at(now)
        }
        // Dealt anew, but still the same session, with the same first visit.
        (Shown::Token(token), _) => token.moved_to(&*post.vitals.name, now),
        _ => Token::new(&*post.vitals.name, new_session(), now),
    };
    post.seen(token.session, now, pool.session_window());
    Some(pool.affinity.set_cookie(&token, now, tls))
}

/// Seconds since 1970.
pub fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
