//! What both queues have in common: the work of a job, and where it is written down.

use std::time::Duration;

use redis::cmd;

use crate::harness::Outcome;
use crate::store::Client;

pub type Job = u64;

/// How long a job takes. It stands for real work, and makes sure that a kill finds some waiting.
pub const WORK: Duration = Duration::from_millis(20);
/// After which silence a worker counts as dead: much longer than a job takes.
pub const LEASE: Duration = Duration::from_millis(400);

/// Does a job and writes that down in the store, which is the database of this chapter. A set, so
/// that a job whose worker died between the work and the tick is not counted twice.
pub async fn perform(database: &Client, queue: &str, job: Job) -> Outcome<()> {
    tokio::time::sleep(WORK).await;
    database.run(cmd("SADD").arg(done(queue)).arg(job)).await
}

/// The pause of a worker that found nothing to do.
pub async fn look_again() {
    tokio::time::sleep(Duration::from_millis(5)).await;
}

/// Where done jobs are written down.
pub fn done(queue: &str) -> String {
    format!("done:{queue}")
}

/// Where a worker's job is while it is in hand.
pub fn in_hand(worker: &str) -> String {
    format!("in-hand:{worker}")
}
