//! Products, users and orders: the database. One process outside the replicas, the same in every
//! strategy, and no part of the comparison.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::sessions::{Cart, Refusal, Who};
use crate::harness::child;
use crate::harness::http::Http;
use crate::harness::{Outcome, Setup};

/// Everybody's password. Users are called `user17`, and `admin` is the one with the other role.
pub const PASSWORD: &str = "correct horse";

/// How many products there are, numbered from 1.
pub const PRODUCTS: u32 = 50;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LogIn {
    pub user: String,
    pub password: String,
}

/// An order as the shop writes it, priced by the shop.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OrderLine {
    pub user: String,
    pub cart: Cart,
    pub total_cents: u64,
}

#[derive(Default)]
struct Database {
    orders: Mutex<Vec<OrderLine>>,
    queries: AtomicU64,
}

/// The database as a process of its own.
pub async fn serve(setup: Setup) -> Outcome<()> {
    let app = Router::new()
        .route("/verify", post(verify))
        .route("/price", post(price))
        .route("/orders", post(order).get(orders))
        .route("/counts", get(counts))
        .with_state(Arc::new(Database::default()));
    child::serve(setup, app).await
}

async fn verify(
    State(database): State<Arc<Database>>,
    Json(asked): Json<LogIn>,
) -> Result<Json<Who>, StatusCode> {
    database.queries.fetch_add(1, Relaxed);
    let known =
        asked.user == "admin" || asked.user.strip_prefix("user").is_some_and(|n| n.parse::<u32>().is_ok());
    if !known || asked.password != PASSWORD {
        return Err(StatusCode::UNAUTHORIZED);
    }
    let role = if asked.user == "admin" { "admin" } else { "customer" };
    Ok(Json(Who { user: asked.user, role: role.into() }))
}

/// What a cart costs, in cents.
async fn price(State(database): State<Arc<Database>>, Json(cart): Json<Cart>) -> Json<u64> {
    database.queries.fetch_add(1, Relaxed);
    let cents = |product: u32| u64::from(product) * 100 + 99;
    Json(cart.iter().map(|line| cents(line.product_id) * u64::from(line.quantity)).sum())
}

async fn order(State(database): State<Arc<Database>>, Json(order): Json<OrderLine>) -> Json<usize> {
    let mut orders = database.orders.lock().unwrap_or_else(PoisonError::into_inner);
    orders.push(order);
    Json(orders.len())
}

#[derive(Deserialize)]
struct Whose {
    user: String,
}

async fn orders(State(database): State<Arc<Database>>, Query(whose): Query<Whose>) -> Json<Vec<OrderLine>> {
    let orders = database.orders.lock().unwrap_or_else(PoisonError::into_inner);
    Json(orders.iter().filter(|order| order.user == whose.user).cloned().collect())
}

async fn counts(State(database): State<Arc<Database>>) -> Json<Value> {
    Json(json!({ "queries": database.queries.load(Relaxed) }))
}

/// How a replica asks it.
#[derive(Clone)]
pub struct Client {
    at: SocketAddr,
    http: Http,
}

impl Client {
    pub fn new(at: SocketAddr) -> Self {
        Self { at, http: Http::default() }
    }

    /// Who this is; nobody, if the password is wrong.
    pub async fn verify(&self, asked: &LogIn) -> Result<Who, Refusal> {
        let who = self.http.post(self.at, "/verify", asked).await.map_err(|_| Refusal::NotLoggedIn)?;
        serde_json::from_value(who).map_err(|_| Refusal::Unavailable)
    }

    /// In cents.
    pub async fn price(&self, cart: &Cart) -> Result<u64, Refusal> {
        // Whatever a client's cart says of products is checked here, and of prices not even read.
        if !cart.iter().all(|line| (1..=PRODUCTS).contains(&line.product_id)) {
            return Err(Refusal::BadCart);
        }
        let cents = self.http.post(self.at, "/price", cart).await.map_err(|_| Refusal::Unavailable)?;
        cents.as_u64().ok_or(Refusal::Unavailable)
    }

    pub async fn order(&self, order: &OrderLine) -> Result<u64, Refusal> {
        let number = self.http.post(self.at, "/orders", order).await.map_err(|_| Refusal::Unavailable)?;
        number.as_u64().ok_or(Refusal::Unavailable)
    }
}
