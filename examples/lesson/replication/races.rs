//! What happens at the same time: a read right after a write, two writes of one user, and a replica
//! that is killed.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use axum::http::Method;
use serde_json::Value;
use tokio::task::JoinSet;

use super::{AT_ONCE, HEADING, REPLICAS, open, sum};
use crate::harness::figures::share;
use crate::harness::{Answer, Browser, Findings, Outcome, Spread, Stage, quote};
use crate::shop::crowd::Crowd;
use crate::shop::{Cart, Line, Shopper, Strategy};

/// How often a batch is repeated until what is looked for was seen: it depends on who is faster.
const BATCHES: usize = 20;

/// Users write and read at once what they wrote, elsewhere: when writes are answered first and
/// sent afterwards, and when they are sent first.
pub async fn consistency(stage: &Stage, findings: &mut Findings) -> Outcome<()> {
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
pub async fn conflicts(stage: &Stage, findings: &mut Findings) -> Outcome<()> {
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
pub async fn killed(stage: &Stage, findings: &mut Findings) -> Outcome<()> {
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
