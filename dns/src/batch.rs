//! Datagrams by the dozen: one system call receives what is waiting, one sends the replies, each from the address that its
//! question was sent to (recvmmsg(2), sendmmsg(2), `IP_PKTINFO` in ip(7), `IPV6_PKTINFO` in ipv6(7)).
#![expect(unsafe_code, reason = "nix's recvmmsg loses control messages from the second call on")]

mod filter;

use std::io;
use std::mem;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::ptr;
use std::time::Duration;

use nix::sys::socket::sockopt::{Ipv4PacketInfo, Ipv6RecvPacketInfo, RcvBuf, ReusePort};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, bind, setsockopt, socket};

use crate::limit::Client;
use crate::limit::overload::Queue;

/// Datagrams of one call.
const SIZE: usize = 32;
/// Room for one question, in bytes. What is longer is cut, and no question any more.
const ROOM: usize = 4096;
/// Bytes of a control message before its data.
const CONTROL_HEADER: usize = mem::size_of::<libc::cmsghdr>();
const _: () = assert!(CONTROL_HEADER == 16, "control messages are read as 64-bit Linux lays them out");
/// What the kernel can keep of datagrams that nobody has read yet, in bytes; it grants less where `rmem_max` says so.
const BUFFER: usize = 1 << 20;
/// Numbers that `SO_MEMINFO` gives, `SK_MEMINFO_VARS` of `linux/sock_diag.h`.
const MEMINFO: usize = 9;

/// A socket of `address` that shares its port with others of this program, and gives up waiting after `patience`.
pub(crate) fn open(address: SocketAddr, patience: Duration) -> io::Result<UdpSocket> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let socket = socket(family, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&socket, ReusePort, &true)?;
    if address.is_ipv4() {
        setsockopt(&socket, Ipv4PacketInfo, &true)?;
    } else {
        setsockopt(&socket, Ipv6RecvPacketInfo, &true)?;
    }
    setsockopt(&socket, RcvBuf, &BUFFER)?;
    bind(socket.as_raw_fd(), &SockaddrStorage::from(address))?;
    let socket = UdpSocket::from(socket);
    socket.set_read_timeout(Some(patience))?;
    Ok(socket)
}

/// What waits in the socket's queue.
pub(crate) fn queue(socket: &UdpSocket) -> io::Result<Queue> {
    let mut info = [0_u32; MEMINFO];
    let mut length = libc::socklen_t::try_from(mem::size_of_val(&info)).unwrap_or_default();
    // SAFETY: `info` is as long as `length` says and lives until the call returns.
    let done = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            info.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    // SK_MEMINFO_RMEM_ALLOC, SK_MEMINFO_RCVBUF and SK_MEMINFO_DROPS of linux/sock_diag.h
    Ok(Queue { used: info[0], room: info[1], lost: info[8] })
}

/// Lets only the told shares of these clients' datagrams into the socket's queue, by chance, and those of all others.
pub(crate) fn hold_back(socket: &UdpSocket, clients: &[(Client, f64)]) -> io::Result<()> {
    let mut filter = filter::program(clients);
    let program =
        libc::sock_fprog { len: filter.len().try_into().unwrap_or_default(), filter: filter.as_mut_ptr() };
    let option = if clients.is_empty() { libc::SO_DETACH_FILTER } else { libc::SO_ATTACH_FILTER };
    // SAFETY: the program lives until the call returns, is as long as it says, and the kernel copies it; without one it is not read.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            ptr::from_ref(&program).cast(),
            mem::size_of_val(&program).try_into().unwrap_or_default(),
        )
    };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Bytes where the kernel expects a struct.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Raw<const SIZE: usize>([u8; SIZE]);

/// Where a datagram came from, and which of this host's addresses it was sent to, as the kernel says it. A reply goes the same way back.
#[derive(Clone, Copy)]
pub(crate) struct Origin {
    /// `struct sockaddr_in` or `sockaddr_in6`.
    name: Raw<28>,
    name_length: usize,
    /// One control message at most.
    control: Raw<64>,
    control_length: usize,
}

impl Origin {
    const UNKNOWN: Self =
        Self { name: Raw([0; 28]), name_length: 0, control: Raw([0; 64]), control_length: 0 };

