//! Session replication (strategy 2): every replica has every session, and every write goes to all.
//! It is measured with more and more replicas: what a write costs, what memory holds, how long the
//! last peer waits, and what two writes at once do to each other.
//!
//! Start at [`run`]. The strategy is `shop/replicated.rs`.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use axum::http::Method;
use serde_json::Value;
use tokio::task::JoinSet;

use crate::harness::figures::{bytes, share};
use crate::harness::{
    Answer, Aspect, Bars, Browser, Chapter, Column, Findings, Lines, Outcome, Replica, Series, Spread, Stage,
    Table, memory, quote,
};
use crate::shop::crowd::Crowd;
use crate::shop::{Capacity, Cart, Line, Order, Shopper, Stand, Strategy};

pub const CHAPTER: Chapter = Chapter {
    name: "replication",
    title: "Session replication: every replica has every session",
    about: "A shop that sends each change of a session to all its replicas grows from 3 replicas to 12. \
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

/// With fewer sessions, their memory cannot be told from that of a few connections.
const TELLING: usize = 200;

/// Where the number of replicas is not the question.
const REPLICAS: usize = 3;

/// How many shop at the same time where speed is measured.
const AT_ONCE: usize = 16;

async fn run(stage: &Stage) -> Outcome<Findings> {
    let mut findings = Findings::default();
    let mut grown = Vec::new();
    for replicas in stage.pick(vec![3, 5], vec![3, 5, 10, 12], vec![3, 5, 10, 12]) {
        stage.say(format!("{replicas} replicas that tell each other everything"));
        grown.push(grow(stage, replicas).await?);
    }
    tell_growth(&mut findings, &grown);
    tell_load(&mut findings, &grown);
    show_growth(&mut findings, &grown);
    stage.say("two tabs at once, reads right after writes, and a replica that is killed");
    consistency(stage, &mut findings).await?;
    conflicts(stage, &mut findings).await?;
    killed(stage, &mut findings).await?;
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

/// What was measured with so many replicas.
struct Grown {
    replicas: usize,
    sessions: usize,
    held: u64,
    /// How much memory all replicas took for these sessions, where the system tells.
    resident: Option<i64>,
    writes: u64,
    messages: u64,
    /// How often a replica applied a write, its own or a peer's.
    applied: u64,
    /// From a write until the last peer has confirmed it.
    lag: Spread,
    read_heavy: Load,
    write_heavy: Load,
    reads_only: Load,
}

/// What a mix of reads and writes cost.
struct Load {
    requests: usize,
    messages: u64,
    took: Duration,
    troubled: usize,
}

impl Load {
    fn messages_per_request(&self) -> f64 {
        self.messages as f64 / self.requests as f64
    }

    fn per_second(&self) -> f64 {
        self.requests as f64 / self.took.as_secs_f64()
    }
}

async fn grow(stage: &Stage, replicas: usize) -> Outcome<Grown> {
    let stand = open(stage, replicas, true).await?;
    let sessions = stage.pick(60, 300, 600);
    // The first requests open connections and fill buffers, which is no session's memory.
    log_in_many(&stand, stage.pick(20, 50, 50)).await?;
    let (before, held_before) = (resident(&stand.replicas), sum(&stand, "sessions").await?);
    log_in_many(&stand, sessions).await?;
    let held = sum(&stand, "sessions").await? - held_before;
    let resident = before.zip(resident(&stand.replicas)).map(|(before, after)| after - before);
    let (writes, messages) = (sum(&stand, "writes").await?, sum(&stand, "messages").await?);
    let applied = writes + sum(&stand, "received").await?;
    let requests = stage.pick(320, 960, 3200);
    let chance = stage.chance("replication");
    let mut crowd = Crowd::new(stand.balancer.address, Strategy::Replicated, AT_ONCE, chance);
    crowd.arrive().await?;
    let reads_only = shop(&stand, &mut crowd, requests / 2, 0).await?;
    let read_heavy = shop(&stand, &mut crowd, requests, 1).await?;
    let write_heavy = shop(&stand, &mut crowd, requests / 2, 16).await?;
    drop(crowd);
    let lags = stand.counts().await?;
    let lags = lags.iter().flat_map(|counts| counts["lag_micros"].as_array().into_iter().flatten());
    let lag = Spread::of(lags.filter_map(Value::as_u64).map(Duration::from_micros));
    stand.close().await;
    Ok(Grown {
        replicas,
        sessions,
        held,
        resident,
        writes,
        messages,
        applied,
        lag,
        reads_only,
        read_heavy,
        write_heavy,
    })
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

/// Users who read and write without a pause; of each 20 requests so many are writes.
async fn shop(stand: &Stand, crowd: &mut Crowd, requests: usize, writes: usize) -> Outcome<Load> {
    let (before, began) = (sum(stand, "messages").await?, Instant::now());
    let each = requests / AT_ONCE;
    let mut busy = JoinSet::new();
    for (user, mut shopper) in std::mem::take(&mut crowd.shoppers).into_iter().enumerate() {
        busy.spawn(async move {
            let mut troubled = 0;
            // Users begin at different places, so that their writes are spread out.
            for number in user * each..(user + 1) * each {
                let is_write = (number + 1) * writes / 20 > number * writes / 20;
                let visit = if is_write { shopper.add().await } else { shopper.look().await };
                troubled += usize::from(visit.notice.is_some());
            }
            (shopper, troubled)
        });
    }
    let (shoppers, troubles): (Vec<_>, Vec<usize>) = busy.join_all().await.into_iter().unzip();
    crowd.shoppers = shoppers;
    let took = began.elapsed();
    let messages = sum(stand, "messages").await? - before;
    Ok(Load { requests: each * AT_ONCE, messages, took, troubled: troubles.iter().sum() })
}

/// How often a batch is repeated until what is looked for was seen: it depends on who is faster.
const BATCHES: usize = 20;

/// Users write and read at once what they wrote, elsewhere: when writes are answered first and
/// sent afterwards, and when they are sent first.
async fn consistency(stage: &Stage, findings: &mut Findings) -> Outcome<()> {
    let mut eager = Freshness::default();
    for _ in 0..BATCHES {
        eager.add(&freshness(stage, false).await?);
        if eager.stale > 0 {
            break;
        }
    }
    let patient = freshness(stage, true).await?;
    findings.holds(
        "replication.consistency",
        quote(HEADING, "Consistency delays"),
        format!(
            "answered before peers have it: {} reads were stale and {} writes were lost; answered after: {} \
             and {}",
            share(eager.stale, eager.reads),
            eager.lost,
            share(patient.stale, patient.reads),
            patient.lost
        ),
        eager.reads + patient.reads,
        eager.stale > 0 && patient.stale + patient.lost == 0,
        "Whoever reads at another replica at once may be faster than the message; a shop that waits for all \
         peers moves the delay into every write.",
    );
    findings.weigh(
        "replication.waiting",
        quote(HEADING, "Write overhead (replicate to all)"),
        format!("a write answered before: {}; after: {}", eager.writes(), patient.writes()),
        eager.write_times.len() + patient.write_times.len(),
        patient.writes().p50() > eager.writes().p50(),
        "This is what waiting for all peers adds to a write, with three replicas on one machine.",
    );
    Ok(())
}

#[derive(Default)]
struct Freshness {
    /// Reads that another replica answered than the write before them.
    reads: usize,
    /// Of these, how many showed the cart as it was before, and later as it is.
    stale: usize,
    /// Writes that were answered and never seen again.
    lost: usize,
    write_times: Vec<Duration>,
}

impl Freshness {
    fn add(&mut self, other: &Self) {
        self.reads += other.reads;
        self.stale += other.stale;
        self.lost += other.lost;
        self.write_times.extend(&other.write_times);
    }

    fn writes(&self) -> Spread {
        Spread::of(self.write_times.iter().copied())
    }
}

async fn freshness(stage: &Stage, wait_for_peers: bool) -> Outcome<Freshness> {
    let stand = open(stage, REPLICAS, wait_for_peers).await?;
    let rounds = stage.pick(6, 40, 120);
    let mut busy = JoinSet::new();
    for number in 0..AT_ONCE {
        let mut shopper = Shopper::new(stand.balancer.address, Strategy::Replicated, number);
        busy.spawn(async move {
            shopper.log_in().await;
            let mut seen = Freshness::default();
            for round in 1..=rounds {
                write_and_read(&mut shopper, round, &mut seen).await;
            }
            seen
        });
    }
    let mut all = Freshness::default();
    for seen in busy.join_all().await {
        all.add(&seen);
    }
    stand.close().await;
    Ok(all)
}

/// One thing of which each time one more is wanted.
async fn write_and_read(shopper: &mut Shopper, quantity: u32, seen: &mut Freshness) {
    let wrote = shopper.send(Method::PUT, &format!("/cart/1?quantity={quantity}"), &Value::Null).await;
    let mut read = shopper.browser.get("/cart").await;
    seen.write_times.push(wrote.took);
    if wrote.replica() == read.replica() {
        return;
    }
    seen.reads += 1;
    if shows(&read, 1, quantity) {
        return;
    }
    // Late, or lost: the message is on its way for milliseconds.
    let patience = Instant::now() + Duration::from_millis(500);
    while Instant::now() < patience {
        tokio::time::sleep(Duration::from_millis(5)).await;
        read = shopper.browser.get("/cart").await;
        if shows(&read, 1, quantity) {
            seen.stale += 1;
            return;
        }
    }
    seen.lost += 1;
}

fn shows(answer: &Answer, product_id: u32, quantity: u32) -> bool {
    let cart: Cart = answer.body().unwrap_or_default();
    cart.contains(&Line { product_id, quantity })
}

/// Two tabs of one user put something into the cart at the same time, through two replicas.
async fn conflicts(stage: &Stage, findings: &mut Findings) -> Outcome<()> {
    let stand = open(stage, REPLICAS, true).await?;
    let mut shopper = Shopper::new(stand.balancer.address, Strategy::Replicated, 0);
    shopper.log_in().await;
    let cookies = &shopper.browser.cookies;
    let at_replicas = stand.replicas.iter().map(|replica| tab(replica.address, cookies));
    let mut at_replicas: Vec<_> = at_replicas.collect();
    let mut tabs = [(); 2].map(|()| tab(stand.balancer.address, cookies));
    let (mut pairs, mut lost, mut differ) = (0, 0, 0);
    for batch in 0..BATCHES as u32 {
        for number in 0..stage.pick(20, 100, 300) {
            let quantity = batch * 1000 + number + 1;
            let [one, other] = &mut tabs;
            let path = |product| format!("/cart/{product}?quantity={quantity}");
            let (first, second) = (path(1), path(2));
            let put = |browser, path| Browser::send(browser, Method::PUT, path, &[], "");
            let (first, second) = tokio::join!(put(one, &first), put(other, &second));
            if !first.ok() || !second.ok() || first.replica() == second.replica() {
                continue;
            }
            let mut shown = Vec::new();
            for browser in &mut at_replicas {
                shown.push(browser.get("/cart").await);
            }
            pairs += 1;
            lost += usize::from(!(shows(&shown[0], 1, quantity) && shows(&shown[0], 2, quantity)));
            differ += usize::from(shown.iter().any(|shown2| shown2.body != shown[0].body));
        }
        if lost > 0 {
            break;
        }
    }
    let noticed = sum(&stand, "conflicts").await?;
    drop((tabs, at_replicas, shopper));
    stand.close().await;
    findings.holds(
        "replication.conflicts",
        quote(HEADING, "Consistency delays"),
        format!("{} lost one of two writes; the replicas noticed {noticed}", share(lost, pairs)),
        pairs,
        lost > 0,
        "Two tabs wrote at the same time through two replicas and both were answered 200: the last writer \
         wins, and the thing from the other tab is gone.",
    );
    findings.holds(
        "replication.agreement",
        quote(HEADING, "All servers have ALL sessions!"),
        format!("{} left replicas with different carts", share(differ, pairs)),
        pairs,
        differ == 0,
        "Stamps are compared in the same way everywhere, so all replicas keep the same one of two writes.",
    );
    Ok(())
}

/// Another tab of the same browser.
fn tab(at: SocketAddr, cookies: &BTreeMap<String, String>) -> Browser {
    let mut browser = Browser::new(at, Ipv4Addr::new(10, 1, 0, 0));
    browser.cookies = cookies.clone();
    browser
}

/// Two of three replicas are killed, one after another.
async fn killed(stage: &Stage, findings: &mut Findings) -> Outcome<()> {
    let mut stand = open(stage, REPLICAS, true).await?;
    let users = stage.pick(20, 100, 300);
    let chance = stage.chance("replication killed");
    let mut crowd = Crowd::new(stand.balancer.address, Strategy::Replicated, users, chance);
    crowd.arrive().await?;
    let mut kept = Vec::new();
    for victim in &mut stand.replicas[..2] {
        victim.kill();
        stand.balancer.wait_for(&victim.name, "down").await?;
        kept.extend(crowd.census().await?.into_iter().map(|sighting| sighting.kept));
    }
    drop(crowd);
    stand.close().await;
    let lost = kept.iter().filter(|kept| !**kept).count();
    findings.holds(
        "replication.no_loss",
        quote(HEADING, "Server failure = no data loss"),
        format!(
            "{} lost their log-in or cart when two of three replicas were killed",
            share(lost, kept.len())
        ),
        kept.len(),
        lost == 0,
        "The replica that was left had all sessions. Had it answered before its peers knew, the last writes \
         could be lost.",
    );
    Ok(())
}

fn tell_growth(findings: &mut Findings, grown: &[Grown]) {
    let each = |figure: &dyn Fn(&Grown) -> String| grown.iter().map(figure).collect::<Vec<_>>().join(", ");
    let writes = grown.iter().map(|grown| grown.writes as usize).sum();
    findings.holds(
        "replication.write_overhead",
        quote(HEADING, "Write overhead (replicate to all)"),
        each(&|grown| format!("{:.2} messages per write at {}", grown.per_write(), grown.replicas)),
        writes,
        grown.iter().all(|grown| grown.messages == grown.writes * (grown.replicas as u64 - 1)),
        "Each write goes to all the others: with N replicas that is N - 1 messages.",
    );
    let held = grown.iter().map(|grown| grown.held as usize).sum();
    findings.holds(
        "replication.memory",
        quote(HEADING, "Memory: N servers × M sessions"),
        each(&|grown| format!("{} held for {} at {}", grown.held, grown.sessions, grown.replicas)),
        held,
        grown.iter().all(|grown| grown.held == (grown.sessions * grown.replicas) as u64),
        "Every replica holds every session, so a replica more helps no other to hold less.",
    );
    if let [first, .., last] = grown {
        let measured = format!("{} held for {} with {} replicas", last.held, last.sessions, last.replicas);
        let as_told = last.held == (last.sessions * last.replicas) as u64;
        findings.cell(Aspect::ServerMemory, Column::Replication, measured, Some(as_told));
        if let (Some(few), Some(many)) = (first.per_session(), last.per_session())
            && last.sessions >= TELLING
        {
            findings.weigh(
                "replication.resident",
                quote(HEADING, "Memory: N servers × M sessions"),
                format!(
                    "{} per session at {}, {} at {}",
                    bytes(few),
                    first.replicas,
                    bytes(many),
                    last.replicas
                ),
                last.sessions,
                many > few,
                "This is the growth of all replicas' resident memory, which comes in pages and is rough.",
            );
        }
        findings.weigh(
            "replication.lag",
            quote(HEADING, "Consistency delays"),
            format!("with {}: {}; with {}: {}", first.replicas, first.lag, last.replicas, last.lag),
            first.lag.n() + last.lag.n(),
            last.lag.p50() > first.lag.p50(),
            "It is the time from a write until the last peer has confirmed it; the slowest of more peers is \
             slower, and here all of them share two cores.",
        );
    }
}

fn tell_load(findings: &mut Findings, grown: &[Grown]) {
    let [first, .., last] = grown else { return };
    let loads = |grown: &Grown| [&grown.reads_only, &grown.read_heavy, &grown.write_heavy].map(Load::count);
    let all: usize = grown.iter().flat_map(loads).map(|(requests, _)| requests).sum();
    let troubled: usize = grown.iter().flat_map(loads).map(|(_, troubled)| troubled).sum();
    findings.holds(
        "replication.any_server",
        quote(HEADING, "Any server can handle any request!"),
        format!("{} requests met a replica that did not know the user or the cart", share(troubled, all)),
        all,
        troubled == 0,
        "The shop answered each write only when all peers had it, and round_robin sent the next request to \
         another replica.",
    );
    let (reads, messages) = grown.iter().fold((0, 0), |(reads, messages), grown| {
        (reads + grown.reads_only.requests, messages + grown.reads_only.messages)
    });
    findings.holds(
        "replication.reads",
        quote(HEADING, "Fast reads (local memory)"),
        format!("{messages} messages for {reads} reads"),
        reads,
        messages == 0,
        "A read is answered from the memory of whichever replica it reaches.",
    );
    findings.holds(
        "replication.mix",
        quote(HEADING, "High session read rate · Low session write rate"),
        format!(
            "with {} replicas {:.2} messages per request when 1 of 20 writes, {:.2} when 16 of 20 do",
            last.replicas,
            last.read_heavy.messages_per_request(),
            last.write_heavy.messages_per_request(),
        ),
        last.read_heavy.requests + last.write_heavy.requests,
        grown.iter().all(|grown| {
            let (reads, writes) = (&grown.read_heavy, &grown.write_heavy);
            writes.messages_per_request() > 10.0 * reads.messages_per_request()
        }),
        "Reads cost no message and writes cost N - 1, so the mix decides what replication costs.",
    );
    let kept = |load: fn(&Grown) -> &Load| load(last).per_second() / load(first).per_second();
    let (reads, writes) = (kept(|grown| &grown.read_heavy), kept(|grown| &grown.write_heavy));
    findings.weigh(
        "replication.throughput",
        quote(HEADING, "Doesn't scale well (> 10 servers)"),
        format!(
            "from {} to {} replicas, read-heavy keeps {:.0} % of its requests per second and write-heavy {:.0} %",
            first.replicas,
            last.replicas,
            100.0 * reads,
            100.0 * writes
        ),
        last.read_heavy.requests + last.write_heavy.requests,
        writes < reads && writes < 1.0,
        "More replicas add no cores on this machine; what can be compared is how much more the writes lose.",
    );
    tell_limit(findings, last);
}

/// The lesson draws the line at ten.
fn tell_limit(findings: &mut Findings, last: &Grown) {
    let words = quote(HEADING, "Doesn't scale well (> 10 servers)");
    if last.replicas <= 10 {
        let why = "This scale stops at 5 replicas; the normal one goes to 12.";
        return findings.untested("replication.beyond_ten", words, why);
    }
    findings.holds(
        "replication.beyond_ten",
        words,
        format!(
            "{} writes of users were applied {} times by {} replicas",
            last.writes, last.applied, last.replicas
        ),
        last.writes as usize,
        last.applied == last.writes * last.replicas as u64,
        "With N replicas each still applies every write, so no replica more makes room for one write more, \
         while the messages grow with N. No cliff was seen at 10: it is a slope.",
    );
}

impl Load {
    fn count(&self) -> (usize, usize) {
        (self.requests, self.troubled)
    }
}

impl Grown {
    fn per_write(&self) -> f64 {
        self.messages as f64 / self.writes as f64
    }

    /// Of all replicas together.
    fn per_session(&self) -> Option<f64> {
        self.resident.map(|resident| resident as f64 / self.sessions as f64)
    }
}

fn show_growth(findings: &mut Findings, grown: &[Grown]) {
    let point = |grown: &Grown, y: f64| (grown.replicas as f64, y);
    findings.show(Lines {
        title: "Messages per write".into(),
        note: "Each replica that joins costs every write one message more.".into(),
        x: "replicas".into(),
        y: "messages per write".into(),
        series: vec![Series {
            name: "replicated".into(),
            points: grown.iter().map(|grown| point(grown, grown.per_write())).collect(),
        }],
        marks: vec![(10.0, "the lesson's limit".into())],
    });
    let group = |grown: &Grown| {
        let bars = vec![
            ("1 of 20 requests writes".into(), grown.read_heavy.per_second()),
            ("16 of 20 write".into(), grown.write_heavy.per_second()),
        ];
        (format!("{} replicas", grown.replicas), bars)
    };
    findings.show(Bars {
        title: "Requests per second".into(),
        note: "All replicas share this machine's cores, so the height says little; that the second bar \
               shrinks faster says what writes cost."
            .into(),
        unit: "requests/s".into(),
        groups: grown.iter().map(group).collect(),
    });
    let row = |grown: &Grown| {
        vec![
            grown.replicas.to_string(),
            format!("{:.2}", grown.per_write()),
            format!("{} for {}", grown.held, grown.sessions),
            grown.per_session().filter(|_| grown.sessions >= TELLING).map_or("too few to tell".into(), bytes),
            grown.lag.to_string(),
            format!("{:.2}", grown.read_heavy.messages_per_request()),
            format!("{:.2}", grown.write_heavy.messages_per_request()),
        ]
    };
    findings.show(Table {
        title: "What replication costs".into(),
        note: "Counted at the replicas; memory is the growth of their resident pages.".into(),
        columns: [
            "replicas",
            "messages per write",
            "sessions held",
            "memory per session, all replicas",
            "until the last peer had it",
            "messages per request, read-heavy",
            "write-heavy",
        ]
        .map(String::from)
        .into(),
        rows: grown.iter().map(row).collect(),
    });
}
