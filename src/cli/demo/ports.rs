//! Where the demo listens: the ports that people expect, or free ones where those are taken.
//!
//! Start at [`Ports::take`].

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use socket2::{Domain, Socket, Type};

const LISTENER: u16 = 8080;
const ADMIN: u16 = 9900;
const STAGE: u16 = 9000;
/// Three shops that run from the start, and one that can be added.
const SHOPS: [u16; 4] = [9001, 9002, 9003, 9004];

/// Everything the demo listens on, or will.
pub struct Ports {
    /// Free a moment ago; Pintle binds these two itself.
    pub listener: SocketAddr,
    pub admin: SocketAddr,
    pub stage: TcpListener,
    pub shops: Vec<TcpListener>,
    /// The address of the shop to add: nobody else gets it, and it refuses connections.
    pub spare: Socket,
    /// The ports that were taken, with what is used instead.
    pub moved: Vec<(u16, u16)>,
}

impl Ports {
    /// With `free`, no port is tried that somebody else may want.
    pub fn take(free: bool) -> io::Result<Self> {
        let mut moved = Vec::new();
        // All are held until the last is chosen, so that no two are the same.
        let listener = hold(LISTENER, free, &mut moved, TcpListener::bind)?;
        let admin = hold(ADMIN, free, &mut moved, TcpListener::bind)?;
        let stage = hold(STAGE, free, &mut moved, TcpListener::bind)?;
        let [shops @ .., spare] = SHOPS;
        let shops: io::Result<Vec<_>> =
            shops.into_iter().map(|port| hold(port, free, &mut moved, TcpListener::bind)).collect();
        let shops = shops?;
        let spare = hold(spare, free, &mut moved, reserve)?;
        Ok(Self { listener: listener.local_addr()?, admin: admin.local_addr()?, stage, shops, spare, moved })
    }
}

trait Bound {
    fn port(&self) -> io::Result<u16>;
}

impl Bound for TcpListener {
    fn port(&self) -> io::Result<u16> {
        Ok(self.local_addr()?.port())
    }
}

impl Bound for Socket {
    fn port(&self) -> io::Result<u16> {
        Ok(self.local_addr()?.as_socket().map_or(0, |address| address.port()))
    }
}

fn hold<B: Bound>(
    wanted: u16,
    free: bool,
    moved: &mut Vec<(u16, u16)>,
    bind: fn(SocketAddr) -> io::Result<B>,
) -> io::Result<B> {
    let at = |port| bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    if free {
        return at(0);
    }
    at(wanted).or_else(|_| {
        let bound = at(0)?;
        moved.push((wanted, bound.port()?));
        Ok(bound)
    })
}

/// Bound and not listening.
fn reserve(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpStream;

    #[test]
    fn a_taken_port_is_replaced_and_said() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let wanted = taken.port().unwrap();
        let mut moved = Vec::new();
        let other = hold(wanted, false, &mut moved, TcpListener::bind).unwrap();
        assert_eq!(moved, [(wanted, other.port().unwrap())]);
        assert_ne!(other.port().unwrap(), wanted);
    }

    #[test]
    fn the_spare_address_is_held_and_refuses_connections() {
        let ports = Ports::take(true).unwrap();
        assert_eq!((ports.shops.len(), ports.moved.len()), (3, 0));
        let spare = ports.spare.local_addr().unwrap().as_socket().unwrap();
        assert!(TcpListener::bind(spare).is_err(), "nobody else gets it");
        let refused = TcpStream::connect(spare).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    }
}
