//! Heads that come in pieces: what waits for the rest of one holds its bytes and nothing else.
//!
//! A head that is not whole when its first bytes come is taken away from hyper, whose buffers weigh
//! ten times as much, and goes back as soon as an empty line has come. Whether it is a good head is
//! hyper's to say.

use std::task::{Poll, ready};
use std::time::Instant;

use bytes::Bytes;

use super::http1::refuse_slow_head;
use super::{Conn, LEAVE_AFTER};
use crate::http::timer::Wake;
use crate::listen::io::Io;
use crate::plan::ListenerLimits;

/// What is read at a time.
const PIECE: usize = 2048;

/// By how much room for it grows at least.
const ROOM: usize = 512;

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
    /// nothing had been read. `None`: its time was up, and it was answered with 408.
    pub async fn whole(mut self, conn: &Conn, limits: &ListenerLimits) -> Option<Io> {
        conn.watch.set(conn.head_began(), limits.header_timeout);
        loop {
            match conn.watch.limit(self.rest(limits.max_header_size)).await {
                Ok(()) => return Some(self.io.with_unread(Bytes::from(self.bytes))),
                Err(Wake::Due) => {
                    refuse_slow_head(self.io, conn).await;
                    return None;
                }
                Err(Wake::Cut) => {
                    conn.watch.clear();
                    conn.watch.set(Instant::now(), LEAVE_AFTER);
                }
            }
        }
    }

    /// Waits until hyper can make something of it: an empty line, more than `limit`, or the end.
    async fn rest(&mut self, limit: usize) {
        std::future::poll_fn(|cx| {
            loop {
                let mut piece = [0; PIECE];
                let read = match ready!(self.io.poll_piece(cx, &mut piece)) {
                    // hyper comes upon it in its turn.
                    Ok(0) | Err(_) => return Poll::Ready(()),
                    Ok(read) => read,
                };
                if self.bytes.capacity() - self.bytes.len() < read {
                    self.bytes.reserve_exact(read.max(ROOM));
                }
                // An empty line may begin in the piece before.
                let from = self.bytes.len().saturating_sub(2);
                self.bytes.extend_from_slice(&piece[..read]);
                if self.bytes.len() >= limit || has_empty_line(&self.bytes[from..]) {
                    return Poll::Ready(());
                }
            }
        })
        .await;
    }
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
    fn an_empty_line_ends_a_head_however_its_lines_end() {
        for whole in ["GET / HTTP/1.1\r\n\r\n", "a\r\nb\r\n\r\nbody", "a\n\n", "a\n\r\n", "\n\n"] {
            assert!(has_empty_line(whole.as_bytes()), "{whole:?}");
        }
        for half in ["", "\n", "\r\n", "GET / HTTP/1.1\r\n", "a\r\n\r", "a\n\rb\n", "\r\r"] {
            assert!(!has_empty_line(half.as_bytes()), "{half:?}");
        }
    }
}
