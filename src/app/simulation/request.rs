//! A request on a data thread: the way of `proxy::forward`, with a played backend at its end.
//!
//! Start at [`Request::go`]. Whom it is given, whether it waits and whether it is sent again is
//! decided by the real parts; that the backend refuses, resets or answers is drawn.

use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::http::timer::Timer;
use crate::http::tunnel::TunnelEnd;
use crate::live::View;
use crate::pool::affinity::Token;
use crate::pool::backend::{Lease, Vitals};
use crate::pool::hold::{Line, Ticket};
use crate::pool::outlier::Fault;
use crate::pool::{self, Claim, Tried, Visit};
use crate::proxy::retry::{self, Failure, Verdict, What};
use crate::proxy::{Against, Evidence, Proxy};
use crate::telemetry::Stick;

pub struct Request {
    pub pool: String,
    pub proxy: Rc<Proxy>,
    pub view: Rc<View>,
    pub timer: Timer,
    pub client: usize,
    pub key: u64,
    pub token: Option<Token>,
    pub idempotent: bool,
    pub has_body: bool,
    pub ticket: Option<Ticket>,
    pub tried: Tried,
    held_since: Option<Instant>,
    /// A backend may have seen it.
    seen: bool,
    /// Sends that count, and all of them.
    attempts: u32,
    sends: u32,
    /// Of those that count, those of which nothing could be written after a connection was found dead.
    unwritten: u32,
    /// How often its pool was asked for a backend.
    pub picks: u32,
    course: Course,
    pub state: State,
}

/// What `proxy::forward` knows between two picks, and forgets when it has waited.
#[derive(Default)]
struct Course {
    fresh: bool,
    again: Option<(Lease, Stick)>,
    refused: Option<Lease>,
    failed: bool,
    one_stands: bool,
    one_broke_off: bool,
}

pub enum State {
    Looks,
    Waits { until: Instant, line: Line, called: bool },
    Sends { lease: Lease, stick: Stick },
    Answers { lease: Lease, tunnel: bool },
    Over,
}

/// What a step of a request has come to.
pub enum Came {
    Nothing,
    /// It was given this backend.
    Picked(Picked),
    /// Its backend has answered: a session is there, and its token.
    Answered {
        vitals: Arc<Vitals>,
    },
}

/// One choice, as it was made.
pub struct Picked {
    pub vitals: Arc<Vitals>,
    pub stick: Stick,
    /// Once more, by right of the lease that it had.
    pub again: bool,
    /// Nobody was passed over because this request had tried it, no slot was handed to it, and it has
    /// not just let go of another backend.
    pub clean: bool,
    pub tried: Tried,
}

impl Request {
    pub fn new(
        proxy: Rc<Proxy>,
        pool: &str,
        client: usize,
        key: u64,
        token: Option<Token>,
        idempotent: bool,
        has_body: bool,
    ) -> Self {
        let (view, timer) = (proxy.view(), Timer::new(&proxy.wheel));
        Self {
            pool: pool.to_owned(),
            proxy,
            view,
            timer,
            client,
            key,
            token,
            idempotent,
            has_body,
            ticket: None,
            tried: Tried::default(),
            held_since: None,
            seen: false,
            attempts: 0,
            sends: 0,
            unwritten: 0,
            picks: 0,
            course: Course::default(),
            state: State::Looks,
        }
    }

    /// The pool as this request sees it.
    pub fn pool(&self) -> Option<&pool::View> {
        self.view.pools.iter().find(|pool| pool.pool.plan.name == self.pool)
    }

    /// Takes the next step.
    pub fn go(&mut self, now: Instant, rng: &mut Rng) -> Came {
        match std::mem::replace(&mut self.state, State::Over) {
            State::Over => Came::Nothing,
            State::Looks => self.look(now),
            State::Waits { called: true, .. } => {
                (self.view, self.course) = (self.proxy.view(), Course::default());
                self.look(now)
            }
            State::Waits { until, .. } if now >= until => self.over(),
            waits @ State::Waits { .. } => {
                self.state = waits;
                Came::Nothing
            }
            State::Sends { lease, stick } => self.send(lease, stick, now, rng),
            State::Answers { lease, tunnel: false } if !self.timer.is_cut() && rng.u8(..) < 30 => {
                self.timer = Timer::new(&self.proxy.wheel);
                let lease = lease.into_tunnel(&self.timer, rng.bool());
                self.state = State::Answers { lease, tunnel: true };
                Came::Nothing
            }
            State::Answers { lease, tunnel } => {
                let end = if self.timer.is_cut() { TunnelEnd::Cut } else { TunnelEnd::Told };
                if tunnel && (self.timer.is_cut() || self.timer.is_told()) {
                    lease.tunnel_ended(end);
                }
                self.over()
            }
        }
    }

