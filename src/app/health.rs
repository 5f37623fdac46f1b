//! What probes, name servers and refused connections change: how backends stand, and whom the
//! probe thread asks next. The counting itself is `pool::health`'s.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tracing::warn;

use super::control::Control;
use super::fleet::Key;
use super::probe::{Asks, News, Target};
use super::report;
use crate::drain::Phase;
use crate::plan::{BackendAddress, PoolPlan};
use crate::pool::backend::Vitals;
use crate::pool::health::{Change, Health, Thresholds, Verdict};
use crate::proxy::{Against, Evidence, unix_now};
use crate::telemetry::ProbeResult;
use crate::upstream::Way;

impl Control {
    pub(super) fn heed(&mut self, evidence: Evidence, now: Instant) {
        let Evidence { vitals, what } = evidence;
        let why = match what {
            Against::Refused(why) => why,
            Against::Fault(fault) => return self.blame(&vitals, fault, now),
        };
        let key = (vitals.pool.to_string(), vitals.name.to_string());
        let Some(member) = self.fleet.get_mut(&key).filter(|member| Arc::ptr_eq(&member.vitals, &vitals))
        else {
            return;
        };
        if member.streak.refused(now).is_none() {
            return;
        }
        member.health_since = SystemTime::now();
        self.publish(&key.0, now);
        self.retarget();
        self.tell("health", Some(&key), format!("{}/{} down: {why} in traffic", key.0, key.1));
    }

    pub(super) fn learn(&mut self, news: News, now: Instant) {
        match news {
            News::Verdict(vitals, verdict) => self.judge(&vitals, verdict, now),
            News::Resolved(vitals, answer) => self.resolved(&vitals, answer, now),
        }
    }

    fn judge(&mut self, vitals: &Arc<Vitals>, verdict: Verdict, now: Instant) {
        let key = (vitals.pool.to_string(), vitals.name.to_string());
        let Some(pool) = self.pool(&key.0) else { return };
        let Some(member) = self.fleet.get_mut(&key).filter(|member| Arc::ptr_eq(&member.vitals, vitals))
        else {
            return;
        };
        let (result, took) = match &verdict {
            Verdict::Pass { took, .. } => (ProbeResult::Pass, *took),
            Verdict::DrainAnswer { took, .. } => (ProbeResult::Drain, *took),
            Verdict::Fail { .. } => (ProbeResult::Fail, Duration::ZERO),
        };
        vitals.series.probed(result, took);
        let plan = pool.plan.health.as_ref();
        let thresholds = plan
            .map_or(Thresholds { rise: 1, fall: 1 }, |plan| Thresholds { rise: plan.rise, fall: plan.fall });
        let eager = pool.shared.hold.waiting() > 0;
        let before = member.phase();
        let changes = member.streak.verdict(verdict, thresholds, eager, now);
        if changes.is_empty() {
            return;
        }
        for change in &changes {
            match change {
                Change::Up { back } => {
                    member.health_since = SystemTime::now();
                    if *back {
                        member.back_since = Some(now);
                    }
                }
                Change::Down { .. } => member.health_since = SystemTime::now(),
                Change::Drains => member.words.health = Phase::Draining,
                Change::DrainEnds => member.words.health = Phase::Active,
            }
        }
        let past = report::drain(&key, member);
        let turned = member.turned(before, false, now);
        let past = past.filter(|_| member.drain.is_none());
        let fall = thresholds.fall;
        for change in changes {
            self.tell_change(&key, change, fall);
        }
        if let Some(past) = past {
            self.remember(past);
        }
        if turned {
            self.phase_turned(&key, None, now);
        }
        self.publish(&key.0, now);
        self.retarget();
    }

    fn tell_change(&self, key: &Key, change: Change, fall: u32) {
        let Some(member) = self.fleet.get(key) else { return };
        let (name, detail) = (format!("{}/{}", key.0, key.1), member.streak.detail());
        let message = match change {
            Change::Up { back: false } => format!("{name} up: {detail}"),
            Change::Up { back: true } => format!("{name} back up: {detail}"),
            Change::Down { why } => format!("{name} down after {fall} failed probes: {why}"),
            Change::Drains => {
                format!(
                    "{name} draining: its probe answers {detail}; {}",
                    sessions(member.sessions(unix_now()))
                )
            }
            Change::DrainEnds => format!("{name} active again: its probe answers {detail}"),
        };
        self.tell("health", Some(key), message);
    }

    fn resolved(&mut self, vitals: &Arc<Vitals>, answer: Result<Vec<SocketAddr>, String>, now: Instant) {
        let key = (vitals.pool.to_string(), vitals.name.to_string());
        let Some(member) = self.fleet.get_mut(&key).filter(|member| Arc::ptr_eq(&member.vitals, vitals))
        else {
            return;
        };
        match answer {
            Ok(addresses) => {
                let known = member.vitals.addresses();
                if *known != *addresses {
                    let list: Vec<_> = addresses.iter().map(ToString::to_string).collect();
                    member.vitals.set_addresses(addresses);
                    self.tell("health", Some(&key), format!("{}/{} is at {}", key.0, key.1, list.join(", ")));
                }
                if let Some(member) = self.fleet.get_mut(&key) {
                    member.unresolved = None;
                }
            }
            // The last good answer is kept.
            Err(why) if !member.vitals.addresses().is_empty() => {
                warn!(
                    event = "health",
                    pool = key.0,
                    backend = key.1,
                    "{why}; its last known addresses are kept"
                );
            }
            Err(why) => {
                if member.unresolved.as_ref() != Some(&why) {
                    warn!(event = "health", pool = key.0, backend = key.1, "{}/{} down: {why}", key.0, key.1);
                    member.unresolved = Some(why);
                }
            }
        }
        self.publish(&key.0, now);
    }

    /// Whether a pool needs no verdict, or has one on at least one of its backends.
    pub fn has_verdict(&self, pool: &PoolPlan) -> bool {
        pool.health.is_none() || self.fleet.of(pool).any(|member| member.streak.health() != Health::Unknown)
    }

    /// How a backend is reached, as requests reach it.
    fn way(&self, pool: &str, backend: &str) -> Option<Way> {
        let pool = self.pool(pool)?;
        Some(pool.backends.iter().find(|known| known.plan.name == backend)?.way.clone())
    }

    /// Tells the probe thread what to ask from now on.
    pub fn retarget(&self) {
        let mut targets = Vec::new();
        for pool in &self.plan.pools {
            let shared = self.shared.get(&pool.name).cloned().unwrap_or_default();
            for member in self.fleet.of(pool) {
                let down = member.streak.health() == Health::Down;
                let named = matches!(member.plan.address, BackendAddress::Name { .. });
                let asks = match &pool.health {
                    _ if member.phase() == Phase::Stopped => Asks::Name,
                    Some(health) => Asks::Probe(health.clone()),
                    None if down => Asks::Connect { timeout: pool.timeouts.connect },
                    None => Asks::Name,
                };
                if asks == Asks::Name && !named {
                    continue;
                }
                let Some(way) = self.way(&pool.name, &member.plan.name) else { continue };
                targets.push(Target {
                    way,
                    vitals: member.vitals.clone(),
                    shared: shared.clone(),
                    address: member.plan.address.clone(),
                    asks,
                    down,
                });
            }
        }
        let probes = self.probes.clone();
        tokio::task::spawn_local(async move { drop(probes.send(targets).await) });
    }
}

/// `3 sessions stay`.
pub fn sessions(count: u64) -> String {
    match count {
        1 => "1 session stays".to_owned(),
        count => format!("{count} sessions stay"),
    }
}
