//! Asks a DNS server so many questions a second, evenly, at a small part of what that costs a tool that measures each of them: what measures
//! beside it, on the same CPU, is not kept waiting.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use crate::Result;
use crate::dns::{self, Message};
use crate::flags::Flags;

/// Between two looks at what is due.
const PAUSE: Duration = Duration::from_micros(100);
/// Questions that are made up for when this program had no CPU; what is beyond is left out, since a burst is another load.
const BURST: u64 = 200;

/// The questions are the lines of a file, `NAME A`, as dnsperf has them. Answers are taken and not looked at.
pub(crate) fn run(flags: &Flags) -> Result<bool> {
    let target = flags.target()?;
    let path = flags.word("the file of questions")?;
    let rate: u32 = flags.get("rate", 1000)?;
    let from: IpAddr = flags.get("from", Ipv4Addr::LOCALHOST.into())?;
    let lasts = Duration::from_secs(flags.get("seconds", 10)?);
    let text = std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?;
    let mut questions: Vec<Vec<u8>> = text.lines().filter_map(question).collect();
    let failed = |error: std::io::Error| format!("questions to {target}: {error}");
    let socket = UdpSocket::bind((from, 0)).map_err(failed)?;
    socket.connect(target).map_err(failed)?;
    socket.set_nonblocking(true).map_err(failed)?;
    let count = questions.len() as u64;
    let (began, mut sent, mut answer) = (Instant::now(), 0, [0; 2048]);
    while began.elapsed() < lasts && count > 0 {
        let due = due(began.elapsed(), rate);
        for number in from_where(sent, due)..due {
            let index = usize::try_from(number % count).unwrap_or_default();
            if let Some(question) = questions.get_mut(index) {
                // The message's number, which only whoever asks looks at.
                question.splice(..2, u16::try_from(number & 0xffff).unwrap_or_default().to_be_bytes());
                drop(socket.send(question));
            }
        }
        sent = due;
        while socket.recv(&mut answer).is_ok() {}
        thread::sleep(PAUSE);
    }
    Ok(count > 0)
}

fn question(line: &str) -> Option<Vec<u8>> {
    let name = line.split_whitespace().next()?.trim_end_matches('.');
    let question = Some((name.to_owned(), dns::A));
    Some(Message { flags: 0x0100, question, ..Message::default() }.encode())
}

/// How many questions should have been sent by then.
fn due(elapsed: Duration, rate: u32) -> u64 {
    u64::try_from(elapsed.as_nanos() * u128::from(rate) / 1_000_000_000).unwrap_or(u64::MAX)
}

fn from_where(sent: u64, due: u64) -> u64 {
    sent.max(due.saturating_sub(BURST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_even_and_a_long_pause_is_no_burst() {
        assert_eq!(due(Duration::from_micros(1500), 2000), 3);
        assert_eq!(due(Duration::from_secs(100), 100_000), 10_000_000);
        assert_eq!([from_where(10, 30), from_where(10, 1000)], [10, 800]);
    }

    #[test]
    fn a_line_of_dnsperf_becomes_a_question() {
        let message = Message::decode(&question("web.shop.svc.cluster.local. A").unwrap()).unwrap();
        assert_eq!(message.question, Some(("web.shop.svc.cluster.local".to_owned(), dns::A)));
        assert_eq!(question(""), None);
    }
}
