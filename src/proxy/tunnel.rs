//! From a 101 to a tunnel: both sides are handed over, and the exchange lives on in it.

use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;

use super::exchange::Exchange;
use crate::http::timer::Timer;
use crate::http::tunnel::{self, Pipe, Side, TunnelEnd};
use crate::listen::io::Io;
use crate::telemetry::End;

/// Both sides are free as soon as the client has been told; one that does not take even that is
/// not waited for longer.
const HANDOVER: Duration = Duration::from_secs(10);

/// Opens the tunnel as soon as both sides are let go of. The task ends with the
/// tunnel; the lease in its exchange is what a drain or a shutdown cuts it by.
pub fn open(mut exchange: Box<Exchange>, client: OnUpgrade, backend: OnUpgrade, idle: Duration) {
    exchange.end = Some(End::Upgraded);
    exchange.record(Instant::now());
    exchange.tunnelled = true;
    exchange.link = None;
    let timer = Timer::new(&exchange.proxy.wheel);
    exchange.lease = exchange.lease.take().map(|lease| lease.into_tunnel(&timer));
    tokio::task::spawn_local(async move {
        timer.set(Instant::now(), HANDOVER);
        let sides = timer.limit(async { Some((side(client.await.ok()?), side(backend.await.ok()?))) }).await;
        let Ok(Some((client, backend))) = sides else {
            exchange.end = Some(End::ClientAbort);
            return;
        };
        let carried = tunnel::run(client, backend, idle, &timer, &exchange.proxy.scratch).await;
        exchange.sent = carried.to_client;
        exchange.received = carried.to_backend;
        exchange.end = Some(match carried.end {
            TunnelEnd::Closed | TunnelEnd::Broken => End::TunnelClosed,
            TunnelEnd::Idle => End::IdleTimeout,
            TunnelEnd::Cut => End::Drained,
        });
    });
}

fn side(upgraded: Upgraded) -> Side {
    match upgraded.downcast::<Io>() {
        Ok(parts) => {
            let (stream, descriptor, unread) = parts.io.into_stream();
            let read = parts.read_buf;
            // Both are empty but for a client that was in a hurry after it had been slow.
            let early = if unread.is_empty() { read } else { [read, unread].concat().into() };
            Side { pipe: Pipe::Connection(stream, descriptor), early }
        }
        Err(stream) => Side { pipe: Pipe::Shared(TokioIo::new(stream)), early: Bytes::new() },
    }
}
