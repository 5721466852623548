//! How usual clients fare, attack by attack.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use crate::attack;
use crate::server::Child;

/// A reply that takes longer is none.
const LOST: Duration = Duration::from_secs(1);
/// Clients that ask as usual: 127.0.0.10 and on.
const CLIENTS: u8 = 10;
/// How often each of them asks.
const EACH: Duration = Duration::from_millis(20);
/// Resident memory that the server may have had at any time, in KiB: 128 MiB.
const MEMORY: u64 = 128 << 10;

#[test]
fn usual_clients_are_answered_while_another_one_attacks_and_memory_is_bounded() {
    let mut server = Child::start();
    let address = server.address;
    println!("without an attack: {}", usual(address, Duration::from_millis(500)).told());
    for (name, attack, least) in [
        ("datagrams", attack::datagrams as fn(SocketAddr, Instant), Some("rate-dropped")),
        ("no questions", attack::nonsense, Some("rate-dropped")),
        ("names that nobody answers", attack::random_names, Some("under-way")),
        ("connections", attack::connections, Some("connections")),
        ("long replies that nobody reads", attack::long_replies, None),
    ] {
        let end = Instant::now() + Duration::from_millis(1200);
        let flood = std::thread::spawn(move || attack(address, end));
        let usual = usual(address, Duration::from_secs(1));
        flood.join().expect("the attack ends");
        println!("{name}: {}", usual.told());
        assert!(usual.success() >= 0.999, "{name}: {}", usual.told());
        assert!(usual.p99() < Duration::from_millis(500), "{name}: {}", usual.told());
        if let Some(reason) = least {
            assert!(server.limited(reason) > 0, "{name}: nothing was limited for {reason}");
        }
    }
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
fn usual(server: SocketAddr, how_long: Duration) -> Usual {
    let end = Instant::now() + how_long;
    let clients: Vec<_> =
        (0..CLIENTS).map(|index| std::thread::spawn(move || client(server, index, end))).collect();
    let mut usual = Usual { asked: 0, took: vec![] };
    for client in clients {
        let (asked, took) = client.join().expect("a client ends");
        usual.asked += asked;
        usual.took.extend(took);
    }
    usual.took.sort();
    usual
}

fn client(server: SocketAddr, index: u8, end: Instant) -> (usize, Vec<Duration>) {
    let socket = UdpSocket::bind((Ipv4Addr::new(127, 0, 0, 10 + index), 0)).expect("a socket");
    socket.connect(server).expect("the server");
    socket.set_read_timeout(Some(LOST)).expect("a timeout");
    let (mut asked, mut took, mut buffer) = (0, vec![], [0; 2048]);
    while Instant::now() < end {
        let name = if asked % 2 == 0 { "web.shop.svc.cluster.local." } else { "www.good.example." };
        let packet = attack::packet(asked, name);
        let began = Instant::now();
        socket.send(&packet).expect("a question");
        asked += 1;
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
    (asked.into(), took)
}
