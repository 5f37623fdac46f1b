//! Sockets out: one thread's connections to one backend.
//!
//! Start at [`Client::send`], the one seam through which a request leaves. How a connection is opened
//! is `way`'s; HTTP/1 is in `alone`, and HTTP/2, of which one connection carries many requests, in
//! `h2`. Who is asked and whether to ask again is not decided here.

mod alone;
mod connect;
mod errand;
mod h2;
mod learned;
pub mod tls;
mod way;

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::{Duration, Instant};

use http::header::UPGRADE;
use hyper::Request;

use self::alone::{Alone, Idle};
pub use self::connect::ConnectError;
pub use self::errand::{Errand, Limits, SendError, SendErrorKind, Sent, Take};
use self::errand::{head, not_connected};
use self::tls::{Offer, TlsFault, Version};
pub use self::way::{NOWHERE, Pair, Way};
use crate::http::upload::{Progress, Upload, UploadState};
use crate::listen::Descriptors;
use crate::listen::io::Io;
use crate::plan::PoolProtocol;

/// A request that is not idempotent trusts a connection this long after its last use.
const SURELY_ALIVE: Duration = Duration::from_secs(1);

/// A request that could be sent again takes a connection used so recently as it is. Looking at
/// it for another turn of the event loop costs every request one more wake-up, and finds, of a
/// backend that closes idle connections, next to none.
const JUST_USED: Duration = Duration::from_millis(10);

/// How often a request follows a backend that chooses now this version of HTTP and now the other.
const TURNS: usize = 4;

/// How connections to a backend are kept: the plan's, with `max_idle` divided among threads.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Keep {
    pub max_idle: usize,
    pub idle: Duration,
    /// Zero: no limit.
    pub max_age: Duration,
}

/// One thread's connections to one backend.
pub struct Client {
    keep: Cell<Keep>,
    way: RefCell<Way>,
    /// Another one each time the way changes: what was opened before is not kept.
    era: Cell<u64>,
    /// What the backend has chosen last, where it may choose.
    chosen: Cell<Option<Version>>,
    idle: Idle,
    retired: Cell<bool>,
    descriptors: Arc<Descriptors>,
    shared: h2::Connections,
}

/// A connection while a request is on it. Dropped before the answer's end: it is closed, or, where
/// others share it, their part of it goes on.
pub enum Link {
    Alone(Alone),
    Shared(h2::Share),
}

/// Why nothing came of an errand, or not yet.
enum Failed {
    Send(SendError),
    /// The backend chose the other version. The connection is given where it carries one request.
    Turned(Request<Upload>, Option<Box<Alone>>),
}

/// What came of a wish for a connection.
enum Opened {
    Alone(Box<Alone>),
    /// It stands among those that are shared.
    Shared(Rc<h2::Connection>),
}

impl Client {
    /// `waiting`: where requests are counted that wait for a stream.
    pub fn new(keep: Keep, way: Way, descriptors: Arc<Descriptors>, waiting: Arc<AtomicU32>) -> Self {
        Self {
            keep: Cell::new(keep),
            way: RefCell::new(way),
            era: Cell::new(0),
            chosen: Cell::new(None),
            idle: Idle::default(),
            retired: Cell::new(false),
            shared: h2::Connections::new(h2::Ping::default(), waiting),
            descriptors,
        }
    }

    /// Connections that were opened in another way end with what they carry.
    pub fn set(&self, keep: Keep, way: &Way) {
        self.keep.set(keep);
        if *self.way.borrow() != *way {
            self.way.replace(way.clone());
            self.era.set(self.era.get() + 1);
            self.chosen.set(None);
            self.idle.clear();
            self.shared.leave_all();
        }
    }

    pub fn idle_connections(&self) -> usize {
        self.idle.len() + self.shared.idle()
    }

    /// Whether its connections ask by themselves if the backend is there, as HTTP/2 does.
    pub fn pings(&self) -> bool {
        self.way.borrow().protocol != PoolProtocol::Http1 && !self.speaks_http1()
    }

