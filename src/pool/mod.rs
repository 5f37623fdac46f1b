//! Who answers: backends, who of them may be asked, and who is picked.
//!
//! Start at [`View::pick`]: it asks whether the visitor is bound to a backend (affinity), and
//! otherwise lets the policy choose among those who stand open now. Health, phases and drains
//! are decided elsewhere, by the control thread, and arrive here as a backend's standing and as
//! a [`Roster`] that it publishes.

pub mod affinity;
pub mod backend;
pub mod health;
pub mod hold;
pub mod key;
pub mod outlier;
pub mod policy;
pub mod sessions;
pub mod status;

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use self::affinity::{Affinity, Refused, Token};
use self::backend::{Backend, Lease, Post};
use self::hold::{Hold, Line, Ticket};
use self::key::Keys;
use self::policy::{Cursor, Roster};
use self::status::{Standing, admits};
use tokio::sync::Notify;

use crate::http::timer::Timer;
use crate::plan::{OnDown, PoolPlan};
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::telemetry::{PoolSeries, Stick};

/// What a session's silence may last where the file does not say.
const SESSION_WINDOW: Duration = Duration::from_secs(300);

/// A pool as one snapshot has it.
pub struct Pool {
    pub name: Arc<str>,
    pub plan: PoolPlan,
    pub backends: Vec<Backend>,
    pub affinity: Affinity,
    pub keys: Keys,
    pub shared: Arc<Shared>,
    pub series: Arc<PoolSeries>,
    places: HashMap<String, usize>,
    version: AtomicU64,
    roster: Mutex<Arc<Roster>>,
}

/// What a pool keeps over reloads: where its policy stands, and who waits.
pub struct Shared {
    pub cursor: Cursor,
    pub hold: Arc<Hold>,
    /// Somebody has begun to wait: probes of what is down need not keep their rhythm.
    pub hurry: Notify,
    /// So few are healthy that health is ignored. Written by the control thread.
    pub panics: AtomicBool,
}

impl Default for Shared {
    fn default() -> Self {
        Self {
            cursor: Cursor::random(),
            hold: Arc::default(),
            hurry: Notify::new(),
            panics: AtomicBool::new(false),
        }
    }
}

impl Pool {
    pub fn new(
        plan: PoolPlan,
        backends: Vec<Backend>,
        affinity: Affinity,
        shared: Arc<Shared>,
        series: Arc<PoolSeries>,
    ) -> Self {
        let places = backends.iter().enumerate().map(|(place, backend)| (backend.plan.name.clone(), place));
        Self {
            name: plan.name.as_str().into(),
            keys: Keys::new(&plan),
            places: places.collect(),
            roster: Mutex::new(Arc::new(Roster::build(&plan.policy, &plan.name, Vec::new()))),
            version: AtomicU64::new(0),
            plan,
            backends,
            affinity,
            shared,
            series,
        }
    }

    /// How long a session's silence may last before it counts as gone.
    pub fn session_window(&self) -> Duration {
        session_window(&self.plan)
    }

    pub fn place_of(&self, backend: &str) -> Option<usize> {
        self.places.get(backend).copied()
    }

    /// Replaces who may be picked, and lets the first of those who wait try again. Control thread
    /// only.
    pub fn publish(&self, roster: Roster) {
        let somebody = !roster.is_empty();
        *self.roster.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(roster);
        self.version.fetch_add(1, Ordering::Release);
        if somebody {
            self.shared.hold.wake();
        }
        self.shared.hold.wake_bound();
    }

