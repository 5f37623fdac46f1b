//! A connection that speaks HTTP/1: hyper reads and writes, and this file decides how long each
//! phase may take, and when an idle connection is worth parking.
//!
//! Start at [`connection`]. hyper's own timer stays off: the one timer here costs a store per
//! phase.

use std::convert::Infallible;
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Instant;

use bytes::Bytes;
use http_body::Body as HttpBody;
use hyper::body::Incoming;
use hyper::rt::Write as _;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};

use super::{Conn, HalfHead, LEAVE_AFTER, PARK_AFTER, Served, head, linger};
use crate::http::timer::Wake;
use crate::listen::io::Io;
use crate::plan::ListenerLimits;

/// hyper reads heads and bodies into one buffer: larger than any head we accept, and small
/// enough that a stalled download does not hold a megabyte.
const MAX_BUFFER: usize = 64 * 1024;

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
            if phase == Phase::Busy && conn.call.timer.is_cut() && conn.traffic.is_blocked() {
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
            let (stream, _descriptor, _unread) = parts.io.into_stream();
            linger(stream, conn).await;
            Served::Closed
        }
        (Verdict::Done(Err(error)), _) if error.is_parse() => Served::Refused(error),
        (Verdict::SlowHead, Some(parts)) => {
            head::refuse_slow(parts.io, conn).await;
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

/// The send buffer is empty, so this short answer goes out whole or not at all.
pub async fn refuse_head(mut io: Io, conn: &Conn, text: &[u8]) {
    std::future::poll_fn(|cx| {
        let _ = pin!(&mut io).poll_write(cx, text);
        Poll::Ready(())
    })
    .await;
    let (stream, _descriptor, _unread) = io.into_stream();
    linger(stream, conn).await;
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    FirstByte,
    Head,
    Busy,
    Idle,
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
    fn phase(&self) -> Phase {
        if self.open.get() > 0 {
            Phase::Busy
        } else if self.traffic.reads() != self.mark.get() {
            Phase::Head
        } else if self.served.get() {
            Phase::Idle
        } else {
            Phase::FirstByte
        }
    }

    /// Sets the limit of a phase that has just begun.
    fn arm(&self, phase: Phase, limits: &ListenerLimits) {
        match phase {
            Phase::FirstByte => self.await_first_byte(limits),
            Phase::Head => self.watch.set(self.head_began(), limits.header_timeout),
            // A reader that takes nothing is looked at once per idle timeout.
            Phase::Busy => self.watch.set(self.idle_since.get(), limits.idle_timeout),
            Phase::Idle => self.watch.set(self.idle_since.get(), PARK_AFTER.min(limits.idle_timeout)),
        }
    }

    /// A head may be in several hands until it is whole: its clock goes on.
    pub fn head_began(&self) -> Instant {
        let began = self.head_since.get().unwrap_or_else(Instant::now);
        self.head_since.set(Some(began));
        began
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
}
