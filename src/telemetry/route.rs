//! What is counted for each route: [`RouteSeries`], and its compact table of methods and codes.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::Method;

use super::counter::{Counter, Histogram, PerThread};
use super::exposition::Page;
use super::{Living, Totals, metrics};

/// The counts of one route and pool.
#[derive(Debug)]
pub struct RouteSeries {
    threads: PerThread<Share>,
    /// Where the totals go when the last generation that knows this route lets go of it.
    retired: Arc<Retired>,
}

/// What a finished exchange adds to its route.
#[derive(Clone, Copy, Debug)]
pub struct Finished<'a> {
    pub method: &'a Method,
    /// What the client got; 0 if it got nothing.
    pub status: u16,
    pub duration: Duration,
    pub request_bytes: u64,
    pub response_bytes: u64,
}

#[derive(Debug, Default)]
struct Share {
    methods: [OnceLock<Box<Codes>>; METHODS.len()],
    duration: Histogram,
    request_bytes: Counter,
    response_bytes: Counter,
    rate_limited: Counter,
    rate_displaced: Counter,
}

impl RouteSeries {
    pub(super) fn new(threads: usize, retired: &Arc<Retired>) -> Self {
        Self { threads: PerThread::new(threads), retired: Arc::clone(retired) }
    }

    /// Counts an exchange. Only data thread number `thread` may say so.
    pub fn record(&self, thread: usize, exchange: Finished<'_>) {
        let share = self.threads.of(thread);
        let codes = share.methods[method_place(exchange.method)].get_or_init(Box::default);
        codes.of(exchange.status).add(1);
        share.duration.observe(exchange.duration);
        share.request_bytes.add(exchange.request_bytes);
        share.response_bytes.add(exchange.response_bytes);
    }

    /// A request was refused: its client was over the limit.
    pub fn rate_limited(&self, thread: usize) {
        self.threads.of(thread).rate_limited.add(1);
    }

    /// To take a client into account, another was forgotten before its time.
    pub fn rate_displaced(&self, thread: usize) {
        self.threads.of(thread).rate_displaced.add(1);
    }

    pub fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        self.for_each_count(|_, code, count| {
            totals.requests += count;
            totals.server_errors += if code / 100 == 5 { count } else { 0 };
        });
        totals
    }

    /// Method's place, code (0 for other) and count, where it is not 0; one call for each thread.
    fn for_each_count(&self, mut visit: impl FnMut(usize, u16, u64)) {
        for share in self.threads.iter() {
            for (method, codes) in share.methods.iter().enumerate() {
                let Some(codes) = codes.get() else { continue };
                for (code, count) in codes.iter().filter(|(_, count)| *count > 0) {
                    visit(method, code, count);
                }
            }
        }
    }

    fn by_method_and_code(&self) -> std::collections::BTreeMap<(usize, u16), u64> {
        let mut counts = std::collections::BTreeMap::new();
        self.for_each_count(|method, code, count| *counts.entry((method, code)).or_default() += count);
        counts
    }
}

impl Drop for RouteSeries {
    fn drop(&mut self) {
        let totals = self.totals();
        self.retired.requests.fetch_add(totals.requests, Relaxed);
        self.retired.server_errors.fetch_add(totals.server_errors, Relaxed);
    }
}

/// Totals of routes that are gone, so that those of the process never fall.
#[derive(Debug, Default)]
pub(super) struct Retired {
    requests: AtomicU64,
    server_errors: AtomicU64,
}

impl Retired {
    pub(super) fn totals(&self) -> Totals {
        Totals { requests: self.requests.load(Relaxed), server_errors: self.server_errors.load(Relaxed) }
    }
}

const METHODS: [&str; 10] =
    ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "CONNECT", "TRACE", "other"];

fn method_place(method: &Method) -> usize {
    let known = METHODS.len() - 1;
    METHODS[..known].iter().position(|name| *name == method.as_str()).unwrap_or(known)
}

