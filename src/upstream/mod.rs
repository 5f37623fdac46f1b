//! Sockets out: one thread's connections to one backend.
//!
//! Start at [`Client::send`], the one seam through which a request leaves. Idle connections
//! wait in a stack (last in, first out, so that the surplus ages and is closed). A connection
//! that has been idle is used only after one more turn of the event loop, which shows an end
//! of file that is already there (but for one used a moment ago by a request that can be sent
//! again). Who is asked and whether to ask again is not decided here.

mod connect;

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, Response};

pub use connect::{ConnectError, connect};

use crate::http::body::{Progress, Upload, UploadState};
use crate::http::timer::{Timer, Wake};
use crate::listen::Descriptors;
use crate::listen::io::{Io, Traffic};

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
}

struct Idle {
    link: Link,
    since: Instant,
}

/// A connection while a request is on it. Dropped before the answer's end: it is closed.
pub struct Link {
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
    /// The request, if nothing of it was written: it can go anywhere.
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
        Self { keep: Cell::new(keep), idle: RefCell::default(), retired: Cell::new(false), descriptors }
    }

    pub fn set_keep(&self, keep: Keep) {
        self.keep.set(keep);
    }

    pub fn idle_connections(&self) -> usize {
        self.idle.borrow().len()
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
        let (mut link, reused) = match self.take(take, limits.now).await {
            Some(link) => (link, true),
            None => match self.open(&addresses(), &limits).await {
                Ok(link) => {
                    limits.now = Instant::now();
                    (link, false)
                }
                Err(kind) => return Err(SendError { kind, unsent: Some(request), reused: false }),
            },
        };
        link.head_by.set(link.traffic.reads() + MAX_HEAD_READS);
        let mut answer = pin!(link.sender.try_send_request(request));
        let mut from = limits.now;
        loop {
            limits.timer.set(from, limits.response);
            let kind = match limits.timer.limit(answer.as_mut()).await {
                Ok(Ok(response)) => {
                    // A cut that came with the answer is for its body.
                    limits.timer.disarm();
                    link.head_by.set(u64::MAX);
                    return Ok(Sent { response, link, reused });
                }
                Ok(Err(mut error)) => {
                    let unsent = error.take_message();
                    return Err(SendError { kind: classify(error.into_error(), &progress), unsent, reused });
                }
                Err(Wake::Cut) => SendErrorKind::Cut,
                Err(Wake::Due) => match progress.as_ref().and_then(|progress| progress.moved()) {
                    Some(moved) if moved > from => {
                        from = moved;
                        continue;
                    }
                    _ => SendErrorKind::Timeout,
                },
            };
            return Err(SendError { kind, unsent: None, reused });
        }
    }

    /// Takes back a connection whose answer has come to its end.
    pub fn put(&self, link: Link, now: Instant) {
        let keep = self.keep.get();
        let old = !keep.max_age.is_zero() && now.saturating_duration_since(link.born) >= keep.max_age;
        let mut idle = self.idle.borrow_mut();
        if !self.retired.get() && !old && idle.len() < keep.max_idle && !link.sender.is_closed() {
            idle.push(Idle { link, since: now });
        }
    }

    /// Closes what has been idle too long, or has been closed by the other side.
    pub fn sweep(&self, now: Instant) {
        let limit = self.keep.get().idle;
        self.idle.borrow_mut().retain(|idle| {
            !idle.link.sender.is_closed() && now.saturating_duration_since(idle.since) < limit
        });
    }

    /// Closes every idle connection.
    pub fn close_idle(&self) {
        self.idle.borrow_mut().clear();
    }

    /// Closes every idle connection, now and whenever one comes back.
    pub fn retire(&self) {
        self.retired.set(true);
        self.close_idle();
    }

    async fn take(&self, take: Take, now: Instant) -> Option<Link> {
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
            let link = idle.link;
            let just_used = now.saturating_duration_since(idle.since) < JUST_USED;
            if take == Take::Idle && just_used && link.sender.is_ready() {
                return Some(link);
            }
            tokio::task::yield_now().await;
            if link.sender.is_ready() {
                return Some(link);
            }
        }
    }

    async fn open(&self, addresses: &[SocketAddr], limits: &Limits<'_>) -> Result<Link, SendErrorKind> {
        let now = Instant::now();
        limits.timer.set(now, limits.connect);
        let stream = match limits.timer.limit(connect(addresses)).await {
            Ok(stream) => stream.map_err(SendErrorKind::Connect)?,
            Err(Wake::Due) => return Err(SendErrorKind::Connect(ConnectError::Timeout)),
            Err(Wake::Cut) => return Err(SendErrorKind::Cut),
        };
        let io = Io::new(stream, self.descriptors.take());
        let traffic = io.traffic();
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(MAX_BUFFER)
            .handshake(io)
            .await
            .map_err(SendErrorKind::Reset)?;
        let link = Link { sender, born: now, traffic, head_by: Rc::new(Cell::new(u64::MAX)) };
        let (traffic, head_by) = (link.traffic.clone(), link.head_by.clone());
        // Ends when either side closes it, when its sender is dropped, or when a head is too long.
        tokio::task::spawn_local(async move {
            let mut connection = pin!(connection.with_upgrades());
            std::future::poll_fn(|cx| {
                let over = connection.as_mut().poll(cx).is_ready() || traffic.reads() > head_by.get();
                if over { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
        });
        Ok(link)
    }
}

fn classify(error: hyper::Error, progress: &Option<Rc<Progress>>) -> SendErrorKind {
    let state = progress.as_ref().map(|progress| progress.state());
    if matches!(state, Some(UploadState::TooLarge | UploadState::Failed)) {
        SendErrorKind::Upload
    } else if error.is_parse() {
        SendErrorKind::BadResponse(error)
    } else {
        SendErrorKind::Reset(error)
    }
}
