//! A user who sends and fetches files of any size without ever holding one in memory.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use aws_lc_rs::digest::{Context, Digest, SHA256};
use axum::body::{Body, Bytes};
use axum::http::header::{CONTENT_LENGTH, HOST};
use axum::http::{Request, Response};
use futures_util::stream;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::harness::Outcome;

/// Longer than the largest file of a run takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);
const CHUNK: u64 = 64 * 1024;

/// What all files are cut from.
static CLOTH: LazyLock<Bytes> = LazyLock::new(|| {
    let mut cloth = vec![0; 16 * CHUNK as usize];
    fastrand::Rng::with_seed(1).fill(&mut cloth);
    cloth.into()
});

/// A file that is made while it is sent: another seed is another file.
#[derive(Clone, Copy, Debug)]
pub struct Content {
    pub seed: u64,
    pub bytes: u64,
}

impl Content {
    fn chunks(self) -> impl Iterator<Item = Bytes> {
        let mut chance = fastrand::Rng::with_seed(self.seed);
        let mut left = self.bytes;
        std::iter::from_fn(move || {
            let (length, from) = (left.min(CHUNK), chance.usize(..CLOTH.len() - CHUNK as usize));
            left -= length;
            (length > 0).then(|| CLOTH.slice(from..from + length as usize))
        })
    }

    /// SHA-256 of the file.
    pub fn checksum(self) -> Vec<u8> {
        let mut context = Context::new(&SHA256);
        self.chunks().for_each(|chunk| context.update(&chunk));
        context.finish().as_ref().to_vec()
    }
}

/// How an upload says how long it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// In advance.
    Length,
    /// By ending.
    Chunked,
}

/// What became of an upload.
#[derive(Debug)]
pub struct Sent {
    pub status: u16,
    pub replica: String,
    /// What had been handed to the connection when the answer came.
    pub bytes: u64,
}

/// What came of a download.
#[derive(Debug)]
pub struct Got {
    pub status: u16,
    pub replica: String,
    pub bytes: u64,
    pub checksum: Vec<u8>,
}

/// Somebody with files, at the balancer.
#[derive(Clone, Debug)]
pub struct User {
    pub name: String,
    pub at: SocketAddr,
}

impl User {
    pub async fn upload(&self, name: &str, content: Content, framing: Framing) -> Outcome<Sent> {
        let sent = Arc::new(AtomicU64::new(0));
        // Between two chunks the connection looks whether an answer has come: whoever sends on
        // after a 413 may lose it to the reset that follows.
        let chunks = stream::unfold((content.chunks(), sent.clone()), async |(mut chunks, sent)| {
            tokio::task::yield_now().await;
            let chunk = chunks.next()?;
            sent.fetch_add(chunk.len() as u64, Ordering::Relaxed);
            Some((std::io::Result::Ok(chunk), (chunks, sent)))
        });
        let body = Body::from_stream(chunks);
        let mut request = Request::put(format!("/files/{name}"));
        if framing == Framing::Length {
            request = request.header(CONTENT_LENGTH, content.bytes);
        }
        let response = tokio::time::timeout(LIMIT, self.send(request, body)).await??;
        let bytes = sent.load(Ordering::Relaxed);
        Ok(Sent { status: response.status().as_u16(), replica: replica(&response), bytes })
    }

    pub async fn download(&self, name: &str) -> Outcome<Got> {
        let fetch = async {
            let response = self.send(Request::get(format!("/files/{name}")), Body::empty()).await?;
            let (status, replica) = (response.status().as_u16(), replica(&response));
            let (bytes, checksum) = digest(response.into_body()).await?;
            Ok(Got { status, replica, bytes, checksum: checksum.as_ref().to_vec() })
        };
        tokio::time::timeout(LIMIT, fetch).await?
    }

    /// The names of this user's files.
    pub async fn list(&self) -> Outcome<Vec<String>> {
        let response = self.send(Request::get("/files"), Body::empty()).await?;
        Ok(serde_json::from_slice(&response.into_body().collect().await?.to_bytes())?)
    }

    async fn send(&self, request: axum::http::request::Builder, body: Body) -> Outcome<Response<Incoming>> {
        let stream = TcpStream::connect(self.at).await?;
        stream.set_nodelay(true)?;
        let (mut sender, connection) = handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let request = request.header(HOST, "files.example").header("x-user", &self.name).body(body)?;
        Ok(sender.send_request(request).await?)
    }
}

fn replica(response: &Response<Incoming>) -> String {
    let name = response.headers().get("x-replica").and_then(|name| name.to_str().ok());
    name.unwrap_or_default().to_owned()
}

/// Length and SHA-256 of a body, as it comes.
async fn digest(mut body: Incoming) -> Outcome<(u64, Digest)> {
    let (mut bytes, mut context) = (0, Context::new(&SHA256));
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            bytes += data.len() as u64;
            context.update(&data);
        }
    }
    Ok((bytes, context.finish()))
}
