//! One HTTP/2 connection: how it is opened, what it carries, and when it can carry no more.
//!
//! Start at [`Connection::open`]. hyper's client is two tasks, one that reads and writes and one
//! that takes requests; both are spawned here, and the first is watched: after each of its turns
//! the backend's limit of streams is looked up, and its end is the end of the connection. A
//! [`Stream`] is the right to one stream, given back on drop.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::time::{Duration, Instant};

use hyper::client::conn::http2::{self, SendRequest};
use hyper::rt::Executor;
use hyper_util::rt::TokioTimer;
use tokio::sync::Notify;

use super::choice::{STREAMS, Seen};
use super::part::Part;
use crate::listen::io::Io;

/// Of one stream this much may wait here for its client.
const STREAM_WINDOW: u32 = 64 * 1024;

/// Clients that do not read hold up no other stream: there is room for what all of them hold.
const CONNECTION_WINDOW: u32 = STREAMS as u32 * STREAM_WINDOW;

/// Of one stream this much may wait here for its backend.
const MAX_SEND_BUFFER: usize = 64 * 1024;

/// As much as hyper's HTTP/1 client takes.
const MAX_HEADER_LIST: u32 = 64 * 1024;

/// While a connection carries streams and nothing has come for `every`, its backend is asked
/// whether it is there; it has `timeout` to answer.
#[derive(Clone, Copy, Debug)]
pub struct Ping {
    pub every: Duration,
    pub timeout: Duration,
}

impl Default for Ping {
    fn default() -> Self {
        Self { every: Duration::from_secs(10), timeout: Duration::from_secs(5) }
    }
}

pub struct Connection {
    pub id: u64,
    pub born: Instant,
    sender: SendRequest<Part>,
    state: Rc<State>,
    streams: Cell<usize>,
    last: Cell<Instant>,
    leaving: Cell<bool>,
    /// Rung when a stream can be had.
    bell: Rc<Notify>,
}

/// What the watched task knows.
#[derive(Default)]
struct State {
    /// None before the backend's first SETTINGS.
    limit: Cell<usize>,
    gone: Cell<bool>,
    watched: Cell<bool>,
    changed: Notify,
    task: RefCell<Option<Task>>,
}

type Task = http2::Connection<Io, Part, Watch>;

impl Connection {
    /// Speaks first, and waits for the backend's SETTINGS: what does not send them is not asked.
    pub async fn open(io: Io, id: u64, ping: Ping, bell: Rc<Notify>) -> Result<Rc<Self>, hyper::Error> {
        let born = Instant::now();
        let state = Rc::new(State::default());
        let (mut sender, task) = http2::Builder::new(Watch(state.clone()))
            .timer(TokioTimer::new())
            // No stream before the first SETTINGS: what shows that they have come.
            .initial_max_send_streams(0)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buf_size(MAX_SEND_BUFFER)
            .max_header_list_size(MAX_HEADER_LIST)
            .keep_alive_interval(ping.every)
            .keep_alive_timeout(ping.timeout)
            .handshake(io)
            .await?;
        *state.task.borrow_mut() = Some(task);
        let drive = Drive(state.clone());
        // Ends when either side closes it, or when its sender is dropped.
        tokio::task::spawn_local(async move { drive.run().await });
        while state.limit.get() == 0 {
            if state.gone.get() || sender.is_closed() {
                sender.ready().await?;
            }
            state.changed.notified().await;
        }
        Ok(Rc::new(Self {
            id,
            born,
            sender,
            state,
            streams: Cell::new(0),
            last: Cell::new(Instant::now()),
            leaving: Cell::new(false),
            bell,
        }))
    }

    pub fn sender(&self) -> SendRequest<Part> {
        self.sender.clone()
    }

    pub fn seen(&self, now: Instant) -> Seen {
        let streams = self.streams.get();
        let quiet = if streams > 0 { Duration::ZERO } else { now.saturating_duration_since(self.last.get()) };
        Seen { id: self.id, streams, limit: self.state.limit.get(), quiet }
    }

