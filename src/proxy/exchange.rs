//! The facts of one request and its answer, recorded once, when the last byte has gone.
//!
//! An [`Exchange`] rides in the response body with the lease and the connection that it used:
//! whatever ends the body ends all three. A client that leaves earlier drops it earlier, and
//! it records itself as aborted. There is no finish call to forget.

use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use http::header::{REFERER, USER_AGENT};
use http::{HeaderValue, Method, Request, StatusCode, Uri, Version};
use hyper::body::Incoming;

use super::{Proxy, Visitor};
use crate::http::body::{Ending, Guard};
use crate::http::forwarded::Peer;
use crate::http::grpc::Rpc;
use crate::http::headers::{request_id, trace_id};
use crate::http::replay::Replay;
use crate::http::serve::Call;
use crate::http::target::Target;
use crate::http::timer::{Patience, Timer};
use crate::http::upload::{Progress, UploadState};
use crate::live::{Route, View};
use crate::plan::Scheme;
use crate::pool::Pool;
use crate::pool::backend::{Lease, Post};
use crate::telemetry::access_log::Record;
use crate::telemetry::id::Id;
use crate::telemetry::{End, Finished, RouteSeries, Stick, TunnelReason};
use crate::upstream::{Link, NOWHERE, Pair};

pub struct Exchange {
    pub proxy: Rc<Proxy>,
    pub visitor: Rc<Visitor>,
    pub call: Rc<Call>,
    pub view: Rc<View>,
    pub start: Instant,
    pub id: Id,
    /// The id that a trusted peer gave it.
    pub given_id: Option<HeaderValue>,
    pub peer: Rc<Peer>,
    pub client: IpAddr,
    /// How the client came, of which a proxy before us may have told.
    pub scheme: Scheme,
    pub version: Version,
    pub method: Method,
    pub uri: Uri,
    pub target: Target,
    /// It is a gRPC call.
    pub rpc: Option<Rpc>,
    trace: Option<String>,
    user_agent: Option<HeaderValue>,
    referer: Option<HeaderValue>,
    /// The place of the route in the snapshot.
    pub route: Option<usize>,
    /// The place of the pool among the route's.
    pub place: Option<usize>,
    /// Who was asked last.
    pub backend: Option<Rc<Post>>,
    pub stick: Option<Stick>,
    pub attempts: u32,
    pub reused: bool,
    /// Spent waiting for backends, or for one to come up.
    pub waited: Duration,
    pub ttfb: Option<Duration>,
    /// When the last byte came from the backend: the clock is read once for it.
    finished: Option<Instant>,
    pub upload: Option<Rc<Progress>>,
    /// An upload of which the backend may have yet to get what its client has sent.
    pub kept: Option<Rc<RefCell<Replay>>>,
    status: Option<StatusCode>,
    pub end: Option<End>,
    /// Bytes to the client, and from it through a tunnel.
    pub sent: u64,
    pub received: u64,
    pub lease: Option<Lease>,
    pub link: Option<Link>,
    /// Keeps back a body that the backend did not ask for before it answered.
    pub kept_back: Option<Timer>,
    /// It has been written down as an opened tunnel; why that has ended, or would now.
    pub tunnel: Option<TunnelReason>,
}

impl Exchange {
    pub fn open(proxy: &Rc<Proxy>, visitor: &Rc<Visitor>, request: &Request<Incoming>) -> Box<Self> {
        let view = proxy.view();
        let headers = request.headers();
        let peer = visitor.peer(&view.snapshot);
        let logs = proxy.log.enabled();
        let start = Instant::now();
        Box::new(Self {
            rpc: Rpc::of(request.method(), headers, start),
            start,
            id: proxy.ids.next(),
            given_id: request_id(headers, peer.trusted()),
            client: view.snapshot.trust.client_address(&peer, headers),
            scheme: view.snapshot.trust.scheme(&peer, headers, visitor.scheme()),
            peer,
            version: request.version(),
            method: request.method().clone(),
            uri: request.uri().clone(),
            target: Target::unnamed(),
            trace: if logs { trace_id(headers).map(str::to_owned) } else { None },
            user_agent: if logs { headers.get(USER_AGENT).cloned() } else { None },
            referer: if logs { headers.get(REFERER).cloned() } else { None },
            route: None,
            place: None,
            backend: None,
            stick: None,
            attempts: 0,
            reused: false,
            waited: Duration::ZERO,
            ttfb: None,
            finished: None,
            upload: None,
            kept: None,
            status: None,
            end: None,
            sent: 0,
            received: 0,
            lease: None,
            link: None,
            kept_back: None,
            tunnel: None,
            proxy: proxy.clone(),
            visitor: visitor.clone(),
            call: visitor.conn.opened(),
            view,
        })
    }

