//! Bytes both ways after an upgrade.
//!
//! Start at [`run`]. An idle tunnel holds two sockets and no buffer: all tunnels of a thread
//! read into one scratch buffer, and only what the other side would not take is kept.
//! Half-close works: the end of one direction is passed on while the other goes on.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
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

/// One end of a tunnel, and what was already read from it.
pub struct Side {
    pub stream: Stream,
    pub descriptor: Descriptor,
    pub early: Bytes,
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
        let first = up.poll(cx, &mut client.stream, &mut backend.stream, &mut scratch);
        let second = down.poll(cx, &mut backend.stream, &mut client.stream, &mut scratch);
        match (first, second) {
            (Poll::Ready(Err(_)), _) | (_, Poll::Ready(Err(_))) => return Poll::Ready(TunnelEnd::Broken),
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => return Poll::Ready(TunnelEnd::Closed),
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
    Over,
}

impl Half {
    fn new(kept: Bytes) -> Self {
        Self { kept, bytes: 0, state: State::Open }
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut Stream,
        to: &mut Stream,
        scratch: &mut [u8],
    ) -> Poll<io::Result<()>> {
        loop {
            while !self.kept.is_empty() {
                let written = ready!(Pin::new(&mut *to).poll_write(cx, &self.kept))?;
                self.kept.advance(written);
                self.bytes += written as u64;
            }
            match self.state {
                State::Open => {}
                State::Ending => {
                    // The other side may be gone already: then there is nobody to tell.
                    let _ = ready!(Pin::new(&mut *to).poll_shutdown(cx));
                    self.state = State::Over;
                    return Poll::Ready(Ok(()));
                }
                State::Over => return Poll::Ready(Ok(())),
            }
            let mut buffer = ReadBuf::new(scratch);
            if Pin::new(&mut *from).poll_read(cx, &mut buffer)?.is_pending() {
                // TLS may hold on to a record that the socket had no room for.
                let _ = Pin::new(&mut *to).poll_flush(cx)?;
                return Poll::Pending;
            }
            let read = buffer.filled();
            if read.is_empty() {
                self.state = State::Ending;
                continue;
            }
            let written = match Pin::new(&mut *to).poll_write(cx, read) {
                Poll::Ready(written) => written?,
                Poll::Pending => 0,
            };
            self.bytes += written as u64;
            if written < read.len() {
                self.kept = Bytes::copy_from_slice(&read[written..]);
            }
        }
    }
}
