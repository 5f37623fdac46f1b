//! What it costs to check a token, beside what it costs to look a session up.

use std::collections::HashMap;
use std::hint::black_box;
use std::time::{Duration, Instant};

use redis::cmd;

use super::Scene;
use super::token::{self, Identity, Keys};
use crate::harness::figures::time;
use crate::harness::{Findings, Outcome, Spread, Stage, Table, quote};
use crate::store::{Client, Link, Relay};

pub async fn weigh(stage: &Stage, scene: &Scene, findings: &mut Findings) -> Outcome<()> {
    let keys = Keys::new(&scene.secret);
    let (email, role) = ("user1@shop.example".to_owned(), "customer".to_owned());
    let exp = token::expiry(super::api::DAY);
    let identity = Identity { user_id: 1, role, email, version: 0, jti: token::random(), exp };
    let token = keys.sign(&identity)?;
    let session = serde_json::to_string(&identity)?;

    let n = stage.pick(300, 3_000, 20_000);
    let sessions = HashMap::from([("session:1".to_owned(), session.clone())]);
    let memory = Spread::of((0..n).map(|_| timed(|| sessions.get(black_box("session:1")).cloned())));
    let verify = Spread::of((0..n).map(|_| timed(|| keys.verify(black_box(&token)))));

    let store = Client::connect(scene.store.url(), Link::Multiplexed).await?;
    store.run::<()>(cmd("SET").arg("session:1").arg(&session)).await?;
    let near = lookups(&store, n).await?;
    let relay = Relay::to(scene.store.url(), Duration::from_millis(1)).await?;
    let far = Client::connect(&relay.url_for(scene.store.url())?, Link::Multiplexed).await?;
    let far = lookups(&far, stage.pick(50, 200, 1_000)).await?;

    let row = |what: &str, words: &str, spread: &Spread| {
        let [p50, p99] = [spread.p50(), spread.p99()].map(time);
        vec![what.to_owned(), words.to_owned(), p50, p99, spread.n().to_string()]
    };
    findings.show(Table {
        title: "Who is it? Four ways to find out".into(),
        note: "Look-ups cross loopback, not a network. The last row has a millisecond added by us.".into(),
        columns: ["", "the lesson", "p50", "p99", "n"].map(Into::into).into(),
        rows: vec![
            row("session in this process's memory", "~0.1 ms", &memory),
            row("signature of a token checked", "~0.5 ms", &verify),
            row("session in the store", "~1-5 ms", &near),
            row("session in a store that answers 1 ms later", "~1-5 ms", &far),
        ],
    });
    let ordered = memory.p50() < verify.p50() && verify.p50() < near.p50();
    let figures = format!("memory {memory}; token {verify}; store {near}");
    findings.weigh(
        "jwt.latency_order",
        quote("Performance Considerations", "Memory ~0.1ms, Redis ~1-5ms, JWT ~0.5ms"),
        figures,
        verify.n(),
        ordered,
        "The order is what matters: memory, then a signature, then a look-up elsewhere. The lesson's times \
         are those of whole requests across a network; ours are of the look-up alone.",
    );
    findings.weigh(
        "jwt.latency_best",
        quote("Comparison Table", "Latency: Sticky Sessions Best, JWT Best"),
        format!("token p50 {}, memory p50 {}", time(verify.p50()), time(memory.p50())),
        verify.n(),
        verify.p50() <= memory.p50(),
        "The lesson's own figures say 0.5 ms against 0.1 ms, so its table is generous here: a token comes \
         second, and is still far from what a request costs.",
    );
    Ok(())
}

fn timed<T>(work: impl FnOnce() -> T) -> Duration {
    let began = Instant::now();
    black_box(work());
    began.elapsed()
}

async fn lookups(store: &Client, n: usize) -> Outcome<Spread> {
    let mut times = Vec::with_capacity(n);
    for _ in 0..n {
        let began = Instant::now();
        let session: String = store.run(cmd("GET").arg("session:1")).await?;
        serde_json::from_str::<Identity>(&session)?;
        times.push(began.elapsed());
    }
    Ok(Spread::of(times))
}
