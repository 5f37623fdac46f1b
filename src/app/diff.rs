//! What a reload keeps, changes, adds, lets go and moves, told from two plans. Reads, and
//! changes nothing.

use super::fleet::Fleet;
use super::report::counted;
use crate::admin::view::ReloadReport;
use crate::plan::{ListenerPlan, Plan, PolicyPlan, PoolPlan};
use crate::proxy::unix_now;

/// What applying `new` over `old` keeps, changes, adds and lets go.
pub fn reload(old: &Plan, new: &Plan, fleet: &Fleet, generation: u64) -> ReloadReport {
    let mut report = ReloadReport { from_generation: generation - 1, generation, ..ReloadReport::default() };
    let (mut pools, mut backends) = (0, 0);
    for pool in &new.pools {
        let Some(before) = old.pool(&pool.name) else {
            report.added.push(format!(
                "pool {} with {}",
                pool.name,
                counted(pool.backends.len() as u64, "backend")
            ));
            continue;
        };
        pools += 1;
        changes(before, pool, &mut report);
        for backend in &pool.backends {
            match before.backends.iter().find(|known| known.name == backend.name) {
                None => {
                    report.added.push(format!("pool {}: {} at {}", pool.name, backend.name, backend.address))
                }
                Some(known) => {
                    backends += 1;
                    if known != backend {
                        report.changed.push(format!(
                            "pool {}: {}",
                            pool.name,
                            backend_change(known, backend)
                        ));
                    }
                }
            }
        }
    }
    for pool in &old.pools {
        for backend in &pool.backends {
            let kept =
                new.pool(&pool.name).is_some_and(|pool| pool.backends.iter().any(|b| b.name == backend.name));
            if !kept {
                let left = fleet
                    .get(&(pool.name.clone(), backend.name.clone()))
                    .map(|member| member.left(unix_now()))
                    .unwrap_or_default();
                report.draining.push(format!(
                    "pool {}: {} left the file; {} and {} finish",
                    pool.name,
                    backend.name,
                    counted(left.in_flight, "request"),
                    counted(left.tunnels, "tunnel")
                ));
            }
        }
    }
    report.kept = vec![format!(
        "{}, {} with their health and connections",
        counted(pools, "pool"),
        counted(backends, "backend")
    )];
    if old.routes != new.routes {
        report.changed.push(format!("routes: {} → {}", old.routes.len(), new.routes.len()));
    }
    listeners(&old.listeners, &new.listeners, &mut report);
    let (before, after) = (old.restart_only(), new.restart_only());
    report.restart_only = after
        .iter()
        .filter(|(key, value)| before.get(*key) != Some(value))
        .map(|(key, _)| (*key).to_owned())
        .collect();
    report
}

/// A renewed certificate is told apart: nothing else of its listener has to be looked at.
fn listeners(old: &[ListenerPlan], new: &[ListenerPlan], report: &mut ReloadReport) {
    let shown =
        |listener: &ListenerPlan| listener.tls.clone().map(|tls| tls.certificates).unwrap_or_default();
    let rest = |listeners: &[ListenerPlan]| {
        let mut rest = listeners.to_vec();
        rest.iter_mut().filter_map(|listener| listener.tls.as_mut()).for_each(|tls| tls.certificates.clear());
        rest
    };
    if rest(old) != rest(new) {
        report.changed.push("listeners".to_owned());
    }
    for listener in new {
        let Some(before) = old.iter().find(|before| before.name == listener.name) else { continue };
        let before = shown(before);
        let fresh = shown(listener).into_iter().filter(|certificate| !before.contains(certificate));
        let names: Vec<_> = fresh.flat_map(|certificate| certificate.facts.names.first().cloned()).collect();
        if !names.is_empty() {
            report.changed.push(format!("listener {}: certificate of {}", listener.name, names.join(", ")));
        }
    }
}

