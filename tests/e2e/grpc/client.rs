//! A gRPC client that is not ours (tonic's).

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::client::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::client::Grpc;
use tonic::codegen::http::Uri;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::codegen::{Future, Service};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

use super::{LARGE, Note};
use crate::support::{TlsClient, within};

/// One connection, and any number of calls on it.
#[derive(Clone)]
pub struct GrpcClient(Grpc<Channel>);

/// The client's end of a stream in both directions.
pub struct Talk {
    /// Dropped, the client has sent all.
    pub say: Option<mpsc::Sender<Note>>,
    pub hear: Streaming<Note>,
}

impl GrpcClient {
    pub async fn new(address: SocketAddr) -> Self {
        let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
        Self::over(within("a connection", endpoint.connect()).await.unwrap())
    }

    /// By TLS; the address is the client's.
    pub async fn by_tls(client: TlsClient, name: &'static str) -> Self {
        let endpoint =
            Endpoint::from_static("http://unused").origin(format!("https://{name}").parse().unwrap());
        let channel = endpoint.connect_with_connector(Tls { client, name });
        Self::over(within("a connection", channel).await.unwrap())
    }

    fn over(channel: Channel) -> Self {
        Self(Grpc::new(channel).max_decoding_message_size(2 * LARGE))
    }

    pub async fn unary(&self, method: &str, request: Request<Note>) -> Result<Response<Note>, Status> {
        let mut grpc = self.ready().await;
        within(method, grpc.unary(request, path(method), codec())).await
    }

    pub async fn say(&self, method: &str, text: &str) -> Result<Response<Note>, Status> {
        self.unary(method, Request::new(Note::text(text))).await
    }

    pub async fn server_streaming(&self, method: &str, text: &str) -> Result<Streaming<Note>, Status> {
        let mut grpc = self.ready().await;
        let request = Request::new(Note::text(text));
        let answer = within(method, grpc.server_streaming(request, path(method), codec())).await;
        answer.map(Response::into_inner)
    }

    /// Calls a method that answers once with a message for each time its sender is used.
    pub async fn client_streaming(&self, method: &str, notes: mpsc::Receiver<Note>) -> Result<Note, Status> {
        let mut grpc = self.ready().await;
        let request = Request::new(ReceiverStream::new(notes));
        let answer = within(method, grpc.client_streaming(request, path(method), codec())).await;
        answer.map(Response::into_inner)
    }

    pub async fn talk(&self, method: &str) -> Result<Talk, Status> {
        self.talk_with(method, |request| request).await
    }

    /// Opens a stream, once `dress` has seen its request.
    pub async fn talk_with(
        &self,
        method: &str,
        dress: impl FnOnce(Request<ReceiverStream<Note>>) -> Request<ReceiverStream<Note>>,
    ) -> Result<Talk, Status> {
        let mut grpc = self.ready().await;
        let (say, notes) = mpsc::channel(1);
        let request = dress(Request::new(ReceiverStream::new(notes)));
        let answer = within(method, grpc.streaming(request, path(method), codec())).await?;
        Ok(Talk { say: Some(say), hear: answer.into_inner() })
    }

    async fn ready(&self) -> Grpc<Channel> {
        let mut grpc = self.0.clone();
        within("the connection", grpc.ready()).await.unwrap();
        grpc
    }
}

impl Talk {
    pub async fn say(&self, text: &str) {
        let say = self.say.as_ref().expect("not all is said");
        within("room for a message", say.send(Note::text(text))).await.expect("the call is open");
    }

    pub async fn hear(&mut self) -> Result<Option<Note>, Status> {
        within("a message", self.hear.message()).await
    }

    /// Says something and hears it come back.
    pub async fn exchange(&mut self, text: &str) -> Note {
        self.say(text).await;
        let note = self.hear().await.unwrap().expect("the call goes on");
        assert_eq!(note.text, text);
        note
    }
}

struct Tls {
    client: TlsClient,
    name: &'static str,
}

impl Service<Uri> for Tls {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let (client, name) = (self.client.clone(), self.name);
        Box::pin(async move { Ok(TokioIo::new(client.try_open(name).await?.stream)) })
    }
}

fn path(method: &str) -> PathAndQuery {
    format!("/test.Notes/{method}").parse().unwrap()
}

fn codec() -> ProstCodec<Note, Note> {
    ProstCodec::default()
}
