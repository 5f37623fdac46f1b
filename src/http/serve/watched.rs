//! The stream under an HTTP/2 codec: passes bytes on, and notes the frames that they are.
//!
//! [`Gauge`] is the connection's window onto it. A client that sends more than anybody needs is told
//! so with a GOAWAY where one fits between two frames, and the stream breaks.

use std::cell::{Cell, RefCell};
use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::abuse::Tally;
use super::frames::{Frame, Frames};
use crate::listen::stream::Stream;

/// GOAWAY for no stream in particular, ENHANCE_YOUR_CALM (RFC 9113 sections 6.8 and 7). Streams up
/// to the greatest number may have been worked on.
const CALM_DOWN: [u8; 17] = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0xb];

/// What is known of the frames on a connection.
pub struct Gauge {
    client: RefCell<Frames>,
    server: RefCell<Frames>,
    tally: Cell<Tally>,
    max_resets: Option<u32>,
    flooded: Cell<bool>,
    /// Frames that have begun, the parts of one header block as one.
    begun: Cell<u64>,
    /// DATA frames that we have sent.
    answered: Cell<u64>,
}

impl Gauge {
    /// `max_resets` in a second, or `None` for no limit.
    pub fn new(max_resets: Option<u32>) -> Rc<Self> {
        Rc::new(Self {
            client: RefCell::new(Frames::of_client()),
            server: RefCell::new(Frames::of_server()),
            tally: Cell::default(),
            max_resets,
            flooded: Cell::new(false),
            begun: Cell::new(0),
            answered: Cell::new(0),
        })
    }

    pub fn is_flooded(&self) -> bool {
        self.flooded.get()
    }

    pub fn is_before_preface(&self) -> bool {
        self.client.borrow().is_before_preface()
    }

    pub fn is_halfway(&self) -> bool {
        self.client.borrow().is_halfway()
    }

    pub fn begun(&self) -> u64 {
        self.begun.get()
    }

    pub fn answered(&self) -> u64 {
        self.answered.get()
    }

    fn read(&self, bytes: &[u8]) {
        let mut tally = self.tally.get();
        let mut begun = self.begun.get();
        self.client.borrow_mut().feed(bytes, |frame| {
            begun += u64::from(frame != Frame::Continuation);
            if Tally::minds(frame) && !tally.count(frame, Instant::now(), self.max_resets) {
                self.flooded.set(true);
            }
        });
        self.begun.set(begun);
        self.tally.set(tally);
    }

    fn wrote(&self, bytes: &[u8]) {
        let answered = |frame| {
            if frame == Frame::Data {
                self.answered.set(self.answered.get() + 1);
            }
        };
        self.server.borrow_mut().feed(bytes, answered);
    }
}

/// A stream with a gauge on it.
pub struct Watched {
    stream: Stream,
    gauge: Rc<Gauge>,
}

impl Watched {
    pub fn new(stream: Stream, gauge: Rc<Gauge>) -> Self {
        Self { stream, gauge }
    }

    fn refuse(&mut self, cx: &mut Context<'_>) -> io::Error {
        if self.gauge.server.borrow().is_between() {
            let _ = Pin::new(&mut self.stream).poll_write(cx, &CALM_DOWN);
            let _ = Pin::new(&mut self.stream).poll_flush(cx);
        }
        io::Error::new(ErrorKind::ConnectionAborted, "the client sends more than anybody needs")
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        std::task::ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        self.gauge.read(&buf.filled()[before..]);
        if self.gauge.is_flooded() {
            return Poll::Ready(Err(self.refuse(cx)));
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = std::task::ready!(Pin::new(&mut self.stream).poll_write(cx, buf))?;
        self.gauge.wrote(&buf[..written]);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = std::task::ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, bufs))?;
        let mut left = written;
        for buf in bufs {
            let part = left.min(buf.len());
            self.gauge.wrote(&buf[..part]);
            left -= part;
        }
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
