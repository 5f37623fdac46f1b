//! Bytes both ways after an upgrade.
//!
//! Start at [`run`]. An idle tunnel holds its two ends and no buffer: all tunnels of a thread
//! read into one scratch buffer, and only what the other side would not take is kept.
//! Half-close works: the end of one direction is passed on while the other goes on. So do last
//! words: what a side said before it would take no more is still passed on.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::timer::{Timer, Wake};
use crate::listen::Descriptor;
use crate::listen::stream::Stream;

/// The most that is read before it must have been written.
const SCRATCH: usize = 32 * 1024;

/// The buffer that all tunnels of one thread read into. Borrowed only inside a poll.
#[derive(Clone)]
pub struct Scratch(Rc<RefCell<Vec<u8>>>);

impl Default for Scratch {
    fn default() -> Self {
        Self(Rc::new(RefCell::new(vec![0; SCRATCH])))
    }
}

/// One side of a tunnel, and what was already read from it.
pub struct Side {
    pub pipe: Pipe,
    pub early: Bytes,
}

/// What a side is reached by.
pub enum Pipe {
    /// A connection of its own.
    Connection(Stream, Descriptor),
    /// One stream of an HTTP/2 connection.
    Shared(TokioIo<Upgraded>),
}

/// How a tunnel ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TunnelEnd {
    /// Both directions came to their end.
    Closed,
    /// Nothing moved for the route's `websocket.idle_timeout`.
    Idle,
    /// A drain's deadline or a shutdown.
    Cut,
    /// One side reset the connection.
    Broken,
}

/// Bytes carried, and why it ended.
pub struct Carried {
    pub to_backend: u64,
    pub to_client: u64,
    pub end: TunnelEnd,
}

/// Carries bytes until both directions have ended, `idle` passes in silence, or `timer` is cut.
pub async fn run(client: Side, backend: Side, idle: Duration, timer: &Timer, scratch: &Scratch) -> Carried {
    let (mut client, mut backend) = (client, backend);
    let mut up = Half::new(std::mem::take(&mut client.early));
    let mut down = Half::new(std::mem::take(&mut backend.early));
    let mut carried = 0;
    timer.set(Instant::now(), idle);
    let end = std::future::poll_fn(|cx| {
        let mut scratch = scratch.0.borrow_mut();
        let first = up.poll(cx, &mut client.pipe, &mut backend.pipe, &mut scratch);
        let second = down.poll(cx, &mut backend.pipe, &mut client.pipe, &mut scratch);
        match (first, second) {
            (Poll::Ready(Over::Lost), _) | (_, Poll::Ready(Over::Lost)) => {
                return Poll::Ready(TunnelEnd::Broken);
            }
            (Poll::Ready(Over::Ended), Poll::Ready(Over::Ended)) => return Poll::Ready(TunnelEnd::Closed),
            (Poll::Ready(_), Poll::Ready(_)) => return Poll::Ready(TunnelEnd::Broken),
            _ => {}
        }
        if up.bytes + down.bytes != carried {
            carried = up.bytes + down.bytes;
            timer.set(Instant::now(), idle);
        }
        timer.poll(cx).map(|wake| match wake {
            Wake::Due => TunnelEnd::Idle,
            Wake::Cut => TunnelEnd::Cut,
        })
    })
    .await;
    Carried { to_backend: up.bytes, to_client: down.bytes, end }
}

/// One direction.
struct Half {
    kept: Bytes,
    bytes: u64,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// The source has ended; what is kept must still be written.
    Ending,
    Over(Over),
}

/// How one direction ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Over {
    Ended,
    /// The other side takes no more. What it has said before is still to be read.
    Refused,
    /// There is nobody to read from any more.
    Lost,
}

impl Half {
    fn new(early: Bytes) -> Self {
        // Even of no bytes, a slice keeps the buffer that hyper read into.
        let kept = if early.is_empty() { Bytes::new() } else { early };
        Self { kept, bytes: 0, state: State::Open }
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut Pipe,
        to: &mut Pipe,
        scratch: &mut [u8],
    ) -> Poll<Over> {
        loop {
            if let State::Over(over) = self.state {
                return Poll::Ready(over);
            }
            if let Err(over) = ready!(self.turn(cx, from, to, scratch)) {
                (self.state, self.kept) = (State::Over(over), Bytes::new());
            }
        }
    }

    /// One read and what follows from it; `Err` when the direction is over.
    fn turn(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut Pipe,
        to: &mut Pipe,
        scratch: &mut [u8],
    ) -> Poll<Result<(), Over>> {
        while !self.kept.is_empty() {
            let written = ready!(Pin::new(&mut *to).poll_write(cx, &self.kept)).map_err(|_| Over::Refused)?;
            self.kept.advance(written);
            self.bytes += written as u64;
        }
        if self.state == State::Ending {
            // The other side may be gone already: then there is nobody to tell.
            let _ = ready!(Pin::new(&mut *to).poll_shutdown(cx));
            return Poll::Ready(Err(Over::Ended));
        }
        let mut buffer = ReadBuf::new(scratch);
        match Pin::new(&mut *from).poll_read(cx, &mut buffer) {
            Poll::Ready(read) => read.map_err(|_| Over::Lost)?,
            Poll::Pending => {
                // TLS may hold on to a record that the socket had no room for.
                if let Poll::Ready(Err(_)) = Pin::new(&mut *to).poll_flush(cx) {
                    return Poll::Ready(Err(Over::Refused));
                }
                return Poll::Pending;
            }
        }
        let read = buffer.filled();
        if read.is_empty() {
            self.state = State::Ending;
            return Poll::Ready(Ok(()));
        }
        let written = match Pin::new(&mut *to).poll_write(cx, read) {
            Poll::Ready(written) => written.map_err(|_| Over::Refused)?,
            Poll::Pending => 0,
        };
        self.bytes += written as u64;
        if written < read.len() {
            self.kept = Bytes::copy_from_slice(&read[written..]);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Pipe {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Connection(stream, _) => Pin::new(stream).poll_read(cx, buf),
            Self::Shared(stream) => {
                let before = buf.filled().len();
                ready!(Pin::new(stream).poll_read(cx, buf))?;
                if buf.filled().len() == before {
                    // To hyper a stream that was cancelled reads like one that has ended. Flushing
                    // tells them apart, as soon as the stream's own task has run, and wakes nobody.
                    cx.waker().wake_by_ref();
                }
                Poll::Ready(Ok(()))
            }
        }
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Connection(stream, _) => Pin::new(stream).poll_write(cx, buf),
            Self::Shared(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Connection(stream, _) => Pin::new(stream).poll_flush(cx),
            Self::Shared(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Connection(stream, _) => Pin::new(stream).poll_shutdown(cx),
            Self::Shared(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
