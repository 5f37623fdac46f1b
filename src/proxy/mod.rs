//! The request: from the moment hyper hands it over to the moment its answer is on the way.
//!
//! Start at [`Proxy::handle`], then `Proxy::answer`: the table of contents of a request. Each
//! line is a call into a room. One [`Proxy`] per thread; nothing of it is shared.

mod affinity;
mod error;
mod exchange;
mod forward;
mod limit;
mod line;
mod message;
mod relay;
pub(crate) mod retry;
mod tunnel;
mod visitor;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use http::header::{ALLOW, CONNECTION, EXPECT, HeaderValue, LOCATION};
use http::{Request, Response, StatusCode, Version};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use tokio::sync::{Notify, mpsc};

pub use self::affinity::unix_now;
use self::error::ProxyError;
use self::exchange::Exchange;
use self::message::Message;
use self::relay::{refuse, relay};
pub use self::visitor::Visitor;
use crate::http::body;
use crate::http::check::BadRequest;
use crate::http::max_forwards::Spent;
use crate::http::timer::Wheel;
use crate::http::tunnel::Scratch;
use crate::http::upgrade::Upgrade;
use crate::http::upload::{Progress, Upload, UploadState};
use crate::http::{check, max_forwards};
use crate::live::{Live, Look, Site, View};
use crate::plan::{Action, TemplatePart};
use crate::pool::backend::{Post, Vitals};
use crate::pool::outlier::Fault;
use crate::route::rewrite;
use crate::telemetry::access_log::{Record, Sink};
use crate::telemetry::id::RequestIds;
use crate::telemetry::{RouteSeries, Telemetry};

/// What a client is answered with.
pub type Body = body::Body<Box<Exchange>>;

/// One thread's proxy.
pub struct Proxy {
    pub thread: usize,
    pub wheel: Wheel,
    pub telemetry: Arc<Telemetry>,
    pub log: Sink,
    /// The access log holds a line, and held none before.
    pub log_began: Notify,
    site: Site,
    evidence: mpsc::Sender<Evidence>,
    scratch: Scratch,
    ids: RequestIds,
    unrouted: Arc<RouteSeries>,
    look: RefCell<Look>,
    view: RefCell<Rc<View>>,
    /// Posts of backends that left the file, while somebody still uses them.
    retired: RefCell<Vec<Weak<Post>>>,
    ending: Cell<bool>,
}

/// What speaks against a backend: what traffic tells the control thread.
pub struct Evidence {
    pub vitals: Arc<Vitals>,
    pub what: Against,
}

pub enum Against {
    /// It took no connection, for this reason.
    Refused(String),
    /// An attempt failed. Only told in pools that eject for it.
    Fault(Fault),
}

/// How a request is answered.
pub enum Answer {
    /// By a route that answers itself.
    Own(Response<Bytes>),
    Relayed {
        response: Response<Incoming>,
        /// The sticky cookie to set.
        cookie: Option<HeaderValue>,
        /// What was asked for, and the client's side of it.
        upgrade: Option<(Upgrade, OnUpgrade)>,
    },
}

impl Proxy {
    pub fn new(
        site: Site,
        live: Live,
        wheel: Wheel,
        telemetry: Arc<Telemetry>,
        log: Sink,
        evidence: mpsc::Sender<Evidence>,
    ) -> Rc<Self> {
        let mut look = Look::new(live);
        let (view, _) = View::new(look.load().clone(), &site, None);
        Rc::new(Self {
            thread: site.thread,
            wheel,
            unrouted: telemetry.route("none", ""),
            telemetry,
            log,
            log_began: Notify::new(),
            evidence,
            scratch: Scratch::default(),
            ids: RequestIds::new(site.thread),
            site,
            look: RefCell::new(look),
            view: RefCell::new(view),
            retired: RefCell::default(),
            ending: Cell::new(false),
        })
    }

    /// This thread's view of the current snapshot.
    pub fn view(&self) -> Rc<View> {
        let mut look = self.look.borrow_mut();
        let snapshot = look.load();
        if !Arc::ptr_eq(snapshot, &self.view.borrow().snapshot) {
            let previous = self.view.borrow().clone();
            let (view, gone) = View::new(snapshot.clone(), &self.site, Some(&previous));
            for post in gone {
                post.retire();
                self.retired.borrow_mut().push(Rc::downgrade(&post));
            }
            self.view.replace(view);
        }
        self.view.borrow().clone()
    }

    /// Every post of this thread, those of backends that left the file included.
    pub fn posts(&self) -> Vec<Rc<Post>> {
        let mut retired = self.retired.borrow_mut();
        retired.retain(|post| post.strong_count() > 0);
        self.view.borrow().posts().cloned().chain(retired.iter().filter_map(Weak::upgrade)).collect()
    }

    /// The time of the process is over: ends every wait on a backend, and for one.
    pub fn end(&self) {
        self.ending.set(true);
        self.posts().iter().for_each(|post| post.cut());
        self.view.borrow().pools.iter().for_each(|pool| pool.pool.shared.hold.wake_all());
    }

    pub fn is_ending(&self) -> bool {
        self.ending.get()
    }

    /// A request that hyper could not make sense of, and has answered itself.
    pub fn refused(&self, visitor: &Visitor, error: &hyper::Error) {
        let large = error.is_parse_too_large();
        let status =
            if large { StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE } else { StatusCode::BAD_REQUEST };
        exchange::record_unparsed(self, visitor, status);
    }

