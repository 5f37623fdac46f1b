//! A backend: this program, started again. It says what it has been asked before it answers.
//!
//! What it says goes line by line to its standard output, in one write each, so that the run knows
//! of a request even when this process is killed in the middle of it: `begun ID METHOD` when a
//! request's head is there, `done ID` when all of a body is. Orders come by standard input.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::process::exit;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt, stream};
use http::header::{CONNECTION, CONTENT_LENGTH, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use http::{Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::pattern;

/// The first argument of a backend; then come its name and its address.
pub const ROLE: &str = "--backend";

/// How a connection begins that is answered by [`bare`].
const BARE: &[u8; 9] = b"GET /bare";

/// How long a short answer takes, so that some are always under way.
const THINKS: Duration = Duration::from_millis(8);
/// How often a download goes on.
const STEP: Duration = Duration::from_millis(20);
/// How long one that leaves answers those who come by old connections.
const LEAVES: Duration = Duration::from_millis(400);
/// How long an address may be taken by what is left of the process before this one.
const BIND_TRIES: usize = 200;

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// What the run may ask for.
enum Order {
    /// Break every HTTP connection off, in the middle of answers too. Not WebSockets.
    Reset,
    /// Close the listener; connections go on.
    Refuse,
    Listen,
    /// Say so when all that it has said is out.
    Sync,
    /// Take nobody new, answer who is there, end.
    Leave,
}

struct Server {
    name: String,
    address: SocketAddr,
    /// Connections end when it changes.
    resets: watch::Sender<u32>,
    leaving: Cell<bool>,
    listener: RefCell<Option<tokio::task::AbortHandle>>,
}

pub fn run(arguments: &[String]) -> ! {
    let [name, address] = arguments else { exit(2) };
    let address = address.parse().expect("an address");
    let (orders, inbox) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in BufReader::new(std::io::stdin()).lines().map_while(Result::ok) {
            let order = match line.as_str() {
                "reset" => Order::Reset,
                "refuse" => Order::Refuse,
                "listen" => Order::Listen,
                "sync" => Order::Sync,
                "leave" => Order::Leave,
                _ => exit(2),
            };
            let _ = orders.send(order);
        }
        exit(0);
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default());
    let server = Server {
        name: name.clone(),
        address,
        resets: watch::Sender::new(0),
        leaving: Cell::new(false),
        listener: RefCell::default(),
    };
    runtime.expect("a runtime").block_on(obey(Rc::new(server), inbox));
    exit(0)
}

/// One line to the run. Written at once: a killed process keeps nothing back.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    if out.write_all(format!("{line}\n").as_bytes()).and_then(|()| out.flush()).is_err() {
        exit(0);
    }
}

async fn obey(server: Rc<Server>, mut inbox: mpsc::UnboundedReceiver<Order>) {
    server.listen().await;
    say("listening");
    while let Some(order) = inbox.recv().await {
        match order {
            Order::Reset => {
                server.resets.send_modify(|count| *count += 1);
                // Their tasks run before this one goes on.
                tokio::time::sleep(STEP).await;
                say("reset");
            }
            Order::Refuse => {
                server.refuse().await;
                say("refuses");
            }
            Order::Listen => {
                server.listen().await;
                say("listening");
            }
            Order::Sync => say("synced"),
            Order::Leave => {
                server.leaving.set(true);
                server.refuse().await;
                tokio::time::sleep(LEAVES).await;
                exit(0);
            }
        }
    }
}

impl Server {
    async fn listen(self: &Rc<Self>) {
        for _ in 0..BIND_TRIES {
            if let Ok(listener) = TcpListener::bind(self.address).await {
                let task = tokio::task::spawn_local(self.clone().accept(listener));
                self.listener.replace(Some(task.abort_handle()));
                return;
            }
            tokio::time::sleep(STEP).await;
        }
        exit(3);
    }

    async fn refuse(&self) {
        // Who is in the kernel's line would be reset with the listener: they are let in first.
        tokio::time::sleep(STEP).await;
        if let Some(task) = self.listener.take() {
            task.abort();
        }
        tokio::task::yield_now().await;
    }

    async fn accept(self: Rc<Self>, listener: TcpListener) {
        while let Ok((stream, _)) = listener.accept().await {
            let _ = stream.set_nodelay(true);
            tokio::task::spawn_local(self.clone().serve(stream));
        }
    }

