//! What happens to every stand, and what is seen of it. Start at [`Booth::happens`].

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use pintle::admin::view::DrainView;
use tokio::time::sleep;

use super::{Event, Way};
use crate::harness::figures::share;
use crate::harness::{Outcome, Spoil, Stage};
use crate::shop::crowd::{Crowd, Log, Sighting};
use crate::shop::{Order, Stand, Strategy, Visit};
use crate::store::Store;

/// How many replicas there are at first.
pub const REPLICAS: usize = 3;
/// Every so many-th user gets a new address.
pub const MOBILE: usize = 20;
/// How long everybody may take to ask once or twice more.
const PATIENCE: Duration = Duration::from_secs(10);

/// All that was seen of a stand.
pub struct Story {
    pub way: &'static Way,
    pub scenes: Vec<Scene>,
    /// What users saw who put something into the cart and looked at once.
    pub hurried: Vec<Visit>,
}

/// An event, and what was seen of it.
pub struct Scene {
    pub event: Event,
    /// What users met while it happened.
    pub log: Log,
    /// Where each user sits afterwards, and whether they lost their session.
    pub seats: Vec<Sighting>,
    pub found: Found,
}

/// What is particular to an event.
#[derive(Default)]
pub struct Found {
    /// In the log's time: when it began.
    pub began: Duration,
    /// When it had its effect: replica 4 is up, tokens no longer hold, the store is back.
    pub done: Duration,
    /// Until when served requests are counted.
    pub measured: Duration,
    /// Where those sit who came after a replica was added.
    pub newcomers: Vec<Sighting>,
    /// What the balancer says of a drain.
    pub drain: Option<DrainView>,
}

impl Scene {
    pub fn lost(&self) -> usize {
        self.seats.iter().filter(|seat| !seat.kept).count()
    }

    /// Answers per second, and from how many replicas, before a replica was added and after.
    pub fn served(&self) -> [(f64, usize); 2] {
        let Found { began, done, measured, .. } = self.found;
        let window = measured.saturating_sub(done);
        [(began.saturating_sub(window), began), (done, measured)]
            .map(|(from, to)| (self.log.served_between(from, to), serving(&self.log, from, to)))
    }
}

/// How many replicas answered in a part of the time.
fn serving(log: &Log, from: Duration, to: Duration) -> usize {
    let within = log.moments.iter().filter(|moment| (from..to).contains(&moment.at));
    let names = within.map(|moment| moment.visit.replica.as_str()).filter(|name| !name.is_empty());
    names.collect::<BTreeSet<_>>().len()
}

impl Story {
    pub fn scene(&self, event: Event) -> Option<&Scene> {
        self.scenes.iter().find(|scene| scene.event == event)
    }

    /// Where everybody sat before an event.
    pub fn before(&self, event: Event) -> &[Sighting] {
        let at = self.scenes.iter().position(|scene| scene.event == event).unwrap_or(0);
        at.checked_sub(1).map_or(&[], |at| &self.scenes[at].seats)
    }

    pub fn users(&self) -> usize {
        self.scenes[0].seats.len()
    }
}

/// How many and how long.
struct Pace {
    users: usize,
    /// Between two requests of a user. But for the smallest scale three replicas are then a little
    /// too few for all of them, and four are enough.
    think: Duration,
    /// Before and after whatever happens.
    moment: Duration,
    /// In which served requests are counted.
    window: Duration,
    deadline: Duration,
    outage: Duration,
}

/// A stand, its store and its users.
struct Booth<'s> {
    stage: &'s Stage,
    way: &'static Way,
    pace: Pace,
    stand: Stand,
    store: Option<Store>,
    crowd: Crowd,
}

