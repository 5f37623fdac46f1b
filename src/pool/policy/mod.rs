//! Policies: who of those that may get a visit gets this one.
//!
//! Start at [`Roster`]. A roster is built outside the request path whenever eligibility or a
//! weight changes, published as one `Arc`, and read by every data thread. A policy sees who is
//! eligible, a key and its own counters; health, phases, cookies and headers were settled before
//! it is asked. `contract.rs` holds what every policy must keep.

mod hash;
mod least;
mod load;
mod random_two;
mod round_robin;

#[cfg(test)]
mod contract;

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use crate::plan::PolicyPlan;

pub use hash::KeyHasher;
pub use load::Load;
pub use round_robin::SCHEDULE_MAX;

use hash::Rendezvous;
use random_two::Draw;
use round_robin::Schedule;

/// One eligible backend, as a policy sees it.
#[derive(Clone, Debug)]
pub struct Member {
    /// Its place in the pool's list of backends: what a choice answers with.
    pub index: usize,
    pub name: String,
    /// Relative to the other members. Slow start is already in it, except for the hash policies:
    /// give those the full weights, or every step would move keys.
    pub weight: u32,
    pub load: Arc<Load>,
}

/// Everybody who is eligible now, prepared for one policy. Never changes once built.
#[derive(Debug)]
pub struct Roster {
    /// Weights are divided by their greatest common divisor, so equal weights are all 1.
    members: Box<[Member]>,
    order: Order,
}

#[derive(Debug)]
enum Order {
    RoundRobin(Schedule),
    LeastConn,
    LeastTime,
    RandomTwo(Draw),
    Rendezvous(Rendezvous),
}

impl Roster {
    pub fn build(policy: &PolicyPlan, pool: &str, mut members: Vec<Member>) -> Self {
        let divisor = members.iter().fold(0, |divisor, member| gcd(divisor, member.weight)).max(1);
        for member in &mut members {
            member.weight = (member.weight / divisor).max(1);
        }
        let order = match policy {
            PolicyPlan::RoundRobin => Order::RoundRobin(Schedule::new(&members)),
            PolicyPlan::LeastConn => Order::LeastConn,
            PolicyPlan::LeastTime => Order::LeastTime,
            PolicyPlan::RandomTwo => Order::RandomTwo(Draw::new(&members)),
            PolicyPlan::IpHash(plan) | PolicyPlan::ConsistentHash(plan) => {
                let hasher = KeyHasher::new(pool, plan.key.as_ref());
                Order::Rendezvous(Rendezvous::new(&hasher, &members))
            }
        };
        Self { members: members.into(), order }
    }

    /// Asks `admits` in the policy's order of preference until it agrees, and gives that
    /// [`Member::index`]; `None` only when nobody is admitted. Agreeing is taking: nobody else is
    /// asked afterwards, so `admits` may take a place on the backend.
    pub fn choose(
        &self,
        cursor: &Cursor,
        key: u64,
        now: Instant,
        mut admits: impl FnMut(usize) -> bool,
    ) -> Option<usize> {
        let members = &*self.members;
        if members.is_empty() {
            return None;
        }
        let admits = |at: usize| admits(members[at].index);
        let chosen = match &self.order {
            Order::RoundRobin(schedule) => schedule.choose(members.len(), cursor, admits),
            Order::LeastConn => least::choose(members, cursor, |at| least::by_count(&members[at]), admits),
            Order::LeastTime => {
                least::choose(members, cursor, |at| least::by_time(&members[at], now), admits)
            }
            Order::RandomTwo(draw) => draw.choose(members, cursor, admits),
            Order::Rendezvous(rendezvous) => rendezvous.choose(key, admits),
        };
        chosen.map(|at| members[at].index)
    }

    /// Everybody's [`Member::index`].
    pub fn places(&self) -> impl Iterator<Item = usize> {
        self.members.iter().map(|member| member.index)
    }

    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    pub fn len(&self) -> usize {
        self.members.len()
    }

    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// Whether this policy decides by [`Load`], which then has to be kept up to date.
    pub fn needs_load(&self) -> bool {
        matches!(self.order, Order::LeastConn | Order::LeastTime | Order::RandomTwo(_))
    }
}

/// Whose turn it is: one per pool, shared by all threads, kept over reloads. It has a cache line
/// (two, where the processor fetches them in pairs) of its own, because every request writes it.
#[derive(Debug)]
#[repr(align(128))]
pub struct Cursor(AtomicU64);

impl Cursor {
    /// Starts anywhere, so that replicas that start together do not march in step.
    pub fn random() -> Self {
        // 32 bits, so that it never wraps: a wrap would break one cycle.
        Self(AtomicU64::new(RandomState::new().hash_one(()) >> 32))
    }

    /// Starts where a test says.
    #[cfg(test)]
    pub(crate) fn at(turn: u64) -> Self {
        Self(AtomicU64::new(turn))
    }

    /// This turn; the next asker gets the next one.
    fn advance(&self) -> u64 {
        self.0.fetch_add(1, Relaxed)
    }
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// A bijection that spreads every input bit over all output bits (the finaliser of splitmix64).
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
