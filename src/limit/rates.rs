//! What each client of a route has used of its quota, over all threads.
//!
//! Start at [`Rates::ask`]. A table of buckets, each with a lock of its own that is held for one look
//! through a few entries: two threads meet only over one client, or by a rare chance. What memory it
//! takes has a limit. Whoever owes nothing any more is forgotten first, and then whoever owes least: a
//! client over its limit stays known, however many others come, and a newcomer always gets in.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use siphasher::sip::SipHasher13;

use super::{Quota, client_of};

/// Clients that are known at a time: [`BUCKETS`] times [`IN_BUCKET`], 1 MiB.
pub const MAX_RATED: usize = 65_536;

/// Clients among whom one is looked for.
const IN_BUCKET: usize = 32;

const BUCKETS: usize = MAX_RATED / IN_BUCKET;

/// What clients are told apart by.
#[derive(Clone, Copy, Debug)]
pub enum Key<'a> {
    Client(IpAddr),
    /// What a request says of itself.
    Said(&'a [u8]),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Passes,
    /// It passes, and the table was full: another was forgotten who still owed.
    Displaces,
    /// Too early by so much.
    Refused(Duration),
}

pub struct Rates {
    /// Its key is nobody's to know: nobody can aim at another's entry, nor fill one bucket.
    hasher: SipHasher13,
    born: Instant,
    buckets: Box<[Mutex<Bucket>]>,
}

#[derive(Default)]
struct Bucket {
    /// The newest reading of the clock: threads read it before they come here.
    now: u64,
    owing: Vec<Owing>,
}

/// A client, and when its next request is due.
struct Owing {
    who: u64,
    due: u64,
}

impl Rates {
    pub fn new(now: Instant) -> Self {
        let random = RandomState::new();
        Self {
            hasher: SipHasher13::new_with_keys(random.hash_one(0), random.hash_one(1)),
            born: now,
            buckets: (0..BUCKETS).map(|_| Mutex::default()).collect(),
        }
    }

    /// Takes one more request of a client into account, unless it comes too early.
    pub fn ask(&self, quota: Quota, key: Key<'_>, now: Instant) -> Verdict {
        let who = self.who(key);
        let now = u64::try_from(now.saturating_duration_since(self.born).as_nanos()).unwrap_or(u64::MAX);
        let bucket = &self.buckets[who as usize % BUCKETS];
        bucket.lock().unwrap_or_else(PoisonError::into_inner).ask(quota, who, now)
    }

    /// What a request says is never taken for an address.
    fn who(&self, key: Key<'_>) -> u64 {
        let mut hasher = self.hasher;
        match key {
            Key::Said(bytes) => {
                hasher.write_u8(0);
                hasher.write(bytes);
            }
            Key::Client(address) => match client_of(address) {
                IpAddr::V4(address) => {
                    hasher.write_u8(4);
                    hasher.write(&address.octets());
                }
                IpAddr::V6(address) => {
                    hasher.write_u8(6);
                    hasher.write(&address.octets());
                }
            },
        }
        hasher.finish()
    }
}

impl Bucket {
    fn ask(&mut self, quota: Quota, who: u64, now: u64) -> Verdict {
        self.now = self.now.max(now);
        let now = self.now;
        let known = self.owing.iter().position(|owing| owing.who == who);
        let (place, displaces) = known.map_or_else(|| self.place_for(who), |place| (place, false));
        let owing = &mut self.owing[place];
        let (due, answer) = quota.ask(owing.due, now);
        owing.due = due;
        match answer {
            Ok(()) if displaces => Verdict::Displaces,
            Ok(()) => Verdict::Passes,
            Err(wait) => Verdict::Refused(Duration::from_nanos(wait)),
        }
    }

