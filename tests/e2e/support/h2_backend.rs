//! A backend that speaks HTTP/2 without TLS, does as it is told, and counts streams.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};

use super::message::{Fields, Request};
use super::within;

/// A server on a port of its own. It dies with this value.
pub struct H2Backend {
    pub name: String,
    pub address: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

/// What is done with one request.
#[derive(Clone)]
pub enum H2Reply {
    Answer {
        status: u16,
        fields: Vec<(String, String)>,
        body: Vec<u8>,
        trailers: Vec<(String, String)>,
    },
    /// A head, a piece of a body and, when it is released, an end before its end.
    Broken(Vec<u8>, Reason),
    Reset(Reason),
    /// All that the length announces and, when it is released, the end in a frame of its own.
    EndsLater(Vec<u8>),
    /// So many bytes, as fast as they are taken.
    Flood(usize),
    /// Never answers, nor reads what comes.
    Stall,
}

type Script = Arc<dyn Fn(&Request) -> H2Reply + Send + Sync>;

struct Shared {
    name: String,
    state: Mutex<State>,
    changed: watch::Sender<()>,
    goodbyes: watch::Sender<()>,
}

struct State {
    script: Script,
    /// The script runs when the head has come, and the body is not read.
    at_head: bool,
    received: Vec<Request>,
    accepted: usize,
    open: usize,
    /// Streams of one connection at a time, at most.
    most: usize,
    resets: usize,
    written: usize,
    held: bool,
    parked: VecDeque<oneshot::Sender<()>>,
    connections: JoinSet<()>,
}

impl H2Reply {
    pub fn text(body: impl Into<Vec<u8>>) -> Self {
        Self::Answer { status: 200, fields: Vec::new(), body: body.into(), trailers: Vec::new() }
    }

    pub fn status(status: u16) -> Self {
        Self::Answer { status, fields: Vec::new(), body: Vec::new(), trailers: Vec::new() }
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        let Self::Answer { fields, .. } = &mut self else { panic!("a header belongs to an answer") };
        fields.push((name.into(), value.into()));
        self
    }

    pub fn trailer(mut self, name: &str, value: &str) -> Self {
        let Self::Answer { trailers, .. } = &mut self else { panic!("a trailer belongs to an answer") };
        trailers.push((name.into(), value.into()));
        self
    }
}

impl H2Backend {
    pub async fn start(name: &str) -> Self {
        Self::with_streams(name, 100).await
    }

