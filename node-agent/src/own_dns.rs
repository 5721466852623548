//! Whether the node's own DNS servers answer: each is asked once a second, with a few bytes that concern no name. One that falls silent is
//! found within [`Pace::found`], long before its kubelet calls it unready, and told so that the node's pods are answered by others.

mod health;

use std::{
    collections::BTreeSet,
    io::ErrorKind,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use futures::future::join_all;
use netkeel_core::name::ObjectName;
use tokio::{
    net::UdpSocket,
    sync::watch,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use self::health::Health;

/// Bytes of a DNS message without a question (RFC 1035 section 4.1.1).
const HEADER: usize = 12;
/// Bits of a header's third byte: it is an answer; it is a question for the server's status (opcode 2, RFC 1035 section 4.1.1).
const ANSWER: u8 = 0x80;
const STATUS: u8 = 2 << 3;

/// Addresses and ports of servers.
pub type Servers = BTreeSet<SocketAddr>;

/// The Service whose servers are asked.
#[must_use]
pub fn service() -> ObjectName {
    ObjectName::new("kube-system", "kube-dns")
}

/// How often servers are asked, and how long they are waited for.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// From the begin of one question to the next.
    pub pause: Duration,
    /// For an answer, before the question is sent again.
    pub patience: Duration,
    /// So often a question is sent before its server counts as silent.
    pub tries: u32,
}

impl Default for Pace {
    fn default() -> Self {
        Self { pause: Duration::from_secs(1), patience: Duration::from_millis(200), tries: 3 }
    }
}

impl Pace {
    /// The longest that a server is silent before it is told.
    #[must_use]
    pub fn found(&self) -> Duration {
        self.pause + self.patience * self.tries
    }
}

/// Asks all of `servers`, as they change, and tells in `silent` which of them do not answer, until `stop`. Without servers nothing is sent.
pub async fn watch_over(
    servers: watch::Receiver<Servers>,
    silent: watch::Sender<Servers>,
    pace: Pace,
    stop: CancellationToken,
) {
    stop.run_until_cancelled_owned(rounds(servers, silent, pace)).await;
}

async fn rounds(mut servers: watch::Receiver<Servers>, silent: watch::Sender<Servers>, pace: Pace) {
    let mut health = Health::default();
    loop {
        let begun = Instant::now();
        let now = servers.borrow_and_update().clone();
        let asked = now.iter().map(async |server| (*server, answers(*server, pace).await));
        health.note(join_all(asked).await);
        silent.send_if_modified(|told| {
            let found = health.silent();
            let new = *told != found;
            *told = found;
            new
        });
        let changed = if now.is_empty() {
            servers.changed().await
        } else {
            tokio::select! {
                () = sleep_until(begun + pace.pause) => Ok(()),
                changed = servers.changed() => changed,
            }
        };
        if changed.is_err() {
            return;
        }
    }
}

/// Whether a server answers in time. Trouble of this node's own is not the server's.
async fn answers(server: SocketAddr, pace: Pace) -> bool {
    let any = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let opened = async {
        let socket = UdpSocket::bind(SocketAddr::new(any, 0)).await?;
        socket.connect(server).await.map(|()| socket)
    };
    let socket = match opened.await {
        Ok(socket) => socket,
        Err(error) => {
            tracing::debug!(%server, %error, "the node's DNS server cannot be asked");
            return true;
        }
    };
    let id: u16 = rand::random();
    for _ in 0..pace.tries {
        // An error says what became of an earlier packet: refused means that nobody listens there.
        let sent = socket.send(&question(id)).await;
        if is_refused(&sent) {
            return false;
        }
        if let Ok(answered) = timeout(pace.patience, answer(&socket, id)).await {
            return answered;
        }
    }
    false
}

/// Whether the answer to the question `id` comes; `false` as soon as it is known that nobody listens.
async fn answer(socket: &UdpSocket, id: u16) -> bool {
    let mut buffer = [0; 512];
    loop {
        let received = socket.recv(&mut buffer).await;
        if is_refused(&received) {
            return false;
        }
        if received.is_ok_and(|length| is_answer(&buffer[..length], id)) {
            return true;
        }
    }
}

fn is_refused<T>(result: &std::io::Result<T>) -> bool {
    result.as_ref().is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}

/// A question for the server's status, which concerns no name: servers that do not know it say so, and that is an answer, too.
fn question(id: u16) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[..2].copy_from_slice(&id.to_be_bytes());
    header[2] = STATUS;
    header
}

fn is_answer(packet: &[u8], id: u16) -> bool {
    packet.len() >= HEADER && packet[..2] == id.to_be_bytes() && packet[2] & ANSWER != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAST: Pace =
        Pace { pause: Duration::from_millis(50), patience: Duration::from_millis(50), tries: 3 };

    async fn silent_after(
        servers: &watch::Sender<Servers>,
        told: &mut watch::Receiver<Servers>,
        wanted: &Servers,
    ) {
        let what = servers.borrow().clone();
        let seen = timeout(Duration::from_secs(10), told.wait_for(|silent| silent == wanted)).await;
        seen.unwrap_or_else(|_| panic!("{wanted:?} of {what:?} should be silent")).expect("it is asked");
    }

    /// Answers or swallows what comes, as `speaks` says.
    async fn serve(socket: UdpSocket, speaks: watch::Receiver<bool>) {
        let mut buffer = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            assert_eq!(length, HEADER, "a question of a header alone");
            buffer[2] |= ANSWER;
            if *speaks.borrow() {
                socket.send_to(&buffer[..length], from).await.expect("the asker is there");
            }
        }
    }

    #[tokio::test]
    async fn a_server_that_falls_silent_is_told_and_told_again_when_it_answers() {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
        let server = Servers::from([socket.local_addr().expect("its address")]);
        let (speaks, speaking) = watch::channel(true);
        tokio::spawn(serve(socket, speaking));
        let servers = watch::Sender::new(server.clone());
        let (silent, mut told) = watch::channel(Servers::new());
        let stop = CancellationToken::new();
        let task = tokio::spawn(watch_over(servers.subscribe(), silent, FAST, stop.clone()));

        speaks.send_replace(false);
        silent_after(&servers, &mut told, &server).await;
        speaks.send_replace(true);
        silent_after(&servers, &mut told, &Servers::new()).await;

        speaks.send_replace(false);
        silent_after(&servers, &mut told, &server).await;
        servers.send_replace(Servers::new());
        silent_after(&servers, &mut told, &Servers::new()).await;
        stop.cancel();
        task.await.expect("it ends");
    }

    #[tokio::test]
    async fn where_nobody_listens_is_known_without_waiting() {
        let closed = {
            let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
            socket.local_addr().expect("its address")
        };
        let patient = Pace { patience: Duration::from_secs(30), ..Pace::default() };
        let asked = timeout(Duration::from_secs(10), answers(closed, patient)).await;
        assert!(!asked.expect("no patience is needed"));
    }

    #[test]
    fn another_answer_is_none() {
        let good = {
            let mut packet = question(0x1234);
            packet[2] |= ANSWER;
            packet
        };
        assert!(is_answer(&good, 0x1234));
        assert!(!is_answer(&good, 0x1235), "of another question");
        assert!(!is_answer(&question(0x1234), 0x1234), "a question");
        assert!(!is_answer(&good[..HEADER - 1], 0x1234), "cut off");
    }

    #[test]
    fn a_silent_server_is_found_within_two_seconds() {
        assert!(Pace::default().found() < Duration::from_secs(2));
    }
}
