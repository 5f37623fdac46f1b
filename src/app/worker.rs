//! A data thread: its runtime, its listeners, its connections, and the orders it takes.
//!
//! Start at [`start`]. Whatever belongs to one thread lives in [`Worker`]; the control thread
//! reaches it through a bounded inbox and hears back through the order's own channel. `arrival` learns
//! who has come in.

mod arrival;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use slab::Slab;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::RuntimeMetrics;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::AbortHandle;

use crate::http::serve::{Served, http1, http2};
use crate::http::timer::{Timer, Wheel};
use crate::limit::Heads;
use crate::listen::io::Io;
use crate::listen::tls::MAX_HANDSHAKES;
use crate::listen::{Descriptors, accept};
use crate::live::{Live, Site};
use crate::pool::backend::{Post, Vitals};
use crate::proxy::{Evidence, Proxy, Visitor};
use crate::telemetry::access_log::Sink;
use crate::telemetry::{Rejection, Telemetry};

/// Orders that may wait for a thread.
pub const INBOX: usize = 1024;

/// How often idle connections to backends are looked through.
const SWEEP: Duration = Duration::from_secs(1);

/// How long an access-log line may wait for others to be written with.
const FLUSH_AFTER: Duration = Duration::from_millis(100);

/// A connection is handed to the thread with the fewest once this one has so many more.
const UNEVEN: u32 = 8;

/// What the control thread asks of a data thread.
pub enum Order {
    /// Look at the snapshot and at how backends stand; everything picked from now on knows them.
    Look(oneshot::Sender<()>),
    Listen {
        name: Arc<str>,
        address: SocketAddr,
        sockets: Vec<std::net::TcpListener>,
    },
    /// Stop accepting on this address; its connections leave after their next answer.
    Leave {
        address: SocketAddr,
    },
    /// The process drains: every connection leaves after its next answer.
    LeaveAll,
    StopAccepting,
    /// Drop everything and end.
    Stop(oneshot::Sender<()>),
    /// A connection that another thread accepted and has too many of.
    Adopt {
        name: Arc<str>,
        /// The listener's.
        address: SocketAddr,
        stream: std::net::TcpStream,
        peer: SocketAddr,
    },
    CloseIdle(Arc<Vitals>, oneshot::Sender<()>),
    /// Tell so many tunnels to end; of one backend, or of all where the process does.
    TellTunnels(Option<Arc<Vitals>>, u64),
    Cut(Arc<Vitals>, oneshot::Sender<()>),
    CutAll(oneshot::Sender<()>),
}

/// What a data thread is made of.
pub struct Kit {
    pub thread: usize,
    pub threads: usize,
    pub live: Live,
    pub telemetry: Arc<Telemetry>,
    pub log: Sink,
    pub evidence: mpsc::Sender<Evidence>,
    pub descriptors: Arc<Descriptors>,
    pub heads: Arc<Heads>,
    pub inbox: mpsc::Receiver<Order>,
    /// Every thread's inbox and number of connections, this one's included.
    pub others: Vec<mpsc::Sender<Order>>,
    pub loads: Arc<[Load]>,
}

/// How many connections a thread has, and its runtime's own counts. It alone writes them.
#[derive(Default)]
#[repr(align(128))]
pub struct Load {
    connections: AtomicU32,
    runtime: OnceLock<RuntimeMetrics>,
}

impl Load {
    pub fn connections(&self) -> u32 {
        self.connections.load(Ordering::Relaxed)
    }

    /// Tasks that are not at their end.
    pub fn tasks(&self) -> usize {
        self.runtime.get().map_or(0, RuntimeMetrics::num_alive_tasks)
    }
}

/// Starts a data thread. It ends when its inbox is closed.
pub fn start(kit: Kit) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(format!("pintle-{}", kit.thread)).spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build_local(Default::default())
            .expect("a runtime needs three descriptors, and the limit was raised at start");
        let _ = kit.loads[kit.thread].runtime.set(runtime.metrics());
        runtime.block_on(run(kit));
    })
}