    /// The sender.
    pub(crate) fn client(&self) -> SocketAddr {
        let Raw(name) = &self.name;
        let port = u16::from_be_bytes([name[2], name[3]]);
        let ip = if i32::from(u16::from_ne_bytes([name[0], name[1]])) == libc::AF_INET {
            let mut octets = [0; 4];
            octets.copy_from_slice(&name[4..8]);
            IpAddr::from(Ipv4Addr::from(octets))
        } else {
            let mut octets = [0; 16];
            octets.copy_from_slice(&name[8..24]);
            IpAddr::from(Ipv6Addr::from(octets))
        };
        SocketAddr::new(ip, port)
    }

    /// Says from which address a reply goes, and leaves the device to the routes, but that of an address of one link alone.
    fn turn_around(&mut self) {
        let Raw(control) = &mut self.control;
        let number =
            |at: usize| i32::from_ne_bytes([control[at], control[at + 1], control[at + 2], control[at + 3]]);
        let ifindex = match (number(8), number(12)) {
            _ if self.control_length < CONTROL_HEADER => return,
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => CONTROL_HEADER,
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO)
                if control[CONTROL_HEADER] != 0xfe || control[CONTROL_HEADER + 1] & 0xc0 != 0x80 =>
            {
                CONTROL_HEADER + 16
            }
            _ => return,
        };
        control[ifindex..ifindex + 4].fill(0);
    }

    /// Sends one datagram back, or loses it where the socket has no room, as the network does: tasks that wait share their threads.
    pub(crate) fn send(&mut self, socket: &UdpSocket, bytes: &[u8]) -> io::Result<()> {
        let mut vector = vector_of(bytes);
        let header = self.header(&mut vector);
        // SAFETY: all that the header points to lives until the call returns, and the kernel only reads it.
        let sent =
            unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const header.msg_hdr, libc::MSG_DONTWAIT) };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// A header that says this and one vector, for the kernel to read, or to write as far as the lengths say.
    fn header(&mut self, vector: &mut libc::iovec) -> libc::mmsghdr {
        // SAFETY: integers and pointers: all zero is a value.
        let mut header: libc::mmsghdr = unsafe { mem::zeroed() };
        let message = &mut header.msg_hdr;
        message.msg_name = ptr::from_mut(&mut self.name).cast();
        message.msg_namelen = self.name_length.try_into().unwrap_or_default();
        message.msg_iov = vector;
        message.msg_iovlen = 1;
        message.msg_control = ptr::from_mut(&mut self.control).cast();
        message.msg_controllen = self.control_length;
        header
    }
}

fn vector_of(bytes: &[u8]) -> libc::iovec {
    libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() }
}

fn no_headers() -> [libc::mmsghdr; SIZE] {
    // SAFETY: integers and pointers: all zero is a value.
    unsafe { mem::zeroed() }
}

const NO_VECTOR: libc::iovec = libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 };

/// What one call received, and the reply to each.
pub(crate) struct Batch {
    received: usize,
    lengths: [usize; SIZE],
    packets: Box<[[u8; ROOM]]>,
    origins: Box<[Origin]>,
    replies: Vec<Vec<u8>>,
}

impl Batch {
    pub(crate) fn new() -> Self {
        Self {
            received: 0,
            lengths: [0; SIZE],
            packets: vec![[0; ROOM]; SIZE].into(),
            origins: vec![Origin::UNKNOWN; SIZE].into(),
            replies: (0..SIZE).map(|_| Vec::with_capacity(ROOM)).collect(),
        }
    }