    async fn serve(self: Rc<Self>, stream: TcpStream) {
        let mut first = [0; BARE.len()];
        if stream.peek(&mut first).await.is_ok_and(|_| first == *BARE) {
            return bare(stream).await;
        }
        let Ok(handle) = stream.as_fd().try_clone_to_owned() else { return };
        let mut resets = self.resets.subscribe();
        let server = self.clone();
        let service = service_fn(move |request| {
            let server = server.clone();
            async move { Ok::<_, Infallible>(server.answer(request).await) }
        });
        let serving = http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades();
        tokio::select! {
            _ = serving => {}
            _ = resets.changed() => reset(&handle),
        }
    }

    async fn answer(self: Rc<Self>, request: Request<Incoming>) -> Response<Body> {
        let id = request.headers().get("x-request-id").and_then(|id| id.to_str().ok()).map(str::to_owned);
        // A probe has none.
        if let Some(id) = &id {
            say(&format!("begun {id} {}", request.method()));
        }
        let id = id.unwrap_or_default();
        let path = request.uri().path().trim_start_matches("/pinned").trim_start_matches("/solo").to_owned();
        let query = request.uri().query().unwrap_or_default().to_owned();
        let mut response = match path.as_str() {
            "/healthz" => text("well".into()),
            "/get" => {
                tokio::time::sleep(THINKS).await;
                text(format!("get {id}"))
            }
            "/take" => take(request, &id).await,
            "/download" => download(&query),
            "/ws" => websocket(request),
            _ => text("nothing here".into()),
        };
        let headers = response.headers_mut();
        headers.insert("x-backend", self.name.parse().expect("a name"));
        if self.leaving.get() && !headers.contains_key(UPGRADE) {
            headers.insert(CONNECTION, "close".parse().expect("a value"));
        }
        response
    }
}

/// Answers one request after another and looks at none of them: for crowds, of which this would
/// otherwise take most of the time.
async fn bare(mut stream: TcpStream) {
    let mut buffer = vec![0; 4096];
    let mut have = 0;
    while let Ok(read @ 1..) = stream.read(&mut buffer[have..]).await {
        have += read;
        if buffer[..have].ends_with(b"\r\n\r\n") {
            have = 0;
            if stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nwell").await.is_err() {
                return;
            }
        }
    }
}

/// The peer gets a reset, not an end, once every handle of the socket is gone.
fn reset(handle: &OwnedFd) {
    let _ = socket2::SockRef::from(handle).set_linger(Some(Duration::ZERO));
}

fn text(text: String) -> Response<Body> {
    Response::new(Full::new(Bytes::from(text)).boxed_unsync())
}

/// Reads a body to its end, and says how long it was and whether it was the right one.
async fn take(request: Request<Incoming>, id: &str) -> Response<Body> {
    let mut body = request.into_body();
    let (mut length, mut fits) = (0, true);
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return text("broken".into()) };
        if let Some(data) = frame.data_ref() {
            fits &= pattern::fits(length, data);
            length += data.len() as u64;
        }
    }
    say(&format!("done {id}"));
    tokio::time::sleep(THINKS).await;
    text(format!("took {id} {length} {}", if fits { "right" } else { "wrong" }))
}

/// So many bytes over so many milliseconds; chunked where the length is not told.
fn download(query: &str) -> Response<Body> {
    let number = |name: &str| {
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.filter(|(key, _)| *key == name).find_map(|(_, value)| value.parse::<u64>().ok()).unwrap_or(0)
    };
    let (bytes, told) = (number("bytes"), number("told") == 1);
    let steps = (number("ms") / STEP.as_millis() as u64).max(1);
    let step = bytes.div_ceil(steps);
    let frames = stream::unfold(0, move |sent| async move {
        if sent >= bytes {
            return None;
        }
        if sent > 0 && sent % step == 0 {
            tokio::time::sleep(STEP).await;
        }
        // A step may be more than one piece of the pattern.
        let piece = pattern::from(sent, (step - sent % step).min(bytes - sent) as usize);
        Some((Ok::<_, Infallible>(Frame::data(Bytes::from_static(piece))), sent + piece.len() as u64))
    });
    let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
    if told {
        response.headers_mut().insert(CONTENT_LENGTH, bytes.into());
    }
    response
}

fn websocket(mut request: Request<Incoming>) -> Response<Body> {
    let Some(key) = request.headers().get(SEC_WEBSOCKET_KEY) else { return text("no WebSocket".into()) };
    let accept = derive_accept_key(key.as_bytes());
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::task::spawn_local(async move {
        let Ok(upgraded) = upgrade.await else { return };
        let mut socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
        while let Some(Ok(message)) = socket.next().await {
            if message.is_text() && socket.send(message).await.is_err() {
                return;
            }
        }
    });
    let mut response = text(String::new());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, "upgrade".parse().expect("a value"));
    headers.insert(UPGRADE, "websocket".parse().expect("a value"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept.parse().expect("base64 is a value"));
    response
}
