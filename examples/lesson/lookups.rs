//! What a look-up of a session costs, by strategy: its time inside a replica, the connections to
//! the store, what local copies save and what they spoil, and what it takes to end a session.
//!
//! Start at [`run`] and [`prober`]; [`links`] is about connections and pipelines, [`stands`] about
//! whole shops: memory, revocation, local copies and a second service.

mod links;
mod stands;
mod verdicts;

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::routing::post;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use crate::harness::http::Http;
use crate::harness::{
    Aspect, Chapter, Column, Failure, Findings, Outcome, Quote, Replica, Setup, Spread, Stage, Table, child,
    quote,
};
use crate::shop::{Kept, Line, Order, Refusal, Session, Sessions, Strategy, Who};
use crate::store::{Link, Relay};

pub const CHAPTER: Chapter = Chapter {
    name: "lookups",
    title: "What a look-up of a session costs",
    about: "The same session is looked up in memory, in the store and in a token, thousands of times, inside \
            a replica. Then the store is made faster in the lesson's three ways, and sessions are ended.",
    guess: "Replicas keep copies of sessions for a minute. Somebody logs out. For how long may they still shop?",
    roles: &[
        ("prober", |setup| Box::pin(prober(setup))),
        ("invoices", |setup| Box::pin(stands::invoices(setup))),
    ],
    run: |stage| Box::pin(run(stage)),
};

const LATENCY: &str = "Performance Considerations / Latency Impact";
const TABLE: &str = "Comparison Table";

/// What is added to each answer of the store in one row: the wire that loopback lacks.
const WIRE: Duration = Duration::from_millis(1);

async fn run(stage: &Stage) -> Outcome<Findings> {
    let mut findings = Findings::default();
    let store = stage.store().await?;
    stage.say("look-ups in memory, in a token and in the store");
    latency(stage, &mut findings, store.url()).await?;
    stage.say("a connection per look-up, a pool, and one connection for all");
    links::connections(stage, &mut findings, store.url()).await?;
    links::pipeline(stage, &mut findings, store.url()).await?;
    stands::run(stage, &mut findings, &store).await?;
    store.close().await?;
    findings.concept(
        6,
        format!(
            "The store of this run is the {}; the replicas that used it held no session, and each could \
             serve every user.",
            stage.source.describe()
        ),
    );
    findings.left_out(
        "Look-ups cross loopback. A real network adds its own time to each round trip, and loses packets.",
    );
    Ok(findings)
}

/// A process that looks up sessions as a replica of the shop does, without the rest of the shop.
pub struct Prober {
    sessions: Sessions,
    /// What its users send along.
    clients: Vec<HeaderMap>,
}

