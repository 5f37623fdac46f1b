//! A gRPC client that is not ours (tonic's).

use std::net::SocketAddr;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

use super::{LARGE, Note};
use crate::support::within;

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

    pub fn over(channel: Channel) -> Self {
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

fn path(method: &str) -> PathAndQuery {
    format!("/test.Notes/{method}").parse().unwrap()
}

fn codec() -> ProstCodec<Note, Note> {
    ProstCodec::default()
}
