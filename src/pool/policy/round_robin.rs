//! `round_robin`: nginx's smooth weighted order, computed once, stepped through by one cursor.
//!
//! Because the order is a table and the cursor one atomic, any full cycle has exactly the right
//! shares, whichever threads served it.

use std::collections::BTreeMap;

use super::{Cursor, Member};

/// The longest schedule, in turns: a megabyte, and time in the order of 0.1 s to compute in the
/// worst case. 1,000 backends of any weights up to 256 fit. Where the weights add up to more
/// (thousands of backends, or slow start in a very large pool), they are scaled down and the
/// shares become approximate.
pub const SCHEDULE_MAX: usize = 1 << 18;

/// Places of members in the order of their turns, one full cycle.
#[derive(Debug)]
pub(super) struct Schedule(Box<[u32]>);

/// Members of one weight. Among them nginx's order is plain rotation, so only the next one has
/// to be compared with the other groups': a turn costs as much as there are distinct weights.
struct Group {
    weight: i64,
    /// nginx's `current_weight` of the member whose turn is next.
    current: i64,
    places: Vec<u32>,
    next: usize,
}

impl Schedule {
    pub(super) fn new(members: &[Member]) -> Self {
        let sum: u64 = members.iter().map(|member| u64::from(member.weight)).sum();
        let limit = SCHEDULE_MAX as u64;
        let mut groups = BTreeMap::<u64, Vec<u32>>::new();
        for (at, member) in members.iter().enumerate() {
            let weight = u64::from(member.weight);
            let weight = if sum > limit { (weight * limit / sum).max(1) } else { weight };
            groups.entry(weight).or_default().push(at as u32);
        }
        let mut groups: Vec<Group> = groups
            .into_iter()
            .map(|(weight, places)| Group { weight: weight as i64, current: 0, places, next: 0 })
            .collect();
        let total: i64 = groups.iter().map(|group| group.weight * group.places.len() as i64).sum();
        Self((0..total).map(|_| next_turn(&mut groups, total)).collect())
    }

    /// `len` is the number of members, at least 1.
    pub(super) fn choose(
        &self,
        len: usize,
        cursor: &Cursor,
        mut admits: impl FnMut(usize) -> bool,
    ) -> Option<usize> {
        let start = (cursor.advance() % self.0.len() as u64) as usize;
        let first = self.0[start] as usize;
        if admits(first) {
            return Some(first);
        }
        let (before, after) = self.0.split_at(start);
        let mut asked = vec![false; len];
        asked[first] = true;
        let mut left = len - 1;
        for &at in after.iter().chain(before) {
            let at = at as usize;
            if left == 0 {
                break;
            }
            if !asked[at] {
                if admits(at) {
                    return Some(at);
                }
                asked[at] = true;
                left -= 1;
            }
        }
        None
    }
}

/// One step of nginx's algorithm: everybody gains its weight, the highest (of equals the first
/// in the list) is taken and pays the total.
fn next_turn(groups: &mut [Group], total: i64) -> u32 {
    for group in &mut *groups {
        group.current += group.weight;
    }
    let taken = groups
        .iter_mut()
        .max_by(|a, b| a.current.cmp(&b.current).then_with(|| b.places[b.next].cmp(&a.places[a.next])))
        .expect("a schedule has members");
    let place = taken.places[taken.next];
    taken.next += 1;
    if taken.next == taken.places.len() {
        // Everybody in the group has paid, so the next one stands lower too.
        taken.next = 0;
        taken.current -= total;
    }
    place
}

#[cfg(test)]
mod tests {
    use super::super::contract::members;
    use super::*;
    use proptest::prelude::*;

    /// nginx's `ngx_http_upstream_get_peer`, word for word but for failures.
    fn nginx(weights: &[u32]) -> Vec<u32> {
        let total: i64 = weights.iter().map(|&weight| i64::from(weight)).sum();
        let mut current = vec![0; weights.len()];
        let mut turns = Vec::new();
        for _ in 0..total {
            let mut best = 0;
            for at in 0..weights.len() {
                current[at] += i64::from(weights[at]);
                if current[at] > current[best] {
                    best = at;
                }
            }
            current[best] -= total;
            turns.push(best as u32);
        }
        turns
    }

    #[test]
    fn weights_5_1_1_go_a_a_b_a_c_a_a() {
        assert_eq!(*Schedule::new(&members(&[5, 1, 1])).0, [0, 0, 1, 0, 2, 0, 0]);
    }

    #[test]
    fn a_thousand_backends_of_any_weight_have_exact_shares() {
        let weights: Vec<u32> = (0..1000).map(|at| at % 256 + 1).collect();
        let schedule = Schedule::new(&members(&weights));
        let mut turns = vec![0; weights.len()];
        schedule.0.iter().for_each(|&at| turns[at as usize] += 1);
        assert_eq!(turns, weights);
    }

    #[test]
    fn a_schedule_never_grows_much_beyond_its_limit() {
        let mut weights = vec![2_560; 500];
        weights.push(1);
        let schedule = Schedule::new(&members(&weights));
        assert!(schedule.0.len() <= SCHEDULE_MAX + weights.len());
        assert!(schedule.0.contains(&500), "nobody loses the last turn");
    }

    proptest! {
        #[test]
        fn the_order_is_nginxs(weights in prop::collection::vec(1_u32..20, 1..12)) {
            prop_assert_eq!(&*Schedule::new(&members(&weights)).0, &nginx(&weights));
        }
    }
}
