//! What seals TLS session tickets: keys that change every six hours, and that another process can
//! take over, so that an upgrade costs no client a new handshake.
//!
//! Start at [`Tickets`]. A ticket is the sealed session after the nonce that it was sealed with. It
//! opens under the key of its time and the one before, as long as it is valid.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::rand;
use rustls::server::ProducesTickets;

/// Seconds that a key seals; it opens as long again.
const KEY_LIFE: u64 = 6 * 60 * 60;

const KEY_BYTES: usize = 32;

/// One listener's ring. Kept over reloads: sessions go on, and no client pays for a new handshake
/// because somebody edited a file.
#[derive(Clone)]
pub struct Tickets(Arc<Ring>);

struct Ring(Mutex<Keys>);

struct Keys {
    current: Key,
    previous: Option<Key>,
    /// When the current one no longer seals, in seconds since 1970.
    until: u64,
}

struct Key {
    secret: Vec<u8>,
    cipher: RandomizedNonceKey,
}

/// The keys, for another process.
pub struct Told {
    /// The current one first, then the one before.
    pub secrets: Vec<Vec<u8>>,
    pub until: u64,
}

impl Tickets {
    pub fn generate() -> Result<Self, String> {
        let keys = Keys { current: Key::generate()?, previous: None, until: now() + KEY_LIFE };
        Ok(Self(Arc::new(Ring(Mutex::new(keys)))))
    }

    /// Those of another process; `None` where they are none.
    pub fn resume(told: &Told) -> Option<Self> {
        let mut keys = told.secrets.iter().map(|secret| Key::new(secret.clone()));
        let (current, previous) = (keys.next()??, keys.next().flatten());
        // No key lives longer because it has moved.
        let until = told.until.min(now() + KEY_LIFE);
        Some(Self(Arc::new(Ring(Mutex::new(Keys { current, previous, until })))))
    }

    pub fn told(&self) -> Told {
        let keys = self.0.keys(now());
        let secrets = [Some(&keys.current), keys.previous.as_ref()].into_iter().flatten();
        Told { secrets: secrets.map(|key| key.secret.clone()).collect(), until: keys.until }
    }

    pub fn producer(&self) -> Arc<dyn ProducesTickets> {
        self.0.clone()
    }
}

impl Key {
    fn new(secret: Vec<u8>) -> Option<Self> {
        let cipher = RandomizedNonceKey::new(&AES_256_GCM, &secret).ok()?;
        Some(Self { secret, cipher })
    }

    fn generate() -> Result<Self, String> {
        let mut secret = vec![0; KEY_BYTES];
        rand::fill(&mut secret).map_err(|_| "the system has no random bytes")?;
        Self::new(secret).ok_or_else(|| "the system has no AES".to_owned())
    }

    fn seal(&self, session: &[u8]) -> Option<Vec<u8>> {
        let mut sealed = session.to_vec();
        let nonce = self.cipher.seal_in_place_append_tag(Aad::empty(), &mut sealed).ok()?;
        Some([&nonce.as_ref()[..], &sealed].concat())
    }

    fn open(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (nonce, sealed) = ticket.split_at_checked(NONCE_LEN)?;
        let mut session = sealed.to_vec();
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let length = self.cipher.open_in_place(nonce, Aad::empty(), &mut session).ok()?.len();
        session.truncate(length);
        Some(session)
    }
}

impl Ring {
    /// The keys that hold now. One whose time is over makes room; after two such times none is left.
    fn keys(&self, now: u64) -> MutexGuard<'_, Keys> {
        // Every state of the ring is a valid one, so a panic elsewhere harms nothing.
        let mut keys = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if now >= keys.until
            && let Ok(next) = Key::generate()
        {
            let last = std::mem::replace(&mut keys.current, next);
            keys.previous = (now < keys.until + KEY_LIFE).then_some(last);
            keys.until = now + KEY_LIFE;
        }
        keys
    }
}

impl ProducesTickets for Ring {
    fn enabled(&self) -> bool {
        true
    }

    /// As long as its key opens it at all.
    fn lifetime(&self) -> u32 {
        u32::try_from(2 * KEY_LIFE).unwrap_or(u32::MAX)
    }

    fn encrypt(&self, session: &[u8]) -> Option<Vec<u8>> {
        self.keys(now()).current.seal(session)
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let keys = self.keys(now());
        keys.current.open(ticket).or_else(|| keys.previous.as_ref()?.open(ticket))
    }
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ring").finish_non_exhaustive()
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_opens_in_the_process_that_took_the_keys_over_and_in_no_other() {
        let old = Tickets::generate().unwrap();
        let ticket = old.0.encrypt(b"session").unwrap();
        let new = Tickets::resume(&old.told()).unwrap();
        assert_eq!(new.0.decrypt(&ticket).as_deref(), Some(&b"session"[..]));
        assert_eq!(old.0.decrypt(&new.0.encrypt(b"later").unwrap()).as_deref(), Some(&b"later"[..]));
        assert_eq!(Tickets::generate().unwrap().0.decrypt(&ticket), None);
        for at in [0, NONCE_LEN, ticket.len() - 1] {
            let mut forged = ticket.clone();
            forged[at] ^= 1;
            assert_eq!(new.0.decrypt(&forged), None, "byte {at}");
        }
        assert_eq!((new.0.decrypt(b""), new.0.decrypt(&ticket[..NONCE_LEN])), (None, None));
    }

    #[test]
    fn a_key_opens_for_one_more_turn_and_then_never_again() {
        let tickets = Tickets::generate().unwrap();
        let (ticket, begun) = (tickets.0.encrypt(b"session").unwrap(), tickets.told().until);
        let opens = |now: u64| {
            let keys = tickets.0.keys(now);
            [Some(&keys.current), keys.previous.as_ref()]
                .into_iter()
                .flatten()
                .any(|key| key.open(&ticket).is_some())
        };
        assert!(opens(begun - 1) && opens(begun) && opens(begun + KEY_LIFE - 1));
        assert!(!opens(begun + KEY_LIFE));
        let idle = Tickets::generate().unwrap();
        let until = idle.told().until;
        assert!(idle.0.keys(until + KEY_LIFE).previous.is_none(), "it has not been looked at for two turns");
    }

    #[test]
    fn what_is_no_key_is_not_taken_over() {
        for secrets in [vec![], vec![vec![1; 31]]] {
            assert!(Tickets::resume(&Told { secrets, until: 0 }).is_none());
        }
    }
}
