//! The database of users: one shared place outside the replicas, spoken to over HTTP.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::{Path, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::harness::{Outcome, Setup, child};

/// A row. A password is kept as it is written, because hashing it is another lesson.
#[derive(Clone, Serialize, Deserialize)]
pub struct User {
    pub password: String,
    /// How often the password was changed.
    pub version: u32,
}

/// With what everybody begins.
pub const PASSWORD: &str = "correct horse";

type Users = Arc<Mutex<HashMap<u32, User>>>;

pub async fn serve(setup: Setup) -> Outcome<()> {
    let app = Router::new()
        .route(
            "/users/{id}",
            get(async |State(users): State<Users>, Path(id): Path<u32>| {
                Json(edit(&users, id, |user| user.clone()))
            }),
        )
        .route("/users/{id}/password", post(change));
    child::serve(setup, app.with_state(Users::default())).await
}

async fn change(State(users): State<Users>, Path(id): Path<u32>, Json(wanted): Json<Value>) -> Json<User> {
    Json(edit(&users, id, |user| {
        user.password = wanted["password"].as_str().unwrap_or_default().into();
        user.version += 1;
        user.clone()
    }))
}

fn edit<T>(users: &Users, id: u32, edit: impl FnOnce(&mut User) -> T) -> T {
    let mut users = users.lock().unwrap_or_else(PoisonError::into_inner);
    edit(users.entry(id).or_insert_with(|| User { password: PASSWORD.into(), version: 0 }))
}