    /// Allows so many streams on one connection.
    pub async fn with_streams(name: &str, streams: u32) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let text = name.to_owned();
        let state = State {
            script: Arc::new(move |_| H2Reply::text(text.clone())),
            at_head: false,
            received: Vec::new(),
            accepted: 0,
            open: 0,
            most: 0,
            resets: 0,
            written: 0,
            held: false,
            parked: VecDeque::new(),
            connections: JoinSet::new(),
        };
        let shared = Arc::new(Shared {
            name: name.to_owned(),
            state: Mutex::new(state),
            changed: watch::Sender::new(()),
            goodbyes: watch::Sender::new(()),
        });
        let accepts = shared.clone();
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let mut state = accepts.state();
                state.accepted += 1;
                state.open += 1;
                let connection = Connection { number: state.accepted, shared: accepts.clone() };
                state.connections.spawn(connection.serve(stream, streams));
                drop(state);
                accepts.changed.send_replace(());
            }
        });
        Self { name: name.to_owned(), address, shared, accepting }
    }

    /// As an element of `backends`.
    pub fn toml(&self) -> String {
        format!("{{ name = {:?}, address = \"{}\" }}", self.name, self.address)
    }

    pub fn answer(&self, script: impl Fn(&Request) -> H2Reply + Send + Sync + 'static) {
        let mut state = self.shared.state();
        (state.script, state.at_head) = (Arc::new(script), false);
    }

    /// The same, as soon as the head has come; the body is never read.
    pub fn answer_early(&self, script: impl Fn(&Request) -> H2Reply + Send + Sync + 'static) {
        let mut state = self.shared.state();
        (state.script, state.at_head) = (Arc::new(script), true);
    }

    pub fn reply(&self, reply: H2Reply) {
        self.answer(move |_| reply.clone());
    }

    /// Parks requests before they are answered, until they are released.
    pub fn hold(&self) {
        self.shared.state().held = true;
    }

    pub fn release(&self) {
        let mut state = self.shared.state();
        state.held = false;
        for parked in state.parked.drain(..) {
            let _ = parked.send(());
        }
    }

    pub fn release_one(&self) {
        if let Some(parked) = self.shared.state().parked.pop_front() {
            let _ = parked.send(());
        }
    }

    /// Says goodbye on every connection, in two steps, and goes on taking new ones.
    pub fn goodbye(&self) {
        self.shared.goodbyes.send_replace(());
    }

    /// Closes every connection without a word, and goes on taking new ones.
    pub async fn drop_connections(&self) {
        self.shared.state().connections.abort_all();
        self.wait("closed connections", |state| state.open == 0).await;
    }

    pub fn requests(&self) -> Vec<Request> {
        self.shared.state().received.clone()
    }

    pub fn count(&self) -> usize {
        self.shared.state().received.len()
    }

    pub fn accepted(&self) -> usize {
        self.shared.state().accepted
    }

    pub fn open(&self) -> usize {
        self.shared.state().open
    }

    pub fn most_streams(&self) -> usize {
        self.shared.state().most
    }

    /// Streams that the other side has reset.
    pub fn resets(&self) -> usize {
        self.shared.state().resets
    }

    /// Bytes of a flood that have been taken.
    pub fn written(&self) -> usize {
        self.shared.state().written
    }

    /// Waits for the heads of `count` requests in all, and returns the last of them.
    pub async fn seen(&self, count: usize) -> Request {
        self.wait("requests", |state| state.received.len() >= count).await;
        self.shared.state().received[count - 1].clone()
    }

    pub async fn parked(&self, count: usize) {
        self.wait("parked requests", |state| {
            state.parked.iter().filter(|parked| !parked.is_closed()).count() >= count
        })
        .await;
    }

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

impl Drop for H2Backend {
    fn drop(&mut self) {
        self.accepting.abort();
        self.shared.state().connections.abort_all();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.changed.send_replace(());
    }
}

struct Connection {
    number: usize,
    shared: Arc<Shared>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.shared.change(|state| state.open -= 1);
    }
}

impl Connection {
    async fn serve(self, stream: TcpStream, streams: u32) {
        stream.set_nodelay(true).unwrap();
        let mut goodbyes = self.shared.goodbyes.subscribe();
        let mut builder = h2::server::Builder::new();
        let Ok(mut connection) = builder.max_concurrent_streams(streams).handshake::<_, Bytes>(stream).await
        else {
            return;
        };
        let mut tasks: JoinSet<()> = JoinSet::new();
        loop {
            tokio::select! {
                accepted = connection.accept() => {
                    let Some(Ok((request, respond))) = accepted else { return };
                    while tasks.try_join_next().is_some() {}
                    let (shared, number) = (self.shared.clone(), self.number);
                    tasks.spawn(serve(shared, number, request, respond));
                    let live = tasks.len();
                    self.shared.change(|state| state.most = state.most.max(live));
                }
                Some(_) = tasks.join_next() => {}
                _ = goodbyes.changed() => connection.graceful_shutdown(),
            }
        }
    }
}

async fn serve(
    shared: Arc<Shared>,
    number: usize,
    request: http::Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
) {
    let (parts, body) = request.into_parts();
    let mut fields = fields(&parts.headers);
    if let Some(authority) = parts.uri.authority() {
        fields.0.push((":authority".into(), authority.to_string()));
    }
    if let Some(scheme) = parts.uri.scheme() {
        fields.0.push((":scheme".into(), scheme.to_string()));
    }
    let record = Request {
        method: parts.method.to_string(),
        target: parts.uri.path_and_query().map(ToString::to_string).unwrap_or_default(),
        fields,
        connection: number,
        ..Request::default()
    };
    let mut place = 0;
    shared.change(|state| {
        state.received.push(record);
        place = state.received.len() - 1;
    });
    let at_head = shared.state().at_head;
    // Kept to the end: a body that is dropped is one that is refused.
    let _unread = if at_head { Some(body) } else { read(&shared, place, body).await };
    let held = shared.state().held;
    if held {
        let (release, released) = oneshot::channel();
        shared.change(|state| state.parked.push_back(release));
        let left = std::future::poll_fn(|cx| respond.poll_reset(cx));
        tokio::select! {
            _ = released => {}
            _ = left => {
                shared.change(|state| state.resets += 1);
                return;
            }
        }
    }
    let (script, request) = {
        let state = shared.state();
        (state.script.clone(), state.received[place].clone())
    };
    answer(&shared, script(&request), respond).await;
}

