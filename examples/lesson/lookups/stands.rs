//! Whole shops, one per strategy: what memory a session takes, how soon a log-out is known, what is
//! asked of others for it, and whether a second service accepts the session. And one shop whose
//! replicas keep copies of what is in the store.
//!
//! Start at [`Measured`] and [`measure`]. What is said of them is in [`verdicts`].

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::{HeaderMap, Method};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};

use super::{central, verdicts};
use crate::harness::http::Http;
use crate::harness::stage::scaled::CACHE_MINUTE;
use crate::harness::{Browser, Column, Findings, Outcome, Replica, Setup, Spoil, Stage, child};
use crate::replication::{log_in_many, resident, sum};
use crate::shop::crowd::Crowd;
use crate::shop::{Capacity, Notice, Order, Refusal, Sessions, Shopper, Stand, Strategy};
use crate::store::{Link, Store};

pub const REPLICAS: usize = 3;
/// How long a user thinks, in the scale in which a minute is 133 ms: about ten seconds.
const THINK: Duration = Duration::from_millis(22);
/// Longer than a session may go on after its end, in any strategy here.
const PATIENCE: Duration = Duration::from_secs(3);

/// Sticky where a session is in one memory, and anybody may serve anybody elsewhere.
const TOML: &str = r#"
[pool.app]
policy = "POLICY"
backends = BACKENDS
"#;

/// What was seen of one strategy.
pub struct Measured {
    /// Sessions that were begun to see what they take.
    pub sessions: usize,
    pub held: u64,
    /// The growth of all replicas' memory.
    pub resident: Option<i64>,
    /// The growth of the store, as it says itself.
    pub store: Option<i64>,
    pub revoked: Revoked,
    pub shopped: Shopped,
    /// Of so many users, how many the second service accepted.
    pub users: usize,
    pub accepted: usize,
}

pub async fn run(stage: &Stage, findings: &mut Findings, store: &Store) -> Outcome<()> {
    // Spoilt on purpose, the shop with the store keeps copies too.
    let spoilt = stage.spoil == Some(Spoil::Cache);
    let in_store = Order { local_copies: spoilt, ..central(store.url(), Link::Multiplexed) };
    let with_copies = Order { local_copies: true, ..central(store.url(), Link::Multiplexed) };
    stage.say("four shops: what memory sessions take, how soon a log-out is known, who else accepts them");
    let sticky = measure(stage, Order::new(Strategy::Memory), None).await?;
    let replicated = measure(stage, Order::new(Strategy::Replicated), None).await?;
    let shared = measure(stage, in_store, Some(store)).await?;
    let token = measure(stage, Order::new(Strategy::Token), None).await?;
    stage.say("a shop whose replicas keep copies of sessions");
    let copied = measure(stage, with_copies, Some(store)).await?;
    verdicts::memory(findings, [&sticky, &replicated, &shared, &token]);
    verdicts::revocation(findings, &sticky, Column::Sticky, "lookups.revocation_sticky");
    verdicts::revocation(findings, &replicated, Column::Replication, "lookups.revocation_replication");
    verdicts::revocation(findings, &shared, Column::Store, "lookups.revocation_store");
    verdicts::copies(findings, &shared, &copied);
    verdicts::second_service(findings, [&sticky, &replicated, &shared, &token]);
    Ok(())
}

async fn measure(stage: &Stage, order: Order, store: Option<&Store>) -> Outcome<Measured> {
    let order = Order { capacity: Capacity::UNLIMITED, ..order };
    let policy = if order.strategy == Strategy::Memory { "sticky_cookie" } else { "round_robin" };
    let stand = Stand::open(stage, order, REPLICAS, &TOML.replace("POLICY", policy)).await?;
    let sessions = if stand.order.local_copies { 0 } else { stage.pick(200, 2000, 6000) };
    // The first requests open connections and fill buffers, which is no session's memory.
    log_in_many(&stand, sessions / 4).await?;
    let (before, held) = (resident(&stand.replicas), sum(&stand, "sessions").await?);
    let stored = stored(store).await?;
    log_in_many(&stand, sessions).await?;
    let resident = before.zip(resident(&stand.replicas)).map(|(before, after)| after - before);
    let held = sum(&stand, "sessions").await?.saturating_sub(held);
    let store = stored.zip(self::stored(store).await?).map(|(before, after)| after - before);
    // A token cannot be taken back at all: that is the next chapter's.
    let is_token = stand.order.strategy == Strategy::Token;
    let revoked = if is_token { Revoked::default() } else { log_out(stage, &stand).await? };
    let shopped = if is_token { Shopped::default() } else { shop(stage, &stand).await? };
    let users = stage.pick(10, 20, 50);
    let accepted = at_second_service(&stand, users).await?;
    stand.close().await;
    Ok(Measured { sessions, held, resident, store, revoked, shopped, users, accepted })
}

async fn stored(store: Option<&Store>) -> Outcome<Option<i64>> {
    Ok(match store {
        Some(store) => Some(store.memory().await? as i64),
        None => None,
    })
}

