//! The API behind the balancer: log-in, dashboard, change of password, each in four schemes.
//!
//! Start at [`check`]: what a scheme does for each request is all that tells them apart.

pub mod database;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use redis::cmd;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use self::database::User;
use super::token::{self, Identity, Keys};
use crate::harness::http::Http;
use crate::harness::stage::scaled;
use crate::harness::{Outcome, Setup, child};
use crate::store::{Client, Link};

/// What a token can be taken back by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Nothing: it works until it expires, 24 hours later.
    Plain,
    /// It expires soon. A refresh token in the store, which can be deleted, gets the next one.
    Short,
    /// The store lists tokens that must not work any more.
    DenyList,
    /// The database counts the user's passwords; the token says to which it belongs.
    Version,
}

impl Scheme {
    pub const ALL: [Self; 4] = [Self::Plain, Self::Short, Self::DenyList, Self::Version];

    pub fn path(self) -> &'static str {
        match self {
            Self::Plain => "/plain",
            Self::Short => "/short",
            Self::DenyList => "/deny-list",
            Self::Version => "/version",
        }
    }

    fn life(self) -> Duration {
        if self == Self::Short { scaled::QUARTER_HOUR } else { DAY }
    }
}

pub const DAY: Duration = Duration::from_secs(86_400);

#[derive(Clone, Serialize, Deserialize)]
pub struct Order {
    pub secret: String,
    pub store: String,
    pub database: SocketAddr,
}

/// What a replica did in one scheme to let requests in, or not.
#[derive(Default)]
struct Counts {
    requests: AtomicU64,
    store: AtomicU64,
    database: AtomicU64,
    refreshes: AtomicU64,
}

#[derive(Clone)]
struct Api {
    scheme: Scheme,
    keys: Arc<Keys>,
    store: Client,
    http: Http,
    database: SocketAddr,
    counts: Arc<Counts>,
}

pub async fn serve(setup: Setup) -> Outcome<()> {
    let Order { secret, store, database } = setup.order()?;
    let keys = Arc::new(Keys::new(&secret));
    let store = Client::connect(&store, Link::Multiplexed).await?;
    let mut app = Router::new();
    for scheme in Scheme::ALL {
        let (keys, store, http, counts) = (keys.clone(), store.clone(), Http::default(), Arc::default());
        let api = Api { scheme, keys, store, http, database, counts };
        let routes = Router::new()
            .route("/login", post(login))
            .route("/dashboard", get(dashboard))
            .route("/password", post(password))
            .route("/refresh", post(refresh))
            .route("/counted", get(counted));
        app = app.nest(scheme.path(), routes.with_state(api));
    }
    child::serve(setup, app).await
}

async fn dashboard(State(api): State<Api>, headers: HeaderMap) -> Result<Json<Value>, Refused> {
    let identity = check(&api, &headers).await?;
    Ok(Json(json!({ "user": identity.user_id })))
}

/// Lets a request in or not. The signature and the clock are asked in every scheme; only some ask
/// anybody else, and only those can refuse a token before its time.
async fn check(api: &Api, headers: &HeaderMap) -> Result<Identity, Refused> {
    api.counts.requests.fetch_add(1, Ordering::Relaxed);
    let identity = api.keys.bearer(headers).ok_or(Refused::Token)?;
    let revoked = match api.scheme {
        Scheme::Plain | Scheme::Short => false,
        Scheme::DenyList => {
            api.counts.store.fetch_add(1, Ordering::Relaxed);
            api.store.run::<bool>(cmd("EXISTS").arg(denied(&identity.jti))).await?
        }
        Scheme::Version => {
            api.counts.database.fetch_add(1, Ordering::Relaxed);
            let user = api.http.get(api.database, &format!("/users/{}", identity.user_id)).await?;
            user["version"] != identity.version
        }
    };
    if revoked { Err(Refused::Token) } else { Ok(identity) }
}

#[derive(Deserialize)]
struct Login {
    user: u32,
    password: String,
}

async fn login(State(api): State<Api>, Json(login): Json<Login>) -> Result<Json<Value>, Refused> {
    let user: User =
        serde_json::from_value(api.http.get(api.database, &format!("/users/{}", login.user)).await?)?;
    if user.password != login.password {
        return Err(Refused::Password);
    }
    let identity = identity(login.user, user.version, api.scheme.life());
    let mut answer = json!({ "token": api.keys.sign(&identity)? });
    match api.scheme {
        Scheme::Plain | Scheme::Version => {}
        Scheme::Short => {
            let refresh = token::random();
            keep(&api, login.user, &refresh).await?;
            answer["refresh"] = refresh.into();
        }
        // Somebody who says "log out everywhere" means tokens that this request does not carry.
        Scheme::DenyList => {
            let mut remember = redis::pipe();
            remember.cmd("SADD").arg(issued(api.scheme, login.user)).arg(&identity.jti).ignore();
            remember.cmd("EXPIRE").arg(issued(api.scheme, login.user)).arg(DAY.as_secs()).ignore();
            api.store.pipeline::<()>(&remember).await?;
        }
    }
    Ok(Json(answer))
}

