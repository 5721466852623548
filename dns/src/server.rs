//! The sockets: a thread for each processor, eight at most, has a datagram socket of its own and answers in place; questions that need an
//! upstream resolver, and connections, get a task of their own, and their number is bounded.

mod datagrams;

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::batch;
use crate::handler::{Handler, Outcome};
use crate::message::Transport;

/// A connection without a question for this long is closed.
const IDLE: Duration = Duration::from_secs(10);
/// A client that takes its reply this slowly is dropped.
pub(crate) const SLOW: Duration = Duration::from_secs(5);
/// Connections at a time; more wait to be accepted.
const CONNECTIONS: usize = 1000;
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
    pub async fn bind(address: SocketAddr) -> Result<Self, Error> {
        let failed = |source| Error { address, source };
        let tcp = TcpListener::bind(address).await.map_err(failed)?;
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
        tasks.spawn(connections(self.tcp, handler, stop.clone()));
        stop.cancelled().await;
        while tasks.join_next().await.is_some() {}
    }
}

async fn connections(listener: TcpListener, handler: Handler, stop: CancellationToken) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    let mut open = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &permits) => accepted,
            Some(_) = open.join_next() => continue,
            () = stop.cancelled() => break,
        };
        match accepted {
            Ok((stream, client, permit)) => {
                let (handler, stop) = (handler.clone(), stop.clone());
                open.spawn(async move {
                    let _permit = permit;
                    if let Err(error) = connection(stream, client, handler, stop).await {
                        tracing::debug!(%error, %client, "a connection ended");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                sleep(PAUSE).await;
            }
        }
    }
    let _ = timeout(SLOW, async { while open.join_next().await.is_some() {} }).await;
}

async fn accept(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
) -> io::Result<(TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit)> {
    let permit = permits.clone().acquire_owned().await.map_err(io::Error::other)?;
    let (stream, client) = listener.accept().await?;
    Ok((stream, client, permit))
}

/// Answers the questions of a connection, one after the other.
async fn connection(
    mut stream: TcpStream,
    client: SocketAddr,
    handler: Handler,
    stop: CancellationToken,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    loop {
        let packet = tokio::select! {
            packet = timeout(IDLE, packet(&mut stream)) => match packet {
                Ok(Ok(packet)) => packet,
                Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                Ok(Err(error)) => return Err(error),
                Err(_) => return Ok(()),
            },
            () = stop.cancelled() => return Ok(()),
        };
        let reply = match handler.start(&packet, Transport::Tcp, client) {
            Outcome::Reply(reply) => reply,
            Outcome::Later(pending) => handler.finish(pending).await,
            Outcome::Nothing => return Ok(()),
        };
        let length = u16::try_from(reply.len()).map_err(io::Error::other)?;
        timeout(SLOW, stream.write_all(&[&length.to_be_bytes(), reply.as_slice()].concat())).await??;
    }
}

async fn packet(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let length = stream.read_u16().await?;
    let mut packet = vec![0; usize::from(length)];
    stream.read_exact(&mut packet).await?;
    Ok(packet)
}
