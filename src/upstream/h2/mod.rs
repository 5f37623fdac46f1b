//! HTTP/2 towards one backend: few connections, and many requests on each.
//!
//! Start at [`Connections::send`]. Which connection takes a request is [`choice`]'s pure decision;
//! while all are full it waits here, first come first served, where it is counted and has a limit.
//! A request that a backend provably did nothing with (a stream refused, or begun after the last
//! one that a GOAWAY admits) goes out again by itself; what else failed is for the caller to judge.

mod choice;
mod connection;
mod outcome;
mod part;

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use hyper::Request;
use tokio::sync::Notify;

use self::choice::{CONNECTIONS, Choice, Queue, STREAMS, Seen, Wish, choose};
use self::connection::Stream;
pub use self::connection::{Connection, Ping};
pub(super) use self::outcome::is_nonsense;
use self::outcome::{Lost, Unopened};
use self::part::Part;
pub use self::part::Share;
use super::errand::{Errand, Limits, SendError, SendErrorKind, Sent, Take, head, not_connected};
use super::tls::Offer;
use super::{Client, Failed, JUST_USED, Keep, Link, Opened, SURELY_ALIVE};
use crate::http::headers::to_http2;
use crate::http::replay::Replay;
use crate::http::timer::Wake;
use crate::http::upload::Upload;
use crate::listen::io::Io;

/// How often a request that nothing was done with goes out again: each time the connection that
/// said so takes no more, so that the last finds a new one.
const RESENDS: usize = CONNECTIONS + 1;

/// One thread's HTTP/2 connections to one backend.
pub struct Connections {
    open: RefCell<Vec<Rc<Connection>>>,
    opening: Cell<usize>,
    /// Streams that the next connection will carry, judging by the last.
    expected: Cell<usize>,
    /// How many wait for a stream. This thread alone writes it; others show it.
    waiting: Arc<AtomicU32>,
    bell: Rc<Notify>,
    newest: Cell<u64>,
    /// The newest when one was last found broken: those up to it may be broken too.
    suspect: Cell<u64>,
    retired: Cell<bool>,
    ping: Ping,
}

impl Connections {
    pub fn new(ping: Ping, waiting: Arc<AtomicU32>) -> Self {
        Self {
            open: RefCell::default(),
            opening: Cell::new(0),
            expected: Cell::new(STREAMS),
            waiting,
            bell: Rc::default(),
            newest: Cell::new(0),
            suspect: Cell::new(0),
            retired: Cell::new(false),
            ping,
        }
    }

    /// Sends one request and waits for the head of its answer.
    pub(super) async fn send<A: Fn() -> Arc<[SocketAddr]>>(
        &self,
        client: &Client,
        request: Request<Upload>,
        offer: Offer,
        errand: &Errand<'_, A>,
    ) -> Result<Sent, Failed> {
        let Errand { take, limits, progress, .. } = errand;
        let (original, upload) = request.into_parts();
        let scheme = client.way.borrow().scheme();
        let body = Rc::new(RefCell::new(Replay::new(upload)));
        let whole = |body: &RefCell<Replay>| {
            let upload = body.borrow_mut().take()?;
            Some(Request::from_parts(original.clone(), upload))
        };
        let mut resends = 0;
        loop {
            let fresh = *take == Take::Fresh || resends > 0;
            let (stream, reused) = match self.stream(client, offer, fresh, errand).await {
                Ok(found) => found,
                Err(unopened) => return Err(unopened.failed(whole(&body))),
            };
            let since = Instant::now();
            // On what the caller has asked to be fresh, a failure says something of the backend.
            let reused = reused && *take != Take::Fresh;
            let mut parts = original.clone();
            to_http2(&mut parts, scheme.clone());
            let request = Request::from_parts(parts, Part::new(&body, &stream));
            let mut sender = stream.0.sender();
            let answer = pin!(sender.try_send_request(request));
            let error = match head(answer, limits, since, progress).await {
                Ok(Ok(response)) => {
                    let link = Link::Shared(Share::new(body, stream));
                    return Ok(Sent { response, link, reused });
                }
                Ok(Err(error)) => error,
                Err(kind) => {
                    body.borrow_mut().detach();
                    return Err(Failed::Send(SendError { kind, unsent: None, reused }));
                }
            };
            let never_sent = error.message().is_some();
            let error = error.into_error();
            let lost = if never_sent { Lost::Leaving } else { Lost::of(&error) };
            if matches!(lost, Lost::Leaving | Lost::Broken) {
                self.suspect(&stream.0);
            }
            let unsent = match lost {
                Lost::Refused | Lost::Leaving => whole(&body),
                Lost::Reset | Lost::Broken => None,
            };
            let kind = client.classify(error, progress, reused);
            match unsent {
                Some(request) if resends < RESENDS && !matches!(kind, SendErrorKind::Upload) => {
                    resends += 1;
                    *body.borrow_mut() = Replay::new(request.into_body());
                }
                unsent => {
                    body.borrow_mut().detach();
                    let reused = reused && resends == 0;
                    return Err(Failed::Send(SendError { kind, unsent, reused }));
                }
            }
        }
    }