fn changes(old: &PoolPlan, new: &PoolPlan, report: &mut ReloadReport) {
    if old.policy_name() != new.policy_name() {
        report.changed.push(format!(
            "pool {}: policy {} → {}",
            new.name,
            old.policy_name(),
            new.policy_name()
        ));
        report.moves.push(format!("pool {}: {}", new.name, moves(old, new)));
    }
    if let Some(change) = tls_change(old, new) {
        report.changed.push(format!("pool {}: {change}", new.name));
    }
    let same = |pool: &PoolPlan| PoolPlan {
        policy: old.policy.clone(),
        sticky: old.sticky,
        backends: Vec::new(),
        tls: None,
        ..pool.clone()
    };
    if same(old) != same(new) {
        report.changed.push(format!("pool {}: settings", new.name));
    }
}

/// Renewed files are told apart from other settings: health stays, and connections are opened anew.
fn tls_change(old: &PoolPlan, new: &PoolPlan) -> Option<&'static str> {
    match (&old.tls, &new.tls) {
        (old, new) if old == new => None,
        (None, _) => Some("TLS to its backends, whose health and connections start anew"),
        (_, None) => Some("no TLS to its backends, whose health and connections start anew"),
        (Some(old), Some(new)) if old.is_written_like(new) => {
            Some("certificates for its backends, to which connections start anew")
        }
        _ => Some("TLS settings of its backends, whose health and connections start anew"),
    }
}

/// Whom a change of policy moves.
fn moves(old: &PoolPlan, new: &PoolPlan) -> String {
    let hashes =
        |pool: &PoolPlan| matches!(pool.policy, PolicyPlan::IpHash(_) | PolicyPlan::ConsistentHash(_));
    let n = new.backends.len();
    match (old.sticky, hashes(old), new.sticky, hashes(new)) {
        (false, false, true, _) => "nobody moves: each client stays where its next request goes".to_owned(),
        (false, true, true, _) => format!(
            "clients without a cookie are placed by {} once, and then stay there",
            new.policy.name()
        ),
        (true, _, false, true) => format!(
            "every client moves whose {} hashes elsewhere, about {} of {n}; cookies are kept and honoured when sticky_cookie comes back",
            if new.policy_name() == "ip_hash" { "address" } else { "key" },
            n.saturating_sub(1)
        ),
        (true, _, false, false) => {
            "every client moves with each request; cookies are kept and honoured when sticky_cookie comes back".to_owned()
        }
        (false, true, false, true) => format!("every client moves whose key hashes elsewhere, about {} of {n}", n.saturating_sub(1)),
        (false, true, false, false) => "every client moves with each request".to_owned(),
        (false, false, false, true) => "nobody was bound; from now on each client has its backend".to_owned(),
        (true, _, true, _) | (false, false, false, false) => "nobody moves".to_owned(),
    }
}

fn backend_change(old: &crate::plan::BackendPlan, new: &crate::plan::BackendPlan) -> String {
    let mut parts = Vec::new();
    if old.address != new.address {
        parts.push(format!("address {} → {}", old.address, new.address));
    }
    if old.weight != new.weight {
        parts.push(format!("weight {} → {}", old.weight, new.weight));
    }
    if old.backup != new.backup {
        parts.push(if new.backup { "now a backup" } else { "no longer a backup" }.to_owned());
    }
    if old.state != new.state {
        parts.push(format!("state {:?} → {:?}", old.state, new.state).to_lowercase());
    }
    format!("{} {}", new.name, parts.join(", "))
}

/// A reload in one line, for the log.
pub fn reload_sentence(report: &ReloadReport) -> String {
    let part = |name: &str, list: &[String]| {
        if list.is_empty() { String::new() } else { format!("; {name} {}", list.join(", ")) }
    };
    format!(
        "reloaded {}: generation {} → {}{}{}{}{}{}{}",
        report.source,
        report.from_generation,
        report.generation,
        part("kept", &report.kept),
        part("changed", &report.changed),
        part("added", &report.added),
        part("leaving:", &report.draining),
        part("moves:", &report.moves),
        part("waits for a restart:", &report.restart_only),
    )
}
