//! Sockets out: one thread's connections to one backend.
//!
//! Start at [`Client::send`], the one seam through which a request leaves. HTTP/2, of which one
//! connection carries many requests, is in `h2`; here is HTTP/1. Idle connections
//! wait in a stack (last in, first out, so that the surplus ages and is closed). A connection
//! that has been idle is used only after one more turn of the event loop, which shows an end
//! of file that is already there (but for one used a moment ago by a request that can be sent
//! again). Who is asked and whether to ask again is not decided here.

mod connect;
mod h2;

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, Response};
use tokio::net::TcpStream;

pub use connect::{ConnectError, connect};

use crate::http::body::{Progress, Upload, UploadState};
use crate::http::timer::{Timer, Wake};
use crate::listen::Descriptors;
use crate::listen::io::{Io, Traffic};
use crate::plan::PoolProtocol;

/// hyper's read and write buffers grow up to this.
const MAX_BUFFER: usize = 64 * 1024;

/// The head of an answer comes within so many reads, all interim answers before it included. More
/// of them than that are no hints but a flood, and hyper reads over them without counting.
const MAX_HEAD_READS: u64 = 1024;

/// A request that is not idempotent trusts a connection this long after its last use.
const SURELY_ALIVE: Duration = Duration::from_secs(1);

/// A request that could be sent again takes a connection used so recently as it is. Looking at
/// it for another turn of the event loop costs every request one more wake-up, and finds, of a
/// backend that closes idle connections, next to none.
const JUST_USED: Duration = Duration::from_millis(10);

/// How connections to a backend are kept: the plan's, with `max_idle` divided among threads.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Keep {
    pub protocol: PoolProtocol,
    pub max_idle: usize,
    pub idle: Duration,
    /// Zero: no limit.
    pub max_age: Duration,
}

/// One thread's connections to one backend.
pub struct Client {
    keep: Cell<Keep>,
    idle: RefCell<Vec<Idle>>,
    retired: Cell<bool>,
    descriptors: Arc<Descriptors>,
    shared: h2::Connections,
}

struct Idle {
    alone: Alone,
    since: Instant,
}

/// A connection while a request is on it. Dropped before the answer's end: it is closed, or, where
/// others share it, their part of it goes on.
pub enum Link {
    Alone(Alone),
    Shared(h2::Share),
}

/// A connection that carries one request at a time.
pub struct Alone {
    sender: SendRequest<Upload>,
    born: Instant,
    traffic: Arc<Traffic>,
    /// By which of its reads the head that is waited for must have come.
    head_by: Rc<Cell<u64>>,
}

/// A backend's answer, and the connection to give back when its body has ended.
pub struct Sent {
    pub response: Response<Incoming>,
    pub link: Link,
    pub reused: bool,
}

/// What became of a request that got no answer.
pub struct SendError {
    pub kind: SendErrorKind,
    /// The request, if nothing of it was written, or the backend said that it did nothing with it:
    /// it can go anywhere.
    pub unsent: Option<Request<Upload>>,
    pub reused: bool,
}

#[derive(Debug)]
pub enum SendErrorKind {
    Connect(ConnectError),
    /// The connection ended before a response head.
    Reset(hyper::Error),
    /// What came is no HTTP/1 response.
    BadResponse(hyper::Error),
    /// No response head in time.
    Timeout,
    /// The client's body broke off, or is too large (the upload's state says which).
    Upload,
    /// Every connection is taken, and stayed so, or too many wait already.
    Full {
        waited: bool,
    },
    Cut,
}

impl SendErrorKind {
    /// Whether it shuts the backend for everybody, not for this request alone.
    pub fn is_evidence(&self) -> bool {
        matches!(self, Self::Connect(error) if error.is_evidence())
    }
}

/// The limits of one attempt.
pub struct Limits<'a> {
    pub now: Instant,
    pub timer: &'a Timer,
    pub connect: Duration,
    /// From the last byte of the request that moved.
    pub response: Duration,
    /// How long for a stream while all are taken, and beside how many others.
    pub hold: Duration,
    pub max_held: usize,
}

