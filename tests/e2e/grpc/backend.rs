//! A gRPC server that is not ours (tonic's), with one method for each way in which a call can go,
//! and the health service. It runs on a thread of its own, so that it can die like a process.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::thread::JoinHandle;

use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_stream::Stream;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::server::{Grpc, NamedService, StreamingService};
use tonic::transport::Server;
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_health::server::{HealthReporter, health_reporter};
use tonic_prost::ProstCodec;

use super::Note;
use crate::support::within;

/// A server on a port of its own. It dies with this value, or when it is killed.
pub struct GrpcBackend {
    pub name: String,
    pub address: SocketAddr,
    pub health: HealthReporter,
    shared: Arc<Shared>,
    /// Dropped, it dies.
    life: Mutex<Option<(oneshot::Sender<()>, JoinHandle<()>)>>,
}

struct Shared {
    name: String,
    seen: watch::Sender<Seen>,
}

/// What has come so far.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// The metadata of each call.
    pub calls: Vec<MetadataMap>,
    /// Calls that are under way.
    pub open: usize,
    /// The texts of messages.
    pub heard: Vec<String>,
}

type Notes = Pin<Box<dyn Stream<Item = Result<Note, Status>> + Send>>;

impl GrpcBackend {
    pub async fn start(name: &str) -> Self {
        let shared = Arc::new(Shared { name: name.into(), seen: watch::Sender::default() });
        let (health, checks) = health_reporter();
        let service = Switch { shared: shared.clone(), health: checks };
        let (tell, told) = oneshot::channel();
        let (life, end) = oneshot::channel::<()>();
        let serve = async move {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            tell.send(listener.local_addr().unwrap()).unwrap();
            let incoming = TcpListenerStream::new(listener);
            tokio::select! {
                served = Server::builder().serve_with_incoming(service, incoming) => served.unwrap(),
                _ = end => {}
            }
        };
        // With the runtime go its tasks, and with them all connections.
        let thread = std::thread::spawn(|| {
            Builder::new_current_thread().enable_all().build().unwrap().block_on(serve)
        });
        let address = within("a port", told).await.unwrap();
        Self { name: name.into(), address, health, shared, life: Mutex::new(Some((life, thread))) }
    }

    /// As an element of `backends`.
    pub fn toml(&self) -> String {
        format!("{{ name = {:?}, address = \"{}\" }}", self.name, self.address)
    }

    pub fn seen(&self) -> Seen {
        self.shared.seen.borrow().clone()
    }

    /// Waits until this holds of what has come.
    pub async fn until(&self, what: &str, holds: impl FnMut(&Seen) -> bool) {
        let mut seen = self.shared.seen.subscribe();
        within(&format!("{what} at {}", self.name), seen.wait_for(holds)).await.expect("it is shared");
    }

    /// Its connections and its port are gone at once.
    pub fn kill(&self) {
        if let Some((life, thread)) = self.life.lock().unwrap().take() {
            drop(life);
            thread.join().unwrap();
        }
    }
}

impl Drop for GrpcBackend {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The test's methods and the health service, by their paths.
#[derive(Clone)]
struct Switch<H> {
    shared: Arc<Shared>,
    health: H,
}

impl<H> Service<http::Request<Body>> for Switch<H>
where
    H: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible> + NamedService,
    H::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.health.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let path = request.uri().path().to_owned();
        let Some(method) = path.strip_prefix("/test.Notes/") else {
            return Box::pin(self.health.call(request));
        };
        let method = Method { name: method.to_owned(), shared: self.shared.clone() };
        Box::pin(async move { Ok(Grpc::new(codec()).streaming(method, request).await) })
    }
}

fn codec() -> ProstCodec<Note, Note> {
    ProstCodec::default()
}

/// Every kind of call is a stream in both directions here: on the wire they are the same.
struct Method {
    name: String,
    shared: Arc<Shared>,
}

impl StreamingService<Note> for Method {
    type Response = Note;
    type ResponseStream = Notes;
    type Future = BoxFuture<Response<Notes>, Status>;

