//! A backend: what never changes of it, what does, and the right to use it.
//!
//! [`Backend`] is immutable and belongs to a snapshot. [`Vitals`] outlives snapshots: the
//! control thread alone writes how it stands, each data thread alone its own shard of counts.
//! A [`Post`] is one thread's side of a backend, and a [`Lease`] the right to use it for one
//! attempt: taken in the same synchronous step as the pick, given back on drop.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use http::HeaderValue;
use slab::Slab;

use super::hold::Hold;
use super::policy::Load;
use super::sessions::Sessions;
use super::status::Standing;
use crate::http::timer::Timer;
use crate::listen::Descriptors;
use crate::plan::BackendPlan;
use crate::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use crate::sync::{Mutex, MutexGuard};
use crate::telemetry::BackendSeries;
use crate::upstream::{Client, Keep, Link, Way};

/// A backend as one snapshot has it.
pub struct Backend {
    pub plan: BackendPlan,
    /// Its address as a Host header.
    pub host: HeaderValue,
    pub way: Way,
    pub vitals: Arc<Vitals>,
}

/// What changes of a backend.
pub struct Vitals {
    pub pool: Arc<str>,
    pub name: Arc<str>,
    pub series: Arc<BackendSeries>,
    /// What policies decide by; written by every thread, and only where a policy needs it.
    pub load: Arc<Load>,
    standing: AtomicU8,
    /// A drain, not a failure, is why it does not stand open.
    leaving: AtomicU8,
    /// It is on its pool's roster: a backup is only while no primary is.
    seated: AtomicBool,
    addresses: Mutex<Arc<[SocketAddr]>>,
    shards: Box<[Shard]>,
}

/// One thread's counts, on cache lines of their own.
#[derive(Default)]
#[repr(align(128))]
pub struct Shard {
    in_flight: AtomicU32,
    tunnels: AtomicU32,
    idle: AtomicU32,
    /// Requests that wait for a stream.
    waiting: Arc<std::sync::atomic::AtomicU32>,
    requests_cut: AtomicU64,
    tunnels_cut: AtomicU64,
    sessions: Sessions,
}

/// Counts over all threads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub in_flight: u64,
    pub tunnels: u64,
    pub idle: u64,
    pub waiting: u64,
    pub requests_cut: u64,
    pub tunnels_cut: u64,
}

impl Vitals {
    pub fn new(
        pool: &str,
        name: &str,
        addresses: Vec<SocketAddr>,
        series: Arc<BackendSeries>,
        threads: usize,
        now: Instant,
    ) -> Self {
        Self {
            pool: pool.into(),
            name: name.into(),
            series,
            load: Arc::new(Load::new(now)),
            standing: AtomicU8::new(Standing::Shut.to_u8()),
            leaving: AtomicU8::new(0),
            seated: AtomicBool::new(false),
            addresses: Mutex::new(addresses.into()),
            shards: (0..threads).map(|_| Shard::default()).collect(),
        }
    }

    pub fn standing(&self) -> Standing {
        Standing::from_u8(self.standing.load(Ordering::Acquire))
    }

    /// Whether a drain is what shuts it.
    pub fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Acquire) != 0
    }

    /// Whether those who are bound to nobody may be dealt to it.
    pub fn is_seated(&self) -> bool {
        self.seated.load(Ordering::Acquire)
    }

    /// Control thread only.
    pub fn set_seated(&self, seated: bool) {
        self.seated.store(seated, Ordering::Release);
    }

    /// Control thread only.
    pub fn set_standing(&self, standing: Standing, leaving: bool) {
        self.leaving.store(leaving.into(), Ordering::Release);
        self.standing.store(standing.to_u8(), Ordering::Release);
    }

    pub fn addresses(&self) -> Arc<[SocketAddr]> {
        lock(&self.addresses).clone()
    }

    pub fn set_addresses(&self, addresses: Vec<SocketAddr>) {
        *lock(&self.addresses) = addresses.into();
    }

    pub fn counts(&self) -> Counts {
        self.shards.iter().fold(Counts::default(), |sum, shard| Counts {
            in_flight: sum.in_flight + u64::from(shard.in_flight.load(Ordering::Acquire)),
            tunnels: sum.tunnels + u64::from(shard.tunnels.load(Ordering::Acquire)),
            idle: sum.idle + u64::from(shard.idle.load(Ordering::Relaxed)),
            waiting: sum.waiting + u64::from(shard.waiting.load(Ordering::Relaxed)),
            requests_cut: sum.requests_cut + shard.requests_cut.load(Ordering::Relaxed),
            tunnels_cut: sum.tunnels_cut + shard.tunnels_cut.load(Ordering::Relaxed),
        })
    }

    /// Each thread's sessions; a reader makes their union.
    pub fn sessions(&self) -> impl Iterator<Item = &Sessions> {
        self.shards.iter().map(|shard| &shard.sessions)
    }
}

