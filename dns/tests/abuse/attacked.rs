//! How usual clients fare, attack by attack.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::attack;
use crate::server::{Child, LIMITED, UNLIMITED};

/// A reply that takes longer is none.
const LOST: Duration = Duration::from_secs(1);
/// Clients that ask as usual: 127.0.0.10 and on.
const CLIENTS: u8 = 10;
/// How often each of them asks.
const EACH: Duration = Duration::from_millis(8);
/// How often each asks while there is an attack: 3000 in all, of which 3 may have no answer.
const TIMES: u16 = 300;
/// Resident memory that the server may have had at any time, in KiB: 128 MiB.
const MEMORY: u64 = 128 << 10;

type Attack = fn(SocketAddr, &AtomicBool);

#[test]
fn usual_clients_are_answered_while_another_one_attacks_and_memory_is_bounded() {
    let mut server = Child::start(LIMITED);
    println!("without an attack: {}", usual(server.address, TIMES / 10).told());
    for (name, attack, least) in [
        ("datagrams", attack::datagrams as Attack, Some("rate-dropped")),
        ("no questions", attack::nonsense, Some("rate-dropped")),
        ("names that nobody answers", attack::random_names, Some("under-way")),
        ("connections", attack::connections, Some("connections")),
        ("long replies that nobody reads", attack::long_replies, None),
    ] {
        withstands(&mut server, name, attack, least);
    }
    ends_within_memory(server);
    let mut server = Child::start(UNLIMITED);
    withstands(&mut server, "datagrams, without a limit", attack::datagrams, None);
    ends_within_memory(server);
}

/// Attacks until the usual clients have asked. `least` is a reason for which something is limited by then.
fn withstands(server: &mut Child, name: &str, attack: Attack, least: Option<&str>) {
    let (address, stop) = (server.address, AtomicBool::new(false));
    let usual = std::thread::scope(|scope| {
        scope.spawn(|| attack(address, &stop));
        let _stops = Stops(&stop);
        usual(address, TIMES)
    });
    println!("{name}: {}", usual.told());
    assert!(usual.success() >= 0.999, "{name}: {}", usual.told());
    assert!(usual.p99() < Duration::from_millis(500), "{name}: {}", usual.told());
    if let Some(reason) = least {
        assert!(server.limited(reason) > 0, "{name}: nothing was limited for {reason}");
    }
}

/// Stops the attack when it is dropped, whatever the usual clients say.
struct Stops<'a>(&'a AtomicBool);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

fn ends_within_memory(server: Child) {
    let most = server.most_resident();
    println!("memory: {} MiB at most", most >> 10);
    assert!(most <= MEMORY, "{most} KiB");
    server.stop();
}

/// How usual clients fared.
struct Usual {
    asked: usize,
    took: Vec<Duration>,
}

impl Usual {
    #[expect(clippy::cast_precision_loss, reason = "thousands")]
    fn success(&self) -> f64 {
        self.took.len() as f64 / self.asked as f64
    }

    fn p99(&self) -> Duration {
        self.took[self.took.len() * 99 / 100]
    }

    fn told(&self) -> String {
        let half = self.took[self.took.len() / 2];
        format!("{} of {} answered, half in {half:?}, 99 % in {:?}", self.took.len(), self.asked, self.p99())
    }
}

/// Each client asks for a name of the cluster and for one outside, in turns.
fn usual(server: SocketAddr, times: u16) -> Usual {
    let clients: Vec<_> =
        (0..CLIENTS).map(|index| std::thread::spawn(move || client(server, index, times))).collect();
    let mut usual = Usual { asked: 0, took: vec![] };
    for client in clients {
        usual.asked += usize::from(times);
        usual.took.extend(client.join().expect("a client ends"));
    }
    usual.took.sort();
    usual
}

/// How long each reply took that came.
fn client(server: SocketAddr, index: u8, times: u16) -> Vec<Duration> {
    let socket = UdpSocket::bind((Ipv4Addr::new(127, 0, 0, 10 + index), 0)).expect("a socket");
    socket.connect(server).expect("the server");
    socket.set_read_timeout(Some(LOST)).expect("a timeout");
    let (mut took, mut buffer) = (vec![], [0; 2048]);
    for asked in 0..times {
        let name = if asked % 2 == 0 { "web.shop.svc.cluster.local." } else { "www.good.example." };
        let packet = attack::packet(asked, name);
        let began = Instant::now();
        socket.send(&packet).expect("a question");
        while let Ok(length) = socket.recv(&mut buffer) {
            // The id, a reply without an error, with an answer.
            if length > 12 && buffer[..2] == packet[..2] && buffer[3] % 16 == 0 && buffer[7] > 0 {
                took.push(began.elapsed());
                break;
            }
            if buffer[..2] == packet[..2] {
                break;
            }
        }
        std::thread::sleep(EACH.saturating_sub(began.elapsed()));
    }
    took
}
