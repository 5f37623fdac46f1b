//! How listeners shake hands: what a plan's certificates become, and what reloads leave alone.

use std::collections::HashMap;

use crate::listen::tls::{Acceptor, Tickets};
use crate::plan::Plan;

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