    /// Whether it takes no further stream, ever.
    pub fn is_over(&self) -> bool {
        self.leaving.get() || self.state.gone.get() || self.sender.is_closed()
    }

    pub fn is_left(&self) -> bool {
        self.leaving.get()
    }

    pub fn is_idle(&self) -> bool {
        self.streams.get() == 0
    }

    /// It finishes what it carries, and ends.
    pub fn leave(&self) {
        self.leaving.set(true);
    }

    /// Takes a stream. The caller has looked whether there is one.
    pub fn enter(self: &Rc<Self>) -> Rc<Stream> {
        self.streams.set(self.streams.get() + 1);
        Rc::new(Stream(self.clone()))
    }
}

/// The right to one stream of a connection.
pub struct Stream(pub Rc<Connection>);

impl Drop for Stream {
    fn drop(&mut self) {
        let connection = &self.0;
        connection.streams.set(connection.streams.get() - 1);
        connection.last.set(Instant::now());
        connection.bell.notify_one();
    }
}

/// hyper's task that takes requests. It is kept in the state to be asked for the limit.
struct Drive(Rc<State>);

impl Drive {
    async fn run(&self) {
        let end = poll_fn(|cx| {
            let mut task = self.0.task.borrow_mut();
            task.as_mut().map_or(std::task::Poll::Ready(Ok(())), |task| Pin::new(task).poll(cx))
        });
        if let Err(error) = end.await {
            tracing::debug!(%error, "a connection to a backend ended");
        }
    }
}

impl Drop for Drive {
    fn drop(&mut self) {
        // The task holds the state, and the state the task.
        let task = self.0.task.take();
        drop(task);
        self.0.end();
    }
}

impl State {
    fn look(&self) {
        let limit =
            self.task.try_borrow().ok().and_then(|task| Some(task.as_ref()?.current_max_send_streams()));
        if let Some(limit) = limit
            && self.limit.replace(limit) != limit
        {
            self.changed.notify_one();
        }
    }

    fn end(&self) {
        self.gone.set(true);
        self.changed.notify_one();
    }
}

/// Spawns what hyper needs, and watches the first: the one that reads and writes.
#[derive(Clone)]
struct Watch(Rc<State>);

impl<F: Future<Output = ()> + 'static> Executor<F> for Watch {
    fn execute(&self, future: F) {
        if self.0.watched.replace(true) {
            tokio::task::spawn_local(future);
            return;
        }
        let state = self.0.clone();
        tokio::task::spawn_local(async move {
            let mut future = pin!(future);
            poll_fn(|cx| {
                let poll = future.as_mut().poll(cx);
                state.look();
                poll
            })
            .await;
            state.end();
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listen::Descriptors;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    /// A backend that says hello, and then reads without ever saying another word.
    async fn silent() -> std::net::SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::task::spawn_local(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
            let mut bytes = [0; 1024];
            while stream.read(&mut bytes).await.is_ok_and(|bytes| bytes > 0) {}
        });
        address
    }

    #[tokio::test]
    async fn a_peer_that_is_there_no_longer_is_noticed_while_a_request_waits_for_it() {
        let local = tokio::task::LocalSet::new();
        local
            .run_until(async {
                let stream = TcpStream::connect(silent().await).await.unwrap();
                let ping = Ping { every: Duration::from_millis(50), timeout: Duration::from_millis(50) };
                let io = Io::new(stream, Descriptors::new(1).take());
                let bell = Rc::new(Notify::new());
                let connection = Connection::open(io, 1, ping, bell).await.unwrap();
                assert_eq!(connection.seen(Instant::now()).limit, usize::MAX, "it named none");
                let stream = connection.enter();
                let body = Rc::new(RefCell::new(crate::http::replay::Replay::new(
                    crate::http::upload::Upload::Empty,
                )));
                let request = hyper::Request::get("http://a/").body(Part::new(&body, &stream)).unwrap();
                let answer = connection.sender().try_send_request(request);
                let answer = tokio::time::timeout(Duration::from_secs(10), answer).await;
                assert!(answer.expect("noticed in time").is_err());
                assert!(connection.is_over());
            })
            .await;
    }
}
