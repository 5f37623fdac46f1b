//! Drains and slow starts, followed: what a change of phase begins, and what each tick goes on
//! with. When a drain is over is `drain`'s decision.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::oneshot;

use super::control::{Control, Echo};
use super::fleet::Key;
use super::publish::publish;
use super::report::{self, counted};
use super::worker::Order;
use crate::drain::{Left, Phase, Step};
use crate::plan::PoolPlan;
use crate::pool::backend::Vitals;
use crate::proxy::unix_now;
use crate::telemetry::DrainOutcome;

impl Control {
    /// Begins the drain of every backend that should have one and has none.
    pub fn drain_what_should(&mut self, now: Instant) {
        let due: Vec<_> = self
            .fleet
            .iter()
            .filter(|(_, member)| member.drain.is_none() && member.words.phase() != Phase::Active)
            .map(|(key, _)| key.clone())
            .collect();
        for key in due {
            self.phase_turned(&key, None, now);
        }
    }

    /// Clients of an earlier process still hold tokens where the key has outlived it, and show
    /// themselves within a session's window if they are there at all.
    pub fn expect_strangers(&mut self, handed_over: bool) {
        let (now, kept) = (Instant::now(), handed_over || self.plan.server.state_dir.is_some());
        let outlives = |pool: &&PoolPlan| kept || !pool.cookie.keys.is_empty();
        let pools: Vec<_> = self.plan.pools.iter().filter(outlives).map(|pool| pool.name.clone()).collect();
        for (_, member) in self.fleet.iter_mut().filter(|(key, _)| pools.contains(&key.0)) {
            let until = now + member.session_window();
            if let Some(following) = &mut member.drain {
                following.drain.expect_strangers(until);
            }
        }
    }

    /// A backend's phase has changed: begin its drain, or tell that it is back.
    pub fn phase_turned(&mut self, key: &Key, deadline: Option<Duration>, now: Instant) -> Option<u64> {
        let member = self.fleet.get_mut(key)?;
        let drains = match member.phase() {
            Phase::Draining => Some(deadline.map(|deadline| now + deadline)),
            Phase::Stopped => Some(Some(now)),
            Phase::Active | Phase::Drained => None,
        };
        let id = drains.map(|deadline| {
            member.begin_drain(self.next_drain, deadline, now);
            self.next_drain += 1;
            member.drain.as_ref().map_or(0, |following| following.id)
        });
        self.publish(&key.0, now);
        self.retarget();
        if id.is_some() {
            self.have_acknowledged(key.clone());
        }
        id
    }

    /// Asks every thread to look at how things stand, and hears when all have.
    pub(super) fn have_acknowledged(&mut self, key: Key) {
        self.have_done(key, Order::Look);
    }

    /// Gives every thread an order that a drain waits for, and hears when all have carried it out.
    fn have_done(&mut self, key: Key, order: impl Fn(oneshot::Sender<()>) -> Order + 'static) {
        let Some(member) = self.fleet.get_mut(&key) else { return };
        let Some(following) = &mut member.drain else { return };
        let (drain, asked) = (following.id, following.drain.ask());
        let (all, echo) = (self.ask_all(order), self.echo.clone());
        tokio::task::spawn_local(async move {
            all.await;
            let _ = echo.send(Echo::Acknowledged(key, drain, asked)).await;
        });
    }

    pub(super) fn hear(&mut self, echo: Echo, now: Instant) {
        let (key, id) = match &echo {
            Echo::Acknowledged(key, id, _) | Echo::Emptied(key, id) => (key, id),
            Echo::Alive => return self.notifier.alive(),
            Echo::ElderGone(pid) => {
                self.elders.retain(|elder| elder.pid != *pid);
                let message = format!("process {pid}, which this one took over from, has ended");
                return self.tell("process", None, message);
            }
        };
        let Some(member) = self.fleet.get_mut(key) else { return };
        let left = member.left(unix_now());
        let Some(following) = member.drain.as_mut().filter(|following| following.id == *id) else { return };
        if let Echo::Acknowledged(_, _, asked) = echo {
            return following.drain.acknowledge(asked);
        }
        following.drain.emptied(left, now);
        if !following.drain.is_over() {
            return;
        }
        following.over = Some(now);
        member.state_since = SystemTime::now();
        let view = report::drain(key, member);
        let cut = view.as_ref().map_or(0, |view| view.requests_cut + view.tunnels_cut);
        let outcome = if cut == 0 { DrainOutcome::Drained } else { DrainOutcome::Forced };
        if let Some(pool) = self.pool(&key.0) {
            pool.series.drained(outcome);
        }
        if let Some(view) = view {
            let (ended, closed) = (view.sessions_ended, counted(view.websockets_closed, "WebSocket"));
            let tunnels = match view.tunnels_cut {
                0 => String::new(),
                cut => format!("{} cut, ", counted(cut, "tunnel")),
            };
            let message = format!(
                "{}/{} drained in {:.0} s: {ended} sessions ended by themselves, {} moved, {closed} closed with 1012, {tunnels}{} requests cut",
                key.0, key.1, view.elapsed_seconds, view.sessions_moved, view.requests_cut,
            );
            self.tell("drain", Some(key), message);
        }
        self.publish(&key.0, now);
    }