    /// Hands a line to the access log, and has it flushed soon if it is the first.
    fn write(&self, record: &Record<'_>) {
        let first = !self.log.pending();
        self.log.push(record);
        if first {
            self.log_began.notify_one();
        }
    }

    /// Tells the control thread, unless it has more to read than it can: the next request will.
    pub fn report(&self, evidence: Evidence) {
        let _ = self.evidence.try_send(evidence);
    }

    /// Answers one request. Never fails: what goes wrong becomes a response.
    pub async fn handle(self: Rc<Self>, visitor: Rc<Visitor>, request: Request<Incoming>) -> Response<Body> {
        let expects = request.headers().contains_key(EXPECT);
        let mut exchange = Exchange::open(&self, &visitor, &request);
        let answer = match catch(self.answer(&mut exchange, request)).await {
            Some(answer) => answer,
            None => {
                self.telemetry.process().panicked();
                Err(ProxyError::Panic)
            }
        };
        // Whether the body of a client that was never asked for it will come, nobody knows.
        let unasked = |upload: &Rc<Progress>| expects && upload.state() == UploadState::Whole;
        let alone = exchange.version < Version::HTTP_2;
        let leaves = visitor.conn.is_leaving() || exchange.upload.as_ref().is_some_and(unasked);
        let mut response = match answer {
            Ok(answer) => relay(exchange, answer),
            Err(error) => refuse(exchange, &error),
        };
        if alone && leaves && response.status() != StatusCode::SWITCHING_PROTOCOLS {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    /// The straight line: find a route, then answer by it.
    async fn answer(
        self: &Rc<Self>,
        exchange: &mut Exchange,
        request: Request<Incoming>,
    ) -> Result<Answer, ProxyError> {
        let (mut parts, incoming) = request.into_parts();
        let limits = &exchange.visitor.limits;
        exchange.target = check::check(&mut parts, limits.max_headers).map_err(ProxyError::BadRequest)?;
        if !exchange.visitor.may_ask(exchange.target.host()) {
            return Err(ProxyError::Misdirected);
        }
        exchange.uri = parts.uri.clone();
        if exchange.method != parts.method {
            exchange.method = parts.method.clone();
        }
        let upload = accept(exchange, incoming)?;
        if max_forwards::spend(&exchange.method, &mut parts.headers) == Spent::Here {
            return Ok(Answer::Own(options()));
        }
        let mut message = Message::new(parts, upload)?;
        loop {
            let view = exchange.view.clone();
            let (host, path) = (exchange.target.host(), exchange.uri.path());
            let Some(place) = view.snapshot.router.find(exchange.scheme, host, path, &exchange.method) else {
                return Err(ProxyError::NoRoute { host: host.to_owned(), path: path.to_owned() });
            };
            let route = &view.snapshot.routes[*place];
            exchange.route = Some(*place);
            // Once: who was held and starts over has been let in.
            if message.held_since.is_none() {
                limit::admit(exchange, route, &message.parts)?;
            }
            match &route.plan.action {
                Action::Respond { status, .. } if status.is_success() && message.is_connect() => {
                    return Err(ProxyError::BadRequest(BadRequest::Tunnel));
                }
                Action::Respond { status, headers, .. } => {
                    return Ok(Answer::Own(rewrite::respond(*status, headers, &route.body)));
                }
                Action::Redirect { to, status } => {
                    if host.is_empty() && to.contains(&TemplatePart::Host) {
                        return Err(ProxyError::BadRequest(BadRequest::MissingHost));
                    }
                    let to = rewrite::location(
                        to,
                        exchange.target.host(),
                        exchange.uri.path(),
                        exchange.uri.query(),
                    );
                    return Ok(Answer::Own(rewrite::respond(*status, &[(LOCATION, to)], &Bytes::new())));
                }
                Action::Forward(_) | Action::Split(_) => {
                    match forward::run(self, exchange, &view, route, &mut message).await? {
                        Some(answer) => return Ok(answer),
                        // It was held, and the world may have changed meanwhile.
                        None => exchange.view = self.view(),
                    }
                }
            }
        }
    }
}

/// What OPTIONS asks of this proxy itself.
fn options() -> Response<Bytes> {
    let allow = (ALLOW, HeaderValue::from_static(check::ALLOW));
    rewrite::respond(StatusCode::NO_CONTENT, &[allow], &Bytes::new())
}

/// Takes the request's body, unless it is known to be too large.
fn accept(exchange: &mut Exchange, incoming: Incoming) -> Result<Upload, ProxyError> {
    if incoming.is_end_stream() {
        return Ok(Upload::Empty);
    }
    let limits = &exchange.visitor.limits;
    let limit = limits.max_body;
    // A gRPC call may stay open and silent for as long as both sides like.
    let rate = if exchange.rpc.is_some() { 0 } else { limits.min_body_rate };
    let progress = Rc::new(Progress::new(limit).at_least(rate, &exchange.proxy.wheel));
    exchange.upload = Some(progress.clone());
    if limit != 0 && incoming.size_hint().lower() > limit {
        return Err(ProxyError::TooLarge);
    }
    Ok(Upload::Stream { incoming, progress, gate: None, early: VecDeque::new() })
}

/// The output of `future`, or `None` if it panicked: one request's loss, not the process's.
async fn catch<F: Future>(future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    std::future::poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
        Ok(poll) => poll.map(Some),
        Err(_) => Poll::Ready(None),
    })
    .await
}