#[derive(Serialize, Deserialize)]
pub struct Probe {
    pub shop: Order,
    pub sessions: usize,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
pub struct Burst {
    pub times: usize,
    pub at_once: usize,
}

#[derive(Serialize, Deserialize)]
pub struct Probed {
    nanos: Vec<u64>,
    pub took: Duration,
    /// Opened to the store so far.
    pub connections: u64,
}

impl Probed {
    pub fn spread(&self) -> Spread {
        Spread::of(self.nanos.iter().copied().map(Duration::from_nanos))
    }
}

async fn prober(setup: Setup) -> Outcome<()> {
    let probe: Probe = setup.order()?;
    let sessions = Sessions::new(&setup.name, &probe.shop).await?;
    let mut clients = Vec::new();
    for number in 0..probe.sessions {
        let who = Who { user: format!("user{number}"), role: "customer".into() };
        let headers = headers_of(sessions.begin(who.clone()).await.map_err(refused)?)?;
        let cart = (1..=3).map(|product_id| Line { product_id, quantity: 1 }).collect();
        sessions.keep(&headers, Session { who, cart }).await.map_err(refused)?;
        clients.push(headers);
    }
    let prober = Arc::new(Prober { sessions, clients });
    child::serve(setup, Router::new().route("/look_up", post(look_up)).with_state(prober)).await
}

/// So many look-ups, each timed on its own; one session after another, so that caches of the
/// processor do not answer for the store.
async fn look_up(State(prober): State<Arc<Prober>>, Json(burst): Json<Burst>) -> Json<Probed> {
    let (began, mut lanes) = (Instant::now(), JoinSet::new());
    for lane in 0..burst.at_once {
        let prober = prober.clone();
        lanes.spawn(async move {
            let mut nanos = Vec::new();
            for number in (lane..burst.times).step_by(burst.at_once) {
                let headers = &prober.clients[number % prober.clients.len()];
                let began = Instant::now();
                let found = prober.sessions.find(headers).await;
                if found.is_ok() {
                    nanos.push(began.elapsed().as_nanos() as u64);
                }
            }
            nanos
        });
    }
    let nanos = lanes.join_all().await.concat();
    let connections = prober.sessions.counts()["connections"].as_u64().unwrap_or(0);
    Json(Probed { nanos, took: began.elapsed(), connections })
}

/// Starts a prober for this shop, and has it look up.
pub async fn probe(shop: Order, sessions: usize, burst: Burst) -> Outcome<Probed> {
    let prober = Replica::start("prober", "prober", Probe { shop, sessions }).await?;
    let http = Http::default();
    // The first ones warm up; nobody waits for a cold cache twice.
    http.post(prober.address, "/look_up", &Burst { times: burst.at_once, ..burst }).await?;
    let answer = http.post(prober.address, "/look_up", &burst).await?;
    let probed: Probed = serde_json::from_value(answer)?;
    if probed.nanos.len() < burst.times {
        let found = probed.nanos.len();
        return Err(format!("only {found} of {} sessions were found", burst.times).into());
    }
    Ok(probed)
}

fn refused(refusal: Refusal) -> Failure {
    format!("the session was refused: {refusal:?}").into()
}

/// What a client sends who was given this.
fn headers_of(kept: Kept) -> Outcome<HeaderMap> {
    let (name, value) = match kept {
        Kept::Cookie { name, value } => (header::COOKIE, format!("{name}={value}")),
        Kept::Token { token } => (header::AUTHORIZATION, format!("Bearer {token}")),
    };
    Ok(HeaderMap::from_iter([(name, HeaderValue::from_str(&value)?)]))
}

/// The lesson's three latencies, and what this machine says.
async fn latency(stage: &Stage, findings: &mut Findings, store: &str) -> Outcome<()> {
    let (near, far) = (stage.pick(1000, 10_000, 50_000), stage.pick(300, 2000, 10_000));
    let central = |url: &str| central(url, Link::Multiplexed);
    let once = |times| Burst { times, at_once: 1 };
    let memory = probe(Order::new(Strategy::Memory), 1000, once(near)).await?.spread();
    let replicated = probe(Order::new(Strategy::Replicated), 1000, once(near)).await?.spread();
    let token = probe(Order::new(Strategy::Token), 1000, once(near)).await?.spread();
    let signed = probe(Order::new(Strategy::Client), 1000, once(near)).await?.spread();
    let shared = probe(central(store), 100, once(far)).await?.spread();
    let relay = Relay::to(store, WIRE).await?;
    let delayed = probe(central(&relay.url_for(store)?), 20, once(stage.pick(30, 150, 500))).await?.spread();
    let row = |name: &str, lesson: &str, spread: &Spread| {
        vec![name.to_owned(), lesson.to_owned(), spread.to_string()]
    };
    findings.show(Table {
        title: "One look-up, inside a replica".into(),
        note: "The last row is not a measurement of this machine: we let the store's answers arrive 1 ms \
               later, as over a network."
            .into(),
        columns: ["session", "the lesson", "here"].map(String::from).into(),
        rows: vec![
            row("in memory (sticky)", "~0.1 ms", &memory),
            row("in memory, replicated", "fast reads", &replicated),
            row("JWT", "~0.5 ms", &token),
            row("signed cookie", "", &signed),
            row("in the store, over loopback", "~1-5 ms", &shared),
            row("in the store, 1 ms later (added by us)", "~1-5 ms", &delayed),
        ],
    });
    let (memory_50, token_50, shared_50) = (memory.p50(), token.p50(), shared.p50());
    findings.weigh(
        "lookups.order",
        quote(LATENCY, "in-memory ~0.1ms · JWT ~0.5ms · Redis ~1-5ms"),
        format!("in memory {memory}; JWT {token}; store {shared}; with 1 ms added {delayed}"),
        memory.n() + token.n() + shared.n() + delayed.n(),
        memory_50 < token_50 && token_50 < shared_50 && shared_50 < delayed.p50(),
        "Only the order is judged: the lesson's figures are of other machines and include a network, and \
         perhaps more than the look-up.",
    );
    findings.weigh(
        "lookups.jwt_best",
        quote(TABLE, "Latency: Sticky Best, JWT Best"),
        format!("JWT p50 is {:.0} times that of memory", ratio(token_50, memory_50)),
        memory.n() + token.n(),
        token_50 <= memory_50,
        "The lesson's table gives both the best mark, and its text 0.1 ms against 0.5 ms; a signature costs \
         more than a look into a map, and both are far from being felt.",
    );
    let cell = |findings: &mut Findings, column, spread: &Spread, holds: bool| {
        let mut figure = format!("p50 {}, p99 {}", times(spread.p50()), times(spread.p99()));
        if column != Column::Sticky {
            figure += &format!(": {:.0} × memory", ratio(spread.p50(), memory_50));
        }
        findings.cell(Aspect::Latency, column, figure, Some(holds));
    };
    cell(findings, Column::Sticky, &memory, memory_50 <= token_50 && memory_50 <= shared_50);
    cell(findings, Column::Replication, &replicated, replicated.p50() <= shared_50);
    cell(findings, Column::Store, &shared, shared_50 > memory_50);
    cell(findings, Column::Jwt, &token, token_50 <= memory_50);
    Ok(())
}

fn times(time: Duration) -> String {
    crate::harness::figures::time(time)
}

fn ratio(one: Duration, other: Duration) -> f64 {
    one.as_secs_f64() / other.as_secs_f64().max(1e-9)
}

/// Words of the lesson's comparison table.
const fn table(words: &'static str) -> Quote {
    quote(TABLE, words)
}

/// The shop with its sessions in this store.
fn central(url: &str, link: Link) -> Order {
    Order { store: Some(url.into()), link, ..Order::new(Strategy::Central) }
}
