//! What is counted for each backend, pool and listener. Routes have a file of their own.
//!
//! Methods that take `thread` may be called by that data thread only; those that do not, by the
//! control thread only. So every count has one writer.

use std::time::Duration;

use super::counter::{Counter, Distribution, Histogram, PerThread};
use super::exposition::Page;
use super::metrics::Family;
use super::words::{
    ConnectResult, DrainOutcome, EjectionReason, End, ProbeResult, Rejection, RetryReason, Stick,
    TunnelReason,
};
use super::{Living, Totals, metrics};

/// The counts of one backend.
#[derive(Debug)]
pub struct BackendSeries {
    threads: PerThread<BackendShare>,
    probes: [Counter; ProbeResult::COUNT],
    probe_duration: Histogram,
    ejections: [Counter; EjectionReason::COUNT],
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
            ejections: Default::default(),
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

    pub fn ejected(&self, reason: EjectionReason) {
        self.ejections[reason as usize].add(1);
    }

    /// Answers, and those of them that were 5xx.
    pub fn answers(&self) -> (u64, u64) {
        let class = |place: usize| self.threads.sum(|share| &share.classes[place]);
        ((1..CLASSES.len()).map(class).sum(), class(5))
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
    retries_refused: Counter,
    websockets_closed: [Counter; TunnelReason::COUNT],
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

    pub fn retry_refused(&self, thread: usize) {
        self.threads.of(thread).retries_refused.add(1);
    }

    pub fn websocket_closed(&self, thread: usize, reason: TunnelReason) {
        self.threads.of(thread).websockets_closed[reason as usize].add(1);
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
    closed: Counter,
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

    /// A connection, or the tunnel that it became, has ended.
    pub fn closed(&self, thread: usize) {
        self.threads.of(thread).closed.add(1);
    }

    /// Connections that are open now.
    pub fn open(&self) -> u64 {
        let closed = self.threads.sum(|share| &share.closed);
        self.threads.sum(|share| &share.connections).saturating_sub(closed)
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
    one(page, &metrics::LISTENER_CONNECTIONS_TOTAL, listeners, |s| s.threads.sum(|share| &share.connections));
    each(page, &metrics::LISTENER_REJECTED, listeners, &Rejection::ALL.map(Rejection::name), |s, reason| {
        s.threads.sum(|share| &share.rejected[reason])
    });
    spread(page, &metrics::PROXY_OVERHEAD, listeners, |s| s.threads.distribution(|share| &share.overhead));
}

pub(super) fn write_pools(page: &mut Page, pools: &Living<PoolSeries>) {
    each(page, &metrics::REQUEST_ENDS, pools, &End::ALL.map(End::name), |s, end| {
        s.threads.sum(|share| &share.ends[end])
    });
    each(page, &metrics::STICKY, pools, &Stick::ALL.map(Stick::name), |s, verdict| {
        s.threads.sum(|share| &share.verdicts[verdict])
    });
    each(page, &metrics::RETRIES, pools, &RetryReason::ALL.map(RetryReason::name), |s, reason| {
        s.threads.sum(|share| &share.retries[reason])
    });
    one(page, &metrics::RETRIES_REFUSED, pools, |s| s.threads.sum(|share| &share.retries_refused));
    each(page, &metrics::DRAINS, pools, &DrainOutcome::ALL.map(DrainOutcome::name), |s, outcome| {
        s.drains[outcome].get()
    });
    let reasons = TunnelReason::ALL.map(TunnelReason::name);
    each(page, &metrics::WEBSOCKETS_CLOSED, pools, &reasons, |s, reason| {
        s.threads.sum(|share| &share.websockets_closed[reason])
    });
}

pub(super) fn write_backends(page: &mut Page, backends: &Living<BackendSeries>) {
    each(page, &metrics::BACKEND_REQUESTS, backends, &CLASSES, |s, class| {
        s.threads.sum(|share| &share.classes[class])
    });
    spread(page, &metrics::BACKEND_RESPONSE, backends, |s| s.threads.distribution(|share| &share.response));
    each(
        page,
        &metrics::BACKEND_CONNECTS,
        backends,
        &ConnectResult::ALL.map(ConnectResult::name),
        |s, result| s.threads.sum(|share| &share.connects[result]),
    );
    one(page, &metrics::BACKEND_REUSE, backends, |s| s.threads.sum(|share| &share.reuse));
    each(page, &metrics::HEALTH_CHECKS, backends, &ProbeResult::ALL.map(ProbeResult::name), |s, result| {
        s.probes[result].get()
    });
    let reasons = EjectionReason::ALL.map(EjectionReason::name);
    each(page, &metrics::EJECTIONS, backends, &reasons, |s, reason| s.ejections[reason].get());
    spread(page, &metrics::HEALTH_CHECK_DURATION, backends, |s| s.probe_duration.distribution());
}

/// A family with one count for each name.
fn one<T>(page: &mut Page, family: &'static Family, living: &Living<T>, count: impl Fn(&T) -> u64) {
    page.family(family, |samples| {
        for (names, series) in living {
            samples.count(&labels(family, names, None), count(series));
        }
    });
}

/// A family with a count for each name and word, asked for by the word's place.
fn each<T>(
    page: &mut Page,
    family: &'static Family,
    living: &Living<T>,
    words: &[&str],
    count: impl Fn(&T, usize) -> u64,
) {
    page.family(family, |samples| {
        for (names, series) in living {
            for (place, word) in words.iter().enumerate() {
                samples.count(&labels(family, names, Some(word)), count(series, place));
            }
        }
    });
}

/// A family with a histogram for each name.
fn spread<T>(page: &mut Page, family: &'static Family, living: &Living<T>, of: impl Fn(&T) -> Distribution) {
    page.family(family, |samples| {
        for (names, series) in living {
            samples.distribution(&labels(family, names, None), &of(series));
        }
    });
}

/// As many of the names as the family has labels for, and the word last.
fn labels<'a>(family: &Family, names: &'a [String; 2], word: Option<&'a str>) -> Vec<&'a str> {
    let named = family.labels.len() - usize::from(word.is_some());
    names.iter().take(named).map(String::as_str).chain(word).collect()
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
