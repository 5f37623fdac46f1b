//! One client connection, from its first byte to the moment it closes, upgrades or falls idle.
//!
//! Start at [`connection`]. hyper reads and writes HTTP/1; this file decides how long each phase
//! may take, and when an idle connection is worth parking. hyper's own timer stays off: the one
//! timer here costs a store per phase.

use std::cell::Cell;
use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::Body as HttpBody;
use hyper::body::Incoming;
use hyper::rt::Write as _;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use tokio::io::AsyncWriteExt;

use super::head::HalfHead;
use super::timer::{Timer, Wake, Wheel};
use crate::listen::io::{Io, Traffic};
use crate::plan::ListenerLimits;

/// hyper reads heads and bodies into one buffer: larger than any head we accept, and small
/// enough that a stalled download does not hold a megabyte.
const MAX_BUFFER: usize = 64 * 1024;

/// How long a connection stays idle before its serving state is given back.
pub const PARK_AFTER: Duration = Duration::from_secs(1);

/// How long an idle connection may still begin a request once the process drains. Closing at
/// once would lose a request that is already under way.
const LEAVE_AFTER: Duration = Duration::from_secs(1);

/// What is read and thrown away after an early answer, so that the client can read it before
/// the close resets the connection.
const LINGER_BYTES: usize = 256 * 1024;
const LINGER_TIME: Duration = Duration::from_secs(2);

const SLOW_HEAD: &[u8] = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 36\r\n\
content-type: text/plain\r\n\r\n408 header_timeout: too slow a head\n";

/// What a connection's exchanges and its loop know of each other. One thread only.
pub struct Conn {
    pub peer: SocketAddr,
    /// Limits the waits of the exchange that is open.
    pub exchange_timer: Timer,
    watch: Timer,
    traffic: Arc<Traffic>,
    open: Cell<bool>,
    served: Cell<bool>,
    /// Reads when the last exchange ended: more of them means that a head is on its way.
    mark: Cell<u64>,
    /// Bytes written when a busy connection was last looked at.
    wrote: Cell<u64>,
    idle_since: Cell<Instant>,
    /// When the head that has not come whole began.
    head_since: Cell<Option<Instant>>,
    /// An answer went out before the request's body had come in.
    unread: Cell<bool>,
    leaving: Rc<Cell<bool>>,
}

impl Conn {
    /// `leaving` turns true when the process drains.
    pub fn new(peer: SocketAddr, io: &Io, wheel: &Wheel, leaving: Rc<Cell<bool>>, now: Instant) -> Self {
        Self {
            peer,
            exchange_timer: Timer::new(wheel),
            watch: Timer::new(wheel),
            traffic: io.traffic(),
            open: Cell::new(false),
            served: Cell::new(false),
            mark: Cell::new(0),
            wrote: Cell::new(0),
            idle_since: Cell::new(now),
            head_since: Cell::new(None),
            unread: Cell::new(false),
            leaving,
        }
    }

    /// Wakes the connection's loop: the process drains, or nobody waits any longer.
    pub fn watch(&self) -> &Timer {
        &self.watch
    }

    pub fn is_leaving(&self) -> bool {
        self.leaving.get()
    }

    /// An exchange begins: whatever cut the last one does not concern it.
    pub fn opened(&self) {
        self.open.set(true);
        self.head_since.set(None);
        self.exchange_timer.clear();
    }

    /// The exchange has ended; `unread` when the request's body had not come in.
    pub fn closed(&self, now: Instant, unread: bool) {
        self.open.set(false);
        self.served.set(true);
        self.mark.set(self.traffic.reads());
        self.idle_since.set(now);
        self.unread.set(unread);
    }

