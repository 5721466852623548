//! Questions to DNS one after the other, while its servers come and go: each is answered, refused, answered wrongly, or lost.

use std::collections::BTreeMap;
use std::io::{Error, ErrorKind};
use std::net::{SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use crate::dns::{self, Message};
use crate::flags::{Deadline, Flags};
use crate::json::Value;
use crate::{Result, resolve, tally};

/// `--socket fresh` is a socket for each question, as resolvers in libraries do; `kept` sends all from one without connecting it;
/// `connected` connects one to the server, and a new one where a question is not answered.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Fresh,
    Kept,
    Connected,
}

pub(crate) fn run(flags: &Flags) -> Result<bool> {
    let kind = match flags.text("socket").unwrap_or("fresh") {
        "fresh" => Kind::Fresh,
        "kept" => Kind::Kept,
        "connected" => Kind::Connected,
        other => return Err(format!("--socket {other}: fresh, kept or connected is expected")),
    };
    let plan = Plan {
        kind,
        server: resolve::name_server(flags.text("server"))?,
        name: flags.word("the name to ask for")?,
        expected: flags.text("expect").ok_or("--expect ADDRESS is missing")?,
        interval: Duration::from_micros(flags.get("interval-us", 500)?),
        timeout: flags.millis("timeout", 2000)?,
    };
    let (deadline, threads) = (flags.deadline(5.0)?, flags.get("threads", 1)?);
    let mut seen = thread::scope(|scope| {
        let ask = |_| scope.spawn(|| plan.run(&deadline));
        let all: Vec<_> = (0..threads).map(ask).collect();
        all.into_iter().filter_map(|thread| thread.join().ok()).fold(Seen::default(), Seen::and)
    });
    let good = seen.answered == seen.asked;
    Value::Object(vec![
        ("asked", Value::Count(seen.asked)),
        ("answered", Value::Count(seen.answered)),
        ("lost", Value::Count(seen.lost)),
        ("servfail", Value::Count(seen.codes.remove("SERVFAIL").unwrap_or_default())),
        ("wrong", Value::Count(seen.wrong)),
        ("reconnects", Value::Count(seen.reconnects)),
        ("longest_ms", Value::Number(seen.longest.as_secs_f64() * 1e3)),
        ("longest_gap_ms", Value::Number(seen.longest_gap.as_secs_f64() * 1e3)),
        ("codes", Value::Counts(seen.codes)),
        ("errors", Value::Counts(seen.errors)),
    ])
    .print();
    Ok(good)
}

struct Plan<'a> {
    kind: Kind,
    server: SocketAddr,
    name: &'a str,
    expected: &'a str,
    /// Between the beginnings of two questions.
    interval: Duration,
    timeout: Duration,
}

/// What came of the questions. Those with a code other than NOERROR are told by code.
#[derive(Default)]
struct Seen {
    asked: u64,
    answered: u64,
    lost: u64,
    wrong: u64,
    reconnects: u64,
    longest: Duration,
    /// Between two answers of one thread, or the last one and the end.
    longest_gap: Duration,
    codes: BTreeMap<String, u64>,
    errors: BTreeMap<String, u64>,
}

impl Seen {
    fn and(mut self, other: Self) -> Self {
        let Self { asked, answered, lost, wrong, reconnects, longest, longest_gap, codes, errors } = other;
        self.asked += asked;
        self.answered += answered;
        self.lost += lost;
        self.wrong += wrong;
        self.reconnects += reconnects;
        self.longest = self.longest.max(longest);
        self.longest_gap = self.longest_gap.max(longest_gap);
        for (code, count) in codes {
            *self.codes.entry(code).or_default() += count;
        }
        for (error, count) in errors {
            *self.errors.entry(error).or_default() += count;
        }
        self
    }

    /// Counts the time without an answer until `now`. Returns the time of the last answer.
    fn gap(&mut self, last: Instant, now: Instant, answered: bool) -> Instant {
        self.longest_gap = self.longest_gap.max(now.duration_since(last));
        if answered { now } else { last }
    }

