//! Which of the two protocols a client speaks on a clear port that has both, by its first bytes.
//!
//! Start at [`speaks_http2`]. HTTP/2 without TLS is known beforehand (RFC 9113 section 3.3): such a
//! client begins with the preface. What is neither is left to the HTTP/2 codec, which closes.

use std::io;

use rustix::net::{RecvFlags, recv};
use tokio::io::Interest;
use tokio::net::TcpStream;

use super::frames::PREFACE;

/// How much of a first line is looked at.
const LOOK: usize = 256;

/// Waits until it is known, and leaves the bytes where they are. `None`: it left without a word.
/// Whoever calls this limits it in time.
pub async fn speaks_http2(socket: &TcpStream) -> Option<bool> {
    let looked = socket.async_io(Interest::READABLE, || {
        let mut bytes = [0; LOOK];
        let (length, _) = recv(socket, &mut bytes[..], RecvFlags::PEEK)?;
        match (length, judge(&bytes[..length])) {
            (0, _) => Ok(None),
            (_, Some(verdict)) => Ok(Some(verdict)),
            // Only more than this wakes us again.
            (_, None) => Err(io::ErrorKind::WouldBlock.into()),
        }
    });
    looked.await.ok().flatten()
}

/// `None` while it can be either.
fn judge(bytes: &[u8]) -> Option<bool> {
    if bytes.starts_with(PREFACE) {
        return Some(true);
    }
    if PREFACE.starts_with(bytes) {
        return None;
    }
    // A client that begins like this and goes on otherwise is no HTTP/1 client either.
    let broken = bytes.starts_with(b"PRI * HTTP/2");
    let line = bytes.iter().position(|byte| *byte == b'\n').map(|end| bytes[..end].trim_ascii_end());
    let strange = line.is_some_and(|line| !line.is_empty() && !has_version(line));
    Some(broken || strange)
}

fn has_version(line: &[u8]) -> bool {
    line.windows(5).any(|part| part == b"HTTP/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_preface_is_waited_for_to_its_end() {
        for length in 1..PREFACE.len() {
            assert_eq!(judge(&PREFACE[..length]), None, "{length}");
        }
        assert_eq!(judge(PREFACE), Some(true));
        assert_eq!(judge(&[PREFACE, &b"\0\0\0\x04"[..]].concat()), Some(true));
    }

    #[test]
    fn a_request_line_is_http_1_as_soon_as_it_differs() {
        for line in ["G", "GET / HTTP/1.1\r\n", "PRO", "PRI /x HTTP/1.1\r\n", "\r\nGET / HTTP/1.1", "\n"] {
            assert_eq!(judge(line.as_bytes()), Some(false), "{line}");
        }
    }

    #[test]
    fn what_is_neither_is_not_answered_in_http_1() {
        for line in ["INVALID CONNECTION PREFACE\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nXX", "hello\n"] {
            assert_eq!(judge(line.as_bytes()), Some(true), "{line}");
        }
    }
}
