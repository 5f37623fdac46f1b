//! What happened: metrics, the access log, events for people, request ids.
//!
//! Start at [`Telemetry`], which hands out the series that everybody counts into, and at
//! [`access_log`]. Everything is passed by value; nothing here is global. What is true *now*
//! (health, phases, requests in flight) is not kept here: the caller reads it at scrape.

mod counter;
mod escape;
mod exposition;
mod process;
mod route;
mod series;
mod stamp;
mod words;

pub mod access_log;
pub mod events;
pub mod id;
pub mod metrics;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::SystemTime;

pub use access_log::AccessLog;
pub use events::EventLog;
pub use metrics::Gauge;
pub use process::ProcessSeries;
pub use route::{Finished, RouteSeries};
pub use series::{BackendSeries, ListenerSeries, PoolSeries};
pub use words::{
    ConnectResult, DrainOutcome, EjectionReason, End, ProbeResult, Rejection, ReloadResult, RetryReason,
    Stick, TunnelReason,
};

/// All metrics of one Pintle.
///
/// A series lives as long as somebody can still write to it: a snapshot asks for the series of
/// its names when it is built, gets the ones that the snapshot before it holds, and what no
/// generation holds any more is gone from the next scrape. So counts survive reloads, and the
/// series of a removed name stop when its last request has ended.
#[derive(Debug)]
pub struct Telemetry {
    threads: usize,
    routes: Registry<RouteSeries>,
    backends: Registry<BackendSeries>,
    pools: Registry<PoolSeries>,
    listeners: Registry<ListenerSeries>,
    process: ProcessSeries,
    retired: Arc<route::Retired>,
}

/// Requests, and those that failed on this side or the backend's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub requests: u64,
    pub server_errors: u64,
}

impl Telemetry {
    /// For data threads 0 to `threads` - 1.
    pub fn new(threads: usize) -> Arc<Self> {
        Arc::new(Self {
            threads,
            routes: Registry::default(),
            backends: Registry::default(),
            pools: Registry::default(),
            listeners: Registry::default(),
            process: ProcessSeries::new(SystemTime::now()),
            retired: Arc::default(),
        })
    }

    /// `pool` is empty where the route has none.
    pub fn route(&self, route: &str, pool: &str) -> Arc<RouteSeries> {
        self.routes.get([route, pool], || RouteSeries::new(self.threads, &self.retired))
    }

    pub fn backend(&self, pool: &str, backend: &str) -> Arc<BackendSeries> {
        self.backends.get([pool, backend], || BackendSeries::new(self.threads))
    }

    pub fn pool(&self, pool: &str) -> Arc<PoolSeries> {
        self.pools.get([pool, ""], || PoolSeries::new(self.threads))
    }

    pub fn listener(&self, name: &str) -> Arc<ListenerSeries> {
        self.listeners.get([name, ""], || ListenerSeries::new(self.threads))
    }

    pub fn process(&self) -> &ProcessSeries {
        &self.process
    }

    /// Since the start, whatever reloads have removed.
    pub fn totals(&self) -> Totals {
        let routes = self.routes.living();
        let all = routes.iter().map(|(_, series)| series.totals()).chain([self.retired.totals()]);
        all.fold(Totals::default(), |sum, one| Totals {
            requests: sum.requests + one.requests,
            server_errors: sum.server_errors + one.server_errors,
        })
    }

    /// A page for Prometheus, families and samples in an order that does not change.
    pub fn render(&self, gauges: &[Gauge]) -> String {
        let mut page = exposition::Page::default();
        self.process.write(&mut page);
        series::write_listeners(&mut page, &self.listeners.living());
        route::write(&mut page, &self.routes.living());
        series::write_pools(&mut page, &self.pools.living());
        series::write_backends(&mut page, &self.backends.living());
        for family in metrics::ALL {
            page.family(family, |samples| {
                for gauge in gauges.iter().filter(|gauge| gauge.family.name == family.name) {
                    let labels: Vec<&str> = gauge.labels.iter().map(String::as_str).collect();
                    samples.number(&labels, gauge.value);
                }
            });
        }
        process::write_standard(&mut page);
        page.finish()
    }
}

/// Series by name, in the order of the names; the second is empty where one is enough.
type Living<T> = [([String; 2], Arc<T>)];

/// Finds a series by its names while anybody holds it.
#[derive(Debug)]
struct Registry<T>(Mutex<BTreeMap<[String; 2], Weak<T>>>);

impl<T> Default for Registry<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> Registry<T> {
    fn get(&self, names: [&str; 2], make: impl FnOnce() -> T) -> Arc<T> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = known.entry(names.map(str::to_owned)).or_default();
        slot.upgrade().unwrap_or_else(|| {
            let made = Arc::new(make());
            *slot = Arc::downgrade(&made);
            made
        })
    }

    fn living(&self) -> Vec<([String; 2], Arc<T>)> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, series| series.strong_count() > 0);
        known.iter().filter_map(|(names, series)| Some((names.clone(), series.upgrade()?))).collect()
    }
}

#[cfg(test)]
mod tests;
