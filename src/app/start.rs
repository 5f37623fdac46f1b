//! From a source to a running process: everything that can fail first, then the threads.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::sync::{mpsc, oneshot};
use tracing::warn;

use super::control::{Control, Inbox};
use super::doors::AdminSockets;
use super::fleet::Fleet;
use super::inherited::Inherited;
use super::notify::Notifier;
use super::publish::publish;
use super::reload::Opened;
use super::upgrade::Heir;
use super::worker::{self, Kit, Load};
use super::{
    Bound, Options, Pintle, ShutdownReport, Signals, Source, StartError, keys, probe, reload, secure,
};
use crate::admin::desk::Desk;
use crate::admin::events::Events;
use crate::config::watch::FilesWatch;
use crate::config::{self, Compiled};
use crate::limit::Heads;
use crate::listen::{self, Descriptors};
use crate::live::build::{Carry, snapshot};
use crate::telemetry::{AccessLog, Telemetry};

/// Reports from traffic, probes and threads that may wait for the control thread.
const WAITING: usize = 1024;

/// Descriptors that are not connections: listeners, files, the runtimes' own.
const RESERVED_TENTH: u64 = 10;

impl Pintle {
    /// Starts a balancer. Nothing is left running when this fails.
    pub async fn start(source: Source, options: Options) -> Result<Self, StartError> {
        Self::start_with(source, options, Inherited::default()).await
    }

