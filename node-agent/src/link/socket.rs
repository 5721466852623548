//! Netlink sockets, synchronous and of any family: bytes in, bytes out.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
};

use nix::sys::{
    socket::{
        AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket,
        sockopt::ReceiveTimeout,
    },
    time::TimeVal,
};

/// The kernel never needs longer; a wedged one must not hold a CNI call for ever.
const PATIENCE: TimeVal = TimeVal::new(10, 0);

/// A socket that does not wait for ever.
#[derive(Debug)]
pub(crate) struct Socket(OwnedFd);

impl Socket {
    /// Takes a socket that somebody opened, in whatever namespace.
    pub(crate) fn over(socket: OwnedFd) -> io::Result<Self> {
        setsockopt(&socket, ReceiveTimeout, &PATIENCE)?;
        Ok(Self(socket))
    }

    pub(crate) fn write(&self, bytes: &[u8]) -> io::Result<()> {
        Ok(send(self.0.as_raw_fd(), bytes, MsgFlags::empty()).map(drop)?)
    }

    /// One datagram, of at most `room` bytes.
    pub(crate) fn read(&self, room: usize) -> io::Result<Vec<u8>> {
        let mut buffer = vec![0; room];
        let length = loop {
            match recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Err(nix::Error::EINTR) => {}
                other => break other?,
            }
        };
        buffer.truncate(length);
        Ok(buffer)
    }
}

/// A socket of the calling thread's namespace.
pub(crate) fn open(protocol: SockProtocol) -> io::Result<OwnedFd> {
    Ok(socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?)
}
