//! The end of the process: say so, accept for a grace, finish what is in flight, count what was cut.
//!
//! WebSockets live as long as they may: they are told to end one after the other in the last part
//! of `drain_timeout`, as in the closing time of a drain.

use std::time::{Duration, Instant};

use tracing::info;

use super::Signal;
use super::control::Control;
use super::reload::Reloading;
use super::report::counted;
use super::worker::Order;
use crate::admin::view::UpgradeOrder;
use crate::drain::{Spread, closing_time};

/// How long requests that were cut may take to let go, and tunnels: a frame that must end and a
/// Close that must be answered take two seconds at most.
const CUT_GRACE: Duration = Duration::from_millis(500);
const TUNNELS_GRACE: Duration = Duration::from_millis(2_500);

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
    /// WebSockets that were ended with a Close frame, code 1012.
    pub websockets_closed: u64,
    /// Tunnels that were ended without one.
    pub tunnels_cut: u64,
}

/// The process on its way out.
#[derive(Clone, Copy, Debug)]
pub struct Ending {
    accepts_until: Instant,
    accepting: bool,
    deadline: Instant,
    /// From then on WebSockets are told to end.
    closes_from: Instant,
    spread: Option<Spread>,
    answered_before: u64,
    /// Tunnels that had been closed or cut before.
    tunnels_before: (u64, u64),
    /// When the deadline passed, and what else it has cut.
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
        let deadline = accepts_until + timeout;
        self.ending = Some(Ending {
            accepts_until,
            accepting: true,
            deadline,
            closes_from: deadline
                .checked_sub(closing_time(timeout))
                .map_or(accepts_until, |at| at.max(accepts_until)),
            spread: None,
            answered_before: self.telemetry.totals().requests,
            tunnels_before: self.tunnels_ended(),
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
        let (requests, tunnels) = self.counts();
        let all_gone = self.connections() == 0 && tunnels == 0;
        let finished = self.telemetry.totals().requests.saturating_sub(ending.answered_before);
        if let Some((since, report)) = ending.cut {
            let grace = if tunnels == 0 { CUT_GRACE } else { TUNNELS_GRACE };
            if all_gone || now.saturating_duration_since(since) >= grace {
                return Some(self.finish(&ending, report).await);
            }
        } else if all_gone && !ending.accepting {
            let report = ShutdownReport { finished, ..ShutdownReport::default() };
            return Some(self.finish(&ending, report).await);
        } else if now >= ending.deadline {
            let waiting: u64 = self.shared.values().map(|shared| shared.hold.waiting() as u64).sum();
            self.ask_all(Order::CutAll).await;
            let requests_cut = requests + waiting;
            let report = ShutdownReport { finished, requests_cut, ..ShutdownReport::default() };
            ending.cut = Some((now, report));
        } else if now >= ending.closes_from {
            self.tell_some(&mut ending, now);
        }
        self.ending = Some(ending);
        None
    }

    /// Has those WebSockets told to end whose turn it is.
    fn tell_some(&self, ending: &mut Ending, now: Instant) {
        let mut untold = vec![0; self.workers.len()];
        for vitals in self.fleet.vitals() {
            untold.iter_mut().zip(vitals.untold()).for_each(|(sum, more)| *sum += more);
        }
        let spread = ending.spread.get_or_insert_with(|| Spread::begin(now));
        let due = spread.due(untold.iter().sum(), ending.deadline, now);
        self.tell_tunnels(None, &untold, due);
    }

    /// Tunnels that drains and this end have closed, and cut.
    fn tunnels_ended(&self) -> (u64, u64) {
        let counts = self.fleet.vitals().map(|vitals| vitals.counts());
        counts.fold((0, 0), |(told, cut), counts| (told + counts.tunnels_told, cut + counts.tunnels_cut))
    }

    async fn finish(&self, ending: &Ending, report: ShutdownReport) -> ShutdownReport {
        let (before, after) = (ending.tunnels_before, self.tunnels_ended());
        let report = ShutdownReport {
            websockets_closed: after.0 - before.0,
            // Those that are there still end with the process.
            tunnels_cut: after.1 - before.1 + self.counts().1,
            ..report
        };
        info!(
            event = "process",
            "ended: {} finished, {} closed with 1012, {} and {} cut",
            counted(report.finished, "request"),
            counted(report.websockets_closed, "WebSocket"),
            counted(report.requests_cut, "request"),
            counted(report.tunnels_cut, "tunnel")
        );
        self.ask_all(Order::Stop).await;
        self.access_log.close(LOG_PATIENCE);
        report
    }
}
