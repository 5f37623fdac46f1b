//! The process: threads, events, reload, drains, shutdown. Owns everything that runs.
//!
//! Start at [`Pintle::start`]. A running balancer is N data threads ([`worker`]), one control
//! thread ([`control`]) that also serves the admin API, and one thread for probes ([`probe`]).
//! [`Pintle`] is the handle to them: the binary and a program that embeds us use the same.

mod answer;
mod control;
mod diff;
mod doors;
mod drains;
mod ejections;
mod ending;
mod fleet;
mod health;
mod inherited;
mod keys;
mod notify;
mod overrides;
mod probe;
mod program;
mod publish;
mod reload;
mod report;
mod secure;
mod start;
mod upgrade;
mod worker;

#[cfg(test)]
mod simulation;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

pub use self::ending::ShutdownReport;
pub use self::inherited::Inherited;
pub use self::program::Program;
pub use self::report::problems;
pub use self::upgrade::{Heir, READY_WITHIN, Refusal};
use crate::admin::desk::{Desk, Gone};
use crate::admin::events::Events;
use crate::admin::view::{
    DrainView, Fault, ReloadOrder, ReloadReport, ShutdownOrder, StateAnswer, StateOrder, Status,
};
use crate::config::watch::Watch;
use crate::config::{self, Origin, Problems};
use crate::telemetry::EventLog;

/// How often a drain is looked at while somebody waits for it.
const FOLLOW: Duration = Duration::from_millis(100);

/// Where a configuration comes from.
#[derive(Clone, Debug)]
pub enum Source {
    /// A file, read again at each reload, and watched unless it says otherwise.
    File(PathBuf),
    Text {
        text: String,
        origin: Origin,
    },
}

impl Source {
    /// A text of its own; relative paths in it are relative to the current folder.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text { text: text.into(), origin: Origin { name: "text".into(), base: PathBuf::from(".") } }
    }

    /// What it says now.
    fn read(&self) -> Result<String, Problems> {
        match self {
            Self::File(path) => config::text_of(path),
            Self::Text { text, .. } => Ok(text.clone()),
        }
    }

    fn origin(&self) -> Origin {
        match self {
            Self::File(path) => config::origin_of(path),
            Self::Text { origin, .. } => origin.clone(),
        }
    }

    /// Watches the file, of which `text` is in force already.
    fn watch(&self, text: &str) -> Option<Watch> {
        let Self::File(path) = self else { return None };
        let mut watch = Watch::new(path);
        watch.applied(text);
        Some(watch)
    }

    pub fn name(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Text { origin, .. } => origin.name.clone(),
        }
    }
}

/// What a program decides that is no configuration.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Open the conventional admin socket and 127.0.0.1:9900 where the plan names none. A
    /// library does not, the binary does.
    pub default_admin: bool,
    /// Follows `[log]` at each reload.
    pub event_log: Option<EventLog>,
    /// How this program was started, where Pintle is all that it runs: another process can then
    /// replace it, and systemd is told how it is.
    pub program: Option<Program>,
}

/// Why no balancer was started.
#[derive(Debug)]
pub enum StartError {
    Config(Problems),
    Io { what: String, source: io::Error },
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(problems) => f.write_str(&problems.summary()),
            Self::Io { what, source } => write!(f, "cannot {what}: {source}"),
        }
    }
}

impl std::error::Error for StartError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Config(_) => None,
            Self::Io { source, .. } => Some(source),
        }
    }
}

/// What the outside asks of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGHUP.
    Reload,
    /// SIGTERM and SIGQUIT; SIGINT skips the grace. A second one stops now.
    Stop { grace: bool },
    /// SIGUSR1.
    Reopen,
    /// SIGUSR2.
    Upgrade,
}

/// An address that is listened on.
#[derive(Clone, Debug)]
pub struct Bound {
    pub name: String,
    /// As the plan gives it; its port may be 0.
    asked: SocketAddr,
    pub actual: SocketAddr,
}

impl Bound {
    fn is(&self, name: &str, asked: SocketAddr) -> bool {
        self.name == name && self.asked == asked
    }
}

/// A running balancer. Dropping it lets it run on only as long as the process does; end it with
/// [`Pintle::shutdown`].
pub struct Pintle {
    desk: Desk,
    signals: mpsc::Sender<Signal>,
    /// Heard from before anybody is told that it runs, so that none is missed.
    heard: Option<Signals>,
    listeners: Vec<Bound>,
    admin_address: Option<SocketAddr>,
    admin_socket: Option<PathBuf>,
    warnings: Vec<String>,
    ended: oneshot::Receiver<ShutdownReport>,
}

impl Pintle {
    /// The addresses listened on at the start, with the listener's name.
    pub fn listeners(&self) -> Vec<(String, SocketAddr)> {
        self.listeners.iter().map(|bound| (bound.name.clone(), bound.actual)).collect()
    }

