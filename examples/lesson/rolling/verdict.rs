//! What the eight deploys say about the lesson's claims and its first question.

use super::visitors::Pace;
use super::{CLOSING, TOML, Told};
use crate::harness::figures::{share, time};
use crate::harness::{Findings, Lines, Quote, Series, Table, Text, quote};

const Q1: Quote = quote(
    "Practice Questions",
    "During a deployment (rolling restart), some users lose their carts. Explain why and provide two \
     solutions.",
);
const DRAINING: Quote = quote("Strategy 1: Sticky Sessions", "❌ Deployment requires draining");

pub fn findings(pace: Pace, told: &[Told; 8]) -> Findings {
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
        falls(&curve),
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

/// Whether fewer carts are lost the longer sessions are given. The median is compared with the two
/// ends alone: its neighbours are near, and a few dozen sessions do not tell them apart every time.
fn falls([stop, short, median, long, all]: &[f64; 5]) -> bool {
    stop > long && stop >= short && short >= long && long >= all && stop >= median && median >= all
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
               their time behind them, so a deadline as long as the median session saves more than one would guess."
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
