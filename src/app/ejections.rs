//! What traffic gets a backend ejected for, and pools of which too few backends are healthy. The
//! counting is `pool::outlier`'s, and what follows for visits `pool::status`'s.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Instant, SystemTime};

use super::control::Control;
use super::fleet::Key;
use super::report::counted;
use crate::pool::backend::Vitals;
use crate::pool::outlier::{Answers, Fault, can_spare};
use crate::pool::status::Standing;
use crate::telemetry::EjectionReason;

impl Control {
    /// Takes in what failed in traffic.
    pub(super) fn blame(&mut self, vitals: &Arc<Vitals>, fault: Fault, now: Instant) {
        let key = (vitals.pool.to_string(), vitals.name.to_string());
        let Some(pool) = self.pool(&key.0) else { return };
        let Some(plan) = &pool.plan.outlier else { return };
        let others = || self.fleet.of(&pool.plan).filter(|other| other.plan.name != key.1);
        let ejected = others().filter(|other| other.outlier.is_ejected()).count();
        let open = others().any(|other| other.standing() == Standing::Open);
        let can_spare = can_spare(pool.backends.len(), ejected, open, plan);
        let Some(member) = self.fleet.get_mut(&key).filter(|member| Arc::ptr_eq(&member.vitals, vitals))
        else {
            return;
        };
        let (all, server_errors) = vitals.series.answers();
        let Some(row) = member.outlier.blame(fault, Answers { all, server_errors }, plan) else { return };
        // Who failed and cannot be spared is looked at again when it fails once more.
        if !can_spare || member.standing() == Standing::Shut {
            return;
        }
        let length = member.outlier.eject(plan, now);
        let (reason, what) = match fault {
            Fault::NoAnswer => (EjectionReason::ConsecutiveErrors, "attempt"),
            Fault::ServerError => (EjectionReason::Consecutive5xx, "answer"),
        };
        member.ejected_for = match fault {
            Fault::NoAnswer => format!("{} without an answer", counted(row.into(), what)),
            Fault::ServerError => format!("{} of 500 to 599", counted(row.into(), what)),
        };
        member.health_since = SystemTime::now();
        vitals.series.ejected(reason);
        let why = format!(
            "{}/{} ejected for {}: {} in a row",
            key.0,
            key.1,
            humantime::format_duration(length),
            member.ejected_for
        );
        self.publish(&key.0, now);
        self.tell("health", Some(&key), why);
    }

    /// Lets those come back whose time is over, or whose pool no longer ejects.
    pub(super) fn follow_ejections(&mut self, now: Instant) {
        let ejecting: Vec<&str> = self
            .plan
            .pools
            .iter()
            .filter(|pool| pool.outlier.is_some())
            .map(|pool| pool.name.as_str())
            .collect();
        let mut back: Vec<Key> = Vec::new();
        for (key, member) in self.fleet.iter_mut().filter(|(_, member)| member.outlier.is_ejected()) {
            if !ejecting.contains(&key.0.as_str()) {
                member.outlier = Default::default();
            } else if !member.outlier.ends(now) {
                continue;
            }
            member.back_since = Some(now);
            member.health_since = SystemTime::now();
            back.push(key.clone());
        }
        for key in back {
            self.publish(&key.0, now);
            self.tell("health", Some(&key), format!("{}/{} is no longer ejected", key.0, key.1));
        }
    }

    /// Whether a pool ignores health.
    pub(super) fn panics(&self, pool: &str) -> bool {
        self.shared.get(pool).is_some_and(|shared| shared.panics.load(Ordering::Relaxed))
    }

    /// Tells when a pool begins to ignore health, and when it no longer does.
    pub(super) fn follow_panics(&mut self) {
        self.panicking.retain(|name| self.plan.pool(name).is_some());
        for pool in &self.plan.pools {
            let panics = self.panics(&pool.name);
            if panics == self.panicking.contains(&pool.name) {
                continue;
            }
            let message = match panics {
                true => {
                    self.panicking.insert(pool.name.clone());
                    let share = pool.panic_threshold;
                    format!("pool {}: less than {share} of it is healthy, so health is ignored", pool.name)
                }
                false => {
                    self.panicking.remove(&pool.name);
                    format!("pool {}: health counts again", pool.name)
                }
            };
            tracing::warn!(event = "health", pool = pool.name, "{message}");
            self.events.publish("health", Some(&pool.name), None, message);
        }
    }
}
