//! Numbered datagrams at a steady pace, echoed by the server: what is lost, doubled or overtaken is counted, and apart
//! from it what this machine itself dropped because a socket's buffer was full.

use std::io::ErrorKind;
use std::net::UdpSocket;
use std::thread;
use std::time::{Duration, Instant};

use crate::flags::{Deadline, Flags};
use crate::json::Value;
use crate::{Result, tally};

/// After the last number one waits this long for what is under way.
const LAST: Duration = Duration::from_secs(1);

pub(crate) fn run(flags: &Flags) -> Result<bool> {
    let interval = Duration::from_micros(flags.get("interval-us", 1000)?);
    let target = flags.target()?;
    let failed = |error: std::io::Error| format!("datagrams to {target}: {error}");
    let any = if target.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).map_err(failed)?;
    socket.connect(target).map_err(failed)?;
    socket.set_read_timeout(Some(LAST)).map_err(failed)?;
    let before = overflowed();
    let deadline = flags.deadline(5.0)?;
    let (sent, back) = thread::scope(|scope| {
        let receiver = scope.spawn(|| receive(&socket, &deadline));
        let sent = send(&socket, &deadline, interval);
        (sent, receiver.join().unwrap_or_default())
    });
    let lost = sent.saturating_sub(back.arrived);
    Value::Object(vec![
        ("sent", Value::Count(sent)),
        ("arrived", Value::Count(back.arrived)),
        ("lost", Value::Count(lost)),
        ("duplicated", Value::Count(back.duplicated)),
        ("reordered", Value::Count(back.reordered)),
        ("overflowed", Value::Count(overflowed().saturating_sub(before))),
        ("longest_gap_ms", Value::Number(back.longest_gap.as_secs_f64() * 1e3)),
        ("errors", Value::List(back.errors.into_iter().map(Value::Text).collect())),
    ])
    .print();
    Ok(lost == 0 && back.duplicated == 0)
}

/// Sends one number after the other; a sender that was held up does not make up for it with a burst.
fn send(socket: &UdpSocket, deadline: &Deadline, interval: Duration) -> u64 {
    let mut number = 0_u64;
    let mut due = Instant::now();
    while !deadline.over() {
        // An error here is an answer to an earlier datagram, which the receiver counts as lost.
        drop(socket.send(&number.to_be_bytes()));
        number += 1;
        due = (due + interval).max(Instant::now());
        thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    number
}

#[derive(Default)]
struct Back {
    arrived: u64,
    duplicated: u64,
    reordered: u64,
    longest_gap: Duration,
    errors: Vec<String>,
    /// Numbers that were seen, by number.
    seen: Vec<bool>,
}

/// Until [`LAST`] passes in silence after the deadline.
fn receive(socket: &UdpSocket, deadline: &Deadline) -> Back {
    let mut back = Back::default();
    let mut buffer = [0; 512];
    let mut last = Instant::now();
    loop {
        match socket.recv(&mut buffer) {
            Ok(length) => {
                back.longest_gap = back.longest_gap.max(last.elapsed());
                last = Instant::now();
                back.take(buffer.get(..length).unwrap_or_default());
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                if deadline.over() {
                    back.longest_gap = back.longest_gap.max(last.elapsed().saturating_sub(LAST));
                    return back;
                }
            }
            Err(error) => {
                let name = tally::name(&error);
                if !back.errors.contains(&name) {
                    back.errors.push(name);
                }
            }
        }
    }
}

impl Back {
    fn take(&mut self, datagram: &[u8]) {
        let Some(number) = datagram.last_chunk().map(|bytes| u64::from_be_bytes(*bytes)) else { return };
        let Ok(index) = usize::try_from(number) else { return };
        if self.seen.get(index) == Some(&true) {
            self.duplicated += 1;
            return;
        }
        if index < self.seen.len() {
            self.reordered += 1;
        } else {
            self.seen.resize(index + 1, false);
        }
        if let Some(seen) = self.seen.get_mut(index) {
            *seen = true;
        }
        self.arrived += 1;
    }
}

/// Datagrams that this network namespace dropped because a socket's buffer was full, since it was made.
pub(crate) fn overflowed() -> u64 {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let ipv4 = figure(&read("/proc/net/snmp"), "Udp:", "RcvbufErrors").unwrap_or_default();
    ipv4 + figure6(&read("/proc/net/snmp6"), "Udp6RcvbufErrors").unwrap_or_default()
}

/// A figure of `/proc/net/snmp6`: a line each.
fn figure6(text: &str, name: &str) -> Option<u64> {
    let mut words = text.lines().map(str::split_ascii_whitespace);
    words.find_map(|mut words| (words.next() == Some(name)).then(|| words.next()?.parse().ok())?)
}

/// A figure of `/proc/net/snmp`, whose lines come in pairs: names, then values.
fn figure(text: &str, group: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().filter(|line| line.starts_with(group));
    let (names, values) = (lines.next()?, lines.next()?);
    let index = names.split(' ').position(|other| other == name)?;
    values.split(' ').nth(index)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn back(numbers: &[u64]) -> (u64, u64, u64) {
        let mut back = Back::default();
        for number in numbers {
            back.take(&[b"server 10.0.0.1:1\n".as_slice(), &number.to_be_bytes()].concat());
        }
        (back.arrived, back.duplicated, back.reordered)
    }

    #[test]
    fn lost_doubled_and_overtaken_numbers_are_told_apart() {
        assert_eq!(back(&[0, 1, 2]), (3, 0, 0));
        assert_eq!(back(&[0, 2, 3]), (3, 0, 0), "one is missing");
        assert_eq!(back(&[0, 2, 1, 3]), (4, 0, 1));
        assert_eq!(back(&[0, 1, 1, 0]), (2, 2, 0));
    }

    #[test]
    fn a_figure_is_found_by_its_name() {
        let text = "Tcp: A B\nTcp: 1 2\nUdp: InDatagrams RcvbufErrors SndbufErrors\nUdp: 10 7 0\n";
        assert_eq!(figure(text, "Udp:", "RcvbufErrors"), Some(7));
        assert_eq!(figure(text, "Udp:", "Nonesuch"), None);
        let text = "Udp6InErrors                    \t3\nUdp6RcvbufErrors                \t9\n";
        assert_eq!(figure6(text, "Udp6RcvbufErrors"), Some(9));
        assert_eq!(figure6(text, "Nonesuch"), None);
    }
}
