//! What a token says, how it is spelled and how long it holds. All times are seconds since 1970,
//! passed in.

use std::time::Duration;

use aws_lc_rs::rand;

/// Bytes of the longest cookie value that is looked at. The longest names there are take 256.
pub const TOKEN_MAX: usize = 512;

/// How far the clocks of two replicas may differ.
const CLOCK_SKEW: u64 = 60;

/// A client's place, as the sealed cookie carries it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// The backend's name in the pool that the cookie belongs to.
    pub backend: String,
    /// When the session began.
    pub issued: u64,
    /// When the cookie was written last.
    pub last_seen: u64,
    /// Stays the same when the client is dealt to another backend.
    pub session: u64,
}

/// Why a cookie is not a valid token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Not sealed by us, not for this pool, or changed since.
    Forged,
    /// Sealed under a key that is not in the ring.
    UnknownKey,
    /// Genuine, but `max_idle` or `max_life` has passed.
    Expired,
}

impl Token {
    /// A new session on this backend.
    pub fn new(backend: impl Into<String>, session: u64, now: u64) -> Self {
        Self { backend: backend.into(), issued: now, last_seen: now, session }
    }

    /// The same session, used now.
    pub fn seen_at(&self, now: u64) -> Self {
        Self { last_seen: now, ..self.clone() }
    }

    /// The same session, dealt to another backend.
    pub fn moved_to(&self, backend: impl Into<String>, now: u64) -> Self {
        Self { backend: backend.into(), last_seen: now, ..*self }
    }

    /// The bytes that are sealed: times and session, big endian, then the name.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEAD + self.backend.len());
        for number in [self.issued, self.last_seen, self.session] {
            bytes.extend_from_slice(&number.to_be_bytes());
        }
        bytes.extend_from_slice(self.backend.as_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (head, backend) = bytes.split_first_chunk::<HEAD>()?;
        let (numbers, _) = head.as_chunks::<8>();
        let [issued, last_seen, session] = [0, 1, 2].map(|at| u64::from_be_bytes(numbers[at]));
        Some(Self { backend: str::from_utf8(backend).ok()?.to_owned(), issued, last_seen, session })
    }
}

/// Bytes before the backend's name.
const HEAD: usize = 24;

/// An id for a session that begins. Unguessable, though nothing depends on that.
pub fn new_session() -> u64 {
    let mut id = [0; 8];
    rand::fill(&mut id).expect("the system has random bytes");
    u64::from_be_bytes(id)
}

/// Whether a cookie value can be a token at all: base64url and not too long.
pub(super) fn is_spelled_well(text: &[u8]) -> bool {
    let in_alphabet = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    !text.is_empty() && text.len() <= TOKEN_MAX && text.iter().all(in_alphabet)
}

/// A token is accepted for a quarter of `max_idle` longer than the cookie says: it may have been
/// written that long before the client was last here. One from the future, beyond what clocks
/// may differ by, would never end, so it does now.
pub(super) fn expired(token: &Token, now: u64, max_idle: Duration, max_life: Duration) -> bool {
    let over = |since: u64, limit: Duration| {
        !limit.is_zero() && Duration::from_secs(now.saturating_sub(since)) > limit
    };
    let future = token.issued.max(token.last_seen) > now.saturating_add(CLOCK_SKEW);
    future || over(token.last_seen, max_idle.saturating_add(max_idle / 4)) || over(token.issued, max_life)
}

/// Whether a quarter of `max_idle` has passed since the cookie was written.
pub(super) fn renew_due(token: &Token, now: u64, max_idle: Duration) -> bool {
    !max_idle.is_zero() && Duration::from_secs(now.saturating_sub(token.last_seen)) >= max_idle / 4
}

/// How long a cookie written now should live; `None` for a browser session.
pub(super) fn remaining(token: &Token, now: u64, max_idle: Duration, max_life: Duration) -> Option<Duration> {
    let idle = (!max_idle.is_zero()).then_some(max_idle);
    let lived = Duration::from_secs(now.saturating_sub(token.issued));
    let life = (!max_life.is_zero()).then(|| max_life.saturating_sub(lived));
    idle.into_iter().chain(life).min()
}
