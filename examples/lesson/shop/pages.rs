//! The shop's pages: log-in, cart, dashboard, admin page, checkout, log-out. The same in every
//! strategy; whoever keeps the cart, the server or the client, it is shown and sold here.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Shop;
use super::database::{LogIn, OrderLine};
use super::replicated::Write;
use super::sessions::{Cart, Kept, Line, Refusal, Sessions, cart_from, set_cookie};

pub fn app(shop: Arc<Shop>) -> Router {
    Router::new()
        .route("/login", post(log_in))
        .route("/cart", get(cart))
        .route("/cart/{product}", axum::routing::put(put))
        .route("/dashboard", get(dashboard))
        .route("/admin", get(admin))
        .route("/api/quote", get(quote))
        .route("/api/checkout", post(check_out))
        .route("/logout", post(log_out))
        .layer(from_fn_with_state(shop.clone(), work))
        // What is not for users takes none of the replica's capacity.
        .route("/counts", get(async |State(shop): State<Arc<Shop>>| Json(shop.sessions.counts())))
        .route("/peers", post(peers))
        .route("/replicate", post(replicate))
        .route("/sessions", get(sessions))
        .with_state(shop)
}

async fn work(State(shop): State<Arc<Shop>>, request: Request, next: Next) -> Response {
    shop.work().await;
    next.run(request).await
}

async fn log_in(State(shop): State<Arc<Shop>>, Json(asked): Json<LogIn>) -> Result<Response, Refusal> {
    let who = shop.database.verify(&asked).await?;
    Ok(match shop.sessions.begin(who).await? {
        Kept::Cookie { name, value } => {
            ([(header::SET_COOKIE, set_cookie(name, value, None))], Json(json!({ "success": true })))
                .into_response()
        }
        Kept::Token { token } => Json(json!({ "token": token })).into_response(),
    })
}

async fn cart(State(shop): State<Arc<Shop>>, headers: HeaderMap) -> Result<Json<Cart>, Refusal> {
    Ok(Json(shop.sessions.find(&headers).await?.cart))
}

#[derive(Deserialize)]
struct Quantity {
    quantity: u32,
}

/// Puts so many of a product into the cart. A PUT is idempotent (RFC 9110 section 9.2.2) and this
/// one has no body, so the balancer may send it again when a replica dies with it.
async fn put(
    State(shop): State<Arc<Shop>>,
    headers: HeaderMap,
    Path(product_id): Path<u32>,
    Query(Quantity { quantity }): Query<Quantity>,
) -> Result<Json<Cart>, Refusal> {
    let mut session = shop.sessions.find(&headers).await?;
    session.cart.retain(|line| line.product_id != product_id);
    session.cart.push(Line { product_id, quantity });
    let cart = session.cart.clone();
    shop.sessions.keep(&headers, session).await?;
    Ok(Json(cart))
}

async fn dashboard(State(shop): State<Arc<Shop>>, headers: HeaderMap) -> Result<Json<Value>, Refusal> {
    let session = shop.sessions.find(&headers).await?;
    Ok(Json(json!({ "user": session.who.user, "role": session.who.role })))
}

async fn admin(State(shop): State<Arc<Shop>>, headers: HeaderMap) -> Result<&'static str, Refusal> {
    let session = shop.sessions.find(&headers).await?;
    if session.who.role != "admin" {
        return Err(Refusal::WrongRole);
    }
    Ok("the shop's books")
}

#[derive(Deserialize)]
struct Asked {
    /// As [`cart_text`] writes it.
    cart: String,
}

/// What a cart that the client keeps costs.
async fn quote(
    State(shop): State<Arc<Shop>>,
    headers: HeaderMap,
    Query(asked): Query<Asked>,
) -> Result<Json<Value>, Refusal> {
    shop.sessions.find(&headers).await?;
    let cart = cart_from(&asked.cart).ok_or(Refusal::BadCart)?;
    let cents = shop.database.price(&cart).await?;
    Ok(Json(json!({ "cart": cart, "totalCents": cents })))
}

#[derive(Deserialize)]
struct Sent {
    cart: Option<Cart>,
}

/// Sells the cart: the one that is sent, else the session's.
async fn check_out(
    State(shop): State<Arc<Shop>>,
    headers: HeaderMap,
    Json(sent): Json<Sent>,
) -> Result<Json<Value>, Refusal> {
    let mut session = shop.sessions.find(&headers).await?;
    let cart = sent.cart.unwrap_or_else(|| std::mem::take(&mut session.cart));
    let total_cents = shop.database.price(&cart).await?;
    let user = session.who.user.clone();
    let number = shop.database.order(&OrderLine { user, cart, total_cents }).await?;
    shop.sessions.keep(&headers, session).await?;
    Ok(Json(json!({ "order": number, "totalCents": total_cents })))
}

async fn log_out(State(shop): State<Arc<Shop>>, headers: HeaderMap) -> Result<Response, Refusal> {
    shop.sessions.end(&headers).await?;
    let gone = |name| (header::SET_COOKIE, set_cookie(name, String::new(), Some(std::time::Duration::ZERO)));
    let cookies = axum::response::AppendHeaders([gone("sessionId"), gone("identity")]);
    Ok((cookies, Json(json!({ "success": true }))).into_response())
}

async fn peers(State(shop): State<Arc<Shop>>, Json(peers): Json<Vec<SocketAddr>>) -> Result<(), StatusCode> {
    let Sessions::Replicated(replicated) = &shop.sessions else { return Err(StatusCode::NOT_FOUND) };
    replicated.meet(peers).await.map_err(|_| StatusCode::BAD_GATEWAY)
}

async fn replicate(State(shop): State<Arc<Shop>>, Json(write): Json<Write>) -> Result<(), StatusCode> {
    let Sessions::Replicated(replicated) = &shop.sessions else { return Err(StatusCode::NOT_FOUND) };
    replicated.receive(write);
    Ok(())
}

async fn sessions(State(shop): State<Arc<Shop>>) -> Result<Json<Vec<Write>>, StatusCode> {
    let Sessions::Replicated(replicated) = &shop.sessions else { return Err(StatusCode::NOT_FOUND) };
    Ok(Json(replicated.all()))
}