pub async fn tell(stage: &Stage, way: &'static Way) -> Outcome<Story> {
    let began = Instant::now();
    let mut booth = Booth::open(stage, way).await?;
    let mut story = Story { way, scenes: Vec::new(), hurried: Vec::new() };
    for &event in way.events {
        story.scenes.push(booth.happens(event).await?);
        if event == Event::Calm {
            story.hurried = booth.crowd.hurry(24, 3).await;
        }
    }
    booth.close().await?;

    let (scene, when) = match story.scene(Event::Kill) {
        Some(kill) => (kill, "when replica 1 was killed"),
        None => (&story.scenes[0], "while nothing happened"),
    };
    let lost = share(scene.lost(), story.users());
    stage.say(format!("{}: {lost} lost their session {when} ({:.1?})", way.name, began.elapsed()));
    Ok(story)
}

impl<'s> Booth<'s> {
    async fn open(stage: &'s Stage, way: &'static Way) -> Outcome<Self> {
        let (millis, users) = (Duration::from_millis, stage.pick(150, 300, 600));
        let pace = Pace {
            users,
            think: stage.pick(millis(400), millis(200), millis(400)),
            moment: stage.pick(millis(150), millis(300), millis(1200)),
            window: stage.pick(millis(300), millis(900), millis(3000)),
            deadline: stage.pick(millis(2500), millis(5000), millis(15_000)),
            outage: millis(2000),
        };
        let store = match way.strategy {
            Strategy::Central => Some(stage.stoppable_store().await?),
            _ => None,
        };
        let mut order = Order::new(way.strategy);
        order.store = store.as_ref().map(|store| store.url().to_owned());
        order.local_copies = stage.spoil == Some(Spoil::Cache);

        let stand = Stand::open(stage, order, REPLICAS, way.toml).await?;
        let mut crowd = Crowd::new(stand.balancer.address, way.strategy, users, stage.chance(way.id));
        crowd.think = pace.think;
        crowd.arrive().await?;
        Ok(Self { stage, way, pace, stand, store, crowd })
    }

    /// The crowd goes first: a balancer waits for connections that may still have something to say.
    async fn close(self) -> Outcome<()> {
        drop(self.crowd);
        self.stand.close().await;
        match self.store {
            Some(store) => store.close().await,
            None => Ok(()),
        }
    }

    /// Everybody shops while it happens; then everybody is asked.
    async fn happens(&mut self, event: Event) -> Outcome<Scene> {
        let Self { pace, stand, store, crowd, .. } = self;
        let (found, log) = match event {
            Event::Calm => crowd.shop_while(calm(pace)).await?,
            Event::NewAddresses => {
                for (number, shopper) in crowd.shoppers.iter_mut().enumerate().skip(5).step_by(MOBILE) {
                    let [.., high, low] = (number as u32).to_be_bytes();
                    shopper.browser.ip = [10, 77, high, low].into();
                }
                crowd.shop_while(calm(pace)).await?
            }
            Event::Kill => crowd.shop_while(kill(pace, stand)).await?,
            Event::Return => crowd.shop_while(come_back(pace, stand)).await?,
            Event::Add => {
                let chance = self.stage.chance("newcomers");
                let mut newcomers =
                    Crowd::new(stand.balancer.address, self.way.strategy, pace.users * 11 / 10, chance);
                newcomers.shoppers.drain(..pace.users);
                crowd.shop_while(add(pace, stand, self.way.toml, newcomers)).await?
            }
            Event::Remove => crowd.shop_while(remove(pace, stand)).await?,
            Event::Drain => {
                let leaving = leaving(pace);
                crowd.shop_and_leave(leaving, drain(pace, stand, self.way.is_sticky())).await?
            }
            Event::StoreDown => crowd.shop_while(lose_store(pace, store.as_mut())).await?,
        };
        let seats = crowd.census().await?;
        crowd.lost();
        Ok(Scene { event, log, seats, found: found? })
    }
}

async fn calm(pace: &Pace) -> Outcome<Found> {
    sleep(pace.moment).await;
    Ok(Found::default())
}

/// No goodbye to anybody.
async fn kill(pace: &Pace, stand: &mut Stand) -> Outcome<Found> {
    sleep(pace.moment).await;
    stand.replicas[0].kill();
    sleep(pace.moment).await;
    Ok(Found::default())
}

