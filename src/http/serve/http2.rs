//! A connection that speaks HTTP/2: hyper reads and writes, and this file decides how long each
//! phase may take.
//!
//! Start at [`connection`]. Each stream is a task of its own, which ends with the stream or with
//! the connection. What bytes the connection carries is known from its [`Gauge`]. A client is told
//! to leave in two steps (RFC 9113 section 6.8): a GOAWAY that admits every stream that is under
//! way, then, once a ping has come back, one that names the last.

use std::cell::Cell;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::Body as HttpBody;
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioTimer;

use super::watched::{Gauge, Watched};
use super::{Conn, LEAVE_AFTER, Served, linger};
use crate::http::timer::Wake;
use crate::limit::{Heads, Held};
use crate::listen::io::Io;
use crate::plan::ListenerLimits;

/// Of one upload this much may wait here for its backend.
const STREAM_WINDOW: u32 = 64 * 1024;

/// Uploads that no backend reads hold up few others: there is room for what sixteen of them hold.
const CONNECTION_WINDOW: u32 = 16 * STREAM_WINDOW;

/// Of one answer this much may wait here for its client.
const MAX_SEND_BUFFER: usize = 64 * 1024;

/// Streams that the client has reset and that nobody has looked at yet.
const MAX_UNSEEN_RESETS: usize = 20;

/// Streams that a client has made us reset, since each costs it one frame (CVE-2025-8671).
const MAX_OWN_RESETS: usize = 100;

/// A client that has not been heard of for so long is asked whether it is there, and has as long
/// again to answer.
const PING: Duration = Duration::from_secs(20);

/// Serves requests until the connection ends. `max_resets` in a second; `None` for a peer that is
/// trusted.
pub async fn connection<H, F, B>(
    io: Io,
    conn: &Rc<Conn>,
    limits: &ListenerLimits,
    max_resets: Option<u32>,
    heads: &Arc<Heads>,
    handle: H,
) -> Served
where
    H: Fn(Request<Incoming>) -> F,
    F: Future<Output = Response<B>> + 'static,
    B: HttpBody<Data = Bytes> + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let gauge = Gauge::new(max_resets, Held::nothing(heads), limits.max_header_size);
    conn.patience.set(Some(limits.idle_timeout));
    let service = service_fn(|request| {
        let answer = handle(request);
        async { Ok::<_, Infallible>(answer.await) }
    });
    let (io, _descriptor) = io.wrap(|stream| Watched::new(stream, gauge.clone()));
    let mut hyper = Box::pin(
        http2::Builder::new(Streams(conn.clone()))
            .timer(TokioTimer::new())
            .enable_connect_protocol()
            .max_concurrent_streams(limits.max_streams)
            .max_header_list_size(u32::try_from(limits.max_header_size).unwrap_or(u32::MAX))
            .max_pending_accept_reset_streams(MAX_UNSEEN_RESETS)
            .max_local_error_reset_streams(MAX_OWN_RESETS)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buf_size(MAX_SEND_BUFFER)
            .keep_alive_interval(PING)
            .keep_alive_timeout(PING)
            .serve_connection(io, service),
    );
    let watch = Watch { conn, gauge: &gauge, limits, left: Cell::new(false), seen: Cell::default() };
    let mut known = None;
    let served = poll_fn(|cx| {
        loop {
            if let Poll::Ready(result) = hyper.as_mut().poll(cx) {
                return Poll::Ready(watch.end(result));
            }
            let phase = watch.phase();
            if known != Some(phase) {
                known = Some(phase);
                watch.arm(phase);
            }
            let wake = std::task::ready!(conn.watch.poll(cx));
            match watch.judge(phase, wake) {
                Next::Wait => {}
                Next::Leave => hyper.as_mut().graceful_shutdown(),
                Next::End(served) => return Poll::Ready(served),
            }
        }
    })
    .await;
    drop(hyper);
    // So that a GOAWAY is read before the close resets the connection.
    if let (Served::Refused(_) | Served::Flood | Served::NoRoom, Some(stream)) =
        (&served, gauge.take_stream())
    {
        linger(stream, conn).await;
    }
    served
}

/// Looks after a connection's time.
struct Watch<'a> {
    conn: &'a Conn,
    gauge: &'a Gauge,
    limits: &'a ListenerLimits,
    /// The client has been told to leave.
    left: Cell<bool>,
    /// How far the gauge stood when the phase began.
    seen: Cell<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    FirstByte,
    /// Half a frame, or half a header block.
    Halfway,
    Busy,
    Idle,
}

enum Next {
    Wait,
    Leave,
    End(Served),
}

