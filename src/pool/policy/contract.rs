//! What every policy must keep, asked of every policy.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;
use crate::plan::{HashOn, HashPlan, IpPrefix};

const LATENCY: Duration = Duration::from_millis(20);

pub(super) fn members(weights: &[u32]) -> Vec<Member> {
    let member = |(index, &weight)| Member {
        index,
        name: format!("a{index}"),
        weight,
        load: Arc::new(Load::new(Instant::now())),
    };
    weights.iter().enumerate().map(member).collect()
}

fn hash_plan() -> HashPlan {
    HashPlan { on: HashOn::ClientIp, prefix: IpPrefix { v4: 32, v6: 64 }, key: None }
}

fn ip_hash() -> PolicyPlan {
    PolicyPlan::IpHash(hash_plan())
}

fn every_policy() -> [PolicyPlan; 6] {
    [
        PolicyPlan::RoundRobin,
        PolicyPlan::LeastConn,
        PolicyPlan::LeastTime,
        PolicyPlan::RandomTwo,
        ip_hash(),
        PolicyPlan::ConsistentHash(hash_plan()),
    ]
}

fn roster(policy: &PolicyPlan, weights: &[u32]) -> Roster {
    Roster::build(policy, "app", members(weights))
}

fn cursor(start: u64) -> Cursor {
    Cursor::at(start)
}

/// The key of the n-th client.
fn client(n: u64) -> u64 {
    KeyHasher::new("app", None).hash(&n.to_be_bytes())
}

fn owner(roster: &Roster, n: u64) -> usize {
    roster.choose(&cursor(0), client(n), Instant::now(), |_| true).expect("everybody is admitted")
}

/// Visits per member when many clients come and `in_flight` visits are kept at a time.
fn visits(roster: &Roster, total: u64, in_flight: usize) -> Vec<u64> {
    let (cursor, now) = (Cursor::random(), Instant::now());
    let mut visits = vec![0; roster.len()];
    let mut open = VecDeque::new();
    for n in 0..total {
        let chosen = roster.choose(&cursor, client(n), now, |_| true).unwrap();
        visits[chosen] += 1;
        roster.members()[chosen].load.begin();
        open.push_back(chosen);
        if open.len() > in_flight {
            let load = &roster.members()[open.pop_front().unwrap()].load;
            load.end();
            load.observe(LATENCY, now);
        }
    }
    visits
}

#[test]
fn an_empty_roster_gives_nobody() {
    for policy in every_policy() {
        let roster = roster(&policy, &[]);
        assert!(roster.is_empty(), "{}", policy.name());
        assert_eq!(roster.choose(&cursor(0), 7, Instant::now(), |_| true), None, "{}", policy.name());
    }
}

#[test]
fn shares_follow_the_weights() {
    for policy in every_policy() {
        for weights in [&[1, 1, 1][..], &[5, 1, 1], &[1, 2, 3, 4], &[256, 128], &[30, 30, 10]] {
            let total = 40_000;
            let sum: u32 = weights.iter().sum();
            let visits = visits(&roster(&policy, weights), total, 4 * sum as usize);
            for (visits, weight) in visits.iter().zip(weights) {
                let fair = total as f64 * f64::from(*weight) / f64::from(sum);
                let error = (*visits as f64 - fair).abs() / fair;
                assert!(error < 0.08, "{} {weights:?}: {visits} for {fair}", policy.name());
            }
        }
    }
}

#[test]
fn an_idle_pool_is_shared_by_weight_too() {
    for policy in [PolicyPlan::RoundRobin, PolicyPlan::LeastConn] {
        assert_eq!(visits(&roster(&policy, &[3, 1, 2]), 600, 0), [300, 100, 200], "{}", policy.name());
    }
}

#[test]
fn least_conn_goes_where_least_is_in_flight_for_its_weight() {
    let roster = roster(&PolicyPlan::LeastConn, &[4, 1, 1]);
    let choose = || roster.choose(&cursor(0), 0, Instant::now(), |_| true);
    let begin = |at: usize, times: u32| (0..times).for_each(|_| roster.members()[at].load.begin());
    begin(0, 3);
    begin(1, 1);
    assert_eq!(choose(), Some(2));
    begin(2, 1);
    assert_eq!(choose(), Some(0));
    begin(0, 2);
    assert_ne!(choose(), Some(0));
}

#[test]
fn equals_take_turns_when_the_others_are_busy() {
    let roster = roster(&PolicyPlan::LeastConn, &[1, 1, 1]);
    roster.members()[0].load.begin();
    assert_eq!(visits(&roster, 100, 0), [0, 50, 50]);
}

#[test]
fn least_time_leaves_the_slow_one_alone_until_the_fast_one_is_crowded() {
    let now = Instant::now();
    let roster = roster(&PolicyPlan::LeastTime, &[1, 1]);
    let [slow, fast] = roster.members() else { panic!("two members") };
    slow.load.observe(LATENCY * 10, now);
    fast.load.observe(LATENCY, now);
    let choose = || roster.choose(&cursor(0), 0, now, |_| true);
    (0..8).for_each(|_| fast.load.begin());
    assert_eq!(choose(), Some(1));
    (0..2).for_each(|_| fast.load.begin());
    assert_eq!(choose(), Some(0));
}

