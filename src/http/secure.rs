//! What comes before the first request of a TLS listener: the handshake, within the limit of the
//! first byte.

use tokio::sync::Semaphore;

use super::serve::{Conn, linger};
use crate::listen::io::Io;
use crate::listen::tls::{self, Acceptor, Greeting};
use crate::plan::ListenerLimits;

/// For whoever speaks HTTP in the clear; the first line is all that most clients show.
const PLAIN_HTTP: &[u8] = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 55\r\n\
content-type: text/plain\r\n\r\n400 plain_http: this port speaks TLS; write `https://`\n";

/// Why there was no handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsecured {
    /// It left before its first byte, or was told to leave.
    Gone,
    /// It took longer than `first_byte_timeout`.
    Slow,
    /// It failed, or was none.
    Failed,
}

/// Shakes hands. A client that speaks HTTP instead is told so.
pub async fn secure(
    io: Io,
    conn: &Conn,
    limits: &ListenerLimits,
    acceptor: &Acceptor,
    permits: &Semaphore,
) -> Result<Io, Unsecured> {
    let late = || if conn.is_leaving() { Unsecured::Gone } else { Unsecured::Slow };
    match conn.before_first_byte(limits, tls::greeting(io.socket())).await {
        None => return Err(late()),
        Some(Greeting::Gone) => return Err(Unsecured::Gone),
        Some(Greeting::Junk) => return Err(Unsecured::Failed),
        Some(Greeting::Text) => {
            // Its first write on a fresh socket: this short answer goes out whole.
            let _ = io.socket().try_write(PLAIN_HTTP);
            let (stream, _descriptor, _unread) = io.into_stream();
            linger(stream, conn).await;
            return Err(Unsecured::Failed);
        }
        Some(Greeting::Tls) => {}
    }
    let shaken = io.try_turn(async |stream| tls::shake(stream, acceptor, permits).await);
    match conn.before_first_byte(limits, shaken).await {
        None => Err(late()),
        Some(Err(_)) => Err(Unsecured::Failed),
        Some(Ok(io)) => Ok(io),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_in_the_clear_is_as_long_as_it_says() {
        let text = std::str::from_utf8(PLAIN_HTTP).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}\r\n", body.len())), "{}", body.len());
    }
}
