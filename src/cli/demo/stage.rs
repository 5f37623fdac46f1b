//! The shops on a thread of their own, and the address at which one is started.
//!
//! Start at [`start`]. To fail, heal and crash a shop has addresses of its own; a shop that does
//! not run cannot be asked to, so that is asked here: `POST /start/b2`.

use std::cell::RefCell;
use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, ORIGIN};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::Socket;
use tokio::sync::mpsc;
use tokio::task::{JoinSet, spawn_local};

use super::shop::{self, Shop};
use crate::cli::output::count;

/// Sentences that may wait to be printed; more than that nobody reads.
pub const MAX_SAID: usize = 64;
/// Connections at a time of those who start shops.
const MAX_CONNECTIONS: usize = 16;
/// From accepting one to its request's head.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections that wait for the added shop to accept them.
const BACKLOG: i32 = 1024;

/// Every shop there is, whether it runs or not.
struct Stage {
    seats: RefCell<Vec<Seat>>,
    said: mpsc::Sender<String>,
}

struct Seat {
    name: String,
    address: SocketAddr,
    /// Holds the address before the first start.
    reserved: Option<Socket>,
    runs: bool,
}

/// Runs `shops` from now on, and the spare one when asked; `said` gets a sentence for each thing
/// that happens to one.
pub fn start(
    door: TcpListener,
    shops: Vec<TcpListener>,
    spare: Socket,
    said: mpsc::Sender<String>,
) -> io::Result<()> {
    let work = move || {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default());
        if let Err(error) =
            runtime.and_then(|runtime| runtime.block_on(run(door, shops, spare, said.clone())))
        {
            let _ = said.try_send(format!("the shops cannot run: {error}"));
        }
    };
    std::thread::Builder::new().name("demo-shops".into()).spawn(work).map(drop)
}

async fn run(
    door: TcpListener,
    shops: Vec<TcpListener>,
    spare: Socket,
    said: mpsc::Sender<String>,
) -> io::Result<()> {
    let stage = Rc::new(Stage { seats: RefCell::default(), said });
    for (index, listener) in shops.into_iter().enumerate() {
        let seat = Seat::new(index, listener.local_addr()?);
        stage.seats.borrow_mut().push(seat);
        stage.clone().open(index, listener)?;
    }
    let address = spare.local_addr()?.as_socket().ok_or(io::ErrorKind::AddrNotAvailable)?;
    let index = stage.seats.borrow().len();
    stage.seats.borrow_mut().push(Seat { reserved: Some(spare), ..Seat::new(index, address) });

    door.set_nonblocking(true)?;
    let door = tokio::net::TcpListener::from_std(door)?;
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = connections.join_next() => {}
            accepted = door.accept(), if connections.len() < MAX_CONNECTIONS => {
                let stage = stage.clone();
                let (io, _) = accepted?;
                connections.spawn_local(async move {
                    let service = service_fn(|request: Request<Incoming>| {
                        let answer = stage.clone().answer(&request);
                        async { Ok::<_, Infallible>(answer) }
                    });
                    // Whoever is gone before the answer needs none.
                    let _ = http1::Builder::new()
                        .timer(TokioTimer::new())
                        .header_read_timeout(HEADER_TIMEOUT)
                        .keep_alive(false)
                        .serve_connection(TokioIo::new(io), service)
                        .await;
                });
            }
        }
    }
}

impl Seat {
    fn new(index: usize, address: SocketAddr) -> Self {
        Self { name: format!("b{}", index + 1), address, reserved: None, runs: false }
    }

    /// Where the shop was before, or for the first time.
    fn listen(&mut self) -> io::Result<TcpListener> {
        match self.reserved.take() {
            Some(socket) => socket.listen(BACKLOG).map(|()| socket.into()),
            None => TcpListener::bind(self.address),
        }
    }
}

impl Stage {
    fn open(self: Rc<Self>, index: usize, listener: TcpListener) -> io::Result<()> {
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let name = {
            let seat = &mut self.seats.borrow_mut()[index];
            seat.runs = true;
            seat.name.clone()
        };
        spawn_local(async move {
            let shop = Rc::new(Shop::new(name.as_str()));
            shop::serve(listener, shop.clone()).await;
            self.seats.borrow_mut()[index].runs = false;
            let lost = count(shop.sessions() as u64, "login");
            self.say(format!("{name} crashed, and {lost} with it"));
        });
        Ok(())
    }

    fn say(&self, sentence: String) {
        // A full queue has enough to read.
        let _ = self.said.try_send(sentence);
    }

    fn answer(self: Rc<Self>, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let path = request.uri().path();
        let name = path.strip_prefix("/start/");
        // A page that is open in the visitor's browser has no business here.
        if request.headers().contains_key(ORIGIN) {
            return line(StatusCode::FORBIDDEN, "only by curl");
        }
        match (request.method(), name) {
            (&Method::POST, Some(name)) => {
                let (status, text) = self.start_shop(name);
                line(status, &text)
            }
            (&Method::GET, None) => line(StatusCode::OK, &self.list()),
            _ => line(StatusCode::NOT_FOUND, "POST /start/NAME, or GET / for the names"),
        }
    }

    fn start_shop(self: Rc<Self>, name: &str) -> (StatusCode, String) {
        let found = self.seats.borrow().iter().position(|seat| seat.name == name);
        let Some(index) = found else {
            return (StatusCode::NOT_FOUND, format!("there is no such shop; {}", self.list()));
        };
        if self.seats.borrow()[index].runs {
            return (StatusCode::CONFLICT, format!("{name} runs already"));
        }
        let listener = self.seats.borrow_mut()[index].listen();
        match listener.and_then(|listener| self.clone().open(index, listener)) {
            Ok(()) => {
                let sentence = format!("{name} started at {}", self.seats.borrow()[index].address);
                self.say(sentence.clone());
                (StatusCode::OK, sentence)
            }
            Err(error) => (StatusCode::CONFLICT, format!("{name} cannot be started: {error}")),
        }
    }

    /// `b1 runs, b2 runs, b3 runs, b4 does not run`
    fn list(&self) -> String {
        let seats = self.seats.borrow();
        let each = seats
            .iter()
            .map(|seat| format!("{} {}", seat.name, if seat.runs { "runs" } else { "does not run" }));
        each.collect::<Vec<_>>().join(", ")
    }
}

fn line(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::new(format!("{text}\n").into()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    answer
}
