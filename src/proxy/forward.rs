//! The attempts: pick, send, decide, until there is an answer or none is to be had.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::affinity::{Shown, stamp, unix_now};
use super::error::ProxyError;
use super::exchange::Exchange;
use super::message::Message;
use super::retry::{self, Verdict, What};
use super::{Against, Answer, Evidence, Proxy};
use crate::http::grpc::{GRPC_TIMEOUT, Rpc, timeout_value};
use crate::http::timer::Patience;
use crate::http::upload::{Progress, UploadState};
use crate::live::{Route, View};
use crate::plan::{PoolProtocol, SendProxy};
use crate::pool::backend::Lease;
use crate::pool::outlier::Fault;
use crate::pool::{self, Visit};
use crate::route::budget::Budget;
use crate::telemetry::{ConnectResult, RetryReason, Stick};
use crate::upstream::{ConnectError, Errand, Limits, SendError, SendErrorKind, Sent, Take};

/// Sends the request to a backend of the route's pool. `None`: it waited for one, and has to
/// be routed anew.
pub async fn run(
    proxy: &Rc<Proxy>,
    exchange: &mut Exchange,
    view: &Rc<View>,
    route: &Route,
    message: &mut Message,
) -> Result<Option<Answer>, ProxyError> {
    let (place, shown) = choose_target(exchange, view, route, message);
    exchange.place = Some(place);
    let pool = &view.pools[route.targets[place].pool];
    let key = pool.pool.keys.of(&message.parts, exchange.client);
    if matches!(pool.pool.plan.protocol, PoolProtocol::H2c | PoolProtocol::H2) && message.is_upgrade() {
        return Err(ProxyError::NoUpgrade { pool: pool.pool.name.to_string() });
    }
    let mut attempt = Attempt { proxy, route, pool, fresh: false };
    // The clock was read when the request came, unless it has waited since.
    let mut now = if message.held_since.is_some() { Instant::now() } else { exchange.start };
    // Whom to ask once more, on a fresh connection.
    let mut again = None;
    // An answer that is not passed on unless there is no other.
    let mut refused: Option<Box<Answered>> = None;
    if message.held_since.is_none() {
        attempt.budget(exchange).borrow_mut().came(now);
    }
    // What the last backend failed with; and one that did, or whose answer was not taken, may well
    // stand open.
    let (mut last_failure, mut one_stands) = (None, false);
    // A place in the line of another pool, before a reload, is none in this one's.
    message.ticket = message.ticket.take().filter(|ticket| ticket.is_for(&pool.pool.shared.hold));
    loop {
        let visit = Visit { claim: shown.claim(), key, tried: &message.tried, now };
        if message.ticket.is_none()
            && again.is_none()
            && refused.is_none()
            && let Some(line) = pool.line_before(&visit)
        {
            attempt.wait(line, exchange, view, message).await?;
            return Ok(None);
        }
        let ticket = message.ticket.as_ref();
        let picked = again.take().map_or_else(|| pool.pick(&visit, ticket, &exchange.call.timer), Ok);
        // Where nobody else can be asked, an answer that the route did not take is what there is.
        if picked.is_err()
            && let Some(refused) = refused.take()
        {
            return Ok(Some(attempt.pass_on(exchange, message, &shown, *refused)));
        }
        refused = None;
        let (lease, stick) = match picked {
            Ok(picked) => picked,
            Err(nobody) => {
                let Some(line) = nobody.line() else { return Err(attempt.no_backend()) };
                // Who failed this request is not down for others, and a slot there no help: nobody would
                // be waited for.
                if line.wants.is_none()
                    && one_stands
                    && let Some(kind) = last_failure
                {
                    return Err(attempt.give_up(kind, exchange));
                }
                attempt.wait(line, exchange, view, message).await?;
                return Ok(None);
            }
        };
        // Whoever was waited for has come: the next in line may try.
        message.ticket = None;
        exchange.stick = Some(stick);
        exchange.backend = Some(lease.post.clone());

        let failed = match attempt.send(exchange, message, &lease, now).await {
            Ok(sent) => {
                let answered = Answered { lease, sent, stick };
                if !attempt.asks_elsewhere(exchange, message, &answered) {
                    return Ok(Some(attempt.pass_on(exchange, message, &shown, answered)));
                }
                pool.pool.series.retried(proxy.thread, RetryReason::Status);
                pool.tried(&mut message.tried, answered.lease.place);
                one_stands = true;
                refused = Some(Box::new(answered));
                now = Instant::now();
                continue;
            }
            Err(failed) => failed,
        };
        let failure = message.failure(exchange, &failed, stick);
        let verdict = retry::decide(&failure, &route.plan.retry);
        now = Instant::now();
        if verdict == Verdict::GiveUp
            || !message.restore(failed.unsent, exchange)
            || (retry::costs(verdict, failure.what) && !attempt.affords(exchange, now))
        {
            return Err(attempt.give_up(failed.kind, exchange));
        }
        attempt.fresh = verdict == Verdict::SameFresh;
        pool.pool.series.retried(proxy.thread, reason(failure.what, verdict));
        if attempt.fresh {
            again = Some((lease, stick));
        } else {
            pool.tried(&mut message.tried, lease.place);
            one_stands |= !failed.kind.is_evidence();
            last_failure = Some(failed.kind);
        }
    }
}

