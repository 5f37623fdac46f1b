//! A backend that does as it is told, polite or not, and keeps count.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::message::{Fields, Request};
use super::reply::{Reply, Step};
use super::wire::{self, Framing, Wire};
use super::within;

/// A server on a port of its own. It dies with this value.
pub struct Backend {
    pub name: String,
    pub address: SocketAddr,
    shared: Arc<Shared>,
    /// Bound and never listening: the port stays ours while nobody listens on it.
    _claim: Socket,
    accepting: Option<JoinHandle<()>>,
}

type Script = Arc<dyn Fn(&Request) -> Reply + Send + Sync>;

struct Shared {
    name: String,
    state: Mutex<State>,
    changed: watch::Sender<()>,
}

struct State {
    script: Script,
    /// The script runs when the head has come, not the body.
    at_head: bool,
    close_after_idle: Option<Duration>,
    received: Vec<Request>,
    accepted: usize,
    open: usize,
    held: bool,
    parked: VecDeque<oneshot::Sender<()>>,
    connections: JoinSet<()>,
}

impl Backend {
    /// Answers everything with its own name until it is told otherwise.
    pub async fn start(name: &str) -> Self {
        let mut backend = Self::refusing(name);
        backend.come_back();
        backend
    }

    /// Nobody listens there, until it comes back.
    pub fn refusing(name: &str) -> Self {
        let claim = bind("127.0.0.1:0".parse().expect("an address"));
        let address = claim.local_addr().unwrap().as_socket().expect("an IP address");
        let text = name.to_owned();
        let state = State {
            script: Arc::new(move |_| Reply::text(text.clone())),
            at_head: false,
            close_after_idle: None,
            received: Vec::new(),
            accepted: 0,
            open: 0,
            held: false,
            parked: VecDeque::new(),
            connections: JoinSet::new(),
        };
        let shared =
            Shared { name: name.to_owned(), state: Mutex::new(state), changed: watch::Sender::new(()) };
        Self { name: name.to_owned(), address, shared: Arc::new(shared), _claim: claim, accepting: None }
    }

    /// Several, named in order.
    pub async fn fleet<const N: usize>(names: [&str; N]) -> [Self; N] {
        let mut fleet = Vec::new();
        for name in names {
            fleet.push(Self::start(name).await);
        }
        fleet.try_into().unwrap_or_else(|_| unreachable!("as many as names"))
    }

    /// As an element of `backends`, with further keys such as `weight = 2`.
    pub fn toml(&self, keys: &str) -> String {
        let comma = if keys.is_empty() { "" } else { ", " };
        format!("{{ name = {:?}, address = \"{}\"{comma}{keys} }}", self.name, self.address)
    }

    // What it does

    /// From now on every request is answered like this.
    pub fn answer(&self, script: impl Fn(&Request) -> Reply + Send + Sync + 'static) {
        let mut state = self.shared.state();
        (state.script, state.at_head) = (Arc::new(script), false);
    }

    /// The same, as soon as the head has come; the body is read afterwards.
    pub fn answer_early(&self, script: impl Fn(&Request) -> Reply + Send + Sync + 'static) {
        let mut state = self.shared.state();
        (state.script, state.at_head) = (Arc::new(script), true);
    }

    pub fn reply(&self, reply: Reply) {
        self.answer(move |_| reply.clone());
    }

    /// Parks requests before they are answered, until they are released.
    pub fn hold(&self) {
        self.shared.state().held = true;
    }

    /// Lets go of everything that is parked, and holds no longer.
    pub fn release(&self) {
        let mut state = self.shared.state();
        state.held = false;
        for parked in state.parked.drain(..) {
            let _ = parked.send(());
        }
    }

    /// Lets go of the one that has waited longest.
    pub fn release_one(&self) {
        while let Some(parked) = self.shared.state().parked.pop_front() {
            if parked.send(()).is_ok() {
                return;
            }
        }
    }

