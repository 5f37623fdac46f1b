//! From an accepted socket to a client who is known: by its PROXY header, its TLS handshake, its
//! first bytes. Each step is optional, and each has the limit of the first byte.
//!
//! Start at `Worker::welcome`. What follows, the serving, is the worker's.

use std::cell::Cell;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use tokio::net::TcpStream;

use super::Worker;
use crate::http::proxied::{Unannounced, announced};
use crate::http::secure::{Unsecured, secure};
use crate::http::serve::{self, Conn};
use crate::http::timer::Timer;
use crate::limit::Seat;
use crate::listen::io::Io;
use crate::listen::tls::{Acceptor, Secured};
use crate::live::View;
use crate::plan::{ListenerLimits, ListenerPlan, Protocols, ProxyProtocol};
use crate::proxy::Visitor;
use crate::telemetry::{ListenerSeries, Rejection};

impl Worker {
    pub(super) fn welcome(
        self: &Rc<Self>,
        name: &Arc<str>,
        stream: TcpStream,
        peer: SocketAddr,
        leaving: Rc<Cell<bool>>,
    ) {
        let view = self.proxy.view();
        let Some(listener) = plan_of(&view, name) else { return };
        let series = self.proxy.telemetry.listener(name);
        // Who stands behind a balancer is not known yet.
        let told = listener.proxy_protocol != ProxyProtocol::Off;
        let seat = if told { Ok(None) } else { seat(&view, listener, peer.ip()) };
        let Ok(seat) = seat else { return turn_away(self.proxy.thread, listener, &series, &stream) };
        // An answer must not wait for the acknowledgement of the one before.
        let _ = stream.set_nodelay(true);
        series.accepted(self.proxy.thread);
        let io = Io::new(stream, self.descriptors.take());
        let conn = Rc::new(Conn::new(peer, &io, &self.wheel, leaving, Instant::now()));
        let place = Box::new(Place::take(self, conn.watch(), series.clone(), seat));
        let (limits, protocols) = (listener.limits.clone(), listener.protocols);
        let arrival = Arrival { conn, listener: name.clone(), limits, protocols, series, place };
        let acceptor = view.snapshot.acceptors.get(&**name).cloned();
        match listener.proxy_protocol {
            ProxyProtocol::Off => self.go_on(io, arrival, acceptor),
            accepted => {
                let trusted = view.snapshot.trust.trusts(peer.ip());
                let hearing = self.clone().hear(io, arrival, acceptor, accepted, trusted);
                drop(tokio::task::spawn_local(hearing));
            }
        }
    }

    fn go_on(self: &Rc<Self>, io: Io, arrival: Arrival, acceptor: Option<Acceptor>) {
        match acceptor {
            None => drop(tokio::task::spawn_local(self.clone().begin(io, arrival))),
            Some(acceptor) => drop(tokio::task::spawn_local(self.clone().secure(io, arrival, acceptor))),
        }
    }

    /// Hears who the client is, then goes on as with any connection, in a task that keeps nothing
    /// of this one.
    async fn hear(
        self: Rc<Self>,
        io: Io,
        mut arrival: Arrival,
        acceptor: Option<Acceptor>,
        accepted: ProxyProtocol,
        trusted: bool,
    ) {
        if let Err(why) = announced(&io, &arrival.conn, &arrival.limits, accepted, trusted).await {
            return arrival.unannounced(self.proxy.thread, why);
        }
        let view = self.proxy.view();
        // A listener that has left the file has no limit either.
        if let Some(listener) = plan_of(&view, &arrival.listener) {
            match seat(&view, listener, arrival.conn.peer.get().ip()) {
                Ok(seat) => arrival.place.seat = seat,
                Err(Full) => {
                    return turn_away(self.proxy.thread, listener, &arrival.series, io.socket());
                }
            }
        }
        self.go_on(io, arrival, acceptor);
    }

    /// Shakes hands, then goes on as with any connection.
    async fn secure(self: Rc<Self>, io: Io, arrival: Arrival, acceptor: Acceptor) {
        // Boxed, so that the connection keeps nothing of it.
        let handshake = secure(io, &arrival.conn, &arrival.limits, &acceptor, &self.handshakes);
        let secured = Box::pin(handshake).await;
        let io = match secured {
            Ok(io) => io,
            Err(unsecured) => return arrival.unsecured(self.proxy.thread, unsecured),
        };
        let told = acceptor.told(io.stream());
        drop(acceptor);
        let http2 = told.as_ref().is_some_and(|told| told.http2);
        let visitor = arrival.visitor(told);
        if http2 { self.multiplex(io, visitor).await } else { self.converse(io, visitor).await }
    }

