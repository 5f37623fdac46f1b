//! The end of a WebSocket that was told to end, once nothing is half said to the client.
//!
//! Start at [`say`]. The client gets a Close and is heard until its own: what it sends before that
//! still goes to the backend, which then gets a Close too. What the backend says meanwhile is
//! dropped, since nothing may follow a Close (RFC 6455 section 5.5.1).

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Half, Over, Pipe, Scratch, State, TunnelEnd, Until};
use crate::http::timer::{Timer, Wake};
use crate::http::websocket::{close_for_backend, close_for_client};

/// How long both sides may take to answer a Close.
pub const CLOSE_WAIT: Duration = Duration::from_secs(1);

/// Ends the tunnel, in [`CLOSE_WAIT`] at most. `down` has stopped where a frame ends.
pub async fn say(
    client: &mut Pipe,
    backend: &mut Pipe,
    up: &mut Half,
    down: &mut Half,
    timer: &Timer,
    scratch: &Scratch,
) -> TunnelEnd {
    let begun = Instant::now();
    timer.clear();
    timer.set(begun, CLOSE_WAIT);
    let mut farewell = Farewell::new(client, backend, up, down);
    std::future::poll_fn(|cx| {
        let mut scratch = scratch.0.borrow_mut();
        loop {
            if farewell.poll(cx, &mut scratch).is_ready() {
                return Poll::Ready(());
            }
            match ready!(timer.poll(cx)) {
                Wake::Due => return Poll::Ready(()),
                // It is about to end.
                Wake::Cut => {
                    timer.clear();
                    timer.set(begun, CLOSE_WAIT);
                }
            }
        }
    })
    .await;
    std::future::poll_fn(|cx| {
        farewell.leave(cx);
        Poll::Ready(())
    })
    .await;
    if farewell.client.heard { TunnelEnd::Told } else { TunnelEnd::Cut }
}

struct Farewell<'a> {
    client: Parting<'a>,
    backend: Parting<'a>,
    /// The backend has had a Close, or is about to, or can have none.
    backend_knows: bool,
}

/// One side: what it is still told, and whether it has said its last.
struct Parting<'a> {
    pipe: &'a mut Pipe,
    /// What it says.
    half: &'a mut Half,
    word: Bytes,
    /// All of `word` is on its way.
    heard: bool,
    /// It takes no more.
    deaf: bool,
    /// It has said its Close, or has ended.
    silent: bool,
}

impl<'a> Farewell<'a> {
    fn new(client: &'a mut Pipe, backend: &'a mut Pipe, up: &'a mut Half, down: &'a mut Half) -> Self {
        // Whoever was first to say Close has been passed on, or is being; but not the beginning of
        // a backend's Close that came after the frame at which it was stopped.
        let said = down.frames.is_some_and(|frames| frames.has_closed());
        let word = if said { Bytes::new() } else { close_for_client() };
        let backend_knows = up.frames.is_some_and(|frames| frames.is_closing());
        if up.state == State::Open {
            up.until = if backend_knows { Until::Frame } else { Until::Close };
        }
        Self {
            client: Parting::new(client, up, word),
            backend: Parting::new(backend, down, Bytes::new()),
            backend_knows,
        }
    }

    /// Ready when nobody is waited for any more.
    fn poll(&mut self, cx: &mut Context<'_>, scratch: &mut [u8]) -> Poll<()> {
        let Self { client, backend, .. } = self;
        client.tell(cx);
        match client.half.poll(cx, client.pipe, backend.pipe, scratch) {
            Poll::Pending => {}
            Poll::Ready(over) => {
                if over == Over::Stopped && !self.backend_knows {
                    self.close_backend();
                }
                let Self { client, .. } = self;
                match over {
                    Over::Ended => client.silent = true,
                    Over::Lost => (client.silent, client.deaf) = (true, true),
                    Over::Stopped | Over::Refused => client.listen(cx, scratch),
                }
            }
        }
        let Self { client, backend, .. } = self;
        backend.tell(cx);
        backend.listen(cx, scratch);
        if client.is_done() && backend.is_done() { Poll::Ready(()) } else { Poll::Pending }
    }

    fn close_backend(&mut self) {
        self.backend_knows = true;
        (self.backend.word, self.backend.heard) = (close_for_backend(), false);
    }

    /// The last that is done, whatever came of the rest: a backend whose client did not answer gets
    /// its Close where that is still possible, and both get an end.
    fn leave(&mut self, cx: &mut Context<'_>) {
        let half = &self.client.half;
        let between = half.frames.is_some_and(|frames| frames.is_between_frames());
        if !self.backend_knows && half.state == State::Open && half.kept.is_empty() && between {
            self.close_backend();
            self.backend.tell(cx);
        }
        let _ = Pin::new(&mut *self.client.pipe).poll_shutdown(cx);
        let _ = Pin::new(&mut *self.backend.pipe).poll_shutdown(cx);
    }
}

impl<'a> Parting<'a> {
    fn new(pipe: &'a mut Pipe, half: &'a mut Half, word: Bytes) -> Self {
        Self { pipe, half, word, heard: false, deaf: false, silent: false }
    }

    /// Writes what there is to tell.
    fn tell(&mut self, cx: &mut Context<'_>) {
        if !self.heard && !self.deaf {
            match self.write(cx) {
                Poll::Ready(Ok(())) => self.heard = true,
                Poll::Ready(Err(_)) => self.deaf = true,
                Poll::Pending => {}
            }
        }
    }

    fn write(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        while !self.word.is_empty() {
            let written = ready!(Pin::new(&mut *self.pipe).poll_write(cx, &self.word))?;
            self.word.advance(written);
        }
        Pin::new(&mut *self.pipe).poll_flush(cx)
    }

    /// Reads on until its Close or its end, and drops what comes.
    fn listen(&mut self, cx: &mut Context<'_>, scratch: &mut [u8]) {
        while !self.silent {
            let Some(frames) = self.half.frames.as_mut().filter(|frames| !frames.has_closed()) else {
                self.silent = true;
                return;
            };
            let mut buffer = ReadBuf::new(scratch);
            match Pin::new(&mut *self.pipe).poll_read(cx, &mut buffer) {
                Poll::Pending => return,
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                    frames.feed(buffer.filled());
                }
                Poll::Ready(_) => self.silent = true,
            }
        }
    }

    fn is_done(&self) -> bool {
        self.silent && (self.heard || self.deaf)
    }
}
