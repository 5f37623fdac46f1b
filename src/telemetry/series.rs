//! What is counted for each backend, pool and listener. Routes have a file of their own.
//!
//! Methods that take `thread` may be called by that data thread only; those that do not, by the
//! control thread only. So every count has one writer.

use std::time::Duration;

use super::counter::{Counter, Histogram, PerThread};
use super::exposition::Page;
use super::words::{ConnectResult, DrainOutcome, End, ProbeResult, Rejection, RetryReason, Stick};
use super::{Living, Totals, metrics};

/// The counts of one backend.
#[derive(Debug)]
pub struct BackendSeries {
    threads: PerThread<BackendShare>,
    probes: [Counter; ProbeResult::COUNT],
    probe_duration: Histogram,
}

#[derive(Debug, Default)]
struct BackendShare {
    classes: [Counter; CLASSES.len()],
    response: Histogram,
    connects: [Counter; ConnectResult::COUNT],
    reuse: Counter,
}

/// A status divided by 100 is its place; 0 is an attempt that got no answer.
const CLASSES: [&str; 7] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx", "other"];

impl BackendSeries {
    pub(super) fn new(threads: usize) -> Self {
        Self {
            threads: PerThread::new(threads),
            probes: Default::default(),
            probe_duration: Histogram::default(),
        }
    }

    /// An attempt was answered, `response` after it was sent.
    pub fn answered(&self, thread: usize, status: u16, response: Duration) {
        let share = self.threads.of(thread);
        share.classes[usize::from(status / 100).clamp(1, CLASSES.len() - 1)].add(1);
        share.response.observe(response);
    }

    /// An attempt got no answer.
    pub fn unanswered(&self, thread: usize) {
        self.threads.of(thread).classes[0].add(1);
    }

    pub fn connected(&self, thread: usize, result: ConnectResult) {
        self.threads.of(thread).connects[result as usize].add(1);
    }

    /// An attempt was sent on a connection that was already open.
    pub fn reused(&self, thread: usize) {
        self.threads.of(thread).reuse.add(1);
    }

    pub fn probed(&self, result: ProbeResult, took: Duration) {
        self.probes[result as usize].add(1);
        self.probe_duration.observe(took);
    }

    /// Attempts, and those that were answered 5xx or not at all.
    pub fn totals(&self) -> Totals {
        let class = |place: usize| self.threads.sum(|share| &share.classes[place]);
        Totals { requests: (0..CLASSES.len()).map(class).sum(), server_errors: class(0) + class(5) }
    }
}

/// The counts of one pool; the pool without a name has those of requests that reach none.
#[derive(Debug)]
pub struct PoolSeries {
    threads: PerThread<PoolShare>,
    drains: [Counter; DrainOutcome::COUNT],
}

#[derive(Debug, Default)]
struct PoolShare {
    ends: [Counter; End::COUNT],
    verdicts: [Counter; Stick::COUNT],
    retries: [Counter; RetryReason::COUNT],
    websockets_closed: Counter,
}

impl PoolSeries {
    pub(super) fn new(threads: usize) -> Self {
        Self { threads: PerThread::new(threads), drains: Default::default() }
    }

    pub fn ended(&self, thread: usize, end: End) {
        self.threads.of(thread).ends[end as usize].add(1);
    }

    pub fn stuck(&self, thread: usize, verdict: Stick) {
        self.threads.of(thread).verdicts[verdict as usize].add(1);
    }

    pub fn retried(&self, thread: usize, reason: RetryReason) {
        self.threads.of(thread).retries[reason as usize].add(1);
    }

    pub fn websocket_closed(&self, thread: usize) {
        self.threads.of(thread).websockets_closed.add(1);
    }

    pub fn drained(&self, outcome: DrainOutcome) {
        self.drains[outcome as usize].add(1);
    }
}

/// The counts of one listener.
#[derive(Debug)]
pub struct ListenerSeries {
    threads: PerThread<ListenerShare>,
}

#[derive(Debug, Default)]
struct ListenerShare {
    connections: Counter,
    rejected: [Counter; Rejection::COUNT],
    overhead: Histogram,
}

impl ListenerSeries {
    pub(super) fn new(threads: usize) -> Self {
        Self { threads: PerThread::new(threads) }
    }

    pub fn accepted(&self, thread: usize) {
        self.threads.of(thread).connections.add(1);
    }

    pub fn rejected(&self, thread: usize, reason: Rejection) {
        self.threads.of(thread).rejected[reason as usize].add(1);
    }