    fn roster(&self) -> Arc<Roster> {
        self.roster.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// How long a session's silence may last before it counts as gone: `max_idle`, or 5 minutes.
pub fn session_window(plan: &PoolPlan) -> Duration {
    if plan.cookie.max_idle.is_zero() { SESSION_WINDOW } else { plan.cookie.max_idle }
}

/// One thread's view of a pool.
pub struct View {
    pub pool: Arc<Pool>,
    /// In the order of the pool's backends.
    pub posts: Vec<Rc<Post>>,
    roster: RefCell<(u64, Arc<Roster>)>,
}

/// What a request shows of itself to be placed.
pub struct Visit<'a> {
    pub claim: Claim<'a>,
    /// The hash of what the policy hashes; 0 where it hashes nothing.
    pub key: u64,
    /// Places that this request has found down.
    pub tried: &'a Tried,
    pub now: Instant,
}

/// What the sticky cookie says.
#[derive(Clone, Copy, Debug)]
pub enum Claim<'a> {
    /// There is none, or nobody asks.
    None,
    Token(&'a Token),
    Refused(Refused),
}

/// Places already tried, a handful at most.
#[derive(Clone, Debug, Default)]
pub struct Tried {
    places: Vec<usize>,
    /// What the control thread had published when the first of them was chosen.
    since: Option<u64>,
}

impl Tried {
    pub fn contains(&self, place: usize) -> bool {
        self.places.contains(&place)
    }
}

/// Why nobody was picked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoBackend {
    /// Nobody stands open: worth waiting for.
    NobodyUp,
    /// All who stand open have their `max_in_flight`: worth waiting for.
    Full,
    /// The token's backend, in this place, has its `max_in_flight`.
    BoundToFull(usize),
    /// The token's backend is down, and `on_down = "fail"`.
    BoundToDown,
}

impl NoBackend {
    /// What to wait for, if that is of use.
    pub fn line(self) -> Option<Line> {
        match self {
            Self::NobodyUp => Some(Line::default()),
            Self::Full => Some(Line { full: true, ..Line::default() }),
            Self::BoundToFull(place) => Some(Line { wants: Some(place), full: true, behind: false }),
            Self::BoundToDown => None,
        }
    }
}

impl View {
    pub fn new(pool: Arc<Pool>, posts: Vec<Rc<Post>>) -> Self {
        let version = pool.version.load(Ordering::Acquire);
        let roster = pool.roster();
        Self { pool, posts, roster: RefCell::new((version, roster)) }
    }

    /// Picks a backend and takes its lease, in one synchronous step. Who has waited shows the
    /// `ticket`, and with it the slot that may have been handed over.
    pub fn pick(
        &self,
        visit: &Visit<'_>,
        ticket: Option<&Ticket>,
        timer: &Timer,
    ) -> Result<(Lease, Stick), NoBackend> {
        self.refresh();
        let roster = &self.roster.borrow().1;
        let must = roster.needs_load();
        let has_slot = |place: usize| ticket.is_some_and(|ticket| ticket.take(&self.posts[place].vitals));
        let stick = match self.bound(visit) {
            Bound::To(place) => {
                let taken = match has_slot(place) {
                    true => Some(true),
                    false => self.posts[place].vitals.load.take(must),
                };
                let counted = taken.ok_or(NoBackend::BoundToFull(place))?;
                return Ok((self.posts[place].lease(place, timer, counted), Stick::Valid));
            }
            Bound::Moved(Stick::MovedDown) if self.pool.plan.cookie.on_down == OnDown::Fail => {
                return Err(NoBackend::BoundToDown);
            }
            Bound::Moved(stick) => stick,
        };
        let open = |place: usize| {
            !visit.tried.contains(place) && self.posts[place].vitals.standing() == Standing::Open
        };
        if ticket.is_some()
            && let Some(place) = roster.places().find(|place| open(*place) && has_slot(*place))
        {
            return Ok((self.posts[place].lease(place, timer, true), stick));
        }
        let (mut counted, mut full) = (false, false);
        let mut choose = |streams: bool| {
            roster.choose(&self.pool.shared.cursor, visit.key, visit.now, |place| {
                if !open(place) || (streams && self.posts[place].client.is_full()) {
                    return false;
                }
                let taken = self.posts[place].vitals.load.take(must);
                full |= taken.is_none();
                counted = taken.unwrap_or(false);
                taken.is_some()
            })
        };
        // Who is full is passed over. Where all streams are taken, the request waits at one of them.
        let place = choose(true).or_else(|| choose(false));
        let place = place.ok_or(if full { NoBackend::Full } else { NoBackend::NobodyUp })?;
        Ok((self.posts[place].lease(place, timer, counted), stick))
    }

    /// Notes that the backend in this place is down for a request that has just been there.
    pub fn tried(&self, tried: &mut Tried, place: usize) {
        tried.places.push(place);
        tried.since.get_or_insert(self.roster.borrow().0);
    }

