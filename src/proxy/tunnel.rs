//! From a 101 to a tunnel: both sides are handed over, and the exchange lives on in it.

use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;

use super::exchange::Exchange;
use crate::http::timer::{Timer, Wake};
use crate::http::tunnel::{self, Content, Pipe, Side, Sides, TunnelEnd};
use crate::listen::io::Io;
use crate::plan::TunnelDrain;
use crate::telemetry::{End, TunnelReason};

/// Both sides are free as soon as the client has been told; one that does not take even that is
/// not waited for longer.
const HANDOVER: Duration = Duration::from_secs(10);

/// Opens the tunnel as soon as both sides are let go of. The task ends with the
/// tunnel; the lease in its exchange is what a drain or a shutdown ends it by.
pub fn open(mut exchange: Box<Exchange>, client: OnUpgrade, backend: OnUpgrade, content: Content) {
    exchange.end = Some(End::Upgraded);
    exchange.record(Instant::now());
    exchange.tunnel = Some(TunnelReason::Closed);
    exchange.link = None;
    let timer = Timer::new(&exchange.proxy.wheel);
    let route = exchange.route().map(|route| &route.plan);
    let idle = route.map_or(Duration::MAX, |route| route.tunnel_idle_timeout);
    let waits = route.is_some_and(|route| route.tunnel_drain == TunnelDrain::Wait);
    let ends_early = content == Content::WebSocket && !waits;
    exchange.lease = exchange.lease.take().map(|lease| lease.into_tunnel(&timer, ends_early));
    tokio::task::spawn_local(async move {
        // Boxed: an idle tunnel need not be large enough for its beginning.
        let mut sides = match Box::pin(hand_over(client, backend, &timer)).await {
            Ok(Some(sides)) => sides,
            Ok(None) | Err(Wake::Due) => {
                exchange.end = Some(End::ClientAbort);
                return;
            }
            Err(Wake::Cut) => return ended(&mut exchange, TunnelEnd::Cut),
        };
        let scratch = &exchange.proxy.scratch;
        let carried = tunnel::run(&mut sides, content, idle, &timer, scratch).await;
        exchange.sent = carried.to_client;
        exchange.received = carried.to_backend;
        // Before the two sides are closed, which is when a shutdown counts.
        ended(&mut exchange, carried.end);
    });
}

/// Waits for both sides; one that leaves before is none.
async fn hand_over(client: OnUpgrade, backend: OnUpgrade, timer: &Timer) -> Result<Option<Sides>, Wake> {
    timer.set(Instant::now(), HANDOVER);
    let both = async { Some(Sides { client: side(client.await.ok()?), backend: side(backend.await.ok()?) }) };
    timer.limit(both).await
}

fn ended(exchange: &mut Exchange, how: TunnelEnd) {
    let (end, reason) = match how {
        TunnelEnd::Closed | TunnelEnd::Broken => (End::TunnelClosed, TunnelReason::Closed),
        TunnelEnd::Idle => (End::IdleTimeout, TunnelReason::Idle),
        TunnelEnd::Told => (End::Drained, TunnelReason::Told),
        TunnelEnd::Cut => (End::Drained, TunnelReason::Cut),
    };
    (exchange.end, exchange.tunnel) = (Some(end), Some(reason));
    if let Some(lease) = &exchange.lease {
        lease.tunnel_ended(how);
    }
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
