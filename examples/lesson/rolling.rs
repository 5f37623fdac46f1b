//! A rolling deploy under load (Q1): three replicas are replaced one after another while people
//! shop. Who loses a cart depends on how long a replica may wait for those who know it.
//!
//! Start at [`PLANS`] and [`replace`]. The users, whose sessions last a known time, are in
//! [`visitors`], what it all says in [`verdict`]. At the normal scale a session of 2 to 10 minutes
//! lasts 0.2 to 1 s.

mod verdict;
mod visitors;

use std::time::{Duration, Instant};

use self::visitors::{Pace, Stay, Tally, Visitors};
use crate::harness::figures::time;
use crate::harness::{Chapter, Findings, Outcome, Stage};
use crate::shop::{Order, Stand, Strategy};

pub const CHAPTER: Chapter = Chapter {
    name: "rolling",
    title: "A rolling deploy under load (Q1)",
    about: "Three replicas are killed and started again, one after another, while people shop whose \
            sessions last a known time: at once, after a drain with one of four deadlines, and with \
            the sessions in a store.",
    guess: "A drain waits for exactly as long as half of all sessions last. How many of those who \
            are on the replica lose their cart: half, more, or fewer?",
    roles: &[],
    run: |stage| Box::pin(run(stage)),
};

const TOML: &str = r#"
[pool.app]
policy = "POLICY"
backends = BACKENDS
[pool.app.health]
path = "/healthz"
interval = "100ms"
rise = 1
fall = 3
"#;

/// Pintle keeps the last fifth of a deadline, and at least this, as closing time, in which nobody
/// is known any more. So a drain's deadline is what sessions are given, and this.
const CLOSING: Duration = Duration::from_secs(1);
/// Beyond this a fifth of the deadline is more than [`CLOSING`].
const LONGEST_GIVEN: Duration = Duration::from_secs(4);

/// One way to replace replicas.
#[derive(Clone, Copy, Debug)]
struct Plan {
    name: &'static str,
    strategy: Strategy,
    policy: &'static str,
    /// What sessions are given, as a share of the longest session; `None` kills at once.
    given: Option<f64>,
}

const fn plan(name: &'static str, strategy: Strategy, policy: &'static str, given: Option<f64>) -> Plan {
    Plan { name, strategy, policy, given }
}

/// Sessions last from 0.2 to 1 of the longest, so the median is 0.6.
const MEDIAN: f64 = 0.6;
/// Longer than anybody stays.
const FOR_ALL: f64 = 1.5;

const PLANS: [Plan; 8] = [
    plan("stop", Strategy::Memory, "sticky_cookie", None),
    plan("drain, shorter than the median", Strategy::Memory, "sticky_cookie", Some(0.2)),
    plan("drain, as long as the median", Strategy::Memory, "sticky_cookie", Some(MEDIAN)),
    plan("drain, longer than the median", Strategy::Memory, "sticky_cookie", Some(0.9)),
    plan("drain, longer than the longest", Strategy::Memory, "sticky_cookie", Some(FOR_ALL)),
    plan("drain under ip_hash", Strategy::Memory, "ip_hash", Some(FOR_ALL)),
    plan("central store, stop", Strategy::Central, "round_robin", None),
    plan("central store, drain", Strategy::Central, "round_robin", Some(FOR_ALL)),
];

/// What came of a plan.
#[derive(Clone, Debug)]
struct Told {
    plan: Plan,
    tally: Tally,
    swaps: Vec<Swap>,
}

/// One replica replaced by a new one.
#[derive(Clone, Debug)]
struct Swap {
    /// Sessions that lived on it when the order came.
    there: Vec<Stay>,
    /// How many of them meant to stay for longer than they were given.
    longer: usize,
    /// What they were given.
    given: Duration,
    /// How long it took until it was safe to stop it.
    drained: Duration,
}

impl Told {
    /// Sessions that lived on a replica when it was to be replaced.
    fn there(&self) -> usize {
        self.swaps.iter().map(|swap| swap.there.len()).sum()
    }

    /// How many of them were lost.
    fn lost(&self) -> usize {
        let there = self.swaps.iter().flat_map(|swap| &swap.there);
        there.filter(|stay| self.tally.lost.contains(&stay.user)).count()
    }

    fn longer(&self) -> usize {
        self.swaps.iter().map(|swap| swap.longer).sum()
    }

    fn share_lost(&self) -> f64 {
        self.lost() as f64 / self.there().max(1) as f64
    }

