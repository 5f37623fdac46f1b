//! The service that takes jobs and tells their progress, with three places to remember them.
//!
//! Start at [`Jobs`].

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use redis::{cmd, pipe};
use serde::{Deserialize, Serialize};

use super::worker::STEPS;
use crate::harness::http::Http;
use crate::harness::{Boxed, Outcome, Setup, child};
use crate::store::{Client, Link};

/// How far a job is, and who works on it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Progress {
    pub percent: u32,
    pub by: String,
}

/// Where this replica is to remember jobs.
#[derive(Serialize, Deserialize)]
pub enum Order {
    Memory { step: Duration },
    Database { at: SocketAddr, step: Duration },
    Queue { store: String },
}

#[derive(Clone)]
enum Jobs {
    /// In this process: nobody else knows.
    Memory(Shelf),
    /// In a service of its own. This process still does the work.
    Database(Box<Http>, SocketAddr),
    /// In the store, where workers find the work too.
    Queue(Client),
}

type Shelf = Arc<Mutex<BTreeMap<String, Progress>>>;

#[derive(Clone)]
struct Api {
    name: String,
    jobs: Jobs,
    step: Duration,
}

pub fn role(setup: Setup) -> Boxed<'static, Outcome<()>> {
    Box::pin(async move {
        let (jobs, step) = match setup.order()? {
            Order::Memory { step } => (Jobs::Memory(Shelf::default()), step),
            Order::Database { at, step } => (Jobs::Database(Box::default(), at), step),
            Order::Queue { store } => {
                (Jobs::Queue(Client::connect(&store, Link::Multiplexed).await?), Duration::ZERO)
            }
        };
        let api = Api { name: setup.name.clone(), jobs, step };
        let app = Router::new().route("/jobs/{job}", get(status).post(begin)).with_state(api);
        child::serve(setup, app).await
    })
}

#[derive(Deserialize)]
struct Wishes {
    /// Who wants to be told when it is done. A real service checks where such an address leads.
    callback: Option<String>,
}

/// "Start encoding video_123."
async fn begin(State(api): State<Api>, Path(job): Path<String>, Query(wishes): Query<Wishes>) -> StatusCode {
    let taken = match &api.jobs {
        Jobs::Queue(store) => enqueue(store, &job, wishes.callback).await,
        _ => api.note(&job, 0).await,
    };
    if taken.is_err() {
        return StatusCode::SERVICE_UNAVAILABLE;
    }
    if !matches!(api.jobs, Jobs::Queue(_)) {
        tokio::spawn(async move {
            for step in 1..=STEPS {
                tokio::time::sleep(api.step).await;
                let _ = api.note(&job, step * 100 / STEPS).await;
            }
        });
    }
    StatusCode::ACCEPTED
}

/// "What's the status?"
async fn status(State(api): State<Api>, Path(job): Path<String>) -> Response {
    match api.recall(&job).await {
        Ok(Some(progress)) => Json(progress).into_response(),
        Ok(None) => (StatusCode::NOT_FOUND, "What video? I don't remember!").into_response(),
        Err(_) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}

/// The job and the order to do it, or neither.
async fn enqueue(store: &Client, job: &str, callback: Option<String>) -> Outcome<()> {
    let mut both = pipe();
    both.atomic().cmd("HSET").arg(format!("job:{job}")).arg("percent").arg(0);
    if let Some(callback) = callback {
        both.arg("callback").arg(callback);
    }
    both.ignore().cmd("LPUSH").arg("orders").arg(format!("encode {job}")).ignore();
    store.pipeline(&both).await
}

impl Api {
    async fn note(&self, job: &str, percent: u32) -> Outcome<()> {
        let progress = Progress { percent, by: self.name.clone() };
        match &self.jobs {
            Jobs::Memory(jobs) => drop(lock(jobs).insert(job.into(), progress)),
            Jobs::Database(http, at) => drop(http.post(*at, &format!("/jobs/{job}"), &progress).await?),
            Jobs::Queue(_) => {}
        }
        Ok(())
    }

    async fn recall(&self, job: &str) -> Outcome<Option<Progress>> {
        Ok(match &self.jobs {
            Jobs::Memory(jobs) => lock(jobs).get(job).cloned(),
            Jobs::Database(http, at) => {
                serde_json::from_value(http.get(*at, &format!("/jobs/{job}")).await?)?
            }
            Jobs::Queue(store) => {
                let key = format!("job:{job}");
                let (percent, by): (Option<u32>, Option<String>) =
                    store.run(cmd("HMGET").arg(key).arg(&["percent", "by"])).await?;
                percent.map(|percent| Progress { percent, by: by.unwrap_or_default() })
            }
        })
    }
}

/// The database of jobs: it keeps what it is told.
pub fn database(setup: Setup) -> Boxed<'static, Outcome<()>> {
    let read =
        async |State(jobs): State<Shelf>, Path(job): Path<String>| Json(lock(&jobs).get(&job).cloned());
    let write = async |State(jobs): State<Shelf>, Path(job): Path<String>, Json(progress): Json<Progress>| {
        lock(&jobs).insert(job, progress);
    };
    let app = Router::new().route("/jobs/{job}", get(read).post(write)).with_state(Shelf::default());
    Box::pin(child::serve(setup, app))
}

fn lock(jobs: &Shelf) -> std::sync::MutexGuard<'_, BTreeMap<String, Progress>> {
    jobs.lock().unwrap_or_else(PoisonError::into_inner)
}
