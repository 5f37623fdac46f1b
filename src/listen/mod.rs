//! Sockets in: bytes, no HTTP.
//!
//! [`bind`] opens an address for all threads and [`deal`] gives them out, [`accept`] takes what comes
//! in, [`proxy_header`] hears who is behind a balancer, [`tls`] shakes hands, and [`io`] is what both
//! sides of the proxy read and write through. [`pass`] hands sockets from one process to the next.

pub mod accept;
pub mod io;
pub mod pass;
pub mod proxy_header;
pub mod stream;
pub mod tickets;
pub mod tls;

use std::io::{Error, ErrorKind, Result};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use socket2::{Domain, Protocol, Socket, Type};

/// Connections that the kernel keeps for us to accept.
const BACKLOG: i32 = 4096;

/// Opens `address` once per thread: one SO_REUSEPORT socket each, so that the kernel deals out
/// connections. The address is bound once without the option first: a second instance then
/// gets "address in use" and not half of the connections.
pub fn bind(address: SocketAddr, threads: usize) -> Result<(SocketAddr, Vec<TcpListener>)> {
    let claim = open(address, false)?;
    let bound = claim.local_addr()?.as_socket().ok_or_else(|| Error::from(ErrorKind::AddrNotAvailable))?;
    drop(claim);
    let sockets: Result<Vec<_>> = (0..threads)
        .map(|_| {
            let socket = open(bound, true)?;
            socket.listen(BACKLOG)?;
            Ok(socket.into())
        })
        .collect();
    Ok((bound, sockets?))
}

/// Gives the sockets of one address to the threads. Each socket goes to one of them, for clients
/// wait at every one; where there are fewer than threads, as with those that another process
/// opened, the others share.
pub fn deal(sockets: Vec<TcpListener>, threads: usize) -> Vec<Vec<TcpListener>> {
    let count = sockets.len();
    // Without a descriptor left for it a thread goes without: others accept there.
    let share = |thread: usize| sockets.get(thread.checked_rem(count)?)?.try_clone().ok();
    let shared: Vec<_> = (count..threads).map(|thread| Vec::from_iter(share(thread))).collect();
    let mut hands: Vec<Vec<_>> = (0..threads.min(count)).map(|_| Vec::new()).collect();
    hands.extend(shared);
    for (index, socket) in sockets.into_iter().enumerate() {
        hands[index % threads].push(socket);
    }
    hands
}

fn open(address: SocketAddr, shared: bool) -> Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Descriptors that connections of both sides hold, over all threads.
pub struct Descriptors {
    open: AtomicUsize,
    limit: usize,
}

/// One of them.
pub struct Descriptor(Arc<Descriptors>);

impl Descriptors {
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { open: AtomicUsize::new(0), limit })
    }

    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Whether there is no room for another client.
    pub fn is_full(&self) -> bool {
        self.open.load(Ordering::Relaxed) >= self.limit
    }

    /// Counts one. Connections to backends are counted but never refused: they serve clients
    /// that are in already.
    pub fn take(self: &Arc<Self>) -> Descriptor {
        self.open.fetch_add(1, Ordering::Relaxed);
        Descriptor(self.clone())
    }
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;

    #[test]
    fn every_socket_has_one_thread_and_every_thread_a_socket() {
        for (sockets, threads) in [(1, 1), (2, 2), (5, 2), (2, 5), (1, 4), (0, 3)] {
            let opened: Vec<_> = (0..sockets).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
            let numbers: Vec<_> = opened.iter().map(AsRawFd::as_raw_fd).collect();
            let hands = deal(opened, threads);
            let dealt: Vec<_> = hands.iter().flatten().map(AsRawFd::as_raw_fd).collect();
            let context = format!("{sockets} sockets, {threads} threads");
            assert_eq!(hands.len(), threads, "{context}");
            for number in &numbers {
                assert_eq!(dealt.iter().filter(|dealt| *dealt == number).count(), 1, "{context}");
            }
            assert!(sockets == 0 || hands.iter().all(|hand| !hand.is_empty()), "{context}");
        }
    }
}
