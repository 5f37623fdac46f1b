//! Many shoppers at once: they arrive, they shop while something happens, and they are counted.
//!
//! Start at [`Crowd::shop_while`]. What it brings back is a [`Log`]; [`Crowd::census`] then asks
//! everybody once, also those who happened to be thinking.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream;
use tokio::sync::watch;

use super::Strategy;
use super::shopper::{Notice, Shopper, Visit};
use crate::harness::{Outcome, Series};

/// How many things somebody puts into the cart when they arrive.
const THINGS: usize = 2;
/// Nobody's cart grows beyond this.
const FULL_CART: usize = 12;
/// How many do the same thing at the same time. No multiple of three or four: `round_robin` would
/// send the next request of everybody to the same replica again, and hide what it does to them.
const DOOR: usize = 47;
/// How many may hurry at the same time: fewer than three replicas serve at once, so nobody queues.
const HURRYING: usize = 8;
/// The one address that every tenth user comes from: an office.
const OFFICE: Ipv4Addr = Ipv4Addr::new(10, 200, 0, 1);

pub struct Crowd {
    pub shoppers: Vec<Shopper>,
    chance: fastrand::Rng,
    /// How long a user thinks between two requests, on average.
    pub think: Duration,
}

/// What a user was about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// Looked at the cart or put something into it.
    Shopped,
    /// Looked once more, and then logged out.
    Left,
    /// Took the place of the one who left: another person, who logs in with a new browser.
    Arrived,
}

/// One visit, and when it ended.
#[derive(Clone, Debug)]
pub struct Moment {
    pub at: Duration,
    pub user: usize,
    pub deed: Deed,
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
        each(&mut self.shoppers, DOOR, async |shopper| {
            arrive(shopper).await;
        })
        .await;
        Ok(())
    }

    /// Every user looks once: where they are served, and who has lost what. Whoever has lost their
    /// session logs in again.
    pub async fn census(&mut self) -> Outcome<Vec<Sighting>> {
        let look = async |shopper: &mut Shopper| {
            let visit = shopper.look().await;
            come_back(shopper, &visit).await;
            Sighting { replica: visit.replica, kept: !shopper.lost }
        };
        Ok(each(&mut self.shoppers, DOOR, look).await)
    }

    /// How many have lost their session since the last time this was asked.
    pub fn lost(&mut self) -> usize {
        self.shoppers.iter_mut().filter_map(|shopper| std::mem::take(&mut shopper.lost).then_some(())).count()
    }

    /// The first few put something into the cart and look at it at once, so many times, without
    /// thinking: what one replica has written, the next one must already know.
    pub async fn hurry(&mut self, users: usize, rounds: usize) -> Vec<Visit> {
        let users = users.min(self.shoppers.len());
        let visits = each(&mut self.shoppers[..users], HURRYING, async |shopper| {
            let mut visits = Vec::new();
            for _ in 0..rounds {
                visits.push(shopper.add().await);
                visits.push(shopper.look().await);
            }
            visits
        });
        visits.await.concat()
    }

    /// All shop for as long as `event` takes.
    pub async fn shop_while<T>(&mut self, event: impl Future<Output = T>) -> Outcome<(T, Log)> {
        self.shop_and_leave(|_| None, event).await
    }

    /// As [`shop_while`](Self::shop_while), but some log out: `leaves` says when, counted from the
    /// beginning. Somebody new takes their place at once.
    pub async fn shop_and_leave<T>(
        &mut self,
        leaves: impl Fn(usize) -> Option<Duration>,
        event: impl Future<Output = T>,
    ) -> Outcome<(T, Log)> {
        let (stop, stopped) = watch::channel(false);
        let (began, think) = (Instant::now(), self.think);
        let chances: Vec<_> = self.shoppers.iter().map(|_| self.chance.fork()).collect();
        let users = self.shoppers.iter_mut().zip(chances).enumerate().map(|(user, (shopper, chance))| {
            let day = Day { user, chance, think, began, leaves: leaves(user), stopped: stopped.clone() };
            shop(day, shopper)
        });
        let event = async {
            let happened = event.await;
            stop.send_replace(true);
            (happened, began.elapsed())
        };
        let ((happened, lasted), moments) = tokio::join!(event, join_all(users));
        let mut log = Log { moments: moments.concat(), lasted };
        log.moments.sort_by_key(|moment| moment.at);
        Ok((happened, log))
    }

    /// All shop for so long.
    pub async fn shop(&mut self, long: Duration) -> Outcome<Log> {
        Ok(self.shop_while(tokio::time::sleep(long)).await?.1)
    }
}

