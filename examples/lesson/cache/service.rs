//! The user-profile service, with four places to keep what the database said, and the database.
//!
//! Start at [`read`]: the lesson's code is its first arm.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use redis::cmd;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::harness::http::Http;
use crate::harness::{Failure, Outcome, Setup, child};
use crate::store::{Client, Link};

/// Where a profile is kept once the database was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// In a Map of this process, as in the lesson's fourth question.
    Map,
    /// In the store, which all replicas share.
    Shared,
    /// Nowhere here: the answer says for how long somebody in front may keep it.
    Edge,
    /// Nowhere.
    Nowhere,
}

impl Way {
    pub const ALL: [Self; 4] = [Self::Map, Self::Shared, Self::Edge, Self::Nowhere];

    pub fn path(self) -> &'static str {
        match self {
            Self::Map => "/map",
            Self::Shared => "/shared",
            Self::Edge => "/edge",
            Self::Nowhere => "/nowhere",
        }
    }
}

/// For how many seconds the edge may keep a profile: the lesson's 60 s, as short as the header goes.
pub const MAX_AGE: u64 = 1;

#[derive(Clone, Serialize, Deserialize)]
pub struct Order {
    pub store: String,
    pub database: SocketAddr,
}

#[derive(Clone)]
struct Service {
    way: Way,
    map: Arc<Mutex<HashMap<u32, Value>>>,
    store: Client,
    http: Http,
    database: SocketAddr,
    lookups: Arc<AtomicU64>,
}

pub async fn serve(setup: Setup) -> Outcome<()> {
    let Order { store, database } = setup.order()?;
    let (store, http) = (Client::connect(&store, Link::Multiplexed).await?, Http::default());
    let mut app = Router::new();
    for way in Way::ALL {
        let (store, http, map, lookups) = (store.clone(), http.clone(), Arc::default(), Arc::default());
        let service = Service { way, map, store, http, database, lookups };
        let routes = Router::new()
            .route("/user/{id}", get(read).put(write))
            .route("/counted", get(counted))
            .with_state(service);
        app = app.nest(way.path(), routes.clone());
        if way == Way::Edge {
            // The same, by a route of Pintle's that sets its sticky cookie.
            app = app.nest("/sticky", routes);
        }
    }
    let personal = Router::new()
        .route("/private", get(async || ([(header::CACHE_CONTROL, "private, max-age=60")], "yours")))
        .route("/no-store", get(async || ([(header::CACHE_CONTROL, "no-store")], "once")))
        .route(
            "/set-cookie",
            get(async || {
                ([(header::CACHE_CONTROL, "public, max-age=60"), (header::SET_COOKIE, "theme=dark")], "hello")
            }),
        )
        .route(
            "/account",
            get(async || ([(header::CACHE_CONTROL, "max-age=60")], "for whom the header names")),
        );
    child::serve(setup, app.nest("/personal", personal)).await
}

async fn read(State(service): State<Service>, Path(id): Path<u32>) -> Result<Response, Failed> {
    let (user, hit) = match service.way {
        // const cache = new Map(); if (cache.has(id)) return cache.get(id)
        Way::Map => match service.cached(id) {
            Some(user) => (user, true),
            None => {
                let user = service.load(id).await?;
                service.map.lock().unwrap_or_else(PoisonError::into_inner).insert(id, user.clone());
                (user, false)
            }
        },
        Way::Shared => match service.store.run::<Option<String>>(cmd("GET").arg(key(id))).await? {
            Some(user) => (serde_json::from_str(&user)?, true),
            None => {
                let user = service.load(id).await?;
                service
                    .store
                    .run::<()>(cmd("SET").arg(key(id)).arg(user.to_string()).arg("EX").arg(60))
                    .await?;
                (user, false)
            }
        },
        Way::Edge | Way::Nowhere => (service.load(id).await?, false),
    };
    let keep = match service.way {
        Way::Edge => format!("public, max-age={MAX_AGE}"),
        _ => "no-store".into(),
    };
    let headers = [("cache-control", keep), ("x-cache", if hit { "hit" } else { "miss" }.into())];
    Ok((headers, Json(user)).into_response())
}

/// The database first, then what this replica can reach of what was kept.
async fn write(
    State(service): State<Service>,
    Path(id): Path<u32>,
    Json(user): Json<Value>,
) -> Result<StatusCode, Failed> {
    service.http.post(service.database, &format!("/users/{id}"), &user).await?;
    match service.way {
        Way::Map => drop(service.map.lock().unwrap_or_else(PoisonError::into_inner).remove(&id)),
        Way::Shared => service.store.run::<()>(cmd("DEL").arg(key(id))).await?,
        Way::Edge | Way::Nowhere => {}
    }
    Ok(StatusCode::NO_CONTENT)
}

impl Service {
    fn cached(&self, id: u32) -> Option<Value> {
        self.map.lock().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    async fn load(&self, id: u32) -> Outcome<Value> {
        self.lookups.fetch_add(1, Ordering::Relaxed);
        self.http.get(self.database, &format!("/users/{id}")).await
    }
}

fn key(id: u32) -> String {
    format!("profile:{id}")
}

async fn counted(State(service): State<Service>) -> Json<Value> {
    let entries = service.map.lock().unwrap_or_else(PoisonError::into_inner).len();
    Json(json!({ "lookups": service.lookups.load(Ordering::Relaxed), "entries": entries }))
}

struct Failed(Failure);

impl<E: Into<Failure>> From<E> for Failed {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        (StatusCode::BAD_GATEWAY, self.0.to_string()).into_response()
    }
}

/// The database: everybody has a name and a kilobyte to tell.
pub async fn database(setup: Setup) -> Outcome<()> {
    type Names = Arc<Mutex<HashMap<u32, String>>>;
    let load = async |State(names): State<Names>, Path(id): Path<u32>| {
        let names = names.lock().unwrap_or_else(PoisonError::into_inner);
        let name = names.get(&id).cloned().unwrap_or_else(|| "old".into());
        Json(json!({ "id": id, "name": name, "about": "·".repeat(512) }))
    };
    let save = async |State(names): State<Names>, Path(id): Path<u32>, Json(user): Json<Value>| {
        let name = user["name"].as_str().unwrap_or_default().to_owned();
        names.lock().unwrap_or_else(PoisonError::into_inner).insert(id, name);
        StatusCode::NO_CONTENT
    };
    let app = Router::new().route("/users/{id}", get(load).post(save)).with_state(Names::default());
    child::serve(setup, app).await
}
