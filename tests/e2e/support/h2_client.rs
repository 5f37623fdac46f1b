//! Clients that speak HTTP/2: one that keeps its rules, and one that writes whatever frames it is
//! told to.

use std::net::SocketAddr;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::within;

/// A connection whose rules the `h2` crate keeps. It ends with this value.
pub struct H2Client {
    sender: SendRequest<Bytes>,
    connection: JoinHandle<Result<(), h2::Error>>,
}

/// A whole answer.
#[derive(Debug)]
pub struct H2Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl H2Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl H2Client {
    /// In the clear.
    pub async fn open(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).await.unwrap()).await
    }

    pub async fn over(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Self {
        let mut builder = h2::client::Builder::new();
        // So that a test says itself when a client takes no more.
        builder.initial_connection_window_size(1 << 30);
        Self::built(builder, stream).await
    }

    /// With a window of so many bytes for each answer.
    pub async fn with_window(address: SocketAddr, window: u32) -> Self {
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(window).initial_connection_window_size(1 << 30);
        Self::built(builder, TcpStream::connect(address).await.unwrap()).await
    }

    async fn built(
        builder: h2::client::Builder,
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    ) -> Self {
        let (sender, connection) = within("the preface", builder.handshake(stream)).await.unwrap();
        Self { sender, connection: tokio::spawn(connection) }
    }

    /// Begins a request; what it is made of is for the test.
    pub async fn send(&mut self, request: Request<()>, ends: bool) -> (ResponseFuture, SendStream<Bytes>) {
        let mut sender = within("a stream", self.sender.clone().ready()).await.unwrap();
        sender.send_request(request, ends).unwrap()
    }

    /// Whether the other side has said that CONNECT may name a protocol.
    pub fn may_connect(&self) -> bool {
        self.sender.is_extended_connect_protocol_enabled()
    }

    pub async fn try_ask(&mut self, request: Request<Bytes>) -> Result<H2Answer, h2::Error> {
        let mut sender = within("a stream", self.sender.clone().ready()).await?;
        let (parts, body) = request.into_parts();
        let (answer, mut upload) = sender.send_request(Request::from_parts(parts, ()), body.is_empty())?;
        if !body.is_empty() {
            upload.send_data(body, true)?;
        }
        let (parts, mut incoming) = within("an answer", answer).await?.into_parts();
        let body = within("a body", read(&mut incoming)).await?;
        Ok(H2Answer { status: parts.status.as_u16(), headers: parts.headers, body })
    }

    pub async fn ask(&mut self, request: Request<Bytes>) -> H2Answer {
        self.try_ask(request).await.unwrap()
    }

    pub async fn get(&mut self, path: &str) -> H2Answer {
        self.ask(get(path).map(|()| Bytes::new())).await
    }

    pub async fn post(&mut self, path: &str, body: impl Into<Bytes>) -> H2Answer {
        let request = Request::post(format!("http://test.example{path}")).body(body.into()).unwrap();
        self.ask(request).await
    }

    /// Ends the connection at once.
    pub fn hang_up(self) {
        self.connection.abort();
    }
}

pub fn get(path: &str) -> Request<()> {
    Request::get(format!("http://test.example{path}")).body(()).unwrap()
}

