//! Replacing the running binary: a new process takes over while this one goes on serving.
//!
//! The new process gets the very sockets at which clients stand in line, so that nothing is closed
//! and opened again on the way. Who says what to whom:
//!
//! ```text
//! operator            old process                               new process
//!    │ POST /v1/upgrade    │
//!    ├────────────────────►│ starts the binary, with its own words; its stdin is a line between them
//!    │  (or SIGUSR2)       ├── Offer: addresses, states, keys ────►│ compiles, binds only what is new,
//!    │                     │   and the sockets themselves          │ starts its threads, accepts
//!    │                     │◄───────────── Ready, or Refused: why ─┤
//!    │                     ├── Commit ────────────────────────────►│ answers operators, writes files
//!    │◄──────────── report ┤ stops accepting, closes its admin     │
//!    │                     │ door, finishes what it has            │
//!    │                     └── exits: the line ends ──────────────►│ no earlier process is left
//! ```
//!
//! Until Commit nothing has happened: whatever goes wrong before ends the new process and leaves the
//! old one as it was. Between Offer and Commit the old one takes no orders that would change what it
//! has offered. After Commit it writes no file of `state_dir` and answers no operator any more.
//!
//! Start at [`Control::begin_upgrade`] for the old side and at [`Heir`] for the new one. [`attempt`]
//! is the old side's dialogue, [`state`] what is told of backends.

mod attempt;
mod heir;
mod state;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tracing::warn;

use self::attempt::Attempt;
pub use self::attempt::{Outcome, Successor};
pub use self::heir::{Heir, Refusal};
use super::control::{Control, Echo};
use super::notify::Notifier;
use super::report::{self, counted};
use crate::admin::handover::{self, Commit, Offer, OfferedKey, OfferedListener, OfferedTickets, PROTOCOL};
use crate::admin::view::{Fault, UpgradeOrder, UpgradeReport};
use crate::listen::tickets::Told;

/// How long a new process may take to be ready, unless the order says otherwise.
pub const READY_WITHIN: Duration = Duration::from_secs(30);

/// Earlier processes that may be finishing what they have while another is started.
const MAX_ELDERS: usize = 16;

/// How long the last word may take to be written.
const COMMIT_WITHIN: Duration = Duration::from_secs(5);

/// An upgrade under way.
pub struct Upgrading {
    began: Instant,
    reply: Option<oneshot::Sender<Result<UpgradeReport, Fault>>>,
}

/// An earlier process that finishes what it has. Its line ends when it does.
pub struct Elder {
    pub pid: u32,
    pub line: UnixStream,
}

impl Control {
    /// Starts the process that is to come next. Who asked hears how it went, when it is over.
    pub(super) fn begin_upgrade(
        &mut self,
        order: UpgradeOrder,
        reply: Option<oneshot::Sender<Result<UpgradeReport, Fault>>>,
    ) {
        match self.try_begin(&order) {
            Ok(()) => {
                self.tell("process", None, "upgrade begun: the new process is starting".to_owned());
                self.upgrading = Some(Upgrading { began: Instant::now(), reply });
            }
            Err(fault) => refuse(reply, fault),
        }
    }

    fn try_begin(&self, order: &UpgradeOrder) -> Result<(), Fault> {
        let refused = |code, detail: &str| report::fault(409, code, format!("not upgraded: {detail}"));
        self.takes_orders()?;
        if self.ending.is_some() {
            return Err(refused("ending", "this Pintle is ending"));
        }
        let Some(program) = &self.program else {
            return Err(refused("not_replaceable", "this Pintle is a part of another program"));
        };
        if std::process::id() == 1 {
            let why = "this Pintle is the first process of its container, which would end with it";
            return Err(refused("not_replaceable", why).with_hint("replace the container"));
        }
        if self.elders.len() >= MAX_ELDERS {
            let why = format!("{MAX_ELDERS} earlier processes are still finishing what they have");
            return Err(refused("too_many", &why));
        }
        let cannot = |error: io::Error| refused("cannot_hand_over", &error.to_string());
        let (offer, descriptors) = self.offer().map_err(cannot)?;
        let limit = order.timeout_seconds.and_then(report::seconds).unwrap_or(READY_WITHIN);
        let command = program.again(order.binary.as_deref().map(Path::new));
        Attempt { command, offer, descriptors, limit }.start(self.outcomes.clone()).map_err(cannot)
    }

    /// Whether an order may change anything: not while all is being handed over, nor after.
    pub(super) fn takes_orders(&self) -> Result<(), Fault> {
        if self.is_replaced() {
            return Err(report::fault(
                503,
                "ending",
                "another process has taken over from this one".to_owned(),
            ));
        }
        if self.upgrading.is_some() {
            return Err(report::fault(
                409,
                "upgrading",
                "an upgrade is under way: nothing can be changed".to_owned(),
            )
            .with_hint("try again in a moment"));
        }
        Ok(())
    }

    /// Whether another process goes on.
    pub(super) fn is_replaced(&self) -> bool {
        self.successor.is_some()
    }

