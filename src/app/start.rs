//! From a source to a running process: everything that can fail first, then the threads.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::sync::{mpsc, oneshot};
use tracing::warn;

use super::control::{Control, Inbox};
use super::fleet::{Fleet, publish};
use super::worker::{self, Kit, Load};
use super::{Bound, Options, Pintle, Source, StartError, keys, probe, reload, secure};
use crate::admin::desk::Desk;
use crate::admin::door::Door;
use crate::admin::events::Events;
use crate::admin::socket::{Socket, open_socket};
use crate::admin::{places, serve};
use crate::config::watch::FilesWatch;
use crate::config::{self, Compiled};
use crate::listen::{self, Descriptors};
use crate::live::build::{Carry, snapshot};
use crate::plan::{AdminBind, AdminPlan};
use crate::telemetry::{AccessLog, Telemetry};

/// Reports from traffic, probes and threads that may wait for the control thread.
const WAITING: usize = 1024;

/// Descriptors that are not connections: listeners, files, the runtimes' own.
const RESERVED_TENTH: u64 = 10;

impl Pintle {
    /// Starts a balancer. Nothing is left running when this fails.
    pub async fn start(source: Source, options: Options) -> Result<Self, StartError> {
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
        let telemetry = Telemetry::new(threads);
        let access_log =
            AccessLog::start(&plan.log.access, telemetry.clone()).map_err(cannot("open the access log"))?;
        let mut bound = Vec::new();
        for listener in &plan.listeners {
            for asked in &listener.bind {
                let (actual, sockets) =
                    listen::bind(*asked, threads).map_err(cannot(format!("listen on {asked}")))?;
                bound.push((Bound { name: listener.name.clone(), asked: *asked, actual }, sockets));
            }
        }
        let mut warnings = Vec::new();
        let door = AdminSockets::open(&plan.admin, options.default_admin, &mut warnings)?;

        let fleet = Fleet::default();
        let vitals = fleet.prepare(&plan.pools, &telemetry, threads);
        let keys = keys::ring(&plan, &HashMap::new());
        let shared = reload::shared(&plan.pools, |_| None);
        let (acceptors, tickets) = secure::acceptors(&plan, &HashMap::new())
            .map_err(|why| cannot("prepare TLS")(io::Error::other(why)))?;
        let connectors =
            secure::connectors(&plan, &[]).map_err(|why| cannot("prepare TLS")(io::Error::other(why)))?;
        let carry = Carry {
            telemetry: &telemetry,
            vitals: &vitals,
            shared: &shared,
            keys: &keys,
            acceptors,
            connectors,
        };
        let live = Arc::new(ArcSwap::from_pointee(snapshot(plan.clone(), 1, carry)));
        let mut fleet = fleet;
        fleet.adopt(&plan.pools, vitals, true, Instant::now());
        for pool in &live.load().pools {
            publish(pool, &fleet, Instant::now());
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
        let (ended_tx, ended) = oneshot::channel();
        let control = Control {
            live,
            generation: 1,
            started_with: plan.restart_only(),
            fleet,
            shared,
            keys,
            tickets,
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
            started: Instant::now(),
            last_reload: None,
            ready: false,
            ending: None,
            next_drain: 1,
            past_drains: VecDeque::new(),
            echo,
            plan,
        };
        let pintle = Self {
            desk: desk.clone(),
            signals: signals_tx,
            listeners: bound.iter().map(|(bound, _)| bound.clone()).collect(),
            admin_address: door.address(),
            admin_socket: door.path(),
            warnings,
            ended,
        };
        let inbox = Inbox { asks, evidence, news, echoes, signals };
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
                    let stop = door.serve(desk, &control.plan.admin);
                    for (bound, sockets) in bound {
                        control.listen(bound, sockets).await;
                    }
                    control.begin();
                    // Every thread has its listeners before anybody is told the address.
                    control.ask_all(worker::Order::Look).await;
                    let _ = up.send(());
                    let report = control.run(inbox).await;
                    drop(stop);
                    report
                });
                // The socket's file goes with what serves it, and before anybody may exit.
                drop(runtime);
                let _ = ended_tx.send(report);
            })
            .map_err(cannot("start the control thread"))?;
        let _ = is_up.await;
        Ok(pintle)
    }
}

/// The admin side's sockets, open but not yet served.
struct AdminSockets {
    socket: Option<Socket>,
    tcp: Option<TcpListener>,
}

impl AdminSockets {
    /// What the plan names must open. What is only a convention may not, and a warning says so.
    fn open(plan: &AdminPlan, conventional: bool, warnings: &mut Vec<String>) -> Result<Self, StartError> {
        let socket = match &plan.socket {
            Some(path) => {
                Some(open_socket(path).map_err(cannot(format!("open the admin socket {}", path.display())))?)
            }
            None if conventional => conventional_socket(warnings),
            None => None,
        };
        let tcp = match plan.bind {
            AdminBind::At(address) => Some(
                TcpListener::bind(address)
                    .map_err(cannot(format!("listen on the admin address {address}")))?,
            ),
            AdminBind::Default if conventional => match TcpListener::bind(places::TCP) {
                Ok(listener) => Some(listener),
                Err(error) => {
                    warnings.push(format!("no admin address: {} cannot be had ({error})", places::TCP));
                    None
                }
            },
            AdminBind::Default | AdminBind::Off => None,
        };
        if let Some(tcp) = &tcp {
            tcp.set_nonblocking(true).map_err(cannot("use the admin address"))?;
        }
        Ok(Self { socket, tcp })
    }

    fn address(&self) -> Option<SocketAddr> {
        self.tcp.as_ref().and_then(|tcp| tcp.local_addr().ok())
    }

    fn path(&self) -> Option<PathBuf> {
        self.socket.as_ref().map(|socket| socket.path().to_owned())
    }

    /// Serves both on this thread; dropping what is returned ends that.
    fn serve(self, desk: Desk, plan: &AdminPlan) -> tokio::sync::watch::Sender<()> {
        let door = Rc::new(Door::new(desk, plan, &config::schema()));
        let (stop, stopped) = tokio::sync::watch::channel(());
        let until = |mut stopped: tokio::sync::watch::Receiver<()>| async move {
            while stopped.changed().await.is_ok() {}
        };
        if let Some(socket) = self.socket {
            let serving = serve::serve_unix(socket, door.clone(), until(stopped.clone()));
            tokio::task::spawn_local(async move {
                if let Err(error) = serving.await {
                    warn!(event = "process", %error, "the admin socket is not served");
                }
            });
        }
        if let Some(tcp) = self.tcp {
            match tokio::net::TcpListener::from_std(tcp) {
                Ok(tcp) => drop(tokio::task::spawn_local(serve::serve_tcp(tcp, door, until(stopped)))),
                Err(error) => warn!(event = "process", %error, "the admin address is not served"),
            }
        }
        stop
    }
}

/// The first of the conventional places that can be had.
fn conventional_socket(warnings: &mut Vec<String>) -> Option<Socket> {
    let mut reasons = Vec::new();
    for path in places::sockets() {
        match places::prepare(&path).and_then(|()| open_socket(&path)) {
            Ok(socket) => return Some(socket),
            Err(error) => reasons.push(format!("{} ({error})", path.display())),
        }
    }
    warnings.push(format!("no admin socket: {}", reasons.join(", ")));
    None
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

fn cannot(what: impl Into<String>) -> impl FnOnce(io::Error) -> StartError {
    let what = what.into();
    move |source| StartError::Io { what, source }
}
