//! `least_conn` and `least_time`: the cheapest first, equals by turns.
//!
//! Start at [`choose`]. The two differ only in what a visit costs. Costs are read from atomics
//! that move meanwhile: a choice is good, not perfect.

use std::time::Instant;

use super::{Cursor, Member};

/// Requests in flight over weight.
pub(super) fn by_count(member: &Member) -> f64 {
    f64::from(member.load.in_flight()) / f64::from(member.weight)
}

/// Peak-EWMA × (in flight + 1), over weight.
pub(super) fn by_time(member: &Member, now: Instant) -> f64 {
    f64::from(member.load.expected(now)) / f64::from(member.weight)
}

pub(super) fn choose(
    members: &[Member],
    cursor: &Cursor,
    cost: impl Fn(usize) -> f64,
    mut admits: impl FnMut(usize) -> bool,
) -> Option<usize> {
    let first = cheapest(members, cursor, &cost);
    if admits(first) { Some(first) } else { rest_by_cost(members.len(), &[first], cost, admits) }
}

/// The member with the least cost. Where several are equal they take turns, each as many in a
/// row as its weight, which makes the shares of an idle pool exact.
fn cheapest(members: &[Member], cursor: &Cursor, cost: impl Fn(usize) -> f64) -> usize {
    let (mut first, mut least, mut turns) = (0, f64::INFINITY, 0);
    for (at, member) in members.iter().enumerate() {
        let cost = cost(at);
        if cost < least {
            (first, least, turns) = (at, cost, u64::from(member.weight));
        } else if cost == least {
            turns += u64::from(member.weight);
        }
    }
    if turns == u64::from(members[first].weight) {
        return first;
    }
    let mut turn = cursor.advance() % turns;
    for (at, member) in members.iter().enumerate().skip(first) {
        if cost(at) <= least {
            match turn.checked_sub(u64::from(member.weight)) {
                Some(left) => turn = left,
                None => return at,
            }
        }
    }
    first // costs moved between the two looks
}

/// Asks everybody who was not asked yet, the cheapest first. Off the usual path: it sorts.
pub(super) fn rest_by_cost(
    len: usize,
    asked: &[usize],
    cost: impl Fn(usize) -> f64,
    mut admits: impl FnMut(usize) -> bool,
) -> Option<usize> {
    let mut rest: Vec<(f64, usize)> =
        (0..len).filter(|at| !asked.contains(at)).map(|at| (cost(at), at)).collect();
    rest.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    rest.into_iter().map(|(_, at)| at).find(|&at| admits(at))
}
