//! A rolling deploy under load (Q1): three replicas are replaced one after another while people
//! shop. Who loses a cart depends on how long a replica may wait for those who know it.
//!
//! Start at [`PLANS`] and [`replace`]. The users, whose sessions last a known time, are in
//! [`visitors`]. A session of 2 to 10 minutes lasts 0.2 to 1 s here.

mod visitors;

use std::time::Duration;

use self::visitors::{Pace, Stay, Tally, Visitors};
use crate::harness::figures::{share, time};
use crate::harness::{Chapter, Findings, Lines, Outcome, Quote, Series, Stage, Table, Text, quote};
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
    let think = Duration::from_millis(200);
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
        lane(stage, pace, vec![long, killed]),
        lane(stage, pace, vec![median, drained]),
        lane(stage, pace, vec![short, ip_hash, stop]),
    )?;
    let mut told = [lanes.0, lanes.1, lanes.2, lanes.3].concat();
    told.sort_by_key(|told| PLANS.iter().position(|plan| plan.name == told.plan.name));
    let told = told.try_into().map_err(|_| "a plan was not carried out")?;
    Ok(findings(pace, &told))
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
    let given = share.map(|share| {
        // Requests take their time too, on a busy machine more: who waits for all looks how long they stay.
        let longest = if share > 1.0 { visitors.longest() } else { visitors.pace().longest };
        longest.mul_f64(share).min(LONGEST_GIVEN)
    });
    let until = std::time::Instant::now() + given.unwrap_or_default();
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

const Q1: Quote = quote(
    "Practice Questions",
    "During a deployment (rolling restart), some users lose their carts. Explain why and provide two \
     solutions.",
);
const DRAINING: Quote = quote("Strategy 1: Sticky Sessions", "❌ Deployment requires draining");

fn findings(pace: Pace, told: &[Told; 8]) -> Findings {
    let mut findings = Findings::default();
    claims(&mut findings, told);
    spread(&mut findings, told);
    answers(&mut findings, pace, told);
    show(&mut findings, pace, told);
    findings
}

fn claims(findings: &mut Findings, told: &[Told; 8]) {
    let [stop, short, median, long, all, ip_hash, killed, drained] = told;
    findings.holds(
        "rolling.stop",
        Q1,
        format!("{} sessions on the replicas lost their cart", share(stop.lost(), stop.there())),
        stop.there(),
        stop.lost() > 0,
        "The cart was in the memory of the process that was replaced, and nowhere else.",
    );
    findings.holds(
        "rolling.drain",
        DRAINING,
        format!("{} carts lost when the deadline is longer than any session", all.tally.lost.len()),
        all.tally.sessions,
        all.tally.lost.is_empty(),
        "A draining replica takes nobody new and keeps those it knows, so it is empty when it is stopped.",
    );
    let curve = [stop, short, median, long, all].map(Told::share_lost);
    findings.holds(
        "rolling.deadline",
        DRAINING,
        curve.map(|share| format!("{:.0} %", share * 100.0)).join(" → "),
        [stop, short, median, long, all].iter().map(|told| told.there()).sum(),
        curve.is_sorted_by(|one, next| one >= next) && curve[0] > curve[3],
        "Carts lost with no drain, and with a deadline shorter than, equal to and longer than the median \
         session, and longer than the longest: a deadline saves the sessions that end before it.",
    );
    let drains = [short, median, long, all, ip_hash, drained];
    let failed: usize = drains.iter().map(|told| told.tally.failed).sum();
    findings.holds(
        "rolling.requests",
        quote("Stateless Scaling Freedom", "→ Stop sending traffic → Shut down"),
        format!("{failed} requests failed when replicas were drained first; {} when killed", {
            stop.tally.failed + killed.tally.failed
        }),
        drains.iter().map(|told| told.tally.requests).sum(),
        failed == 0,
        "A drain ends when no request is on the replica. One that is killed takes along the POSTs it was \
         working on: Pintle sends again what is safe to send twice, and a POST is not.",
    );
    let stateless = killed.tally.lost.len() + drained.tally.lost.len();
    findings.holds(
        "rolling.stateless",
        quote("Stateless Scaling Freedom", "→ Zero migration needed! ✅"),
        format!("{stateless} carts lost, whether killed or drained"),
        killed.tally.sessions + drained.tally.sessions,
        stateless == 0,
        "The next request of everybody is answered by another replica, which reads the same store.",
    );
    findings.fails(
        "rolling.ip_hash",
        quote("Strategy 1: Sticky Sessions", "ip_hash;  # Same IP → same server"),
        format!("{} carts lost though every replica was drained first", ip_hash.tally.lost.len()),
        ip_hash.tally.sessions,
        ip_hash.tally.lost.is_empty(),
        "An address says nothing of whether somebody has a session, so a drain moves its clients at once; \
         those who came meanwhile move again when it is back.",
    );
}