    /// The id to ask about it by: ours, or the one that came with it.
    pub fn id_value(&self) -> HeaderValue {
        let ours = || HeaderValue::from_str(self.id.as_str()).expect("ids are letters and digits");
        self.given_id.clone().unwrap_or_else(ours)
    }

    pub fn route(&self) -> Option<&Route> {
        self.route.map(|route| &self.view.snapshot.routes[route])
    }

    fn pool(&self) -> Option<&Pool> {
        let target = &self.route()?.targets[self.place?];
        Some(&self.view.pools[target.pool].pool)
    }

    /// The pool it went to, or nothing.
    pub fn pool_name(&self) -> &str {
        self.pool().map_or("", |pool| &pool.name)
    }

    /// How long the backend may take over its answer, once it has begun.
    pub fn patience(&self) -> Patience {
        let pause = self.pool().map_or(Duration::MAX, |pool| self.pause(pool.plan.timeouts.idle));
        Patience { pause, until: self.rpc.and_then(Rpc::until) }
    }

    /// How long the backend may be silent: a limit of the pool's, but for gRPC, where a stream may
    /// be quiet for hours. HTTP/2's pings tell whether its backend is still there.
    pub fn pause(&self, limit: Duration) -> Duration {
        let pings = || self.backend.as_ref().is_some_and(|post| post.client.pings());
        if self.rpc.is_some() && pings() { Duration::MAX } else { limit }
    }

    /// Whose request this is, for backends that are told by the PROXY protocol. A client that a
    /// trusted peer names has no port that anybody knows.
    pub fn pair(&self) -> Pair {
        let (peer, destination) = (self.visitor.conn.peer.get(), self.visitor.conn.local.unwrap_or(NOWHERE));
        let same = peer.ip().to_canonical() == self.client;
        let port = if same { peer.port() } else { 0 };
        Pair { source: SocketAddr::new(self.client, port), destination }
    }

    /// What was decided of the answer: its status, and how the exchange would end now.
    pub fn answered(&mut self, status: StatusCode, end: End) {
        self.status = Some(status);
        self.end = Some(end);
    }

    /// The series that counts it: the pool's within the route, or the route's own.
    fn series(&self) -> &RouteSeries {
        match (self.route(), self.place) {
            (Some(route), Some(place)) => &route.targets[place].series,
            (Some(route), None) => &route.series,
            (None, _) => &self.proxy.unrouted,
        }
    }

