//! Strategy 4: a signed token (JWT, RFC 7519, HS256) says who somebody is. No replica remembers
//! it, and so none can take it back. The cart stays with the client.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, encode};
use serde::{Deserialize, Serialize};

use super::sessions::{Refusal, Who};

/// Shared by all replicas. A real shop reads it from a file; all that this one protects ends with
/// the run.
pub const SECRET: &[u8] = b"an example's secret, 32 bytes or more";

#[derive(Serialize, Deserialize)]
struct Claims {
    #[serde(rename = "userId")]
    user: String,
    role: String,
    /// Seconds since 1970.
    exp: u64,
}

pub struct Tokens {
    life: Duration,
    signs: EncodingKey,
    verifies: DecodingKey,
    rules: Validation,
}

impl Tokens {
    pub fn new(life: Duration) -> Self {
        // The algorithm is ours to choose, never the token's.
        let mut rules = Validation::new(Algorithm::HS256);
        rules.leeway = 0;
        let (signs, verifies) = (EncodingKey::from_secret(SECRET), DecodingKey::from_secret(SECRET));
        Self { life, signs, verifies, rules }
    }

    pub fn issue(&self, who: Who) -> Result<String, Refusal> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let claims = Claims { user: who.user, role: who.role, exp: now + self.life.as_secs() };
        encode(&Header::default(), &claims, &self.signs).map_err(|_| Refusal::Unavailable)
    }

    /// The signature and the time, and no look-up.
    pub fn verify(&self, token: &str) -> Result<Who, Refusal> {
        let token =
            decode::<Claims>(token, &self.verifies, &self.rules).map_err(|_| Refusal::InvalidToken)?;
        Ok(Who { user: token.claims.user, role: token.claims.role })
    }
}
