//! Asks a DNS server for one name every few milliseconds and notes when each address was first among the answers.

use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use super::until_standard_input_ends;
use crate::Result;
use crate::dns::{self, Message};
use crate::flags::Flags;
use crate::json::Value;

/// Asks until standard input ends, then prints for each address when it was first answered, microseconds since 1970. While nobody
/// listens at the server's port each question fails at once.
pub(crate) fn run(flags: &Flags) -> Result<bool> {
    let target = flags.target()?;
    let name = flags.word("the name to ask for")?;
    let interval = flags.millis("interval", 1)?;
    let failed = |error: std::io::Error| format!("questions to {target}: {error}");
    let socket = UdpSocket::bind("0.0.0.0:0").map_err(failed)?;
    socket.connect(target).map_err(failed)?;
    socket.set_read_timeout(Some(Duration::from_millis(200))).map_err(failed)?;
    let (mut first, ended) = (BTreeMap::new(), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            until_standard_input_ends();
            ended.store(true, Ordering::Relaxed);
        });
        let mut id = 0_u16;
        while !ended.load(Ordering::Relaxed) {
            let began = Instant::now();
            id = id.wrapping_add(1);
            for address in ask(&socket, name, id).unwrap_or_default() {
                first.entry(address).or_insert_with(now);
            }
            thread::sleep(interval.saturating_sub(began.elapsed()));
        }
    });
    Value::Object(vec![("first_us", Value::Counts(first))]).print();
    Ok(true)
}

fn ask(socket: &UdpSocket, name: &str, id: u16) -> std::io::Result<Vec<String>> {
    let question = Some((name.to_owned(), dns::A));
    let query = Message { id, flags: 0x0100, question, udp_size: Some(1232), ..Message::default() };
    socket.send(&query.encode())?;
    let mut buffer = [0; 2048];
    loop {
        let length = socket.recv(&mut buffer)?;
        let Some(reply) = Message::decode(buffer.get(..length).unwrap_or_default()) else { continue };
        if reply.id == id {
            return Ok(reply.answers.iter().map(dns::Record::text).collect());
        }
    }
}

/// Microseconds since 1970.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}