    /// Closes connections that have waited so long for another request after their last.
    pub fn close_after_idle(&self, idle: Duration) {
        self.shared.state().close_after_idle = Some(idle);
    }

    /// Nobody listens any more; connections that are open go on.
    pub async fn refuse(&mut self) {
        if let Some(accepting) = self.accepting.take() {
            accepting.abort();
            // The listener is closed once its task has been dropped.
            let _ = accepting.await;
        }
    }

    /// Nobody listens any more, and every connection is closed.
    pub async fn die(&mut self) {
        self.refuse().await;
        self.shared.state().connections.abort_all();
        self.deserted().await;
    }

    /// Listens again, on the same port.
    pub fn come_back(&mut self) {
        let socket = bind(self.address);
        socket.listen(128).unwrap();
        let listener = TcpListener::from_std(socket.into()).unwrap();
        let shared = self.shared.clone();
        self.accepting = Some(tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let mut state = shared.state();
                state.accepted += 1;
                state.open += 1;
                let connection = Connection { number: state.accepted, shared: shared.clone() };
                state.connections.spawn(connection.serve(Wire::new(stream)));
                drop(state);
                shared.changed.send_replace(());
            }
        }));
    }

    // What it saw

    /// Requests whose heads have come.
    pub fn requests(&self) -> Vec<Request> {
        self.shared.state().received.clone()
    }

    pub fn count(&self) -> usize {
        self.shared.state().received.len()
    }

    /// Connections accepted so far.
    pub fn accepted(&self) -> usize {
        self.shared.state().accepted
    }

    /// Connections that are open.
    pub fn open(&self) -> usize {
        self.shared.state().open
    }

    /// Waits for the heads of `count` requests in all, and returns the last of them.
    pub async fn seen(&self, count: usize) -> Request {
        self.wait("requests", |state| state.received.len() >= count).await;
        self.shared.state().received[count - 1].clone()
    }

    /// Waits until `count` requests have come whole, and returns the last of them.
    pub async fn received(&self, count: usize) -> Request {
        let whole = |state: &State| state.received.iter().filter(|request| request.whole).count();
        self.wait("whole requests", |state| whole(state) >= count).await;
        self.shared.state().received[count - 1].clone()
    }

    /// Waits until `count` requests are parked.
    pub async fn parked(&self, count: usize) {
        self.wait("parked requests", |state| {
            state.parked.iter().filter(|parked| !parked.is_closed()).count() >= count
        })
        .await;
    }

    /// Waits until every connection is closed.
    pub async fn deserted(&self) {
        self.wait("closed connections", |state| state.open == 0).await;
    }

    async fn wait(&self, what: &str, holds: impl Fn(&State) -> bool) {
        let mut changed = self.shared.changed.subscribe();
        within(&format!("{what} at {}", self.name), async {
            while !holds(&self.shared.state()) {
                changed.changed().await.expect("the sender is shared");
            }
        })
        .await;
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        if let Some(accepting) = self.accepting.take() {
            accepting.abort();
        }
        self.shared.state().connections.abort_all();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

/// One accepted connection.
struct Connection {
    number: usize,
    shared: Arc<Shared>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.shared.state().open -= 1;
        self.shared.changed.send_replace(());
    }
}

impl Connection {
    async fn serve(self, mut wire: Wire) {
        let mut idle = None;
        while let Some(place) = self.read_head(&mut wire, idle).await {
            let (script, at_head) = {
                let state = self.shared.state();
                (state.script.clone(), state.at_head)
            };
            if !at_head && !self.read_body(&mut wire, place).await {
                return;
            }
            let held = self.shared.state().held;
            if held && !self.park(&mut wire).await {
                return;
            }
            let request = self.shared.state().received[place].clone();
            for step in script(&request).0 {
                match self.act(step, wire, &request).await {
                    Some(open) => wire = open,
                    None => return,
                }
            }
            if at_head && !self.read_body(&mut wire, place).await {
                return;
            }
            idle = self.shared.state().close_after_idle;
        }
    }

