//! Whole shops, one per strategy: what memory a session takes, how soon a log-out is known, what is
//! asked of others for it, and whether a second service accepts the session. And one shop whose
//! replicas keep copies of what is in the store.
//!
//! Start at [`Measured`] and [`measure`].

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::{HeaderMap, Method};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};

use super::{central, table};
use crate::harness::figures::{bytes, share};
use crate::harness::http::Http;
use crate::harness::stage::scaled::CACHE_MINUTE;
use crate::harness::{
    Aspect, Browser, Column, Findings, Outcome, Replica, Setup, Spoil, Spread, Stage, Table, child, memory,
    quote,
};
use crate::replication::{log_in_many, resident, sum};
use crate::shop::crowd::Crowd;
use crate::shop::{Capacity, Notice, Order, Refusal, Sessions, Shopper, Stand, Strategy};
use crate::store::{Link, Store};

const COPIES: &str = "Performance Considerations / Optimizations / 2. Local Caching of Sessions";
const REPLICAS: usize = 3;
/// With fewer sessions, their memory cannot be told from that of a few connections.
const TELLING: usize = 1000;
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
struct Measured {
    /// Sessions that were begun to see what they take.
    sessions: usize,
    held: u64,
    /// The growth of all replicas' memory.
    resident: Option<i64>,
    /// The growth of the store, as it says itself.
    store: Option<i64>,
    revoked: Revoked,
    shopped: Shopped,
    /// Of so many users, how many the second service accepted.
    users: usize,
    accepted: usize,
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
    tell_memory(findings, [&sticky, &replicated, &shared, &token]);
    tell_revocation(findings, &sticky, Column::Sticky, "lookups.revocation_sticky");
    tell_revocation(findings, &replicated, Column::Replication, "lookups.revocation_replication");
    tell_revocation(findings, &shared, Column::Store, "lookups.revocation_store");
    tell_copies(findings, &shared, &copied);
    tell_second_service(findings, [&sticky, &replicated, &shared, &token]);
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
struct Revoked {
    sessions: usize,
    /// Sessions that some replica accepted right after the log-out was answered.
    accepted: usize,
    /// Of these, how many after a copy's life.
    accepted_late: usize,
    /// From the log-out's answer until every replica had refused.
    until: Vec<Duration>,
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
struct Shopped {
    requests: usize,
    /// To the store or the database, for a session.
    lookups: u64,
    /// Requests that showed a cart without what was put in.
    stale: usize,
}

impl Shopped {
    fn per_thousand(&self) -> f64 {
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

const COLUMNS: [(Column, &str); 4] = [
    (Column::Sticky, "sticky"),
    (Column::Replication, "replication"),
    (Column::Store, "store"),
    (Column::Jwt, "JWT"),
];

fn tell_memory(findings: &mut Findings, measured: [&Measured; 4]) {
    let [sticky, replicated, shared, token] = measured;
    let words = table("Server Memory: Sticky High, Replication Very High, Store Low, JWT None");
    let sessions = sticky.sessions;
    findings.holds(
        "lookups.sessions_held",
        words,
        format!(
            "for {sessions} log-ins replicas held {} (sticky), {} (replication), {} (store), {} (JWT)",
            sticky.held, replicated.held, shared.held, token.held
        ),
        4 * sessions,
        sticky.held == sessions as u64
            && replicated.held == (REPLICAS * sessions) as u64
            && shared.held == 0
            && token.held == 0,
        "Each session is in one replica, in all three, in none, and in none.",
    );
    let told = [
        (sticky.held == sessions as u64, "in one replica each"),
        (replicated.held == (REPLICAS * sessions) as u64, "in three replicas each"),
        (shared.held == 0, "in no replica"),
        (token.held == 0, "in no replica"),
    ];
    let each = measured.map(|measured| measured.resident.map(|grown| grown as f64 / sessions as f64));
    let known = sessions >= TELLING && each.iter().all(Option::is_some);
    for (((column, _), each), (holds, held)) in COLUMNS.into_iter().zip(each).zip(told) {
        let bytes =
            each.filter(|_| known).map(|each| format!("; {} per session and replica", bytes(each / 3.0)));
        let figure = format!("{sessions} sessions, {held}{}", bytes.unwrap_or_default());
        findings.cell(Aspect::ServerMemory, column, figure, Some(holds));
    }
    let [Some(one), Some(all), Some(none), Some(nothing)] = each else {
        let why = "This system does not tell what memory a process holds.";
        return findings.untested("lookups.server_memory", words, why);
    };
    if !known {
        let why = "This scale begins too few sessions to tell their memory from that of connections.";
        return findings.untested("lookups.server_memory", words, why);
    }
    let stored = shared.store.map_or(0.0, |grown| grown as f64 / sessions as f64);
    let of_all = [one, all, none, nothing].map(bytes);
    findings.weigh(
        "lookups.server_memory",
        words,
        format!(
            "per session {} (sticky), {} (replication), {} (store; and {} in it), {} (JWT)",
            of_all[0],
            of_all[1],
            of_all[2],
            bytes(stored),
            of_all[3]
        ),
        4 * sessions,
        all > one && one > none && one > nothing,
        "This is the growth of three replicas' resident memory, which comes in pages; only the order is \
         judged, and the kernel's sockets are not part of it.",
    );
    show_memory(findings, measured, of_all, stored);
}

fn show_memory(findings: &mut Findings, measured: [&Measured; 4], of_all: [String; 4], stored: f64) {
    let sockets = memory::sockets().map_or("an unknown amount".into(), |held| bytes(held as f64));
    let stored = ["0 B".into(), "0 B".into(), bytes(stored), "0 B".into()];
    let mut rows = Vec::new();
    for ((((_, name), measured), grown), stored) in COLUMNS.into_iter().zip(measured).zip(of_all).zip(stored)
    {
        rows.push(vec![name.to_owned(), measured.held.to_string(), grown, stored]);
    }
    findings.show(Table {
        title: format!("Memory after {} log-ins, three replicas", measured[0].sessions),
        note: format!("Growth of resident memory; all TCP buffers of this machine held {sockets} then."),
        columns: ["session", "sessions held", "bytes per session, all replicas", "bytes per session, store"]
            .map(String::from)
            .into(),
        rows,
    });
}

fn tell_revocation(findings: &mut Findings, measured: &Measured, column: Column, id: &str) {
    let (revoked, shopped) = (&measured.revoked, &measured.shopped);
    let until = Spread::of(revoked.until.iter().copied());
    let words = match column {
        Column::Sticky => table("Revocation: Sticky Instant"),
        Column::Replication => table("Revocation: Replication Instant"),
        Column::Store | Column::Jwt => table("Revocation: Store Instant"),
    };
    findings.holds(
        id,
        words,
        format!(
            "{} were accepted anywhere after the log-out; all replicas had refused after {until}",
            share(revoked.accepted, revoked.sessions)
        ),
        revoked.sessions,
        revoked.accepted == 0,
        "A log-out is known by every replica at once: it was answered when the only copy was gone, or all \
         of them. The time is what it takes to ask three replicas.",
    );
    let figure = format!(
        "{} accepted after log-out; {:.3} s; {:.0} look-ups per 1,000",
        share(revoked.accepted, revoked.sessions),
        until.p99().as_secs_f64(),
        shopped.per_thousand()
    );
    findings.cell(Aspect::Revocation, column, figure, Some(revoked.accepted == 0));
}

/// What local copies save, and what they cost.
fn tell_copies(findings: &mut Findings, shared: &Measured, copied: &Measured) {
    let (without, with) = (&shared.shopped, &copied.shopped);
    findings.holds(
        "lookups.network",
        quote(
            "Making Services Stateless / Strategy 2: External Session Store",
            "Extra latency (network call)",
        ),
        format!("{} look-ups in the store for {} requests", without.lookups, without.requests),
        without.requests,
        without.lookups == without.requests as u64,
        "A replica that remembers nothing asks the store for every request.",
    );
    let hits = with.requests.saturating_sub(with.lookups as usize);
    findings.holds(
        "lookups.copies",
        quote(COPIES, "Cache validated sessions briefly"),
        format!(
            "{} requests were answered from a copy; look-ups per 1,000 fell from {:.0} to {:.0}",
            share(hits, with.requests),
            without.per_thousand(),
            with.per_thousand()
        ),
        with.requests,
        hits > 0,
        "A copy lives 133 ms here for the lesson's 60 s, and users think 22 ms for about ten seconds. With \
         more replicas each user meets fewer copies.",
    );
    findings.holds(
        "lookups.stale",
        quote("When You Need Statefulness / Caching User Data", "Caching creates implicit state!"),
        format!(
            "{} requests showed a cart without what was put in; without copies {}",
            share(with.stale, with.requests),
            share(without.stale, without.requests)
        ),
        with.requests + without.requests,
        with.stale > 0 && without.stale == 0,
        "A copy in one replica does not know what was written through another; whoever caches sessions \
         should cache who it is, and not the cart.",
    );
    let revoked = &copied.revoked;
    let until = Spread::of(revoked.until.iter().copied());
    findings.fails(
        "lookups.instant_with_copies",
        table("Revocation: Store Instant, and a session cache of 60 s"),
        format!(
            "{} were still accepted after the log-out, for up to {:.3} s",
            share(revoked.accepted, revoked.sessions),
            until.at(1.0).as_secs_f64()
        ),
        revoked.sessions,
        revoked.accepted == 0,
        "The lesson's table and its code for caching cannot both be had: with the copies of a minute, a \
         log-out is known after up to a minute, and is instant only without them.",
    );
    findings.holds(
        "lookups.copies_end",
        quote(COPIES, "ttl: 60000 // 1 min"),
        format!("{} were accepted later than a copy's life", share(revoked.accepted_late, revoked.sessions)),
        revoked.sessions,
        revoked.accepted_late == 0,
        "A copy is not renewed by its use, so the delay has an end: 60 s in the lesson, 133 ms here.",
    );
    let figure = format!(
        "with local copies {} accepted after log-out; {:.3} s; {:.0} look-ups per 1,000",
        share(revoked.accepted, revoked.sessions),
        until.p99().as_secs_f64(),
        with.per_thousand()
    );
    findings.cell(Aspect::Revocation, Column::Store, figure, Some(revoked.accepted == 0));
}

fn tell_second_service(findings: &mut Findings, measured: [&Measured; 4]) {
    let expected = [false, false, true, true];
    let (mut all, mut told) = (true, Vec::new());
    for (((column, name), measured), yes) in COLUMNS.into_iter().zip(measured).zip(expected) {
        let as_told = measured.accepted == if yes { measured.users } else { 0 };
        let figure = format!("{} accepted", share(measured.accepted, measured.users));
        told.push(format!("{name} {}", share(measured.accepted, measured.users)));
        findings.cell(Aspect::CrossService, column, figure, Some(as_told));
        all &= as_told;
    }
    findings.holds(
        "lookups.cross_service",
        table("Cross-Service: Sticky No, Replication No, Store Yes, JWT Yes"),
        format!("a second service accepted: {}", told.join(", ")),
        measured.iter().map(|measured| measured.users).sum(),
        all,
        "A second service can be told where the store is, or the secret; it is in no replica's memory, and \
         to be sent every session it would have to become one of them.",
    );
}
