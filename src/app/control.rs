//! The control thread: the one writer of phases, health and snapshots.
//!
//! Start at [`Control::run`]. Everything that changes the process arrives here, one at a time:
//! questions and orders from the desk, evidence from traffic, news from probes, a changed file,
//! signals. Whatever waits (a drain, a shutdown) is looked at again every [`TICK`].

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use tracing::info;

use super::doors::Doors;
use super::ending::Ending;
use super::fleet::{Fleet, Key};
use super::notify::Notifier;
use super::probe::{News, Target};
use super::program::Program;
use super::publish::publish;
use super::reload::Reloading;
use super::secure::TicketsOf;
use super::upgrade::{Elder, Outcome, Successor, Upgrading};
use super::worker::{Load, Order};
use super::{ShutdownReport, Source};
use crate::admin::desk::Ask;
use crate::admin::events::Events;
use crate::admin::handover::Offer;
use crate::config::watch::{FilesWatch, Watch};
use crate::limit::Heads;
use crate::live::Live;
use crate::plan::{Plan, StickyKey};
use crate::pool::{Pool, Shared};
use crate::proxy::{Evidence, unix_now};
use crate::telemetry::access_log::AccessLog;
use crate::telemetry::{EventLog, Telemetry};

/// How often drains, slow starts and the file are looked at.
const TICK: Duration = Duration::from_millis(100);

/// A pool that has no verdict by then does not keep `/readyz` waiting longer.
const READY_AFTER: Duration = Duration::from_secs(5);

pub struct Control {
    pub live: Live,
    pub plan: Plan,
    /// The text that the plan was made of.
    pub text: String,
    pub generation: u64,
    /// The settings that only a restart changes, as they run.
    pub started_with: BTreeMap<&'static str, String>,
    pub fleet: Fleet,
    pub shared: HashMap<String, Arc<Shared>>,
    pub keys: HashMap<String, StickyKey>,
    pub tickets: TicketsOf,
    pub heads: Arc<Heads>,
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
    /// The files that the plan was read from besides.
    pub files: FilesWatch,
    pub listeners: Vec<super::Bound>,
    /// By actual address: another handle on each socket, for a process that takes over.
    pub sockets: HashMap<SocketAddr, Vec<TcpListener>>,
    pub doors: Option<Doors>,
    pub program: Option<Program>,
    pub notifier: Notifier,
    pub upgrading: Option<Upgrading>,
    /// Where the dialogue with a new process tells how it went.
    pub outcomes: mpsc::Sender<Outcome>,
    /// The process that has taken over.
    pub successor: Option<Successor>,
    /// Those that this one has taken over from and that are not at their end.
    pub elders: Vec<Elder>,
    pub started: Instant,
    pub last_reload: Option<crate::admin::view::LastReload>,
    pub ready: bool,
    /// Pools of which it has been told that they ignore health.
    pub panicking: BTreeSet<String>,
    pub ending: Option<Ending>,
    pub next_drain: u64,
    /// Drains that are over, kept so that their outcome can be asked for.
    pub past_drains: VecDeque<crate::admin::view::DrainView>,
    /// Answers of data threads come back through here.
    pub echo: mpsc::Sender<Echo>,
}

/// What data threads have done, and what has come of earlier processes.
pub enum Echo {
    /// Every thread knows how the backend stands, or has cut what it had there. The last is the
    /// question's number, see `Drain::ask`.
    Acknowledged(Key, u64, u32),
    /// Every thread has closed its idle connections to it.
    Emptied(Key, u64),
    /// Every thread has answered: none is stuck.
    Alive,
    /// An earlier process has finished what it had.
    ElderGone(u32),
}

/// The ends at which everything arrives.
pub struct Inbox {
    pub asks: mpsc::Receiver<Ask>,
    pub evidence: mpsc::Receiver<Evidence>,
    pub news: mpsc::Receiver<News>,
    pub echoes: mpsc::Receiver<Echo>,
    pub signals: mpsc::Receiver<super::Signal>,
    pub outcomes: mpsc::Receiver<Outcome>,
}