    /// Whether anything was published since then: who was down may have come up, and called nobody.
    pub fn is_news_to(&self, tried: &Tried) -> bool {
        tried.since.is_some_and(|since| since != self.pool.version.load(Ordering::Acquire))
    }

    /// What a newcomer has to wait for because others, who could use the same, stand in line before.
    pub fn line_before(&self, visit: &Visit<'_>) -> Option<Line> {
        let hold = &self.pool.shared.hold;
        if hold.waiting() == 0 {
            return None;
        }
        if let Bound::To(place) = self.bound(visit) {
            let vitals = &self.posts[place].vitals;
            let awaited = vitals.load.is_limited() && hold.is_awaited(vitals);
            return awaited.then_some(Line { wants: Some(place), full: true, behind: true });
        }
        let joins = hold.has_unbound() && self.deals_anew(visit);
        joins.then(|| Line { wants: None, full: self.waits_for_slots(), behind: true })
    }

    /// Takes the last place in line, unless too many wait. Who stood there keeps the place, and
    /// passes on the slot that was of no use.
    pub fn stand(&self, ticket: Option<Ticket>, line: Line) -> Option<Ticket> {
        let wants = line.wants.map(|place| &self.posts[place].vitals);
        let Some(ticket) = ticket else {
            let ticket = self.pool.shared.hold.join(self.pool.plan.hold.max, wants)?;
            if line.behind {
                ticket.call_if_first();
            }
            return Some(ticket);
        };
        ticket.wants(wants);
        ticket.give_up_slot();
        Some(ticket)
    }

    /// Whether those in line wait for slots, and not for somebody to come up.
    fn waits_for_slots(&self) -> bool {
        let open = |post: &Rc<Post>| post.vitals.standing() == Standing::Open;
        self.pool.plan.max_in_flight > 0 && self.posts.iter().any(open)
    }

    /// Hands out free slots to those who wait. For who has just joined them.
    pub fn offer_slots(&self) {
        for post in &self.posts {
            self.pool.shared.hold.offer(&post.vitals);
        }
    }

    /// Whether the visitor needs any backend, and so stands in line with the others who do.
    fn deals_anew(&self, visit: &Visit<'_>) -> bool {
        match self.bound(visit) {
            Bound::To(_) => false,
            Bound::Moved(Stick::MovedDown) => self.pool.plan.cookie.on_down == OnDown::Repick,
            Bound::Moved(_) => true,
        }
    }

    /// Whether the visitor belongs to a backend that may still be asked.
    fn bound(&self, visit: &Visit<'_>) -> Bound {
        if !self.pool.plan.sticky {
            return Bound::Moved(Stick::None);
        }
        let token = match visit.claim {
            Claim::Token(token) => token,
            Claim::None => return Bound::Moved(Stick::New),
            Claim::Refused(Refused::Forged) => return Bound::Moved(Stick::Forged),
            Claim::Refused(Refused::UnknownKey) => return Bound::Moved(Stick::UnknownKey),
            Claim::Refused(Refused::Expired) => return Bound::Moved(Stick::Expired),
        };
        let Some(place) = self.pool.place_of(&token.backend) else { return Bound::Moved(Stick::MovedDown) };
        let vitals = &self.posts[place].vitals;
        if visit.tried.contains(place) {
            Bound::Moved(Stick::MovedDown)
        } else if admits(vitals.standing(), true) {
            Bound::To(place)
        } else if vitals.is_leaving() {
            Bound::Moved(Stick::MovedDrain)
        } else {
            Bound::Moved(Stick::MovedDown)
        }
    }

    /// Whether the control thread has published since this view last looked.
    pub fn is_stale(&self) -> bool {
        self.roster.borrow().0 != self.pool.version.load(Ordering::Acquire)
    }

    /// One load tells whether the control thread has published a newer roster.
    fn refresh(&self) {
        let version = self.pool.version.load(Ordering::Acquire);
        if self.roster.borrow().0 != version {
            self.roster.replace((version, self.pool.roster()));
        }
    }
}

enum Bound {
    To(usize),
    /// To nobody, or no longer: dealt anew, with this verdict.
    Moved(Stick),
}
