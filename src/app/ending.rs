//! The end of the process: say so, accept for a grace, finish what is in flight, count what was cut.

use std::time::{Duration, Instant};

use tracing::info;

use super::Signal;
use super::control::Control;
use super::reload::Reloading;
use super::report::counted;
use super::worker::Order;
use crate::admin::view::UpgradeOrder;

/// How long those who were cut may take to let go.
const CUT_GRACE: Duration = Duration::from_millis(500);

/// The grace where a load balancer in front needs a moment to notice.
const KUBERNETES_GRACE: Duration = Duration::from_secs(5);

/// How long the access log may take for its last lines.
const LOG_PATIENCE: Duration = Duration::from_secs(1);

/// How the process ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShutdownReport {
    /// Requests answered since the order to end; those that were cut are no part of them.
    pub finished: u64,
    pub requests_cut: u64,
    pub tunnels_cut: u64,
}

/// The process on its way out.
#[derive(Clone, Copy, Debug)]
pub struct Ending {
    accepts_until: Instant,
    accepting: bool,
    deadline: Instant,
    answered_before: u64,
    cut: Option<(Instant, ShutdownReport)>,
    /// Another process goes on, and nobody has asked this one to end yet: whoever stops all of a
    /// service's processes does not mean to cut what this one is finishing.
    unasked: bool,
}

impl Control {
    pub(super) async fn signalled(&mut self, signal: Signal) {
        match signal {
            Signal::Reload => drop(self.reload(Reloading::Asked(None)).await),
            Signal::Stop { grace } => self.end(grace, None).await,
            Signal::Upgrade => self.begin_upgrade(UpgradeOrder::default(), None),
            Signal::Reopen => match self.access_log.reopen() {
                Ok(()) => self.tell("process", None, "access log opened again".to_owned()),
                Err(error) => {
                    tracing::warn!(event = "process", %error, "cannot open the access log again; the old one is kept")
                }
            },
        }
    }

    /// Begins to end, or, the second time, ends now.
    pub(super) async fn end(&mut self, grace: bool, timeout: Option<Duration>) {
        let now = Instant::now();
        if let Some(ending) = &mut self.ending {
            if std::mem::take(&mut ending.unasked) {
                let message = "asked to end, which it is about to do; asked again it ends at once";
                return self.tell("process", None, message.to_owned());
            }
            ending.accepts_until = now;
            ending.deadline = now;
            return;
        }
        self.notifier.say("STOPPING=1");
        let server = &self.plan.server;
        let kubernetes = std::env::var_os("KUBERNETES_SERVICE_HOST").is_some();
        let default = if kubernetes { KUBERNETES_GRACE } else { Duration::ZERO };
        let grace = if grace { server.drain_grace.unwrap_or(default) } else { Duration::ZERO };
        let timeout = timeout.unwrap_or(server.drain_timeout);
        self.begin_to_end(grace, timeout, false).await;
    }

    /// Ends as at SIGTERM without a grace: another process accepts already.
    pub(super) async fn leave_to_successor(&mut self) {
        self.begin_to_end(Duration::ZERO, self.plan.server.drain_timeout, true).await;
        self.stop_accepting().await;
    }

    async fn begin_to_end(&mut self, grace: Duration, timeout: Duration, unasked: bool) {
        let accepts_until = Instant::now() + grace;
        self.ending = Some(Ending {
            accepts_until,
            accepting: true,
            deadline: accepts_until + timeout,
            answered_before: self.telemetry.totals().requests,
            cut: None,
            unasked,
        });
        let (requests, tunnels) = self.counts();
        self.tell(
            "process",
            None,
            format!(
                "ending: {}, {} and {} have {}",
                counted(self.connections(), "connection"),
                counted(requests, "request"),
                counted(tunnels, "tunnel"),
                humantime::format_duration(grace + timeout),
            ),
        );
        for worker in &self.workers {
            let _ = worker.send(Order::LeaveAll).await;
        }
    }

    async fn stop_accepting(&mut self) {
        if let Some(ending) = &mut self.ending {
            ending.accepting = false;
        }
        for worker in &self.workers {
            let _ = worker.send(Order::StopAccepting).await;
        }
        self.sockets.clear();
    }

    /// Looks at how the end goes; the report when it is there.
    pub(super) async fn follow_ending(&mut self, now: Instant) -> Option<ShutdownReport> {
        if self.ending.is_some_and(|ending| ending.accepting && now >= ending.accepts_until) {
            self.stop_accepting().await;
        }
        let mut ending = self.ending?;
        let connections = self.connections();
        let finished = self.telemetry.totals().requests.saturating_sub(ending.answered_before);
        if let Some((since, report)) = ending.cut {
            if connections == 0 || now.saturating_duration_since(since) >= CUT_GRACE {
                return Some(self.finish(report).await);
            }
        } else if connections == 0 && !ending.accepting {
            return Some(self.finish(ShutdownReport { finished, ..ShutdownReport::default() }).await);
        } else if now >= ending.deadline {
            let (with_backends, tunnels_cut) = self.counts();
            let waiting: u64 = self.shared.values().map(|shared| shared.hold.waiting() as u64).sum();
            let requests_cut = with_backends + waiting;
            self.ask_all(Order::CutAll).await;
            ending.cut = Some((now, ShutdownReport { finished, requests_cut, tunnels_cut }));
        }
        self.ending = Some(ending);
        None
    }

    async fn finish(&self, report: ShutdownReport) -> ShutdownReport {
        info!(
            event = "process",
            "ended: {} finished, {} and {} cut",
            counted(report.finished, "request"),
            counted(report.requests_cut, "request"),
            counted(report.tunnels_cut, "tunnel")
        );
        self.ask_all(Order::Stop).await;
        self.access_log.close(LOG_PATIENCE);
        report
    }
}
