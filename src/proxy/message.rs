//! A request while it looks for its backend: what came in, and what goes out.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use http::header::{EXPECT, HOST, HeaderValue};
use http::request::Parts;
use http::{Request, StatusCode, Version};
use http_body::Body as _;
use hyper::upgrade::OnUpgrade;
use tokio::sync::Notify;

use super::Answer;
use super::error::ProxyError;
use super::exchange::Exchange;
use super::retry::{Failure, What};
use crate::http::headers::{self, X_REQUEST_ID};
use crate::http::replay::{Reader, Replay, may_fit};
use crate::http::timer::{Timer, Wake, Wheel};
use crate::http::upgrade::{self, Upgrade};
use crate::http::upload::{Upload, UploadState};
use crate::live::Route;
use crate::plan::{HostHeader, PoolProtocol};
use crate::pool::backend::Lease;
use crate::pool::hold::Ticket;
use crate::pool::{self, Tried};
use crate::route::rewrite;
use crate::telemetry::Stick;
use crate::upstream::{SendError, Sent};

/// How long the body of a client that expects `100-continue` is kept back: not every backend
/// knows to ask for it.
const CONTINUE_WAIT: Duration = Duration::from_secs(1);

pub struct Message {
    pub parts: Parts,
    pub tried: Tried,
    /// A place in the line of those who wait for a backend, and when the wait began.
    pub ticket: Option<Ticket>,
    pub held_since: Option<Instant>,
    upload: Upload,
    /// What has gone out of a body that may have to go out once more.
    kept: Option<Rc<RefCell<Replay>>>,
    upgrade: Option<Upgrade>,
    client: Option<OnUpgrade>,
    /// The client sends its body only when it is asked to.
    expects: bool,
    /// Limits how long the body is kept back.
    kept_back: Option<Timer>,
    /// The head is as it goes out, but for its Host.
    ready: bool,
}

impl Message {
    pub fn new(mut parts: Parts, upload: Upload) -> Result<Self, ProxyError> {
        let upgrade = upgrade::requested(&parts).map_err(ProxyError::BadRequest)?;
        let client = upgrade.as_ref().and_then(|_| parts.extensions.remove::<OnUpgrade>());
        // Over HTTP/2 hyper writes no 100: who waits for one goes on after a while.
        let expects = parts.version == Version::HTTP_11
            && parts.headers.contains_key(EXPECT)
            && matches!(upload, Upload::Stream { .. });
        Ok(Self {
            parts,
            tried: Tried::default(),
            ticket: None,
            held_since: None,
            upload,
            kept: None,
            upgrade,
            client,
            expects,
            kept_back: None,
            ready: false,
        })
    }

    /// Whether a tunnel is asked for.
    pub fn is_upgrade(&self) -> bool {
        self.upgrade.is_some()
    }

    /// Whether it is asked for by CONNECT, which any 2xx would grant.
    pub fn is_connect(&self) -> bool {
        self.upgrade.as_ref().is_some_and(Upgrade::is_connect)
    }