impl Watch<'_> {
    fn phase(&self) -> Phase {
        if self.gauge.is_before_preface() {
            Phase::FirstByte
        } else if self.gauge.is_halfway() {
            Phase::Halfway
        } else if self.conn.open.get() > 0 {
            Phase::Busy
        } else {
            Phase::Idle
        }
    }

    fn arm(&self, phase: Phase) {
        let (watch, since) = (&self.conn.watch, self.conn.idle_since.get());
        match phase {
            Phase::FirstByte => self.conn.await_first_byte(self.limits),
            Phase::Halfway => {
                self.seen.set(self.gauge.begun());
                watch.set(Instant::now(), self.limits.header_timeout);
            }
            Phase::Busy => watch.set(since, self.limits.idle_timeout),
            Phase::Idle => {
                self.seen.set(self.gauge.answered());
                watch.set(since, if self.left.get() { LEAVE_AFTER } else { self.limits.idle_timeout });
            }
        }
    }

    /// What the end of a wait means.
    fn judge(&self, phase: Phase, wake: Wake) -> Next {
        let (conn, watch, now) = (self.conn, &self.conn.watch, Instant::now());
        if wake == Wake::Cut {
            watch.clear();
            watch.set(now, if phase == Phase::Busy { self.limits.idle_timeout } else { LEAVE_AFTER });
            return self.leave();
        }
        match phase {
            Phase::FirstByte if conn.is_leaving() => Next::End(Served::Closed),
            Phase::FirstByte => Next::End(Served::Silent),
            // One frame was followed by another: it is a client that sends a lot.
            Phase::Halfway if self.seen.replace(self.gauge.begun()) != self.gauge.begun() => {
                watch.set(now, self.limits.header_timeout);
                Next::Wait
            }
            Phase::Halfway => Next::End(Served::SlowHead),
            Phase::Busy => {
                let written = conn.traffic.written();
                let stuck = conn.traffic.is_blocked() && written == conn.wrote.replace(written);
                watch.set(now, self.limits.idle_timeout);
                if stuck { Next::End(Served::Closed) } else { Next::Wait }
            }
            // The end of an answer may lie here long after its exchange, for a slow reader.
            Phase::Idle if self.seen.replace(self.gauge.answered()) != self.gauge.answered() => {
                watch.set(now, self.limits.idle_timeout);
                Next::Wait
            }
            Phase::Idle if self.left.get() => Next::End(Served::Closed),
            Phase::Idle if now < conn.idle_since.get() + self.limits.idle_timeout => {
                watch.set(conn.idle_since.get(), self.limits.idle_timeout);
                Next::Wait
            }
            Phase::Idle => {
                watch.set(now, LEAVE_AFTER);
                self.leave()
            }
        }
    }

    fn leave(&self) -> Next {
        if self.left.replace(true) { Next::Wait } else { Next::Leave }
    }

    fn end(&self, result: hyper::Result<()>) -> Served {
        match result {
            _ if self.gauge.is_crowded() => Served::NoRoom,
            _ if self.gauge.is_flooded() => Served::Flood,
            Err(error) if self.gauge.is_broken() || is_refusal(&error) => Served::Refused(error),
            _ => Served::Closed,
        }
    }
}

/// Whether the codec found the client to break the rules of HTTP/2.
fn is_refusal(error: &hyper::Error) -> bool {
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<h2::Error>());
    cause.is_some_and(|cause| cause.is_library())
}

/// Spawns a connection's streams.
#[derive(Clone)]
struct Streams(Rc<Conn>);

impl<F: Future<Output = ()> + 'static> Executor<F> for Streams {
    fn execute(&self, future: F) {
        let conn = self.0.clone();
        tokio::task::spawn_local(async move {
            let mut future = pin!(future);
            let mut call = None;
            poll_fn(|cx| poll_stream(&conn, future.as_mut(), &mut call, cx)).await;
        });
    }
}

/// One turn of a stream. It ends before its time, with a RST_STREAM, when its client takes nothing
/// of what it asked for, or when it is cut meanwhile: hyper asks a body for nothing then.
fn poll_stream<F: Future<Output = ()>>(
    conn: &Conn,
    future: Pin<&mut F>,
    call: &mut Option<Rc<super::Call>>,
    cx: &mut Context<'_>,
) -> Poll<()> {
    let poll = future.poll(cx);
    if let Some(newest) = conn.newest.take() {
        *call = Some(newest);
    }
    match call {
        Some(call) if poll.is_pending() && call.lent.get() => call.timer.poll(cx).map(drop),
        _ => poll,
    }
}
