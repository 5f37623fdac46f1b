//! Caching user data: a Map in each process, a shared cache, a cache at the edge, and none.
//!
//! Start at [`service`], whose `read` holds the lesson's code and what it becomes; [`edge`] is the
//! cache in front of Pintle. What was seen is judged in [`verdict`].

mod edge;
mod service;
mod verdict;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::http::Method;
use serde_json::json;
use tokio::time::sleep;

use self::edge::Edge;
use self::service::{MAX_AGE, Way};
use crate::harness::http::Http;
use crate::harness::{Answer, Balancer, Browser, Chapter, Findings, Outcome, Replica, Spread, Stage, memory};

pub const CHAPTER: Chapter = Chapter {
    name: "cache",
    title: "Caching user data",
    about: "A profile service keeps what the database said in four places, over three replicas; then \
            profiles are changed, and everybody is asked again.",
    guess: "Three replicas each keep a Map of profiles. A user changes her name. How many of her next \
            six page views show the old one?",
    roles: &[
        ("cache-service", |setup| Box::pin(service::serve(setup))),
        ("cache-database", |setup| Box::pin(service::database(setup))),
    ],
    run: |stage| Box::pin(run(stage)),
};

const TOML: &str = r#"
[[route]]
path = "/"
pool = "profiles"

[[route]]
path = "/sticky"
pool = "sticky"

[pool.profiles]
policy = "round_robin"
backends = BACKENDS
health.path = "/healthz"
health.interval = "100ms"

# The same replicas once more: the first answer to everybody sets a cookie.
[pool.sticky]
policy = "sticky_cookie"
backends = BACKENDS
"#;

/// From which number on each part of the chapter takes its profiles, so that none meets another's.
const CHANGED: u32 = 1_000;
const READ: u32 = 10_000;
const AT_EDGE: u32 = 20_000;
const GROWN: u32 = 100_000;

async fn run(stage: &Stage) -> Outcome<Findings> {
    let mut findings = Findings::default();
    let store = stage.store().await?;
    let database = Replica::start("cache-database", "database", ()).await?;
    let order = service::Order { store: store.url().into(), database: database.address };
    let mut replicas = Vec::new();
    for name in ["r1", "r2", "r3"] {
        replicas.push(Replica::start("cache-service", name, &order).await?);
    }
    let balancer = Balancer::start(stage, TOML, &replicas).await?;
    let edge = Edge::start(balancer.address).await?;

    stage.say("profiles are changed, and read again through every replica");
    let users = stage.pick(10, 40, 200);
    let mut changes = Vec::new();
    for way in [Way::Map, Way::Shared, Way::Nowhere] {
        changes.push((way, change(balancer.address, way, users).await?));
    }
    verdict::changes(&changes, &mut findings);

    stage.say("many profiles are read once; one is changed behind the edge's back");
    let (grown, aged) = tokio::try_join!(grow(stage, &balancer, &replicas), age(&edge, &balancer))?;
    verdict::growth(&grown, &mut findings);
    verdict::staleness(&aged, &mut findings);

    stage.say("the same readers with four places to keep what they read");
    let mut reads = Vec::new();
    for way in Way::ALL {
        let at = if way == Way::Edge { edge.address } else { balancer.address };
        reads.push((way, read(stage, at, way, &replicas).await?));
    }
    verdict::reads(&reads, &mut findings);

    stage.say("what a cache in front of Pintle must not keep");
    verdict::personal(&keep(stage, &edge).await?, &mut findings);
    verdict::sticky(&stick(stage, &edge).await?, &mut findings);
    verdict::answers(&changes, &reads, &mut findings);
    drop(edge);
    balancer.shutdown().await;
    drop((replicas, database));
    store.close().await?;
    Ok(findings)
}

fn browser(at: SocketAddr) -> Browser {
    Browser::new(at, Ipv4Addr::new(10, 3, 0, 1))
}

async fn rename(browser: &mut Browser, path: &str) -> Outcome<()> {
    let name = json!({ "name": "new" }).to_string();
    let answer = browser.send(Method::PUT, path, &[("content-type", "application/json")], name).await;
    if answer.ok() { Ok(()) } else { Err(format!("{path} could not be changed").into()) }
}