    /// Our own share of a request.
    pub fn overhead(&self, thread: usize, own: Duration) {
        self.threads.of(thread).overhead.observe(own);
    }
}

pub(super) fn write_listeners(page: &mut Page, listeners: &Living<ListenerSeries>) {
    page.family(&metrics::LISTENER_CONNECTIONS_TOTAL, |samples| {
        for ([listener, _], series) in listeners {
            samples.count(&[listener], series.threads.sum(|share| &share.connections));
        }
    });
    page.family(&metrics::LISTENER_REJECTED, |samples| {
        for ([listener, _], series) in listeners {
            for reason in Rejection::ALL {
                let count = series.threads.sum(|share| &share.rejected[reason as usize]);
                samples.count(&[listener, reason.name()], count);
            }
        }
    });
    page.family(&metrics::PROXY_OVERHEAD, |samples| {
        for ([listener, _], series) in listeners {
            samples.distribution(&[listener], &series.threads.distribution(|share| &share.overhead));
        }
    });
}

pub(super) fn write_pools(page: &mut Page, pools: &Living<PoolSeries>) {
    page.family(&metrics::REQUEST_ENDS, |samples| {
        for ([pool, _], series) in pools {
            for end in End::ALL {
                samples.count(&[pool, end.name()], series.threads.sum(|share| &share.ends[end as usize]));
            }
        }
    });
    page.family(&metrics::STICKY, |samples| {
        for ([pool, _], series) in pools {
            for verdict in Stick::ALL {
                let count = series.threads.sum(|share| &share.verdicts[verdict as usize]);
                samples.count(&[pool, verdict.name()], count);
            }
        }
    });
    page.family(&metrics::RETRIES, |samples| {
        for ([pool, _], series) in pools {
            for reason in RetryReason::ALL {
                let count = series.threads.sum(|share| &share.retries[reason as usize]);
                samples.count(&[pool, reason.name()], count);
            }
        }
    });
    page.family(&metrics::DRAINS, |samples| {
        for ([pool, _], series) in pools {
            for outcome in DrainOutcome::ALL {
                samples.count(&[pool, outcome.name()], series.drains[outcome as usize].get());
            }
        }
    });
    page.family(&metrics::WEBSOCKETS_CLOSED, |samples| {
        for ([pool, _], series) in pools {
            samples.count(&[pool], series.threads.sum(|share| &share.websockets_closed));
        }
    });
}

pub(super) fn write_backends(page: &mut Page, backends: &Living<BackendSeries>) {
    page.family(&metrics::BACKEND_REQUESTS, |samples| {
        for ([pool, backend], series) in backends {
            for (place, class) in CLASSES.iter().enumerate() {
                samples.count(&[pool, backend, class], series.threads.sum(|share| &share.classes[place]));
            }
        }
    });
    page.family(&metrics::BACKEND_RESPONSE, |samples| {
        for ([pool, backend], series) in backends {
            samples.distribution(&[pool, backend], &series.threads.distribution(|share| &share.response));
        }
    });
    page.family(&metrics::BACKEND_CONNECTS, |samples| {
        for ([pool, backend], series) in backends {
            for result in ConnectResult::ALL {
                let count = series.threads.sum(|share| &share.connects[result as usize]);
                samples.count(&[pool, backend, result.name()], count);
            }
        }
    });
    page.family(&metrics::BACKEND_REUSE, |samples| {
        for ([pool, backend], series) in backends {
            samples.count(&[pool, backend], series.threads.sum(|share| &share.reuse));
        }
    });
    page.family(&metrics::HEALTH_CHECKS, |samples| {
        for ([pool, backend], series) in backends {
            for result in ProbeResult::ALL {
                samples.count(&[pool, backend, result.name()], series.probes[result as usize].get());
            }
        }
    });
    page.family(&metrics::HEALTH_CHECK_DURATION, |samples| {
        for ([pool, backend], series) in backends {
            let mut all = Default::default();
            series.probe_duration.add_to(&mut all);
            samples.distribution(&[pool, backend], &all);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backends_errors_are_its_5xx_and_its_silences() {
        let backend = BackendSeries::new(2);
        for (thread, status) in [(0, 200), (1, 503), (0, 101), (1, 799)] {
            backend.answered(thread, status, Duration::from_millis(3));
        }
        backend.unanswered(1);
        assert_eq!(backend.totals(), Totals { requests: 5, server_errors: 2 });
    }
}
