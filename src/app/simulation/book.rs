//! What ought to be, kept in the simplest way: who said what of which backend, what probes found,
//! which sessions were there, and who was dealt what.

use std::collections::{BTreeMap, BTreeSet};

use crate::app::fleet::{Fleet, Key};
use crate::drain::Phase;
use crate::plan::{BackendAddress, FileState, Plan};

#[derive(Default)]
pub struct Book {
    pub backends: BTreeMap<Key, Entry>,
    pub deals: BTreeMap<String, Deals>,
}

/// One backend.
pub struct Entry {
    pub address: BackendAddress,
    pub file: Phase,
    pub operator: Option<Phase>,
    /// Its last answer to a probe asked for a drain.
    pub asks_to_drain: bool,
    /// In a row.
    pub passes: u32,
    pub fails: u32,
    /// When each session was last there.
    pub sessions: BTreeMap<u64, u64>,
}

/// What a pool's policy has dealt since who may be picked last changed.
#[derive(Default)]
pub struct Deals {
    pub seats: BTreeMap<String, u32>,
    /// By round robin, one after the other.
    pub turns: Vec<String>,
    /// By key: whom it was given, among whom.
    pub keys: BTreeMap<u64, (String, BTreeMap<String, u32>)>,
}

impl Book {
    /// The file says this from now on. `fleet`: as it was before.
    pub fn reloaded(&mut self, plan: &Plan, fleet: &Fleet) {
        for pool in &plan.pools {
            for backend in &pool.backends {
                let key = (pool.name.clone(), backend.name.clone());
                if fleet.get(&key).is_none() {
                    self.backends.remove(&key);
                }
                let file = phase(backend.state);
                let entry = self.backends.entry(key).or_insert_with(|| Entry::new(&backend.address, file));
                if entry.file != file {
                    (entry.file, entry.operator) = (file, None);
                }
                if entry.address != backend.address {
                    entry.address = backend.address.clone();
                    (entry.passes, entry.fails) = (0, 0);
                    entry.sessions.clear();
                }
                // Nobody is left to end what a probe's answer began.
                entry.asks_to_drain &= pool.health.is_some();
            }
        }
        self.deals.clear();
    }
}

impl Entry {
    fn new(address: &BackendAddress, file: Phase) -> Self {
        Self {
            address: address.clone(),
            file,
            operator: None,
            asks_to_drain: false,
            passes: 0,
            fails: 0,
            sessions: BTreeMap::new(),
        }
    }

    /// The most restrictive word, an operator's before the file's.
    pub fn phase(&self) -> Phase {
        let drains = if self.asks_to_drain { Phase::Draining } else { Phase::Active };
        self.operator.unwrap_or(self.file).max(drains)
    }

    pub fn ready(&mut self) {
        self.operator = (self.file != Phase::Active).then_some(Phase::Active);
    }
}

impl Deals {
    /// Who may be picked is somebody else, or weighs something else.
    pub fn seated(&mut self, seats: BTreeMap<String, u32>) {
        if self.seats != seats {
            self.turns.clear();
            self.seats = seats;
        }
    }

    /// A turn of round robin went to `backend`: any full cycle has exactly everybody's share.
    pub fn turn(&mut self, backend: &str) {
        self.turns.push(backend.to_owned());
        let divisor = self.seats.values().fold(0, |divisor, weight| gcd(divisor, *weight)).max(1);
        let cycle = (self.seats.values().sum::<u32>() / divisor) as usize;
        if let Some(start) = self.turns.len().checked_sub(cycle) {
            for (name, weight) in &self.seats {
                let turns = self.turns[start..].iter().filter(|turn| *turn == name).count();
                assert_eq!(
                    turns,
                    (weight / divisor) as usize,
                    "{name}'s share of {:?}",
                    &self.turns[start..]
                );
            }
        }
    }

    /// A hashed key went to `backend`: it leaves whom it had only if that one left, or for
    /// somebody who joined.
    pub fn hashed(&mut self, key: u64, backend: &str) {
        let now = (backend.to_owned(), self.seats.clone());
        let Some((had, among)) = self.keys.insert(key, now) else { return };
        let stays = |(name, weight): (&String, &u32)| among.get(name).is_none_or(|before| before == weight);
        if had == backend || !self.seats.contains_key(&had) || !self.seats.iter().all(stays) {
            return;
        }
        let joined: BTreeSet<_> = self.seats.keys().filter(|name| !among.contains_key(*name)).collect();
        assert!(joined.contains(&backend.to_owned()), "a key moved from {had} to {backend}");
    }
}

pub fn phase(state: FileState) -> Phase {
    match state {
        FileState::Active => Phase::Active,
        FileState::Draining => Phase::Draining,
        FileState::Stopped => Phase::Stopped,
    }
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}