    pub(super) fn follow_drains(&mut self, now: Instant, clock: u64) {
        let (mut steps, mut due) = (Vec::new(), Vec::new());
        for (key, member) in self.fleet.iter_mut() {
            if member.drain.as_ref().is_none_or(|following| following.drain.is_over()) {
                continue;
            }
            // An earlier process may have some of it that is not counted here.
            let elsewhere = u64::from(!self.elders.is_empty());
            let left = member.left(clock);
            let left = Left { in_flight: left.in_flight + elsewhere, ..left };
            let Some(following) = &mut member.drain else { continue };
            if let Some(step) = following.drain.step(left, now) {
                if following.sessions_moved == 0 && step != Step::CloseIdle {
                    following.sessions_moved = left.sessions;
                }
                steps.push((key.clone(), following.id, member.vitals.clone(), step));
            }
            let untold: Vec<_> = member.vitals.untold().collect();
            let now_due = following.drain.tunnels_due(untold.iter().sum(), now);
            due.push((Some(member.vitals.clone()), untold, now_due));
        }
        for (vitals, untold, now_due) in due {
            self.tell_tunnels(vitals, &untold, now_due);
        }
        for (key, id, vitals, step) in steps {
            match step {
                Step::CloseTokens => {
                    self.publish(&key.0, now);
                    self.have_acknowledged(key);
                }
                Step::Cut => {
                    self.publish(&key.0, now);
                    self.have_done(key, move |done| Order::Cut(vitals.clone(), done));
                }
                Step::CloseIdle => {
                    self.publish(&key.0, now);
                    let closed = self.ask_all(move |done| Order::CloseIdle(vitals.clone(), done));
                    let echo = self.echo.clone();
                    tokio::task::spawn_local(async move {
                        closed.await;
                        let _ = echo.send(Echo::Emptied(key, id)).await;
                    });
                }
            }
        }
    }

    /// Has `due` tunnels told to end; each thread as many as its part of the `untold`.
    pub(super) fn tell_tunnels(&self, of: Option<Arc<Vitals>>, untold: &[u64], due: u64) {
        for (worker, part) in self.workers.iter().zip(parts(untold, due)).filter(|(_, part)| *part > 0) {
            // A thread with a full inbox has as many untold at the next look.
            let _ = worker.try_send(Order::TellTunnels(of.clone(), part));
        }
    }

    /// Effective weights change in steps, outside the request path.
    pub(super) fn follow_slow_starts(&mut self, now: Instant) {
        let pools: Vec<_> = self.live.load().pools.clone();
        for pool in pools.iter().filter(|pool| !pool.plan.slow_start.is_zero()) {
            let slow_start = pool.plan.slow_start;
            let mut starting = false;
            for backend in &pool.backends {
                let key = (pool.plan.name.clone(), backend.plan.name.clone());
                let Some(member) = self.fleet.get_mut(&key) else { continue };
                let Some(since) = member.back_since else { continue };
                starting = true;
                if now.saturating_duration_since(since) >= slow_start {
                    member.back_since = None;
                }
            }
            if starting {
                publish(pool, &self.fleet, now);
            }
        }
    }
}

/// `due` of `counts` taken together, from each in proportion.
fn parts(counts: &[u64], due: u64) -> impl Iterator<Item = u64> {
    let all = u128::from(counts.iter().sum::<u64>().max(1));
    counts.iter().scan((0, 0), move |(seen, dealt), count| {
        *seen += u128::from(*count);
        let part = (*seen * u128::from(due) / all) as u64 - *dealt;
        *dealt += part;
        Some(part)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn threads_are_dealt_what_is_due_and_no_more_than_they_have(
            counts in proptest::collection::vec(0..1_000_u64, 1..65), share in 0.0..=1.0_f64,
        ) {
            let due = (counts.iter().sum::<u64>() as f64 * share) as u64;
            let parts: Vec<_> = parts(&counts, due).collect();
            prop_assert_eq!(parts.iter().sum::<u64>(), due);
            prop_assert!(parts.iter().zip(&counts).all(|(part, count)| part <= count));
        }
    }
}