    /// The first address listened on: what a test or an example wants to know.
    pub fn address(&self) -> Option<SocketAddr> {
        self.listeners.first().map(|bound| bound.actual)
    }

    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin_address
    }

    pub fn admin_socket(&self) -> Option<PathBuf> {
        self.admin_socket.clone()
    }

    /// What did not keep it from starting, but is worth knowing.
    pub fn warnings(&self) -> Vec<String> {
        self.warnings.clone()
    }

    /// What changes, as it changes.
    pub fn events(&self) -> Events {
        self.desk.events().clone()
    }

    /// Applies a text instead of the configuration that runs, or nothing of it.
    pub async fn reload(&self, text: impl Into<String>) -> Result<ReloadReport, Fault> {
        self.order_reload(ReloadOrder { text: Some(text.into()) }).await
    }

    /// Reads the source again.
    pub async fn reload_source(&self) -> Result<ReloadReport, Fault> {
        self.order_reload(ReloadOrder { text: None }).await
    }

    async fn order_reload(&self, order: ReloadOrder) -> Result<ReloadReport, Fault> {
        self.desk.reload(order).await.unwrap_or_else(|gone| Err(ended(gone)))
    }

    /// How everything stands.
    pub async fn status(&self) -> Result<Status, Gone> {
        self.desk.status().await
    }

    /// Drains `pool/backend`: nobody new, known sessions stay. Ready when nothing is left there
    /// or the deadline has made it so; says who was left. Dropping the future does not end the
    /// drain.
    pub async fn drain(&self, backend: &str, deadline: Option<Duration>) -> Result<DrainView, Fault> {
        let order = StateOrder {
            state: "draining".into(),
            deadline_seconds: deadline.map(|deadline| deadline.as_secs_f64()),
            ..StateOrder::default()
        };
        let answer = self.set_state(backend, order).await?;
        let Some(id) = answer.drain else {
            return Err(report::fault(409, "not_draining", answer.notes.join("; ")));
        };
        loop {
            match self.desk.drain(id).await.map_err(ended)? {
                Some(drain) if drain.state == "draining" => tokio::time::sleep(FOLLOW).await,
                Some(drain) => return Ok(drain),
                None => return Err(report::fault(404, "unknown_drain", format!("drain {id} is forgotten"))),
            }
        }
    }

    /// Brings `pool/backend` back.
    pub async fn ready(&self, backend: &str) -> Result<StateAnswer, Fault> {
        self.set_state(backend, StateOrder { state: "active".into(), ..StateOrder::default() }).await
    }

    /// Ends `pool/backend`'s work at once; its probes stop.
    pub async fn stop(&self, backend: &str) -> Result<StateAnswer, Fault> {
        self.set_state(backend, StateOrder { state: "stopped".into(), ..StateOrder::default() }).await
    }

    /// Gives a backend an operator's word.
    pub async fn set_state(&self, backend: &str, order: StateOrder) -> Result<StateAnswer, Fault> {
        let Some((pool, name)) = backend.split_once('/') else {
            return Err(report::fault(
                404,
                "unknown_backend",
                format!("`{backend}` is not of the form pool/backend"),
            ));
        };
        let answer = self.desk.set_state(pool.to_owned(), name.to_owned(), order).await;
        answer.unwrap_or_else(|gone| Err(ended(gone)))
    }

    /// Finishes what is in flight, for at most `drain_timeout`, and ends.
    pub async fn shutdown(self) -> ShutdownReport {
        let _ = self.desk.shutdown(ShutdownOrder::default()).await;
        self.ended.await.unwrap_or_default()
    }

    /// Runs until a signal or the admin API ends it. HUP reloads, TERM and INT drain, a second
    /// one stops now, USR1 opens the logs again, USR2 starts the binary anew.
    pub async fn run(mut self) -> ShutdownReport {
        let mut signals = match self.heard.take().map_or_else(Signals::listen, Ok) {
            Ok(signals) => signals,
            Err(error) => {
                tracing::error!(event = "process", %error, "cannot listen for signals");
                return self.shutdown().await;
            }
        };
        loop {
            tokio::select! {
                signal = signals.next() => drop(self.signals.send(signal).await),
                report = &mut self.ended => return report.unwrap_or_default(),
            }
        }
    }
}

fn ended(gone: Gone) -> Fault {
    report::fault(503, "ending", gone.to_string())
}

struct Signals {
    hangup: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    quit: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    reopen: tokio::signal::unix::Signal,
    upgrade: tokio::signal::unix::Signal,
}

impl Signals {
    fn listen() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            quit: signal(SignalKind::quit())?,
            interrupt: signal(SignalKind::interrupt())?,
            reopen: signal(SignalKind::user_defined1())?,
            upgrade: signal(SignalKind::user_defined2())?,
        })
    }

    async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.hangup.recv() => Signal::Reload,
            _ = self.terminate.recv() => Signal::Stop { grace: true },
            _ = self.quit.recv() => Signal::Stop { grace: true },
            _ = self.interrupt.recv() => Signal::Stop { grace: false },
            _ = self.reopen.recv() => Signal::Reopen,
            _ = self.upgrade.recv() => Signal::Upgrade,
        }
    }
}
