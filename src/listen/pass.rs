//! Sockets that change hands: descriptors through a unix socket, from one process to the next.
//!
//! Start at [`send`]. A descriptor that is passed is the same open socket, with the same queue of
//! clients: nothing is bound anew and nobody in line is lost. What is said beside them does not
//! belong here.

use std::io::{Error, ErrorKind, IoSlice, IoSliceMut, Result};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::cmsg_space;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};

/// Descriptors in one message; the kernel allows 253.
const AT_A_TIME: usize = 64;

/// Every message carries one byte, without which the kernel would carry no descriptors.
const BYTE: u8 = b'+';

/// Sends all of them, in order.
pub fn send(to: &UnixStream, descriptors: &[BorrowedFd<'_>]) -> Result<()> {
    for some in descriptors.chunks(AT_A_TIME) {
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(AT_A_TIME))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !control.push(SendAncillaryMessage::ScmRights(some)) {
            return Err(Error::other("no room for the descriptors of one message"));
        }
        sendmsg(to, &[IoSlice::new(&[BYTE])], &mut control, SendFlags::NOSIGNAL)?;
    }
    Ok(())
}

/// Receives exactly `count`, in the order they were sent in. None of them outlives an `exec`.
pub fn receive(from: &UnixStream, count: usize) -> Result<Vec<OwnedFd>> {
    let mut received = Vec::new();
    while received.len() < count {
        let mut byte = [0];
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(AT_A_TIME))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let message =
            recvmsg(from, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
        if message.bytes == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let before = received.len();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                received.extend(descriptors);
            }
        }
        if received.len() == before || received.len() > count {
            return Err(Error::new(ErrorKind::InvalidData, "not as many descriptors as were announced"));
        }
    }
    Ok(received)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;

    #[test]
    fn more_sockets_than_one_message_holds_arrive_in_order_and_take_their_clients_along() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let sockets: Vec<_> = (0..150).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let addresses: Vec<_> = sockets.iter().map(|socket| socket.local_addr().unwrap()).collect();
        let mut waiting = TcpStream::connect(addresses[149]).unwrap();
        send(&ours, &sockets.iter().map(AsFd::as_fd).collect::<Vec<_>>()).unwrap();
        drop(sockets);
        let received: Vec<TcpListener> =
            receive(&theirs, 150).unwrap().into_iter().map(TcpListener::from).collect();
        assert_eq!(received.iter().map(|socket| socket.local_addr().unwrap()).collect::<Vec<_>>(), addresses);
        received[149].accept().unwrap().0.write_all(b"!").unwrap();
        let mut said = [0];
        waiting.read_exact(&mut said).unwrap();
        assert_eq!(&said, b"!");
    }

    #[test]
    fn bytes_without_descriptors_and_an_early_end_are_errors() {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        ours.write_all(b"+").unwrap();
        assert_eq!(receive(&theirs, 1).unwrap_err().kind(), ErrorKind::InvalidData);
        drop(ours);
        assert_eq!(receive(&theirs, 1).unwrap_err().kind(), ErrorKind::UnexpectedEof);
    }
}