    /// Notes whether somebody has called it meanwhile.
    pub fn hear(&mut self) {
        let State::Waits { called, .. } = &mut self.state else { return };
        let ticket = self.ticket.as_ref().expect("who waits has a place");
        let calls = pin!(ticket.called());
        *called |= calls.poll(&mut Context::from_waker(Waker::noop())).is_ready();
    }

    fn over(&mut self) -> Came {
        (self.ticket, self.course, self.state) = (None, Course::default(), State::Over);
        Came::Nothing
    }

    fn look(&mut self, now: Instant) -> Came {
        let view = self.view.clone();
        let Some(pool) = view.pools.iter().find(|pool| pool.pool.plan.name == self.pool) else {
            return self.over();
        };
        let route = &view.snapshot.routes[self.route(&view)];
        if self.held_since.is_none() && self.attempts == 0 {
            view.budgets[self.route(&view)].borrow_mut().came(now);
        }
        assert!(self.attempts <= route.plan.retry.attempts + self.unwritten, "it goes on and on");
        self.ticket = self.ticket.take().filter(|ticket| ticket.is_for(&pool.pool.shared.hold));
        let sticky = pool.pool.plan.sticky;
        let claim = self.token.as_ref().filter(|_| sticky).map_or(Claim::None, Claim::Token);
        let tried = self.tried.clone();
        let visit = Visit { claim, key: self.key, tried: &tried, now };
        if self.ticket.is_none()
            && self.course.again.is_none()
            && self.course.refused.is_none()
            && let Some(line) = pool.line_before(&visit)
        {
            return self.wait(pool, line, now);
        }
        let (again, by_ticket) = (self.course.again.is_some(), self.ticket.is_some());
        self.picks += u32::from(!again);
        let again_or = self.course.again.take();
        let picked = again_or.map_or_else(|| pool.pick(&visit, self.ticket.as_ref(), &self.timer), Ok);
        if picked.is_err()
            && let Some(lease) = self.course.refused.take()
        {
            return self.answered(lease);
        }
        self.course.refused = None;
        match picked {
            Ok((lease, stick)) => {
                self.ticket = None;
                let vitals = lease.post.vitals.clone();
                let first = !again && !by_ticket && !self.course.failed;
                let clean = first && (0..pool.posts.len()).all(|at| !tried.contains(at));
                self.state = State::Sends { lease, stick };
                Came::Picked(Picked { vitals, stick, again, clean, tried })
            }
            Err(nobody) => {
                let line = nobody.line();
                if line.is_none_or(|line| line.wants.is_none()) {
                    if std::mem::take(&mut self.course.one_broke_off) {
                        (self.tried, self.course.one_stands) = (Tried::default(), false);
                        return self.look(now);
                    }
                    if self.course.one_stands && self.course.failed {
                        return self.over();
                    }
                }
                let Some(line) = line else { return self.over() };
                self.wait(pool, line, now)
            }
        }
    }

    fn wait(&mut self, pool: &pool::View, line: Line, now: Instant) -> Came {
        let Some(ticket) = pool.stand(self.ticket.take(), line) else { return self.over() };
        self.ticket = Some(ticket);
        let tried = std::mem::take(&mut self.tried);
        let news = !line.behind && pool.is_news_to(&tried);
        let since = *self.held_since.get_or_insert(now);
        let until = since + pool.pool.plan.hold.timeout;
        let changed = news || pool.is_stale() || !Rc::ptr_eq(&self.view, &self.proxy.view());
        self.state = State::Waits { until, line, called: changed };
        if changed {
            return Came::Nothing;
        }
        pool.offer_slots();
        if now >= until {
            return self.over();
        }
        self.ticket.as_ref().expect("it has just taken its place").stays();
        Came::Nothing
    }

