//! One TCP connection to a backend, at the first of its addresses that answers.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use tokio::net::TcpStream;

use super::tls::TlsFault;

/// Why no connection came about.
#[derive(Debug)]
pub enum ConnectError {
    /// The host answered that nobody listens: evidence that the backend is down.
    Refused,
    /// No route, or no address at all: evidence too.
    Unreachable,
    /// Nothing came in the pool's `timeouts.connect`.
    Timeout,
    /// A socket, and no TLS on it. No evidence: it may as well be our settings that are wrong, and
    /// nobody should wait for that to pass.
    Tls(TlsFault),
    /// Ours: out of descriptors or ports.
    Local(io::Error),
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused => f.write_str("connection refused"),
            Self::Unreachable => f.write_str("unreachable"),
            Self::Timeout => f.write_str("connect timed out"),
            Self::Tls(fault) => fault.fmt(f),
            Self::Local(error) => write!(f, "cannot connect from here: {error}"),
        }
    }
}

impl std::error::Error for ConnectError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Local(error) => Some(error),
            Self::Tls(fault) => Some(fault),
            _ => None,
        }
    }
}

impl ConnectError {
    /// Whether it says something of the backend rather than of us or of one moment.
    pub fn is_evidence(&self) -> bool {
        matches!(self, Self::Refused | Self::Unreachable)
    }
}

impl From<TlsFault> for ConnectError {
    fn from(fault: TlsFault) -> Self {
        Self::Tls(fault)
    }
}

impl From<io::Error> for ConnectError {
    fn from(error: io::Error) -> Self {
        use io::ErrorKind::{
            BrokenPipe, ConnectionAborted, ConnectionRefused, ConnectionReset, HostUnreachable,
            NetworkUnreachable, TimedOut,
        };
        match error.kind() {
            ConnectionRefused | ConnectionReset | ConnectionAborted | BrokenPipe => Self::Refused,
            HostUnreachable | NetworkUnreachable => Self::Unreachable,
            TimedOut => Self::Timeout,
            _ => Self::Local(error),
        }
    }
}

/// Tries `addresses` in turn. The caller limits the time.
pub async fn connect(addresses: &[SocketAddr]) -> Result<TcpStream, ConnectError> {
    let mut last = ConnectError::Unreachable;
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => {
                // A small request must not wait for the acknowledgement of the one before.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Err(error) => last = error.into(),
        }
    }
    Err(last)
}