/// Its operator says `ready` when it is: a replicated one has learnt from its peers by then.
async fn come_back(pace: &Pace, stand: &mut Stand) -> Outcome<Found> {
    stand.balancer.pintle.stop("app/r1").await.map_err(|fault| fault.detail)?;
    stand.replicas[0].restart().await?;
    crate::shop::wait_for_peers(stand.order.strategy, &stand.replicas).await?;
    stand.balancer.pintle.ready("app/r1").await.map_err(|fault| fault.detail)?;
    stand.balancer.wait_for("r1", "up").await?;
    sleep(pace.moment).await;
    Ok(Found::default())
}

/// The file gets one backend more. Those who come then find a replica with nobody on it.
async fn add(pace: &Pace, stand: &mut Stand, toml: &str, mut newcomers: Crowd) -> Outcome<Found> {
    let beginning = Instant::now();
    sleep(pace.moment + pace.window).await;
    let began = beginning.elapsed();
    stand.add().await?;
    stand.balancer.reload(toml, &stand.replicas).await?;
    stand.balancer.wait_for("r4", "up").await?;
    let done = beginning.elapsed();
    let known = answered(stand).await?;
    sleep(pace.window).await;
    // On a busy machine the window is too short for everybody to have asked.
    while answered(stand).await? < known + pace.users as u64 * 3 / 2 && beginning.elapsed() < began + PATIENCE
    {
        sleep(Duration::from_millis(10)).await;
    }
    let measured = beginning.elapsed();
    newcomers.arrive().await?;
    let newcomers = newcomers.census().await?;
    Ok(Found { began, done, measured, newcomers, ..Found::default() })
}

/// How many requests the balancer has sent to its replicas so far.
async fn answered(stand: &Stand) -> Outcome<u64> {
    let status = stand.balancer.pintle.status().await?;
    Ok(status.pools.iter().flat_map(|pool| &pool.backends).map(|backend| backend.requests).sum())
}

/// Nobody is asked to leave.
async fn remove(pace: &Pace, stand: &mut Stand) -> Outcome<Found> {
    sleep(pace.moment).await;
    stand.balancer.pintle.stop("app/r2").await.map_err(|fault| fault.detail)?;
    stand.replicas[1].kill();
    sleep(pace.moment).await;
    Ok(Found::default())
}

/// Every second user logs out while tokens still hold, one after the other; the others stay on.
fn leaving(pace: &Pace) -> impl Fn(usize) -> Option<Duration> + use<> {
    let (first, last, users) = (pace.moment, closing(pace.deadline).mul_f64(0.7), pace.users as f64);
    move |user| user.is_multiple_of(2).then(|| first + last.mul_f64(user as f64 / users))
}

/// How long a drained backend's tokens hold: until the last fifth of the deadline, which is a second
/// at least.
fn closing(deadline: Duration) -> Duration {
    deadline.saturating_sub((deadline / 5).max(Duration::from_secs(1)))
}

/// Nobody new; who is there may finish. `stays` waits for the deadline even when the drain is over
/// before, so that a drain that was none is seen to have cost somebody something.
async fn drain(pace: &Pace, stand: &mut Stand, stays: bool) -> Outcome<Found> {
    let beginning = Instant::now();
    sleep(pace.moment).await;
    let began = beginning.elapsed();
    let watching = if stays { pace.deadline } else { Duration::ZERO };
    let (drain, ()) = tokio::join!(stand.balancer.drain("app/r3", pace.deadline), sleep(watching));
    stand.replicas[2].kill();
    sleep(pace.moment).await;
    Ok(Found { began, done: began + closing(pace.deadline), drain: Some(drain?), ..Found::default() })
}

/// The one place where every session is.
async fn lose_store(pace: &Pace, store: Option<&mut Store>) -> Outcome<Found> {
    let store = store.ok_or("this stand has no store")?;
    let beginning = Instant::now();
    sleep(pace.moment).await;
    store.stop()?;
    let began = beginning.elapsed();
    sleep(pace.outage).await;
    let done = beginning.elapsed();
    store.start_empty().await?;
    sleep(pace.moment).await;
    Ok(Found { began, done, ..Found::default() })
}