    /// Waits until its place in line is called. A client that has left meanwhile is not waited with:
    /// hyper notices that where it reads, and it reads no more of a body than somebody asks for.
    pub async fn called(&mut self) -> Result<(), ProxyError> {
        let Self { ticket: Some(ticket), upload, expects, .. } = self else { return Ok(()) };
        ticket.stays();
        let mut called = pin!(ticket.called());
        poll_fn(|cx| {
            if called.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Ok(()));
            }
            if *expects {
                return Poll::Pending;
            }
            upload.poll_broken(cx).map(|left| {
                Err(if left == UploadState::Left { ProxyError::ClientLeft } else { ProxyError::BrokenUpload })
            })
        })
        .await
    }

    /// The request as it goes to a backend. Where it may have to go out twice the head stays
    /// here and a copy goes; else it goes itself.
    pub fn outgoing(
        &mut self,
        exchange: &Exchange,
        route: &Route,
        pool: &pool::View,
        lease: &Lease,
    ) -> Request<Upload> {
        if !self.ready {
            self.make_ready(exchange, route, pool);
        }
        match &pool.pool.plan.host {
            HostHeader::Literal(host) => drop(self.parts.headers.insert(HOST, host.clone())),
            HostHeader::Preserve if self.parts.headers.contains_key(HOST) => {}
            // Also for an HTTP/1.0 client that named nobody: HTTP/1.1 must have one.
            HostHeader::Preserve | HostHeader::Backend => {
                drop(self.parts.headers.insert(HOST, pool.pool.backends[lease.place].host.clone()));
            }
        }
        let upload = std::mem::replace(&mut self.upload, Upload::Empty);
        let repeatable = exchange.method.is_idempotent() && may_fit(&upload);
        if repeatable && matches!(upload, Upload::Empty) {
            return Request::from_parts(self.parts.clone(), upload);
        }
        let parts = if repeatable {
            self.parts.clone()
        } else {
            let (empty, ()) = Request::new(()).into_parts();
            std::mem::replace(&mut self.parts, empty)
        };
        let mut request = Request::from_parts(parts, upload);
        // Nobody hears of a 100 over HTTP/2: there the client is asked when its body is first wanted.
        // Who has been asked for it once is not asked again.
        if self.expects
            && pool.pool.plan.protocol == PoolProtocol::Http1
            && matches!(request.body(), Upload::Stream { progress, .. } if progress.state() == UploadState::Whole)
        {
            self.kept_back = Some(keep_back(&mut request, &exchange.proxy.wheel));
        }
        if repeatable { request.map(|upload| self.keep(upload)) } else { request }
    }

    /// From here on what is read of the body is kept, as long as it is little.
    fn keep(&mut self, upload: Upload) -> Upload {
        let kept = self.kept.insert(Rc::new(RefCell::new(Replay::new(upload))));
        Upload::Kept(Reader::new(kept))
    }

    /// Whether it can be sent again whatever becomes of it before there is an answer.
    pub fn is_repeatable(&self, exchange: &Exchange) -> bool {
        let fits = |kept: &Rc<RefCell<Replay>>| kept.borrow().fits();
        exchange.method.is_idempotent() && (exchange.upload.is_none() || self.kept.as_ref().is_some_and(fits))
    }

    /// Whether the request can go out again: what was never sent is taken back, and so is what has
    /// been kept.
    pub fn restore(&mut self, unsent: Option<Request<Upload>>, exchange: &Exchange) -> bool {
        if let Some(upload) = self.kept.take().and_then(|kept| kept.borrow_mut().take()) {
            self.upload = upload;
            return true;
        }
        match unsent {
            Some(request) => {
                (self.parts, self.upload) = request.into_parts();
                true
            }
            None => exchange.upload.is_none() && exchange.method.is_idempotent(),
        }
    }

    /// What is known of a failed attempt.
    pub fn failure(&self, exchange: &Exchange, failed: &SendError, stick: Stick) -> Failure {
        let what = match What::from(&failed.kind) {
            // Nobody is asked any more.
            What::Cut if exchange.proxy.is_ending() => What::Final,
            what => what,
        };
        Failure {
            what,
            unsent: failed.unsent.is_some(),
            reused: failed.reused,
            body_whole: self.is_whole(exchange),
            ..self.bad_answer(exchange, stick)
        }
    }

    /// What is known of an attempt whose answer is none for the route.
    pub fn bad_answer(&self, exchange: &Exchange, stick: Stick) -> Failure {
        Failure {
            what: What::Status,
            unsent: false,
            reused: false,
            idempotent: exchange.method.is_idempotent(),
            // A body that is still on its way would be taken from whoever has answered.
            body_whole: self.is_whole(exchange)
                && self.kept.as_ref().is_none_or(|kept| kept.borrow().is_end_stream()),
            bound: stick == Stick::Valid,
            attempts: exchange.attempts,
        }
    }

    /// Whether its body is here from its beginning, or there is none.
    fn is_whole(&self, exchange: &Exchange) -> bool {
        match (&exchange.upload, &self.kept) {
            (None, _) => true,
            (Some(_), Some(kept)) => kept.borrow().is_whole(),
            (Some(upload), None) => upload.state() == UploadState::Whole,
        }
    }

    /// Hop-by-hop fields go, forwarding fields come (after them, so that a client cannot name
    /// ours in `Connection`), and the route's edits have the last word.
    fn make_ready(&mut self, exchange: &Exchange, route: &Route, pool: &pool::View) {
        let version = self.parts.version;
        let parts = &mut self.parts;
        headers::strip_request(&mut parts.headers);
        let trust = &exchange.view.snapshot.trust;
        let scheme = exchange.visitor.scheme().name();
        trust.forward(&exchange.peer, scheme, exchange.target.authority(), &mut parts.headers);
        for name in &exchange.view.snapshot.subject_headers {
            headers::remove_spellings(&mut parts.headers, name);
        }
        let told = exchange.visitor.subject(&exchange.view.snapshot);
        if let Some((name, subject)) = told {
            parts.headers.insert(name, subject);
        }
        if let Some(id) = &exchange.given_id {
            parts.headers.insert(&X_REQUEST_ID, id.clone());
        } else {
            parts.headers.insert(&X_REQUEST_ID, exchange.id_value());
        }
        // A pool's cookie is ours under every policy, and no backend's business.
        for pool in &exchange.view.pools {
            pool.pool.affinity.strip(&mut parts.headers);
        }
        rewrite::edit_request(&route.plan.request_headers, &mut parts.headers);
        if pool.pool.plan.via {
            headers::via(&mut parts.headers, version);
        }
        match &self.upgrade {
            Some(upgrade) => upgrade.restore(&mut parts.headers),
            None => headers::frame(parts, self.upload.is_end_stream(), self.upload.size_hint().exact()),
        }
        parts.version = Version::HTTP_11;
        self.ready = true;
    }

    /// Takes a backend's answer into the exchange.
    pub fn answered(
        &mut self,
        exchange: &mut Exchange,
        lease: Lease,
        sent: Sent,
        cookie: Option<HeaderValue>,
    ) -> Answer {
        exchange.lease = Some(lease);
        exchange.link = Some(sent.link);
        exchange.kept = self.kept.take().inspect(|kept| kept.borrow_mut().forget());
        // Answered without its body: nobody will be asked for it any more.
        exchange.kept_back = self.kept_back.take().inspect(Timer::disarm);
        Answer::Relayed {
            response: sent.response,
            cookie,
            upgrade: self.upgrade.take().zip(self.client.take()),
        }
    }
}

/// Passes the expectation on, and keeps the body back until the backend asks for it: the client is
/// then asked in turn, by hyper, when its body is first wanted. A final answer that comes first
/// leaves the body unread, and neither connection is used again. The timer that is returned limits
/// the wait; cut, it ends the upload.
fn keep_back(request: &mut Request<Upload>, wheel: &Wheel) -> Timer {
    request.headers_mut().insert(EXPECT, HeaderValue::from_static("100-continue"));
    let asked = Arc::new(Notify::new());
    let timer = Timer::new(wheel);
    if let Upload::Stream { gate, .. } = request.body_mut() {
        let (asked, timer) = (asked.clone(), timer.clone());
        *gate = Some(Box::pin(async move {
            timer.set(Instant::now(), CONTINUE_WAIT);
            timer.limit(asked.notified()).await != Err(Wake::Cut)
        }));
    }
    hyper::ext::on_informational(request, move |interim| {
        if interim.status() == StatusCode::CONTINUE {
            asked.notify_one();
        }
    });
    timer
}
