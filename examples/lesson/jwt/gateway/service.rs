//! One of the five services. A logs users in; the others make a part of a page for whom the gateway
//! names. None has a session store.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::ROOT;
use crate::harness::http::Http;
use crate::harness::{Outcome, Setup, child};
use crate::jwt::api::{DAY, identity};
use crate::jwt::token::Keys;

#[derive(Clone, Serialize, Deserialize)]
pub struct Order {
    pub secret: String,
    pub database: SocketAddr,
}

#[derive(Clone)]
struct Service {
    keys: Arc<Keys>,
    http: Http,
    database: SocketAddr,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    calls: AtomicU64,
    /// Calls in the name of somebody who does not exist.
    forged: AtomicU64,
    /// Tokens that came with a call for a part of a page, and so would have to be checked again.
    again: AtomicU64,
}

pub async fn serve(setup: Setup) -> Outcome<()> {
    let Order { secret, database } = setup.order()?;
    let (keys, http) = (Arc::new(Keys::new(&secret)), Http::default());
    let service = Service { keys, http, database, counts: Arc::default() };
    let routes = Router::new()
        .route("/login", post(login))
        .route("/part", get(part))
        .route("/me", get(me))
        .route("/counted", get(counted))
        .with_state(service);
    let app = Router::new().nest(&format!("/{}", setup.name), routes);
    child::serve(setup, app).await
}

/// Makes a part of a page for whom the gateway names.
async fn part(State(service): State<Service>, headers: HeaderMap) -> Result<Json<Value>, StatusCode> {
    let user = headers.get("x-user").and_then(|user| user.to_str().ok()).ok_or(StatusCode::UNAUTHORIZED)?;
    let counts = &service.counts;
    counts.calls.fetch_add(1, Ordering::Relaxed);
    counts.forged.fetch_add(u64::from(user == ROOT), Ordering::Relaxed);
    counts.again.fetch_add(u64::from(headers.contains_key("authorization")), Ordering::Relaxed);
    let user: u32 = user.parse().map_err(|_| StatusCode::BAD_REQUEST)?;
    Ok(Json(json!({ "user": user })))
}

/// Where there is no gateway: the service checks the token itself. It has never seen the user.
async fn me(State(service): State<Service>, headers: HeaderMap) -> Result<Json<Value>, StatusCode> {
    let identity = service.keys.bearer(&headers).ok_or(StatusCode::UNAUTHORIZED)?;
    Ok(Json(json!({ "user": identity.user_id })))
}

async fn login(State(service): State<Service>, Json(order): Json<Value>) -> Result<Json<Value>, StatusCode> {
    let refused = StatusCode::UNAUTHORIZED;
    let id = order["user"].as_u64().and_then(|id| u32::try_from(id).ok()).ok_or(refused)?;
    let user = service.http.get(service.database, &format!("/users/{id}")).await.map_err(|_| refused)?;
    if user["password"] != order["password"] {
        return Err(refused);
    }
    let token = service.keys.sign(&identity(id, 0, DAY)).map_err(|_| refused)?;
    Ok(Json(json!({ "token": token })))
}

async fn counted(State(Service { counts, .. }): State<Service>) -> Json<Value> {
    let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
    let (calls, forged, again) = (read(&counts.calls), read(&counts.forged), read(&counts.again));
    Json(json!({ "calls": calls, "forged": forged, "checked_for_a_page": again }))
}