    /// Everything that the next process needs, and the descriptors that go with it.
    fn offer(&self) -> io::Result<(Offer, Vec<OwnedFd>)> {
        let mut descriptors = vec![io::stderr().as_fd().try_clone_to_owned()?];
        let mut listeners = Vec::new();
        for bound in &self.listeners {
            let sockets = self.sockets.get(&bound.actual).map(Vec::as_slice).unwrap_or_default();
            for socket in sockets {
                descriptors.push(socket.try_clone()?.into());
            }
            let (name, asked) = (bound.name.clone(), bound.asked);
            listeners.push(OfferedListener { name, asked, sockets: sockets.len() });
        }
        let doors = self.doors.as_ref();
        let (admin_socket, socket) = doors.map(|doors| doors.socket()).transpose()?.flatten().unzip();
        let (admin_address, tcp) = doors.map(|doors| doors.tcp()).transpose()?.flatten().unzip();
        descriptors.extend(socket.into_iter().chain(tcp));
        for elder in &self.elders {
            descriptors.push(elder.line.try_clone()?.into());
        }
        let keys = self.keys.iter().map(|(pool, key)| OfferedKey {
            pool: pool.clone(),
            id: key.id.clone(),
            secret: key.secret.0.clone(),
        });
        let tickets = self.tickets.iter().map(|(listener, tickets)| {
            let Told { secrets, until } = tickets.told();
            OfferedTickets { listener: listener.clone(), secrets, until }
        });
        let offer = Offer {
            protocol: PROTOCOL,
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            listeners,
            admin_socket,
            admin_address,
            elders: self.elders.iter().map(|elder| elder.pid).collect(),
            backends: self.offered_backends(Instant::now()),
            keys: keys.collect(),
            tickets: tickets.collect(),
            next_drain: self.next_drain,
            past_drains: self.past_drains.iter().cloned().collect(),
        };
        Ok((offer, descriptors))
    }

    /// The dialogue with the new process is over: go, or go on.
    pub(super) async fn upgraded(&mut self, outcome: Outcome) {
        let Some(Upgrading { began, reply }) = self.upgrading.take() else { return };
        let committed = match outcome {
            Ok(successor) if self.ending.is_some() => {
                successor.give_up();
                Err("this Pintle is ending".to_owned())
            }
            Ok(successor) => self.commit(successor, began).await,
            Err(why) => Err(why),
        };
        match committed {
            // Somebody who asked and went away is told by the log.
            Ok(report) => drop(reply.map(|reply| reply.send(Ok(report)))),
            Err(why) => {
                let detail = format!("not upgraded, this process goes on: {why}");
                self.events.publish("process", None, None, detail.clone());
                refuse(reply, report::fault(409, "upgrade_failed", detail));
            }
        }
    }

    /// The new process is ready: the last word, and then the end of this one.
    async fn commit(&mut self, successor: Successor, began: Instant) -> Result<UpgradeReport, String> {
        // Before the new one may speak for itself: systemd believes its main process.
        self.notifier.say(&format!("MAINPID={}", successor.pid));
        if let Err(error) = handover::write(&successor.line, &Commit {}, Instant::now() + COMMIT_WITHIN) {
            self.notifier.say(&format!("MAINPID={}", std::process::id()));
            successor.give_up();
            return Err(format!("the new process was gone again: {error}"));
        }
        let (requests, tunnels) = self.counts();
        let report = UpgradeReport {
            from_pid: std::process::id(),
            pid: successor.pid,
            from_version: env!("CARGO_PKG_VERSION").to_owned(),
            version: successor.version.clone(),
            seconds: began.elapsed().as_secs_f64(),
            connections: self.connections(),
            requests_in_flight: requests,
            tunnels,
            drain_seconds: self.plan.server.drain_timeout.as_secs_f64(),
        };
        let message = format!(
            "upgraded to {} (pid {}); {} stay here to the end",
            report.version,
            report.pid,
            counted(report.connections, "connection")
        );
        self.tell("process", None, message);
        self.successor = Some(successor);
        // From here on the new one speaks for the service.
        self.notifier = Notifier::default();
        if let Some(doors) = self.doors.take() {
            doors.leave();
        }
        // The same sockets are open in the new process: what waits at them is not lost.
        self.leave_to_successor().await;
        Ok(report)
    }

    /// Notices when earlier processes have come to their end.
    pub(super) fn watch_elders(&mut self, elders: Vec<Elder>) {
        for elder in elders {
            let pid = elder.pid;
            let line = elder.line.try_clone().and_then(|line| {
                line.set_nonblocking(true)?;
                tokio::net::UnixStream::from_std(line)
            });
            match line {
                Ok(line) => {
                    let echo = self.echo.clone();
                    tokio::task::spawn_local(async move {
                        heir::ends(line).await;
                        let _ = echo.send(Echo::ElderGone(pid)).await;
                    });
                    self.elders.push(elder);
                }
                Err(error) => {
                    warn!(event = "process", %error, "cannot see when process {pid} comes to its end");
                }
            }
        }
    }
}

/// Tells who asked, and the log.
fn refuse(reply: Option<oneshot::Sender<Result<UpgradeReport, Fault>>>, fault: Fault) {
    warn!(event = "process", "{}", fault.detail);
    if let Some(reply) = reply {
        let _ = reply.send(Err(fault));
    }
}
