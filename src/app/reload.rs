//! The two-phase change: prepare may fail and touches nothing that runs; commit cannot fail.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use tracing::warn;

use super::control::Control;
use super::worker::Order;
use super::{Bound, Source, diff, keys, report, secure};
use crate::admin::view::{Fault, LastReload, ReloadReport};
use crate::config::{self, Compiled, Problems};
use crate::listen;
use crate::live::build::{Carry, snapshot};
use crate::plan::{Plan, PoolPlan};
use crate::pool::Shared;
use crate::telemetry::ReloadResult;

/// An address with its sockets.
pub struct Opened {
    pub bound: Bound,
    sockets: Vec<TcpListener>,
    /// Another handle on each, for a process that takes over.
    kept: Vec<TcpListener>,
}

impl Opened {
    pub fn new(bound: Bound, sockets: Vec<TcpListener>) -> io::Result<Self> {
        let kept: io::Result<_> = sockets.iter().map(TcpListener::try_clone).collect();
        Ok(Self { bound, sockets, kept: kept? })
    }
}

/// Why the configuration is read again.
pub enum Reloading {
    /// The file has changed; this is what it says now.
    Changed(String),
    /// A certificate or a key has: the text in force is compiled anew.
    Renewed,
    /// Somebody asked: for the file, or for this text.
    Asked(Option<String>),
}

impl Control {
    /// Reads, compiles and prepares everything, then swaps one pointer and retires the old.
    pub async fn reload(&mut self, why: Reloading) -> Result<ReloadReport, Fault> {
        let begun = Instant::now();
        if self.ready {
            self.notifier.reloading();
        }
        let result = self.try_reload(why, begun).await;
        if self.ready {
            self.say_ready();
        }
        let at = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
        match result {
            Ok(mut report) => {
                report.seconds = begun.elapsed().as_secs_f64();
                self.telemetry.process().reloaded(ReloadResult::Applied, self.generation, SystemTime::now());
                self.last_reload = Some(LastReload { at, ok: true, detail: None });
                self.tell("reload", None, diff::reload_sentence(&report));
                Ok(report)
            }
            Err(fault) => {
                self.telemetry.process().reloaded(ReloadResult::Rejected, self.generation, SystemTime::now());
                self.last_reload = Some(LastReload { at, ok: false, detail: Some(fault.detail.clone()) });
                warn!(event = "reload", generation = self.generation, "{}", fault.detail);
                if let Some(text) = &fault.text {
                    text.lines().for_each(|line| warn!(event = "reload", "{line}"));
                }
                self.events.publish("reload", None, None, fault.detail.clone());
                Err(fault)
            }
        }
    }

    async fn try_reload(&mut self, why: Reloading, now: Instant) -> Result<ReloadReport, Fault> {
        self.takes_orders()?;
        let (text, compiled) = self.compile(why).map_err(|problems| {
            report::invalid(
                &problems,
                &format!("not reloaded: {}; generation {} stays", problems.summary(), self.generation),
            )
        })?;
        self.change_to(text, compiled, now).await
    }

