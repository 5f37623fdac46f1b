//! Three common mistakes, each on two replicas behind round_robin, and each mended. (The second of
//! the lesson's four, files on a local disk, is the uploads chapter.)
//!
//! Start at [`before`] and [`after`], which are meant to be read side by side.

mod after;
mod before;
mod worker;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use axum::Router;
use redis::cmd;
use serde_json::{Value, json};

use crate::harness::figures::share;
use crate::harness::{
    Balancer, Browser, Chapter, Findings, Outcome, Replica, Setup, Stage, Table, Text, child, quote,
};
use crate::store::{Client, Link};

pub const CHAPTER: Chapter = Chapter {
    name: "mistakes",
    title: "Common mistakes",
    about: "A hidden counter, two steps that must meet, and a queue in memory run on two replicas: first \
            as the lesson warns of them, then mended.",
    guess: "Both replicas count their own requests. After a hundred requests by turns, which count does \
            the next user see?",
    roles: &[("mistakes-shop", |setup| Box::pin(serve(setup)))],
    run: |stage| Box::pin(run(stage)),
};

const TOML: &str = r#"
[pool.shop]
policy = "round_robin"
backends = BACKENDS
health.path = "/healthz"
health.interval = "100ms"
"#;

/// Both versions, side by side in one replica. `order` is the store's URL.
async fn serve(setup: Setup) -> Outcome<()> {
    let store = Client::connect(&setup.order::<String>()?, Link::Multiplexed).await?;
    let app = Router::new()
        .nest("/before", before::routes(store.clone()))
        .nest("/after", after::routes(store, &setup.name));
    child::serve(setup, app).await
}

async fn run(stage: &Stage) -> Outcome<Findings> {
    let mut findings = Findings::default();
    let store = stage.store().await?;
    let mut replicas = Vec::new();
    for name in ["r1", "r2"] {
        replicas.push(Replica::start("mistakes-shop", name, store.url()).await?);
    }
    let balancer = Balancer::start(stage, TOML, &replicas).await?;
    let at = balancer.address;

    stage.say("a counter in each process, and one in the store");
    let n = stage.pick(60, 400, 4_000);
    hidden_state(&count(at, "/before", n).await?, &count(at, "/after", n).await?, &mut findings);

    stage.say("step 1 here, step 2 there");
    let users = stage.pick(20, 100, 1_000);
    let mut steps = Vec::new();
    for path in ["/before", "/after", "/after/carried"] {
        steps.push(order(stage, at, path, users).await?);
    }
    request_order(&steps, &mut findings);

    stage.say("jobs are queued in memory and in the store; then a replica is killed");
    let jobs = stage.pick(24, 60, 200);
    let database = Client::connect(store.url(), Link::Multiplexed).await?;
    queue(at, "after", jobs).await?;
    let last = queue(at, "before", jobs).await?;
    let victim = replicas.iter_mut().find(|replica| replica.name == last);
    victim.ok_or("no replica took a job")?.kill();
    let in_hand: usize = database.run(cmd("LLEN").arg(worker::in_hand(&last))).await?;
    // The survivor may have to wait for the lease to run out. What is in memory has nobody to wait for.
    let mended = done(&database, "after", jobs, worker::LEASE * 3).await?;
    let broken = done(&database, "before", jobs, worker::WORK * 15).await?;
    long_lived(jobs, broken, (mended, in_hand), &mut findings);

    code(&mut findings);
    balancer.shutdown().await;
    drop(replicas);
    store.close().await?;
    Ok(findings)
}

fn browser(at: SocketAddr) -> Browser {
    Browser::new(at, Ipv4Addr::new(10, 4, 0, 1))
}

async fn post(browser: &mut Browser, path: &str, body: Value) -> Outcome<Value> {
    let answer = browser.post(path, &body).await;
    if answer.ok() { Ok(answer.json()) } else { Err(format!("{path} answered {:?}", answer.status).into()) }
}

/// The counts that somebody sees who asks again and again.
async fn count(at: SocketAddr, version: &str, n: usize) -> Outcome<Vec<u64>> {
    let mut browser = browser(at);
    let mut seen = Vec::with_capacity(n);
    for _ in 0..n {
        let answer = browser.get(&format!("{version}/data")).await;
        seen.push(answer.json()["count"].as_u64().ok_or("no count")?);
    }
    Ok(seen)
}

fn hidden_state(before: &[u64], after: &[u64], findings: &mut Findings) {
    let lesson =
        quote("Mistake 1: Hidden State", "Different value on each server! User sees inconsistent values!");
    let right = |seen: &[u64]| (1..).zip(seen).filter(|(wanted, seen)| wanted == *seen).count();
    let last = |seen: &[u64]| seen.last().copied().unwrap_or_default();
    findings.holds(
        "mistakes.hidden_counter",
        lesson,
        format!(
            "{} counts right; after {} requests it says {}",
            share(right(before), before.len()),
            before.len(),
            last(before)
        ),
        before.len(),
        right(before) < before.len() && last(before) < before.len() as u64,
        "Each process counts what it has seen itself, and no process sees everything.",
    );
    findings.holds(
        "mistakes.shared_counter",
        quote("Step 2: Externalize State", "For each piece of state"),
        format!(
            "{} counts right; after {} requests it says {}",
            share(right(after), after.len()),
            after.len(),
            last(after)
        ),
        after.len(),
        !after.is_empty() && right(after) == after.len(),
        "INCR in the store: one number, which goes up by one for each request whoever serves it.",
    );
    findings.concept(
        1,
        format!(
            "A counter that a process remembers was right {} times in {}; one that it does not remember, {}.",
            right(before),
            before.len(),
            right(after)
        ),
    );
}