/// Header `name` says `hit`.
fn hit(answer: &Answer, name: &str) -> bool {
    answer.headers.get(name).is_some_and(|value| value == "hit")
}

/// How many profiles were changed, how many answers came after, how many of those were old, and for
/// how many profiles old and new ones came in turn.
struct Changed {
    users: usize,
    answers: usize,
    old: usize,
    disagreed: usize,
}

/// Each profile is read by way of every replica, changed through one, and read six times more.
async fn change(at: SocketAddr, way: Way, users: usize) -> Outcome<Changed> {
    let mut browser = browser(at);
    let mut changed = Changed { users, answers: 0, old: 0, disagreed: 0 };
    // Nobody else's: a profile that was changed before would look new at once.
    for id in (CHANGED + 1_000 * way as u32..).take(users) {
        let path = format!("{}/user/{id}", way.path());
        for _ in 0..3 {
            if browser.get(&path).await.json()["name"] != "old" {
                return Err(format!("{path} was changed already").into());
            }
        }
        rename(&mut browser, &path).await?;
        let mut old = 0;
        for _ in 0..6 {
            let answer = browser.get(&path).await;
            if !answer.ok() {
                return Err(format!("{path} was not answered").into());
            }
            old += usize::from(answer.json()["name"] != "new");
        }
        changed.answers += 6;
        changed.old += old;
        changed.disagreed += usize::from(old > 0 && old < 6);
    }
    Ok(changed)
}

/// How the replicas' Maps grew.
struct Grown {
    asked: usize,
    /// Entries more, after half of the profiles and after all.
    half: usize,
    all: usize,
    /// Resident memory of the three before and after, in bytes.
    memory: Option<(u64, u64)>,
}

/// Different people's profiles, each read once.
async fn grow(stage: &Stage, balancer: &Balancer, replicas: &[Replica]) -> Outcome<Grown> {
    const READERS: u32 = 4;
    let asked = stage.pick(400, 3_000, 30_000);
    let resident = || replicas.iter().map(|replica| memory::resident(replica.pid())).sum::<Option<u64>>();
    let (before, empty) = (resident(), count(replicas, Way::Map).await?.1);
    let mut entries = [0; 2];
    for (part, entries) in (0..).zip(&mut entries) {
        let from = GROWN + part * (asked / 2);
        let readers = (0..READERS).map(|reader| {
            let mut browser = browser(balancer.address);
            tokio::spawn(async move {
                for id in (from..from + asked / 2).skip(reader as usize).step_by(READERS as usize) {
                    browser.get(&format!("/map/user/{id}")).await;
                }
            })
        });
        for reader in readers.collect::<Vec<_>>() {
            reader.await?;
        }
        *entries = (count(replicas, Way::Map).await?.1 - empty) as usize;
    }
    let memory = before.zip(resident());
    Ok(Grown { asked: asked as usize, half: entries[0], all: entries[1], memory })
}

/// Look-ups in the database and entries of Maps, of all replicas.
async fn count(replicas: &[Replica], way: Way) -> Outcome<(u64, u64)> {
    let (http, mut sum) = (Http::default(), (0, 0));
    for replica in replicas {
        let counted = http.get(replica.address, &format!("{}/counted", way.path())).await?;
        sum.0 += counted["lookups"].as_u64().unwrap_or_default();
        sum.1 += counted["entries"].as_u64().unwrap_or_default();
    }
    Ok(sum)
}

/// What readers got, some profiles being far more popular than others.
struct Read {
    asked: usize,
    failed: usize,
    hits: Spread,
    misses: Spread,
    lookups: u64,
}

async fn read(stage: &Stage, at: SocketAddr, way: Way, replicas: &[Replica]) -> Outcome<Read> {
    let asked = stage.pick(200, 1_000, 10_000);
    let mut chance = stage.chance("readers");
    let mut browser = browser(at);
    let before = count(replicas, way).await?.0;
    let (mut hits, mut misses, mut failed) = (Vec::new(), Vec::new(), 0);
    for _ in 0..asked {
        // The cube makes the first tenth of a hundred profiles take half of the visits.
        let id = READ + (chance.f64().powi(3) * 100.0) as u32;
        let answer = browser.get(&format!("{}/user/{id}", way.path())).await;
        failed += usize::from(!answer.ok());
        let hit = hit(&answer, if way == Way::Edge { "x-edge" } else { "x-cache" });
        if hit { &mut hits } else { &mut misses }.push(answer.took);
    }
    let lookups = count(replicas, way).await?.0 - before;
    Ok(Read { asked, failed, hits: Spread::of(hits), misses: Spread::of(misses), lookups })
}