    /// From what is written to what runs.
    pub(super) async fn change_to(
        &mut self,
        text: String,
        compiled: Compiled,
        now: Instant,
    ) -> Result<ReloadReport, Fault> {
        let Compiled { plan, warnings, files } = compiled;
        // Prepare.
        let bound = self.bind(&plan).map_err(|(address, error)| {
            report::fault(409, "cannot_bind", format!("not reloaded: cannot listen on {address}: {error}"))
        })?;
        let log = self.access_log.prepare(&plan.log.access).map_err(|error| {
            report::fault(409, "cannot_open", format!("not reloaded: cannot open the access log: {error}"))
        })?;
        let vitals = self.fleet.prepare(&plan.pools, &self.telemetry, self.workers.len(), now);
        let keys = keys::ring(&plan, &self.keys);
        let mut shared = shared(&plan.pools, |name| self.shared.get(name).cloned());
        // A pool that is gone and may come back while its requests finish: they call who waits then.
        for (name, kept) in &self.shared {
            if self.fleet.iter().any(|((pool, _), _)| pool == name) {
                shared.entry(name.clone()).or_insert_with(|| kept.clone());
            }
        }
        let (acceptors, tickets) = secure::acceptors(&plan, &self.tickets)
            .map_err(|why| report::fault(409, "cannot_secure", format!("not reloaded: {why}")))?;
        let before = self.live.load_full();
        let connectors = secure::connectors(&plan, &before.pools)
            .map_err(|why| report::fault(409, "cannot_secure", format!("not reloaded: {why}")))?;
        let carry = Carry {
            telemetry: &self.telemetry,
            vitals: &vitals,
            shared: &shared,
            keys: &keys,
            before: Some(&before),
            acceptors,
            connectors,
        };
        let next = Arc::new(snapshot(plan.clone(), self.generation + 1, carry));
        let mut report = diff::reload(&self.plan, &plan, &self.fleet, self.generation + 1);
        report.source = self.source.name();
        report.warnings = report::problems(&warnings);
        let waits =
            plan.restart_only().into_iter().filter(|(key, value)| self.started_with.get(key) != Some(value));
        report.restart_only = waits.map(|(key, _)| key.to_owned()).collect();

        // Commit.
        (self.plan, self.text) = (plan, text);
        let before: Vec<_> = self
            .fleet
            .iter()
            .map(|(key, member)| (key.clone(), member.phase(), report::drain(key, member)))
            .collect();
        self.fleet.adopt(&self.plan.pools, vitals, false, now);
        self.access_log.apply(log);
        if let Some(events) = &self.event_log {
            // The level was checked when the file was compiled.
            let _ = events.apply(&self.plan.log);
        }
        self.keys = keys;
        self.tickets = tickets;
        self.heads.set_limit(self.plan.server.max_head_memory);
        self.files.follow(files);
        let shared_before = std::mem::replace(&mut self.shared, shared);
        self.generation += 1;
        for pool in &next.pools {
            super::publish::publish(pool, &self.fleet, now);
        }
        self.live.store(next);

        // Retire.
        for (key, phase, drain) in before {
            let Some(member) = self.fleet.get(&key) else { continue };
            let turned = member.phase() != phase && !member.removed;
            if let Some(ended) = drain.filter(|_| member.drain.is_none()) {
                self.remember(ended);
            }
            if turned {
                self.phase_turned(&key, None, now);
            }
        }
        self.drain_what_should(now);
        self.relisten(bound).await;
        // Whoever waits looks at the new snapshot, and goes elsewhere if need be: also from a pool
        // that is gone.
        for shared in shared_before.values() {
            shared.hold.wake_all();
        }
        self.retarget();
        self.save_words();
        tokio::task::spawn_local(self.ask_all(Order::Look));
        Ok(report)
    }

    fn compile(&mut self, why: Reloading) -> Result<(String, Compiled), Problems> {
        let (text, given) = match why {
            Reloading::Changed(text) => (text, false),
            Reloading::Renewed => (self.text.clone(), false),
            Reloading::Asked(Some(text)) => (text, true),
            Reloading::Asked(None) => {
                let text = self.source.read()?;
                if let Some(watch) = &mut self.watch {
                    watch.applied(&text);
                }
                (text, false)
            }
        };
        let compiled = config::compile(&text, &self.source.origin())?;
        if let (true, Source::Text { text: current, .. }) = (given, &mut self.source) {
            current.clone_from(&text);
        }
        Ok((text, compiled))
    }

    /// Opens the addresses that the plan adds.
    fn bind(&self, plan: &Plan) -> Result<Vec<Opened>, (String, io::Error)> {
        let mut bound = Vec::new();
        for listener in &plan.listeners {
            for asked in &listener.bind {
                if self.listeners.iter().any(|known| known.is(&listener.name, *asked)) {
                    continue;
                }
                let opened = listen::bind(*asked, self.workers.len()).and_then(|(actual, sockets)| {
                    Opened::new(Bound { name: listener.name.clone(), asked: *asked, actual }, sockets)
                });
                bound.push(opened.map_err(|error| (asked.to_string(), error))?);
            }
        }
        Ok(bound)
    }

    /// Listens on what was bound, and leaves the addresses that are no longer in the plan.
    async fn relisten(&mut self, bound: Vec<Opened>) {
        let plan = &self.plan;
        let stays = |known: &Bound| {
            plan.listeners
                .iter()
                .any(|listener| listener.bind.iter().any(|asked| known.is(&listener.name, *asked)))
        };
        let (stay, leave): (Vec<_>, Vec<_>) = self.listeners.drain(..).partition(stays);
        self.listeners = stay;
        for gone in leave {
            self.sockets.remove(&gone.actual);
            for worker in &self.workers {
                let _ = worker.send(Order::Leave { address: gone.actual }).await;
            }
        }
        for opened in bound {
            self.listen(opened).await;
        }
    }

    pub async fn listen(&mut self, Opened { bound, sockets, kept }: Opened) {
        for (worker, sockets) in self.workers.iter().zip(listen::deal(sockets, self.workers.len())) {
            let order = Order::Listen { name: bound.name.as_str().into(), address: bound.actual, sockets };
            let _ = worker.send(order).await;
        }
        self.sockets.insert(bound.actual, kept);
        self.listeners.push(bound);
    }
}

/// What each pool keeps over reloads, begun for those that are new.
pub fn shared(
    pools: &[PoolPlan],
    known: impl Fn(&str) -> Option<Arc<Shared>>,
) -> std::collections::HashMap<String, Arc<Shared>> {
    pools.iter().map(|pool| (pool.name.clone(), known(&pool.name).unwrap_or_default())).collect()
}
