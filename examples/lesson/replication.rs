//! Session replication (strategy 2): every replica has every session, and every write goes to all.
//! It is measured with more and more replicas: what a write costs, what memory holds, how long the
//! last peer waits, and what two writes at once do to each other.
//!
//! Start at [`run`]. The strategy is `shop/replicated.rs`; [`growth`] adds replicas, and [`races`] is
//! about what happens at the same time.

mod growth;
mod races;

use tokio::task::JoinSet;

use crate::harness::{Chapter, Findings, Outcome, Replica, Stage, memory};
use crate::shop::{Capacity, Order, Shopper, Stand, Strategy};

pub const CHAPTER: Chapter = Chapter {
    name: "replication",
    title: "Session replication: every replica has every session",
    about: "A shop that sends each change of a session to all its replicas grows, replica by replica. \
            Every message is counted; then two tabs write at once, and a replica is killed.",
    guess: "A user puts one book into the cart. How many messages is that with 12 replicas?",
    roles: &[],
    run: |stage| Box::pin(run(stage)),
};

/// Anybody may serve anybody.
const TOML: &str = r#"
[pool.app]
policy = "round_robin"
backends = BACKENDS
[pool.app.health]
path = "/healthz"
interval = "100ms"
fall = 2
"#;

const HEADING: &str = "Session Management Strategies / Strategy 2: Session Replication";

/// Where the number of replicas is not the question.
const REPLICAS: usize = 3;

/// How many shop at the same time where speed is measured.
const AT_ONCE: usize = 16;

async fn run(stage: &Stage) -> Outcome<Findings> {
    let mut findings = Findings::default();
    growth::run(stage, &mut findings).await?;
    stage.say("two tabs at once, reads right after writes, and a replica that is killed");
    races::consistency(stage, &mut findings).await?;
    races::conflicts(stage, &mut findings).await?;
    races::killed(stage, &mut findings).await?;
    findings.left_out(
        "Two writes at the same time were tried with replication only. The shop with a store reads, changes \
         and writes a cart too, and could lose one of them as well.",
    );
    findings.left_out(
        "Replicas here send every write to every peer at once; products that replicate in rings, to one \
         backup only, or in batches pay less and promise less.",
    );
    Ok(findings)
}

/// A shop as fast as the machine: what is asked here is not how much work a replica can do.
async fn open(stage: &Stage, replicas: usize, wait_for_peers: bool) -> Outcome<Stand> {
    let order = Order {
        capacity: Capacity::UNLIMITED,
        replicate_first: wait_for_peers,
        ..Order::new(Strategy::Replicated)
    };
    Stand::open(stage, order, replicas, TOML).await
}

/// So many log-ins, by a few browsers: each log-in begins a session of its own.
pub async fn log_in_many(stand: &Stand, sessions: usize) -> Outcome<()> {
    let mut clerks = JoinSet::new();
    for clerk in 0..4 {
        let mut shopper = Shopper::new(stand.balancer.address, stand.order.strategy, clerk);
        let own = sessions / 4 + usize::from(clerk < sessions % 4);
        clerks.spawn(async move {
            for _ in 0..own {
                shopper.log_in().await;
                if !shopper.logged_in {
                    return false;
                }
            }
            true
        });
    }
    let all = clerks.join_all().await.into_iter().all(|logged_in| logged_in);
    all.then_some(()).ok_or_else(|| "somebody could not log in".into())
}

/// What all replicas hold in memory.
pub fn resident(replicas: &[Replica]) -> Option<i64> {
    replicas.iter().map(|replica| memory::resident(replica.pid()).map(|bytes| bytes as i64)).sum()
}

/// One of the replicas' counts, all together.
pub async fn sum(stand: &Stand, what: &str) -> Outcome<u64> {
    Ok(stand.counts().await?.iter().filter_map(|counts| counts[what].as_u64()).sum())
}
