//! The same shop with more and more replicas: messages, memory, lag, and mixes of reads and writes.
//! Start at [`grow`].

use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::task::JoinSet;

use super::{AT_ONCE, HEADING, log_in_many, open, resident, sum};
use crate::harness::figures::{bytes, share};
use crate::harness::{Aspect, Bars, Column, Findings, Lines, Outcome, Series, Spread, Stage, Table, quote};
use crate::shop::crowd::Crowd;
use crate::shop::{Stand, Strategy};

/// With fewer sessions, their memory cannot be told from that of a few connections.
const TELLING: usize = 200;

pub async fn run(stage: &Stage, findings: &mut Findings) -> Outcome<()> {
    let mut grown = Vec::new();
    for replicas in stage.pick(vec![3, 5], vec![3, 5, 10, 12], vec![3, 5, 10, 12]) {
        stage.say(format!("{replicas} replicas that tell each other everything"));
        grown.push(grow(stage, replicas).await?);
    }
    tell_growth(findings, &grown);
    tell_load(findings, &grown);
    show_growth(findings, &grown);
    Ok(())
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
        note: "All replicas share this machine's cores, so the height says little; compare how much each of \
               the two bars shrinks."
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
