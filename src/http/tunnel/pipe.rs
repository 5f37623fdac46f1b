//! What a side of a tunnel is reached by.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::listen::Descriptor;
use crate::listen::stream::Stream;

pub enum Pipe {
    /// A connection of its own.
    Connection(Stream, Descriptor),
    /// One stream of an HTTP/2 connection.
    Shared(TokioIo<Upgraded>),
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
