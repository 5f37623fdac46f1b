//! The way to a backend: what stands between its socket and HTTP.
//!
//! Start at [`Way::open`]. First the socket, then the PROXY header where the pool sends one, then
//! TLS where it speaks it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use http::uri::Scheme;
use proxy_header::{ProxiedAddress, ProxyHeader};
use tokio::io::AsyncWriteExt;

use super::connect::{ConnectError, connect};
use super::tls::{Connector, Offer, Tls, Version};
use crate::listen::stream::Stream;
use crate::plan::{BackendAddress, PoolPlan, PoolProtocol, SendProxy};

/// How one backend is reached.
#[derive(Clone, PartialEq)]
pub struct Way {
    pub protocol: PoolProtocol,
    proxy: SendProxy,
    tls: Option<Tls>,
}

/// Whose a connection is: where its client came from, and the address of ours that it came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair {
    pub source: SocketAddr,
    pub destination: SocketAddr,
}

impl Way {
    /// `connector`: that of a pool that speaks TLS.
    pub fn to(address: &BackendAddress, pool: &PoolPlan, connector: Option<&Connector>) -> Self {
        let tls = connector.map(|connector| connector.to(address));
        Self { protocol: pool.protocol, proxy: pool.proxy_protocol, tls }
    }

    /// Over TLS: what is shared with the pool's other backends.
    pub fn connector(&self) -> Option<&Connector> {
        self.tls.as_ref().map(|tls| &tls.connector)
    }

    pub fn scheme(&self) -> Scheme {
        if self.tls.is_some() { Scheme::HTTPS } else { Scheme::HTTP }
    }

    /// All that may be offered.
    pub fn offer(&self) -> Offer {
        match self.protocol {
            PoolProtocol::Http1 => Offer::Http1,
            PoolProtocol::H2c | PoolProtocol::H2 => Offer::Http2,
            PoolProtocol::Auto => Offer::Both,
        }
    }

    /// A connection to the first address that takes one, and what is spoken on it. It is `pair`'s
    /// where the backend wants to know whose, and our own without. The caller limits the time.
    pub async fn open(
        &self,
        addresses: &[SocketAddr],
        offer: Offer,
        pair: Option<Pair>,
    ) -> Result<(Stream, Version), ConnectError> {
        let mut socket = connect(addresses).await?;
        if self.proxy == SendProxy::V2 {
            socket.write_all(&header(pair)).await?;
        }
        let Some(tls) = &self.tls else {
            let known = if offer == Offer::Http2 { Version::Http2 } else { Version::Http1 };
            return Ok((Stream::Plain(socket), known));
        };
        // Boxed: a handshake is large, and over soon.
        let (stream, chosen) = Box::pin(tls.shake(socket, offer)).await?;
        Ok((Stream::TlsOut(Box::new(stream)), chosen))
    }
}

/// The PROXY header, version 2. Both addresses are of one family there.
fn header(pair: Option<Pair>) -> Vec<u8> {
    let header = match pair {
        None => ProxyHeader::with_local(),
        Some(Pair { source, destination }) => {
            let (source, destination) = match (source, destination) {
                (SocketAddr::V4(_), SocketAddr::V4(_)) => (source, destination),
                _ => (mapped(source), mapped(destination)),
            };
            ProxyHeader::with_address(ProxiedAddress::stream(source, destination))
        }
    };
    let mut bytes = Vec::with_capacity(64);
    header.encode_v2(&mut bytes).expect("without further fields it is at most 52 bytes");
    bytes
}

fn mapped(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) => SocketAddr::new(ip.to_ipv6_mapped().into(), address.port()),
        IpAddr::V6(_) => address,
    }
}

/// Where an address is not known.
pub const NOWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_addresses_of_a_header_are_of_one_family() {
        let bytes = |source: &str, destination: &str| {
            let pair = Pair { source: source.parse().unwrap(), destination: destination.parse().unwrap() };
            header(Some(pair))
        };
        let four = bytes("10.0.0.1:258", "10.0.0.2:80");
        assert_eq!(four.len(), 28);
        assert_eq!(four[12..], [0x21, 0x11, 0, 12, 10, 0, 0, 1, 10, 0, 0, 2, 1, 2, 0, 80]);
        for (source, destination) in
            [("10.0.0.1:1", "[::2]:2"), ("[::1]:1", "10.0.0.2:2"), ("[::1]:1", "[::2]:2")]
        {
            let bytes = bytes(source, destination);
            assert_eq!(
                (bytes.len(), &bytes[12..16]),
                (52, &[0x21, 0x21, 0, 36][..]),
                "{source} {destination}"
            );
        }
        assert_eq!(header(None)[12..], [0x20, 0, 0, 0]);
    }
}