    fn call(&mut self, request: Request<Streaming<Note>>) -> Self::Future {
        let (name, shared) = (self.name.clone(), self.shared.clone());
        shared.change(|seen| seen.calls.push(request.metadata().clone()));
        let open = Open::new(&shared);
        Box::pin(async move {
            let incoming = request.into_inner();
            match name.as_str() {
                // Its head goes out before a message has come.
                "Echo" => Ok(answer(open, |tx| echo(shared, incoming, tx))),
                "Count" => Ok(answer(open, |tx| count(incoming, tx))),
                "Sum" => Ok(answer(open, |tx| sum(shared, incoming, tx))),
                "FailLate" => Ok(answer(open, |tx| fail_late(shared, tx))),
                "Fail" => Err(failure()),
                "Stall" => {
                    let _open = open;
                    std::future::pending().await
                }
                _ => Err(Status::unimplemented(name)),
            }
        })
    }
}

/// Answers with what is sent into a channel, until its sender is dropped.
fn answer<F: Future<Output = ()> + Send + 'static>(
    open: Open,
    work: impl FnOnce(mpsc::Sender<Result<Note, Status>>) -> F,
) -> Response<Notes> {
    let (tx, rx) = mpsc::channel(1);
    let (work, gone) = (work(tx.clone()), tx);
    tokio::spawn(async move {
        let _open = open;
        tokio::select! {
            () = work => {}
            () = gone.closed() => {}
        }
    });
    Response::new(Box::pin(ReceiverStream::new(rx)))
}

/// Every message comes back at once; after the last come trailers of its own.
async fn echo(shared: Arc<Shared>, mut incoming: Streaming<Note>, tx: mpsc::Sender<Result<Note, Status>>) {
    while let Ok(Some(note)) = incoming.message().await {
        shared.change(|seen| seen.heard.push(note.text.clone()));
        let _ = tx.send(Ok(Note { from: shared.name.clone(), ..note })).await;
    }
    let mut metadata = MetadataMap::new();
    metadata.insert("x-served-by", shared.name.parse().unwrap());
    metadata.insert_bin("x-raw-bin", MetadataValue::from_bytes(&[0, 255, b'\n']));
    let _ = tx.send(Err(Status::with_metadata(Code::Ok, "", metadata))).await;
}

/// As many messages as the first one has letters.
async fn count(mut incoming: Streaming<Note>, tx: mpsc::Sender<Result<Note, Status>>) {
    let letters = incoming.message().await.ok().flatten().map_or(0, |note| note.text.len());
    for number in 0..letters {
        let _ = tx.send(Ok(Note { text: number.to_string(), ..Note::default() })).await;
    }
}

/// One message, when the client has sent all of its own.
async fn sum(shared: Arc<Shared>, mut incoming: Streaming<Note>, tx: mpsc::Sender<Result<Note, Status>>) {
    let mut all = String::new();
    while let Ok(Some(note)) = incoming.message().await {
        shared.change(|seen| seen.heard.push(note.text.clone()));
        all += &note.text;
    }
    let _ = tx.send(Ok(Note { text: all, ..Note::default() })).await;
}

async fn fail_late(shared: Arc<Shared>, tx: mpsc::Sender<Result<Note, Status>>) {
    let _ = tx.send(Ok(Note { from: shared.name.clone(), ..Note::default() })).await;
    let _ = tx.send(Err(failure())).await;
}

/// A status with all that it can have.
pub fn failure() -> Status {
    let mut metadata = MetadataMap::new();
    metadata.insert("x-why", "because".parse().unwrap());
    metadata.insert_bin("x-why-bin", MetadataValue::from_bytes(&[1, 0, 200]));
    let details = vec![0, 1, 255].into();
    Status::with_details_and_metadata(Code::FailedPrecondition, "50 % of it: ö", details, metadata)
}

/// A call while it is under way.
struct Open(Arc<Shared>);

impl Open {
    fn new(shared: &Arc<Shared>) -> Self {
        shared.change(|seen| seen.open += 1);
        Self(shared.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.change(|seen| seen.open -= 1);
    }
}

impl Shared {
    fn change(&self, change: impl FnOnce(&mut Seen)) {
        self.seen.send_modify(change);
    }
}
