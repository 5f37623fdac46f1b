//! The three mistakes mended: what a replica has to remember is in the store, or with the client.

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use redis::cmd;
use serde_json::{Value, json};

use super::worker::{self, Job, LEASE};
use crate::harness::Outcome;
use crate::store::Client;

/// How long half an order is kept, in seconds.
const KEPT: u64 = 600;

type Answer = Result<Json<Value>, StatusCode>;

pub fn routes(store: Client, name: &str) -> Router {
    tokio::spawn(work(store.clone(), name.to_owned()));
    counter().merge(steps()).merge(carried()).merge(queue()).with_state(store)
}

/// Mistake 1: one counter for all.
fn counter() -> Router<Client> {
    Router::new().route(
        "/data",
        get(async |State(store): State<Client>| -> Answer {
            let count: u64 = store.run(cmd("INCR").arg("count")).await.map_err(unavailable)?;
            Ok(Json(json!({ "count": count })))
        }),
    )
}

/// Mistake 3, with the store: step 1 is kept under the session, for whichever replica comes next.
fn steps() -> Router<Client> {
    Router::new()
        .route(
            "/step1",
            post(async |State(store): State<Client>, Json(data): Json<Value>| -> Answer {
                let key = format!("step1:{}", data["session"]);
                let keep = cmd("SET").arg(key).arg(data.to_string()).arg("EX").arg(KEPT).to_owned();
                store.run::<()>(&keep).await.map_err(unavailable)?;
                Ok(Json(json!({})))
            }),
        )
        .route(
            "/step2",
            post(async |State(store): State<Client>, Json(data): Json<Value>| -> Answer {
                let key = format!("step1:{}", data["session"]);
                let kept: Option<String> = store.run(cmd("GET").arg(key)).await.map_err(unavailable)?;
                let kept = kept.ok_or(StatusCode::CONFLICT)?;
                Ok(Json(json!({ "ordered": serde_json::from_str::<Value>(&kept).map_err(unavailable)? })))
            }),
        )
}

/// Mistake 3, with the client: it gets its data back from step 1 and sends it with step 2.
fn carried() -> Router<Client> {
    Router::new()
        .route("/carried/step1", post(async |Json(data): Json<Value>| Json(json!({ "carry": data }))))
        .route(
            "/carried/step2",
            post(async |Json(data): Json<Value>| Json(json!({ "ordered": data["carry"] }))),
        )
}

/// Mistake 4: a queue that anybody can work on.
fn queue() -> Router<Client> {
    Router::new().route(
        "/process",
        post(async |State(store): State<Client>, Json(job): Json<Job>| -> Answer {
            store.run::<()>(cmd("LPUSH").arg("queue").arg(job)).await.map_err(unavailable)?;
            Ok(Json(json!({ "queued": true })))
        }),
    )
}

/// Takes jobs as long as it lives. A job in hand is in a list of this worker's, until it is done;
/// a worker whose lease has run out has died, and its list goes back into the queue.
async fn work(store: Client, name: String) -> Outcome<()> {
    let mine = worker::in_hand(&name);
    store.run::<()>(cmd("SADD").arg("workers").arg(&name)).await?;
    loop {
        let lease = LEASE.as_millis() as u64;
        store.run::<()>(cmd("SET").arg(format!("alive:{name}")).arg(1).arg("PX").arg(lease)).await?;
        let take = cmd("LMOVE").arg("queue").arg(&mine).arg("RIGHT").arg("LEFT").to_owned();
        if let Some(job) = store.run::<Option<Job>>(&take).await? {
            worker::perform(&store, "after", job).await?;
            store.run::<()>(cmd("LREM").arg(&mine).arg(1).arg(job)).await?;
        } else {
            inherit(&store).await?;
            worker::look_again().await;
        }
    }
}

async fn inherit(store: &Client) -> Outcome<()> {
    for name in store.run::<Vec<String>>(cmd("SMEMBERS").arg("workers")).await? {
        if !store.run::<bool>(cmd("EXISTS").arg(format!("alive:{name}"))).await? {
            let hand = worker::in_hand(&name);
            let back = cmd("LMOVE").arg(hand).arg("queue").arg("RIGHT").arg("RIGHT").to_owned();
            while store.run::<Option<Job>>(&back).await?.is_some() {}
        }
    }
    Ok(())
}

fn unavailable(_: impl Into<crate::harness::Failure>) -> StatusCode {
    StatusCode::SERVICE_UNAVAILABLE
}