async fn run(kit: Kit) {
    let mut inbox = kit.inbox;
    let wheel = Wheel::new(Instant::now());
    let site = Site { thread: kit.thread, threads: kit.threads, descriptors: kit.descriptors.clone() };
    let proxy = Proxy::new(site, kit.live, wheel.clone(), kit.telemetry, kit.log, kit.evidence);
    let worker = Rc::new(Worker {
        proxy,
        wheel: wheel.clone(),
        descriptors: kit.descriptors,
        heads: kit.heads,
        others: kit.others,
        loads: kit.loads,
        handshakes: Semaphore::new(MAX_HANDSHAKES),
        listeners: RefCell::default(),
        connections: RefCell::default(),
    });
    tokio::task::spawn_local(async move { wheel.run().await });
    tokio::task::spawn_local(worker.clone().sweep());
    tokio::task::spawn_local(worker.clone().flush());
    while let Some(order) = inbox.recv().await {
        match order {
            Order::Stop(done) => {
                worker.proxy.log.flush();
                let _ = done.send(());
                return;
            }
            order => worker.obey(order),
        }
    }
}

struct Worker {
    proxy: Rc<Proxy>,
    wheel: Wheel,
    descriptors: Arc<Descriptors>,
    heads: Arc<Heads>,
    others: Vec<mpsc::Sender<Order>>,
    loads: Arc<[Load]>,
    /// One for each TLS handshake that may be under way.
    handshakes: Semaphore,
    listeners: RefCell<HashMap<SocketAddr, Listening>>,
    /// What wakes each connection: the process drains.
    connections: RefCell<Slab<Timer>>,
}

struct Listening {
    /// One for each socket.
    tasks: Vec<AbortHandle>,
    /// True once the listener is gone.
    leaving: Rc<Cell<bool>>,
}

impl Worker {
    fn obey(self: &Rc<Self>, order: Order) {
        match order {
            Order::Look(done) => {
                self.proxy.view();
                let _ = done.send(());
            }
            Order::Listen { name, address, sockets } => self.listen(name, address, sockets),
            Order::Leave { address } => {
                if let Some(listening) = self.listeners.borrow_mut().remove(&address) {
                    listening.tasks.iter().for_each(AbortHandle::abort);
                    listening.leaving.set(true);
                    self.wake_connections();
                }
            }
            Order::LeaveAll => {
                self.listeners.borrow().values().for_each(|listening| listening.leaving.set(true));
                self.wake_connections();
            }
            Order::StopAccepting => {
                let mut listeners = self.listeners.borrow_mut();
                listeners.drain().for_each(|(_, listening)| {
                    listening.tasks.iter().for_each(AbortHandle::abort);
                });
            }
            Order::Stop(_) => {}
            Order::Adopt { name, address, stream, peer } => {
                // A listener that is gone has left, and so does whoever came by it.
                let gone = || Rc::new(Cell::new(true));
                let listeners = self.listeners.borrow();
                let leaving =
                    listeners.get(&address).map_or_else(gone, |listening| listening.leaving.clone());
                if let Ok(stream) = TcpStream::from_std(stream) {
                    self.welcome(&name, stream, peer, leaving);
                }
            }
            Order::CloseIdle(vitals, done) => {
                self.posts_of(&vitals, |post| post.close_idle());
                let _ = done.send(());
            }
            Order::TellTunnels(of, most) => {
                let posts = self.proxy.posts();
                let meant = |post: &&Rc<Post>| of.as_ref().is_none_or(|of| Arc::ptr_eq(&post.vitals, of));
                posts.iter().filter(meant).fold(most, |left, post| left - post.tell_tunnels(left));
            }
            Order::Cut(vitals, done) => {
                self.posts_of(&vitals, |post| post.cut());
                let _ = done.send(());
            }
            Order::CutAll(done) => {
                self.proxy.end();
                let _ = done.send(());
            }
        }
    }

    fn posts_of(&self, vitals: &Arc<Vitals>, act: impl Fn(&Post)) {
        self.proxy.posts().iter().filter(|post| Arc::ptr_eq(&post.vitals, vitals)).for_each(|post| act(post));
    }

    fn wake_connections(&self) {
        for (_, watch) in self.connections.borrow().iter() {
            watch.cut();
        }
    }

    fn listen(self: &Rc<Self>, name: Arc<str>, address: SocketAddr, sockets: Vec<std::net::TcpListener>) {
        let leaving: Rc<Cell<bool>> = Rc::default();
        let accept = |socket| self.accept(name.clone(), address, socket, leaving.clone());
        let tasks = sockets.into_iter().map(accept).collect();
        self.listeners.borrow_mut().insert(address, Listening { tasks, leaving });
    }

