//! The PROXY header: what a balancer in front of us says of the client, before all other bytes.
//!
//! Start at [`receive`], which takes a header off a socket and not a byte more; [`parse`] decides,
//! and knows no socket. Whether somebody may send one is not asked here.

use std::io;
use std::net::SocketAddr;

use proxy_header::{ParseConfig, Protocol, ProxyHeader};
use tokio::net::TcpStream;

use crate::plan::ProxyProtocol;

/// The longest version 1 line, its end included, as the specification has it.
const MAX_V1: usize = 107;

/// What stands before the length of what follows, in version 2.
const FIXED_V2: usize = 16;

/// What may follow: addresses take 36 bytes, and all else is skipped.
const MAX_REST_V2: usize = 4096;

/// The longest header of either version.
pub const MAX_HEADER: usize = FIXED_V2 + MAX_REST_V2;

const PREFIX_V1: &[u8] = b"PROXY ";
const PREFIX_V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Version 2, and a connection that the proxy made for itself, such as a probe.
const LOCAL: u8 = 0x20;

/// What bytes from the beginning of a connection are.
#[derive(Debug, PartialEq, Eq)]
pub enum Parsed {
    /// All of them belong to a header that is not whole yet.
    NeedMore,
    Done {
        consumed: usize,
        /// `None`: no address is told, and who connected is the client.
        source: Option<SocketAddr>,
    },
    Refused,
}

/// Reads a header of a version that is accepted here. Pure.
pub fn parse(bytes: &[u8], accepted: ProxyProtocol) -> Parsed {
    let (v1, v2) = match accepted {
        ProxyProtocol::Off => (false, false),
        ProxyProtocol::V1 => (true, false),
        ProxyProtocol::V2 => (false, true),
        ProxyProtocol::Any => (true, true),
    };
    let begins = |prefix: &[u8]| bytes.iter().zip(prefix).all(|(byte, expected)| byte == expected);
    match (v1 && begins(PREFIX_V1), v2 && begins(PREFIX_V2)) {
        (false, false) => Parsed::Refused,
        // Nothing has come yet.
        (true, true) => Parsed::NeedMore,
        (true, false) => version_1(bytes),
        (false, true) => version_2(bytes),
    }
}

/// One line of text. Only a whole one is decoded: the decoder would look for a missing part in
/// what follows it.
fn version_1(bytes: &[u8]) -> Parsed {
    let window = &bytes[..bytes.len().min(MAX_V1)];
    let Some(end) = window.windows(2).position(|pair| pair == b"\r\n") else {
        return if window.len() < MAX_V1 { Parsed::NeedMore } else { Parsed::Refused };
    };
    decode(&bytes[..end + 2])
}

fn version_2(bytes: &[u8]) -> Parsed {
    let Some(fixed) = bytes.get(..FIXED_V2) else { return Parsed::NeedMore };
    let rest = usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    if rest > MAX_REST_V2 {
        return Parsed::Refused;
    }
    let Some(header) = bytes.get(..FIXED_V2 + rest) else { return Parsed::NeedMore };
    if fixed[12] == LOCAL {
        // Whatever it says of addresses is to be passed over, and need not make sense.
        return Parsed::Done { consumed: header.len(), source: None };
    }
    decode(header)
}

/// Decodes exactly one header.
fn decode(header: &[u8]) -> Parsed {
    let config = ParseConfig { include_tlvs: false, ..ParseConfig::default() };
    match ProxyHeader::parse(header, config) {
        Ok((decoded, consumed)) if consumed == header.len() => {
            // A datagram's addresses are those of no connection.
            let told = decoded.proxied_address().filter(|told| told.protocol == Protocol::Stream);
            Parsed::Done { consumed, source: told.map(|told| told.source) }
        }
        _ => Parsed::Refused,
    }
}

/// Why there is no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoHeader {
    /// The other side left before its end.
    Gone,
    /// What came is none, or of a version that is not accepted.
    Refused,
}

/// Takes a header off the socket; what follows it stays there, for TLS or HTTP. Whoever calls this
/// limits it in time. Bytes are looked at first, and only those of the header are taken.
pub async fn receive(socket: &TcpStream, accepted: ProxyProtocol) -> Result<Option<SocketAddr>, NoHeader> {
    let mut header = [0; MAX_HEADER];
    let mut known = 0;
    loop {
        let seen = socket.peek(&mut header[known..]).await.map_err(|_| NoHeader::Gone)?;
        if seen == 0 {
            return Err(NoHeader::Gone);
        }
        match parse(&header[..known + seen], accepted) {
            Parsed::Refused => return Err(NoHeader::Refused),
            Parsed::Done { consumed, source } => {
                take(socket, &mut header[known..consumed]).await.map_err(|_| NoHeader::Gone)?;
                return Ok(source);
            }
            Parsed::NeedMore => {
                take(socket, &mut header[known..known + seen]).await.map_err(|_| NoHeader::Gone)?;
                known += seen;
            }
        }
    }
}

/// Reads bytes that have been seen, and no others.
async fn take(socket: &TcpStream, mut bytes: &mut [u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        socket.readable().await?;
        match socket.try_read(bytes) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => bytes = &mut bytes[read..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
