//! How the backends of a pool stand beside each other, told to the data threads.

use std::sync::atomic::Ordering;
use std::time::Instant;

use super::fleet::Fleet;
use crate::drain::Phase;
use crate::plan::PolicyPlan;
use crate::pool::Pool;
use crate::pool::policy::{Member as Seat, Roster};
use crate::pool::status::{Candidate, SLOW_START_STEPS, roster_members, standings};

/// Gives data threads the standings of a pool's backends and the roster that follows from
/// them, and lets the first of those who wait try again. Returns how many stand open.
pub fn publish(pool: &Pool, fleet: &Fleet, now: Instant) -> usize {
    let members: Vec<_> = fleet.of(&pool.plan).collect();
    let facts: Vec<_> = members.iter().map(|member| member.facts()).collect();
    let (standings, panics) = standings(&facts, pool.plan.panic_threshold);
    pool.shared.panics.store(panics, Ordering::Relaxed);
    for (member, standing) in members.iter().zip(&standings) {
        member.vitals.set_standing(*standing, member.phase() != Phase::Active);
        member.vitals.load.limit(pool.plan.max_in_flight);
    }
    let hashes = matches!(pool.plan.policy, PolicyPlan::IpHash(_) | PolicyPlan::ConsistentHash(_));
    let candidates: Vec<_> = members
        .iter()
        .zip(standings)
        .map(|(member, standing)| Candidate {
            standing,
            backup: member.plan.backup,
            weight: member.plan.weight,
            step: if hashes { SLOW_START_STEPS } else { member.step(&pool.plan, now) },
        })
        .collect();
    let seat = |(index, weight): (usize, u32)| {
        let member = members[index];
        Seat { index, name: member.plan.name.clone(), weight, load: member.vitals.load.clone() }
    };
    let (seats, reserve) = roster_members(&candidates);
    let seats: Vec<_> = seats.into_iter().map(seat).collect();
    let reserve = reserve.into_iter().map(seat).collect();
    for (place, member) in members.iter().enumerate() {
        member.vitals.set_seated(seats.iter().any(|seat| seat.index == place));
    }
    let open = seats.len();
    let roster = |seats| Roster::build(&pool.plan.policy, &pool.plan.name, seats);
    pool.publish(roster(seats).with_reserve(roster(reserve)));
    open
}
