//! Every backend that the process knows, and how it stands. Written by the control thread only.
//!
//! Start at [`Member`]. It joins what sources say of a backend (its words, its streak of
//! probes, its drain) into the standing that data threads read. No I/O: what has to be told or
//! done is returned.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crate::drain::{Drain, Left, Phase, Words};
use crate::plan::{BackendAddress, BackendPlan, BackendTlsPlan, FileState, HealthInit, OnDrain, PoolPlan};
use crate::pool::backend::{Counts, Vitals};
use crate::pool::health::{Health, Streak};
use crate::pool::outlier::Outlier;
use crate::pool::session_window;
use crate::pool::sessions;
use crate::pool::status::{Facts, SLOW_START_STEPS, Standing, slow_start_step};
use crate::proxy::unix_now;
use crate::telemetry::Telemetry;

/// A backend's name: its pool's, and its own.
pub type Key = (String, String);

/// Every backend by name, those that left the file but still have something to finish included.
#[derive(Default)]
pub struct Fleet {
    members: BTreeMap<Key, Member>,
    /// Backends whose address has changed: the old ones finish what they have.
    pub former: Vec<Arc<Vitals>>,
}

pub struct Member {
    pub plan: BackendPlan,
    pub vitals: Arc<Vitals>,
    pub words: Words,
    pub streak: Streak,
    pub state_since: SystemTime,
    pub health_since: SystemTime,
    pub reason: Option<String>,
    pub drain: Option<Following>,
    /// When it came back or joined: slow start counts from here.
    pub back_since: Option<Instant>,
    /// No longer in the file.
    pub removed: bool,
    /// Its name does not resolve; the reason.
    pub unresolved: Option<String>,
    /// What its traffic says against it.
    pub outlier: Outlier,
    /// Why it was ejected last.
    pub ejected_for: String,
    tls: Option<BackendTlsPlan>,
    probed: bool,
    init: HealthInit,
    sticky: bool,
    keeps: bool,
    window: Duration,
}

/// A drain, and what it is measured against.
pub struct Following {
    pub id: u64,
    pub drain: Drain,
    pub sessions_then: u64,
    pub sessions_moved: u64,
    pub counts_then: Counts,
    pub over: Option<Instant>,
}

impl Fleet {
    pub fn get(&self, key: &Key) -> Option<&Member> {
        self.members.get(key)
    }

    pub fn get_mut(&mut self, key: &Key) -> Option<&mut Member> {
        self.members.get_mut(key)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&Key, &Member)> {
        self.members.iter()
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&Key, &mut Member)> {
        self.members.iter_mut()
    }

    /// Whoever may still have something to finish.
    pub fn vitals(&self) -> impl Iterator<Item = &Arc<Vitals>> {
        self.members.values().map(|member| &member.vitals).chain(&self.former)
    }

    /// The backends of a pool, in the plan's order.
    pub fn of<'a>(&'a self, plan: &'a PoolPlan) -> impl Iterator<Item = &'a Member> {
        plan.backends
            .iter()
            .filter_map(|backend| self.members.get(&(plan.name.clone(), backend.name.clone())))
    }

    /// The vitals that each backend of `pools` will have: its own, or new ones where it is new
    /// or its address has changed, or how it is spoken to in TLS. Touches nothing that runs.
    pub fn prepare(
        &self,
        pools: &[PoolPlan],
        telemetry: &Telemetry,
        threads: usize,
        now: Instant,
    ) -> HashMap<Key, Arc<Vitals>> {
        let backends = pools.iter().flat_map(|pool| pool.backends.iter().map(move |backend| (pool, backend)));
        let vitals = backends.map(|(pool, backend)| {
            let key = (pool.name.clone(), backend.name.clone());
            let kept = self.members.get(&key).filter(|member| {
                member.plan.address == backend.address && is_written_like(&member.tls, &pool.tls)
            });
            let vitals = match kept {
                Some(member) => member.vitals.clone(),
                None => {
                    let series = telemetry.backend(&pool.name, &backend.name);
                    let addresses = known(&backend.address);
                    Arc::new(Vitals::new(&pool.name, &backend.name, addresses, series, threads, now))
                }
            };
            (key, vitals)
        });
        vitals.collect()
    }

