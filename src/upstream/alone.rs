//! HTTP/1 towards one backend: connections that carry one request at a time.
//!
//! Start at [`Idle`]. Idle connections wait in a stack (last in, first out, so that the surplus ages
//! and is closed). One that has been idle is used only after one more turn of the event loop, which
//! shows an end of file that is already there (but for one used a moment ago by a request that can
//! be sent again).

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use http::HeaderMap;
use hyper::client::conn::http1::{self, SendRequest};

use super::learned::Learned;
use super::way::Pair;
use super::{JUST_USED, Keep, SURELY_ALIVE, Take};
use crate::http::brake::Brake;
use crate::http::upload::Upload;
use crate::listen::io::{Io, Traffic};

/// hyper reads an answer in pieces of up to this, which limits its head too. For a client that takes
/// nothing one of them is held.
const MAX_BUFFER: usize = 48 * 1024;

/// The head of an answer comes within so many reads, all interim answers before it included. More
/// of them than that are no hints but a flood, and hyper reads over them without counting.
const MAX_HEAD_READS: u64 = 1024;

/// A connection that carries one request at a time.
pub struct Alone {
    pub sender: SendRequest<Upload>,
    pub born: Instant,
    /// The client's when it was opened.
    pub era: u64,
    /// Holds it back while the client of its answer takes nothing.
    pub brake: Brake,
    /// The only client that it may serve, where the backend has been told whose it is.
    pub pair: Option<Pair>,
    traffic: Arc<Traffic>,
    watch: Rc<Watch>,
}

/// What its task has to know of it.
struct Watch {
    /// By which of its reads the head that is waited for must have come.
    head_by: Cell<u64>,
    /// Since when it has been waiting for its next request.
    idle_since: Cell<Option<Instant>>,
}

impl Alone {
    pub async fn open(
        io: Io,
        born: Instant,
        era: u64,
        pair: Option<Pair>,
        learned: Rc<Cell<Learned>>,
    ) -> hyper::Result<Self> {
        let traffic = io.traffic();
        let (sender, connection) = http1::Builder::new().max_buf_size(MAX_BUFFER).handshake(io).await?;
        let watch = Rc::new(Watch { head_by: Cell::new(u64::MAX), idle_since: Cell::new(None) });
        let alone = Self { sender, born, era, pair, brake: Brake::default(), traffic, watch };
        let (traffic, brake, watch) = (alone.traffic.clone(), alone.brake.clone(), alone.watch.clone());
        // Ends when either side closes it, when its sender is dropped, or when a head is too long.
        tokio::task::spawn_local(async move {
            let mut connection = pin!(connection.with_upgrades());
            std::future::poll_fn(|cx| {
                if brake.holds(cx) {
                    return Poll::Pending;
                }
                let over = connection.as_mut().poll(cx).is_ready() || traffic.reads() > watch.head_by.get();
                if over { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
            if let Some(since) = watch.idle_since.get() {
                let now = Instant::now();
                learn(&learned, |learned| learned.closed_after(now.saturating_duration_since(since), now));
            }
        });
        Ok(alone)
    }

    /// A head is waited for from now on.
    pub fn awaits_head(&self) {
        self.watch.head_by.set(self.traffic.reads() + MAX_HEAD_READS);
    }

    pub fn has_head(&self) {
        self.watch.head_by.set(u64::MAX);
    }

    fn idles(&self, since: Option<Instant>) {
        self.watch.idle_since.set(since);
    }
}

impl Drop for Alone {
    /// From now on it is we who close it. Whatever became of its client, it goes on to its end.
    fn drop(&mut self) {
        self.idles(None);
        self.brake.set(false);
    }
}

fn learn(learned: &Cell<Learned>, what: impl FnOnce(&mut Learned)) {
    let mut known = learned.get();
    what(&mut known);
    learned.set(known);
}

/// Connections that wait for their next request, the one used last on top.
#[derive(Default)]
pub struct Idle {
    stack: RefCell<Vec<Waiting>>,
    /// How long the backend keeps them.
    learned: Rc<Cell<Learned>>,
}

struct Waiting {
    alone: Alone,
    since: Instant,
}

impl Idle {
    pub fn len(&self) -> usize {
        self.stack.borrow().len()
    }

    pub fn clear(&self) {
        self.stack.borrow_mut().clear();
    }

    /// Where a connection notes how long it was kept.
    pub fn learned(&self) -> Rc<Cell<Learned>> {
        self.learned.clone()
    }

    /// What the first answer on a connection says of how long it is kept.
    pub fn told_by(&self, headers: &HeaderMap) {
        learn(&self.learned, |learned| learned.told_by(headers));
    }

    /// The backend takes no connection.
    pub fn refused(&self, now: Instant) {
        learn(&self.learned, |learned| learned.refused(now));
    }

    /// One that is open still, of the right client, and used as lately as `take` asks.
    pub async fn take(&self, take: Take, pair: Option<Pair>, idle: Duration, now: Instant) -> Option<Alone> {
        let learned = self.learned.get();
        let limit = match take {
            Take::Idle => learned.idle(idle, now),
            Take::Lively => SURELY_ALIVE.min(learned.idle_for_once(idle, now)),
            Take::Fresh => return None,
        };
        loop {
            let waiting = self.pop(pair)?;
            let silence = now.saturating_duration_since(waiting.since);
            if silence >= limit {
                // Those below it have waited longer still; the sweep closes them.
                self.stack.borrow_mut().push(waiting);
                return None;
            }
            let alone = waiting.alone;
            let mut in_time = true;
            if !(take == Take::Idle && silence < JUST_USED && alone.sender.is_ready()) {
                tokio::task::yield_now().await;
                // The turn of a busy loop takes its time, too.
                in_time = take == Take::Idle || waiting.since.elapsed() < limit;
            }
            if in_time && alone.sender.is_ready() {
                alone.idles(None);
                return Some(alone);
            }
        }
    }

    fn pop(&self, pair: Option<Pair>) -> Option<Waiting> {
        let mut stack = self.stack.borrow_mut();
        if pair.is_none() {
            return stack.pop();
        }
        let place = stack.iter().rposition(|waiting| waiting.alone.pair == pair)?;
        Some(stack.remove(place))
    }

    pub fn put(&self, alone: Alone, keep: Keep, now: Instant) {
        alone.brake.set(false);
        let mut stack = self.stack.borrow_mut();
        if stack.len() >= keep.max_idle {
            // What others may use is kept; what only this client may is worth more than the oldest.
            if alone.pair.is_none() || keep.max_idle == 0 {
                return;
            }
            stack.remove(0);
        }
        alone.idles(Some(now));
        stack.push(Waiting { alone, since: now });
    }

    /// Closes what has been idle too long, or has been closed by the other side.
    pub fn sweep(&self, limit: Duration, now: Instant) {
        let limit = self.learned.get().idle(limit, now);
        self.stack.borrow_mut().retain(|waiting| {
            let silence = now.saturating_duration_since(waiting.since);
            !waiting.alone.sender.is_closed() && silence < limit
        });
    }
}
