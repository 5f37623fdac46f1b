//! What everybody in this chapter calls a token: who somebody is, until when, signed with HS256.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::http::{HeaderMap, header};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, encode};
use serde::{Deserialize, Serialize};

use crate::harness::Outcome;

/// The payload. Identity and role only: what is in here is old as soon as it is signed.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Identity {
    pub user_id: u32,
    pub role: String,
    pub email: String,
    /// Which password it belongs to: the database counts them.
    pub version: u32,
    /// The token's own name, for a deny-list.
    pub jti: String,
    /// Whole seconds since 1970, as RFC 7519 wants.
    pub exp: u64,
}

/// Who can sign and check.
pub struct Keys {
    sign: EncodingKey,
    check: DecodingKey,
    rules: Validation,
}

impl Keys {
    pub fn new(secret: &str) -> Self {
        // The algorithm is ours to choose: a token that names another, or `none`, is refused.
        let mut rules = Validation::new(Algorithm::HS256);
        rules.leeway = 0;
        // A token is refused at `exp`, not a second later (RFC 7519 section 4.1.4).
        rules.reject_tokens_expiring_in_less_than = 1;
        rules.set_required_spec_claims(&["exp"]);
        let secret = secret.as_bytes();
        Self { sign: EncodingKey::from_secret(secret), check: DecodingKey::from_secret(secret), rules }
    }

    pub fn sign(&self, payload: &impl Serialize) -> Outcome<String> {
        Ok(encode(&Header::new(Algorithm::HS256), payload, &self.sign)?)
    }

    /// Who a token is for. No look-up: the signature and the clock say everything.
    pub fn verify(&self, token: &str) -> Option<Identity> {
        decode(token, &self.check, &self.rules).ok().map(|token| token.claims)
    }

    /// Who sent a request, by its `Authorization: Bearer …`.
    pub fn bearer(&self, headers: &HeaderMap) -> Option<Identity> {
        let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
        self.verify(value.strip_prefix("Bearer ")?)
    }
}

/// What a client sends to show a token.
pub fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

/// Something that nobody can guess.
pub fn random() -> String {
    let mut bytes = [0; 32];
    aws_lc_rs::rand::fill(&mut bytes).expect("the system has randomness");
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970")
}

/// When a token that is signed now and lives this long expires, to the nearest second.
pub fn expiry(life: Duration) -> u64 {
    (now() + life).as_secs_f64().round() as u64
}
