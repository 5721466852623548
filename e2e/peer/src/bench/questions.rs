//! Asks a DNS server so many questions a second, evenly, at a small part of what that costs a tool that measures each of them: what measures
//! beside it, on the same CPU, is not kept waiting.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::until_standard_input_ends;
use crate::Result;
use crate::dns::{self, Message};
use crate::flags::Flags;
use crate::json::Value;

/// Between two looks at what is due.
const PAUSE: Duration = Duration::from_micros(100);
/// Questions that are made up for when this program had no CPU; what is beyond is left out, since a burst is another load.
const BURST: u64 = 200;

/// The questions are the lines of a file, `NAME A`, as dnsperf has them. Answers are taken and not looked at. It ends when standard input does, and
/// says how many questions were due by then and how many were sent.
pub(crate) fn run(flags: &Flags) -> Result<bool> {
    let target = flags.target()?;
    let path = flags.word("the file of questions")?;
    let rate: u32 = flags.get("rate", 1000)?;
    let from: IpAddr = flags.get("from", Ipv4Addr::LOCALHOST.into())?;
    let text = std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?;
    let mut questions: Vec<Vec<u8>> = text.lines().filter_map(question).collect();
    if questions.is_empty() {
        return Err(format!("{path} has no questions"));
    }
    let failed = |error: std::io::Error| format!("questions to {target}: {error}");
    let socket = UdpSocket::bind((from, 0)).map_err(failed)?;
    socket.connect(target).map_err(failed)?;
    socket.set_nonblocking(true).map_err(failed)?;
    let ended = AtomicBool::new(false);
    let (due, sent) = thread::scope(|scope| {
        let asking = scope.spawn(|| ask(&socket, &mut questions, rate, &ended));
        until_standard_input_ends();
        ended.store(true, Ordering::Relaxed);
        asking.join().map_err(|_| "asking ended early".to_owned())
    })?;
    Value::Object(vec![("due", Value::Count(due)), ("sent", Value::Count(sent))]).print();
    Ok(true)
}

/// How many questions were due, and how many were sent, until it has ended.
fn ask(socket: &UdpSocket, questions: &mut [Vec<u8>], rate: u32, ended: &AtomicBool) -> (u64, u64) {
    let (began, mut answer) = (Instant::now(), [0; 2048]);
    let (mut until, mut sent) = (0, 0);
    while !ended.load(Ordering::Relaxed) {
        let due = due(began.elapsed(), rate);
        for number in first(until, due)..due {
            let index = usize::try_from(number % questions.len() as u64).unwrap_or_default();
            if let Some(question) = questions.get_mut(index) {
                // The message's number, which only whoever asks looks at.
                let [.., high, low] = number.to_be_bytes();
                question.splice(..2, [high, low]);
                sent += u64::from(socket.send(question).is_ok());
            }
        }
        until = due;
        while socket.recv(&mut answer).is_ok() {}
        thread::sleep(PAUSE);
    }
    (until, sent)
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

/// The first question to be sent.
fn first(until: u64, due: u64) -> u64 {
    until.max(due.saturating_sub(BURST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_even_and_a_long_pause_is_no_burst() {
        assert_eq!(due(Duration::from_micros(1500), 2000), 3);
        assert_eq!(due(Duration::from_secs(100), 100_000), 10_000_000);
        assert_eq!([first(10, 30), first(10, 1000)], [10, 800]);
    }

    #[test]
    fn a_line_of_dnsperf_becomes_a_question() {
        let message = Message::decode(&question("web.shop.svc.cluster.local. A").unwrap()).unwrap();
        assert_eq!(message.question, Some(("web.shop.svc.cluster.local".to_owned(), dns::A)));
        assert_eq!(question(""), None);
    }
}
