//! How a token is sealed: AES-256-GCM-SIV (RFC 8452) under a ring of keys, spelled in unpadded
//! base64url.
//!
//! ```text
//! format 1 byte · length of key id 1 byte · key id · nonce 12 bytes · sealed token · tag 16 bytes
//! ```
//! Format and key id are in clear and authenticated together with the pool's name, so a token
//! cannot be carried to another pool. Misuse of a nonce, which two replicas cannot rule out,
//! shows with this cipher only that two tokens are equal.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::token::{Refused, TOKEN_MAX, Token};
use crate::plan::{Secret, StickyKey};

const FORMAT: u8 = 1;

/// One pool's key ring: the first key seals, all of them open.
pub struct Sealer(Vec<Key>);

struct Key {
    plan: StickyKey,
    /// Format and key id: how every token under this key begins.
    head: Vec<u8>,
    /// What is authenticated besides the token: the head and the pool's name.
    context: Vec<u8>,
    cipher: RandomizedNonceKey,
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|key| &key.plan.id)).finish()
    }
}

impl Sealer {
    /// A ring of the plan's keys, at least one.
    pub fn new(pool: &str, keys: &[StickyKey]) -> Self {
        assert!(!keys.is_empty(), "a key ring has a key that seals");
        Self(keys.iter().map(|key| Key::new(pool, key)).collect())
    }

    /// A ring with a key of its own, for a plan that has none. Keep [`Sealer::key`] and give it
    /// to [`Sealer::new`] from then on, or every token is lost.
    pub fn generated(pool: &str) -> Self {
        let mut secret = vec![0; 32];
        rand::fill(&mut secret).expect("the system has random bytes");
        // Named after its content, so that two generated keys are never mistaken for each other.
        let id = URL_SAFE_NO_PAD.encode(&digest(&SHA256, &secret).as_ref()[..6]);
        Self::new(pool, &[StickyKey { id, secret: Secret(secret) }])
    }

    /// The key that seals.
    pub fn key(&self) -> &StickyKey {
        &self.0[0].plan
    }

    pub fn seal(&self, token: &Token) -> String {
        let key = &self.0[0];
        let mut sealed = token.encode();
        let nonce = key
            .cipher
            .seal_in_place_append_tag(Aad::from(&key.context), &mut sealed)
            .expect("a token is short and the system has random bytes");
        URL_SAFE_NO_PAD.encode([&key.head, &nonce.as_ref()[..], &sealed].concat())
    }

    /// What was sealed for this pool under any key of the ring, whatever its times. There is
    /// exactly one spelling of a token: the base64 engine refuses padding and stray bits.
    pub fn open(&self, text: &[u8]) -> Result<Token, Refused> {
        let mut buffer = [0; TOKEN_MAX / 4 * 3];
        if text.len() > TOKEN_MAX {
            return Err(Refused::Forged);
        }
        let len = URL_SAFE_NO_PAD.decode_slice(text, &mut buffer).map_err(|_| Refused::Forged)?;
        let (head, body) = split_head(&mut buffer[..len]).ok_or(Refused::Forged)?;
        let key = self.0.iter().find(|key| key.head == head).ok_or(Refused::UnknownKey)?;
        let (nonce, sealed) = body.split_first_chunk_mut::<NONCE_LEN>().ok_or(Refused::Forged)?;
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let opened =
            key.cipher.open_in_place(nonce, Aad::from(&key.context), sealed).map_err(|_| Refused::Forged)?;
        Token::decode(opened).ok_or(Refused::Forged)
    }
}

impl Key {
    fn new(pool: &str, key: &StickyKey) -> Self {
        let length = u8::try_from(key.id.len()).expect("a key id has at most 16 characters");
        let head = [&[FORMAT, length], key.id.as_bytes()].concat();
        let context = [&head, pool.as_bytes()].concat();
        let cipher = RandomizedNonceKey::new(&AES_256_GCM_SIV, &key.secret.0)
            .expect("a sticky key has exactly 32 bytes");
        Self { plan: key.clone(), head, context, cipher }
    }
}

/// Cuts the clear part from the sealed one, if it is of our format.
fn split_head(token: &mut [u8]) -> Option<(&[u8], &mut [u8])> {
    let (&FORMAT, rest) = token.split_first()? else { return None };
    let length = usize::from(*rest.first()?);
    let (head, body) = token.split_at_mut_checked(2 + length)?;
    Some((head, body))
}