    /// A place for somebody who is not known, and whether that made another unknown who still owes.
    fn place_for(&mut self, who: u64) -> (usize, bool) {
        let newcomer = Owing { who, due: self.now };
        let least = self.owing.iter().enumerate().min_by_key(|(_, owing)| owing.due);
        match least {
            Some((place, Owing { due, .. })) if *due <= self.now || self.owing.len() >= IN_BUCKET => {
                let displaces = *due > self.now;
                self.owing[place] = newcomer;
                (place, displaces)
            }
            _ => {
                self.owing.push(newcomer);
                (self.owing.len() - 1, false)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{HashOn, LimitPlan};
    use proptest::prelude::*;
    use std::collections::HashMap;

    fn quota(requests: u32, seconds: u64, burst: u32) -> Quota {
        let per = Duration::from_secs(seconds);
        Quota::new(&LimitPlan { requests, per, burst, key: HashOn::ClientIp })
    }

    fn said(name: &str) -> Key<'_> {
        Key::Said(name.as_bytes())
    }

    fn passing(rates: &Rates, quota: Quota, key: Key<'_>, now: Instant, tries: usize) -> usize {
        (0..tries).filter(|_| !matches!(rates.ask(quota, key, now), Verdict::Refused(_))).count()
    }

    fn known(rates: &Rates) -> usize {
        rates.buckets.iter().map(|bucket| bucket.lock().unwrap().owing.len()).sum()
    }

    #[test]
    fn each_client_has_a_quota_of_its_own() {
        let now = Instant::now();
        let (rates, quota) = (Rates::new(now), quota(1, 60, 3));
        for key in [said("ann"), said("bob"), Key::Client([203, 0, 113, 9].into())] {
            assert_eq!(passing(&rates, quota, key, now, 10), 3);
        }
        let refused = rates.ask(quota, said("ann"), now + Duration::from_secs(20));
        assert_eq!(refused, Verdict::Refused(Duration::from_secs(40)));
        assert_eq!(passing(&rates, quota, said("ann"), now + Duration::from_secs(60), 10), 1);
    }

    #[test]
    fn a_reading_of_the_clock_that_comes_late_opens_no_door() {
        let now = Instant::now();
        let at = |millis| now + Duration::from_millis(millis);
        let (rates, quota) = (Rates::new(now), quota(1, 1, 1));
        assert_eq!(rates.ask(quota, said("ann"), at(10_000)), Verdict::Passes);
        assert_eq!(rates.ask(quota, said("ann"), at(5_000)), Verdict::Refused(Duration::from_secs(1)));
        assert_eq!(rates.ask(quota, said("ann"), at(10_500)), Verdict::Refused(Duration::from_millis(500)));
        assert_eq!(rates.ask(quota, said("ann"), at(11_000)), Verdict::Passes);
    }

    #[test]
    fn an_ipv6_network_is_one_client_and_what_is_said_is_no_address() {
        let now = Instant::now();
        let (rates, quota) = (Rates::new(now), quota(1, 60, 1));
        let from = |address: &str| rates.ask(quota, Key::Client(address.parse().unwrap()), now);
        assert_eq!(from("2001:db8:1:2::1"), Verdict::Passes);
        assert!(matches!(from("2001:db8:1:2:ffff::2"), Verdict::Refused(_)));
        assert_eq!(from("2001:db8:1:3::1"), Verdict::Passes);
        assert_eq!(from("203.0.113.9"), Verdict::Passes);
        assert!(matches!(from("::ffff:203.0.113.9"), Verdict::Refused(_)));
        assert_eq!(rates.ask(quota, Key::Said(&[203, 0, 113, 8]), now), Verdict::Passes);
        assert_eq!(from("203.0.113.8"), Verdict::Passes);
    }

    #[test]
    fn two_tables_hash_differently() {
        let (a, b) = (Rates::new(Instant::now()), Rates::new(Instant::now()));
        assert_ne!(a.who(said("ann")), b.who(said("ann")));
    }

    #[test]
    fn threads_share_one_quota() {
        let now = Instant::now();
        let (rates, quota) = (Rates::new(now), quota(1, 3600, 1000));
        let passed: usize = std::thread::scope(|scope| {
            let threads: Vec<_> =
                (0..4).map(|_| scope.spawn(|| passing(&rates, quota, said("ann"), now, 700))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(passed, 1000);
    }

    #[test]
    fn however_many_come_the_table_stays_small_nobody_is_locked_out_and_who_is_over_stays_known() {
        let now = Instant::now();
        let (rates, quota) = (Rates::new(now), quota(1, 3600, 5));
        let over: Vec<String> = (0..100).map(|n| format!("over {n}")).collect();
        for name in &over {
            assert_eq!(passing(&rates, quota, said(name), now, 6), 5);
        }
        let mut displaced = 0;
        for n in 0..3 * MAX_RATED {
            match rates.ask(quota, said(&n.to_string()), now) {
                Verdict::Passes => {}
                Verdict::Displaces => displaced += 1,
                Verdict::Refused(_) => panic!("newcomer {n} is locked out"),
            }
        }
        assert!(displaced > MAX_RATED, "{displaced}");
        assert!(known(&rates) <= MAX_RATED);
        for name in &over {
            assert_eq!(passing(&rates, quota, said(name), now, 1), 0, "{name} has got away");
        }
    }

    #[test]
    fn who_owes_nothing_any_more_makes_room_before_the_table_grows() {
        let now = Instant::now();
        let (rates, quota) = (Rates::new(now), quota(1, 1, 1));
        for n in 0..MAX_RATED as u64 {
            let later = now + Duration::from_secs(2 * n);
            assert_eq!(rates.ask(quota, said(&n.to_string()), later), Verdict::Passes);
        }
        assert!(known(&rates) <= BUCKETS, "{}", known(&rates));
    }

    proptest! {
        #[test]
        fn while_there_is_room_it_agrees_with_a_map(
            asks in prop::collection::vec((0_u8..40, 0_u64..2000), 1..400),
            (requests, burst) in (1_u32..20, 1_u32..5),
        ) {
            let born = Instant::now();
            let (rates, quota) = (Rates::new(born), quota(requests, 1, burst));
            let mut naive: HashMap<u8, u64> = HashMap::new();
            let mut millis = 0;
            for (who, pause) in asks {
                millis += pause / 20;
                let verdict = rates.ask(quota, Key::Said(&[who]), born + Duration::from_millis(millis));
                let due = naive.entry(who).or_default();
                let (next, answer) = quota.ask(*due, millis * 1_000_000);
                *due = next;
                let expected = match answer {
                    Ok(()) => Verdict::Passes,
                    Err(wait) => Verdict::Refused(Duration::from_nanos(wait)),
                };
                prop_assert_eq!(verdict, expected);
            }
        }
    }
}