    /// The place of the next request among those received.
    async fn read_head(&self, wire: &mut Wire, idle: Option<Duration>) -> Option<usize> {
        let head = match idle {
            Some(idle) => tokio::time::timeout(idle, wire.head()).await.ok()??,
            None => wire.head().await?,
        };
        let mut state = self.shared.state();
        state.received.push(Request { connection: self.number, ..Request::parse(head) });
        let place = state.received.len() - 1;
        drop(state);
        self.shared.changed.send_replace(());
        Some(place)
    }

    async fn read_body(&self, wire: &mut Wire, place: usize) -> bool {
        let framing = Framing::of_request(&self.shared.state().received[place].fields);
        let mut trailers = Fields::default();
        let take = |part: Vec<u8>| {
            self.shared.state().received[place].body.extend(part);
            self.shared.changed.send_replace(());
        };
        let whole = wire.body(framing, &mut trailers, take).await;
        let mut state = self.shared.state();
        let request = &mut state.received[place];
        (request.whole, request.trailers) = (whole, trailers);
        drop(state);
        self.shared.changed.send_replace(());
        whole
    }

    /// Waits to be released; `false` when the other side has left meanwhile.
    async fn park(&self, wire: &mut Wire) -> bool {
        let (release, released) = oneshot::channel();
        self.shared.state().parked.push_back(release);
        self.shared.changed.send_replace(());
        let stays = async { while wire.more().await {} };
        tokio::select! {
            _ = released => true,
            () = stays => false,
        }
    }

    /// One step of a script; `None` when the connection is over.
    async fn act(&self, step: Step, mut wire: Wire, request: &Request) -> Option<Wire> {
        match step {
            Step::Answer { status, fields, body } => {
                let mut head = format!("HTTP/1.1 {status} Scripted\r\nX-Served-By: {}\r\n", self.shared.name);
                for (name, value) in fields {
                    head += &format!("{name}: {value}\r\n");
                }
                head += &format!("Content-Length: {}\r\n\r\n", body.len());
                let body = if request.method == "HEAD" { Vec::new() } else { body };
                wire.try_send([head.into_bytes(), body].concat()).await.ok()?;
            }
            Step::Send(bytes) => wire.stream.write_all(&bytes).await.ok()?,
            Step::Park if self.park(&mut wire).await => {}
            Step::Stall => {
                while wire.more().await {}
                return None;
            }
            Step::Park | Step::Close => return None,
            Step::Reset => {
                wire::reset(wire.stream);
                return None;
            }
            Step::EchoBytes => {
                loop {
                    let bytes = std::mem::take(&mut wire.buffer);
                    wire.stream.write_all(&bytes).await.ok()?;
                    if !wire.more().await {
                        break;
                    }
                }
                // The end is answered with an end, like everything else.
                let _ = wire.stream.shutdown().await;
                let _ = wire.stream.read(&mut [0]).await;
                return None;
            }
            Step::WebSocket => {
                self.echo_messages(wire, request).await;
                return None;
            }
        }
        Some(wire)
    }

    async fn echo_messages(&self, mut wire: Wire, request: &Request) {
        let accept = derive_accept_key(request.header("sec-websocket-key").unwrap_or_default().as_bytes());
        let head = format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: {accept}\r\nX-Served-By: {}\r\n\r\n",
            self.shared.name
        );
        wire.send(head).await;
        let mut socket =
            WebSocketStream::from_partially_read(wire.stream, wire.buffer, Role::Server, None).await;
        while let Some(Ok(message)) = socket.next().await {
            if let Ok(text) = message.to_text()
                && message.is_text()
                && socket.send(format!("{}: {text}", self.shared.name).into()).await.is_err()
            {
                return;
            }
        }
    }
}

/// A socket of its own on a port that several may share, so that a port can be claimed for life.
fn bind(address: SocketAddr) -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.set_reuse_port(true).unwrap();
    socket.set_nonblocking(true).unwrap();
    socket.bind(&address.into()).unwrap();
    socket
}