/// What became of the users' two steps.
#[derive(Default)]
struct Ordered {
    own: usize,
    nothing: usize,
    /// Somebody else's data was ordered.
    others: usize,
}

/// Users send step 1 and then step 2; half of them one by one, the others in between each other.
async fn order(stage: &Stage, at: SocketAddr, path: &str, users: usize) -> Outcome<Ordered> {
    let mut chance = stage.chance("steps");
    let (mut ordered, mut browser) = (Ordered::default(), browser(at));
    let mut waiting = Vec::new();
    for user in 0..users {
        let data = json!({ "session": format!("{path}{user}"), "item": user });
        let answer = post(&mut browser, &format!("{path}/step1"), data.clone()).await?;
        waiting.push((data, answer["carry"].clone()));
        while user < users / 2 || chance.bool() || user + 1 == users {
            let Some((data, carry)) = waiting.pop() else { break };
            let next = json!({ "session": data["session"], "carry": carry });
            let answer = post(&mut browser, &format!("{path}/step2"), next).await?;
            let part = match &answer["ordered"] {
                Value::Null => &mut ordered.nothing,
                found if *found == data => &mut ordered.own,
                _ => &mut ordered.others,
            };
            *part += 1;
        }
    }
    Ok(ordered)
}

fn request_order(steps: &[Ordered], findings: &mut Findings) {
    let [before, store, client] = steps else { return };
    let total = |ordered: &Ordered| ordered.own + ordered.nothing + ordered.others;
    findings.holds(
        "mistakes.request_order",
        quote("Mistake 3: Assuming Request Order", "const step1 = serverMemory.step1Data  // undefined!"),
        format!(
            "{} got their own order; {} got nothing, {} somebody else's",
            share(before.own, total(before)),
            before.nothing,
            before.others
        ),
        total(before),
        before.own < total(before),
        "Step 2 goes to another replica, or comes after another user's step 1. Even one replica \
         would mix users up.",
    );
    findings.holds(
        "mistakes.order_kept",
        quote("Mistake 3: Assuming Request Order", "Fix: Pass data through client or external store"),
        format!(
            "own order: {} with the store, {} carried by the client",
            share(store.own, total(store)),
            share(client.own, total(client))
        ),
        total(store) + total(client),
        total(store) > 0 && store.own == total(store) && client.own == total(client),
        "The data is found by the user's own session, or comes with the request. What a client \
         carries must be \
         checked again, as everything that it sends.",
    );
}

/// Queues jobs, and says which replica took the last.
async fn queue(at: SocketAddr, version: &str, jobs: u64) -> Outcome<String> {
    let (mut browser, mut last) = (browser(at), String::new());
    for job in 0..jobs {
        let answer = browser.post(&format!("/{version}/process"), &job).await;
        if !answer.ok() {
            return Err("a job was not taken".into());
        }
        last = answer.replica().to_owned();
    }
    Ok(last)
}

/// How many of the jobs were done: all, or those that were when nothing more had happened for a while.
async fn done(database: &Client, version: &str, jobs: u64, quiet: Duration) -> Outcome<u64> {
    let (mut done, mut changed) = (0, Instant::now());
    while done < jobs && changed.elapsed() < quiet {
        let now: u64 = database.run(cmd("SCARD").arg(worker::done(version))).await?;
        if now > done {
            (done, changed) = (now, Instant::now());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(done)
}

fn long_lived(jobs: u64, broken: u64, (mended, in_hand): (u64, usize), findings: &mut Findings) {
    findings.holds(
        "mistakes.queue_in_memory",
        quote("Mistake 4: Long-Lived Process State", "If server dies, jobs are lost!"),
        format!("{} jobs lost with one of two replicas", share((jobs - broken) as usize, jobs as usize)),
        jobs as usize,
        broken < jobs,
        "Every one of them had been answered with queued: true. They were in the memory of the \
         process that was killed.",
    );
    findings.holds(
        "mistakes.queue_in_store",
        quote("Mistake 4: Long-Lived Process State", "Fix: Use Redis/RabbitMQ for job queue"),
        format!(
            "{} jobs lost with one of two replicas, which had {in_hand} in hand",
            share((jobs - mended) as usize, jobs as usize)
        ),
        jobs as usize,
        mended == jobs,
        "Jobs wait in the store, and the one that the dead worker had in hand went back into the queue. \
         A job may be begun twice; it is written down once.",
    );
}

/// Both versions as they are, and how long each is.
fn code(findings: &mut Findings) {
    let (before, after) = (include_str!("before.rs"), include_str!("after.rs"));
    let lines = |code: &str| {
        code.lines().filter(|line| !line.trim().is_empty() && !line.trim().starts_with("//")).count()
    };
    for (title, text) in
        [("Before: remembered in the process", before), ("After: remembered elsewhere", after)]
    {
        let note = format!("{} lines without comments, as they ran.", lines(text));
        findings.show(Text { title: title.into(), note, text: text.into() });
    }
    findings.show(Table {
        title: "What mending costs in code".into(),
        note: "Most of the difference is the queue, which has to notice that a worker has died.".into(),
        columns: ["", "lines without comments"].map(Into::into).into(),
        rows: vec![
            vec!["before".into(), lines(before).to_string()],
            vec!["after, with two ways to mend the steps".into(), lines(after).to_string()],
        ],
    });
    findings.concept(9, format!(
        "The three mended services take {} lines, the broken ones {}: to begin with, it is no other program.",
        lines(after), lines(before)
    ));
}
