//! One client connection, from its first byte to the moment it closes, upgrades or falls idle.
//!
//! [`http1`] and [`http2`] serve it; which of the two is told by the TLS handshake or by [`sniff`].
//! Here is what they share: [`Conn`], which a connection's exchanges and its loop know of each
//! other, and [`Call`], one exchange's part of it.

mod abuse;
mod frames;
mod head;
pub mod http1;
pub mod http2;
mod rules;
mod sniff;
mod watched;

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;

pub use self::head::HalfHead;
pub use self::sniff::speaks_http2;
use super::timer::{Timer, Wake, Wheel};
use crate::listen::io::{Io, Traffic};
use crate::listen::stream::Stream;
use crate::plan::ListenerLimits;

/// How long a connection stays idle before its serving state is given back.
pub const PARK_AFTER: Duration = Duration::from_secs(1);

/// How long an idle connection may still begin a request once the process drains. Closing at
/// once would lose a request that is already under way.
const LEAVE_AFTER: Duration = Duration::from_secs(1);

/// What is read and thrown away after an early answer, so that the client can read it before
/// the close resets the connection.
const LINGER_BYTES: usize = 256 * 1024;
const LINGER_TIME: Duration = Duration::from_secs(2);

/// What a connection's exchanges and its loop know of each other. One thread only.
pub struct Conn {
    /// Who connected, or for whom: a PROXY header may tell.
    pub peer: Cell<SocketAddr>,
    /// The address of ours that it came to.
    pub local: Option<SocketAddr>,
    wheel: Wheel,
    watch: Timer,
    traffic: Arc<Traffic>,
    /// Over HTTP/1 all exchanges are the same call, one after the other.
    call: Rc<Call>,
    /// Over HTTP/2 each is one of its own; this is how long its client may take nothing.
    patience: Cell<Option<Duration>>,
    /// The call that began just now, until its stream has picked it up.
    newest: RefCell<Option<Rc<Call>>>,
    /// Exchanges under way.
    open: Cell<u32>,
    served: Cell<bool>,
    /// Reads when the last exchange ended: more of them means that a head is on its way.
    mark: Cell<u64>,
    /// Bytes written when a busy connection was last looked at.
    wrote: Cell<u64>,
    idle_since: Cell<Instant>,
    /// When the HTTP/1 head that has not come whole began.
    head_since: Cell<Option<Instant>>,
    /// An answer went out before the request's body had come in.
    unread: Cell<bool>,
    leaving: Rc<Cell<bool>>,
}

/// One exchange's side of its connection.
pub struct Call {
    /// Limits its waits.
    pub timer: Timer,
    /// Over HTTP/2: how long the client may leave lying what it was given.
    patience: Option<Duration>,
    /// What was read last from the backend is for the client to take.
    lent: Cell<bool>,
}

impl Call {
    fn new(wheel: &Wheel, patience: Option<Duration>) -> Rc<Self> {
        Rc::new(Self { timer: Timer::new(wheel), patience, lent: Cell::new(false) })
    }

    /// A piece of the answer went to the codec, which asks for the next when the client has room.
    /// Over HTTP/1 the connection itself is watched for that.
    pub fn lend(&self) {
        if let Some(patience) = self.patience {
            self.lent.set(true);
            self.timer.set(Instant::now(), patience);
        }
    }

    /// The codec asks for more, and there is none yet.
    pub fn want(&self) {
        self.lent.set(false);
    }
}

impl Conn {
    /// `leaving` turns true when the process drains.
    pub fn new(peer: SocketAddr, io: &Io, wheel: &Wheel, leaving: Rc<Cell<bool>>, now: Instant) -> Self {
        Self {
            peer: Cell::new(peer),
            local: io.socket().local_addr().ok(),
            wheel: wheel.clone(),
            watch: Timer::new(wheel),
            traffic: io.traffic(),
            call: Call::new(wheel, None),
            patience: Cell::new(None),
            newest: RefCell::default(),
            open: Cell::new(0),
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
    pub fn opened(&self) -> Rc<Call> {
        self.open.set(self.open.get() + 1);
        self.head_since.set(None);
        match self.patience.get() {
            None => {
                self.call.timer.clear();
                self.call.clone()
            }
            patience => {
                let call = Call::new(&self.wheel, patience);
                self.newest.replace(Some(call.clone()));
                call
            }
        }
    }

    /// An exchange has ended; `unread` when the request's body had not come in.
    pub fn closed(&self, now: Instant, unread: bool) {
        self.open.set(self.open.get().saturating_sub(1));
        self.served.set(true);
        self.mark.set(self.traffic.reads());
        self.idle_since.set(now);
        self.unread.set(unread);
    }
}

/// How serving a connection ended.
pub enum Served {
    Closed,
    /// The codec refused what it read. hyper has answered HTTP/1 with a bare 400 or 431, and
    /// HTTP/2 with a GOAWAY.
    Refused(hyper::Error),
    /// Nothing came within `first_byte_timeout`.
    Silent,
    /// A head took longer than `header_timeout`; over HTTP/1 it was answered with 408.
    SlowHead,
    /// Heads that have not come whole hold all the memory they may, and it wanted more; over HTTP/1
    /// it was answered with 503.
    NoRoom,
    /// More than anybody needs of what costs the sender nothing.
    Flood,
    /// Nothing is under way; the stream can wait without any serving state.
    Idle(Io),
    /// The same, but for the beginning of a head.
    HalfHead(HalfHead),
}

impl Conn {
    /// Let in after the others were told to leave: it leaves as they do.
    fn await_first_byte(&self, limits: &ListenerLimits) {
        let limit = if self.leaving.get() { LEAVE_AFTER } else { limits.first_byte_timeout };
        self.watch.set(self.idle_since.get(), limit);
    }

    /// The output of what comes before the first request, or `None` once its time is up.
    pub async fn before_first_byte<F: Future>(
        &self,
        limits: &ListenerLimits,
        future: F,
    ) -> Option<F::Output> {
        let mut future = pin!(future);
        self.await_first_byte(limits);
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
pub async fn linger(mut stream: Stream, conn: &Conn) {
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

#[cfg(test)]
mod fuzz;
