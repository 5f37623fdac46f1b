//! Heads that come in pieces: what waits for the rest of one holds its bytes and nothing else.
//!
//! A head that is not whole when its first bytes come is taken away from hyper, whose buffers weigh
//! ten times as much, and goes back as soon as an empty line has come. Whether it is a good head is
//! hyper's to say. What all of them hold together has a limit.

use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::Instant;

use bytes::Bytes;

use super::http1::refuse_head;
use super::{Conn, LEAVE_AFTER, Served};
use crate::http::timer::Wake;
use crate::limit::{Heads, Held};
use crate::listen::io::Io;
use crate::plan::ListenerLimits;

/// What is read at a time.
const PIECE: usize = 2048;

/// By how much room for it grows at least.
const ROOM: usize = 512;

const SLOW: &[u8] = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 36\r\n\
content-type: text/plain\r\n\r\n408 header_timeout: too slow a head\n";

const NO_ROOM: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\ncontent-length: 70\r\n\
content-type: text/plain\r\nretry-after: 1\r\n\r\n\
503 max_head_memory: too many heads come in pieces; send it in one go\n";

/// The beginning of a head, and where the rest will come from.
pub struct HalfHead {
    io: Io,
    bytes: Vec<u8>,
}

impl HalfHead {
    /// `bytes` is what has been read of it. Copied: they are a slice of a large buffer.
    pub fn new(io: Io, bytes: &[u8]) -> Self {
        Self { io, bytes: bytes.to_vec() }
    }

    /// Waits with nothing but its bytes until the head is whole, and gives the stream back as if
    /// nothing had been read; or says why it was answered and not waited for any longer.
    pub async fn whole(
        mut self,
        conn: &Conn,
        limits: &ListenerLimits,
        heads: &Arc<Heads>,
    ) -> Result<Io, Served> {
        conn.watch.set(conn.head_began(), limits.header_timeout);
        let mut held = Held::nothing(heads);
        let (text, served) = loop {
            match conn.watch.limit(self.rest(limits.max_header_size, &mut held)).await {
                Ok(true) => return Ok(self.io.with_unread(Bytes::from(self.bytes))),
                Ok(false) => break (NO_ROOM, Served::NoRoom),
                Err(Wake::Due) => break (SLOW, Served::SlowHead),
                Err(Wake::Cut) => {
                    conn.watch.clear();
                    conn.watch.set(Instant::now(), LEAVE_AFTER);
                }
            }
        };
        let Self { io, bytes } = self;
        // Its client has a moment to read the answer, and no memory meanwhile.
        drop((bytes, held));
        refuse_head(io, conn, text).await;
        Err(served)
    }

    /// Waits until hyper can make something of it: an empty line, more than `limit`, or the end.
    /// `false`: there is no room for more of it.
    async fn rest(&mut self, limit: usize, held: &mut Held) -> bool {
        std::future::poll_fn(|cx| {
            if !held.set(self.bytes.capacity()) {
                return Poll::Ready(false);
            }
            loop {
                let mut piece = [0; PIECE];
                let read = match ready!(self.io.poll_piece(cx, &mut piece)) {
                    // hyper comes upon it in its turn.
                    Ok(0) | Err(_) => return Poll::Ready(true),
                    Ok(read) => read,
                };
                if self.bytes.capacity() - self.bytes.len() < read {
                    let more = read.max(ROOM);
                    if !held.set(self.bytes.len() + more) {
                        return Poll::Ready(false);
                    }
                    self.bytes.reserve_exact(more);
                }
                // An empty line may begin in the piece before.
                let from = self.bytes.len().saturating_sub(2);
                self.bytes.extend_from_slice(&piece[..read]);
                if self.bytes.len() >= limit || has_empty_line(&self.bytes[from..]) {
                    return Poll::Ready(true);
                }
            }
        })
        .await
    }
}

/// Answers a head that has taken too long.
pub async fn refuse_slow(io: Io, conn: &Conn) {
    refuse_head(io, conn, SLOW).await;
}

/// Whether a line ends and another, empty, follows. Bare line feeds count: hyper takes them.
fn has_empty_line(bytes: &[u8]) -> bool {
    let mut ends = memchr::memchr_iter(b'\n', bytes);
    ends.any(|end| bytes[end + 1..].starts_with(b"\n") || bytes[end + 1..].starts_with(b"\r\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answers_are_as_long_as_they_say() {
        for text in [SLOW, NO_ROOM] {
            let text = str::from_utf8(text).unwrap();
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            assert!(head.contains(&format!("content-length: {}\r\n", body.len())), "{}", body.len());
        }
    }

    #[test]
    fn an_empty_line_ends_a_head_however_its_lines_end() {
        for whole in ["GET / HTTP/1.1\r\n\r\n", "a\r\nb\r\n\r\nbody", "a\n\n", "a\n\r\n", "\n\n"] {
            assert!(has_empty_line(whole.as_bytes()), "{whole:?}");
        }
        for half in ["", "\n", "\r\n", "GET / HTTP/1.1\r\n", "a\r\n\r", "a\n\rb\n", "\r\r"] {
            assert!(!has_empty_line(half.as_bytes()), "{half:?}");
        }
    }
}