/// How one user's shopping goes.
struct Day {
    user: usize,
    chance: fastrand::Rng,
    think: Duration,
    began: Instant,
    leaves: Option<Duration>,
    stopped: watch::Receiver<bool>,
}

impl Day {
    /// Thinks for a share of the usual time. Whether the shopping goes on after that.
    async fn goes_on_after(&mut self, share: f64) -> bool {
        let thinking = self.think.mul_f64(share);
        tokio::time::timeout(thinking, self.stopped.wait_for(|stopped| *stopped)).await.is_err()
    }
}

/// A user looks, adds, thinks; and logs in again when the shop has forgotten them.
async fn shop(mut day: Day, shopper: &mut Shopper) -> Vec<Moment> {
    let mut moments = Vec::new();
    let (user, began) = (day.user, day.began);
    // Not all at the same instant.
    let mut share = day.chance.f64();
    while day.goes_on_after(share).await {
        let mut note = |deed, visit| moments.push(Moment { at: began.elapsed(), user, deed, visit });
        if day.leaves.take_if(|at| *at <= began.elapsed()).is_some() {
            note(Deed::Left, shopper.look().await);
            shopper.log_out().await;
            shopper.browser.forget();
            note(Deed::Arrived, arrive(shopper).await);
        } else {
            let adds = shopper.cart.len() < FULL_CART && day.chance.u8(..5) == 0;
            let visit = if adds { shopper.add().await } else { shopper.look().await };
            come_back(shopper, &visit).await;
            note(Deed::Shopped, visit);
        }
        share = 0.5 + day.chance.f64();
    }
    moments
}

/// Logs in and fills a cart; the last visit is told.
async fn arrive(shopper: &mut Shopper) -> Visit {
    shopper.cart.clear();
    let mut visit = shopper.log_in().await;
    for _ in 0..THINGS {
        visit = shopper.add().await;
    }
    visit
}

/// What somebody does who is a stranger all of a sudden.
async fn come_back(shopper: &mut Shopper, visit: &Visit) {
    match visit.notice {
        Some(Notice::LoggedOut) => {
            shopper.lost = true;
            shopper.log_in().await;
        }
        Some(Notice::CartLacks) => shopper.lost = true,
        Some(Notice::Failed) | None => {}
    }
}

/// Does the same for everybody, a few at a time; what they bring back is in their order.
async fn each<T>(shoppers: &mut [Shopper], at_once: usize, act: impl AsyncFn(&mut Shopper) -> T) -> Vec<T> {
    stream::iter(shoppers).map(|shopper| act(shopper)).buffered(at_once).collect().await
}

impl Log {
    /// Answers without trouble, per second.
    pub fn served_per_second(&self) -> f64 {
        self.served_between(Duration::ZERO, self.lasted)
    }

    /// Answers without trouble, per second of a part of the time.
    pub fn served_between(&self, from: Duration, to: Duration) -> f64 {
        let within = self.moments.iter().filter(|moment| (from..to).contains(&moment.at));
        let served = within.filter(|moment| moment.visit.notice != Some(Notice::Failed)).count();
        served as f64 / to.saturating_sub(from).as_secs_f64().max(0.001)
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
        troubled.map(|moment| moment.user).collect::<BTreeSet<_>>().len()
    }

    /// Each replica's share of the answers over time, in percent.
    pub fn shares(&self, bucket: Duration) -> Vec<Series> {
        let mut counts: BTreeMap<u128, BTreeMap<&str, usize>> = BTreeMap::new();
        for moment in self.moments.iter().filter(|moment| !moment.visit.replica.is_empty()) {
            let at = moment.at.as_micros() / bucket.as_micros();
            *counts.entry(at).or_default().entry(&moment.visit.replica).or_default() += 1;
        }
        let names: BTreeSet<_> = counts.values().flat_map(|bucket| bucket.keys()).collect();
        let point = |name: &str, at: u128, counts: &BTreeMap<&str, usize>| {
            let all: usize = counts.values().sum();
            let its = counts.get(name).copied().unwrap_or(0);
            ((at as f64 + 0.5) * bucket.as_secs_f64(), 100.0 * its as f64 / all.max(1) as f64)
        };
        let series = |name: &&&str| Series {
            name: name.to_string(),
            points: counts.iter().map(|(at, counts)| point(name, *at, counts)).collect(),
        };
        names.iter().map(series).collect()
    }
}
