//! The control thread: the one writer of phases, health and snapshots.
//!
//! Start at [`Control::run`]. Everything that changes the process arrives here, one at a time:
//! questions and orders from the desk, evidence from traffic, news from probes, a changed file,
//! signals. Whatever waits (a drain, a shutdown) is looked at again every [`TICK`].

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{mpsc, oneshot};
use tracing::{info, warn};

use super::ending::Ending;
use super::fleet::{Fleet, Key, publish};
use super::probe::{Asks, News, Target};
use super::reload::Reloading;
use super::worker::{Load, Order};
use super::{ShutdownReport, Source};
use crate::admin::desk::Ask;
use crate::admin::events::Events;
use crate::config::watch::Watch;
use crate::drain::{Phase, Step};
use crate::live::Live;
use crate::plan::{BackendAddress, Plan, PoolPlan, StickyKey};
use crate::pool::backend::Vitals;
use crate::pool::health::{Change, Health, Thresholds, Verdict};
use crate::pool::{Pool, Shared};
use crate::proxy::Evidence;
use crate::telemetry::access_log::AccessLog;
use crate::telemetry::{DrainOutcome, EventLog, ProbeResult, Telemetry};

/// How often drains, slow starts and the file are looked at.
const TICK: Duration = Duration::from_millis(100);

/// A pool that has no verdict by then does not keep `/readyz` waiting longer.
const READY_AFTER: Duration = Duration::from_secs(5);

pub struct Control {
    pub live: Live,
    pub plan: Plan,
    pub generation: u64,
    /// The settings that only a restart changes, as they run.
    pub started_with: BTreeMap<&'static str, String>,
    pub fleet: Fleet,
    pub shared: HashMap<String, Arc<Shared>>,
    pub keys: HashMap<String, StickyKey>,
    pub telemetry: Arc<Telemetry>,
    pub access_log: AccessLog,
    pub event_log: Option<EventLog>,
    pub events: Events,
    pub workers: Vec<mpsc::Sender<Order>>,
    pub loads: Arc<[Load]>,
    pub probes: mpsc::Sender<Vec<Target>>,
    pub source: Source,
    /// Of a file; polled while the plan wants it.
    pub watch: Option<Watch>,
    pub listeners: Vec<super::Bound>,
    pub started: Instant,
    pub last_reload: Option<crate::admin::view::LastReload>,
    pub ready: bool,
    pub ending: Option<Ending>,
    pub next_drain: u64,
    /// Drains that are over, kept so that their outcome can be asked for.
    pub past_drains: VecDeque<crate::admin::view::DrainView>,
    /// Answers of data threads come back through here.
    pub echo: mpsc::Sender<Echo>,
}

/// What data threads have done.
pub enum Echo {
    /// Every thread knows how the backend stands.
    Acknowledged(Key, u64),
    /// Every thread has closed its idle connections to it.
    Emptied(Key, u64),
}

/// The ends at which everything arrives.
pub struct Inbox {
    pub asks: mpsc::Receiver<Ask>,
    pub evidence: mpsc::Receiver<Evidence>,
    pub news: mpsc::Receiver<News>,
    pub echoes: mpsc::Receiver<Echo>,
    pub signals: mpsc::Receiver<super::Signal>,
}

