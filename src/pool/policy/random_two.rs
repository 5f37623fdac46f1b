//! `random_two`: the power of two choices. Two are drawn by weight; the one with less in flight
//! is asked first.

use super::{Cursor, Member, least, mix};

/// Where each member's part of the lot ends; the last is the sum of all weights.
#[derive(Debug)]
pub(super) struct Draw(Box<[u64]>);

impl Draw {
    pub(super) fn new(members: &[Member]) -> Self {
        let ends = members.iter().scan(0, |end, member| {
            *end += u64::from(member.weight);
            Some(*end)
        });
        Self(ends.collect())
    }

    /// `members` are those the draw was made for, at least one.
    pub(super) fn choose(
        &self,
        members: &[Member],
        cursor: &Cursor,
        mut admits: impl FnMut(usize) -> bool,
    ) -> Option<usize> {
        if members.len() == 1 {
            return admits(0).then_some(0);
        }
        let cost = |at: usize| least::by_count(&members[at]);
        let (a, b) = self.two(mix(cursor.advance().wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        let pair = if cost(b) < cost(a) { [b, a] } else { [a, b] };
        let chosen = pair.into_iter().find(|&at| admits(at));
        chosen.or_else(|| least::rest_by_cost(members.len(), &pair, cost, admits))
    }

    /// Two different places, each with the chance of its weight. At least two members.
    fn two(&self, random: u64) -> (usize, usize) {
        let total = *self.0.last().expect("a draw has members");
        let first = self.place(scale(random, total));
        let start = if first == 0 { 0 } else { self.0[first - 1] };
        let width = self.0[first] - start;
        // Drawn from what is left when the first one's part is cut out.
        let ticket = scale(mix(!random), total - width);
        (first, self.place(if ticket < start { ticket } else { ticket + width }))
    }

    fn place(&self, ticket: u64) -> usize {
        self.0.partition_point(|&end| end <= ticket)
    }
}

/// A random number below `limit`.
fn scale(random: u64, limit: u64) -> u64 {
    ((u128::from(random) * u128::from(limit)) >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::super::contract::members;
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_two_are_different_members(weights in prop::collection::vec(1_u32..300, 2..40), random: u64) {
            let (a, b) = Draw::new(&members(&weights)).two(random);
            prop_assert!(a != b && a < weights.len() && b < weights.len(), "{} {}", a, b);
        }
    }
}
