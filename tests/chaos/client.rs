//! A client that says exactly what went wrong. It never asks again by itself.
//!
//! Start at [`Wire::ask`]. HTTP/1.1 on one connection, read by hand, so that an answer cut short, a
//! connection without an answer and a byte in the wrong place are three different things.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::pattern;

/// No answer takes this long.
pub const PATIENCE: Duration = Duration::from_secs(25);

/// Read at a time.
const READ: usize = 64 * 1024;

/// How something failed, as its client saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum How {
    /// Pintle took no connection.
    Refused,
    /// The connection ended where an answer should have been.
    NoAnswer,
    /// Answered, but not with 200: the status, and the word in Pintle's text.
    Status(u16, String),
    /// The answer broke off.
    Short,
    /// What came is not what was asked for.
    Wrong(String),
    /// Nothing for [`PATIENCE`].
    Late,
    /// A session was answered by another backend than before.
    Moved,
    /// A WebSocket ended, with this Close code if with any.
    Cut(Option<u16>),
    /// A request that must arrive once at most arrived more often.
    Doubled,
    /// Answered with success, and no backend has seen it.
    Lost,
}

/// What to ask.
pub struct Ask<'a> {
    pub method: &'static str,
    pub target: &'a str,
    pub id: &'a str,
    pub cookie: Option<&'a str>,
    pub upload: Upload,
}

/// A body to send.
#[derive(Clone, Copy)]
pub enum Upload {
    Nothing,
    /// So many bytes of the pattern, over so much time.
    Pattern {
        bytes: u64,
        over: Duration,
    },
}

/// What came back.
#[derive(Default)]
pub struct Told {
    pub backend: Option<String>,
    pub cookie: Option<String>,
    pub body: Vec<u8>,
    /// Of a download, which is compared and not kept.
    pub bytes: u64,
    pub how: Option<How>,
}

pub struct Wire {
    stream: TcpStream,
    unread: Vec<u8>,
    /// It takes no further request.
    pub over: bool,
}

struct Head {
    status: u16,
    backend: Option<String>,
    cookie: Option<String>,
    length: Length,
}

#[derive(Clone, Copy)]
enum Length {
    Fixed(u64),
    Chunked,
}

impl Wire {
    pub async fn open(address: SocketAddr) -> Result<Self, How> {
        let stream = TcpStream::connect(address).await.map_err(|_| How::Refused)?;
        let _ = stream.set_nodelay(true);
        Ok(Self { stream, unread: Vec::new(), over: false })
    }

    /// One exchange. `download`: the body is the pattern, and is not kept.
    pub async fn ask(&mut self, ask: &Ask<'_>, download: bool) -> Told {
        let mut told = Told::default();
        let exchange = tokio::time::timeout(PATIENCE, self.exchange(ask, download, &mut told)).await;
        told.how = exchange.unwrap_or(Err(How::Late)).err();
        self.over |= told.how.is_some();
        told
    }

    async fn exchange(&mut self, ask: &Ask<'_>, download: bool, told: &mut Told) -> Result<(), How> {
        // An answer may come before all is sent, and with it the end of the connection.
        let _ = self.send(ask).await;
        let head = self.head().await?;
        (told.backend, told.cookie) = (head.backend, head.cookie);
        if head.status != 200 {
            self.over = true;
            let _ = self.body(head.length, &mut |bytes| told.body.extend_from_slice(bytes)).await;
            let text = String::from_utf8_lossy(&told.body);
            let word = text.split([' ', ':']).nth(1).unwrap_or_default().to_owned();
            return Err(How::Status(head.status, word));
        }
        let (mut at, mut fits) = (0, true);
        self.body(head.length, &mut |bytes| {
            if download {
                fits &= pattern::fits(at, bytes);
                at += bytes.len() as u64;
            } else {
                told.body.extend_from_slice(bytes);
            }
        })
        .await?;
        told.bytes = at;
        if fits { Ok(()) } else { Err(How::Wrong("a byte in the wrong place".into())) }
    }

