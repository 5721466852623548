//! Connections: questions of a stream are answered one after the other. What a client can hold is bounded: its connections, the
//! time for a question and for a reply, the length of a question, and all long replies together.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{PAUSE, SLOW};
use crate::handler::{Handler, Outcome};
use crate::limit::Client;
use crate::limit::open::Place;
use crate::limit::rate::Rate;
use crate::message::Transport;
use crate::metrics::Reason;

/// A connection without a question for this long is closed.
const IDLE: Duration = Duration::from_secs(10);
/// A question that has begun is there by then, as a whole.
const WHOLE: Duration = Duration::from_secs(2);
/// Longest question in bytes, as with datagrams; one with all options there are has a few hundred.
const LONGEST: usize = 4096;
/// What the kernel keeps of a connection's replies and questions, in bytes; it doubles both for itself (socket(7)).
const BUFFERS: (u32, u32) = (32 << 10, 8 << 10);
/// Connections that wait to be accepted.
const BACKLOG: u32 = 1024;
/// Replies longer than this, in bytes, share [`crate::limit::Limits::long_replies`].
const LONG: usize = 4096;

/// A stream of questions and replies, such as of TCP or of TLS.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// Turns an accepted connection into the stream that carries the questions.
pub(super) trait Opens: Clone + Send + 'static {
    type Stream: Stream;
    /// Whether there is a handshake, for which the client sends something first and which costs the server time.
    const HANDSHAKE: bool = true;
    fn open(self, stream: TcpStream) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

/// Plain TCP.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plain;

impl Opens for Plain {
    type Stream = TcpStream;
    const HANDSHAKE: bool = false;

    async fn open(self, stream: TcpStream) -> io::Result<TcpStream> {
        Ok(stream)
    }
}

pub(super) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    // Connections have what their listener has.
    let (replies, questions) = BUFFERS;
    socket.set_send_buffer_size(replies)?;
    socket.set_recv_buffer_size(questions)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Answers at `listener` until `stop`; what is under way then is finished, for `SLOW` at most.
pub(super) async fn serve(
    listener: TcpListener,
    opens: impl Opens,
    handler: Handler,
    stop: CancellationToken,
) {
    let mut running = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = running.join_next() => continue,
            () = stop.cancelled() => break,
        };
        match accepted {
            Ok((stream, client)) => {
                let (place, replaced) = handler.limits().connections.place(Client::of(client.ip()));
                if replaced {
                    handler.limits().count(Reason::Connections, 1);
                }
                let (opens, stop) = (opens.clone(), stop.clone());
                let connection = Connection { client, place, handler: handler.clone(), stop };
                running.spawn(connection.run(stream, opens));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                sleep(PAUSE).await;
            }
        }
    }
    drop(listener);
    let _ = timeout(SLOW, async { while running.join_next().await.is_some() {} }).await;
}

struct Connection {
    client: SocketAddr,
    place: Place,
    handler: Handler,
    stop: CancellationToken,
}

impl Connection {
    async fn run(self, stream: TcpStream, opens: impl Opens) {
        let close = self.place.close.clone();
        let answering = async {
            stream.set_nodelay(true)?;
            let Some(mut stream) = timeout(SLOW, self.open(stream, opens)).await?? else { return Ok(()) };
            self.answer(&mut stream).await?;
            timeout(SLOW, stream.shutdown()).await?
        };
        let ended = tokio::select! {
            ended = answering => ended,
            () = close.cancelled() => Ok(()),
        };
        if let Err(error) = ended {
            tracing::debug!(%error, client = %self.client, "a connection ended");
        }
    }

    /// Opens the stream of questions. A handshake counts as a question, and a client's next one waits while too many are under way; one that
    /// has not begun is not under way. `None` where the client has to wait too long.
    async fn open<T: Opens>(&self, stream: TcpStream, opens: T) -> io::Result<Option<T::Stream>> {
        if !T::HANDSHAKE {
            return opens.open(stream).await.map(Some);
        }
        stream.readable().await?;
        if !self.turn().await {
            return Ok(None);
        }
        let _under_way = self.place.handshakes.acquire().await.map_err(io::Error::other)?;
        opens.open(stream).await.map(Some)
    }

    /// Answers the questions, one after the other.
    async fn answer(&self, stream: &mut impl Stream) -> io::Result<()> {
        loop {
            let packet = tokio::select! {
                packet = self.question(stream) => packet?,
                () = self.stop.cancelled() => return Ok(()),
            };
            let Some(packet) = packet else { return Ok(()) };
            if !self.turn().await {
                return Ok(());
            }
            let Some(reply) = self.reply(&packet).await else { return Ok(()) };
            if !self.send(stream, reply).await? {
                return Ok(());
            }
            self.place.used();
        }
    }

