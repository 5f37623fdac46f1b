//! As running: the snapshot that requests see, behind the one pointer that a reload swaps.
//!
//! A [`Snapshot`] is immutable. Each thread keeps a [`View`] of the current one: an `Rc` that
//! requests, leases and bodies clone instead of the shared `Arc`.

pub mod build;

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::{ArcSwap, Cache};
use bytes::Bytes;
use http::HeaderName;
use http::request::Parts;

use crate::http::forwarded::Trust;
use crate::http::part::Part;
use crate::limit::{Clients, Key, Quota, Rates, Verdict};
use crate::listen::Descriptors;
use crate::listen::tls::Acceptor;
use crate::plan::{IpPrefix, Plan, RoutePlan};
use crate::pool::backend::{Post, Vitals};
use crate::pool::policy::KeyHasher;
use crate::pool::{self, Pool};
use crate::route::Router;
use crate::route::budget::Budget;
use crate::route::split::Split;
use crate::telemetry::RouteSeries;
use crate::upstream::Keep;

/// A split deals by the host, and an IPv6 host has a whole network.
const WHOLE: IpPrefix = IpPrefix { v4: 32, v6: 64 };

/// The one pointer. Stored by the control thread only.
pub type Live = Arc<ArcSwap<Snapshot>>;

/// One thread's look at it: a load and a comparison while nothing has changed.
pub type Look = Cache<Live, Arc<Snapshot>>;

/// A configuration as it runs.
pub struct Snapshot {
    pub generation: u64,
    pub plan: Plan,
    /// Finds the place of a route.
    pub router: Router<usize>,
    pub routes: Vec<Route>,
    /// By listener: those that limit how many connections a client may have.
    pub clients: HashMap<String, Arc<Clients>>,
    pub pools: Vec<Arc<Pool>>,
    /// How listeners shake hands, by name; none for those in the clear.
    pub acceptors: HashMap<String, Acceptor>,
    /// What requests must not bring along: a listener tells backends something in it.
    pub subject_headers: Vec<HeaderName>,
    pub trust: Trust,
    /// Hashes clients for splits; the same in every replica.
    pub hasher: KeyHasher,
}

impl Snapshot {
    /// What a client without a token is dealt by among the pools of a split.
    pub fn split_key(&self, client: IpAddr) -> u64 {
        self.hasher.client_key(client, WHOLE)
    }
}

/// A route bound to what it leads to.
pub struct Route {
    pub plan: RoutePlan,
    /// The pools it leads to; none for a route that answers by itself.
    pub targets: Vec<Target>,
    /// Deals clients among several targets.
    pub split: Option<Split<usize>>,
    /// What a route answers by itself.
    pub body: Bytes,
    /// Counts what never reached a pool.
    pub series: Arc<RouteSeries>,
    pub limit: Option<Limit>,
}

/// How many requests a route takes from each client, and what they have used of that.
pub struct Limit {
    quota: Quota,
    part: Part,
    rates: Arc<Rates>,
}

impl Limit {
    /// One more request. Who lacks what clients are told apart by is known by its address.
    pub fn ask(&self, parts: &Parts, client: IpAddr, now: Instant) -> Verdict {
        let key = self.part.of(parts).map_or(Key::Client(client), Key::Said);
        self.rates.ask(self.quota, key, now)
    }
}

/// A pool that a route leads to.
pub struct Target {
    /// Its place in the snapshot.
    pub pool: usize,
    pub name: String,
    pub series: Arc<RouteSeries>,
}

/// Which thread this is, of how many, and the descriptors that they share.
pub struct Site {
    pub thread: usize,
    pub threads: usize,
    pub descriptors: Arc<Descriptors>,
}

/// One thread's view of a snapshot.
pub struct View {
    pub snapshot: Arc<Snapshot>,
    /// In the order of the snapshot's pools.
    pub pools: Vec<pool::View>,
    /// In the order of the snapshot's routes.
    pub budgets: Vec<RefCell<Budget>>,
}

impl View {
    /// Views `snapshot` from a thread. Connections to backends that stayed are
    /// taken over from `previous`; the posts of those that did not are returned.
    pub fn new(snapshot: Arc<Snapshot>, site: &Site, previous: Option<&Self>) -> (Rc<Self>, Vec<Rc<Post>>) {
        let known = previous.into_iter().flat_map(|view| view.posts());
        let mut known: HashMap<*const Vitals, Rc<Post>> =
            known.map(|post| (Arc::as_ptr(&post.vitals), post.clone())).collect();
        let pools = snapshot.pools.iter().map(|pool| {
            let keep = keep(pool, site.threads);
            let posts = pool.backends.iter().map(|backend| {
                let post = known.remove(&Arc::as_ptr(&backend.vitals)).unwrap_or_else(|| {
                    let (vitals, way) = (backend.vitals.clone(), backend.way.clone());
                    let hold = pool.shared.hold.clone();
                    Post::new(vitals, site.thread, keep, way, hold, site.descriptors.clone())
                });
                post.client.set(keep, &backend.way);
                post
            });
            pool::View::new(pool.clone(), posts.collect())
        });
        let pools = pools.collect();
        let now = Instant::now();
        let budgets = snapshot.routes.iter().map(|route| {
            let share = route.plan.retry.budget;
            let kept = previous.and_then(|view| view.budget_of(&route.plan.name));
            RefCell::new(kept.map_or_else(|| Budget::new(share, now), |kept| kept.with_share(share)))
        });
        let budgets = budgets.collect();
        (Rc::new(Self { snapshot, pools, budgets }), known.into_values().collect())
    }

    fn budget_of(&self, route: &str) -> Option<Budget> {
        let place = self.snapshot.routes.iter().position(|known| known.plan.name == route)?;
        Some(self.budgets[place].borrow().clone())
    }

    pub fn posts(&self) -> impl Iterator<Item = &Rc<Post>> {
        self.pools.iter().flat_map(|pool| &pool.posts)
    }
}

fn keep(pool: &Pool, threads: usize) -> Keep {
    let plan = &pool.plan.connections;
    let max_idle = plan.max_idle.div_ceil(threads);
    Keep { max_idle, idle: plan.idle, max_age: plan.max_age }
}