/// Counts for 100 to 599, of which a route uses a handful: blocks come when first touched, so a
/// method that answers 200, 304, 404 and 502 costs 1 KiB and not 4.
#[derive(Debug, Default)]
struct Codes {
    blocks: [OnceLock<Box<[Counter; BLOCK]>>; 500 / BLOCK],
    /// No status at all, or one that no client should have got.
    other: Counter,
}

const BLOCK: usize = 20;

impl Codes {
    fn of(&self, status: u16) -> &Counter {
        let place = usize::from(status).wrapping_sub(100);
        match self.blocks.get(place / BLOCK) {
            Some(block) => &block.get_or_init(Box::default)[place % BLOCK],
            None => &self.other,
        }
    }

    fn iter(&self) -> impl Iterator<Item = (u16, u64)> {
        let blocks = (100..).step_by(BLOCK).zip(&self.blocks);
        let known = blocks.filter_map(|(first, block)| Some((first..).zip(block.get()?.iter())));
        known.flatten().chain([(0, &self.other)]).map(|(code, count)| (code, count.get()))
    }
}

pub(super) fn write(page: &mut Page, routes: &Living<RouteSeries>) {
    page.family(&metrics::REQUESTS, |samples| {
        for ([route, pool], series) in routes {
            for ((method, code), count) in series.by_method_and_code() {
                let code = if code == 0 { "other".to_owned() } else { code.to_string() };
                samples.count(&[route, pool, METHODS[method], &code], count);
            }
        }
    });
    page.family(&metrics::REQUEST_DURATION, |samples| {
        for ([route, pool], series) in routes {
            samples.distribution(&[route, pool], &series.threads.distribution(|share| &share.duration));
        }
    });
    page.family(&metrics::REQUEST_BYTES, |samples| sums(samples, routes, |share| &share.request_bytes));
    page.family(&metrics::RESPONSE_BYTES, |samples| sums(samples, routes, |share| &share.response_bytes));
    page.family(&metrics::RATE_LIMITED, |samples| sums(samples, routes, |share| &share.rate_limited));
    page.family(&metrics::RATE_DISPLACED, |samples| sums(samples, routes, |share| &share.rate_displaced));
}

/// A split route has a series for each pool; what is counted for the route is one sum.
fn sums(
    samples: &mut super::exposition::Samples<'_>,
    routes: &Living<RouteSeries>,
    count: fn(&Share) -> &Counter,
) {
    for same_route in routes.chunk_by(|([a, _], _), ([b, _], _)| a == b) {
        let ([route, _], _) = &same_route[0];
        samples.count(&[route], same_route.iter().map(|(_, series)| series.threads.sum(count)).sum());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finished(method: &Method, status: u16) -> Finished<'_> {
        Finished { method, status, duration: Duration::ZERO, request_bytes: 0, response_bytes: 0 }
    }

    #[test]
    fn every_code_is_counted_once_and_odd_ones_together() {
        let series = RouteSeries::new(1, &Arc::default());
        for status in 0..1000 {
            series.record(0, finished(&Method::GET, status));
        }
        let counts = series.by_method_and_code();
        assert_eq!(counts.len(), 501);
        assert_eq!(counts[&(0, 0)], 500);
        assert!((100..600).all(|code| counts[&(0, code)] == 1));
        assert_eq!(series.totals(), Totals { requests: 1000, server_errors: 100 });
    }

    #[test]
    fn a_method_that_a_client_made_up_is_other() {
        assert_eq!(METHODS[method_place(&Method::TRACE)], "TRACE");
        assert_eq!(METHODS[method_place(&Method::from_bytes(b"BREW").expect("a token"))], "other");
    }

    #[test]
    fn a_route_costs_little_until_it_is_used() {
        assert!(size_of::<Share>() <= 384, "{}", size_of::<Share>());
        assert!(size_of::<Codes>() + 4 * size_of::<[Counter; BLOCK]>() <= 1100);
    }
}