impl Control {
    /// Handles what arrives, one thing at a time, until the process has ended.
    pub async fn run(mut self, mut inbox: Inbox) -> ShutdownReport {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                Some(ask) = inbox.asks.recv() => self.answer(ask).await,
                Some(evidence) = inbox.evidence.recv() => self.heed(evidence, Instant::now()),
                Some(news) = inbox.news.recv() => self.learn(news, Instant::now()),
                Some(echo) = inbox.echoes.recv() => self.hear(echo, Instant::now()),
                Some(signal) = inbox.signals.recv() => self.signalled(signal).await,
                Some(outcome) = inbox.outcomes.recv() => self.upgraded(outcome).await,
                _ = tick.tick() => {
                    if let Some(report) = self.tick(Instant::now(), unix_now()).await {
                        return report;
                    }
                }
            }
        }
    }

    /// The first things to do: know what an earlier process knew, probe, begin the drains that the
    /// file or an operator asked for.
    pub fn begin(&mut self, told: Option<&Offer>) {
        match told {
            Some(told) => self.take_up(told),
            None => self.recall_words(),
        }
        self.retarget();
        self.drain_what_should(Instant::now());
        self.expect_strangers(told.is_some());
    }

    /// `clock`: seconds since 1970, the time of sessions.
    pub(super) async fn tick(&mut self, now: Instant, clock: u64) -> Option<ShutdownReport> {
        let watches = self.plan.server.watch && self.takes_orders().is_ok();
        let watch = self.watch.as_mut().filter(|_| watches);
        if let Some(text) = watch.and_then(|watch| watch.poll(now)) {
            let _ = self.reload(Reloading::Changed(text)).await;
        }
        if watches && self.files.poll(now) {
            let _ = self.reload(Reloading::Renewed).await;
        }
        self.follow_drains(now, clock);
        self.follow_ejections(now);
        self.follow_panics();
        self.follow_slow_starts(now);
        // A process that ends counts what becomes of all tunnels, to the last.
        if self.ending.is_none() {
            self.fleet.forget();
        }
        if !self.ready {
            self.ready = self.plan.pools.iter().all(|pool| self.has_verdict(pool))
                || now.saturating_duration_since(self.started) >= READY_AFTER;
            if self.ready {
                self.say_ready();
            }
        }
        self.show_life(now);
        self.follow_ending(now).await
    }

    /// The current snapshot's pools.
    pub(super) fn pool(&self, name: &str) -> Option<Arc<Pool>> {
        self.live.load().pools.iter().find(|pool| *pool.name == *name).cloned()
    }

    /// Publishes how a pool stands, and has every thread acknowledge it.
    pub fn publish(&self, pool: &str, now: Instant) {
        if let Some(pool) = self.pool(pool) {
            publish(&pool, &self.fleet, now);
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

    /// Tells systemd that what was to be done is done, and how things stand.
    pub(super) fn say_ready(&self) {
        if self.notifier.is_there() {
            let status = format!("generation {} of {}", self.generation, self.source.name());
            self.notifier.say(&format!("READY=1\nSTATUS={status}, {}", self.sentence()));
        }
    }

    /// Tells systemd that nothing hangs, once every data thread has shown it.
    fn show_life(&mut self, now: Instant) {
        if !self.notifier.asks(now) {
            return;
        }
        let (all, echo) = (self.ask_all(Order::Look), self.echo.clone());
        tokio::task::spawn_local(async move {
            if all.await {
                let _ = echo.send(Echo::Alive).await;
            }
        });
    }

    /// Gives every thread an order, and is ready when it is over: true where all have carried it out.
    pub fn ask_all<F>(&self, order: F) -> impl Future<Output = bool> + use<F>
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
            let mut all = true;
            for answer in answers {
                all &= answer.await.is_ok();
            }
            all
        }
    }
}
