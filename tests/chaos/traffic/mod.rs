//! Steady mixed traffic at a bounded rate, and the record of what became of it.
//!
//! Start at [`Traffic::start`]. Every client goes its rounds until it is told to stop, and finishes
//! the round that it is in. Nobody asks again: what failed, failed.

mod requests;
mod sockets;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use crate::client::How;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// On a connection that is kept.
    Get,
    /// On a connection of its own.
    FreshGet,
    Post,
    Download,
    /// A body sent slowly, with POST.
    Upload,
    /// The same with PUT.
    Put,
    /// A GET that shows the cookie of its session.
    Session,
    /// The handshake of a WebSocket.
    Handshake,
    /// One message of a WebSocket and its echo.
    Message,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::FreshGet => "GET on a connection of its own",
            Self::Post => "POST",
            Self::Download => "download",
            Self::Upload => "slow POST",
            Self::Put => "slow PUT",
            Self::Session => "GET of a session",
            Self::Handshake => "WebSocket handshake",
            Self::Message => "WebSocket",
        }
    }

    /// A backend must never get it twice.
    fn only_once(self) -> bool {
        matches!(self, Self::Post | Self::Upload)
    }
}

/// Something that did not go as its client wished.
#[derive(Clone, Debug)]
pub struct Failure {
    pub id: String,
    pub kind: Kind,
    pub how: How,
    pub began: Instant,
    pub ended: Instant,
    /// Who had it, as far as the client can know. Of a session that moved: who had it before.
    pub backend: Option<String>,
}

/// What became of everything.
#[derive(Default)]
pub struct Tally {
    pub counts: BTreeMap<Kind, u64>,
    pub failures: Vec<Failure>,
    /// Of the GETs that were answered.
    pub slowest: Duration,
    /// When the last GET ended that took longer than [`SLOW`].
    pub last_slow: Option<Instant>,
    /// Those that must arrive once at most, and whether they were answered with 200.
    pub once: Vec<(String, Kind, bool)>,
}

/// A GET that takes longer has been hurt.
const SLOW: Duration = Duration::from_millis(500);

/// How many clients of each kind there are, and how much they carry.
#[derive(Clone, Copy)]
pub struct Diet {
    /// Before the paths of [`Kind::Get`], [`Kind::FreshGet`] and [`Kind::Post`].
    pub prefix: &'static str,
    pub getters: usize,
    pub fresh_getters: usize,
    pub posters: usize,
    pub downloads: usize,
    pub uploads: usize,
    pub sessions: usize,
    pub sockets: usize,
    /// Of a download and of an upload.
    pub bytes: u64,
    pub over: Duration,
}

impl Diet {
    pub fn mixed(bytes: u64, over: Duration) -> Self {
        Self {
            prefix: "",
            getters: 4,
            fresh_getters: 3,
            posters: 4,
            downloads: 3,
            uploads: 4,
            sessions: 8,
            sockets: 6,
            bytes,
            over,
        }
    }

    /// Short requests to the pool of one backend.
    pub fn solo() -> Self {
        Self {
            prefix: "/solo",
            downloads: 0,
            uploads: 0,
            sessions: 0,
            sockets: 0,
            ..Self::mixed(0, Duration::ZERO)
        }
    }
}

/// What all clients share.
pub struct Shared {
    pub address: SocketAddr,
    pub diet: Diet,
    stop: Cell<bool>,
    next: Cell<u64>,
    tally: RefCell<Tally>,
}

impl Shared {
    fn goes_on(&self) -> bool {
        !self.stop.get()
    }

    /// An id that no other request of the run has.
    fn id(&self) -> String {
        let id = self.next.get();
        self.next.set(id + 1);
        format!("c{id}")
    }

    fn record(&self, id: String, kind: Kind, began: Instant, backend: Option<String>, how: Option<How>) {
        let ended = Instant::now();
        let mut tally = self.tally.borrow_mut();
        *tally.counts.entry(kind).or_default() += 1;
        if matches!(kind, Kind::Get | Kind::FreshGet | Kind::Session) && how.is_none() {
            let took = ended - began;
            tally.slowest = tally.slowest.max(took);
            if took > SLOW {
                tally.last_slow = Some(ended);
            }
        }
        if kind.only_once() {
            tally.once.push((id.clone(), kind, how.is_none()));
        }
        if let Some(how) = how {
            tally.failures.push(Failure { id, kind, how, began, ended, backend });
        }
    }

    /// As [`Shared::record`], for what is no request of its own.
    fn blame(&self, id: String, kind: Kind, began: Instant, backend: Option<String>, how: How) {
        let ended = Instant::now();
        self.tally.borrow_mut().failures.push(Failure { id, kind, how, began, ended, backend });
    }
}

pub struct Traffic {
    shared: Rc<Shared>,
    clients: Vec<JoinHandle<()>>,
}

impl Traffic {
    /// Sets the clients off. `first_id`: from where to number requests.
    pub fn start(address: SocketAddr, diet: Diet, first_id: u64) -> Self {
        let shared = Rc::new(Shared {
            address,
            diet,
            stop: Cell::new(false),
            next: Cell::new(first_id),
            tally: RefCell::default(),
        });
        let mut traffic = Self { shared: shared.clone(), clients: Vec::new() };
        let to = || shared.clone();
        traffic.add(diet.getters, |_| requests::gets(to(), Kind::Get));
        traffic.add(diet.fresh_getters, |_| requests::gets(to(), Kind::FreshGet));
        traffic.add(diet.posters, |_| requests::posts(to()));
        traffic.add(diet.downloads, |n| requests::downloads(to(), n % 2 == 0));
        traffic.add(diet.uploads, |n| {
            requests::uploads(to(), if n % 2 == 0 { Kind::Upload } else { Kind::Put })
        });
        traffic.add(diet.sessions, |_| requests::sessions(to()));
        traffic.add(diet.sockets, |_| sockets::run(to()));
        traffic
    }

    fn add<F: Future<Output = ()> + 'static>(&mut self, count: usize, client: impl Fn(usize) -> F) {
        self.clients.extend((0..count).map(|number| tokio::task::spawn_local(client(number))));
    }

    /// Waits until so much more has been answered.
    pub async fn flows(&self, more: u64) {
        let count = || self.shared.tally.borrow().counts.values().sum::<u64>();
        let until = count() + more;
        while count() < until && !self.clients.iter().all(JoinHandle::is_finished) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Lets everybody finish. The tally, and the first id that is free.
    pub async fn stop(self) -> (Tally, u64) {
        self.shared.stop.set(true);
        for client in self.clients {
            client.await.expect("a client does not panic");
        }
        (self.shared.tally.take(), self.shared.next.get())
    }
}