/// One thread's side of one backend: its connections, and the leases it has given out.
pub struct Post {
    pub vitals: Arc<Vitals>,
    pub client: Client,
    thread: usize,
    /// Where requests wait for it and the others of its pool.
    hold: Arc<Hold>,
    /// The timers of the exchanges and tunnels that hold a lease: what a cut wakes. The flag: a tunnel.
    leases: RefCell<Slab<(Timer, bool)>>,
}

impl Post {
    pub fn new(
        vitals: Arc<Vitals>,
        thread: usize,
        keep: Keep,
        way: Way,
        hold: Arc<Hold>,
        descriptors: Arc<Descriptors>,
    ) -> Rc<Self> {
        let waiting = vitals.shards[thread].waiting.clone();
        let client = Client::new(keep, way, descriptors, waiting);
        Rc::new(Self { vitals, client, thread, hold, leases: RefCell::default() })
    }

    fn shard(&self) -> &Shard {
        &self.vitals.shards[self.thread]
    }

    /// Takes a lease for whoever waits by `timer`. `place` is the backend's in its pool;
    /// `shared`: it has been counted over all threads.
    pub fn lease(self: &Rc<Self>, place: usize, timer: &Timer, shared: bool) -> Lease {
        let key = self.leases.borrow_mut().insert((timer.clone(), false));
        add(&self.shard().in_flight, 1);
        Lease { post: self.clone(), place, key, shared, tunnel: false }
    }

    /// Notes that `session` was here; it counts as gone after `window` of silence.
    pub fn seen(&self, session: u64, now: u64, window: Duration) {
        self.shard().sessions.seen(session, now, window);
    }

    /// Ends every wait on this backend: the deadline of its drain has passed.
    pub fn cut(&self) {
        let shard = self.shard();
        for (_, (timer, tunnel)) in self.leases.borrow().iter() {
            timer.cut();
            // Not the shard's counts: a backend that left the file and came back has two posts.
            let cut = if *tunnel { &shard.tunnels_cut } else { &shard.requests_cut };
            cut.store(cut.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        }
    }

    pub fn give_back(&self, link: Link, now: Instant) {
        self.client.put(link, now);
    }

    /// Closes what idles too long and publishes how many connections remain.
    pub fn sweep(&self, now: Instant) {
        self.client.sweep(now);
        self.publish_idle();
    }

    pub fn close_idle(&self) {
        self.client.close_idle();
        self.publish_idle();
    }

    /// The backend is no longer in the file: nothing is kept for later.
    pub fn retire(&self) {
        self.client.retire();
        self.publish_idle();
    }

    fn publish_idle(&self) {
        let idle = u32::try_from(self.client.idle_connections()).unwrap_or(u32::MAX);
        self.shard().idle.store(idle, Ordering::Relaxed);
    }
}

/// The right to use a backend for one attempt, or for as long as a tunnel lives.
pub struct Lease {
    pub post: Rc<Post>,
    pub place: usize,
    key: usize,
    shared: bool,
    tunnel: bool,
}

impl Lease {
    /// The backend has answered after `took`.
    pub fn answered(&self, took: Duration, now: Instant) {
        if self.shared {
            self.post.vitals.load.observe(took, now);
        }
    }

    /// The exchange has become a tunnel: it is counted as one, and `timer` is what cuts it.
    pub fn into_tunnel(mut self, timer: &Timer) -> Self {
        self.tunnel = true;
        add(&self.post.shard().tunnels, 1);
        add(&self.post.shard().in_flight, -1);
        self.post.leases.borrow_mut()[self.key] = (timer.clone(), true);
        self
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.post.leases.borrow_mut().remove(self.key);
        let shard = self.post.shard();
        add(if self.tunnel { &shard.tunnels } else { &shard.in_flight }, -1);
        if self.shared {
            self.post.hold.release(&self.post.vitals);
        }
    }
}

/// Adds to a count that only this thread writes.
fn add(count: &AtomicU32, by: i32) {
    count.store(count.load(Ordering::Relaxed).wrapping_add_signed(by), Ordering::Release);
}

/// No one panics while holding these locks; a poisoned one is as good as any.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