/// Keeps a refresh token for a user, so that both lead to each other.
async fn keep(api: &Api, user: u32, refresh: &str) -> Outcome<()> {
    let (life, set) = (scaled::HOUR.as_secs(), issued(api.scheme, user));
    let mut keep = redis::pipe();
    keep.cmd("SET").arg(refreshed(refresh)).arg(user).arg("EX").arg(life).ignore();
    keep.cmd("SADD").arg(&set).arg(refresh).ignore();
    keep.cmd("EXPIRE").arg(&set).arg(life).ignore();
    api.store.pipeline(&keep).await
}

/// A new password. All tokens of the user are taken back as far as the scheme can, on every
/// replica, before the answer is sent.
async fn password(
    State(api): State<Api>,
    headers: HeaderMap,
    Json(wanted): Json<Value>,
) -> Result<Json<Value>, Refused> {
    let user = check(&api, &headers).await?.user_id;
    api.http.post(api.database, &format!("/users/{user}/password"), &wanted).await?;
    if matches!(api.scheme, Scheme::Short | Scheme::DenyList) {
        let names: Vec<String> = api.store.run(cmd("SMEMBERS").arg(issued(api.scheme, user))).await?;
        let mut revoke = redis::pipe();
        for name in &names {
            if api.scheme == Scheme::Short {
                revoke.cmd("DEL").arg(refreshed(name)).ignore();
            } else {
                // An entry is needed for as long as the token would have lived.
                revoke.cmd("SET").arg(denied(name)).arg(1).arg("EX").arg(DAY.as_secs()).ignore();
            }
        }
        revoke.cmd("DEL").arg(issued(api.scheme, user)).ignore();
        api.store.pipeline::<()>(&revoke).await?;
    }
    Ok(Json(json!({ "changed": true })))
}

#[derive(Deserialize)]
struct Refresh {
    refresh: String,
}

async fn refresh(
    State(api): State<Api>,
    Json(Refresh { refresh }): Json<Refresh>,
) -> Result<Json<Value>, Refused> {
    api.counts.refreshes.fetch_add(1, Ordering::Relaxed);
    api.counts.store.fetch_add(1, Ordering::Relaxed);
    let user: Option<u32> = api.store.run(cmd("GET").arg(refreshed(&refresh))).await?;
    let identity = identity(user.ok_or(Refused::Token)?, 0, api.scheme.life());
    Ok(Json(json!({ "token": api.keys.sign(&identity)? })))
}

async fn counted(State(api): State<Api>) -> Json<Value> {
    let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
    let Counts { requests, store, database, refreshes } = &*api.counts;
    Json(json!({
        "requests": read(requests), "store": read(store),
        "database": read(database), "refreshes": read(refreshes),
    }))
}

pub fn identity(user_id: u32, version: u32, life: Duration) -> Identity {
    let email = format!("user{user_id}@shop.example");
    let (jti, exp) = (token::random(), token::expiry(life));
    Identity { user_id, role: "customer".into(), email, version, jti, exp }
}

fn denied(jti: &str) -> String {
    format!("deny:{jti}")
}

fn refreshed(name: &str) -> String {
    format!("refresh:{name}")
}

/// Under which key a user's tokens are found that may have to be taken back.
fn issued(scheme: Scheme, user: u32) -> String {
    format!("issued{}:{user}", scheme.path())
}

/// Why somebody is not let in.
enum Refused {
    Token,
    Password,
    /// Whoever has to be asked does not answer. Letting everybody in meanwhile would be worse.
    Unknown,
}

impl<E: Into<crate::harness::Failure>> From<E> for Refused {
    fn from(_: E) -> Self {
        Self::Unknown
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let (status, error) = match self {
            Self::Token => (StatusCode::UNAUTHORIZED, "Invalid token"),
            Self::Password => (StatusCode::UNAUTHORIZED, "Wrong password"),
            Self::Unknown => (StatusCode::SERVICE_UNAVAILABLE, "Try again later"),
        };
        (status, Json(json!({ "error": error }))).into_response()
    }
}
