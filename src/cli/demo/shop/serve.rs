//! The shop's sockets: accept, serve, crash.
//!
//! Start at [`serve`]. What is said is `answer`'s and `echo`'s.

use std::cell::Cell;
use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time;

use super::memory::Shop;
use super::{answer, echo};

/// Connections at a time; who comes next waits in the kernel's backlog.
const MAX_CONNECTIONS: usize = 1_024;
/// From the last answer to the next request's head. Longer than a proxy keeps connections idle.
const HEADER_TIMEOUT: Duration = Duration::from_secs(75);
/// Between tries when there are no descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What happens on a connection when its HTTP has ended.
#[derive(Default)]
pub(super) enum After {
    #[default]
    Nothing,
    Echo(OnUpgrade),
    Crash,
}

/// Serves a shop until it crashes, by [`Shop::crash`] or `POST /admin/crash`: then the listener is
/// closed and every connection reset before this returns. Dropped, it ends without resets.
///
/// Runs on a `LocalRuntime`.
pub async fn serve(listener: TcpListener, shop: Rc<Shop>) {
    let rude = Arc::new(AtomicBool::new(false));
    let mut crashed = shop.crashed();
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            _ = crashed.wait_for(|crashed| *crashed) => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => match accepted {
                Ok((io, _)) => {
                    connections.spawn_local(connection(Wire { io, rude: rude.clone() }, shop.clone()));
                }
                Err(_) => time::sleep(ACCEPT_PAUSE).await,
            },
        }
    }
    rude.store(true, Ordering::Relaxed);
    drop(listener);
    connections.shutdown().await;
}

async fn connection(wire: Wire, shop: Rc<Shop>) {
    let after = Cell::new(After::Nothing);
    let service =
        service_fn(|request| async { Ok::<_, Infallible>(answer::answer(&shop, &after, request).await) });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(wire), service)
        .with_upgrades()
        .await;
    match after.take() {
        After::Echo(upgrade) if served.is_ok() => echo::run(shop.name(), upgrade).await,
        After::Crash => shop.crash(),
        _ => {}
    }
}

/// A connection that a crash resets instead of closing in good order, wherever it is held then.
struct Wire {
    io: TcpStream,
    rude: Arc<AtomicBool>,
}

impl Drop for Wire {
    fn drop(&mut self) {
        if self.rude.load(Ordering::Relaxed) {
            // Failing, it closes in good order: a milder crash.
            let _ = self.io.set_zero_linger();
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
