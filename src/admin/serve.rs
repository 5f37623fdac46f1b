//! The admin side's sockets: accept, serve, stop.
//!
//! Start at [`serve_tcp`]. Runs on the control thread's `LocalRuntime`, never on a data thread,
//! so it answers when the data path is saturated. What is answered is `api`'s.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{self, Sleep};

use super::door::{Door, Side};
use super::socket::Socket;

/// Connections of one listener; who comes next waits in the kernel's backlog.
pub const MAX_CONNECTIONS: usize = 256;
/// From a connection's start, or the last answer, to the end of a request's head.
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a client may take nothing of an answer that waits for it.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// What is buffered for one connection each way.
pub const MAX_BUFFER: usize = 64 * 1024;
/// After the stop, what is being answered may take this long.
pub const LINGER: Duration = Duration::from_secs(1);
/// Between tries when there are no descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves the unix socket, with full control, until `stop`; with its last owner its file goes.
pub async fn serve_unix(
    socket: Arc<Socket>,
    door: Rc<Door>,
    stop: impl Future<Output = ()>,
) -> io::Result<()> {
    let listener = UnixListener::from_std(socket.listener()?)?;
    serve(|| async { Ok(listener.accept().await?.0) }, Side::Socket, door, stop).await;
    Ok(())
}

/// Serves the TCP address until `stop`.
pub async fn serve_tcp(listener: TcpListener, door: Rc<Door>, stop: impl Future<Output = ()>) {
    serve(|| async { Ok(listener.accept().await?.0) }, Side::Tcp, door, stop).await;
}

async fn serve<I, F>(accept: impl Fn() -> F, side: Side, door: Rc<Door>, stop: impl Future<Output = ()>)
where
    I: AsyncRead + AsyncWrite + Unpin + 'static,
    F: Future<Output = io::Result<I>>,
{
    let mut stop = pin!(stop);
    let (open, closing) = watch::channel(());
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = &mut stop => break,
            Some(_) = connections.join_next() => {}
            accepted = accept(), if connections.len() < MAX_CONNECTIONS => match accepted {
                Ok(io) => {
                    connections.spawn_local(connection(io, side, door.clone(), closing.clone()));
                }
                // No descriptors, or the client is gone already. Neither ends the admin side.
                Err(_) => time::sleep(ACCEPT_PAUSE).await,
            },
        }
    }
    drop(open);
    while connections.join_next().await.is_some() {}
}

async fn connection<I>(io: I, side: Side, door: Rc<Door>, mut closing: watch::Receiver<()>)
where
    I: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let service = service_fn(|request| async { Ok::<_, Infallible>(door.answer(side, request).await) });
    let io = TokioIo::new(WriteDeadline { io, limit: WRITE_TIMEOUT, stalled: None });
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .max_buf_size(MAX_BUFFER)
            .serve_connection(io, service)
    );
    tokio::select! {
        // How a client went away is of no interest here.
        _ = &mut connection => return,
        _ = closing.changed() => connection.as_mut().graceful_shutdown(),
    }
    let _ = time::timeout(LINGER, connection).await;
}

/// Ends a connection whose client takes nothing for `limit`: hyper has no deadline for that, and
/// a reader that stands still would hold its connection for ever.
struct WriteDeadline<I> {
    io: I,
    limit: Duration,
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<I: Unpin> WriteDeadline<I> {
    fn judge<T>(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.stalled = None;
            return polled;
        }
        let limit = self.limit;
        let sleep = self.stalled.get_or_insert_with(|| Box::pin(time::sleep(limit)));
        ready!(sleep.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for WriteDeadline<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for WriteDeadline<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write(cx, buf);
        self.judge(cx, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.judge(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;

    #[tokio::test]
    async fn a_reader_that_stands_still_is_cut_off() {
        let (ours, _theirs) = tokio::io::duplex(16);
        let limit = Duration::from_millis(20);
        let mut io = WriteDeadline { io: ours, limit, stalled: None };
        let error = io.write_all(&[0; 64]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
