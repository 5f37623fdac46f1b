//! Connections to the store, and round trips on them. Start at [`connections`] and [`pipeline`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use redis::cmd;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::{Burst, central, probe, ratio, times};
use crate::harness::{Findings, Outcome, Spread, Stage, Table, quote};
use crate::store::relay::Place;
use crate::store::{Client, Link};

const POOLING: &str = "Performance Considerations / Optimizations / 1. Connection Pooling";
const BATCHES: &str = "Performance Considerations / Optimizations / 3. Batch Operations";

/// How many look-ups are made at the same time, to see how many connections that takes.
const AT_ONCE: usize = 32;

/// The same look-ups over three kinds of links.
pub async fn connections(stage: &Stage, findings: &mut Findings, store: &str) -> Outcome<()> {
    let burst = Burst { times: stage.pick(160, 1600, 8000), at_once: AT_ONCE };
    let each = probe(central(store, Link::PerRequest), 20, burst).await?;
    let pool = probe(central(store, Link::POOL), 20, burst).await?;
    let one = probe(central(store, Link::Multiplexed), 20, burst).await?;
    let rows = [
        ("a connection per look-up", &each),
        ("a pool, min 5, max 20", &pool),
        ("one connection for all", &one),
    ];
    findings.show(Table {
        title: format!("{} look-ups, {AT_ONCE} at once", burst.times),
        note: "Connections are counted by the store's client, with those of the sessions' beginning.".into(),
        columns: ["link", "connections opened", "all took", "each took"].map(String::from).into(),
        rows: rows
            .iter()
            .map(|(name, probed)| {
                let spread = probed.spread().to_string();
                vec![(*name).into(), probed.connections.to_string(), times(probed.took), spread]
            })
            .collect(),
    });
    findings.holds(
        "lookups.connections",
        quote(POOLING, "Reuse Redis connections"),
        format!(
            "{} connections without reuse, {} with a pool, {} with one for all",
            each.connections, pool.connections, one.connections
        ),
        3 * burst.times,
        each.connections >= burst.times as u64
            && pool.connections < burst.times as u64 / 4
            && one.connections == 1,
        "A connection that is kept is opened once; one per look-up is opened for each.",
    );
    findings.weigh(
        "lookups.reuse",
        quote(POOLING, "Reuse Redis connections"),
        format!(
            "without reuse it took {:.1} times as long as with a pool, and {:.1} times as with one for all",
            ratio(each.took, pool.took),
            ratio(each.took, one.took)
        ),
        3 * burst.times,
        each.took > pool.took && each.took > one.took,
        "Opening costs a handshake and the client's greeting; over a network that is two round trips more.",
    );
    Ok(())
}

/// Three values, asked for one after another and all at once.
pub async fn pipeline(stage: &Stage, findings: &mut Findings, store: &str) -> Outcome<()> {
    let counter = Turns::before(store).await?;
    let counted = Client::connect(&counter.url, Link::Multiplexed).await?;
    for key in KEYS {
        counted.run::<()>(cmd("SET").arg(key).arg("something").arg("EX").arg(60)).await?;
    }
    let rounds = stage.pick(50, 200, 1000);
    let before = counter.seen();
    several(&counted, rounds).await?;
    let apart = counter.seen() - before;
    together(&counted, rounds).await?;
    let joined = counter.seen() - before - apart;
    findings.holds(
        "lookups.pipeline",
        quote(BATCHES, "Instead of multiple Redis calls … Use pipeline"),
        format!("{apart} round trips for {rounds} times three GETs, {joined} with a pipeline"),
        2 * rounds,
        apart == 3 * rounds as u64 && joined == rounds as u64,
        "Each GET waits for its answer before the next is sent; a pipeline sends all and waits once.",
    );
    drop(counted);
    let direct = Client::connect(store, Link::Multiplexed).await?;
    let (apart, joined) = (several(&direct, rounds).await?, together(&direct, rounds).await?);
    findings.weigh(
        "lookups.pipeline_time",
        quote(BATCHES, "Instead of multiple Redis calls … Use pipeline"),
        format!("three GETs {apart}; one pipeline {joined}"),
        2 * rounds,
        joined.p50() < apart.p50(),
        "Over loopback a round trip is short; over a network the two that are saved weigh more.",
    );
    for key in KEYS {
        direct.run::<()>(cmd("DEL").arg(key)).await?;
    }
    Ok(())
}

const KEYS: [&str; 3] = ["user:1", "cart:1", "prefs:1"];

async fn several(client: &Client, rounds: usize) -> Outcome<Spread> {
    let mut took = Vec::new();
    for _ in 0..rounds {
        let began = Instant::now();
        for key in KEYS {
            client.run::<String>(cmd("GET").arg(key)).await?;
        }
        took.push(began.elapsed());
    }
    Ok(Spread::of(took))
}

async fn together(client: &Client, rounds: usize) -> Outcome<Spread> {
    let mut took: Vec<Duration> = Vec::new();
    for _ in 0..rounds {
        let began = Instant::now();
        let mut pipeline = redis::pipe();
        for key in KEYS {
            pipeline.add_command(cmd("GET").arg(key).clone());
        }
        client.pipeline::<(String, String, String)>(&pipeline).await?;
        took.push(began.elapsed());
    }
    Ok(Spread::of(took))
}

/// Stands before a store and counts how often its client sends and then waits for an answer.
struct Turns {
    url: String,
    seen: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Drop for Turns {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Turns {
    /// For one connection.
    async fn before(store: &str) -> Outcome<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let place = Place::of(store)?;
        let url = place.at(listener.local_addr()?);
        let seen = Arc::new(AtomicU64::new(0));
        let counts = seen.clone();
        let task = tokio::spawn(async move {
            if let Ok((client, _)) = listener.accept().await {
                let _ = pass(client, &place.address, &counts).await;
            }
        });
        Ok(Self { url, seen, task })
    }

    fn seen(&self) -> u64 {
        self.seen.load(Relaxed)
    }
}

async fn pass(mut client: TcpStream, store: &str, turns: &AtomicU64) -> Outcome<()> {
    let mut store = TcpStream::connect(store).await?;
    client.set_nodelay(true)?;
    store.set_nodelay(true)?;
    let (mut asked, mut answered) = ([0; 4096], [0; 4096]);
    // However a question is cut into packets, it is one turn until something is answered.
    let mut waits = false;
    loop {
        tokio::select! {
            size = client.read(&mut asked) => {
                let size = size?;
                if size == 0 {
                    return Ok(());
                }
                turns.fetch_add(u64::from(!waits), Relaxed);
                waits = true;
                store.write_all(&asked[..size]).await?;
            }
            size = store.read(&mut answered) => {
                let size = size?;
                if size == 0 {
                    return Ok(());
                }
                waits = false;
                client.write_all(&answered[..size]).await?;
            }
        }
    }
}
