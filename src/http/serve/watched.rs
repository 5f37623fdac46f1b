//! The stream under an HTTP/2 codec: passes bytes on, and notes the frames that they are.
//!
//! [`Gauge`] is the connection's window onto it. A client that breaks a rule, or sends more than
//! anybody needs, is told so with a GOAWAY where one fits between two frames, and the stream breaks.

use std::cell::{Cell, RefCell};
use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::abuse::Tally;
use super::frames::{Frames, Kind, Seen};
use super::rules::{ENHANCE_YOUR_CALM, Rules};
use crate::limit::Held;
use crate::listen::stream::Stream;

/// What is known of the frames on a connection.
pub struct Gauge {
    client: RefCell<Frames>,
    server: RefCell<Frames>,
    rules: RefCell<Rules>,
    tally: Cell<Tally>,
    max_resets: Option<u32>,
    /// What is half there, of a head above all, and what the codec may make of a whole one.
    held: RefCell<Held>,
    max_head: usize,
    /// There was no room for more of a head.
    crowded: Cell<bool>,
    /// Why the client was sent away, in HTTP/2's numbers.
    broken: Cell<Option<u32>>,
    /// Frames that have begun, the parts of one header block as one.
    begun: Cell<u64>,
    /// DATA frames that we have sent.
    answered: Cell<u64>,
    /// The stream, once the codec has let go of it.
    left: RefCell<Option<Stream>>,
}

impl Gauge {
    /// `max_resets` in a second, or `None` for no limit; `max_head` is how large a head may be.
    pub fn new(max_resets: Option<u32>, held: Held, max_head: usize) -> Rc<Self> {
        Rc::new(Self {
            client: RefCell::new(Frames::of_client()),
            server: RefCell::new(Frames::of_server()),
            rules: RefCell::default(),
            tally: Cell::default(),
            max_resets,
            held: RefCell::new(held),
            max_head,
            crowded: Cell::new(false),
            broken: Cell::new(None),
            begun: Cell::new(0),
            answered: Cell::new(0),
            left: RefCell::default(),
        })
    }

    pub fn is_flooded(&self) -> bool {
        self.broken.get() == Some(ENHANCE_YOUR_CALM)
    }

    /// Why it was sent away, if it was: there was no room for more of its heads.
    pub fn is_crowded(&self) -> bool {
        self.crowded.get()
    }

    pub fn is_broken(&self) -> bool {
        self.broken.get().is_some()
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

    /// The stream, once the codec has let go of it.
    pub fn take_stream(&self) -> Option<Stream> {
        self.left.take()
    }

    fn read(&self, bytes: &[u8]) {
        let (mut tally, mut rules) = (self.tally.get(), self.rules.borrow_mut());
        self.client.borrow_mut().feed(bytes, |seen, in_block| {
            let mut verdict = rules.judge(seen, in_block);
            if let Seen::Frame(head) = seen {
                self.begun.set(self.begun.get() + u64::from(head.kind != Kind::Continuation));
                if !tally.count(&head, Instant::now, self.max_resets) {
                    verdict = Err(ENHANCE_YOUR_CALM);
                }
            }
            if let (Err(code), None) = (verdict, self.broken.get()) {
                self.broken.set(Some(code));
            }
        });
        self.tally.set(tally);
        self.hold();
    }

    /// Counts what is half there. A few bytes of a block can be worth a whole head, once decoded.
    fn hold(&self) {
        let client = self.client.borrow();
        let half = if client.is_in_block() { client.half().max(self.max_head) } else { client.half() };
        if !self.held.borrow_mut().set(half) && self.broken.get().is_none() {
            self.broken.set(Some(ENHANCE_YOUR_CALM));
            self.crowded.set(true);
        }
    }

    fn wrote(&self, bytes: &[u8]) {
        self.server.borrow_mut().feed(bytes, |seen, _| match seen {
            Seen::Frame(head) if head.kind == Kind::Data => self.answered.set(self.answered.get() + 1),
            _ => {}
        });
    }

    /// A GOAWAY that says why, if one can be written now (RFC 9113 section 6.8).
    fn farewell(&self) -> Option<[u8; 17]> {
        let code = self.broken.get().filter(|_| self.server.borrow().is_between())?;
        let mut frame = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        frame[9..13].copy_from_slice(&self.rules.borrow().newest().to_be_bytes());
        frame[13..].copy_from_slice(&code.to_be_bytes());
        Some(frame)
    }
}

/// A stream with a gauge on it.
pub struct Watched {
    /// None only while this is dropped.
    stream: Option<Stream>,
    gauge: Rc<Gauge>,
}

impl Watched {
    pub fn new(stream: Stream, gauge: Rc<Gauge>) -> Self {
        Self { stream: Some(stream), gauge }
    }

    fn stream(&mut self) -> io::Result<Pin<&mut Stream>> {
        self.stream.as_mut().map(Pin::new).ok_or_else(|| ErrorKind::NotConnected.into())
    }

    fn refuse(&mut self, cx: &mut Context<'_>) -> io::Error {
        if let Some(farewell) = self.gauge.farewell() {
            // A short frame into a socket that had room for the last one: whole, or not at all.
            if let Some(stream) = &mut self.stream {
                let _ = Pin::new(&mut *stream).poll_write(cx, &farewell);
                let _ = Pin::new(stream).poll_flush(cx);
            }
        }
        io::Error::new(ErrorKind::ConnectionAborted, "the client breaks the rules of HTTP/2")
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.gauge.left.replace(self.stream.take());
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        std::task::ready!(self.stream()?.poll_read(cx, buf))?;
        self.gauge.read(&buf.filled()[before..]);
        if self.gauge.is_broken() {
            return Poll::Ready(Err(self.refuse(cx)));
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = std::task::ready!(self.stream()?.poll_write(cx, buf))?;
        self.gauge.wrote(&buf[..written]);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = std::task::ready!(self.stream()?.poll_write_vectored(cx, bufs))?;
        let mut left = written;
        for buf in bufs {
            let part = left.min(buf.len());
            self.gauge.wrote(&buf[..part]);
            left -= part;
        }
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.as_ref().is_some_and(Stream::is_write_vectored)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_shutdown(cx)
    }
}
