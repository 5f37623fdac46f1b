//! Users whose sessions last a known time: log in, fill a cart, look now and then, buy, leave. For
//! everybody who leaves somebody new comes, so that the load stays the same.
//!
//! Start at [`Visitors`]; one session is [`Floor::session`].

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::harness::{Outcome, Spread};
use crate::shop::{Notice, Shopper, Strategy, Visit};

/// How many things somebody puts into the cart.
const THINGS: usize = 2;
/// How long a crowd may take to settle.
const PATIENCE: Duration = Duration::from_secs(20);

/// How many shop at the same time, and for how long each.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    pub users: usize,
    /// Sessions last anything between these two, each length as often as every other.
    pub shortest: Duration,
    pub longest: Duration,
    /// How long a user thinks between two looks, on average.
    pub think: Duration,
}

impl Pace {
    pub fn median(&self) -> Duration {
        (self.shortest + self.longest) / 2
    }

    fn draw(&self, chance: &mut fastrand::Rng) -> Duration {
        self.shortest + (self.longest - self.shortest).mul_f64(chance.f64())
    }
}

/// A session in the shop.
#[derive(Clone, Debug)]
pub struct Stay {
    pub user: usize,
    /// Who answered the log-in.
    pub replica: String,
    /// When the user means to buy and leave.
    pub leaves: Instant,
}

/// What came of everybody.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    pub sessions: usize,
    pub requests: usize,
    pub failed: usize,
    /// How much later than they meant to people had bought: their requests take time too.
    pub overruns: Vec<Duration>,
    /// Users who were a stranger all of a sudden, or whose cart lacked what was put in.
    pub lost: BTreeSet<usize>,
}

/// A shop full of users.
pub struct Visitors {
    floor: Arc<Floor>,
    tasks: JoinSet<()>,
}

struct Floor {
    at: SocketAddr,
    strategy: Strategy,
    pace: Pace,
    next: AtomicUsize,
    over: AtomicBool,
    book: Mutex<(BTreeMap<usize, Stay>, Tally)>,
}

impl Visitors {
    /// Users come, at once and from then on.
    pub fn come(at: SocketAddr, strategy: Strategy, pace: Pace, mut chance: fastrand::Rng) -> Self {
        let (next, over, book) = (AtomicUsize::new(0), AtomicBool::new(false), Mutex::default());
        let floor = Arc::new(Floor { at, strategy, pace, next, over, book });
        let mut tasks = JoinSet::new();
        for _ in 0..pace.users {
            tasks.spawn(floor.clone().keep_coming(chance.fork()));
        }
        Self { floor, tasks }
    }

    /// Who is in the shop now.
    pub fn present(&self) -> Vec<Stay> {
        self.floor.book().0.values().cloned().collect()
    }

    pub fn pace(&self) -> &Pace {
        &self.floor.pace
    }

    /// How much later than they meant to people had bought, so far.
    pub fn overruns(&self) -> Spread {
        Spread::of(self.floor.book().1.overruns.iter().copied())
    }

    /// Returns when as many have left as can be in the shop: sessions of every age are in it now.
    pub async fn settle(&self) -> Outcome<()> {
        let patience = Instant::now() + PATIENCE;
        while self.floor.book().1.sessions < self.floor.pace.users {
            if Instant::now() > patience {
                return Err(format!("sessions are far longer than {:?}", self.floor.pace.longest).into());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    /// Lets nobody new in and tells what came of those who were there.
    pub async fn go_home(mut self) -> Outcome<Tally> {
        self.floor.over.store(true, Relaxed);
        while let Some(gone) = self.tasks.join_next().await {
            gone?;
        }
        Ok(std::mem::take(&mut self.floor.book().1))
    }
}

impl Floor {
    /// One user after the other. The first begins in the midst of a session, so that not all of
    /// the first leave together.
    async fn keep_coming(self: Arc<Self>, mut chance: fastrand::Rng) {
        let mut length = self.pace.draw(&mut chance).mul_f64(chance.f64());
        while !self.over.load(Relaxed) {
            let user = self.next.fetch_add(1, Relaxed);
            self.session(user, length, &mut chance).await;
            length = self.pace.draw(&mut chance);
        }
    }

    /// From the log-in to the log-out, or to where the session is lost.
    async fn session(&self, user: usize, length: Duration, chance: &mut fastrand::Rng) {
        let mut shopper = Shopper::new(self.at, self.strategy, user);
        let visit = shopper.log_in().await;
        self.count(&visit);
        if !shopper.logged_in {
            return tokio::time::sleep(self.pace.think).await;
        }
        let stay = Stay { user, replica: visit.replica, leaves: Instant::now() + length };
        let leaves = stay.leaves;
        self.book().0.insert(user, stay);
        let kept = self.shop(&mut shopper, leaves, chance).await;
        {
            let mut book = self.book();
            book.0.remove(&user);
            book.1.sessions += 1;
            if !kept {
                book.1.lost.insert(user);
                return;
            }
            book.1.overruns.push(leaves.elapsed());
        }
        self.count(&shopper.log_out().await);
    }

    /// Fills the cart, looks, and buys in the end. Whether the session was whole all the time.
    async fn shop(&self, shopper: &mut Shopper, leaves: Instant, chance: &mut fastrand::Rng) -> bool {
        loop {
            // Everybody looks once more when it is over, to see whether something is lost.
            let last = self.over.load(Relaxed);
            let fills = shopper.cart.len() < THINGS;
            let buys = !fills && leaves <= Instant::now();
            let visit = match () {
                () if fills => shopper.add().await,
                () if buys => shopper.check_out().await,
                () => shopper.look().await,
            };
            self.count(&visit);
            if matches!(visit.notice, Some(Notice::LoggedOut | Notice::CartLacks)) {
                return false;
            }
            if last || (buys && visit.notice.is_none()) {
                return true;
            }
            if !fills || visit.notice.is_some() {
                let thinks = self.pace.think.mul_f64(0.5 + chance.f64());
                let left = leaves.saturating_duration_since(Instant::now());
                // Who tries again after a failure does not try at once.
                let waits = if visit.notice.is_some() { thinks } else { thinks.min(left) };
                tokio::time::sleep(waits).await;
            }
        }
    }

    fn count(&self, visit: &Visit) {
        let tally = &mut self.book().1;
        tally.requests += 1;
        tally.failed += usize::from(visit.notice == Some(Notice::Failed));
    }

    fn book(&self) -> MutexGuard<'_, (BTreeMap<usize, Stay>, Tally)> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