/// What happened after log-outs.
#[derive(Default)]
pub struct Revoked {
    pub sessions: usize,
    /// Sessions that some replica accepted right after the log-out was answered.
    pub accepted: usize,
    /// Of these, how many after a copy's life.
    pub accepted_late: usize,
    /// From the log-out's answer until every replica had refused.
    pub until: Vec<Duration>,
}

/// Users log in, are seen by every replica, and log out; then every replica is asked.
async fn log_out(stage: &Stage, stand: &Stand) -> Outcome<Revoked> {
    let mut lanes = tokio::task::JoinSet::new();
    let each = stage.pick(4, 8, 20);
    for lane in 0..4 {
        let mut shopper = Shopper::new(stand.balancer.address, stand.order.strategy, lane);
        let replicas: Vec<_> = stand.replicas.iter().map(|replica| replica.address).collect();
        lanes.spawn(async move {
            let mut revoked = Revoked::default();
            for _ in 0..each {
                revoke(&mut shopper, &replicas, &mut revoked).await;
            }
            revoked
        });
    }
    Ok(lanes.join_all().await.into_iter().fold(Revoked::default(), |mut all, one| {
        all.sessions += one.sessions;
        all.accepted += one.accepted;
        all.accepted_late += one.accepted_late;
        all.until.extend(one.until);
        all
    }))
}

async fn revoke(shopper: &mut Shopper, replicas: &[SocketAddr], revoked: &mut Revoked) {
    shopper.log_in().await;
    let thief = |at: &SocketAddr| {
        let mut browser = Browser::new(*at, Ipv4Addr::new(10, 9, 9, 9));
        browser.cookies = shopper.browser.cookies.clone();
        browser
    };
    let mut thieves: Vec<_> = replicas.iter().map(thief).collect();
    for thief in &mut thieves {
        thief.get("/dashboard").await;
    }
    shopper.log_out().await;
    let (ended, mut first) = (Instant::now(), true);
    revoked.sessions += 1;
    loop {
        let asked = ended.elapsed();
        let mut still = Vec::new();
        for mut thief in thieves {
            if thief.get("/dashboard").await.ok() {
                still.push(thief);
            }
        }
        revoked.accepted += usize::from(first && !still.is_empty());
        revoked.accepted_late += usize::from(asked > CACHE_MINUTE && !still.is_empty());
        if still.is_empty() || asked > PATIENCE {
            revoked.until.push(ended.elapsed());
            return;
        }
        (thieves, first) = (still, false);
        // Asked again and again until the last one knows.
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
}

/// What was asked of others while users shopped.
#[derive(Default)]
pub struct Shopped {
    pub requests: usize,
    /// To the store or the database, for a session.
    pub lookups: u64,
    /// Requests that showed a cart without what was put in.
    pub stale: usize,
}

impl Shopped {
    pub fn per_thousand(&self) -> f64 {
        1000.0 * self.lookups as f64 / self.requests.max(1) as f64
    }
}

async fn shop(stage: &Stage, stand: &Stand) -> Outcome<Shopped> {
    let mut crowd = Crowd::new(stand.balancer.address, stand.order.strategy, 10, stage.chance("lookups"));
    crowd.think = THINK;
    crowd.arrive().await?;
    let before = asked_of_others(stand).await?;
    let log =
        crowd.shop(stage.pick(Duration::from_millis(400), Duration::from_millis(800), PATIENCE)).await?;
    let lookups = asked_of_others(stand).await? - before;
    let stale = log.moments.iter().filter(|moment| moment.visit.notice == Some(Notice::CartLacks)).count();
    Ok(Shopped { requests: log.requests(), lookups, stale })
}

async fn asked_of_others(stand: &Stand) -> Outcome<u64> {
    let queries = Http::default().get(stand.database.address, "/counts").await?["queries"].as_u64();
    Ok(sum(stand, "lookups").await? + queries.unwrap_or(0))
}

/// A second service: no replica of the shop, and told nothing but what can be shared. That is the
/// store's address, the token's secret, or nothing.
pub async fn invoices(setup: Setup) -> Outcome<()> {
    let sessions = Arc::new(Sessions::new(&setup.name, &setup.order()?).await?);
    let invoices = async |State(sessions): State<Arc<Sessions>>, headers: HeaderMap| {
        let who = sessions.find(&headers).await?.who;
        Ok::<_, Refusal>(Json(json!({ "invoicesOf": who.user })))
    };
    child::serve(setup, Router::new().route("/invoices", get(invoices)).with_state(sessions)).await
}

/// How many users of the shop are known there.
async fn at_second_service(stand: &Stand, users: usize) -> Outcome<usize> {
    let invoices = Replica::start("invoices", "invoices", &stand.order).await?;
    let mut accepted = 0;
    for number in 0..users {
        let mut shopper = Shopper::new(stand.balancer.address, stand.order.strategy, number);
        shopper.log_in().await;
        let mut elsewhere = Browser::new(invoices.address, shopper.browser.ip);
        std::mem::swap(&mut elsewhere, &mut shopper.browser);
        shopper.browser.cookies.clone_from(&elsewhere.cookies);
        let answer = shopper.send(Method::GET, "/invoices", &Value::Null).await;
        accepted += usize::from(answer.json()["invoicesOf"] == shopper.user.as_str());
    }
    Ok(accepted)
}