    async fn send(&mut self, ask: &Ask<'_>) -> std::io::Result<()> {
        let mut head = format!(
            "{} {} HTTP/1.1\r\nHost: chaos.example\r\nX-Request-Id: {}\r\n",
            ask.method, ask.target, ask.id
        );
        if let Some(cookie) = ask.cookie {
            head += &format!("Cookie: {cookie}\r\n");
        }
        let Upload::Pattern { bytes, over } = ask.upload else {
            return self.stream.write_all(format!("{head}\r\n").as_bytes()).await;
        };
        head += &format!("Content-Length: {bytes}\r\n\r\n");
        let pieces = (over.as_millis() as u64 / 20).max(1);
        let piece = bytes.div_ceil(pieces);
        let mut out = head.into_bytes();
        let mut sent = 0;
        while sent < bytes {
            let now = pattern::from(sent, piece.min(bytes - sent) as usize);
            out.extend_from_slice(now);
            sent += now.len() as u64;
            self.stream.write_all(&out).await?;
            out.clear();
            if sent < bytes {
                tokio::select! {
                    // Whatever comes now is an answer that does not wait for the rest.
                    _ = self.stream.readable() => return Ok(()),
                    () = tokio::time::sleep(over / pieces as u32) => {}
                }
            }
        }
        Ok(())
    }

    /// More bytes; false at the end of the connection, however it came.
    async fn more(&mut self) -> bool {
        let before = self.unread.len();
        self.unread.reserve(READ);
        let read = self.stream.read_buf(&mut self.unread).await;
        read.is_ok() && self.unread.len() > before
    }

    async fn head(&mut self) -> Result<Head, How> {
        let end = loop {
            if let Some(end) = find(&self.unread, b"\r\n\r\n") {
                break end + 4;
            }
            if !self.more().await {
                return Err(How::NoAnswer);
            }
        };
        let text = String::from_utf8_lossy(&self.unread[..end]).into_owned();
        self.unread.drain(..end);
        let mut lines = text.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|code| code.parse().ok());
        let mut head = Head {
            status: status.ok_or_else(|| How::Wrong(text.clone()))?,
            backend: None,
            cookie: None,
            length: Length::Fixed(0),
        };
        for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
            match name.to_ascii_lowercase().as_str() {
                "x-backend" => head.backend = Some(value.to_owned()),
                "set-cookie" => head.cookie = value.split(';').next().map(str::to_owned),
                "content-length" => {
                    head.length = Length::Fixed(value.parse().map_err(|_| How::Wrong(text.clone()))?);
                }
                "transfer-encoding" => head.length = Length::Chunked,
                "connection" => self.over |= value.eq_ignore_ascii_case("close"),
                _ => {}
            }
        }
        Ok(head)
    }

    async fn body(&mut self, length: Length, take: &mut impl FnMut(&[u8])) -> Result<(), How> {
        match length {
            Length::Fixed(bytes) => self.bytes(bytes, take).await,
            Length::Chunked => loop {
                let size = self.line().await?;
                let size = u64::from_str_radix(&size, 16).map_err(|_| How::Wrong(size))?;
                self.bytes(size, take).await?;
                if !self.line().await?.is_empty() {
                    return Err(How::Wrong("a chunk without an end".into()));
                }
                if size == 0 {
                    return Ok(());
                }
            },
        }
    }

    async fn bytes(&mut self, mut bytes: u64, take: &mut impl FnMut(&[u8])) -> Result<(), How> {
        while bytes > 0 {
            if self.unread.is_empty() && !self.more().await {
                return Err(How::Short);
            }
            let now = self.unread.len().min(usize::try_from(bytes).unwrap_or(usize::MAX));
            take(&self.unread[..now]);
            self.unread.drain(..now);
            bytes -= now as u64;
        }
        Ok(())
    }

    async fn line(&mut self) -> Result<String, How> {
        loop {
            if let Some(end) = find(&self.unread, b"\r\n") {
                let line = String::from_utf8_lossy(&self.unread[..end]).into_owned();
                self.unread.drain(..end + 2);
                return Ok(line);
            }
            if !self.more().await {
                return Err(How::Short);
            }
        }
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}
