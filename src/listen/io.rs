//! One stream type for both sides: the socket, and what its connection must know of it.
//!
//! hyper owns the [`Io`] while it serves; [`Traffic`] is the connection's window onto it. The
//! window is an `Arc` of relaxed atomics because hyper demands a `Send` stream for upgrades,
//! though one thread alone ever touches it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::Descriptor;
use super::stream::Stream;

/// A stream that notes what passes, and counts among the open ones as long as it has a descriptor.
pub struct Io<S = Stream, D = Descriptor> {
    stream: TokioIo<S>,
    traffic: Arc<Traffic>,
    descriptor: D,
    /// Was read, and is read once more before the stream goes on.
    unread: Bytes,
}

/// What a stream has done so far.
#[derive(Default)]
pub struct Traffic {
    reads: AtomicU64,
    written: AtomicU64,
    starved: AtomicBool,
    flushed: AtomicBool,
    blocked: AtomicBool,
}

impl Traffic {
    /// Reads that brought bytes (or the end).
    pub fn reads(&self) -> u64 {
        self.reads.load(Relaxed)
    }

    /// Bytes written.
    pub fn written(&self) -> u64 {
        self.written.load(Relaxed)
    }

    /// The last read found nothing, and the last write-side call was a completed flush: there
    /// is no byte of ours or theirs under way.
    pub fn is_quiet(&self) -> bool {
        self.starved.load(Relaxed) && self.flushed.load(Relaxed)
    }

    /// All that was written has left for the socket.
    pub fn is_flushed(&self) -> bool {
        self.flushed.load(Relaxed)
    }

    /// The last write or flush found the socket's buffer full.
    pub fn is_blocked(&self) -> bool {
        self.blocked.load(Relaxed)
    }

    fn note_write(&self, result: &Poll<io::Result<usize>>) {
        self.flushed.store(false, Relaxed);
        self.blocked.store(result.is_pending(), Relaxed);
        if let Poll::Ready(Ok(bytes)) = result {
            self.written.store(self.written() + *bytes as u64, Relaxed);
        }
    }
}

impl Io {
    pub fn new(socket: TcpStream, descriptor: Descriptor) -> Self {
        Self::over(Stream::Plain(socket), descriptor)
    }

    pub fn over(stream: Stream, descriptor: Descriptor) -> Self {
        let stream = TokioIo::new(stream);
        Self { stream, traffic: Arc::default(), descriptor, unread: Bytes::new() }
    }

    /// Goes on with the stream inside another, which the window follows; the count is the caller's.
    pub fn wrap<S>(self, wrap: impl FnOnce(Stream) -> S) -> (Io<S, ()>, Descriptor) {
        let Self { stream, traffic, descriptor, unread } = self;
        let stream = TokioIo::new(wrap(stream.into_inner()));
        (Io { stream, traffic, descriptor: (), unread }, descriptor)
    }

    /// Goes on with what became of the stream; the window and the count stay.
    pub async fn try_turn<E>(self, turn: impl AsyncFnOnce(Stream) -> Result<Stream, E>) -> Result<Self, E> {
        let Self { stream, traffic, descriptor, unread } = self;
        let stream = TokioIo::new(turn(stream.into_inner()).await?);
        Ok(Self { stream, traffic, descriptor, unread })
    }

    /// Puts back what was read from it.
    pub fn with_unread(self, unread: Bytes) -> Self {
        Self { unread, ..self }
    }

    /// Reads without hyper, as much as is there and fits.
    pub fn poll_piece(&mut self, cx: &mut Context<'_>, piece: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut piece = ReadBuf::new(piece);
        let result = Pin::new(self.stream.inner_mut()).poll_read(cx, &mut piece);
        result.map_ok(|()| piece.filled().len())
    }

    pub fn traffic(&self) -> Arc<Traffic> {
        self.traffic.clone()
    }

    pub fn socket(&self) -> &TcpStream {
        self.stream.inner().socket()
    }

    pub fn stream(&self) -> &Stream {
        self.stream.inner()
    }

    /// Closes a connection on which nothing is under way. Over TLS the end is said first, so that
    /// it does not look cut; nobody waits for it.
    pub async fn close(mut self) {
        if let Stream::Tls(stream) = self.stream.inner_mut() {
            std::future::poll_fn(|cx| {
                let _ = Pin::new(&mut *stream).poll_shutdown(cx);
                Poll::Ready(())
            })
            .await;
        }
    }

    /// The stream, what counts it, and what was put back and not read again.
    pub fn into_stream(self) -> (Stream, Descriptor, Bytes) {
        (self.stream.into_inner(), self.descriptor, self.unread)
    }
}

impl<S: AsyncRead + Unpin, D: Unpin> Read for Io<S, D> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let result = if self.unread.is_empty() {
            Pin::new(&mut self.stream).poll_read(cx, buf)
        } else {
            let fits = self.unread.len().min(buf.remaining());
            buf.put_slice(&self.unread[..fits]);
            self.unread.advance(fits);
            Poll::Ready(Ok(()))
        };
        self.traffic.starved.store(result.is_pending(), Relaxed);
        if result.is_ready() {
            self.traffic.reads.store(self.traffic.reads() + 1, Relaxed);
        }
        result
    }
}

impl<S: AsyncWrite + Unpin, D: Unpin> Write for Io<S, D> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.traffic.note_write(&result);
        result
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.traffic.note_write(&result);
        result
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_flush(cx);
        self.traffic.flushed.store(matches!(result, Poll::Ready(Ok(()))), Relaxed);
        // TLS takes bytes that the socket has no room for, and shows it only here.
        self.traffic.blocked.store(result.is_pending(), Relaxed);
        result
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
