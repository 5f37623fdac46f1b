//! The process, played: a control thread, data threads that are late with their orders, requests,
//! probes and operators. Each step is drawn.

use std::collections::{HashMap, HashSet, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use fastrand::Rng;
use http::StatusCode;
use tokio::sync::mpsc;

use super::book::Book;
use super::request::{Came, Request, State};
use super::{plans, rules};
use crate::admin::view::StateOrder;
use crate::app::control::{Control, Echo};
use crate::app::fleet::{Fleet, Key};
use crate::app::probe::{News, Target};
use crate::app::publish::publish;
use crate::app::worker::{Load, Order};
use crate::app::{Bound, Source, keys};
use crate::drain::Phase;
use crate::http::timer::Wheel;
use crate::limit::Heads;
use crate::listen::Descriptors;
use crate::live::Site;
use crate::live::build::{Carry, snapshot};
use crate::plan::BackendAddress;
use crate::pool::Shared;
use crate::pool::affinity::Token;
use crate::pool::backend::Vitals;
use crate::pool::health::{Found, Verdict};
use crate::pool::policy::Cursor;
use crate::proxy::{Evidence, Proxy};
use crate::telemetry::{AccessLog, Telemetry};

const THREADS: usize = 2;
const CLIENTS: usize = 6;
/// Requests under way at a time.
const CROWD: usize = 24;

/// Seconds since 1970 at the beginning: far ahead, so that nothing is older than it seems.
const CLOCK: u64 = 1 << 33;

pub struct World {
    pub control: Control,
    pub threads: Vec<Thread>,
    pub requests: Vec<Request>,
    pub book: Book,
    pub now: Instant,
    pub answered: u64,
    /// The most that may be in flight on each backend.
    pub ceilings: HashMap<usize, u32>,
    /// Counts what the control thread has taken in and threads have obeyed; and, by it, when all had
    /// to learn of each drain anew.
    pub event: u64,
    pub shut: HashMap<u64, u64>,
    /// Drains that found nobody left.
    pub emptied: HashSet<u64>,
    began: Instant,
    rng: Rng,
    tokens: HashMap<(String, usize), Token>,
    /// Told, and not yet taken in.
    pub evidence: VecDeque<Evidence>,
    told: mpsc::Receiver<Evidence>,
    echoes: mpsc::Receiver<Echo>,
    targets: mpsc::Receiver<Vec<Target>>,
    probed: Vec<Target>,
    /// Kept, so that no two are ever at one address.
    watched: Vec<Arc<Vitals>>,
}

/// A data thread, which obeys one order at a time, and when it comes to it.
pub struct Thread {
    pub proxy: Rc<Proxy>,
    pub orders: VecDeque<Order>,
    /// When it last obeyed one.
    pub obeyed: u64,
    inbox: mpsc::Receiver<Order>,
}

/// What the control thread has just taken in.
pub enum Cause {
    Tick,
    Refused(Key),
    Fault(Key),
    Passed(Key),
    Failed(Key),
    AskedToDrain(Key),
    Order,
    Reload,
    Echo,
    /// What a name leads to, or something about an address that a backend has left.
    Other,
}

impl World {
    pub fn new(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let plan = plans::first(&mut rng);
        let began = Instant::now();
        let telemetry = Telemetry::new(THREADS);
        let access_log = AccessLog::start(&plan.log.access, telemetry.clone()).expect("it is off");
        let mut book = Book::default();
        let mut fleet = Fleet::default();
        book.reloaded(&plan, &fleet);
        let vitals = fleet.prepare(&plan.pools, &telemetry, THREADS, began);
        let keys = keys::ring(&plan, &HashMap::new());
        let shared: HashMap<_, _> =
            plan.pools.iter().map(|pool| (pool.name.clone(), shared(&mut rng))).collect();
        let carry = Carry {
            telemetry: &telemetry,
            vitals: &vitals,
            shared: &shared,
            keys: &keys,
            before: None,
            acceptors: HashMap::new(),
            connectors: HashMap::new(),
        };
        let live = Arc::new(ArcSwap::from_pointee(snapshot(plan.clone(), 1, carry)));
        fleet.adopt(&plan.pools, vitals, true, began);
        for pool in &live.load().pools {
            publish(pool, &fleet, began);
        }
        let (evidence_to, told) = mpsc::channel(1024);
        let (echo, echoes) = mpsc::channel(1024);
        let (probes, targets) = mpsc::channel(1024);
        let (outcomes, _) = mpsc::channel(1);
        let (workers, inboxes): (Vec<_>, Vec<_>) = (0..THREADS).map(|_| mpsc::channel(1024)).unzip();
        let threads = inboxes.into_iter().enumerate().map(|(thread, inbox)| {
            let site = Site { thread, threads: THREADS, descriptors: Descriptors::new(1000) };
            let (wheel, log) = (Wheel::new(began), access_log.sink());
            let proxy = Proxy::new(site, live.clone(), wheel, telemetry.clone(), log, evidence_to.clone());
            Thread { proxy, orders: VecDeque::new(), obeyed: 0, inbox }
        });
        let threads = threads.collect();
        let listeners = plan.listeners.iter().flat_map(|listener| {
            let bound = |at: &_| Bound { name: listener.name.clone(), asked: *at, actual: *at };
            listener.bind.iter().map(bound)
        });
        let mut control = Control {
            live,
            generation: 1,
            started_with: plan.restart_only(),
            fleet,
            shared,
            keys,
            tickets: Default::default(),
            heads: Heads::new(usize::MAX),
            telemetry,
            access_log,
            event_log: None,
            events: Default::default(),
            workers,
            loads: (0..THREADS).map(|_| Load::default()).collect(),
            probes,
            watch: None,
            files: Default::default(),
            text: String::new(),
            source: Source::text(""),
            listeners: listeners.collect(),
            sockets: HashMap::new(),
            doors: None,
            notifier: Default::default(),
            program: None,
            upgrading: None,
            outcomes,
            successor: None,
            elders: Vec::new(),
            started: began,
            last_reload: None,
            ready: false,
            panicking: Default::default(),
            ending: None,
            next_drain: 1,
            past_drains: VecDeque::new(),
            echo,
            plan,
        };
        control.retarget();
        control.drain_what_should(began);
        Self {
            control,
            threads,
            requests: Vec::new(),
            book,
            now: began,
            answered: 0,
            ceilings: HashMap::new(),
            event: 0,
            shut: HashMap::new(),
            emptied: HashSet::new(),
            watched: Vec::new(),
            began,
            rng,
            tokens: HashMap::new(),
            evidence: VecDeque::new(),
            told,
            echoes,
            targets,
            probed: Vec::new(),
        }
    }

    /// Seconds since 1970.
    pub fn clock(&self) -> u64 {
        CLOCK + (self.now - self.began).as_secs()
    }

    /// One thing happens.
    pub async fn step(&mut self) {
        match self.rng.u8(..100) {
            0..10 => self.pass_time(),
            10..22 => self.tick().await,
            22..46 => self.arrive(),
            46..68 => self.go_on(),
            68..76 => self.obey(),
            76..82 => self.hear().await,
            82..88 => self.heed().await,
            88..94 => self.probe().await,
            94..97 => self.order().await,
            _ => self.reload().await,
        }
        self.settle().await;
    }

    /// Everybody gets to the end of what is under way, and the end is quiet.
    pub async fn finish(&mut self) {
        // Longer than any deadline, and than any session lives.
        self.now += Duration::from_secs(130);
        for _ in 0..60 {
            if rules::is_quiet(self) {
                break;
            }
            self.now += Duration::from_secs(2);
            self.tick().await;
            while self.threads.iter().any(|thread| !thread.orders.is_empty()) || !self.echoes.is_empty() {
                (0..THREADS).for_each(|thread| self.obey_next(thread));
                self.settle().await;
                self.hear().await;
                self.settle().await;
            }
            for at in 0..self.requests.len() {
                self.go(at);
            }
            self.settle().await;
        }
        assert!(self.requests.is_empty(), "a request has no end: hold and attempts are limited");
        rules::end(self);
    }

    fn pass_time(&mut self) {
        let longest = [100, 1_000, 5_000, 40_000][self.rng.usize(..4)];
        self.now += Duration::from_millis(self.rng.u64(1..=longest));
    }

    /// The control thread's look at everything that waits. It comes every tenth of a second, so
    /// that nothing else happens long after.
    async fn tick(&mut self) {
        let before = rules::standing_of(&self.control);
        let report = self.control.tick(self.now, self.clock()).await;
        assert!(report.is_none(), "nobody asked it to end");
        rules::changed(self, &before, &Cause::Tick);
        self.settle().await;
        rules::followed(self);
    }

    fn arrive(&mut self) {
        if self.requests.len() >= CROWD {
            return;
        }
        let thread = self.rng.usize(..THREADS);
        let pool = ["app", "web"][self.rng.usize(..2)];
        let client = self.rng.usize(..CLIENTS);
        let token = self.tokens.get(&(pool.to_owned(), client)).cloned();
        let (idempotent, has_body) = (self.rng.bool(), self.rng.u8(..) < 60);
        let proxy = self.threads[thread].proxy.clone();
        let key = (client as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.requests.push(Request::new(proxy, pool, client, key, token, idempotent, has_body));
        self.go(self.requests.len() - 1);
    }

    fn go_on(&mut self) {
        if !self.requests.is_empty() {
            let at = self.rng.usize(..self.requests.len());
            if self.rng.u8(..) < 10 {
                // Its client goes away.
                drop(self.requests.remove(at));
            } else {
                self.go(at);
            }
        }
    }

    fn go(&mut self, at: usize) {
        let Some(request) = self.requests.get_mut(at) else { return };
        let (loads, picks) = (rules::loads(&self.control, &request.pool), request.picks);
        let came = request.go(self.now, &mut self.rng);
        // A turn that went elsewhere than to the next, or to nobody, begins another cycle.
        let turns = request.picks - picks;
        let plain = matches!(&came, Came::Picked(picked) if picked.clean && turns == 1);
        let current = Arc::ptr_eq(&request.view.snapshot, &self.control.live.load());
        if turns > 0
            && !(plain && current)
            && let Some(deals) = self.book.deals.get_mut(&request.pool)
        {
            deals.turns.clear();
        }
        match came {
            Came::Nothing => {}
            Came::Picked(picked) => rules::picked(self, at, &picked, &loads),
            Came::Answered { vitals } => self.stamp(at, &vitals),
        }
        self.requests.retain(|request| !matches!(request.state, State::Over));
    }

    /// The client has its session on this backend now, as `proxy::affinity::stamp` has it.
    fn stamp(&mut self, at: usize, vitals: &Arc<Vitals>) {
        self.answered += 1;
        let (clock, request) = (self.clock(), &self.requests[at]);
        let Some(pool) = request.pool().filter(|pool| pool.pool.plan.sticky) else { return };
        let known = self.tokens.entry((request.pool.clone(), request.client));
        let session = request.client as u64 + 1;
        let token = Token { backend: vitals.name.to_string(), issued: clock, last_seen: clock, session };
        known.insert_entry(token);
        let lease = request.lease().expect("an answer has a lease");
        lease.post.seen(session, clock, pool.pool.session_window());
        let key = (vitals.pool.to_string(), vitals.name.to_string());
        let current = self.is_current(&key, vitals);
        if let Some(entry) = self.book.backends.get_mut(&key).filter(|_| current) {
            entry.sessions.insert(session, clock);
        }
    }

    /// The backend is known, and still where these vitals are of.
    fn is_current(&self, key: &Key, vitals: &Arc<Vitals>) -> bool {
        self.control.fleet.get(key).is_some_and(|member| Arc::ptr_eq(&member.vitals, vitals))
    }

    fn obey(&mut self) {
        let thread = self.rng.usize(..THREADS);
        self.obey_next(thread);
    }

    /// What `worker::Worker` does with an order.
    fn obey_next(&mut self, thread: usize) {
        if self.threads[thread].orders.is_empty() {
            return;
        }
        let proxy = self.threads[thread].proxy.clone();
        let posts_of = |vitals: &Arc<Vitals>| {
            let posts = proxy.posts();
            posts.into_iter().filter(|post| Arc::ptr_eq(&post.vitals, vitals)).collect::<Vec<_>>()
        };
        match self.threads[thread].orders.pop_front() {
            Some(Order::Look(done)) => {
                proxy.view();
                let _ = done.send(());
            }
            Some(Order::CloseIdle(vitals, done)) => {
                posts_of(&vitals).iter().for_each(|post| post.close_idle());
                let _ = done.send(());
            }
            Some(Order::Cut(vitals, done)) => {
                let before = vitals.counts();
                posts_of(&vitals).iter().for_each(|post| post.cut());
                rules::cut(self, thread, &vitals, before);
                let _ = done.send(());
            }
            Some(Order::TellTunnels(Some(vitals), most)) => {
                posts_of(&vitals).iter().fold(most, |left, post| left - post.tell_tunnels(left));
            }
            Some(_) | None => {}
        }
        self.event += 1;
        self.threads[thread].obeyed = self.event;
    }

    async fn hear(&mut self) {
        while let Ok(echo) = self.echoes.try_recv() {
            let before = rules::standing_of(&self.control);
            self.control.hear(echo, self.now);
            rules::changed(self, &before, &Cause::Echo);
        }
    }

    async fn heed(&mut self) {
        let Some(evidence) = self.evidence.pop_front() else { return };
        let key = (evidence.vitals.pool.to_string(), evidence.vitals.name.to_string());
        let refused = matches!(evidence.what, crate::proxy::Against::Refused(_));
        let cause = match self.is_current(&key, &evidence.vitals) {
            false => Cause::Other,
            true if refused => Cause::Refused(key),
            true => Cause::Fault(key),
        };
        let before = rules::standing_of(&self.control);
        self.control.heed(evidence, self.now);
        rules::changed(self, &before, &cause);
    }

    /// Something that the probe thread asks about is answered; the answer may be late, too.
    async fn probe(&mut self) {
        if self.probed.is_empty() {
            return;
        }
        let target = self.probed[self.rng.usize(..self.probed.len())].clone();
        let key = (target.vitals.pool.to_string(), target.vitals.name.to_string());
        let before = rules::standing_of(&self.control);
        if matches!(target.address, BackendAddress::Name { .. }) && self.rng.bool() {
            let found = match self.rng.bool() {
                true => Ok(vec![([127, 0, 0, 1], 9009).into()]),
                false => Err("no such name".to_owned()),
            };
            self.control.learn(News::Resolved(target.vitals, found), self.now);
            return rules::changed(self, &before, &Cause::Other);
        }
        let current = self.is_current(&key, &target.vitals) && self.control.plan.pool(&key.0).is_some();
        let took = Duration::from_millis(1);
        let drains = self.control.plan.pool(&key.0).is_some_and(|pool| pool.health.is_some());
        let (verdict, cause) = match self.rng.u8(..10) {
            0..6 => (Verdict::Pass { found: Found::Connected, took }, Cause::Passed(key.clone())),
            6 if drains => {
                let status = StatusCode::SERVICE_UNAVAILABLE;
                (Verdict::DrainAnswer { status, took }, Cause::AskedToDrain(key.clone()))
            }
            _ => (Verdict::Fail { why: "500".into() }, Cause::Failed(key.clone())),
        };
        if let Some(entry) = self.book.backends.get_mut(&key).filter(|_| current) {
            match verdict {
                Verdict::Pass { .. } => {
                    (entry.passes, entry.fails, entry.asks_to_drain) = (entry.passes + 1, 0, false);
                }
                Verdict::Fail { .. } => (entry.passes, entry.fails) = (0, entry.fails + 1),
                Verdict::DrainAnswer { .. } => entry.asks_to_drain = true,
            }
        }
        let cause = if current { cause } else { Cause::Other };
        self.control.learn(News::Verdict(target.vitals, verdict), self.now);
        rules::changed(self, &before, &cause);
    }

    async fn order(&mut self) {
        let keys: Vec<Key> = self.control.fleet.iter().map(|(key, _)| key.clone()).collect();
        let key = keys[self.rng.usize(..keys.len())].clone();
        let (state, word) = [
            ("active", Phase::Active),
            ("draining", Phase::Draining),
            ("draining", Phase::Draining),
            ("stopped", Phase::Stopped),
        ][self.rng.usize(..4)];
        let deadline = [None, Some(0.0), Some(2.0), Some(30.0), Some(120.0)][self.rng.usize(..5)];
        let deadline_seconds = deadline.filter(|_| word == Phase::Draining);
        let order =
            StateOrder { state: state.into(), deadline_seconds, force: self.rng.bool(), reason: None };
        let before = rules::standing_of(&self.control);
        if self.control.set_state(key.clone(), &order, self.now).is_ok() {
            let entry = self.book.backends.get_mut(&key).expect("it is known");
            match word {
                Phase::Active => entry.ready(),
                word => entry.operator = Some(word),
            }
        }
        rules::changed(self, &before, &Cause::Order);
    }

    async fn reload(&mut self) {
        let plan = plans::edited(self.control.plan.clone(), &mut self.rng);
        for pool in &plan.pools {
            // In its place: one that begins its turns where the seed says.
            let known = self.control.shared.contains_key(&pool.name);
            if !known {
                self.control.shared.insert(pool.name.clone(), shared(&mut self.rng));
            }
        }
        self.book.reloaded(&plan, &self.control.fleet);
        let before = rules::standing_of(&self.control);
        let changed = self.control.change_to(String::new(), plans::compiled(plan), self.now).await;
        assert!(changed.is_ok(), "nothing of it can fail");
        rules::changed(self, &before, &Cause::Reload);
    }

    /// Lets what was told arrive, and holds what is against what ought to be.
    pub async fn settle(&mut self) {
        for _ in 0..3 {
            tokio::task::yield_now().await;
        }
        while let Ok(evidence) = self.told.try_recv() {
            self.evidence.push_back(evidence);
        }
        while let Ok(targets) = self.targets.try_recv() {
            self.probed = targets;
        }
        for thread in 0..THREADS {
            while let Ok(order) = self.threads[thread].inbox.try_recv() {
                if let Order::CloseIdle(vitals, _) = &order {
                    rules::emptied(self, vitals);
                }
                self.threads[thread].orders.push_back(order);
            }
        }
        self.requests.iter_mut().for_each(Request::hear);
        for (_, member) in self.control.fleet.iter() {
            if !self.watched.iter().any(|known| Arc::ptr_eq(known, &member.vitals)) {
                self.watched.push(member.vitals.clone());
            }
        }
        self.book.backends.retain(|key, _| self.control.fleet.get(key).is_some());
        rules::hold(self);
    }
}

/// What a pool keeps over reloads, its turns beginning where the seed says.
fn shared(rng: &mut Rng) -> Arc<Shared> {
    Arc::new(Shared { cursor: Cursor::at(rng.u32(..).into()), ..Shared::default() })
}
