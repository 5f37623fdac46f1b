//! What comes before everything else where a balancer in front announces its clients: the PROXY
//! header, within the limit of the first byte.

use tracing::debug;

use super::serve::Conn;
use crate::listen::io::Io;
use crate::listen::proxy_header::{NoHeader, receive};
use crate::plan::{ListenerLimits, ProxyProtocol};

/// Why nobody was announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unannounced {
    /// It left before the end of its header, or was told to leave.
    Gone,
    /// It took longer than `first_byte_timeout`.
    Slow,
    /// It sent something else.
    Refused,
    /// It is nobody whose word counts, and was not heard.
    Untrusted,
}

/// Takes the header; from then on its client is the peer. A header is never optional: whoever
/// could leave it out, or send one unasked, could choose whom to pass for.
pub async fn announced(
    io: &Io,
    conn: &Conn,
    limits: &ListenerLimits,
    accepted: ProxyProtocol,
    trusted: bool,
) -> Result<(), Unannounced> {
    let peer = conn.peer.get();
    if !trusted {
        debug!(%peer, "closed: no PROXY header is taken from it, for it is none of `trusted_proxies`");
        return Err(Unannounced::Untrusted);
    }
    match conn.before_first_byte(limits, receive(io.socket(), accepted)).await {
        None if conn.is_leaving() => Err(Unannounced::Gone),
        None => Err(Unannounced::Slow),
        Some(Err(NoHeader::Gone)) => Err(Unannounced::Gone),
        Some(Err(NoHeader::Refused)) => {
            debug!(%peer, ?accepted, "closed: it did not begin with a PROXY header that is accepted here");
            Err(Unannounced::Refused)
        }
        Some(Ok(source)) => {
            conn.peer.set(source.unwrap_or(peer));
            Ok(())
        }
    }
}
