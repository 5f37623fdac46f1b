//! The three ways tried: jobs are ordered, a process is killed, and everybody is asked.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use redis::cmd;

use super::api::Order;
use super::client::{Asked, Calls, Client, Phone};
use super::{REPLICAS, TOML, WORKERS, worker};
use crate::harness::{Balancer, Outcome, Replica, Stage};
use crate::store::{self, Link};

/// How long a part of a video takes. Nothing of what is counted depends on it.
const STEP: Duration = Duration::from_millis(5);
/// Replicas work more slowly, so that one is killed before it is done.
const KEPT_STEP: Duration = Duration::from_millis(40);
/// The worker that is killed is slow, so that it surely is in the middle of a job.
const SLOW: Duration = Duration::from_millis(100);
/// What a run waits for jobs to be done.
const PATIENCE: Duration = Duration::from_secs(20);

/// Jobs that replicas do themselves.
pub struct Kept {
    pub jobs: usize,
    pub before: Asked,
    /// After one replica was killed.
    pub after: Asked,
    pub on_the_killed: usize,
    /// Jobs that will never be done.
    pub unfinished: usize,
}

pub async fn in_memory(stage: &Stage) -> Outcome<Kept> {
    keep(stage, &Order::Memory { step: KEPT_STEP }).await
}

pub async fn in_database(stage: &Stage) -> Outcome<Kept> {
    let database = Replica::start("jobs-database", "database", ()).await?;
    keep(stage, &Order::Database { at: database.address, step: KEPT_STEP }).await
}

async fn keep(stage: &Stage, order: &Order) -> Outcome<Kept> {
    let mut replicas = replicas(order).await?;
    let balancer = Balancer::start(stage, TOML, &replicas).await?;
    let mut client = Client::order(balancer.address, stage.pick(9, 30, 90), None).await?;
    let before = client.ask_everywhere().await?;
    replicas[0].kill();
    let after = client.ask_everywhere().await?;
    let on_the_killed = client.taken_by.values().filter(|taker| **taker == replicas[0].name).count();
    // Those of the others must get done; those of the dead replica stay as they are.
    let left = client.jobs.iter().filter(|job| client.taken_by[*job] != replicas[0].name).cloned();
    let mut left: Vec<_> = left.collect();
    let patience = Instant::now() + PATIENCE;
    while !left.is_empty() && matches!(order, Order::Database { .. }) && Instant::now() < patience {
        let mut still = Vec::new();
        for job in left {
            if client.ask(&job).await?.percent < 100 {
                still.push(job);
            }
        }
        left = still;
        tokio::time::sleep(STEP).await;
    }
    let mut unfinished = after.forgotten;
    if matches!(order, Order::Database { .. }) {
        let now = client.ask_everywhere().await?;
        unfinished = now.progress.values().filter(|progress| progress.percent < 100).count();
    }
    let jobs = client.jobs.len();
    // Its connection would be waited for.
    drop(client);
    balancer.shutdown().await;
    Ok(Kept { jobs, before, after, on_the_killed, unfinished })
}

async fn replicas(order: &Order) -> Outcome<Vec<Replica>> {
    let mut replicas = Vec::new();
    for number in 1..=REPLICAS {
        replicas.push(Replica::start("jobs", &format!("r{number}"), order).await?);
    }
    Ok(replicas)
}

/// Jobs that workers take from the store.
pub struct Queued {
    pub jobs: usize,
    /// While jobs ran.
    pub asked: Asked,
    /// How many results each job has.
    pub results: BTreeMap<String, u64>,
    /// How often a job was done to its end, all together.
    pub finished: usize,
    /// Who wrote the results.
    pub workers: BTreeSet<String>,
    /// The job in whose middle a worker was killed.
    pub killed: String,
    /// How often that one was begun.
    pub begun: u64,
    pub calls: BTreeMap<String, Calls>,
}

pub async fn in_queue(stage: &Stage) -> Outcome<Queued> {
    let store = stage.store().await?;
    let phone = Phone::listen().await?;
    let mut replicas = replicas(&Order::Queue { store: store.url().into() }).await?;
    let balancer = Balancer::start(stage, TOML, &replicas).await?;
    let mut client = Client::order(balancer.address, stage.pick(16, 60, 200), Some(phone.address)).await?;
    let mut workers = Vec::new();
    for number in 1..=WORKERS {
        let step = if number == 1 { SLOW } else { STEP };
        let order = worker::Order { store: store.url().into(), step, stalls: number == 2 };
        workers.push(Replica::start("worker", &format!("w{number}"), order).await?);
    }

    let killed = wait_for_work_of(&mut client, "w1").await?;
    workers[0].kill();
    let asked = client.ask_everywhere().await?;
    replicas[0].kill();

    let redis = store::Client::connect(store.url(), Link::Multiplexed).await?;
    let patience = Instant::now() + PATIENCE;
    let mut queued = look(&redis, &client, &phone, asked, killed).await?;
    while !queued.is_over() && Instant::now() < patience {
        tokio::time::sleep(STEP).await;
        queued = look(&redis, &client, &phone, queued.asked, queued.killed).await?;
    }
    drop((workers, client));
    balancer.shutdown().await;
    store.close().await?;
    Ok(queued)
}

/// Until the worker is in the middle of a job: which.
async fn wait_for_work_of(client: &mut Client, worker: &str) -> Outcome<String> {
    let patience = Instant::now() + PATIENCE;
    while Instant::now() < patience {
        for job in client.jobs.clone() {
            let progress = client.ask(&job).await?;
            if progress.by == worker && progress.percent < 100 {
                return Ok(job);
            }
        }
    }
    Err(format!("{worker} did not begin a job within {PATIENCE:?}").into())
}

/// What the store and the client's address know now.
async fn look(
    redis: &store::Client,
    client: &Client,
    phone: &Phone,
    asked: Asked,
    killed: String,
) -> Outcome<Queued> {
    let mut results = BTreeMap::new();
    let (mut finished, mut workers, mut begun_killed) = (0, BTreeSet::new(), 0);
    for job in &client.jobs {
        let mut counts = cmd("HMGET");
        counts.arg(format!("job:{job}")).arg(&["results", "finished", "begun"]);
        let (written, ends, begun): (Option<u64>, Option<usize>, Option<u64>) = redis.run(&counts).await?;
        results.insert(job.clone(), written.unwrap_or_default());
        finished += ends.unwrap_or_default();
        if *job == killed {
            begun_killed = begun.unwrap_or_default();
        }
        let result: Option<String> = redis.run(cmd("GET").arg(format!("result:{job}"))).await?;
        workers.extend(result.and_then(|result| Some(result.rsplit_once(' ')?.1.to_owned())));
    }
    let (jobs, calls) = (client.jobs.len(), phone.calls());
    Ok(Queued { jobs, asked, results, finished, workers, killed, begun: begun_killed, calls })
}

impl Queued {
    /// Every job has a result and every client was told, and the worker that fell silent has come
    /// back and finished what somebody else was given meanwhile.
    fn is_over(&self) -> bool {
        let done = self.results.values().all(|results| *results > 0);
        let told = self.calls.values().filter(|calls| calls.visible > 0).count();
        done && told == self.jobs && self.finished > self.jobs
    }
}
