//! From a plan, and what is carried over, to the next snapshot. Pure: no tasks, no sockets.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};

use super::{Limit, Route, Snapshot, Target};
use crate::http::forwarded::Trust;
use crate::http::part::Part;
use crate::limit::{Clients, Quota, Rates};
use crate::listen::tls::Acceptor;
use crate::plan::{Action, LimitPlan, ListenerPlan, Plan, PoolPlan, RoutePlan, StickyKey};
use crate::pool::affinity::{Affinity, Sealer};
use crate::pool::backend::{Backend, Vitals};
use crate::pool::policy::KeyHasher;
use crate::pool::{Pool, Shared};
use crate::route::split::Split;
use crate::route::{Entry, Router};
use crate::telemetry::Telemetry;
use crate::upstream::Way;
use crate::upstream::tls::Connector;

/// What survives from one snapshot to the next, by name.
pub struct Carry<'a> {
    pub telemetry: &'a Telemetry,
    /// By pool and backend: every backend of the plan is in it.
    pub vitals: &'a HashMap<(String, String), Arc<Vitals>>,
    pub shared: &'a HashMap<String, Arc<Shared>>,
    /// Generated keys of pools whose file names none.
    pub keys: &'a HashMap<String, StickyKey>,
    /// What clients have used of their limits goes on.
    pub before: Option<&'a Snapshot>,
    /// By listener: every one of the plan that speaks TLS is in it.
    pub acceptors: HashMap<String, Acceptor>,
    /// By pool: every one of the plan whose backends speak TLS is in it.
    pub connectors: HashMap<String, Connector>,
}

/// Builds the snapshot that `plan` describes.
pub fn snapshot(plan: Plan, generation: u64, carry: Carry<'_>) -> Snapshot {
    let pools: Vec<_> = plan.pools.iter().map(|pool| Arc::new(build_pool(pool, &carry))).collect();
    let places: HashMap<_, _> = plan.pools.iter().enumerate().map(|(at, pool)| (&*pool.name, at)).collect();
    let routes = plan.routes.iter().map(|route| build_route(route, &places, &carry)).collect();
    let clients = plan.listeners.iter().filter_map(|listener| build_clients(listener, carry.before));
    let clients = clients.collect();
    let entries = plan.routes.iter().enumerate().map(|(place, route)| Entry {
        scheme: route.scheme,
        hosts: route.hosts.clone(),
        path: route.path.clone(),
        methods: route.methods.clone(),
        target: place,
    });
    Snapshot {
        generation,
        router: Router::build(entries),
        routes,
        clients,
        pools,
        acceptors: carry.acceptors,
        subject_headers: subject_headers(&plan),
        trust: Trust { proxies: plan.server.trusted_proxies.clone(), from: plan.server.client_ip_from },
        hasher: KeyHasher::new("split", None),
        plan,
    }
}

fn subject_headers(plan: &Plan) -> Vec<HeaderName> {
    let tls = plan.listeners.iter().filter_map(|listener| listener.tls.as_ref());
    let mut names: Vec<_> =
        tls.filter_map(|tls| Some(tls.clients.as_ref()?.subject_header.clone())).collect();
    names.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
    names.dedup();
    names
}

fn build_pool(plan: &PoolPlan, carry: &Carry<'_>) -> Pool {
    let connector = plan.tls.as_ref().map(|_| &carry.connectors[&plan.name]);
    let backends = plan.backends.iter().map(|backend| {
        let key = (plan.name.clone(), backend.name.clone());
        let vitals = carry.vitals.get(&key).expect("every backend of the plan has vitals");
        let host = HeaderValue::try_from(backend.address.to_string());
        Backend {
            plan: backend.clone(),
            host: host.expect("an address is a valid header value"),
            way: Way::to(&backend.address, plan, connector),
            vitals: vitals.clone(),
        }
    });
    let keys = match plan.cookie.keys.as_slice() {
        [] => carry.keys.get(&plan.name).map(std::slice::from_ref).unwrap_or_default(),
        keys => keys,
    };
    let affinity = Affinity::new(&plan.cookie, Sealer::new(&plan.name, keys));
    Pool::new(
        plan.clone(),
        backends.collect(),
        affinity,
        carry.shared.get(&plan.name).cloned().unwrap_or_default(),
        carry.telemetry.pool(&plan.name),
    )
}

/// Counts the connections of each client, where there is a limit. Those of before are still open.
fn build_clients(plan: &ListenerPlan, before: Option<&Snapshot>) -> Option<(String, Arc<Clients>)> {
    if plan.limits.max_connections_per_client == 0 {
        return None;
    }
    let known = before.and_then(|before| before.clients.get(&plan.name)).cloned();
    Some((plan.name.clone(), known.unwrap_or_default()))
}

/// A client that is over a limit stays so when the limit's numbers change, as far as they let it be;
/// only what clients are told apart by makes all of them new.
fn build_limit(route: &RoutePlan, plan: &LimitPlan, before: Option<&Snapshot>) -> Limit {
    let known = before.into_iter().flat_map(|before| &before.routes);
    let mut known = known.filter(|known| known.plan.name == route.name);
    let same = |known: &RoutePlan| known.limit.as_ref().is_some_and(|limit| limit.key == plan.key);
    let rates = known.find(|known| same(&known.plan)).and_then(|known| known.limit.as_ref());
    let rates = rates.map_or_else(|| Arc::new(Rates::new(Instant::now())), |limit| limit.rates.clone());
    Limit { quota: Quota::new(plan), part: Part::new(&plan.key), rates }
}

fn build_route(plan: &RoutePlan, places: &HashMap<&str, usize>, carry: &Carry<'_>) -> Route {
    let shares = match &plan.action {
        Action::Forward(pool) => vec![(pool.clone(), 1)],
        Action::Split(shares) => shares.clone(),
        Action::Respond { .. } | Action::Redirect { .. } => Vec::new(),
    };
    let dealt = shares.iter().enumerate().map(|(place, (pool, share))| (pool.as_str(), *share, place));
    let targets = shares.iter().map(|(name, _)| Target {
        pool: places[name.as_str()],
        series: carry.telemetry.route(&plan.name, name),
        name: name.clone(),
    });
    Route {
        targets: targets.collect(),
        split: (shares.len() > 1).then(|| Split::build(dealt)),
        body: match &plan.action {
            Action::Respond { body, .. } => body.clone().into(),
            _ => Bytes::new(),
        },
        series: carry.telemetry.route(&plan.name, ""),
        limit: plan.limit.as_ref().map(|limit| build_limit(plan, limit, carry.before)),
        plan: plan.clone(),
    }
}
