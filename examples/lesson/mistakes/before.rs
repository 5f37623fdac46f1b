//! Three mistakes, as the lesson writes them. Each works on one replica.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::State;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};

use super::worker::{self, Job};
use crate::harness::Outcome;
use crate::store::Client;

/// What this process remembers, and no other.
#[derive(Default)]
struct Memory {
    request_count: u64,
    step1_data: Value,
    processing_queue: VecDeque<Job>,
}

type Server = Arc<Mutex<Memory>>;

pub fn routes(database: Client) -> Router {
    let server = Server::default();
    tokio::spawn(work(server.clone(), database));
    counter().merge(steps()).merge(queue()).with_state(server)
}

/// Mistake 1: looks stateless, but isn't.
fn counter() -> Router<Server> {
    Router::new().route(
        "/data",
        get(async |State(server): State<Server>| {
            let mut server = lock(&server);
            server.request_count += 1;
            Json(json!({ "count": server.request_count }))
        }),
    )
}

/// Mistake 3: assumes that step 2 comes next, and here.
fn steps() -> Router<Server> {
    Router::new()
        .route(
            "/step1",
            post(async |State(server): State<Server>, Json(data): Json<Value>| {
                lock(&server).step1_data = data;
                Json(json!({}))
            }),
        )
        .route(
            "/step2",
            post(async |State(server): State<Server>, Json(_): Json<Value>| {
                Json(json!({ "ordered": lock(&server).step1_data }))
            }),
        )
}

/// Mistake 4: a queue that dies with the process.
fn queue() -> Router<Server> {
    Router::new().route(
        "/process",
        post(async |State(server): State<Server>, Json(job): Json<Job>| {
            lock(&server).processing_queue.push_back(job);
            Json(json!({ "queued": true }))
        }),
    )
}

async fn work(server: Server, database: Client) -> Outcome<()> {
    loop {
        let job = lock(&server).processing_queue.pop_front();
        match job {
            Some(job) => worker::perform(&database, "before", job).await?,
            None => worker::look_again().await,
        }
    }
}

fn lock(server: &Server) -> std::sync::MutexGuard<'_, Memory> {
    server.lock().unwrap_or_else(PoisonError::into_inner)
}