    fn send(&mut self, lease: Lease, stick: Stick, now: Instant, rng: &mut Rng) -> Came {
        let view = self.view.clone();
        let plan = &view.snapshot.routes[self.route(&view)].plan.retry;
        assert!(!self.seen || (self.idempotent && !self.has_body), "a backend may have seen it already");
        self.sends += 1;
        assert!(self.sends <= 2 * plan.attempts + 40, "it is sent on and on");
        let vitals = lease.post.vitals.clone();
        let outcome = match rng.u8(..100) {
            _ if self.timer.is_cut() => {
                Outcome::Failed { what: What::Cut, unsent: rng.bool(), reused: false, refused: false }
            }
            _ if self.course.fresh && rng.bool() => Outcome::Answer(200),
            0..60 => Outcome::Answer(200),
            60..68 => Outcome::Answer(503),
            68..76 => Outcome::Failed { what: What::Connect, unsent: true, reused: false, refused: true },
            76..80 => Outcome::Failed { what: What::Connect, unsent: true, reused: false, refused: false },
            80..92 => {
                let reused = !self.course.fresh && rng.bool();
                let unsent = rng.bool();
                Outcome::Failed { what: What::Reset, unsent, reused, refused: false }
            }
            92..96 => Outcome::Failed { what: What::Timeout, unsent: false, reused: false, refused: false },
            _ => Outcome::Failed { what: What::Final, unsent: false, reused: false, refused: false },
        };
        let counts = u32::from(!self.course.fresh);
        let thread = self.proxy.thread;
        match outcome {
            Outcome::Answer(status) => {
                self.attempts += counts;
                self.seen = true;
                vitals.series.answered(thread, status, Duration::from_millis(3));
                lease.answered(Duration::from_millis(3), now);
                if status >= 500 {
                    self.report(&vitals, Against::Fault(Fault::ServerError));
                }
                let failure = self.failure(What::Status, false, false, stick);
                let elsewhere = plan.statuses.contains(&status)
                    && retry::decide(&failure, plan) == Verdict::Elsewhere
                    && self.restores(false)
                    && self.affords(now);
                if !elsewhere {
                    return self.answered(lease);
                }
                self.note_tried(lease.place);
                self.course.one_stands = true;
                self.course.refused = Some(lease);
                self.look(now)
            }
            Outcome::Failed { what, unsent, reused, refused } => {
                let written = what != What::Connect && !(what == What::Cut && unsent);
                self.unwritten += u32::from(self.course.fresh && !written);
                if written {
                    self.attempts += counts;
                    vitals.series.unanswered(thread);
                }
                self.seen |= !unsent;
                if refused {
                    self.report(&vitals, Against::Refused("connection refused".to_owned()));
                } else if !reused && !matches!(what, What::Final | What::Cut) {
                    self.report(&vitals, Against::Fault(Fault::NoAnswer));
                }
                let failure = self.failure(what, unsent, reused, stick);
                let verdict = retry::decide(&failure, plan);
                if verdict == Verdict::GiveUp
                    || !self.restores(unsent)
                    || (retry::costs(verdict, what) && !self.affords(now))
                {
                    return self.over();
                }
                if what == What::Cut {
                    self.timer.clear();
                    lease.post.spare();
                }
                self.course.fresh = verdict == Verdict::SameFresh;
                if self.course.fresh {
                    self.course.again = Some((lease, stick));
                } else if what != What::Cut {
                    self.note_tried(lease.place);
                    self.course.failed = true;
                    self.course.one_stands |= !refused;
                    self.course.one_broke_off |= what == What::Reset;
                    drop(lease);
                }
                self.look(now)
            }
        }
    }

    fn answered(&mut self, lease: Lease) -> Came {
        let vitals = lease.post.vitals.clone();
        self.course = Course::default();
        self.state = State::Answers { lease, tunnel: false };
        Came::Answered { vitals }
    }

    fn failure(&self, what: What, unsent: bool, reused: bool, stick: Stick) -> Failure {
        Failure {
            what,
            unsent,
            reused,
            idempotent: self.idempotent,
            body_whole: !self.has_body || !self.seen,
            bound: stick == Stick::Valid,
            attempts: self.attempts,
        }
    }

    fn note_tried(&mut self, place: usize) {
        let view = self.view.clone();
        let pool = view.pools.iter().find(|pool| pool.pool.plan.name == self.pool);
        pool.expect("it was picked there").tried(&mut self.tried, place);
    }

    fn restores(&self, unsent: bool) -> bool {
        unsent || (!self.has_body && self.idempotent)
    }

    fn affords(&self, now: Instant) -> bool {
        self.view.budgets[self.route(&self.view)].borrow_mut().spend(now)
    }

    fn route(&self, view: &View) -> usize {
        let routes = &view.snapshot.routes;
        routes.iter().position(|route| route.targets[0].name == self.pool).expect("each pool has a route")
    }

    fn report(&self, vitals: &Arc<Vitals>, what: Against) {
        self.proxy.report(Evidence { vitals: vitals.clone(), what });
    }

    /// For who looks for the reason.
    pub fn shown(&self) -> String {
        let state = match &self.state {
            State::Looks => "looks".to_owned(),
            State::Waits { line, called, .. } => format!("waits {line:?}, called: {called}"),
            State::Sends { lease, stick } => format!("asks {} ({stick:?})", lease.post.vitals.name),
            State::Answers { lease, tunnel } => {
                format!("is served by {}, tunnel: {tunnel}", lease.post.vitals.name)
            }
            State::Over => "is over".to_owned(),
        };
        format!("a request of generation {} {state}", self.view.snapshot.generation)
    }

    pub fn is_tunnel(&self) -> bool {
        matches!(self.state, State::Answers { tunnel: true, .. })
    }

    /// The right to its backend that it has.
    pub fn lease(&self) -> Option<&Lease> {
        match &self.state {
            State::Sends { lease, .. } | State::Answers { lease, .. } => Some(lease),
            State::Looks | State::Waits { .. } | State::Over => self.course.refused.as_ref(),
        }
    }
}

enum Outcome {
    Answer(u16),
    Failed { what: What, unsent: bool, reused: bool, refused: bool },
}