    /// Whether one more request would have to wait.
    pub fn is_full(&self) -> bool {
        match self.way.borrow().protocol {
            PoolProtocol::Http1 => return false,
            PoolProtocol::Auto if self.chosen.get() != Some(Version::Http2) => return false,
            _ => {}
        }
        self.shared.is_full()
    }

    /// Sends one request and waits for the head of its answer.
    pub async fn send<A: Fn() -> Arc<[SocketAddr]>>(
        &self,
        request: Request<Upload>,
        errand: Errand<'_, A>,
    ) -> Result<Sent, SendError> {
        let protocol = self.way.borrow().protocol;
        if protocol != PoolProtocol::Http1 {
            // Boxed: it is several times the size of all that follows, and whatever sends a request
            // would be as large.
            return Box::pin(self.send_either(protocol, request, errand)).await;
        }
        match self.send_alone(request, None, Offer::Http1, &errand).await {
            Ok(sent) => Ok(sent),
            Err(Failed::Send(error)) => Err(error),
            Err(Failed::Turned(request, _)) => Err(SendError::unopened(request)),
        }
    }

    /// By the version that the backend is known to speak, and by the other as soon as it turns out
    /// that it now speaks that one.
    async fn send_either<A: Fn() -> Arc<[SocketAddr]>>(
        &self,
        protocol: PoolProtocol,
        mut request: Request<Upload>,
        errand: Errand<'_, A>,
    ) -> Result<Sent, SendError> {
        // An upgrade exists in HTTP/1 alone.
        let upgrade = protocol == PoolProtocol::Auto && request.headers().contains_key(UPGRADE);
        let offer = if upgrade { Offer::Http1 } else { self.way.borrow().offer() };
        let mut opened = None;
        for _ in 0..TURNS {
            // Of whom nothing is known yet HTTP/2 is presumed: a crowd then waits for one connection
            // instead of opening one each.
            let alone = opened.is_some() || upgrade || self.speaks_http1();
            let sent = if alone {
                self.send_alone(request, opened.take(), offer, &errand).await
            } else {
                self.shared.send(self, request, offer, &errand).await
            };
            (request, opened) = match sent {
                Ok(sent) => return Ok(sent),
                Err(Failed::Send(error)) => return Err(error),
                Err(Failed::Turned(request, alone)) => (request, alone),
            };
        }
        Err(SendError::unopened(request))
    }

    /// Whether the backend may choose, and has last chosen HTTP/1.
    fn speaks_http1(&self) -> bool {
        self.chosen.get() == Some(Version::Http1)
    }

    async fn send_alone<A: Fn() -> Arc<[SocketAddr]>>(
        &self,
        request: Request<Upload>,
        opened: Option<Box<Alone>>,
        offer: Offer,
        errand: &Errand<'_, A>,
    ) -> Result<Sent, Failed> {
        let Errand { limits, progress, pair, .. } = errand;
        let mut since = limits.now;
        let found = match opened {
            Some(alone) => Some((*alone, false)),
            None => {
                let idle = self.keep.get().idle;
                self.idle.take(errand.take, *pair, idle, since).await.map(|alone| (alone, true))
            }
        };
        let (mut alone, reused) = match found {
            Some(found) => found,
            // Boxed: most requests find a connection.
            None => match Box::pin(self.open(&(errand.addresses)(), limits, offer, *pair)).await {
                Ok(Opened::Alone(alone)) => {
                    since = Instant::now();
                    (*alone, false)
                }
                Ok(Opened::Shared(connection)) => {
                    self.shared.call(&connection);
                    return Err(Failed::Turned(request, None));
                }
                Err(kind) => {
                    return Err(Failed::Send(SendError { kind, unsent: Some(request), reused: false }));
                }
            },
        };
        alone.awaits_head();
        let answer = pin!(alone.sender.try_send_request(request));
        match head(answer, limits, since, progress).await {
            Ok(Ok(response)) => {
                alone.has_head();
                if !reused {
                    self.idle.told_by(response.headers());
                }
                Ok(Sent { response, link: Link::Alone(alone), reused })
            }
            Ok(Err(mut error)) => {
                let unsent = error.take_message();
                let kind = self.classify(error.into_error(), progress, reused);
                Err(Failed::Send(SendError { kind, unsent, reused }))
            }
            Err(kind) => Err(Failed::Send(SendError { kind, unsent: None, reused })),
        }
    }

