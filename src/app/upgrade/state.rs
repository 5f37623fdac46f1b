//! How backends stand, told by one process and taken up by the next: words, drains, health.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::admin::handover::{Offer, OfferedBackend, OfferedDrain, OfferedHealth, OfferedWord};
use crate::app::control::Control;
use crate::app::fleet::{Following, Key, Member};
use crate::app::report;
use crate::drain::{Drain, Phase};
use crate::plan::BackendAddress;
use crate::pool::health::{Health, Known, Streak};

impl Control {
    pub(super) fn offered_backends(&self, now: Instant) -> Vec<OfferedBackend> {
        let members = self.fleet.iter().filter(|(_, member)| !member.removed);
        members.map(|(key, member)| offered(key, member, now)).collect()
    }

    /// Takes up what the earlier process knew, before anybody is let in.
    pub(in crate::app) fn take_up(&mut self, offer: &Offer) {
        let now = Instant::now();
        self.next_drain = offer.next_drain.max(self.next_drain);
        self.past_drains = offer.past_drains.iter().cloned().collect();
        let mut draining = Vec::new();
        for told in &offer.backends {
            let key = (told.pool.clone(), told.name.clone());
            let probed = self.plan.pool(&told.pool).is_some_and(|pool| pool.health.is_some());
            let Some(member) = self.fleet.get_mut(&key) else { continue };
            member.take_up(told, probed, now);
            if member.drain.as_ref().is_some_and(|following| !following.drain.is_over()) {
                draining.push(key);
            }
        }
        let pools: Vec<_> = self.plan.pools.iter().map(|pool| pool.name.clone()).collect();
        pools.iter().for_each(|pool| self.publish(pool, now));
        draining.into_iter().for_each(|key| self.have_acknowledged(key));
    }
}

impl Member {
    fn take_up(&mut self, told: &OfferedBackend, probed: bool, now: Instant) {
        self.state_since = at(told.state_since);
        if told.address == self.plan.address.to_string() {
            self.health_since = at(told.health_since);
            if matches!(self.plan.address, BackendAddress::Name { .. }) && !told.resolved.is_empty() {
                self.vitals.set_addresses(told.resolved.clone());
            }
            self.streak = Streak::resume(known(&told.health), now);
            // Only a probe can end what a probe's answer began.
            if told.health.draining && probed {
                self.words.health = Phase::Draining;
            }
            let back = told.back_seconds.and_then(report::seconds);
            self.back_since = back.and_then(|back| now.checked_sub(back));
        }
        if let Some(word) = &told.word
            && Phase::named(&word.file_state) == Some(self.words.file)
        {
            self.words.operator = Phase::named(&word.state);
            self.reason.clone_from(&word.reason);
        }
        if let Some(drain) = &told.drain
            && self.words.phase() != Phase::Active
        {
            self.drain = Some(self.following(drain, now));
        }
    }

    fn following(&self, told: &OfferedDrain, now: Instant) -> Following {
        let elapsed = report::seconds(told.elapsed_seconds).unwrap_or_default();
        let began = now.checked_sub(elapsed).unwrap_or(now);
        let deadline = told.deadline_seconds.and_then(report::seconds).and_then(|left| now.checked_add(left));
        Following {
            id: told.id,
            drain: Drain::resume(self.keeps_sessions(), deadline, began, told.over),
            sessions_then: told.sessions_then,
            sessions_moved: told.sessions_moved,
            counts_then: self.vitals.counts(),
            over: told.over.then_some(now),
        }
    }
}

fn offered(key: &Key, member: &Member, now: Instant) -> OfferedBackend {
    let word = member.words.operator.map(|word| OfferedWord {
        state: word.name().to_owned(),
        file_state: member.words.file.name().to_owned(),
        reason: member.reason.clone(),
    });
    let drain = member.drain.as_ref().map(|following| {
        let Following { id, drain, sessions_then, sessions_moved, over, .. } = following;
        let end = over.unwrap_or(now);
        OfferedDrain {
            id: *id,
            elapsed_seconds: end.saturating_duration_since(drain.began).as_secs_f64(),
            deadline_seconds: drain.deadline.map(|at| at.saturating_duration_since(now).as_secs_f64()),
            over: drain.is_over(),
            sessions_then: *sessions_then,
            sessions_moved: *sessions_moved,
        }
    });
    let Known { health, draining, used, unconfirmed, passes, fails, detail } = member.streak.known();
    let status = health.name().to_owned();
    OfferedBackend {
        pool: key.0.clone(),
        name: key.1.clone(),
        address: member.plan.address.to_string(),
        resolved: member.vitals.addresses().to_vec(),
        word,
        drain,
        health: OfferedHealth { status, detail, draining, used, unconfirmed, passes, fails },
        back_seconds: member.back_since.map(|since| now.saturating_duration_since(since).as_secs_f64()),
        state_since: unix(member.state_since),
        health_since: unix(member.health_since),
    }
}

fn known(told: &OfferedHealth) -> Known {
    let OfferedHealth { status, detail, draining, used, unconfirmed, passes, fails } = told.clone();
    let health = Health::named(&status).unwrap_or(Health::Unknown);
    Known { health, draining, used, unconfirmed, passes, fails, detail }
}

fn unix(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

fn at(unix: f64) -> SystemTime {
    let since = Duration::try_from_secs_f64(unix).unwrap_or_default();
    UNIX_EPOCH.checked_add(since).unwrap_or(UNIX_EPOCH)
}
