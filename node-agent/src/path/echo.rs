//! Questions and answers between agents over UDP. A question fills a packet of the size that is tried, and must not be fragmented; the answer has a
//! few bytes, never more than the question, and goes to known nodes alone.

use std::{
    collections::{HashMap, HashSet},
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use netkeel_core::address::Addresses;
use nix::{
    libc,
    sys::socket::{setsockopt, sockopt::SetStruct},
};
use tokio::{
    net::UdpSocket,
    sync::{oneshot, watch},
    task::JoinSet,
    time::timeout,
};

use super::{Asked, Targets};

/// UDP port of agents on their nodes' overlay addresses.
pub const PORT: u16 = 9470;

/// So often is a size tried before it counts as lost.
const TRIES: usize = 3;
/// An answer that takes longer is none.
const PATIENCE: Duration = Duration::from_millis(300);
const QUESTION: [u8; 8] = *b"netkeel?";
const ANSWER: [u8; 8] = *b"netkeel!";
/// Bytes of an answer, and of what a question says: the kind, and a number that only the asker knows.
const LENGTH: usize = 16;
/// Headers of IPv4 and UDP, bytes.
const HEADERS_IPV4: usize = 28;
/// Headers of IPv6 and UDP, bytes.
const HEADERS_IPV6: usize = 48;
/// More than any packet has.
const BUFFER: usize = 65_536;

nix::setsockopt_impl!(MtuDiscover, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, i32, SetStruct<'_, i32>);
nix::setsockopt_impl!(MtuDiscoverIpv6, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, i32, SetStruct<'_, i32>);

/// A socket option of packets that are never fragmented, whatever the kernel has learned of the way.
#[derive(Clone, Copy, Debug)]
struct MtuDiscover;
/// The same of IPv6.
#[derive(Clone, Copy, Debug)]
struct MtuDiscoverIpv6;

type Waiting = Arc<Mutex<HashMap<u64, oneshot::Sender<()>>>>;

/// The sockets of a node: they answer and ask until this is dropped.
#[derive(Debug)]
pub(super) struct Echo {
    sockets: Vec<Arc<UdpSocket>>,
    waiting: Waiting,
    _answering: JoinSet<()>,
}

impl Echo {
    /// Opens a socket on each of these addresses, which answers the nodes that `targets` has.
    pub(super) fn open(own: Addresses, targets: &watch::Receiver<Targets>) -> io::Result<Self> {
        let sockets =
            own.iter().map(|address| open(address).map(Arc::new)).collect::<io::Result<Vec<_>>>()?;
        let (waiting, mut answering) = (Waiting::default(), JoinSet::new());
        for socket in &sockets {
            answering.spawn(serve(socket.clone(), Known::new(targets.clone()), waiting.clone()));
        }
        Ok(Self { sockets, waiting, _answering: answering })
    }

    /// Whether a packet of `size` bytes, IP header included, arrives at the agent of the node with this overlay address.
    pub(super) async fn ask(&self, to: IpAddr, size: u32) -> Asked {
        let is_like =
            |socket: &&Arc<UdpSocket>| socket.local_addr().is_ok_and(|own| own.is_ipv4() == to.is_ipv4());
        let Some(socket) = self.sockets.iter().find(is_like) else { return Asked::Lost };
        let headers = if to.is_ipv4() { HEADERS_IPV4 } else { HEADERS_IPV6 };
        let mut question = vec![0; (size as usize).saturating_sub(headers).max(LENGTH)];
        for _ in 0..TRIES {
            let number = rand::random();
            question[..LENGTH].copy_from_slice(&message(QUESTION, number));
            let (tell, told) = oneshot::channel();
            self.waiting().insert(number, tell);
            // What is larger than the interface takes fails here, and is lost like what is larger than a switch takes.
            let sent = socket.send_to(&question, SocketAddr::new(to, PORT)).await;
            let answered = match sent {
                Ok(_) => timeout(PATIENCE, told).await.is_ok_and(|told| told.is_ok()),
                Err(_) => false,
            };
            self.waiting().remove(&number);
            if answered {
                return Asked::Arrived;
            }
        }
        Asked::Lost
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, HashMap<u64, oneshot::Sender<()>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn open(address: IpAddr) -> io::Result<UdpSocket> {
    let socket = std::net::UdpSocket::bind((address, PORT))?;
    socket.set_nonblocking(true)?;
    if address.is_ipv4() {
        setsockopt(&socket, MtuDiscover, &libc::IP_PMTUDISC_PROBE)?;
    } else {
        setsockopt(&socket, MtuDiscoverIpv6, &libc::IPV6_PMTUDISC_PROBE)?;
    }
    UdpSocket::from_std(socket)
}

async fn serve(socket: Arc<UdpSocket>, mut known: Known, waiting: Waiting) {
    let mut buffer = vec![0; BUFFER];
    loop {
        // An error is an answer to an earlier packet; whoever waits for it waits no longer than for others.
        let Ok((length, from)) = socket.recv_from(&mut buffer).await else { continue };
        match read(&buffer[..length]) {
            Some((ANSWER, number)) => {
                let tell = waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&number);
                if let Some(tell) = tell {
                    let _: Result<(), ()> = tell.send(());
                }
            }
            Some((QUESTION, number)) if known.has(from.ip()) => {
                let _: io::Result<usize> = socket.try_send_to(&message(ANSWER, number), from);
            }
            _ => {}
        }
    }
}

/// The addresses of known nodes, for anybody may ask.
struct Known {
    targets: watch::Receiver<Targets>,
    addresses: HashSet<IpAddr>,
}

impl Known {
    fn new(targets: watch::Receiver<Targets>) -> Self {
        let mut known = Self { targets, addresses: HashSet::new() };
        known.read();
        known
    }

    fn read(&mut self) {
        let targets = self.targets.borrow_and_update();
        self.addresses = targets.peers.values().flat_map(|peer| peer.addresses.iter()).collect();
    }

    fn has(&mut self, address: IpAddr) -> bool {
        if self.targets.has_changed().is_ok_and(|changed| changed) {
            self.read();
        }
        self.addresses.contains(&address)
    }
}

fn message(kind: [u8; 8], number: u64) -> [u8; LENGTH] {
    let mut message = [0; LENGTH];
    message[..8].copy_from_slice(&kind);
    message[8..].copy_from_slice(&number.to_be_bytes());
    message
}

fn read(packet: &[u8]) -> Option<([u8; 8], u64)> {
    let (kind, rest) = packet.split_first_chunk()?;
    Some((*kind, u64::from_be_bytes(*rest.first_chunk()?)))
}

#[cfg(test)]
mod tests {
    use super::{super::Peer, *};

    #[test]
    fn an_answer_is_never_longer_than_its_question() {
        let question = message(QUESTION, 7);
        assert_eq!(read(&question), Some((QUESTION, 7)));
        for length in 0..LENGTH {
            assert_eq!(read(&question[..length]), None, "what is shorter than an answer gets none");
        }
        assert_eq!(read(&[&question[..], &[9; 1400]].concat()), Some((QUESTION, 7)));
    }

    #[test]
    fn only_nodes_that_are_known_are_answered() {
        let targets = watch::Sender::new(Targets::default());
        let mut known = Known::new(targets.subscribe());
        let address = IpAddr::from([10, 244, 1, 0]);
        assert!(!known.has(address));
        let peer = Peer { addresses: Addresses::of([address]), mtu: 1450 };
        targets.send_modify(|targets| targets.peers.extend([("n1".into(), peer)]));
        assert!(known.has(address) && !known.has(IpAddr::from([10, 244, 1, 1])));
        targets.send_modify(|targets| targets.peers.clear());
        assert!(!known.has(address));
    }
}