impl Control {
    /// Handles what arrives, one thing at a time, until the process has ended.
    pub async fn run(mut self, mut inbox: Inbox) -> ShutdownReport {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                Some(ask) = inbox.asks.recv() => self.answer(ask).await,
                Some(evidence) = inbox.evidence.recv() => self.heed(evidence),
                Some(news) = inbox.news.recv() => self.learn(news),
                Some(echo) = inbox.echoes.recv() => self.hear(echo),
                Some(signal) = inbox.signals.recv() => self.signalled(signal).await,
                _ = tick.tick() => {
                    if let Some(report) = self.tick().await {
                        return report;
                    }
                }
            }
        }
    }

    /// The first things to do: probe, begin the drains that the file asks for.
    pub fn begin(&mut self) {
        self.retarget();
        self.drain_what_should();
    }

    /// Begins the drain of every backend that should have one and has none.
    pub fn drain_what_should(&mut self) {
        let due: Vec<_> = self
            .fleet
            .iter()
            .filter(|(_, member)| member.drain.is_none() && member.words.phase() != Phase::Active)
            .map(|(key, _)| key.clone())
            .collect();
        for key in due {
            self.phase_turned(&key, None);
        }
    }

    async fn tick(&mut self) -> Option<ShutdownReport> {
        let now = Instant::now();
        let watch = self.watch.as_mut().filter(|_| self.plan.server.watch);
        if let Some(text) = watch.and_then(|watch| watch.poll(now)) {
            let _ = self.reload(Reloading::Changed(text)).await;
        }
        self.follow_drains(now);
        self.follow_slow_starts(now);
        self.fleet.forget();
        self.ready |= self.plan.pools.iter().all(|pool| self.has_verdict(pool))
            || self.started.elapsed() >= READY_AFTER;
        self.follow_ending(now).await
    }

    /// The current snapshot's pools.
    fn pool(&self, name: &str) -> Option<Arc<Pool>> {
        self.live.load().pools.iter().find(|pool| *pool.name == *name).cloned()
    }

    /// Publishes how a pool stands, and has every thread acknowledge it.
    pub fn publish(&self, pool: &str) {
        if let Some(pool) = self.pool(pool) {
            publish(&pool, &self.fleet, Instant::now());
        }
    }

    /// Tells the operator, in the log and to whoever watches.
    pub fn tell(&self, kind: &str, key: Option<&Key>, message: String) {
        let (pool, backend) = key.map(|(pool, backend)| (pool.as_str(), backend.as_str())).unzip();
        match key {
            Some((pool, backend)) => info!(event = kind, pool, backend, "{message}"),
            None => info!(event = kind, "{message}"),
        }
        self.events.publish(kind, pool, backend, message);
    }

    // Health

    fn heed(&mut self, evidence: Evidence) {
        let Evidence { vitals, why } = evidence;
        let key = (vitals.pool.to_string(), vitals.name.to_string());
        let Some(member) = self.fleet.get_mut(&key).filter(|member| Arc::ptr_eq(&member.vitals, &vitals))
        else {
            return;
        };
        if member.streak.refused(Instant::now()).is_none() {
            return;
        }
        member.health_since = SystemTime::now();
        self.publish(&key.0);
        self.retarget();
        self.tell("health", Some(&key), format!("{}/{} down: {why} in traffic", key.0, key.1));
    }

    fn learn(&mut self, news: News) {
        match news {
            News::Verdict(vitals, verdict) => self.judge(&vitals, verdict),
            News::Resolved(vitals, answer) => self.resolved(&vitals, answer),
        }
    }

    fn judge(&mut self, vitals: &Arc<Vitals>, verdict: Verdict) {
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
        let now = Instant::now();
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
        let turned = member.turned(before, now);
        let fall = thresholds.fall;
        for change in changes {
            self.tell_change(&key, change, fall);
        }
        if turned {
            self.phase_turned(&key, None);
        }
        self.publish(&key.0);
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
                format!("{name} draining: its probe answers {detail}; {}", sessions(member.sessions()))
            }
            Change::DrainEnds => format!("{name} active again: its probe answers {detail}"),
        };
        self.tell("health", Some(key), message);
    }

    fn resolved(&mut self, vitals: &Arc<Vitals>, answer: Result<Vec<std::net::SocketAddr>, String>) {
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
        self.publish(&key.0);
    }

    /// Whether a pool needs no verdict, or has one on at least one of its backends.
    pub fn has_verdict(&self, pool: &PoolPlan) -> bool {
        pool.health.is_none() || self.fleet.of(pool).any(|member| member.streak.health() != Health::Unknown)
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
                targets.push(Target {
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

    // Drains

    /// A backend's phase has changed: begin its drain, or tell that it is back.
    pub fn phase_turned(&mut self, key: &Key, deadline: Option<Duration>) -> Option<u64> {
        let now = Instant::now();
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
        self.publish(&key.0);
        self.retarget();
        if let Some(id) = id {
            self.have_acknowledged(key.clone(), id);
        }
        id
    }

    /// Asks every thread to look at how things stand, and hears when all have.
    fn have_acknowledged(&self, key: Key, drain: u64) {
        let all = self.ask_all(Order::Look);
        let echo = self.echo.clone();
        tokio::task::spawn_local(async move {
            all.await;
            let _ = echo.send(Echo::Acknowledged(key, drain)).await;
        });
    }

    /// Gives every thread an order, and is ready when all have carried it out.
    pub fn ask_all<F>(&self, order: F) -> impl Future<Output = ()> + use<F>
    where
        F: Fn(oneshot::Sender<()>) -> Order,
    {
        let (orders, answers): (Vec<_>, Vec<_>) = self
            .workers
            .iter()
            .map(|worker| {
                let (done, answer) = oneshot::channel();
                ((worker.clone(), order(done)), answer)
            })
            .unzip();
        async move {
            for (worker, order) in orders {
                let _ = worker.send(order).await;
            }
            for answer in answers {
                let _ = answer.await;
            }
        }
    }

    fn hear(&mut self, echo: Echo) {
        let (Echo::Acknowledged(key, id) | Echo::Emptied(key, id)) = &echo;
        let Some(member) = self.fleet.get_mut(key) else { return };
        let Some(following) = member.drain.as_mut().filter(|following| following.id == *id) else { return };
        if let Echo::Acknowledged(..) = echo {
            following.drain.acknowledge();
            return;
        }
        following.drain.emptied();
        following.over = Some(Instant::now());
        member.state_since = SystemTime::now();
        let view = super::report::drain(key, member);
        let cut = view.as_ref().map_or(0, |view| view.requests_cut + view.tunnels_cut);
        let outcome = if cut == 0 { DrainOutcome::Drained } else { DrainOutcome::Forced };
        if let Some(pool) = self.pool(&key.0) {
            pool.series.drained(outcome);
        }
        if let Some(view) = view {
            let ended = view.sessions_ended;
            let message = format!(
                "{}/{} drained in {:.0} s: {ended} sessions ended by themselves, {} moved, {} WebSockets cut, {} requests cut",
                key.0, key.1, view.elapsed_seconds, view.sessions_moved, view.tunnels_cut, view.requests_cut,
            );
            self.tell("drain", Some(key), message);
        }
        self.publish(&key.0);
    }

    fn follow_drains(&mut self, now: Instant) {
        let mut steps = Vec::new();
        for (key, member) in self.fleet.iter_mut() {
            if member.drain.as_ref().is_none_or(|following| following.drain.is_over()) {
                continue;
            }
            let left = member.left();
            let Some(following) = &mut member.drain else { continue };
            if let Some(step) = following.drain.step(left, now) {
                if following.sessions_moved == 0 && step != Step::CloseIdle {
                    following.sessions_moved = left.sessions;
                }
                steps.push((key.clone(), following.id, member.vitals.clone(), step));
            }
        }
        for (key, id, vitals, step) in steps {
            match step {
                Step::CloseTokens => {
                    self.publish(&key.0);
                    self.have_acknowledged(key, id);
                }
                Step::Cut => {
                    self.publish(&key.0);
                    let cut = self.ask_all(move |done| Order::Cut(vitals.clone(), done));
                    let (echo, key) = (self.echo.clone(), key);
                    tokio::task::spawn_local(async move {
                        cut.await;
                        let _ = echo.send(Echo::Acknowledged(key, id)).await;
                    });
                }
                Step::CloseIdle => {
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

    /// Effective weights change in steps, outside the request path.
    fn follow_slow_starts(&mut self, now: Instant) {
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

/// `3 sessions stay`.
pub fn sessions(count: u64) -> String {
    match count {
        1 => "1 session stays".to_owned(),
        count => format!("{count} sessions stay"),
    }
}