    fn phase(&self) -> Phase {
        if self.open.get() {
            Phase::Busy
        } else if self.traffic.reads() != self.mark.get() {
            Phase::Head
        } else if self.served.get() {
            Phase::Idle
        } else {
            Phase::FirstByte
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    FirstByte,
    Head,
    Busy,
    Idle,
}

/// How serving a connection ended.
pub enum Served {
    Closed,
    /// hyper refused what it read, and answered it with a bare 400 or 431.
    Refused(hyper::Error),
    /// Nothing came within `first_byte_timeout`.
    Silent,
    /// A head took longer than `header_timeout`; it was answered with 408.
    SlowHead,
    /// Nothing is under way; the stream can wait without any serving state.
    Idle(Io),
    /// The same, but for the beginning of a head.
    HalfHead(HalfHead),
}

/// Serves requests until the connection ends or has been idle for [`PARK_AFTER`].
pub async fn connection<H, F, B>(io: Io, conn: &Rc<Conn>, limits: &ListenerLimits, handle: H) -> Served
where
    H: Fn(Request<Incoming>) -> F,
    F: Future<Output = Response<B>>,
    B: HttpBody<Data = Bytes> + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let service = service_fn(|request| {
        let answer = handle(request);
        async { Ok::<_, Infallible>(answer.await) }
    });
    let hyper = http1::Builder::new()
        .max_header_size(limits.max_header_size)
        .max_buf_size(MAX_BUFFER.max(limits.max_header_size))
        .serve_connection(io, service)
        .with_upgrades();
    let mut hyper = Some(hyper);
    let mut known = None;
    let verdict = std::future::poll_fn(|cx| {
        let serving = hyper.as_mut().expect("polled until the verdict only");
        if let Poll::Ready(result) = pin!(serving).poll(cx) {
            return Poll::Ready(Verdict::Done(result));
        }
        loop {
            let phase = conn.phase();
            if known != Some(phase) {
                known = Some(phase);
                conn.arm(phase, limits);
            }
            // Half a head waits without hyper, at once: thousands may come at a time.
            if phase == Phase::Head && conn.traffic.is_quiet() {
                return Poll::Ready(Verdict::Park);
            }
            // A cut reaches a body only when hyper asks for more of it, and it does not while the
            // client takes nothing.
            if phase == Phase::Busy && conn.exchange_timer.is_cut() && conn.traffic.is_blocked() {
                return Poll::Ready(Verdict::Close);
            }
            let wake = std::task::ready!(conn.watch.poll(cx));
            match conn.judge(phase, wake, limits) {
                None => {}
                Some(verdict) => return Poll::Ready(verdict),
            }
        }
    })
    .await;

    let parts = hyper.take().and_then(|hyper| hyper.into_parts());
    match (verdict, parts) {
        (Verdict::Done(Ok(())), Some(parts)) if conn.unread.get() => {
            linger(parts.io, conn).await;
            Served::Closed
        }
        (Verdict::Done(Err(error)), _) if error.is_parse() => Served::Refused(error),
        (Verdict::SlowHead, Some(parts)) => {
            slow_head(parts.io, conn).await;
            Served::SlowHead
        }
        (Verdict::Silent, Some(parts)) => {
            parts.io.close().await;
            Served::Silent
        }
        (Verdict::Leave, Some(parts)) => {
            parts.io.close().await;
            Served::Closed
        }
        (Verdict::Park, Some(parts)) if parts.read_buf.is_empty() => Served::Idle(parts.io),
        (Verdict::Park, Some(parts)) => Served::HalfHead(HalfHead::new(parts.io, &parts.read_buf)),
        _ => Served::Closed,
    }
}

/// Answers a head that took too long. The send buffer is empty, so this short answer goes out whole
/// or not at all.
async fn slow_head(mut io: Io, conn: &Conn) {
    std::future::poll_fn(|cx| {
        let _ = pin!(&mut io).poll_write(cx, SLOW_HEAD);
        Poll::Ready(())
    })
    .await;
    linger(io, conn).await;
}

enum Verdict {
    Done(hyper::Result<()>),
    Silent,
    SlowHead,
    Park,
    /// Nothing is under way.
    Leave,
    /// In the middle of an answer, which must not look whole.
    Close,
}

impl Conn {
    /// Sets the limit of a phase that has just begun.
    fn arm(&self, phase: Phase, limits: &ListenerLimits) {
        match phase {
            // Let in after the others were told to leave: it leaves as they do.
            Phase::FirstByte if self.leaving.get() => self.watch.set(self.idle_since.get(), LEAVE_AFTER),
            Phase::FirstByte => self.watch.set(self.idle_since.get(), limits.first_byte_timeout),
            Phase::Head => self.watch.set(self.head_began(), limits.header_timeout),
            // A reader that takes nothing is looked at once per idle timeout.
            Phase::Busy => self.watch.set(self.idle_since.get(), limits.idle_timeout),
            Phase::Idle => self.watch.set(self.idle_since.get(), PARK_AFTER.min(limits.idle_timeout)),
        }
    }

