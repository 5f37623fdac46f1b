//! Many shoppers at once: they arrive, they shop while something happens, and they are counted.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::shopper::{Notice, Shopper, Visit};
use super::{Strategy, shopper};
use crate::harness::{Outcome, Series, Spread};

/// How many things somebody puts into the cart when they arrive.
const THINGS: usize = 3;
/// Nobody's cart grows beyond this.
const FULL_CART: usize = 12;
/// How many arrive at the same time.
const DOOR: usize = 48;
/// The one address that every tenth user comes from: an office.
const OFFICE: Ipv4Addr = Ipv4Addr::new(10, 200, 0, 1);

pub struct Crowd {
    pub shoppers: Vec<Shopper>,
    chance: fastrand::Rng,
    /// How long a user thinks between two requests, on average.
    pub think: Duration,
}

/// One visit, and when it ended.
#[derive(Clone, Debug)]
pub struct Moment {
    pub at: Duration,
    pub user: usize,
    pub visit: Visit,
}

/// What happened while the crowd shopped.
#[derive(Clone, Debug, Default)]
pub struct Log {
    pub moments: Vec<Moment>,
    pub lasted: Duration,
}

/// Where a user is served, and whether their session is whole.
#[derive(Clone, Debug)]
pub struct Sighting {
    pub replica: String,
    pub kept: bool,
}

impl Crowd {
    /// Users with addresses of their own; every tenth sits in the same office.
    pub fn new(at: SocketAddr, strategy: Strategy, users: usize, chance: fastrand::Rng) -> Self {
        let mut shoppers: Vec<_> = (0..users).map(|number| Shopper::new(at, strategy, number)).collect();
        shoppers.iter_mut().step_by(10).for_each(|shopper| shopper.browser.ip = OFFICE);
        Self { shoppers, chance, think: Duration::from_millis(200) }
    }

    /// All log in and fill a cart.
    pub async fn arrive(&mut self) -> Outcome<()> {
        let all = std::mem::take(&mut self.shoppers);
        self.shoppers = each(all, async |shopper| {
            shopper.log_in().await;
            for _ in 0..THINGS {
                shopper.add().await;
            }
        })
        .await?;
        Ok(())
    }

    /// Every user looks once: where they are served, and who has lost what. Whoever has lost their
    /// session logs in again.
    pub async fn census(&mut self) -> Outcome<Vec<Sighting>> {
        let all = std::mem::take(&mut self.shoppers);
        let (sender, mut sightings) = tokio::sync::mpsc::unbounded_channel();
        self.shoppers = each(all, async move |shopper| {
            let visit = shopper.look().await;
            come_back(shopper, &visit).await;
            let _ =
                sender.send((shopper.user.clone(), Sighting { replica: visit.replica, kept: !shopper.lost }));
        })
        .await?;
        let mut seen = BTreeMap::new();
        while let Some((user, sighting)) = sightings.recv().await {
            seen.insert(user, sighting);
        }
        Ok(self.shoppers.iter().filter_map(|shopper| seen.remove(&shopper.user)).collect())
    }

    /// How many have lost their session since the last time this was asked.
    pub fn lost(&mut self) -> usize {
        self.shoppers.iter_mut().filter_map(|shopper| std::mem::take(&mut shopper.lost).then_some(())).count()
    }

    /// All shop for as long as `event` takes.
    pub async fn shop_while<T>(&mut self, event: impl Future<Output = T>) -> Outcome<(T, Log)> {
        let (stop, began) = (Arc::new(AtomicBool::new(false)), Instant::now());
        let mut tasks = JoinSet::new();
        for (user, shopper) in std::mem::take(&mut self.shoppers).into_iter().enumerate() {
            let chance = fastrand::Rng::with_seed(self.chance.u64(..));
            tasks.spawn(shop(user, shopper, chance, self.think, began, stop.clone()));
        }
        let happened = event.await;
        stop.store(true, Relaxed);
        let lasted = began.elapsed();
        let mut log = Log { moments: Vec::new(), lasted };
        let mut back = BTreeMap::new();
        while let Some(done) = tasks.join_next().await {
            let (user, shopper, moments) = done?;
            back.insert(user, shopper);
            log.moments.extend(moments);
        }
        self.shoppers = back.into_values().collect();
        log.moments.sort_by_key(|moment| moment.at);
        Ok((happened, log))
    }

    /// All shop for so long.
    pub async fn shop(&mut self, long: Duration) -> Outcome<Log> {
        Ok(self.shop_while(tokio::time::sleep(long)).await?.1)
    }
}

