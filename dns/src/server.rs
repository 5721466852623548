//! The sockets: a thread for each processor, eight at most, has a datagram socket of its own and answers in place; questions that need an
//! upstream resolver, and connections, get a task of their own, and their number is bounded.

mod datagrams;
mod streams;
pub mod tls;

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::batch;
use crate::handler::Handler;

/// A client that takes its reply this slowly is dropped.
pub(crate) const SLOW: Duration = Duration::from_secs(5);
/// Datagram sockets, and threads, of an address: more would cost memory, and a wake-up each `LOOK`, for rates that no cluster asks.
const SOCKETS: usize = 8;
/// How soon a thread that waits for datagrams sees that it is to end.
const LOOK: Duration = Duration::from_millis(100);
/// After a socket error, so that one that stays does not burn a processor.
const PAUSE: Duration = Duration::from_millis(10);

/// Why the server cannot listen.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen for DNS on {address}: is the port taken, or not allowed to this user?")]
pub struct Error {
    /// The address asked for.
    pub address: SocketAddr,
    /// What the kernel says.
    #[source]
    pub source: io::Error,
}

/// One address, bound for datagrams and connections.
#[derive(Debug)]
pub struct Sockets {
    /// All of one address and port, among which the kernel divides clients.
    udp: Vec<UdpSocket>,
    tcp: TcpListener,
}

impl Sockets {
    /// Binds `address`; with port 0 both get the same free port.
    ///
    /// # Errors
    /// The address or port cannot be had.
    #[expect(clippy::unused_async, reason = "a listener needs the runtime that an async function runs in")]
    pub async fn bind(address: SocketAddr) -> Result<Self, Error> {
        let failed = |source| Error { address, source };
        let tcp = streams::listen(address).map_err(failed)?;
        let address = tcp.local_addr().map_err(failed)?;
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(SOCKETS);
        let udp =
            (0..threads).map(|_| batch::open(address, LOOK)).collect::<Result<_, _>>().map_err(failed)?;
        Ok(Self { udp, tcp })
    }

    /// The address that was bound.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    /// Answers until `stop`; what is under way then is finished, for `SLOW` at most.
    pub async fn serve(self, handler: Handler, stop: CancellationToken) {
        let mut tasks = JoinSet::new();
        for socket in self.udp {
            tasks.spawn(datagrams::serve(socket, handler.clone(), stop.clone()));
        }
        tasks.spawn(streams::serve(self.tcp, streams::Plain, handler, stop.clone()));
        stop.cancelled().await;
        while tasks.join_next().await.is_some() {}
    }
}
