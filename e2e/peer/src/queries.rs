//! One name asked for again and again, as resolvers of pods do: what came back, what did not, and the longest time without an answer.

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use crate::Result;
use crate::dns::{self, Message};
use crate::flags::Flags;
use crate::json::Value;
use crate::resolve;
use crate::tally;

pub(crate) fn run(flags: &Flags) -> Result<bool> {
    let server = resolve::configured_server()?;
    let any = if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let asker = Asker {
        name: flags.word("the name to ask for")?.to_owned(),
        server,
        timeout: flags.millis("timeout", 1000)?,
    };
    // One socket for all questions, which names the server each time, as musl does within a look-up.
    let lasting = if flags.get("lasting", false)? {
        Some(UdpSocket::bind(any).map_err(|error| format!("a socket: {error}"))?)
    } else {
        None
    };
    let (deadline, pause) = (flags.deadline(5.0)?, flags.millis("pause", 10)?);
    let (mut codes, mut errors) = (BTreeMap::new(), BTreeMap::new());
    let (mut answered, mut longest, mut id) = (Instant::now(), Duration::ZERO, 0_u16);
    while !deadline.over() {
        id = id.wrapping_add(1);
        let outcome = match &lasting {
            Some(socket) => asker.ask(socket, id),
            // Another socket for each question, which is connected, as glibc and Go do.
            None => UdpSocket::bind(any)
                .and_then(|socket| socket.connect(server).and_then(|()| asker.ask(&socket, id))),
        };
        match outcome {
            Ok(answer) => {
                longest = longest.max(answered.elapsed());
                answered = Instant::now();
                *codes.entry(answer.code().to_owned()).or_default() += 1;
            }
            Err(error) => *errors.entry(tally::name(&error)).or_default() += 1,
        }
        thread::sleep(pause);
    }
    let failed: u64 = errors.values().sum();
    Value::Object(vec![
        ("answered", Value::Count(codes.values().sum())),
        ("failed", Value::Count(failed)),
        ("codes", Value::Counts(codes)),
        ("errors", Value::Counts(errors)),
        ("longest_gap_ms", Value::Number(longest.max(answered.elapsed()).as_secs_f64() * 1e3)),
    ])
    .print();
    Ok(failed == 0)
}

struct Asker {
    name: String,
    server: SocketAddr,
    timeout: Duration,
}

impl Asker {
    /// Answers to earlier questions that were given up are passed over.
    fn ask(&self, socket: &UdpSocket, id: u16) -> std::io::Result<Message> {
        let question = Some((self.name.clone(), dns::A));
        let query = Message { id, flags: 0x0100, question, udp_size: Some(1232), ..Message::default() };
        let end = Instant::now() + self.timeout;
        match socket.peer_addr() {
            Ok(_) => socket.send(&query.encode())?,
            Err(_) => socket.send_to(&query.encode(), self.server)?,
        };
        let mut buffer = [0; 2048];
        loop {
            let left = end.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            socket.set_read_timeout(Some(left))?;
            let length = socket.recv(&mut buffer)?;
            if let Some(answer) = Message::decode(&buffer[..length]).filter(|answer| answer.id == id) {
                return Ok(answer);
            }
        }
    }
}