    /// Waits for a datagram, and takes what is there then.
    pub(crate) fn receive(&mut self, socket: &UdpSocket) -> io::Result<()> {
        self.received = 0;
        let mut vectors = [NO_VECTOR; SIZE];
        for (vector, packet) in vectors.iter_mut().zip(&mut self.packets) {
            *vector = libc::iovec { iov_base: packet.as_mut_ptr().cast(), iov_len: ROOM };
        }
        let mut headers = no_headers();
        for ((header, origin), vector) in headers.iter_mut().zip(&mut self.origins).zip(&mut vectors) {
            *origin = Origin { name_length: 28, control_length: 64, ..*origin };
            *header = origin.header(vector);
        }
        // SAFETY: each header points to memory of its own that lives until the call returns, and says how long it is.
        let received = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                headers.as_mut_ptr(),
                SIZE.try_into().unwrap_or_default(),
                libc::MSG_WAITFORONE,
                ptr::null_mut(),
            )
        };
        self.received = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
        for (index, header) in headers.iter().enumerate().take(self.received) {
            let origin = &mut self.origins[index];
            origin.name_length = header.msg_hdr.msg_namelen.try_into().unwrap_or_default();
            origin.control_length = header.msg_hdr.msg_controllen;
            origin.turn_around();
            self.lengths[index] = header.msg_len.try_into().unwrap_or_default();
            self.replies[index].clear();
        }
        Ok(())
    }

    /// Whether more may be waiting than was received.
    pub(crate) fn is_full(&self) -> bool {
        self.received == SIZE
    }

    /// What was received: each packet, where it came from, and the place for its reply.
    pub(crate) fn each(&mut self) -> impl Iterator<Item = (&[u8], Origin, &mut Vec<u8>)> {
        let packets = self.packets.iter().zip(&self.lengths);
        let packets = packets.map(|(packet, length)| &packet[..ROOM.min(*length)]);
        let all = packets.zip(&self.origins).zip(&mut self.replies).take(self.received);
        all.map(|((packet, origin), reply)| (packet, *origin, reply))
    }

    /// Sends the replies that are not empty. One that cannot be sent does not keep back the others; gives what the kernel said of the last of those.
    pub(crate) fn send(&mut self, socket: &UdpSocket) -> Option<io::Error> {
        let mut vectors = [NO_VECTOR; SIZE];
        let mut headers = no_headers();
        let mut count = 0;
        let replies = self.origins.iter_mut().zip(&self.replies).take(self.received);
        for ((origin, reply), vector) in replies.filter(|(_, reply)| !reply.is_empty()).zip(&mut vectors) {
            *vector = vector_of(reply);
            headers[count] = origin.header(vector);
            count += 1;
        }
        let (mut sent, mut problem) = (0, None);
        while sent < count {
            let rest = &mut headers[sent..count];
            let length = rest.len().try_into().unwrap_or_default();
            // SAFETY: as in `Origin::send`.
            let done = unsafe { libc::sendmmsg(socket.as_raw_fd(), rest.as_mut_ptr(), length, 0) };
            sent += usize::try_from(done).unwrap_or_else(|_| {
                let error = io::Error::last_os_error();
                if error.kind() == io::ErrorKind::Interrupted {
                    return 0;
                }
                problem = Some(error);
                1
            });
        }
        problem
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(5);

    #[test]
    fn each_reply_comes_from_the_address_that_was_asked_in_both_families() {
        let any: [(&str, &[&str]); 2] =
            [("0.0.0.0:0", &["127.0.0.1", "127.0.0.2", "127.9.9.9"]), ("[::]:0", &["::1", "127.0.0.3"])];
        for (any, asked) in any {
            let server = open(any.parse().unwrap(), PATIENCE).unwrap();
            let port = server.local_addr().unwrap().port();
            let clients: Vec<UdpSocket> = asked
                .iter()
                .map(|address| {
                    let address: IpAddr = address.parse().unwrap();
                    let own = if address.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" };
                    let client = UdpSocket::bind(own).unwrap();
                    // A connected socket takes nothing from another address.
                    client.connect((address, port)).unwrap();
                    client.set_read_timeout(Some(PATIENCE)).unwrap();
                    client
                })
                .collect();
            let mut batch = Batch::new();
            for round in 0..3_u8 {
                for client in &clients {
                    assert_eq!(client.send(&[round]).unwrap(), 1);
                }
                let mut seen = 0;
                while seen < clients.len() {
                    batch.receive(&server).unwrap();
                    for (packet, origin, reply) in batch.each() {
                        let from = origin.client();
                        let from = SocketAddr::new(from.ip().to_canonical(), from.port());
                        assert!(clients.iter().any(|client| client.local_addr().unwrap() == from), "{from}");
                        reply.extend_from_slice(packet);
                        reply.push(1);
                        seen += 1;
                    }
                    assert!(batch.send(&server).is_none());
                }
                for client in &clients {
                    let mut buffer = [0; 8];
                    assert_eq!(client.recv(&mut buffer).unwrap(), 2, "{client:?}");
                    assert_eq!(buffer[..2], [round, 1]);
                }
            }
        }
    }

    #[test]
    fn a_batch_is_as_many_as_wait_and_a_reply_that_cannot_be_sent_keeps_back_no_other() {
        let server = open("127.0.0.1:0".parse().unwrap(), PATIENCE).unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.connect(server.local_addr().unwrap()).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        for number in 0..40 {
            client.send(&[number]).unwrap();
        }
        let queued = queue(&server).unwrap();
        assert!(queued.used > 40 * 128 && queued.used < queued.room && queued.lost == 0, "{queued:?}");
        let mut batch = Batch::new();
        batch.receive(&server).unwrap();
        assert_eq!((batch.each().count(), batch.is_full()), (SIZE, true));
        for (packet, _, reply) in batch.each() {
            // Longer than any datagram.
            reply.resize(if packet[0] == 1 { 70_000 } else { 1 }, packet[0]);
        }
        assert_eq!(batch.send(&server).unwrap().raw_os_error(), Some(libc::EMSGSIZE));
        let mut buffer = [0; 8];
        for number in (0..40_u8).filter(|number| *number != 1).take(SIZE - 1) {
            assert_eq!((client.recv(&mut buffer).unwrap(), buffer[0]), (1, number));
        }
        batch.receive(&server).unwrap();
        assert_eq!((batch.each().count(), batch.is_full()), (8, false));
        assert_eq!(queue(&server).unwrap(), Queue { used: 0, ..queued });
        for (index, (packet, mut origin, _)) in batch.each().enumerate() {
            assert_eq!(usize::from(packet[0]), SIZE + index);
            origin.send(&server, packet).unwrap();
        }
        assert_eq!((client.recv(&mut buffer).unwrap(), buffer[0]), (1, 32));
    }

    #[test]
    fn who_is_held_back_is_not_received_and_all_others_are() {
        let (any, clients) = ("[::]:0", ["127.0.0.2", "127.0.0.3", "::1", "127.0.0.4"]);
        let server = open(any.parse().unwrap(), PATIENCE).unwrap();
        let port = server.local_addr().unwrap().port();
        let sockets = clients.map(|client| {
            let address: IpAddr = client.parse().unwrap();
            let socket = UdpSocket::bind((address, 0)).unwrap();
            let to: IpAddr = if address.is_ipv4() { [127, 0, 0, 1].into() } else { address };
            socket.connect((to, port)).unwrap();
            socket
        });
        let mut batch = Batch::new();
        let mut received = |held: &[&str]| {
            let held: Vec<_> = held.iter().map(|client| (Client::of(client.parse().unwrap()), 0.0)).collect();
            hold_back(&server, &held).unwrap();
            for (number, socket) in (0..).zip(&sockets) {
                socket.send(&[number]).unwrap();
            }
            batch.receive(&server).unwrap();
            batch.each().map(|(packet, ..)| packet[0]).collect::<Vec<u8>>()
        };
        assert_eq!(received(&["127.0.0.2"]), [1, 2, 3]);
        assert_eq!(received(&["::1", "127.0.0.3"]), [0, 3]);
        assert_eq!(received(&["127.0.0.9", "fd00::1", "127.0.0.4"]), [0, 1, 2]);
        // Others of the same network, and each that differs in four bytes alone.
        assert_eq!(received(&["::2", "::1:0:1", "0:0:0:1::1", "1::1"]), [0, 1, 2, 3]);
        assert_eq!(received(&["::2", "1::1", "::1", "::3"]), [0, 1, 3]);
        assert_eq!(received(&[]), [0, 1, 2, 3]);
        // What is a header alone counts apart.
        let mut headers = |bare| {
            let held =
                ["127.0.0.2", "::1"].map(|client| Client { bare, ..Client::of(client.parse().unwrap()) });
            hold_back(&server, &held.map(|client| (client, 0.0))).unwrap();
            for (number, socket) in (0..).zip(&sockets) {
                socket.send(&[number; 12]).unwrap();
                socket.send(&[number; 13]).unwrap();
            }
            batch.receive(&server).unwrap();
            batch.each().map(|(packet, ..)| (packet[0], packet.len())).collect::<Vec<_>>()
        };
        assert_eq!(headers(false), [(0, 12), (1, 12), (1, 13), (2, 12), (3, 12), (3, 13)]);
        assert_eq!(headers(true), [(0, 13), (1, 12), (1, 13), (2, 13), (3, 12), (3, 13)]);
        hold_back(&server, &[(Client::of("127.0.0.2".parse().unwrap()), 0.5)]).unwrap();
        let mut through = 0;
        for _ in 0..100 {
            (0..10).for_each(|_| drop(sockets[0].send(&[0])));
            sockets[1].send(&[1]).unwrap();
            batch.receive(&server).unwrap();
            through += batch.each().filter(|(packet, ..)| packet[0] == 0).count();
        }
        assert!((350..650).contains(&through), "half of 1000: {through}");
    }
}