    fn take(&mut self, outcome: std::io::Result<Message>, expected: &str, took: Duration) {
        self.asked += 1;
        match outcome {
            Ok(reply) if reply.code() != "NOERROR" => {
                *self.codes.entry(reply.code().to_owned()).or_default() += 1;
            }
            Ok(reply) if reply.answers.len() == 1 && reply.answers[0].text() == expected => {
                self.answered += 1;
                self.longest = self.longest.max(took);
            }
            Ok(_) => self.wrong += 1,
            Err(error) => {
                self.lost += 1;
                *self.errors.entry(tally::name(&error)).or_default() += 1;
            }
        }
    }
}

impl Plan<'_> {
    fn run(&self, deadline: &Deadline) -> Seen {
        let (mut seen, mut socket, mut id) = (Seen::default(), None, 0_u16);
        let mut answered = Instant::now();
        while !deadline.over() {
            let began = Instant::now();
            id = id.wrapping_add(1);
            let outcome = self.ask(&mut socket, id);
            if outcome.is_err() && self.kind == Kind::Connected {
                socket = None;
                seen.reconnects += 1;
            }
            let before = seen.answered;
            seen.take(outcome, self.expected, began.elapsed());
            answered = seen.gap(answered, Instant::now(), seen.answered > before);
            thread::sleep(self.interval.saturating_sub(began.elapsed()));
        }
        seen
    }

    fn ask(&self, kept: &mut Option<UdpSocket>, id: u16) -> std::io::Result<Message> {
        if self.kind == Kind::Fresh {
            *kept = None;
        }
        let socket = match kept {
            Some(socket) => socket,
            None => kept.insert(self.open()?),
        };
        let question = Some((self.name.to_owned(), dns::A));
        let query = Message { id, flags: 0x0100, question, ..Message::default() }.encode();
        match self.kind {
            Kind::Kept => socket.send_to(&query, self.server)?,
            Kind::Fresh | Kind::Connected => socket.send(&query)?,
        };
        let end = Instant::now() + self.timeout;
        let mut buffer = [0; 2048];
        while let Some(left) = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            socket.set_read_timeout(Some(left))?;
            let (length, from) = socket.recv_from(&mut buffer)?;
            let reply = Message::decode(buffer.get(..length).unwrap_or_default());
            match reply {
                Some(reply) if reply.id == id && from == self.server => return Ok(reply),
                _ => {} // of an earlier question
            }
        }
        Err(Error::from(ErrorKind::TimedOut))
    }

    fn open(&self) -> std::io::Result<UdpSocket> {
        let socket = UdpSocket::bind(if self.server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
        if self.kind != Kind::Kept {
            socket.connect(self.server)?;
        }
        Ok(socket)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::Record;

    fn reply(flags: u16, addresses: &[[u8; 4]]) -> Message {
        let record = |data: &[u8; 4]| Record { name: "a".into(), kind: dns::A, ttl: 5, data: data.to_vec() };
        Message { flags, answers: addresses.iter().map(record).collect(), ..Message::default() }
    }

    #[test]
    fn what_comes_of_a_question_is_told_apart() {
        let mut seen = Seen::default();
        for outcome in [
            Ok(reply(0x8180, &[[10, 0, 0, 1]])),
            Ok(reply(0x8180, &[[10, 0, 0, 2]])),
            Ok(reply(0x8180, &[])),
            Ok(reply(0x8182, &[])),
            Ok(reply(0x8183, &[])),
            Err(ErrorKind::TimedOut.into()),
        ] {
            seen.take(outcome, "10.0.0.1", Duration::from_millis(1));
        }
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let last = seen.gap(start, start + second, false);
        assert_eq!(seen.gap(last, start + 3 * second, true), start + 3 * second);
        let all = Seen::default().and(seen);
        assert_eq!(all.longest_gap, 3 * second);
        assert_eq!((all.asked, all.answered, all.wrong, all.lost), (6, 1, 2, 1));
        assert_eq!((all.codes["SERVFAIL"], all.codes["NXDOMAIN"]), (1, 1));
    }
}