    /// The next question; `None` where there is none, or none that is answered.
    async fn question(&self, stream: &mut impl Stream) -> io::Result<Option<Vec<u8>>> {
        let Ok(first) = timeout(IDLE, stream.read_u8()).await else { return Ok(None) };
        let first = match first {
            Ok(first) => first,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error),
        };
        let rest = async {
            let length = usize::from(u16::from_be_bytes([first, stream.read_u8().await?]));
            if length > LONGEST {
                self.handler.limits().count(Reason::Long, 1);
                return Ok(None);
            }
            let mut packet = vec![0; length];
            stream.read_exact(&mut packet).await?;
            Ok(Some(packet))
        };
        timeout(WHOLE, rest).await.unwrap_or_else(|_| {
            self.handler.limits().count(Reason::Slow, 1);
            Ok(None)
        })
    }

    /// Waits until the client may ask again; false where that is too long.
    async fn turn(&self) -> bool {
        let Some(rate) = Rate::of(&self.handler.live().dns.rate_limit) else { return true };
        let (limits, client) = (self.handler.limits(), Client::of(self.client.ip()));
        match limits.streams.turn(client, rate, limits.at(Instant::now()), SLOW) {
            Some(Duration::ZERO) => true,
            Some(wait) => {
                limits.count(Reason::RateWaited, 1);
                sleep(wait).await;
                true
            }
            None => {
                limits.count(Reason::RateClosed, 1);
                false
            }
        }
    }

    async fn reply(&self, packet: &[u8]) -> Option<Vec<u8>> {
        let turn = self.place.turn.acquire().await.ok()?;
        let outcome = self.handler.start(packet, Transport::Tcp, self.client);
        drop(turn);
        match outcome {
            Outcome::Reply(reply) => Some(reply),
            Outcome::Later(pending) => match self.handler.place(&pending) {
                Some(_place) => Some(self.handler.finish(pending).await),
                None => Some(self.handler.refuse(&pending)),
            },
            Outcome::Nothing => None,
        }
    }

    /// Sends a reply; false where too many long ones are on their way to clients.
    async fn send(&self, stream: &mut impl Stream, mut reply: Vec<u8>) -> io::Result<bool> {
        let length = u16::try_from(reply.len()).map_err(io::Error::other)?;
        let _kept = if reply.len() > LONG {
            let kib = u32::from(length).div_ceil(1024);
            let Ok(kept) = self.handler.limits().long_replies.try_acquire_many(kib) else {
                self.handler.limits().count(Reason::Replies, 1);
                return Ok(false);
            };
            Some(kept)
        } else {
            None
        };
        reply.splice(0..0, length.to_be_bytes()); // in one piece: one segment, or one record of TLS
        timeout(SLOW, async {
            stream.write_all(&reply).await?;
            stream.flush().await
        })
        .await??;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::sync::Arc;

    use tokio::io::duplex;
    use tokio::sync::{Semaphore, mpsc};

    use super::*;
    use crate::fuzz;
    use crate::limit::open::HANDSHAKES;

    #[tokio::test]
    async fn long_replies_are_given_up_while_slow_clients_hold_too_many() {
        let handler = fuzz::handler();
        let client = SocketAddr::from(([10, 0, 0, 1], 4000));
        let (place, _) = handler.limits().connections.place(Client::of(client.ip()));
        let connection =
            Connection { client, place, handler: handler.clone(), stop: CancellationToken::new() };
        let (mut ours, mut theirs) = duplex(100_000);
        assert!(connection.send(&mut ours, vec![1; LONG + 1]).await.unwrap());
        let limits = handler.limits();
        let all = u32::try_from(limits.long_replies.available_permits()).unwrap();
        let held = limits.long_replies.try_acquire_many(all - 4).unwrap();
        assert!(!connection.send(&mut ours, vec![2; LONG + 1]).await.unwrap());
        assert!(connection.send(&mut ours, vec![3; LONG]).await.unwrap(), "short ones go on");
        drop(held);
        assert!(connection.send(&mut ours, vec![4; LONG + 1]).await.unwrap());
        for (first, length) in [(1, LONG + 1), (3, LONG), (4, LONG + 1)] {
            let mut reply = vec![0; 2 + length];
            theirs.read_exact(&mut reply).await.unwrap();
            assert_eq!(
                (reply[..2].to_vec(), reply[2]),
                (u16::try_from(length).unwrap().to_be_bytes().to_vec(), first)
            );
        }
    }

    /// Handshakes that say who has begun one, and end when they are let.
    #[derive(Clone)]
    struct Held {
        begun: mpsc::UnboundedSender<IpAddr>,
        end: Arc<Semaphore>,
    }

    impl Opens for Held {
        type Stream = TcpStream;

        async fn open(self, stream: TcpStream) -> io::Result<TcpStream> {
            self.begun.send(stream.peer_addr()?.ip()).map_err(io::Error::other)?;
            self.end.acquire().await.map_err(io::Error::other)?.forget();
            Ok(stream)
        }
    }

    #[tokio::test]
    async fn a_client_has_few_handshakes_under_way_and_others_do_not_wait_for_it() {
        let (begun, mut seen) = mpsc::unbounded_channel();
        let (stop, end) = (CancellationToken::new(), Arc::new(Semaphore::new(0)));
        let listener = listen(([127, 0, 0, 1], 0).into()).unwrap();
        let server = listener.local_addr().unwrap();
        let held = Held { begun, end: end.clone() };
        let serving = tokio::spawn(serve(listener, held, fuzz::handler(), stop.clone()));
        let connect = async |client: [u8; 4], first: &[u8]| {
            let socket = TcpSocket::new_v4().unwrap();
            socket.bind((client, 0).into()).unwrap();
            let mut stream = socket.connect(server).await.unwrap();
            stream.write_all(first).await.unwrap();
            stream
        };
        let (flood, good) = ([127, 0, 0, 2], [127, 0, 0, 3]);
        let mut streams = vec![];
        for index in 0..5 * HANDSHAKES {
            // The first ones begin none, which keeps nobody waiting.
            streams.push(connect(flood, if index < HANDSHAKES { &[] } else { &[0] }).await);
        }
        for _ in 0..HANDSHAKES {
            assert_eq!(seen.recv().await, Some(flood.into()));
        }
        streams.push(connect(good, &[0]).await);
        assert_eq!(seen.recv().await, Some(good.into()));
        end.add_permits(1);
        assert_eq!(seen.recv().await, Some(flood.into()), "one has ended, the next one begins");
        drop(streams);
        end.add_permits(5 * HANDSHAKES);
        stop.cancel();
        timeout(SLOW, serving).await.expect("an end in time").unwrap();
    }
}