/// Which connection a request may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Take {
    /// Any that is idle: the request can be sent again.
    Idle,
    /// One that was used within the last second, or a fresh one: the request is not idempotent.
    Lively,
    Fresh,
}

impl Client {
    pub fn new(keep: Keep, descriptors: Arc<Descriptors>) -> Self {
        Self {
            keep: Cell::new(keep),
            idle: RefCell::default(),
            retired: Cell::new(false),
            shared: h2::Connections::new(h2::Ping::default()),
            descriptors,
        }
    }

    pub fn set_keep(&self, keep: Keep) {
        if self.keep.replace(keep).protocol != keep.protocol {
            self.close_idle();
        }
    }

    pub fn idle_connections(&self) -> usize {
        self.idle.borrow().len() + self.shared.idle()
    }

    /// Whether one more request would have to wait.
    pub fn is_full(&self) -> bool {
        self.keep.get().protocol == PoolProtocol::H2c && self.shared.is_full()
    }

    /// Sends one request and waits for the head of its answer.
    pub async fn send(
        &self,
        addresses: impl FnOnce() -> Arc<[SocketAddr]>,
        request: Request<Upload>,
        progress: Option<Rc<Progress>>,
        take: Take,
        mut limits: Limits<'_>,
    ) -> Result<Sent, SendError> {
        if self.keep.get().protocol == PoolProtocol::H2c {
            // Boxed: it is several times the size of all that follows, and whatever sends a request
            // would be as large.
            return Box::pin(self.shared.send(self, addresses, request, progress, take, limits)).await;
        }
        let (mut alone, reused) = match self.take(take, limits.now).await {
            Some(alone) => (alone, true),
            None => match self.open(&addresses(), &limits).await {
                Ok(alone) => {
                    limits.now = Instant::now();
                    (alone, false)
                }
                Err(kind) => return Err(SendError { kind, unsent: Some(request), reused: false }),
            },
        };
        alone.head_by.set(alone.traffic.reads() + MAX_HEAD_READS);
        let answer = pin!(alone.sender.try_send_request(request));
        match head(answer, &limits, &progress).await {
            Ok(Ok(response)) => {
                alone.head_by.set(u64::MAX);
                Ok(Sent { response, link: Link::Alone(alone), reused })
            }
            Ok(Err(mut error)) => {
                let unsent = error.take_message();
                Err(SendError { kind: classify(error.into_error(), &progress), unsent, reused })
            }
            Err(kind) => Err(SendError { kind, unsent: None, reused }),
        }
    }

    /// Takes back a connection whose answer has come to its end.
    pub fn put(&self, link: Link, now: Instant) {
        // Of a shared one only the part is given back, and that by its end.
        let Link::Alone(alone) = link else { return };
        let keep = self.keep.get();
        let mut idle = self.idle.borrow_mut();
        let wanted =
            keep.protocol == PoolProtocol::Http1 && !self.retired.get() && !keep.is_old(alone.born, now);
        if wanted && idle.len() < keep.max_idle && !alone.sender.is_closed() {
            idle.push(Idle { alone, since: now });
        }
    }

    /// Closes what has been idle too long, or has been closed by the other side.
    pub fn sweep(&self, now: Instant) {
        let limit = self.keep.get().idle;
        self.idle.borrow_mut().retain(|idle| {
            !idle.alone.sender.is_closed() && now.saturating_duration_since(idle.since) < limit
        });
        self.shared.sweep(self.keep.get(), now);
    }

    /// Closes every idle connection.
    pub fn close_idle(&self) {
        self.idle.borrow_mut().clear();
        self.shared.close_idle();
    }

    /// Closes every idle connection, now and whenever one comes back.
    pub fn retire(&self) {
        self.retired.set(true);
        self.shared.retire();
        self.close_idle();
    }

