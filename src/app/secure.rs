//! How listeners and pools shake hands: what a plan's certificates become, and what reloads leave alone.

use std::collections::HashMap;
use std::sync::Arc;

use crate::listen::tickets::Tickets;
use crate::listen::tls::Acceptor;
use crate::plan::Plan;
use crate::pool::Pool;
use crate::upstream::tls::Connector;

/// By listener: what seals its session tickets. No two listeners open each other's.
pub type TicketsOf = HashMap<String, Tickets>;

/// Prepares every listener that speaks TLS. Tickets of those that did already stay.
pub fn acceptors(plan: &Plan, known: &TicketsOf) -> Result<(HashMap<String, Acceptor>, TicketsOf), String> {
    let (mut acceptors, mut kept) = (HashMap::new(), HashMap::new());
    for listener in &plan.listeners {
        let Some(tls) = &listener.tls else { continue };
        let failed = |why: String| format!("TLS of listener {}: {why}", listener.name);
        let tickets = match known.get(&listener.name) {
            Some(tickets) => tickets.clone(),
            None => Tickets::generate().map_err(failed)?,
        };
        acceptors.insert(
            listener.name.clone(),
            Acceptor::build(tls, listener.protocols, &tickets).map_err(failed)?,
        );
        kept.insert(listener.name.clone(), tickets);
    }
    Ok((acceptors, kept))
}

/// Prepares every pool whose backends speak TLS. Of those that run already a pool with the same
/// settings and the same files keeps what it has, and with it its connections and sessions.
pub fn connectors(plan: &Plan, running: &[Arc<Pool>]) -> Result<HashMap<String, Connector>, String> {
    let mut connectors = HashMap::new();
    for pool in &plan.pools {
        let Some(tls) = &pool.tls else { continue };
        let same = running.iter().find(|known| known.plan.name == pool.name && known.plan.tls == pool.tls);
        let known = same.and_then(|known| known.backends.first()?.way.connector());
        let connector = match known {
            Some(known) => known.clone(),
            None => Connector::build(tls).map_err(|why| format!("TLS of pool {}: {why}", pool.name))?,
        };
        connectors.insert(pool.name.clone(), connector);
    }
    Ok(connectors)
}