    /// Takes over what was prepared. Cannot fail.
    pub fn adopt(
        &mut self,
        pools: &[PoolPlan],
        mut vitals: HashMap<Key, Arc<Vitals>>,
        first: bool,
        now: Instant,
    ) {
        for member in self.members.values_mut() {
            member.removed = true;
        }
        for pool in pools {
            for backend in &pool.backends {
                let key = (pool.name.clone(), backend.name.clone());
                let vitals = vitals.remove(&key).expect("prepare made vitals for every backend");
                match self.members.get_mut(&key) {
                    Some(member) => {
                        if !Arc::ptr_eq(&member.vitals, &vitals) {
                            member.vitals.set_standing(Standing::Shut, false);
                            self.former.push(std::mem::replace(&mut member.vitals, vitals));
                            member.streak = member.streak.elsewhere(init(pool), now);
                            member.outlier = Outlier::default();
                            member.health_since = SystemTime::now();
                            member.back_since = Some(now);
                            if let Some(following) = &mut member.drain {
                                // The counts begin anew as well.
                                following.counts_then = Counts::default();
                            }
                        }
                        member.update(pool, backend, now);
                    }
                    None => drop(self.members.insert(key, Member::new(pool, backend, vitals, first, now))),
                }
            }
        }
        // Requests that still look at the old snapshot must not find them open.
        for member in self.members.values().filter(|member| member.removed) {
            member.vitals.set_standing(Standing::Shut, false);
        }
    }

    /// Forgets who left the file and has nothing left to finish.
    pub fn forget(&mut self) {
        let gone = |vitals: &Vitals| {
            let counts = vitals.counts();
            counts.in_flight == 0 && counts.tunnels == 0
        };
        self.members.retain(|_, member| !(member.removed && gone(&member.vitals)));
        self.former.retain(|vitals| !gone(vitals));
    }
}

impl Member {
    fn new(pool: &PoolPlan, backend: &BackendPlan, vitals: Arc<Vitals>, first: bool, now: Instant) -> Self {
        let init = init(pool);
        let mut member = Self {
            plan: backend.clone(),
            vitals,
            words: Words::default(),
            streak: Streak::new(init, now),
            state_since: SystemTime::now(),
            health_since: SystemTime::now(),
            reason: None,
            drain: None,
            back_since: (!first).then_some(now),
            removed: false,
            unresolved: None,
            outlier: Outlier::default(),
            ejected_for: String::new(),
            tls: None,
            probed: false,
            init,
            sticky: false,
            keeps: false,
            window: Duration::ZERO,
        };
        member.update(pool, backend, now);
        member
    }

    fn update(&mut self, pool: &PoolPlan, backend: &BackendPlan, now: Instant) {
        self.plan = backend.clone();
        self.removed = false;
        self.tls.clone_from(&pool.tls);
        self.probed = pool.health.is_some();
        self.init = init(pool);
        self.sticky = pool.sticky;
        self.keeps = pool.sticky && pool.cookie.on_drain == OnDrain::Keep;
        self.window = session_window(pool);
        let before = self.phase();
        if !self.probed {
            // Nobody is left to end what a probe's answer began.
            self.words.health = Phase::Active;
            self.streak.asks_no_more();
        }
        self.words.file_says(match backend.state {
            FileState::Active => Phase::Active,
            FileState::Draining => Phase::Draining,
            FileState::Stopped => Phase::Stopped,
        });
        self.turned(before, true, now);
    }

    /// The phase that counts: a drain that has come to its end shows as drained.
    pub fn phase(&self) -> Phase {
        match self.words.phase() {
            Phase::Draining if self.drain.as_ref().is_some_and(|following| following.drain.is_over()) => {
                Phase::Drained
            }
            phase => phase,
        }
    }