/// What the edge says of a profile that was changed behind its back.
struct Aged {
    /// Answers asked for while the kept one was fresh, and old ones among them.
    fresh: (usize, usize),
    /// The same after its time.
    after: (usize, usize),
    /// Old answers after a change through this edge, and all.
    through: (usize, usize),
}

async fn age(edge: &Edge, balancer: &Balancer) -> Outcome<Aged> {
    const PACE: Duration = Duration::from_millis(10);
    const AFTER: Duration = Duration::from_millis(200);
    let max_age = Duration::from_secs(MAX_AGE);
    let (path, other) = (format!("/edge/user/{AT_EDGE}"), format!("/edge/user/{}", AT_EDGE + 1));
    let (mut reader, mut elsewhere) = (browser(edge.address), browser(balancer.address));
    let mut aged = Aged { fresh: (0, 0), after: (0, 0), through: (0, 0) };

    reader.get(&other).await;
    rename(&mut reader, &other).await?;
    for _ in 0..20 {
        let answer = reader.get(&other).await;
        aged.through = (aged.through.0 + usize::from(answer.json()["name"] != "new"), aged.through.1 + 1);
    }

    reader.get(&path).await;
    let kept = Instant::now();
    rename(&mut elsewhere, &path).await?;
    while kept.elapsed() < max_age + AFTER {
        let fresh = kept.elapsed() < max_age;
        let answer = reader.get(&path).await;
        let old = usize::from(answer.json()["name"] != "new");
        let part = if fresh { &mut aged.fresh } else { &mut aged.after };
        *part = (part.0 + 1, part.1 + old);
        sleep(PACE).await;
    }
    Ok(aged)
}

/// Answers that were meant for one person: how many were asked for, given to others, and kept.
struct Kept {
    asked: usize,
    shared: usize,
    kept: usize,
}

async fn keep(stage: &Stage, edge: &Edge) -> Outcome<Kept> {
    let mut kept = Kept { asked: 0, shared: 0, kept: 0 };
    for page in ["private", "no-store", "set-cookie", "account"] {
        for user in 0..stage.pick(5, 20, 100) {
            let account = format!("Bearer user{user}");
            let headers: &[_] = if page == "account" { &[("authorization", &*account)] } else { &[] };
            let path = format!("/personal/{page}");
            let answer = browser(edge.address).send(Method::GET, &path, headers, Bytes::new()).await;
            kept.asked += 1;
            kept.shared += usize::from(hit(&answer, "x-edge") || !answer.ok());
        }
    }
    kept.kept = edge.kept("/personal").0;
    Ok(kept)
}

/// What users of the sticky route got through the edge.
struct Stuck {
    users: usize,
    /// Users whose first answer set the cookie, fresh from Pintle.
    own: usize,
    /// Answers from the edge's shelf that set a cookie.
    others: usize,
    /// Answers on the shelf that set a cookie.
    kept: usize,
    hits: usize,
}

async fn stick(stage: &Stage, edge: &Edge) -> Outcome<Stuck> {
    let users = stage.pick(10, 40, 200);
    let mut stuck = Stuck { users, own: 0, others: 0, kept: 0, hits: 0 };
    let path = format!("/sticky/user/{AT_EDGE}");
    let mut browsers: Vec<_> = (0..users).map(|_| browser(edge.address)).collect();
    // Everybody new, then everybody known, then everybody new again while the edge has the page.
    for round in 0..3 {
        for browser in &mut browsers {
            if round == 2 {
                browser.forget();
            }
            let answer = browser.get(&path).await;
            let (hit, cookie) = (hit(&answer, "x-edge"), answer.headers.contains_key("set-cookie"));
            stuck.own += usize::from(round == 0 && cookie && !hit);
            stuck.others += usize::from(cookie && hit);
            stuck.hits += usize::from(hit);
            stuck.kept = stuck.kept.max(edge.kept("/sticky").1);
        }
    }
    Ok(stuck)
}