    fn accept(
        self: &Rc<Self>,
        name: Arc<str>,
        address: SocketAddr,
        socket: std::net::TcpListener,
        leaving: Rc<Cell<bool>>,
    ) -> AbortHandle {
        let listener =
            TcpListener::from_std(socket).expect("the socket is non-blocking and the runtime runs");
        let worker = self.clone();
        let series = self.proxy.telemetry.listener(&name);
        let task = tokio::task::spawn_local(async move {
            let thread = worker.proxy.thread;
            let full = || series.rejected(thread, Rejection::MaxConnections);
            let take = |stream, peer| worker.take(&name, address, stream, peer, &leaving);
            accept::run(listener, worker.descriptors.clone(), full, take).await;
        });
        task.abort_handle()
    }

    /// Serves a new connection here, or hands it to a thread that has far fewer: the kernel
    /// deals by hash, and long-lived tunnels would otherwise pile up on a few threads.
    fn take(
        self: &Rc<Self>,
        name: &Arc<str>,
        address: SocketAddr,
        stream: TcpStream,
        peer: SocketAddr,
        leaving: &Rc<Cell<bool>>,
    ) {
        let mine = self.loads[self.proxy.thread].connections();
        let least = self.loads.iter().enumerate().min_by_key(|(_, load)| load.connections());
        if let Some((other, load)) = least
            && mine > load.connections() + UNEVEN
            && let Ok(room) = self.others[other].try_reserve()
        {
            if let Ok(stream) = stream.into_std() {
                room.send(Order::Adopt { name: name.clone(), address, stream, peer });
            }
            return;
        }
        self.welcome(name, stream, peer, leaving.clone());
    }

    /// One HTTP/1 connection, until it closes: served, parked while it is idle, served again.
    async fn converse(self: Rc<Self>, mut io: Io, visitor: Rc<Visitor>) {
        loop {
            let (proxy, guest) = (&self.proxy, &visitor);
            // Boxed here, so that hyper moves a pointer and not all that a request may need.
            let handle = |request| Box::pin(proxy.clone().handle(guest.clone(), request));
            // Boxed, so that a parked connection keeps nothing of it.
            let serving = Box::pin(http1::connection(io, &visitor.conn, &visitor.limits, handle));
            match serving.await {
                Served::HalfHead(half) => {
                    // Boxed: most heads come whole.
                    match Box::pin(half.whole(&visitor.conn, &visitor.limits, &self.heads)).await {
                        Ok(whole) => io = whole,
                        Err(served) => return self.ended(&visitor, served),
                    }
                    continue;
                }
                Served::Idle(idle) => io = idle,
                served => return self.ended(&visitor, served),
            }
            if !visitor.conn.parked(&io, &visitor.limits).await {
                return io.close().await;
            }
        }
    }

    /// One HTTP/2 connection, until it closes.
    async fn multiplex(self: Rc<Self>, io: Io, visitor: Rc<Visitor>) {
        let (proxy, guest) = (&self.proxy, &visitor);
        let handle = |request| Box::pin(proxy.clone().handle(guest.clone(), request));
        let trusted = visitor.peer(&proxy.view().snapshot).trusted();
        let max_resets = (!trusted).then_some(visitor.limits.max_resets_per_second);
        let (conn, limits) = (&visitor.conn, &visitor.limits);
        let serving = http2::connection(io, conn, limits, max_resets, &self.heads, handle);
        let served = Box::pin(serving).await;
        self.ended(&visitor, served);
    }

    fn ended(&self, visitor: &Visitor, served: Served) {
        let reason = match served {
            Served::Closed | Served::Idle(_) | Served::HalfHead(_) => return,
            Served::Refused(error) => {
                self.proxy.refused(visitor, &error);
                let large = error.is_parse_too_large();
                if large { Rejection::TooLarge } else { Rejection::BadRequest }
            }
            Served::Silent => Rejection::FirstByteTimeout,
            Served::SlowHead => Rejection::HeaderTimeout,
            Served::NoRoom => Rejection::MaxHeadMemory,
            Served::Flood => Rejection::Flood,
        };
        visitor.series.rejected(self.proxy.thread, reason);
    }

    /// Closes connections to backends that have been idle too long.
    async fn sweep(self: Rc<Self>) {
        loop {
            tokio::time::sleep(SWEEP).await;
            let now = Instant::now();
            self.proxy.posts().iter().for_each(|post| post.sweep(now));
        }
    }

    /// Hands the access log on soon after its first line.
    async fn flush(self: Rc<Self>) {
        loop {
            self.proxy.log_began.notified().await;
            tokio::time::sleep(FLUSH_AFTER).await;
            self.proxy.log.flush();
        }
    }
}