    async fn take(&self, take: Take, now: Instant) -> Option<Alone> {
        let limit = match take {
            Take::Idle => self.keep.get().idle,
            Take::Lively => SURELY_ALIVE.min(self.keep.get().idle),
            Take::Fresh => return None,
        };
        loop {
            let idle = self.idle.borrow_mut().pop()?;
            if now.saturating_duration_since(idle.since) >= limit {
                // Those below it have waited longer still; the sweep closes them.
                self.idle.borrow_mut().push(idle);
                return None;
            }
            let alone = idle.alone;
            let just_used = now.saturating_duration_since(idle.since) < JUST_USED;
            if take == Take::Idle && just_used && alone.sender.is_ready() {
                return Some(alone);
            }
            tokio::task::yield_now().await;
            if alone.sender.is_ready() {
                return Some(alone);
            }
        }
    }

    async fn open(&self, addresses: &[SocketAddr], limits: &Limits<'_>) -> Result<Alone, SendErrorKind> {
        let (stream, born) = self.connect(addresses, limits).await?;
        let io = Io::new(stream, self.descriptors.take());
        let traffic = io.traffic();
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(MAX_BUFFER)
            .handshake(io)
            .await
            .map_err(SendErrorKind::Reset)?;
        let alone = Alone { sender, born, traffic, head_by: Rc::new(Cell::new(u64::MAX)) };
        let (traffic, head_by) = (alone.traffic.clone(), alone.head_by.clone());
        // Ends when either side closes it, when its sender is dropped, or when a head is too long.
        tokio::task::spawn_local(async move {
            let mut connection = pin!(connection.with_upgrades());
            std::future::poll_fn(|cx| {
                let over = connection.as_mut().poll(cx).is_ready() || traffic.reads() > head_by.get();
                if over { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
        });
        Ok(alone)
    }

    /// A connected socket, and when it was asked for. The timer goes on.
    async fn connect(
        &self,
        addresses: &[SocketAddr],
        limits: &Limits<'_>,
    ) -> Result<(TcpStream, Instant), SendErrorKind> {
        let now = Instant::now();
        limits.timer.set(now, limits.connect);
        match limits.timer.limit(connect(addresses)).await {
            Ok(stream) => Ok((stream.map_err(SendErrorKind::Connect)?, now)),
            Err(wake) => Err(not_connected(wake)),
        }
    }
}

impl Keep {
    fn is_old(&self, born: Instant, now: Instant) -> bool {
        !self.max_age.is_zero() && now.saturating_duration_since(born) >= self.max_age
    }
}

fn not_connected(wake: Wake) -> SendErrorKind {
    match wake {
        Wake::Due => SendErrorKind::Connect(ConnectError::Timeout),
        Wake::Cut => SendErrorKind::Cut,
    }
}

/// Waits for the head of an answer as long as the limits say.
async fn head<F: Future>(
    mut answer: Pin<&mut F>,
    limits: &Limits<'_>,
    progress: &Option<Rc<Progress>>,
) -> Result<F::Output, SendErrorKind> {
    let mut from = limits.now;
    loop {
        limits.timer.set(from, limits.response);
        match limits.timer.limit(answer.as_mut()).await {
            Ok(output) => {
                // A cut that came with the answer is for its body.
                limits.timer.disarm();
                return Ok(output);
            }
            Err(Wake::Cut) => return Err(SendErrorKind::Cut),
            Err(Wake::Due) => match progress.as_ref().and_then(|progress| progress.moved()) {
                Some(moved) if moved > from => from = moved,
                _ => return Err(SendErrorKind::Timeout),
            },
        }
    }
}

/// Whether what came breaks the rules of HTTP, of either version.
pub fn is_nonsense(error: &hyper::Error) -> bool {
    error.is_parse() || h2::is_nonsense(error)
}

fn classify(error: hyper::Error, progress: &Option<Rc<Progress>>) -> SendErrorKind {
    let state = progress.as_ref().map(|progress| progress.state());
    if matches!(state, Some(UploadState::TooLarge | UploadState::TooSlow | UploadState::Failed)) {
        SendErrorKind::Upload
    } else if is_nonsense(&error) {
        SendErrorKind::BadResponse(error)
    } else {
        SendErrorKind::Reset(error)
    }
}
