//! A connection that reads HTTP/1 and writes whatever it is told to.

use std::io;
use std::net::{IpAddr, SocketAddr};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::message::{Fields, Response};
use super::within;

/// A connection and what was read from it and not yet taken.
pub struct Wire<S = TcpStream> {
    pub stream: S,
    pub buffer: Vec<u8>,
}

/// How a body says where it ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Framing {
    None,
    Length(usize),
    Chunked,
    UntilClose,
}

impl Framing {
    fn of(fields: &Fields, otherwise: Self) -> Self {
        let coded = fields.all("transfer-encoding").iter().any(|value| value.contains("chunked"));
        match fields.all("content-length").first() {
            _ if coded => Self::Chunked,
            Some(length) => Self::Length(length.parse().unwrap()),
            None => otherwise,
        }
    }

    pub fn of_request(fields: &Fields) -> Self {
        Self::of(fields, Self::None)
    }

    fn of_response(method: &str, response: &Response) -> Self {
        match response.status {
            100..200 | 204 | 304 => Self::None,
            _ if method == "HEAD" => Self::None,
            _ => Self::of(&response.fields, Self::UntilClose),
        }
    }
}

impl Wire {
    pub fn new(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        Self { stream, buffer: Vec::new() }
    }

    pub async fn open(address: SocketAddr) -> Self {
        Self::open_from(None, address).await
    }

    /// Connects from a source address such as 127.0.0.2.
    pub async fn open_from(source: Option<IpAddr>, address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        if let Some(source) = source {
            socket.bind(SocketAddr::new(source, 0)).unwrap();
        }
        Self::new(within("connect", socket.connect(address)).await.unwrap())
    }

    /// Closes with a reset.
    pub fn reset(self) {
        reset(self.stream);
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    /// Writes all of it; what the other side does with it is seen by reading.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.try_send(bytes).await;
    }

    pub async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        within("write", self.stream.write_all(bytes.as_ref())).await
    }

    /// Ends our direction.
    pub async fn finish(&mut self) {
        let _ = self.stream.shutdown().await;
    }

    /// Whether the end, which must come now, was announced: over TLS that tells it from a cut.
    pub async fn ends_properly(&mut self) -> bool {
        let read = within("an end", self.stream.read_buf(&mut self.buffer)).await;
        assert!(!matches!(read, Ok(1..)), "{:?}", self.buffer);
        read.is_ok()
    }

    /// Reads once. `false`: the other side has ended or reset the connection.
    pub async fn more(&mut self) -> bool {
        matches!(self.stream.read_buf(&mut self.buffer).await, Ok(read) if read > 0)
    }

    /// Everything until the connection ends.
    pub async fn rest(&mut self) -> Vec<u8> {
        within("the other side closes", async { while self.more().await {} }).await;
        std::mem::take(&mut self.buffer)
    }

    /// At least `length` bytes, unless the connection ends before.
    pub async fn bytes(&mut self, length: usize) -> Vec<u8> {
        within("bytes", async { while self.buffer.len() < length && self.more().await {} }).await;
        self.take(length.min(self.buffer.len()))
    }

    /// A head with its empty line; `None` when the connection ends without one.
    pub async fn head(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(end) = find(&self.buffer, b"\r\n\r\n") {
                return Some(self.take(end + 4));
            }
            if !self.more().await {
                return None;
            }
        }
    }

    /// The head of the next response, interim ones included.
    pub async fn response_head(&mut self) -> Option<Response> {
        within("a response head", self.head()).await.map(Response::parse)
    }

    /// The next final response, or a 101, to a request of that method, with its body.
    pub async fn response(&mut self, method: &str) -> Option<Response> {
        loop {
            let mut response = self.response_head().await?;
            if response.status >= 200 || response.status == 101 {
                self.finish_response(method, &mut response).await;
                return Some(response);
            }
        }
    }

    /// Reads the body that belongs to a head.
    pub async fn finish_response(&mut self, method: &str, response: &mut Response) {
        let framing = Framing::of_response(method, response);
        let Response { body, trailers, whole, .. } = response;
        *whole = within("a response body", self.body(framing, trailers, |part| body.extend(part))).await;
    }

    /// Hands on a body part by part; whether it came to its end.
    pub async fn body(
        &mut self,
        framing: Framing,
        trailers: &mut Fields,
        mut take: impl FnMut(Vec<u8>),
    ) -> bool {
        match framing {
            Framing::None => true,
            Framing::Length(length) => self.pass(length, &mut take).await,
            Framing::UntilClose => loop {
                take(std::mem::take(&mut self.buffer));
                if !self.more().await {
                    return true;
                }
            },
            Framing::Chunked => loop {
                let Some(line) = self.line().await else { return false };
                let size = line.split(|byte| *byte == b';').next().unwrap_or_default();
                let size = std::str::from_utf8(size)
                    .ok()
                    .and_then(|size| usize::from_str_radix(size.trim(), 16).ok());
                match size {
                    None => panic!("no chunk size: {line:?}"),
                    Some(0) => return self.trailers(trailers).await,
                    Some(size) if self.pass(size, &mut take).await => {}
                    Some(_) => return false,
                }
                if self.line().await.is_none() {
                    return false;
                }
            },
        }
    }

    async fn trailers(&mut self, trailers: &mut Fields) -> bool {
        while let Some(line) = self.line().await {
            if line.is_empty() {
                return true;
            }
            trailers.0.extend(Fields::parse(&String::from_utf8_lossy(&line)).0);
        }
        false
    }

    async fn pass(&mut self, mut length: usize, take: &mut impl FnMut(Vec<u8>)) -> bool {
        while length > 0 {
            if self.buffer.is_empty() && !self.more().await {
                return false;
            }
            let part = self.take(length.min(self.buffer.len()));
            length -= part.len();
            take(part);
        }
        true
    }

    async fn line(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(end) = find(&self.buffer, b"\r\n") {
                let mut line = self.take(end + 2);
                line.truncate(end);
                return Some(line);
            }
            if !self.more().await {
                return None;
            }
        }
    }

    fn take(&mut self, length: usize) -> Vec<u8> {
        self.buffer.drain(..length).collect()
    }
}

/// Closes with a reset instead of an end.
pub fn reset(stream: TcpStream) {
    let _ = socket2::SockRef::from(&stream).set_linger(Some(std::time::Duration::ZERO));
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}