    /// What the end of a wait means; `None` to go on waiting.
    fn judge(&self, phase: Phase, wake: Wake, limits: &ListenerLimits) -> Option<Verdict> {
        let now = Instant::now();
        if wake == Wake::Cut {
            self.watch.clear();
            match phase {
                Phase::Busy => self.watch.set(now, limits.idle_timeout),
                _ => self.watch.set(now, LEAVE_AFTER),
            }
            return None;
        }
        match phase {
            // Who was told to leave is not to blame for its silence.
            Phase::FirstByte if self.leaving.get() => Some(Verdict::Leave),
            Phase::FirstByte => Some(Verdict::Silent),
            Phase::Head => Some(Verdict::SlowHead),
            Phase::Busy => {
                let written = self.traffic.written();
                let stuck = self.traffic.is_blocked() && written == self.wrote.replace(written);
                self.watch.set(now, limits.idle_timeout);
                stuck.then_some(Verdict::Close)
            }
            Phase::Idle => {
                let idle = now.saturating_duration_since(self.idle_since.get());
                if self.leaving.get() || idle >= limits.idle_timeout {
                    return Some(Verdict::Leave);
                }
                if self.traffic.is_quiet() {
                    return Some(Verdict::Park);
                }
                self.watch.set(self.idle_since.get(), limits.idle_timeout);
                None
            }
        }
    }

    /// It may be in several hands until it is whole: the clock goes on.
    fn head_began(&self) -> Instant {
        let began = self.head_since.get().unwrap_or_else(Instant::now);
        self.head_since.set(Some(began));
        began
    }

    /// Waits with nothing but its bytes until a head is whole. `None`: its time was up, and it was
    /// answered with 408.
    pub async fn half_head(&self, mut half: HalfHead, limits: &ListenerLimits) -> Option<Io> {
        self.watch.set(self.head_began(), limits.header_timeout);
        loop {
            match self.watch.limit(half.rest(limits.max_header_size)).await {
                Ok(()) => return Some(half.whole()),
                Err(Wake::Due) => {
                    slow_head(half.into_io(), self).await;
                    return None;
                }
                Err(Wake::Cut) => {
                    self.watch.clear();
                    self.watch.set(Instant::now(), LEAVE_AFTER);
                }
            }
        }
    }

    /// The output of what comes before the first request, or `None` once its time is up.
    pub async fn before_first_byte<F: Future>(
        &self,
        limits: &ListenerLimits,
        future: F,
    ) -> Option<F::Output> {
        let mut future = pin!(future);
        self.arm(Phase::FirstByte, limits);
        loop {
            match self.watch.limit(future.as_mut()).await {
                Ok(output) => return Some(output),
                Err(Wake::Due) => return None,
                Err(Wake::Cut) => {
                    self.watch.clear();
                    self.watch.set(Instant::now(), LEAVE_AFTER);
                }
            }
        }
    }

    /// Waits with nothing but the socket until a byte comes. `false`: close it.
    pub async fn parked(&self, io: &Io, limits: &ListenerLimits) -> bool {
        let rest = if self.leaving.get() { LEAVE_AFTER } else { limits.idle_timeout };
        self.watch.set(self.idle_since.get(), rest);
        loop {
            match self.watch.limit(io.socket().readable()).await {
                Ok(readable) => return readable.is_ok(),
                Err(Wake::Due) => return false,
                Err(Wake::Cut) => {
                    self.watch.clear();
                    self.watch.set(Instant::now(), LEAVE_AFTER);
                }
            }
        }
    }
}

/// Reads on for a moment after an answer that came before the end of the request. What comes is
/// thrown away as it is, encrypted or not.
pub async fn linger(io: Io, conn: &Conn) {
    let (mut stream, _descriptor, _unread) = io.into_stream();
    conn.watch.clear();
    conn.watch.set(Instant::now(), LINGER_TIME);
    if !matches!(conn.watch.limit(stream.shutdown()).await, Ok(Ok(()))) {
        return;
    }
    let socket = stream.socket();
    // On the heap: on the stack it would be part of every connection's future.
    let mut scrap = vec![0; 4096];
    let mut left = LINGER_BYTES;
    while left > 0 {
        match conn.watch.limit(socket.readable()).await {
            Ok(Ok(())) => match socket.try_read(&mut scrap) {
                Ok(0) => return,
                Ok(bytes) => left = left.saturating_sub(bytes),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => return,
            },
            _ => return,
        }
    }
}