/// What the lengths that were drawn say about the carts lost, and what was lost.
fn spread(findings: &mut Findings, told: &[Told; 8]) {
    let drains = &told[1..5];
    let longer: usize = drains.iter().map(Told::longer).sum();
    let lost: usize = drains.iter().map(Told::lost).sum();
    let there: usize = drains.iter().map(Told::there).sum();
    findings.weigh(
        "rolling.spread",
        DRAINING,
        format!("{lost} carts lost; {longer} sessions had longer to go than their drain gave them"),
        there,
        lost.abs_diff(longer) * 10 <= there,
        "Who knows how long sessions last can say beforehand what a deadline costs.",
    );
    let [.., all, _, _, drained] = told;
    findings.weigh(
        "rolling.wait",
        quote("Strategy 1: Sticky Sessions", "❌ Can't easily scale down"),
        format!(
            "up to {} per replica until it could be stopped, {} with a store",
            time(all.drained()),
            time(drained.drained())
        ),
        6,
        all.drained() > drained.drained(),
        "A replica with sessions waits for people; one without waits for the requests it has.",
    );
}

fn answers(findings: &mut Findings, pace: Pace, told: &[Told; 8]) {
    let [stop, _, median, _, all, ip_hash, killed, drained] = told;
    findings.answer(
        1,
        format!(
            "Why: the cart is in the memory of one process. Three replicas stopped one after another took \
             {} of the sessions that were on them.",
            share(stop.lost(), stop.there())
        ),
    );
    findings.answer(
        1,
        format!(
            "Drain, with a cookie for affinity: {} carts lost with a deadline above the longest session \
             (up to {} per replica), {} with one as long as the median. Under ip_hash draining does not \
             help: {} lost.",
            all.tally.lost.len(),
            time(all.drained()),
            share(median.lost(), median.there()),
            ip_hash.tally.lost.len()
        ),
    );
    findings.answer(
        1,
        format!(
            "Externalise: with the carts in a store {} of {} sessions were lost, killed or drained, and a \
             replica could go after {}.",
            killed.tally.lost.len() + drained.tally.lost.len(),
            killed.tally.sessions + drained.tally.sessions,
            time(drained.drained())
        ),
    );
    findings.concept(
        7,
        format!("Every deploy waits for the longest session ({} here) or loses carts.", time(pace.longest)),
    );
    findings.left_out(
        "A cart that moves to another replica while its own drains: Pintle moves clients, not their data.",
    );
}

fn show(findings: &mut Findings, pace: Pace, told: &[Told; 8]) {
    let row = |told: &Told| {
        let given = told.plan.given.map_or("-".into(), |_| time(told.given()));
        let drained = if told.plan.given.is_some() { time(told.drained()) } else { "-".into() };
        vec![
            told.plan.name.into(),
            told.plan.policy.into(),
            given,
            drained,
            told.tally.sessions.to_string(),
            told.there().to_string(),
            told.tally.lost.len().to_string(),
            format!("{} of {}", told.tally.failed, told.tally.requests),
        ]
    };
    let columns = [
        "how",
        "policy",
        "given to sessions",
        "longest drain",
        "sessions",
        "of them on a replica that went",
        "carts lost",
        "requests failed",
    ];
    findings.show(Table {
        title: "Three replicas replaced, in eight ways".into(),
        note: format!(
            "Sessions last {} to {}, each length as often as every other; {} users at a time. The deadline \
             is what sessions are given, and Pintle's closing time of {}.",
            time(pace.shortest),
            time(pace.longest),
            pace.users,
            time(CLOSING)
        ),
        columns: columns.map(Into::into).to_vec(),
        rows: told.iter().map(row).collect(),
    });
    let curve = |name: &str, of: fn(&Told) -> usize| {
        let point =
            |told: &Told| (told.given().as_secs_f64(), 100.0 * of(told) as f64 / told.there().max(1) as f64);
        Series { name: name.into(), points: told[..5].iter().map(point).collect() }
    };
    let ip_hash = 100.0 * told[5].share_lost();
    let end = told[4].given().as_secs_f64();
    findings.show(Lines {
        title: "What a drain's deadline costs".into(),
        note:
            "Carts lost of those that were on the replica when the order came. Many of them have a part of \
               their time behind them, so a deadline as long as the median session saves more than half."
                .into(),
        x: "seconds given to sessions".into(),
        y: "% of carts lost".into(),
        series: vec![
            curve("lost, sticky_cookie", Told::lost),
            curve("had longer to go", Told::longer),
            Series { name: "lost, ip_hash".into(), points: vec![(0.0, ip_hash), (end, ip_hash)] },
        ],
        marks: vec![
            (pace.median().as_secs_f64(), "median session".into()),
            (pace.longest.as_secs_f64(), "longest session".into()),
        ],
    });
    findings.show(Text {
        title: "The balancer's file".into(),
        note: "POLICY is sticky_cookie, ip_hash or round_robin, and BACKENDS are three replicas.".into(),
        text: TOML.trim().into(),
    });
}