#[test]
fn round_robin_is_exact_in_every_full_cycle_over_two_threads() {
    let roster = roster(&PolicyPlan::RoundRobin, &[5, 1, 1]);
    let cursor = Cursor::random();
    let serve = || {
        let choose = |_| roster.choose(&cursor, 0, Instant::now(), |_| true);
        (0..7_000).filter_map(choose).fold([0; 3], |mut turns, at| {
            turns[at] += 1;
            turns
        })
    };
    let (one, two) = std::thread::scope(|scope| {
        let (one, two) = (scope.spawn(serve), scope.spawn(serve));
        (one.join().unwrap(), two.join().unwrap())
    });
    let sum: Vec<i32> = one.iter().zip(two).map(|(one, two)| one + two).collect();
    assert_eq!(sum, [10_000, 2_000, 2_000]);
}

#[test]
fn two_rosters_built_apart_agree_whatever_the_order_of_the_file() {
    let weights: Vec<u32> = (0..40).map(|at| at % 5 + 1).collect();
    let mut turned = members(&weights);
    turned.reverse();
    let (one, two) = (roster(&ip_hash(), &weights), Roster::build(&ip_hash(), "app", turned));
    assert!((0..2_000).all(|n| owner(&one, n) == owner(&two, n)));
}

#[test]
fn hash_policies_hold_from_one_backend_to_a_thousand() {
    for len in [1_usize, 2, 3, 10, 100, 1_000] {
        let roster = roster(&ip_hash(), &vec![1; len]);
        let clients = 50 * len as u64;
        let mut visits = vec![0_u64; len];
        (0..clients.min(20_000)).for_each(|n| visits[owner(&roster, n)] += 1);
        let fair = clients.min(20_000) as f64 / len as f64;
        // Six standard deviations of a fair draw, and a little for small numbers.
        let most = fair + 6.0 * fair.sqrt() + 3.0;
        assert!(visits.iter().all(|&visits| visits as f64 <= most), "{len}: {:?}", visits.iter().max());
    }
}

#[test]
fn a_joining_backend_takes_its_share_and_nothing_else_moves() {
    for (weight, share) in [(1, 1.0 / 11.0), (2, 2.0 / 12.0)] {
        let before = roster(&ip_hash(), &[1; 10]);
        let mut weights = [1; 11];
        weights[10] = weight;
        let after = roster(&ip_hash(), &weights);
        let moved: Vec<usize> = (0..20_000)
            .filter(|&n| owner(&before, n) != owner(&after, n))
            .map(|n| owner(&after, n))
            .collect();
        assert!(moved.iter().all(|&at| at == 10));
        let error = (moved.len() as f64 / 20_000.0 - share).abs();
        assert!(error < 0.01, "{} moved, {share} expected", moved.len());
    }
}

#[test]
fn a_leaving_backends_clients_spread_over_the_others() {
    let whole = roster(&ip_hash(), &[1; 5]);
    let rest: Vec<Member> = members(&[1; 5]).into_iter().filter(|member| member.index != 2).collect();
    let rest = Roster::build(&ip_hash(), "app", rest);
    let mut heirs = BTreeMap::new();
    for n in 0..10_000 {
        match (owner(&whole, n), owner(&rest, n)) {
            (2, heir) => *heirs.entry(heir).or_insert(0) += 1,
            (before, after) => assert_eq!(before, after),
        }
    }
    assert!(heirs.len() == 4 && heirs.values().all(|&clients| clients > 400), "{heirs:?}");
}

/// What makes a drain and a removal move the same clients to the same places.
#[test]
fn refusing_a_backend_is_the_same_as_removing_it() {
    let whole = roster(&ip_hash(), &[3, 1, 2, 5]);
    let rest: Vec<Member> = members(&[3, 1, 2, 5]).into_iter().filter(|member| member.index != 3).collect();
    let rest = Roster::build(&ip_hash(), "app", rest);
    for n in 0..2_000 {
        let chosen = whole.choose(&cursor(0), client(n), Instant::now(), |at| at != 3);
        assert_eq!(chosen, Some(owner(&rest, n)));
    }
}

proptest! {
    #[test]
    fn only_the_admitted_answer_and_somebody_always_does(
        weights in prop::collection::vec(1_u32..=256, 1..30),
        refused in prop::collection::vec(any::<bool>(), 30),
        busy in prop::collection::vec(0_u32..4, 30),
        start in any::<u32>(),
        key: u64,
    ) {
        for policy in every_policy() {
            let roster = roster(&policy, &weights);
            for (member, busy) in roster.members().iter().zip(&busy) {
                (0..*busy).for_each(|_| member.load.begin());
            }
            let mut asked = Vec::new();
            let chosen = roster.choose(&cursor(start.into()), key, Instant::now(), |at| {
                asked.push(at);
                !refused[at]
            });
            match chosen {
                Some(at) => prop_assert!(!refused[at] && asked.last() == Some(&at), "{}", policy.name()),
                None => prop_assert!(refused[..weights.len()].iter().all(|&refused| refused), "{}", policy.name()),
            }
            asked.sort_unstable();
            let times = asked.len();
            asked.dedup();
            prop_assert_eq!(asked.len(), times, "{} asked somebody twice", policy.name());
        }
    }

    #[test]
    fn a_backend_that_leaves_moves_only_its_own(weights in prop::collection::vec(1_u32..10, 2..12), gone: prop::sample::Index) {
        let gone = gone.index(weights.len());
        let whole = roster(&ip_hash(), &weights);
        let rest: Vec<Member> = members(&weights).into_iter().filter(|member| member.index != gone).collect();
        let rest = Roster::build(&ip_hash(), "app", rest);
        for n in 0..200 {
            let (before, after) = (owner(&whole, n), owner(&rest, n));
            prop_assert!(before == after || before == gone);
        }
    }
}