    /// Starts one that uses sockets which are open already, and takes over from the process that
    /// they came from, if they came from one.
    pub async fn start_with(
        source: Source,
        options: Options,
        mut inherited: Inherited,
    ) -> Result<Self, StartError> {
        let text = source.read().map_err(StartError::Config)?;
        let Compiled { plan, files: read, .. } =
            config::compile(&text, &source.origin()).map_err(StartError::Config)?;

        let threads = match plan.server.workers {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            workers => workers,
        };
        let descriptors = Descriptors::new(match plan.server.max_connections {
            0 => descriptor_limit(),
            limit => limit,
        });
        let heads = Heads::new(plan.server.max_head_memory);
        let telemetry = Telemetry::new(threads);
        let access_log =
            AccessLog::start(&plan.log.access, telemetry.clone()).map_err(cannot("open the access log"))?;
        let mut bound = Vec::new();
        for listener in &plan.listeners {
            for asked in &listener.bind {
                let opened = match inherited.take(&plan.listeners, &listener.name, *asked) {
                    Some(passed) => Ok(passed),
                    None => listen::bind(*asked, threads),
                };
                let opened = opened.and_then(|(actual, sockets)| {
                    Opened::new(Bound { name: listener.name.clone(), asked: *asked, actual }, sockets)
                });
                bound.push(opened.map_err(cannot(format!("listen on {asked}")))?);
            }
        }
        let mut warnings = inherited.unused();
        let door = AdminSockets::open(&plan.admin, options.default_admin, &mut inherited, &mut warnings)?;

        let fleet = Fleet::default();
        let now = Instant::now();
        let vitals = fleet.prepare(&plan.pools, &telemetry, threads, now);
        let keys = keys::ring(&plan, &inherited.keys());
        let shared = reload::shared(&plan.pools, |_| None);
        let (acceptors, tickets) = secure::acceptors(&plan, &inherited.tickets())
            .map_err(|why| cannot("prepare TLS")(io::Error::other(why)))?;
        let connectors =
            secure::connectors(&plan, &[]).map_err(|why| cannot("prepare TLS")(io::Error::other(why)))?;
        let carry = Carry {
            telemetry: &telemetry,
            vitals: &vitals,
            shared: &shared,
            keys: &keys,
            before: None,
            acceptors,
            connectors,
        };
        let live = Arc::new(ArcSwap::from_pointee(snapshot(plan.clone(), 1, carry)));
        let mut fleet = fleet;
        fleet.adopt(&plan.pools, vitals, true, now);
        for pool in &live.load().pools {
            publish(pool, &fleet, now);
        }

        let (news_tx, news) = mpsc::channel(WAITING);
        let (probes, targets) = mpsc::channel(WAITING);
        probe::start(targets, news_tx).map_err(cannot("start the probe thread"))?;
        let (evidence_tx, evidence) = mpsc::channel(WAITING);
        let loads: Arc<[Load]> = (0..threads).map(|_| Load::default()).collect();
        let (workers, inboxes): (Vec<_>, Vec<_>) = (0..threads).map(|_| mpsc::channel(worker::INBOX)).unzip();
        for (thread, inbox) in inboxes.into_iter().enumerate() {
            let kit = Kit {
                thread,
                threads,
                live: live.clone(),
                telemetry: telemetry.clone(),
                log: access_log.sink(),
                evidence: evidence_tx.clone(),
                descriptors: descriptors.clone(),
                heads: heads.clone(),
                inbox,
                others: workers.clone(),
                loads: loads.clone(),
            };
            worker::start(kit).map_err(cannot("start a data thread"))?;
        }

        let mut files = FilesWatch::default();
        files.follow(read);
        let events = Events::default();
        let (desk, asks) = Desk::new(events.clone());
        let (signals_tx, signals) = mpsc::channel(WAITING);
        let (echo, echoes) = mpsc::channel(WAITING);
        let (outcomes_tx, outcomes) = mpsc::channel(WAITING);
        let (ended_tx, ended) = oneshot::channel();
        let own = options.program.is_some();
        let control = Control {
            live,
            generation: 1,
            started_with: plan.restart_only(),
            fleet,
            shared,
            keys,
            tickets,
            heads,
            telemetry,
            access_log,
            event_log: options.event_log,
            events,
            workers,
            loads,
            probes,
            watch: source.watch(&text),
            files,
            text,
            source,
            listeners: Vec::new(),
            sockets: HashMap::new(),
            doors: None,
            notifier: if own { Notifier::from_env() } else { Notifier::default() },
            program: options.program,
            upgrading: None,
            outcomes: outcomes_tx,
            successor: None,
            elders: Vec::new(),
            started: Instant::now(),
            last_reload: None,
            ready: false,
            panicking: Default::default(),
            ending: None,
            next_drain: 1,
            past_drains: VecDeque::new(),
            echo,
            plan,
        };
        let heard = own.then(Signals::listen).transpose().map_err(cannot("listen for signals"))?;
        let pintle = Self {
            desk: desk.clone(),
            signals: signals_tx,
            heard,
            listeners: bound.iter().map(|opened| opened.bound.clone()).collect(),
            admin_address: door.address(),
            admin_socket: door.path(),
            warnings,
            ended,
        };
        let inbox = Inbox { asks, evidence, news, echoes, signals, outcomes };
        let (up, is_up) = oneshot::channel();
        let thread = std::thread::Builder::new().name("pintle-control".into());
        thread
            .spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build_local(Default::default())
                    .expect("a runtime needs three descriptors, and the limit was raised at start");
                let report = runtime.block_on(async move {
                    let mut control = control;
                    let heir = inherited.heir;
                    control.begin(heir.as_ref().map(|heir| &heir.offer));
                    for opened in bound {
                        control.listen(opened).await;
                    }
                    // Every thread has its listeners before anybody is told the address.
                    control.ask_all(worker::Order::Look).await;
                    match heir.map(Heir::settle).transpose() {
                        Ok(elders) => control.watch_elders(elders.unwrap_or_default()),
                        Err(error) => {
                            control.ask_all(worker::Order::Stop).await;
                            let _ = up.send(Err(error));
                            return ShutdownReport::default();
                        }
                    }
                    control.doors = Some(door.serve(desk, &control.plan.admin));
                    let _ = up.send(Ok(()));
                    control.run(inbox).await
                });
                // The socket's file goes with what serves it, and before anybody may exit.
                drop(runtime);
                let _ = ended_tx.send(report);
            })
            .map_err(cannot("start the control thread"))?;
        match is_up.await {
            Ok(Err(error)) => Err(cannot("take over from the running Pintle")(error)),
            Ok(Ok(())) | Err(_) => Ok(pintle),
        }
    }
}

/// Raises the limit of descriptors to what is allowed, and leaves a tenth of it.
fn descriptor_limit() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.or(limit.current).unwrap_or(1024);
    if limit.current != limit.maximum
        && let Err(error) =
            setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })
    {
        warn!(event = "process", %error, "cannot raise the limit of descriptors");
    }
    usize::try_from(most - most / RESERVED_TENTH).unwrap_or(usize::MAX)
}

pub(super) fn cannot(what: impl Into<String>) -> impl FnOnce(io::Error) -> StartError {
    let what = what.into();
    move |source| StartError::Io { what, source }
}