    /// Acts on a change of the words: a backend that comes back from where it took nothing starts
    /// slowly, and `rises` first unless its own answer is what brought it back. Returns whether
    /// the phase is another one.
    pub fn turned(&mut self, before: Phase, rises: bool, now: Instant) -> bool {
        let phase = self.phase();
        if phase == before {
            return false;
        }
        self.state_since = SystemTime::now();
        if phase == Phase::Active {
            self.drain = None;
            self.reason = None;
            if before != Phase::Draining {
                if self.probed && rises {
                    self.streak.await_rise(now);
                }
                self.back_since = Some(now);
            }
        }
        true
    }

    /// Begins to drain, or hurries the drain that runs.
    pub fn begin_drain(&mut self, id: u64, deadline: Option<Instant>, now: Instant) {
        match &mut self.drain {
            Some(following) if !following.drain.is_over() => following.drain.hurry(deadline),
            _ => {
                self.drain = Some(Following {
                    id,
                    drain: Drain::begin(self.keeps, deadline, now),
                    sessions_then: self.sessions(unix_now()),
                    sessions_moved: 0,
                    counts_then: self.vitals.counts(),
                    over: None,
                });
            }
        }
    }

    /// `clock`: seconds since 1970.
    pub fn left(&self, clock: u64) -> Left {
        let counts = self.vitals.counts();
        Left { in_flight: counts.in_flight, tunnels: counts.tunnels, sessions: self.sessions(clock) }
    }

    /// Sessions seen within the window, over all threads; none in a pool that keeps none.
    pub fn sessions(&self, clock: u64) -> u64 {
        if !self.sticky {
            return 0;
        }
        sessions::union(self.vitals.sessions(), clock, self.window).count()
    }

    pub fn keeps_sessions(&self) -> bool {
        self.keeps
    }

    pub fn session_window(&self) -> Duration {
        self.window
    }

    pub fn is_probed(&self) -> bool {
        self.probed
    }

    pub fn is_up(&self) -> bool {
        match self.streak.health() {
            Health::Up => self.unresolved.is_none(),
            Health::Unknown => self.init == HealthInit::Up && self.unresolved.is_none(),
            Health::Down => false,
        }
    }

    /// How it stands by itself; see `publish` for how it stands beside the others.
    pub fn standing(&self) -> Standing {
        self.facts().map_or(Standing::Shut, Facts::standing)
    }

    /// `None`: nothing can be sent to it.
    pub(super) fn facts(&self) -> Option<Facts> {
        if self.removed || self.unresolved.is_some() {
            return None;
        }
        let holds = self.drain.as_ref().is_none_or(|following| following.drain.holds_tokens());
        Some(Facts {
            phase: self.phase(),
            health: self.streak.health(),
            init: self.init,
            ejected: self.outlier.is_ejected(),
            keeps_known: self.keeps && holds,
        })
    }

    /// 1 to 9 while it starts slowly, else 10.
    pub fn step(&self, pool: &PoolPlan, now: Instant) -> u32 {
        match self.back_since {
            Some(since) if !pool.slow_start.is_zero() => {
                slow_start_step(now.saturating_duration_since(since), pool.slow_start)
            }
            _ => SLOW_START_STEPS,
        }
    }
}

fn is_written_like(one: &Option<BackendTlsPlan>, other: &Option<BackendTlsPlan>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => one.is_written_like(other),
        (one, other) => one.is_none() && other.is_none(),
    }
}

fn init(pool: &PoolPlan) -> HealthInit {
    pool.health.as_ref().map_or(HealthInit::Up, |health| health.init)
}

/// The addresses known without asking anybody.
fn known(address: &BackendAddress) -> Vec<SocketAddr> {
    match address {
        BackendAddress::Ip(address) => vec![*address],
        BackendAddress::Name { .. } => Vec::new(),
    }
}