async fn read(shared: &Shared, place: usize, mut body: RecvStream) -> Option<RecvStream> {
    while let Some(Ok(data)) = body.data().await {
        let _ = body.flow_control().release_capacity(data.len());
        shared.change(|state| state.received[place].body.extend(data));
    }
    let trailers = body.trailers().await;
    shared.change(|state| {
        state.received[place].whole = trailers.is_ok();
        if let Ok(Some(trailers)) = trailers {
            state.received[place].trailers = fields(&trailers);
        }
    });
    None
}

async fn answer(shared: &Shared, reply: H2Reply, mut respond: SendResponse<Bytes>) {
    let mut response = http::Response::builder().header("x-served-by", &shared.name);
    match reply {
        H2Reply::Answer { status, fields, body, trailers } => {
            for (name, value) in &fields {
                response = response.header(name, value);
            }
            let head = response.status(status).body(()).unwrap();
            let bare = body.is_empty() && trailers.is_empty();
            let Ok(mut stream) = respond.send_response(head, bare) else { return };
            if bare {
                return;
            }
            send(shared, &mut stream, body, trailers.is_empty(), false).await;
            if !trailers.is_empty() {
                let named = trailers.iter().map(|(name, value)| {
                    let name: HeaderName = name.parse().unwrap();
                    (name, HeaderValue::from_str(value).unwrap())
                });
                let _ = stream.send_trailers(named.collect());
            }
        }
        H2Reply::Broken(body, reason) => {
            let Ok(mut stream) = respond.send_response(response.body(()).unwrap(), false) else { return };
            send(shared, &mut stream, body, false, false).await;
            let (release, released) = oneshot::channel();
            shared.change(|state| state.parked.push_back(release));
            let _ = released.await;
            stream.send_reset(reason);
        }
        H2Reply::EndsLater(body) => {
            let head = response.header("content-length", body.len()).body(()).unwrap();
            let Ok(mut stream) = respond.send_response(head, false) else { return };
            send(shared, &mut stream, body, false, false).await;
            let (release, released) = oneshot::channel();
            shared.change(|state| state.parked.push_back(release));
            let _ = released.await;
            let _ = stream.send_data(Bytes::new(), true);
        }
        H2Reply::Reset(reason) => respond.send_reset(reason),
        H2Reply::Flood(bytes) => {
            let Ok(mut stream) = respond.send_response(response.body(()).unwrap(), false) else { return };
            send(shared, &mut stream, vec![b'x'; bytes], true, true).await;
        }
        H2Reply::Stall => {
            let _ = std::future::poll_fn(|cx| respond.poll_reset(cx)).await;
            shared.change(|state| state.resets += 1);
        }
    }
}

/// Sends as the other side has room; ends when it is gone.
async fn send(shared: &Shared, stream: &mut SendStream<Bytes>, body: Vec<u8>, ends: bool, counts: bool) {
    let mut body = Bytes::from(body);
    while !body.is_empty() {
        stream.reserve_capacity(body.len().min(16 * 1024));
        let Some(Ok(room)) = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await else {
            shared.change(|state| state.resets += 1);
            return;
        };
        let piece = body.split_to(room.min(body.len()));
        if counts {
            shared.change(|state| state.written += piece.len());
        }
        let last = body.is_empty();
        if stream.send_data(piece, ends && last).is_err() {
            return;
        }
    }
}

fn fields(headers: &HeaderMap) -> Fields {
    let line = |(name, value): (&HeaderName, &HeaderValue)| {
        (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    Fields(headers.iter().map(line).collect())
}