    /// Finds out what a client in the clear speaks, where it may speak either.
    async fn begin(self: Rc<Self>, io: Io, arrival: Arrival) {
        let http2 = match arrival.protocols {
            Protocols { http2: false, .. } => false,
            Protocols { http1: false, .. } => true,
            Protocols { .. } => {
                let sniffed = serve::speaks_http2(io.socket());
                match arrival.conn.before_first_byte(&arrival.limits, sniffed).await {
                    Some(Some(http2)) => http2,
                    Some(None) => return,
                    None => {
                        let why = if arrival.conn.is_leaving() { Unsecured::Gone } else { Unsecured::Slow };
                        return arrival.unsecured(self.proxy.thread, why);
                    }
                }
            }
        };
        let visitor = arrival.visitor(None);
        if http2 { self.multiplex(io, visitor).await } else { self.converse(io, visitor).await }
    }
}

/// For whoever has as many connections as it may have.
const TOO_MANY: &[u8] = b"HTTP/1.1 429 Too Many Requests\r\nconnection: close\r\ncontent-length: 70\r\n\
content-type: text/plain\r\n\r\n429 max_connections_per_client: too many connections from this client\n";

/// Its client has as many connections as it may have.
struct Full;

fn plan_of<'v>(view: &'v View, name: &str) -> Option<&'v ListenerPlan> {
    view.snapshot.plan.listeners.iter().find(|listener| listener.name == name)
}

/// Counts a connection from `client` where the listener wants that; those of trusted peers, who bring
/// many clients, are not counted.
fn seat(view: &View, listener: &ListenerPlan, client: IpAddr) -> Result<Option<Seat>, Full> {
    let most = listener.limits.max_connections_per_client;
    if most == 0 || view.snapshot.trust.trusts(client) {
        return Ok(None);
    }
    let Some(clients) = view.snapshot.clients.get(&listener.name) else { return Ok(None) };
    clients.take(client, most).map(Some).ok_or(Full)
}

/// Closes a connection that is one too many. Where its client reads HTTP/1 in the clear it is told why,
/// if it is quick: nobody waits for it, or it would have another connection meanwhile.
fn turn_away(thread: usize, listener: &ListenerPlan, series: &ListenerSeries, stream: &TcpStream) {
    series.rejected(thread, Rejection::MaxConnectionsPerClient);
    if listener.tls.is_none() && listener.protocols.http1 {
        let _ = stream.try_write(TOO_MANY);
    }
}

/// A client of whom nothing is known but where it came from and by which listener.
struct Arrival {
    conn: Rc<Conn>,
    listener: Arc<str>,
    limits: ListenerLimits,
    protocols: Protocols,
    series: Arc<ListenerSeries>,
    place: Box<Place>,
}

impl Arrival {
    fn visitor(self, secured: Option<Secured>) -> Rc<Visitor> {
        Visitor::new(self.conn, self.listener, self.limits, self.series, secured, self.place)
    }

    fn unannounced(&self, thread: usize, why: Unannounced) {
        match why {
            Unannounced::Gone => {}
            Unannounced::Slow => self.series.rejected(thread, Rejection::FirstByteTimeout),
            Unannounced::Refused => self.series.rejected(thread, Rejection::ProxyHeader),
            Unannounced::Untrusted => self.series.rejected(thread, Rejection::UntrustedProxy),
        }
    }

    fn unsecured(&self, thread: usize, why: Unsecured) {
        match why {
            Unsecured::Gone => {}
            Unsecured::Slow => self.series.rejected(thread, Rejection::FirstByteTimeout),
            Unsecured::Failed => self.series.rejected(thread, Rejection::TlsHandshake),
        }
    }
}

/// A connection's place among those of its thread.
struct Place {
    worker: Rc<Worker>,
    series: Arc<ListenerSeries>,
    key: usize,
    /// Its place among those of its client, where they are counted.
    seat: Option<Seat>,
}

impl Place {
    fn take(worker: &Rc<Worker>, watch: &Timer, series: Arc<ListenerSeries>, seat: Option<Seat>) -> Self {
        let key = worker.connections.borrow_mut().insert(watch.clone());
        let place = Self { worker: worker.clone(), series, key, seat };
        place.publish();
        place
    }

    fn publish(&self) {
        let count = self.worker.connections.borrow().len();
        let load = &self.worker.loads[self.worker.proxy.thread];
        load.connections.store(u32::try_from(count).unwrap_or(u32::MAX), Ordering::Relaxed);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.worker.connections.borrow_mut().remove(self.key);
        self.series.closed(self.worker.proxy.thread);
        self.publish();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_to_one_too_many_is_as_long_as_it_says() {
        let text = std::str::from_utf8(TOO_MANY).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}\r\n", body.len())), "{}", body.len());
    }
}
