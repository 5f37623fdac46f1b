//! What all strategies have in common: who somebody is, what is in a cart, and the five doors of
//! [`Sessions`]. What differs is in a file for each.

use std::net::SocketAddr;
use std::time::Duration;

use aws_lc_rs::rand;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cookie::{Cookie, SameSite};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::central::Central;
use super::memory::Memory;
use super::replicated::Replicated;
use super::signed::Signed;
use super::token::Tokens;
use super::{Order, Strategy};
use crate::harness::http::Http;
use crate::harness::{Outcome, Replica};

/// Somebody who has proven who they are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Who {
    pub user: String,
    /// `customer` or `admin`.
    pub role: String,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Line {
    pub product_id: u32,
    pub quantity: u32,
}

pub type Cart = Vec<Line>;

/// A cart in a query: `1x2,5x1` is two of product 1 and one of product 5.
pub fn cart_text(cart: &Cart) -> String {
    let lines: Vec<_> = cart.iter().map(|line| format!("{}x{}", line.product_id, line.quantity)).collect();
    lines.join(",")
}

pub fn cart_from(text: &str) -> Option<Cart> {
    let line = |text: &str| {
        let (product, quantity) = text.split_once('x')?;
        Some(Line { product_id: product.parse().ok()?, quantity: quantity.parse().ok()? })
    };
    text.split(',').filter(|line| !line.is_empty()).map(line).collect()
}

/// What a replica knows of the one who asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    pub who: Who,
    /// Empty where the client keeps it.
    pub cart: Cart,
}

/// What a client is given at log-in.
pub enum Kept {
    Cookie { name: &'static str, value: String },
    Token { token: String },
}

/// Why somebody is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    NotLoggedIn,
    InvalidToken,
    WrongRole,
    BadCart,
    /// The store or the database does not answer.
    Unavailable,
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        match self {
            Self::NotLoggedIn => (StatusCode::UNAUTHORIZED, "Not logged in").into_response(),
            Self::InvalidToken => {
                (StatusCode::UNAUTHORIZED, axum::Json(json!({ "error": "Invalid token" }))).into_response()
            }
            Self::WrongRole => (StatusCode::FORBIDDEN, "Not for your role").into_response(),
            Self::BadCart => (StatusCode::UNPROCESSABLE_ENTITY, "No such thing here").into_response(),
            Self::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "Try again").into_response(),
        }
    }
}

/// How a replica knows who asks and what is in their cart.
pub enum Sessions {
    Memory(Memory),
    Replicated(Replicated),
    Central(Central),
    Tokens(Box<Tokens>),
    Signed(Box<Signed>),
}

impl Sessions {
    pub async fn new(name: &str, order: &Order) -> Outcome<Self> {
        Ok(match order.strategy {
            Strategy::Memory => Self::Memory(Memory::default()),
            Strategy::Replicated => Self::Replicated(Replicated::new(name, order.replicate_first)),
            Strategy::Central => Self::Central(Central::new(order).await?),
            Strategy::Token => Self::Tokens(Box::new(Tokens::new(order.token_life))),
            Strategy::Client => Self::Signed(Box::default()),
        })
    }

    /// A new session, whatever the client brought: an id that somebody planted never becomes
    /// logged in.
    pub async fn begin(&self, who: Who) -> Result<Kept, Refusal> {
        match self {
            Self::Memory(memory) => Ok(session_cookie(memory.begin(who))),
            Self::Replicated(replicated) => Ok(session_cookie(replicated.begin(who).await)),
            Self::Central(central) => Ok(session_cookie(central.begin(who).await?)),
            Self::Tokens(tokens) => Ok(Kept::Token { token: tokens.issue(who)? }),
            Self::Signed(signed) => Ok(Kept::Cookie { name: "identity", value: signed.seal(&who) }),
        }
    }