    /// A stream, and whether its connection has carried others.
    async fn stream<A: Fn() -> Arc<[SocketAddr]>>(
        &self,
        client: &Client,
        offer: Offer,
        fresh: bool,
        errand: &Errand<'_, A>,
    ) -> Result<(Rc<Stream>, bool), Unopened> {
        let Errand { take, limits, .. } = errand;
        let mut place: Option<Place<'_>> = None;
        let mut since = None;
        loop {
            if offer == Offer::Both && client.speaks_http1() {
                return Err(Unopened::Turned(None));
            }
            let now = Instant::now();
            self.prune(client.keep.get(), now);
            let wish = Wish {
                after: fresh.then(|| self.suspect.get()),
                quiet: if *take == Take::Lively { SURELY_ALIVE } else { Duration::MAX },
            };
            let choice = self.choose(wish, place.is_some(), now);
            let limit = match choice {
                Choice::Take(place) => match self.take(place, *take, now).await {
                    Some(stream) => return Ok((stream, true)),
                    None => continue,
                },
                Choice::Open { instead } => {
                    drop(place);
                    if let Some(instead) = instead {
                        self.open.borrow_mut().remove(instead);
                    }
                    let addresses = (errand.addresses)();
                    return Ok((self.open(client, &addresses, limits, offer).await?, false));
                }
                Choice::Wait => limits.connect,
                Choice::Full if place.is_none() && self.waiting() >= limits.max_held => {
                    return Err(SendErrorKind::Full { waited: false }.into());
                }
                Choice::Full => limits.hold,
            };
            place.get_or_insert_with(|| Place::new(&self.waiting));
            limits.timer.set(*since.get_or_insert(now), limit);
            match limits.timer.limit(self.bell.notified()).await {
                Ok(()) => {}
                Err(Wake::Due) if choice == Choice::Full => {
                    return Err(SendErrorKind::Full { waited: true }.into());
                }
                Err(wake) => return Err(not_connected(wake).into()),
            }
        }
    }

    fn choose(&self, wish: Wish, waits: bool, now: Instant) -> Choice {
        let open = self.open.borrow();
        let mut seen = [Seen { id: 0, streams: 0, limit: 0, quiet: Duration::ZERO }; CONNECTIONS];
        let count = open.len().min(CONNECTIONS);
        for (seen, connection) in seen.iter_mut().zip(open.iter()) {
            *seen = connection.seen(now);
        }
        // Who has been called goes first, whoever else waits.
        let before = if waits { 0 } else { self.waiting() };
        let queue = Queue { opening: self.opening.get(), expected: self.expected.get(), before };
        choose(&seen[..count], wish, queue)
    }

    /// Enters a connection; one that has idled only after one more turn of the event loop, which
    /// shows an end that is already there.
    async fn take(&self, place: usize, take: Take, now: Instant) -> Option<Rc<Stream>> {
        let (connection, quiet) = {
            let open = self.open.borrow();
            (open[place].clone(), open[place].seen(now).quiet)
        };
        let stream = connection.enter();
        if quiet > Duration::ZERO && !(take == Take::Idle && quiet < JUST_USED) {
            tokio::task::yield_now().await;
        }
        (!connection.is_over()).then_some(stream)
    }

