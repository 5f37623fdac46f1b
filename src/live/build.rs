//! From a plan, and what is carried over, to the next snapshot. Pure: no tasks, no sockets.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};

use super::{Route, Snapshot, Target};
use crate::http::forwarded::Trust;
use crate::listen::tls::Acceptor;
use crate::plan::{Action, Plan, PoolPlan, RoutePlan, StickyKey};
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
    /// By listener: every one of the plan that speaks TLS is in it.
    pub acceptors: HashMap<String, Acceptor>,
    /// By pool: every one of the plan whose backends speak TLS is in it.
    pub connectors: HashMap<String, Connector>,
}

/// Builds the snapshot that `plan` describes.
pub fn snapshot(plan: Plan, generation: u64, carry: Carry<'_>) -> Snapshot {
    let pools: Vec<_> = plan.pools.iter().map(|pool| Arc::new(build_pool(pool, &carry))).collect();
    let places: HashMap<_, _> = plan.pools.iter().enumerate().map(|(at, pool)| (&*pool.name, at)).collect();
    let routes = plan.routes.iter().map(|route| build_route(route, &places, carry.telemetry)).collect();
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

fn build_route(plan: &RoutePlan, places: &HashMap<&str, usize>, telemetry: &Telemetry) -> Route {
    let shares = match &plan.action {
        Action::Forward(pool) => vec![(pool.clone(), 1)],
        Action::Split(shares) => shares.clone(),
        Action::Respond { .. } | Action::Redirect { .. } => Vec::new(),
    };
    let dealt = shares.iter().enumerate().map(|(place, (pool, share))| (pool.as_str(), *share, place));
    let targets = shares.iter().map(|(name, _)| Target {
        pool: places[name.as_str()],
        series: telemetry.route(&plan.name, name),
        name: name.clone(),
    });
    Route {
        targets: targets.collect(),
        split: (shares.len() > 1).then(|| Split::build(dealt)),
        body: match &plan.action {
            Action::Respond { body, .. } => body.clone().into(),
            _ => Bytes::new(),
        },
        series: telemetry.route(&plan.name, ""),
        plan: plan.clone(),
    }
}