fn reason(what: What, verdict: Verdict) -> RetryReason {
    match (verdict, what) {
        (Verdict::SameFresh, _) => RetryReason::StaleConnection,
        (_, What::Connect) => RetryReason::Connect,
        (_, What::Timeout) => RetryReason::ResponseTimeout,
        (_, What::Status) => RetryReason::Status,
        (_, What::Reset | What::Final) => RetryReason::ResetBeforeResponse,
    }
}

/// The pool that the request belongs to, and what it shows there. In a split a valid token
/// decides; without one the client's address does.
fn choose_target(exchange: &Exchange, view: &View, route: &Route, message: &Message) -> (usize, Shown) {
    let show = |place: usize| {
        let pool = &view.pools[route.targets[place].pool].pool;
        if !pool.plan.sticky {
            return Shown::Nothing;
        }
        exchange.visitor.memory.read(pool, &message.parts.headers, unix_now())
    };
    let Some(split) = &route.split else { return (0, show(0)) };
    let bound = (0..route.targets.len()).map(|place| (place, show(place)));
    if let Some(bound) = bound.into_iter().find(|(_, shown)| matches!(shown, Shown::Token(_))) {
        return bound;
    }
    let place = *split.share(exchange.view.snapshot.split_key(exchange.client));
    (place, show(place))
}

fn connect_result(error: &ConnectError) -> ConnectResult {
    match error {
        ConnectError::Refused => ConnectResult::Refused,
        ConnectError::Timeout => ConnectResult::Timeout,
        ConnectError::Tls(_) => ConnectResult::TlsError,
        ConnectError::Unreachable | ConnectError::Local(_) => ConnectResult::Error,
    }
}

/// One request's dealings with one pool.
pub struct Attempt<'a> {
    pub proxy: &'a Rc<Proxy>,
    route: &'a Route,
    pub pool: &'a pool::View,
    /// The next send takes a fresh connection.
    fresh: bool,
}

/// A backend's answer, on its way.
struct Answered {
    lease: Lease,
    sent: Sent,
    stick: Stick,
}