    async fn open(
        &self,
        client: &Client,
        addresses: &[SocketAddr],
        limits: &Limits<'_>,
        offer: Offer,
    ) -> Result<Rc<Stream>, Unopened> {
        let opening = Opening::new(self);
        let connection = match client.open(addresses, limits, offer, None).await? {
            Opened::Shared(connection) => connection,
            Opened::Alone(alone) => {
                // Whoever waits for a stream looks for a connection of that kind.
                self.bell.notify_waiters();
                return Err(Unopened::Turned(Some(alone)));
            }
        };
        let stream = connection.enter();
        drop(opening);
        self.call(&connection);
        Ok(stream)
    }

    /// Speaks first on a connection, and takes it up.
    pub(super) async fn adopt(
        &self,
        client: &Client,
        io: Io,
        era: u64,
        limits: &Limits<'_>,
    ) -> Result<Rc<Connection>, SendErrorKind> {
        self.newest.set(self.newest.get() + 1);
        let connection = Connection::open(io, self.newest.get(), self.ping, self.bell.clone());
        let connection = match limits.timer.limit(connection).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => return Err(client.classify(error, &None, false)),
            Err(wake) => return Err(not_connected(wake)),
        };
        self.expected.set(connection.seen(limits.now).limit.min(STREAMS));
        if !self.retired.get() && era == client.era.get() {
            self.open.borrow_mut().push(connection.clone());
        }
        Ok(connection)
    }

    /// Calls as many of those who wait as a connection has room for.
    pub(super) fn call(&self, connection: &Connection) {
        let room = connection.seen(Instant::now()).room();
        for _ in 0..room.min(self.waiting()) {
            self.bell.notify_one();
        }
    }

    fn waiting(&self) -> usize {
        self.waiting.load(Relaxed) as usize
    }

    /// A connection takes no more; neither need those that were opened before it be alive.
    fn suspect(&self, connection: &Connection) {
        if !connection.is_left() {
            connection.leave();
            self.suspect.set(self.newest.get());
        }
    }

    /// Forgets what takes no further stream. It ends with the last one that it carries.
    fn prune(&self, keep: Keep, now: Instant) {
        self.open.borrow_mut().retain(|connection| {
            let quiet = connection.seen(now).quiet;
            let wanted = quiet < keep.idle && (keep.max_idle > 0 || !connection.is_idle());
            !connection.is_over() && !keep.is_old(connection.born, now) && wanted
        });
    }

    pub fn sweep(&self, keep: Keep, now: Instant) {
        self.prune(keep, now);
    }

    /// Whether one more request would have to wait for a stream.
    pub fn is_full(&self) -> bool {
        let wish = Wish { after: None, quiet: Duration::MAX };
        // Which is most of the time known without looking at the clock.
        self.open.borrow().len() + self.opening.get() >= CONNECTIONS
            && self.choose(wish, false, Instant::now()) == Choice::Full
    }

    pub fn idle(&self) -> usize {
        self.open.borrow().iter().filter(|connection| connection.is_idle()).count()
    }

    /// Closes every connection that carries nothing.
    pub fn close_idle(&self) {
        self.open.borrow_mut().retain(|connection| !connection.is_idle());
    }

    /// Nothing that is open is asked again: each connection ends with the last stream that it carries.
    pub fn leave_all(&self) {
        self.open.borrow_mut().clear();
    }

    /// The same, and nothing is kept for later.
    pub fn retire(&self) {
        self.retired.set(true);
        self.leave_all();
    }
}

/// One who waits.
struct Place<'a>(&'a AtomicU32);

impl<'a> Place<'a> {
    fn new(waiting: &'a AtomicU32) -> Self {
        waiting.store(waiting.load(Relaxed) + 1, Relaxed);
        Self(waiting)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.store(self.0.load(Relaxed) - 1, Relaxed);
    }
}

/// A connection on its way. However that ends, somebody who waited for it looks again.
struct Opening<'a>(&'a Connections);

impl<'a> Opening<'a> {
    fn new(connections: &'a Connections) -> Self {
        connections.opening.set(connections.opening.get() + 1);
        Self(connections)
    }
}

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        self.0.opening.set(self.0.opening.get() - 1);
        self.0.bell.notify_one();
    }
}