/// Reads to the end, giving back room as it goes.
pub async fn read(incoming: &mut RecvStream) -> Result<Vec<u8>, h2::Error> {
    let mut body = Vec::new();
    while let Some(data) = incoming.data().await {
        let data = data?;
        incoming.flow_control().release_capacity(data.len())?;
        body.extend_from_slice(&data);
    }
    Ok(body)
}

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A frame as it was on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    pub fn new(kind: u8, flags: u8, stream: u32, payload: impl Into<Vec<u8>>) -> Self {
        Self { kind, flags, stream, payload: payload.into() }
    }

    /// A whole head. No value is indexed or compressed.
    pub fn head(stream: u32, fields: &[(&str, &str)], flags: u8) -> Self {
        Self::new(HEADERS, flags | END_HEADERS, stream, block(fields))
    }

    /// A GET that ends with its head.
    pub fn get(stream: u32, path: &str) -> Self {
        Self::head(stream, &request("GET", path), END_STREAM)
    }

    pub fn reset(stream: u32) -> Self {
        Self::new(RST_STREAM, 0, stream, 8_u32.to_be_bytes())
    }

    pub fn bytes(&self) -> Vec<u8> {
        let length = u32::try_from(self.payload.len()).unwrap().to_be_bytes();
        let mut bytes = vec![length[1], length[2], length[3], self.kind, self.flags];
        bytes.extend(self.stream.to_be_bytes());
        bytes.extend(&self.payload);
        bytes
    }

    /// The number in a RST_STREAM, or in a GOAWAY.
    pub fn error(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap())
    }
}

/// The pseudo-headers of an ordinary request.
pub fn request<'a>(method: &'a str, path: &'a str) -> [(&'a str, &'a str); 4] {
    [(":method", method), (":scheme", "http"), (":authority", "test.example"), (":path", path)]
}

/// Literal fields without indexing, new names (RFC 7541 section 6.2.2).
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in fields {
        bytes.push(0);
        for text in [name, value] {
            integer(&mut bytes, text.len());
            bytes.extend(text.as_bytes());
        }
    }
    bytes
}

/// With a prefix of seven bits (RFC 7541 section 5.1).
fn integer(bytes: &mut Vec<u8>, number: usize) {
    if number < 127 {
        return bytes.push(u8::try_from(number).unwrap());
    }
    bytes.push(127);
    let mut rest = number - 127;
    while rest >= 128 {
        bytes.push(u8::try_from(rest % 128).unwrap() | 128);
        rest /= 128;
    }
    bytes.push(u8::try_from(rest).unwrap());
}

/// A connection that writes frames and reads them.
pub struct FrameWire {
    stream: TcpStream,
}

impl FrameWire {
    /// Connects and says nothing.
    pub async fn silent(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream }
    }

    /// Connects and says hello. Heads are to come without a dynamic table, so that each can be read
    /// by itself.
    pub async fn open(address: SocketAddr) -> Self {
        let mut wire = Self::silent(address).await;
        wire.write(PREFACE).await;
        wire.send(&[Frame::new(SETTINGS, 0, 0, [0, 1, 0, 0, 0, 0])]).await;
        wire
    }

    pub async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_write(bytes).await.unwrap();
    }

    pub async fn try_write(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        within("a write", self.stream.write_all(bytes.as_ref())).await
    }

    pub async fn send(&mut self, frames: &[Frame]) {
        self.write(frames.iter().flat_map(Frame::bytes).collect::<Vec<_>>()).await;
    }

    /// `false` once the other side has had enough.
    pub async fn try_send(&mut self, frames: &[Frame]) -> bool {
        self.try_write(frames.iter().flat_map(Frame::bytes).collect::<Vec<_>>()).await.is_ok()
    }

    /// The next frame, or `None` at the end.
    pub async fn read(&mut self) -> Option<Frame> {
        within("a frame", async {
            let mut head = [0; 9];
            self.stream.read_exact(&mut head).await.ok()?;
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut payload = vec![0; length as usize];
            self.stream.read_exact(&mut payload).await.ok()?;
            let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            Some(Frame { kind: head[3], flags: head[4], stream, payload })
        })
        .await
    }

    /// The next frame of this kind; those before it are dropped.
    pub async fn read_until(&mut self, kind: u8) -> Option<Frame> {
        loop {
            let frame = self.read().await?;
            if frame.kind == kind {
                return Some(frame);
            }
        }
    }

    /// Everything to the end.
    pub async fn rest(&mut self) -> Vec<Frame> {
        let mut frames = Vec::new();
        while let Some(frame) = self.read().await {
            frames.push(frame);
        }
        frames
    }
}