    /// What sessions were given, at most.
    fn given(&self) -> Duration {
        self.swaps.iter().map(|swap| swap.given).max().unwrap_or_default()
    }

    /// The longest of its three drains.
    fn drained(&self) -> Duration {
        self.swaps.iter().map(|swap| swap.drained).max().unwrap_or_default()
    }
}

async fn run(stage: &Stage) -> Outcome<Findings> {
    let longest = Duration::from_millis(stage.pick(600, 1000, 2000));
    let think = Duration::from_millis(stage.pick(300, 200, 200));
    let pace = Pace { users: stage.pick(24, 30, 60), shortest: longest / 5, longest, think };
    stage.say(format!(
        "{} users at a time stay for {} to {} in each of {} shops",
        pace.users,
        time(pace.shortest),
        time(longest),
        PLANS.len()
    ));
    // Four shops at a time: most of a drain is waiting.
    let [stop, short, median, long, all, ip_hash, killed, drained] = PLANS;
    let lanes = tokio::try_join!(
        lane(stage, pace, vec![all]),
        lane(stage, pace, vec![long, stop]),
        lane(stage, pace, vec![median, ip_hash]),
        // One after the other: a store is emptied when it is opened, and both may have the same.
        lane(stage, pace, vec![short, killed, drained]),
    )?;
    let mut told = [lanes.0, lanes.1, lanes.2, lanes.3].concat();
    told.sort_by_key(|told| PLANS.iter().position(|plan| plan.name == told.plan.name));
    let told = told.try_into().map_err(|_| "a plan was not carried out")?;
    Ok(verdict::findings(pace, &told))
}

/// One plan after the other.
async fn lane(stage: &Stage, pace: Pace, plans: Vec<Plan>) -> Outcome<Vec<Told>> {
    let mut told = Vec::new();
    for plan in plans {
        told.push(deploy(stage, pace, plan).await?);
    }
    Ok(told)
}

/// Opens a shop, fills it with users and replaces its three replicas.
async fn deploy(stage: &Stage, pace: Pace, plan: Plan) -> Outcome<Told> {
    let mut order = Order::new(plan.strategy);
    let store = if plan.strategy == Strategy::Central { Some(stage.store().await?) } else { None };
    order.store = store.as_ref().map(|store| store.url().to_owned());
    let mut stand = Stand::open(stage, order, 3, &TOML.replace("POLICY", plan.policy)).await?;
    let visitors = Visitors::come(stand.balancer.address, plan.strategy, pace, stage.chance(plan.name));
    visitors.settle().await?;
    let mut swaps = Vec::new();
    for replica in 0..3 {
        swaps.push(replace(&mut stand, replica, plan.given, &visitors).await?);
    }
    let tally = visitors.go_home().await?;
    stand.close().await;
    if let Some(store) = store {
        store.close().await?;
    }
    let told = Told { plan, tally, swaps };
    stage.say(format!("{}: {} carts lost", plan.name, told.tally.lost.len()));
    Ok(told)
}

/// Drains a replica, kills it, starts it again at its address and waits until users may come.
async fn replace(
    stand: &mut Stand,
    replica: usize,
    share: Option<f64>,
    visitors: &Visitors,
) -> Outcome<Swap> {
    let name = stand.replicas[replica].name.clone();
    let backend = format!("app/{name}");
    let mut there = visitors.present();
    there.retain(|stay| stay.replica == name || stand.order.strategy != Strategy::Memory);
    let (longest, overruns) = (visitors.pace().longest, visitors.overruns());
    // Requests take their time too, on a busy machine more: who waits for all waits for the slowest.
    let slack = |share: f64| if share > 1.0 { overruns.at(1.0) * 2 } else { overruns.p50() };
    let given = share.map(|share| (longest.mul_f64(share) + slack(share)).min(LONGEST_GIVEN));
    let until = Instant::now() + given.unwrap_or_default() - overruns.p50();
    let longer = there.iter().filter(|stay| stay.leaves > until).count();
    let mut drained = Duration::ZERO;
    if let Some(given) = given {
        let view = stand.balancer.drain(&backend, given + CLOSING).await?;
        drained = Duration::from_secs_f64(view.elapsed_seconds);
    }
    stand.replicas[replica].restart().await?;
    if given.is_some() {
        stand.balancer.pintle.ready(&backend).await.map_err(|fault| fault.detail)?;
    }
    stand.balancer.wait_for(&name, "up").await?;
    Ok(Swap { there, longer, given: given.unwrap_or_default(), drained })
}