    /// Writes it down as it stands. A tunnel is written down twice: opened, and closed.
    pub fn record(&self, now: Instant) {
        // A client that left before its answer got no status.
        let status = self.status.map_or(0, |status| status.as_u16());
        let end = self.end.unwrap_or(End::ClientAbort);
        let duration = now.saturating_duration_since(self.start);
        let received = self.received + self.upload.as_ref().map_or(0, |upload| upload.bytes());
        let thread = self.proxy.thread;
        let own = self.ttfb.map(|ttfb| ttfb.saturating_sub(self.waited));
        if end != End::Upgraded {
            self.series().record(
                thread,
                Finished {
                    method: &self.method,
                    status,
                    duration,
                    request_bytes: received,
                    response_bytes: self.sent,
                },
            );
        }
        // What was known when a tunnel opened was counted then.
        if let Some(own) = own.filter(|_| self.tunnel.is_none()) {
            self.visitor.series.overhead(thread, own);
        }
        if let Some(pool) = self.pool() {
            pool.series.ended(thread, end);
            match (self.tunnel, self.stick) {
                (Some(reason), _) => pool.series.websocket_closed(thread, reason),
                (None, Some(stick)) => pool.series.stuck(thread, stick),
                (None, None) => {}
            }
        }
        if !self.proxy.log.enabled() {
            return;
        }
        let given_id = self.given_id.as_ref().and_then(|id| id.to_str().ok());
        self.proxy.write(&Record {
            at: SystemTime::now() - duration,
            // The one that backends and clients are told.
            id: given_id.unwrap_or_else(|| self.id.as_str()),
            trace: self.trace.as_deref(),
            client: self.client,
            listener: &self.visitor.listener,
            proto: spelled(self.version),
            tls: self.visitor.tls(),
            method: self.method.as_str(),
            host: self.target.host(),
            path: self.uri.path(),
            query: self.uri.query(),
            status,
            route: self.route().map_or("", |route| &route.plan.name),
            pool: self.pool_name(),
            backend: self.backend.as_ref().map_or("", |post| &post.vitals.name),
            stick: self.stick,
            attempts: self.attempts,
            reused: self.reused,
            duration,
            ttfb: self.ttfb,
            proxy: own,
            req_bytes: received,
            resp_bytes: self.sent,
            end,
            user_agent: self.user_agent.as_ref().map(HeaderValue::as_bytes),
            referer: self.referer.as_ref().map(HeaderValue::as_bytes),
        });
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if let Some(kept_back) = &self.kept_back {
            kept_back.cut();
        }
        let now = self.finished.unwrap_or_else(Instant::now);
        self.record(now);
        let unread = self.upload.as_ref().is_some_and(|upload| upload.state() != UploadState::Done);
        self.visitor.conn.closed(now, unread);
    }
}

/// How the access log writes a version.
fn spelled(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "http/1.0",
        Version::HTTP_2 => "h2",
        _ => "http/1.1",
    }
}

/// Writes down a request that hyper refused before there was anything to know of it.
pub fn record_unparsed(proxy: &Proxy, visitor: &Visitor, status: StatusCode) {
    let nothing = Finished {
        method: &Method::GET,
        status: status.as_u16(),
        duration: Duration::ZERO,
        request_bytes: 0,
        response_bytes: 0,
    };
    proxy.unrouted.record(proxy.thread, nothing);
    proxy.write(&Record {
        at: SystemTime::now(),
        id: proxy.ids.next().as_str(),
        trace: None,
        client: visitor.conn.peer.get().ip().to_canonical(),
        listener: &visitor.listener,
        proto: "http/1.1",
        tls: visitor.tls(),
        method: "",
        host: "",
        path: "",
        query: None,
        status: status.as_u16(),
        route: "",
        pool: "",
        backend: "",
        stick: None,
        attempts: 0,
        reused: false,
        duration: Duration::ZERO,
        ttfb: None,
        proxy: None,
        req_bytes: 0,
        resp_bytes: 0,
        end: End::BadRequest,
        user_agent: None,
        referer: None,
    });
}

/// The exchange as the guard of its response body.
impl Guard for Box<Exchange> {
    fn moved(&mut self, bytes: usize) {
        self.sent += bytes as u64;
    }

    fn ended(&mut self, ending: Ending) {
        let (lease, link) = (self.lease.take(), self.link.take());
        let now = *self.finished.insert(Instant::now());
        match ending {
            Ending::Complete => {
                // An upload that still runs keeps its connection from the next request.
                let done = self.upload.as_ref().is_none_or(|upload| upload.state() == UploadState::Done)
                    && self.kept.as_ref().is_none_or(|kept| kept.borrow().is_end_stream());
                if let (Some(lease), Some(link), true) = (&lease, link, done) {
                    lease.post.give_back(link, now);
                }
                // Over HTTP/2 the client is then told to send no more of it (RFC 9113 section 8.1);
                // over HTTP/1 its connection closes.
                if let (Some(upload), true) = (&self.upload, self.version == Version::HTTP_2 && !done) {
                    upload.give_up();
                }
                self.end = Some(End::Ok);
            }
            Ending::Broken => {
                let slow = self.upload.as_ref().is_some_and(|upload| upload.state() == UploadState::TooSlow);
                self.end = Some(if slow { End::IdleTimeout } else { End::ResetDuringResponse });
            }
            Ending::Stalled => self.end = Some(End::IdleTimeout),
            Ending::Late => self.end = Some(End::ResponseTimeout),
            Ending::Cut => self.end = Some(End::Drained),
        }
    }
}