impl Attempt<'_> {
    /// Takes an answer into the exchange, with the cookie that belongs to it.
    fn pass_on(
        &self,
        exchange: &mut Exchange,
        message: &mut Message,
        shown: &Shown,
        answered: Answered,
    ) -> Answer {
        let Answered { lease, sent, stick } = answered;
        let pool = &self.pool.pool;
        let clock = pool.plan.sticky.then(unix_now);
        let secure = exchange.visitor.secured.is_some();
        let cookie = clock.and_then(|clock| stamp(pool, &lease.post, shown, stick, clock, secure));
        message.answered(exchange, lease, sent, cookie)
    }

    /// Whether the route wants another backend's answer, and can afford it.
    fn asks_elsewhere(&self, exchange: &Exchange, message: &mut Message, answered: &Answered) -> bool {
        let plan = &self.route.plan.retry;
        plan.statuses.contains(&answered.sent.response.status().as_u16())
            && retry::decide(&message.bad_answer(exchange, answered.stick), plan) == Verdict::Elsewhere
            && message.restore(None, exchange)
            && self.affords(exchange, Instant::now())
    }

    fn budget<'a>(&self, exchange: &'a Exchange) -> &'a RefCell<Budget> {
        &exchange.view.budgets[exchange.route.expect("a request that is forwarded has a route")]
    }

    /// Whether the route's budget allows one more to be sent again.
    fn affords(&self, exchange: &Exchange, now: Instant) -> bool {
        let may = self.budget(exchange).borrow_mut().spend(now);
        if !may {
            self.pool.pool.series.retry_refused(self.proxy.thread);
        }
        may
    }

    /// One send to one backend.
    async fn send(
        &mut self,
        exchange: &mut Exchange,
        message: &mut Message,
        lease: &Lease,
        now: Instant,
    ) -> Result<Sent, SendError> {
        let post = &lease.post;
        let mut request = message.outgoing(exchange, self.route, self.pool, lease);
        // A call that has waited here has less time left than its client wrote.
        if let Some(rpc) = exchange.rpc.filter(|rpc| rpc.deadline.is_some() && now > exchange.start) {
            request.headers_mut().insert(&GRPC_TIMEOUT, timeout_value(rpc.left(now)));
        }
        let replayable = exchange.upload.is_none() && exchange.method.is_idempotent();
        let take = match (self.fresh, replayable) {
            (true, _) => Take::Fresh,
            (false, true) => Take::Idle,
            (false, false) => Take::Lively,
        };
        let left = self.left(exchange, now);
        let plan = &self.pool.pool.plan.timeouts;
        let limits = Limits {
            now,
            timer: &exchange.call.timer,
            connect: plan.connect.min(left),
            response: Patience {
                pause: exchange.pause(plan.response).min(self.left_of_route(exchange, now)),
                until: exchange.rpc.and_then(Rpc::until),
            },
            hold: self.pool.pool.plan.hold.timeout.min(left),
            max_held: self.pool.pool.plan.hold.max,
        };
        let errand = Errand {
            addresses: || post.vitals.addresses(),
            progress: exchange.upload.clone(),
            take,
            limits,
            pair: (self.pool.pool.plan.proxy_protocol != SendProxy::Off).then(|| exchange.pair()),
        };
        let result = post.client.send(request, errand).await;
        let (done, thread) = (Instant::now(), self.proxy.thread);
        let waited = done.saturating_duration_since(now);
        exchange.waited += waited;
        let series = &post.vitals.series;
        match &result {
            Ok(sent) => {
                exchange.attempts += u32::from(!self.fresh);
                exchange.reused = sent.reused;
                exchange.ttfb = Some(done.saturating_duration_since(exchange.start));
                series.answered(thread, sent.response.status().as_u16(), waited);
                lease.answered(waited, done);
                if sent.response.status().is_server_error() {
                    self.blame(lease, Fault::ServerError);
                }
                if sent.reused {
                    series.reused(thread);
                } else {
                    series.connected(thread, ConnectResult::Ok);
                }
            }
            Err(SendError { kind: SendErrorKind::Connect(error), .. }) => {
                series.connected(thread, connect_result(error));
                if error.is_evidence() {
                    self.report(lease, Against::Refused(error.to_string()));
                } else if matches!(error, ConnectError::Timeout) && waited >= plan.connect {
                    self.blame(lease, Fault::NoAnswer);
                }
            }
            Err(error) => {
                exchange.attempts += u32::from(!self.fresh);
                exchange.reused = error.reused;
                series.unanswered(thread);
                let fault = match error.kind {
                    // A reused connection that was dead says nothing of the backend.
                    SendErrorKind::Reset(_) => !error.reused,
                    // Nor does a limit of the route's or the client's own, or an upload that paused.
                    SendErrorKind::Timeout => {
                        let sent = |upload: &Rc<Progress>| upload.state() == UploadState::Done;
                        waited >= plan.response && exchange.upload.as_ref().is_none_or(sent)
                    }
                    SendErrorKind::BadResponse(_) => true,
                    _ => false,
                };
                if fault {
                    self.blame(lease, Fault::NoAnswer);
                }
            }
        }
        result
    }

    /// Tells what may get the backend ejected, where the pool ejects.
    fn blame(&self, lease: &Lease, fault: Fault) {
        let Some(plan) = &self.pool.pool.plan.outlier else { return };
        let counts = match fault {
            Fault::NoAnswer => plan.consecutive_errors,
            Fault::ServerError => plan.consecutive_5xx,
        };
        if counts > 0 {
            self.report(lease, Against::Fault(fault));
        }
    }

    fn report(&self, lease: &Lease, what: Against) {
        self.proxy.report(Evidence { vitals: lease.post.vitals.clone(), what });
    }

    /// What is left for all that comes before a backend can answer.
    pub fn left(&self, exchange: &Exchange, now: Instant) -> Duration {
        let rpc = exchange.rpc.map_or(Duration::MAX, |rpc| rpc.left(now));
        self.left_of_route(exchange, now).min(rpc)
    }

    /// What is left of the route's `timeout`, from the last byte of the request that moved.
    fn left_of_route(&self, exchange: &Exchange, now: Instant) -> Duration {
        let Some(timeout) = self.route.plan.timeout else { return Duration::MAX };
        let moved = exchange.upload.as_ref().and_then(|upload| upload.moved());
        (moved.unwrap_or(exchange.start) + timeout).saturating_duration_since(now)
    }

    pub fn no_backend(&self) -> ProxyError {
        ProxyError::NoBackend { pool: self.pool.pool.name.to_string() }
    }

    fn give_up(&self, kind: SendErrorKind, exchange: &Exchange) -> ProxyError {
        match exchange.upload.as_ref().map(|upload| upload.state()) {
            Some(UploadState::TooLarge) => ProxyError::TooLarge,
            Some(UploadState::TooSlow) => ProxyError::SlowUpload,
            Some(UploadState::Failed) => ProxyError::BrokenUpload,
            _ => ProxyError::Send { pool: self.pool.pool.name.to_string(), kind },
        }
    }
}
