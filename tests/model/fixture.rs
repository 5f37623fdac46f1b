//! A pool to check things on: one backend or two, and a data thread's way with a request.

use std::cell::Cell;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use pintle::config::{Origin, compile};

use crate::http::timer::{Timer, Wheel};
use crate::listen::Descriptors;
use crate::plan::PoolPlan;
use crate::pool::affinity::{Affinity, Sealer};
use crate::pool::backend::{Backend, Lease, Post, Vitals};
use crate::pool::hold::Ticket;
use crate::pool::policy::{Member, Roster};
use crate::pool::status::Standing;
use crate::pool::{Claim, NoBackend, Pool, Shared, Tried, View, Visit};
use crate::sync::atomic::{AtomicU32, Ordering::Relaxed};
use crate::telemetry::Telemetry;
use crate::upstream::{Keep, Way};

static TELEMETRY: LazyLock<Arc<Telemetry>> = LazyLock::new(|| Telemetry::new(THREADS));

/// The most that a check has.
pub const THREADS: usize = 3;

/// The plan of a pool with these settings.
pub fn plan(settings: &str) -> PoolPlan {
    let text = format!("[server]\nworkers = 1\n[pool.app]\nbackends = [\"127.0.0.1:9001\"]\n{settings}");
    let origin = Origin { name: "model".into(), base: PathBuf::from(".") };
    let mut compiled =
        compile(&text, &origin).unwrap_or_else(|problems| panic!("{}", problems.render(false)));
    compiled.plan.pools.remove(0)
}

/// A pool whose backends stand shut, as the snapshot has it.
pub fn pool(plan: &PoolPlan) -> Arc<Pool> {
    let backends = plan.backends.iter().map(|backend| {
        let series = TELEMETRY.backend(&plan.name, &backend.name);
        let vitals = Vitals::new(&plan.name, &backend.name, Vec::new(), series, THREADS, Instant::now());
        Backend {
            plan: backend.clone(),
            host: ::http::HeaderValue::from_static("backend"),
            way: Way::to(&backend.address, plan, None),
            vitals: Arc::new(vitals),
        }
    });
    let backends = backends.collect();
    let affinity = Affinity::new(&plan.cookie, Sealer::generated(&plan.name));
    let shared = Arc::new(Shared::default());
    Arc::new(Pool::new(plan.clone(), backends, affinity, shared, TELEMETRY.pool(&plan.name)))
}

/// What the control thread does when a backend's standing changes; the order is the one of
/// `app::fleet::publish`.
pub fn publish(pool: &Pool, standing: Standing, leaving: bool) {
    let seats = pool.backends.iter().enumerate().filter(|_| standing == Standing::Open);
    let seats: Vec<_> = seats
        .map(|(index, backend)| Member {
            index,
            name: backend.plan.name.clone(),
            weight: 1,
            load: backend.vitals.load.clone(),
        })
        .collect();
    for backend in &pool.backends {
        backend.vitals.set_standing(standing, leaving);
        backend.vitals.load.limit(pool.plan.max_in_flight);
    }
    for backend in &pool.backends {
        backend.vitals.set_seated(!seats.is_empty());
    }
    pool.publish(Roster::build(&pool.plan.policy, &pool.plan.name, seats));
}

/// Counts who is somewhere, for a check. Changing is looking, so it is always the truth, and loom may
/// go elsewhere at each; it orders nothing.
#[derive(Clone, Default)]
pub struct Inside(Arc<AtomicU32>);

impl Inside {
    /// Tells how many others there are.
    pub fn comes(&self) -> u32 {
        self.0.fetch_add(1, Relaxed)
    }

    pub fn goes(&self) {
        self.0.fetch_sub(1, Relaxed);
    }

    pub fn count(&self) -> u32 {
        self.0.fetch_add(0, Relaxed)
    }
}

/// One data thread's side of the pool.
pub struct Thread {
    pub view: View,
    timer: Timer,
    now: Instant,
}

impl Thread {
    pub fn new(pool: &Arc<Pool>, thread: usize) -> Self {
        let now = Instant::now();
        let keep = Keep { max_idle: 0, idle: Default::default(), max_age: Default::default() };
        let posts = pool.backends.iter().map(|backend| {
            let hold = pool.shared.hold.clone();
            let descriptors = Descriptors::new(9);
            Post::new(backend.vitals.clone(), thread, keep, backend.way.clone(), hold, descriptors)
        });
        let posts = posts.collect();
        Self { view: View::new(pool.clone(), posts), timer: Timer::new(&Wheel::new(now)), now }
    }

    pub fn pick(&self, claim: Claim<'_>, ticket: Option<&Ticket>) -> Result<Lease, NoBackend> {
        let (tried, key) = (Tried::default(), 0);
        let visit = Visit { claim, key, tried: &tried, now: self.now };
        self.view.pick(&visit, ticket, &self.timer).map(|(lease, _)| lease)
    }

    /// A request without a token, as `proxy::forward` leads it to its lease: it waits until there
    /// is one.
    pub fn lease(&self) -> Lease {
        let mut ticket: Option<Ticket> = None;
        loop {
            let tried = Tried::default();
            let visit = Visit { claim: Claim::None, key: 0, tried: &tried, now: self.now };
            let before = ticket.is_none().then(|| self.view.line_before(&visit)).flatten();
            let line = match before {
                Some(line) => line,
                None => match self.pick(Claim::None, ticket.as_ref()) {
                    Ok(lease) => return lease,
                    Err(nobody) => nobody.line().expect("without a token waiting is of use"),
                },
            };
            let stands = self.view.stand(ticket.take(), line).expect("there is room in the line");
            let stands = ticket.insert(stands);
            if self.view.is_stale() {
                continue;
            }
            self.view.offer_slots();
            called(stands);
        }
    }
}

/// Waits until somebody called.
pub fn called(ticket: &Ticket) {
    let waits = std::pin::pin!(ticket.called());
    assert_eq!(
        waits.poll(&mut Context::from_waker(Waker::noop())),
        Poll::Ready(()),
        "here it blocks instead"
    );
}