/// A user looks, adds, thinks; and logs in again when the shop has forgotten them.
async fn shop(
    user: usize,
    mut shopper: Shopper,
    mut chance: fastrand::Rng,
    think: Duration,
    began: Instant,
    stop: Arc<AtomicBool>,
) -> (usize, Shopper, Vec<Moment>) {
    let mut moments = Vec::new();
    // Not all at the same instant.
    tokio::time::sleep(think.mul_f64(chance.f64())).await;
    while !stop.load(Relaxed) {
        let adds = shopper.cart.len() < FULL_CART && chance.u8(..5) == 0;
        let visit = if adds { shopper.add().await } else { shopper.look().await };
        come_back(&mut shopper, &visit).await;
        moments.push(Moment { at: began.elapsed(), user, visit });
        tokio::time::sleep(think.mul_f64(0.5 + chance.f64())).await;
    }
    (user, shopper, moments)
}

/// What somebody does who is a stranger all of a sudden.
async fn come_back(shopper: &mut Shopper, visit: &Visit) {
    match visit.notice {
        Some(shopper::Notice::LoggedOut) => {
            shopper.lost = true;
            shopper.log_in().await;
        }
        Some(shopper::Notice::CartLacks) => shopper.lost = true,
        Some(shopper::Notice::Failed) | None => {}
    }
}

/// Does the same for everybody, a few dozen at a time.
async fn each<F>(shoppers: Vec<Shopper>, act: F) -> Outcome<Vec<Shopper>>
where
    F: AsyncFn(&mut Shopper) + 'static,
{
    let act = std::rc::Rc::new(act);
    let local = tokio::task::LocalSet::new();
    local
        .run_until(async move {
            let door = std::rc::Rc::new(tokio::sync::Semaphore::new(DOOR));
            let mut tasks = JoinSet::new();
            for (user, mut shopper) in shoppers.into_iter().enumerate() {
                let (act, door) = (act.clone(), door.clone());
                tasks.spawn_local(async move {
                    let _passed = door.acquire().await.expect("it is never closed");
                    act(&mut shopper).await;
                    (user, shopper)
                });
            }
            let mut back = BTreeMap::new();
            while let Some(done) = tasks.join_next().await {
                let (user, shopper) = done?;
                back.insert(user, shopper);
            }
            Ok(back.into_values().collect())
        })
        .await
}

impl Log {
    /// Answers without trouble, per second.
    pub fn served_per_second(&self) -> f64 {
        let served = self.moments.iter().filter(|moment| moment.visit.notice != Some(Notice::Failed)).count();
        served as f64 / self.lasted.as_secs_f64()
    }

    pub fn requests(&self) -> usize {
        self.moments.len()
    }

    /// Requests that failed.
    pub fn failed(&self) -> usize {
        self.moments.iter().filter(|moment| moment.visit.notice == Some(Notice::Failed)).count()
    }

    /// Users who saw any trouble.
    pub fn noticed(&self) -> usize {
        let troubled = self.moments.iter().filter(|moment| moment.visit.notice.is_some());
        troubled.map(|moment| moment.user).collect::<std::collections::BTreeSet<_>>().len()
    }

    pub fn times(&self) -> Spread {
        Spread::of(self.moments.iter().map(|moment| moment.visit.took))
    }

    /// The share of answers that a replica gave from some time on.
    pub fn share(&self, replica: &str, from: Duration) -> f64 {
        let later: Vec<_> = self.moments.iter().filter(|moment| moment.at >= from).collect();
        let its = later.iter().filter(|moment| moment.visit.replica == replica).count();
        its as f64 / later.len().max(1) as f64
    }

    /// Each replica's share of the answers over time, in percent.
    pub fn shares(&self, bucket: Duration) -> Vec<Series> {
        let mut counts: BTreeMap<u128, BTreeMap<&str, usize>> = BTreeMap::new();
        for moment in self.moments.iter().filter(|moment| !moment.visit.replica.is_empty()) {
            let at = moment.at.as_micros() / bucket.as_micros();
            *counts.entry(at).or_default().entry(&moment.visit.replica).or_default() += 1;
        }
        let names: std::collections::BTreeSet<_> = counts.values().flat_map(|bucket| bucket.keys()).collect();
        let point = |name: &str, at: u128, counts: &BTreeMap<&str, usize>| {
            let all: usize = counts.values().sum();
            let its = counts.get(name).copied().unwrap_or(0);
            ((at as f64 + 0.5) * bucket.as_secs_f64(), 100.0 * its as f64 / all.max(1) as f64)
        };
        let series = |name: &&&str| Series {
            name: (**name).to_string(),
            points: counts.iter().map(|(at, counts)| point(name, *at, counts)).collect(),
        };
        names.iter().map(|name| series(&name)).collect()
    }
}
