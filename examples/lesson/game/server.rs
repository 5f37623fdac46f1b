//! A game's match server: the positions of a match's players are in its memory, because a store
//! would be too slow to ask at every step.
//!
//! Start at [`step`]. With a store it saves a match now and then, and takes up a match that it does
//! not know from where it was saved.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use redis::cmd;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use crate::harness::{Boxed, Outcome, Setup, child};
use crate::store::{Client, Link};

/// After so many steps of any player a match is saved. A real game saves by the clock; steps can
/// be counted.
pub const INTERVAL: u64 = 5;

/// A player in a match.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    pub x: i64,
    pub y: i64,
    pub steps: u64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Match {
    players: BTreeMap<String, Position>,
    /// Steps of each since the match was saved.
    #[serde(skip)]
    unsaved: BTreeMap<String, u64>,
}

#[derive(Clone)]
struct Server {
    /// One lock for all, held while a match is fetched or saved, so that no step comes in between.
    matches: Arc<Mutex<BTreeMap<String, Match>>>,
    snapshots: Option<Client>,
}

/// Its order is the store's address, or `null`.
pub fn role(setup: Setup) -> Boxed<'static, Outcome<()>> {
    Box::pin(async move {
        let snapshots = match setup.order::<Option<String>>()? {
            Some(store) => Some(Client::connect(&store, Link::Multiplexed).await?),
            None => None,
        };
        let app = Router::new().route("/step", post(step)).route("/where", get(async || "here"));
        child::serve(setup, app.with_state(Server { matches: Arc::default(), snapshots })).await
    })
}

/// What a player sends: `POST /step?match=m7&player=p1` with a direction.
#[derive(Deserialize)]
struct Who {
    r#match: String,
    player: String,
}

#[derive(Serialize, Deserialize)]
pub struct Direction {
    pub x: i64,
    pub y: i64,
}

async fn step(
    State(server): State<Server>,
    Query(who): Query<Who>,
    Json(direction): Json<Direction>,
) -> Result<Json<Position>, StatusCode> {
    server.step(who, direction).await.map(Json).map_err(|_| StatusCode::SERVICE_UNAVAILABLE)
}

impl Server {
    async fn step(&self, who: Who, direction: Direction) -> Outcome<Position> {
        let mut matches = self.matches.lock().await;
        if !matches.contains_key(&who.r#match) {
            let saved = self.saved(&who.r#match).await?;
            matches.insert(who.r#match.clone(), saved.unwrap_or_default());
        }
        let game = matches.get_mut(&who.r#match).expect("it was just put there");
        let player = game.players.entry(who.player.clone()).or_default();
        player.x += direction.x;
        player.y += direction.y;
        player.steps += 1;
        let position = player.clone();
        let unsaved = game.unsaved.entry(who.player).or_default();
        *unsaved += 1;
        if *unsaved == INTERVAL {
            self.save(&who.r#match, game).await?;
            game.unsaved.clear();
        }
        Ok(position)
    }

    async fn saved(&self, name: &str) -> Outcome<Option<Match>> {
        let Some(store) = &self.snapshots else { return Ok(None) };
        let saved: Option<String> = store.run(cmd("GET").arg(format!("match:{name}"))).await?;
        Ok(saved.map(|text| serde_json::from_str(&text)).transpose()?)
    }

    async fn save(&self, name: &str, game: &Match) -> Outcome<()> {
        let Some(store) = &self.snapshots else { return Ok(()) };
        let text = serde_json::to_string(game)?;
        store.run(cmd("SET").arg(format!("match:{name}")).arg(text).arg("EX").arg(3600)).await
    }
}