    /// Who asks.
    pub async fn find(&self, headers: &HeaderMap) -> Result<Session, Refusal> {
        match self {
            Self::Memory(memory) => memory.find(session_id(headers)?),
            Self::Replicated(replicated) => replicated.find(session_id(headers)?),
            Self::Central(central) => central.find(session_id(headers)?).await,
            Self::Tokens(tokens) => tokens.verify(bearer(headers)?).map(without_cart),
            Self::Signed(signed) => {
                let value = cookie(headers, "identity").ok_or(Refusal::NotLoggedIn)?;
                signed.open(value).map(without_cart)
            }
        }
    }

    /// Keeps a cart that has changed. Where the client keeps it there is nothing to do.
    pub async fn keep(&self, headers: &HeaderMap, session: Session) -> Result<(), Refusal> {
        match self {
            Self::Memory(memory) => memory.keep(session_id(headers)?, session),
            Self::Replicated(replicated) => replicated.keep(session_id(headers)?, session).await,
            Self::Central(central) => central.keep(session_id(headers)?, session).await?,
            Self::Tokens(_) | Self::Signed(_) => {}
        }
        Ok(())
    }

    /// Log-out. What the server does not hold it cannot take back: the client is asked to forget it.
    pub async fn end(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        match self {
            Self::Memory(memory) => memory.end(session_id(headers)?),
            Self::Replicated(replicated) => replicated.end(session_id(headers)?).await,
            Self::Central(central) => central.end(session_id(headers)?).await?,
            Self::Tokens(_) | Self::Signed(_) => {}
        }
        Ok(())
    }

    /// What is counted here: `sessions` held in memory, and what the strategy adds.
    pub fn counts(&self) -> Value {
        match self {
            Self::Memory(memory) => json!({ "sessions": memory.len() }),
            Self::Replicated(replicated) => replicated.counts(),
            Self::Central(central) => central.counts(),
            Self::Tokens(_) | Self::Signed(_) => json!({ "sessions": 0 }),
        }
    }
}

/// Tells replicas of the replicated shop who their peers are, and waits until each has what the
/// others know. Nothing happens under another strategy.
pub async fn wait_for_peers(strategy: Strategy, replicas: &[Replica]) -> Outcome<()> {
    if strategy != Strategy::Replicated {
        return Ok(());
    }
    let http = Http::default();
    let addresses: Vec<SocketAddr> = replicas.iter().map(|replica| replica.address).collect();
    for at in &addresses {
        let peers: Vec<_> = addresses.iter().filter(|peer| *peer != at).collect();
        http.post(*at, "/peers", &peers).await?;
    }
    Ok(())
}

fn without_cart(who: Who) -> Session {
    Session { who, cart: Cart::new() }
}

fn session_cookie(id: String) -> Kept {
    Kept::Cookie { name: "sessionId", value: id }
}

/// The cookie's text: no script reads it, and no other site sends it along.
pub fn set_cookie(name: &'static str, value: String, max_age: Option<Duration>) -> String {
    let mut cookie = Cookie::new(name, value);
    cookie.set_http_only(true);
    cookie.set_same_site(SameSite::Lax);
    cookie.set_path("/");
    if let Some(age) = max_age {
        cookie.set_max_age(cookie::time::Duration::try_from(age).ok());
    }
    cookie.to_string()
}

/// 128 bits that nobody guesses.
pub fn new_id() -> String {
    let mut bytes = [0; 16];
    rand::fill(&mut bytes).expect("the system gives randomness");
    URL_SAFE_NO_PAD.encode(bytes)
}

fn session_id(headers: &HeaderMap) -> Result<&str, Refusal> {
    cookie(headers, "sessionId").ok_or(Refusal::NotLoggedIn)
}

fn cookie<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let lines = headers.get_all(header::COOKIE).into_iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split("; ")).find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
}

fn bearer(headers: &HeaderMap) -> Result<&str, Refusal> {
    let line = headers.get(header::AUTHORIZATION).and_then(|line| line.to_str().ok());
    line.and_then(|line| line.strip_prefix("Bearer ")).ok_or(Refusal::InvalidToken)
}