    /// Takes back a connection whose answer has come to its end.
    pub fn put(&self, link: Link, now: Instant) {
        // Of a shared one only the part is given back, and that by its end.
        let Link::Alone(alone) = link else { return };
        let keep = self.keep.get();
        let wanted = alone.era == self.era.get() && !self.retired.get() && !keep.is_old(alone.born, now);
        if wanted && !alone.sender.is_closed() {
            self.idle.put(alone, keep, now);
        }
    }

    /// Closes what has been idle too long, or has been closed by the other side.
    pub fn sweep(&self, now: Instant) {
        self.idle.sweep(self.keep.get().idle, now);
        self.shared.sweep(self.keep.get(), now);
    }

    /// Closes every idle connection.
    pub fn close_idle(&self) {
        self.idle.clear();
        self.shared.close_idle();
    }

    /// Closes every idle connection, now and whenever one comes back.
    pub fn retire(&self) {
        self.retired.set(true);
        self.shared.retire();
        self.close_idle();
    }

    /// A connection of the version that the backend chooses from `offer`.
    async fn open(
        &self,
        addresses: &[SocketAddr],
        limits: &Limits<'_>,
        offer: Offer,
        pair: Option<Pair>,
    ) -> Result<Opened, SendErrorKind> {
        let (born, era, way) = (Instant::now(), self.era.get(), self.way.borrow().clone());
        limits.timer.set(born, limits.connect);
        let (stream, chosen) = match limits.timer.limit(way.open(addresses, offer, pair)).await {
            Ok(Ok(opened)) => opened,
            Ok(Err(error)) => {
                if error.is_evidence() {
                    self.idle.refused(Instant::now());
                }
                return Err(SendErrorKind::Connect(error));
            }
            Err(wake) => return Err(not_connected(wake)),
        };
        // Who was offered one version only has not chosen.
        if offer == Offer::Both && era == self.era.get() {
            self.chosen.set(Some(chosen));
        }
        let io = Io::over(stream, self.descriptors.take());
        match chosen {
            Version::Http1 => {
                let alone = Alone::open(io, born, era, pair, self.idle.learned()).await;
                Ok(Opened::Alone(Box::new(alone.map_err(SendErrorKind::Reset)?)))
            }
            Version::Http2 => Ok(Opened::Shared(self.shared.adopt(self, io, era, limits).await?)),
        }
    }

    /// What an error of the codec means. A refusal of our certificate comes as one.
    fn classify(&self, error: hyper::Error, progress: &Option<Rc<Progress>>, reused: bool) -> SendErrorKind {
        let state = progress.as_ref().map(|progress| progress.state());
        if state.is_some_and(UploadState::is_broken) {
            return SendErrorKind::Upload;
        }
        if !reused
            && self.way.borrow().connector().is_some()
            && let Some(fault) = TlsFault::late(&error)
        {
            return SendErrorKind::Connect(fault.into());
        }
        if is_nonsense(&error) { SendErrorKind::BadResponse(error) } else { SendErrorKind::Reset(error) }
    }
}

impl Keep {
    fn is_old(&self, born: Instant, now: Instant) -> bool {
        !self.max_age.is_zero() && now.saturating_duration_since(born) >= self.max_age
    }
}

/// Whether what came breaks the rules of HTTP, of either version.
pub fn is_nonsense(error: &hyper::Error) -> bool {
    error.is_parse() || h2::is_nonsense(error)
}
