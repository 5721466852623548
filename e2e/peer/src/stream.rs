//! Long-lived connections that carry numbers there and back: a lost, doubled or late number is a fault of the network.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use crate::flags::{Deadline, Flags};
use crate::json::Value;
use crate::{Result, connect, tally};

pub(crate) fn run(flags: &Flags) -> Result<bool> {
    let plan = Plan {
        target: flags.target()?,
        deadline: flags.deadline(5.0)?,
        interval: flags.millis("interval", 10)?,
        stall: flags.millis("stall", 5000)?,
    };
    let streams: usize = flags.get("streams", 1)?;
    let outcomes: Vec<Outcome> = thread::scope(|scope| {
        let threads: Vec<_> = (0..streams).map(|_| scope.spawn(|| plan.one())).collect();
        threads.into_iter().filter_map(|thread| thread.join().ok()).collect()
    });
    let broken = outcomes.iter().filter(|outcome| outcome.error.is_some()).count() + streams - outcomes.len();
    let longest = outcomes.iter().map(|outcome| outcome.longest_gap).max().unwrap_or_default();
    let errors: Vec<&std::io::Error> = outcomes.iter().filter_map(|outcome| outcome.error.as_ref()).collect();
    let resets = errors.iter().filter(|error| is_reset(error)).count();
    let lost = errors.iter().filter(|error| is_loss(error)).count();
    let errors = errors.into_iter().map(|error| Value::Text(tally::name(error))).collect();
    Value::Object(vec![
        ("streams", Value::Count(streams as u64)),
        ("broken", Value::Count(broken as u64)),
        ("resets", Value::Count(resets as u64)),
        ("lost", Value::Count(lost as u64)),
        ("exchanges", Value::Count(outcomes.iter().map(|outcome| outcome.exchanges).sum())),
        ("longest_gap_ms", Value::Number(longest.as_secs_f64() * 1e3)),
        ("errors", Value::List(errors)),
    ])
    .print();
    Ok(broken == 0)
}

struct Plan {
    target: SocketAddr,
    deadline: Deadline,
    interval: Duration,
    /// An answer that takes longer breaks the stream.
    stall: Duration,
}

#[derive(Default)]
struct Outcome {
    exchanges: u64,
    longest_gap: Duration,
    error: Option<std::io::Error>,
}

/// The other end, or somebody in its name, ended the connection.
fn is_reset(error: &std::io::Error) -> bool {
    use ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), ConnectionReset | ConnectionAborted | BrokenPipe | UnexpectedEof)
}

/// A number did not come back in time, or another one did.
fn is_loss(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock | ErrorKind::InvalidData)
}

impl Plan {
    fn one(&self) -> Outcome {
        let mut outcome = Outcome::default();
        outcome.error = self.exchange(&mut outcome).err();
        outcome
    }

    fn exchange(&self, outcome: &mut Outcome) -> std::io::Result<()> {
        let mut stream = TcpStream::connect_timeout(&self.target, self.stall)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(self.stall))?;
        stream.set_write_timeout(Some(self.stall))?;
        connect::greeting(&mut stream)?;
        while !self.deadline.over() {
            let sent = Instant::now();
            stream.write_all(&outcome.exchanges.to_be_bytes())?;
            let mut back = [0; 8];
            stream.read_exact(&mut back)?;
            if u64::from_be_bytes(back) != outcome.exchanges {
                return Err(std::io::ErrorKind::InvalidData.into());
            }
            outcome.exchanges += 1;
            outcome.longest_gap = outcome.longest_gap.max(sent.elapsed());
            thread::sleep(self.interval);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn against(serve: impl FnOnce(TcpStream) + Send + 'static) -> std::io::Error {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let target = listener.local_addr().unwrap();
        let server = thread::spawn(move || serve(listener.accept().unwrap().0));
        let flags = Flags::parse(&[]).unwrap();
        let plan = Plan {
            target,
            deadline: flags.deadline(5.0).unwrap(),
            interval: Duration::ZERO,
            stall: Duration::from_millis(200),
        };
        let outcome = plan.one();
        server.join().unwrap();
        outcome.error.unwrap()
    }

    #[test]
    fn a_connection_that_is_ended_is_a_reset_and_a_number_that_stays_away_is_a_loss() {
        let closed = against(|mut stream| stream.write_all(b"s 10.0.0.1:1\n").unwrap());
        assert!(is_reset(&closed) && !is_loss(&closed), "{closed}");
        let silent = against(|mut stream| {
            stream.write_all(b"s 10.0.0.1:1\n").unwrap();
            thread::sleep(Duration::from_millis(500));
        });
        assert!(is_loss(&silent) && !is_reset(&silent), "{silent}");
        let wrong = against(|mut stream| {
            stream.write_all(b"s 10.0.0.1:1\n").unwrap();
            stream.write_all(&7_u64.to_be_bytes()).unwrap();
            thread::sleep(Duration::from_millis(100));
        });
        assert!(is_loss(&wrong), "{wrong}");
    }
}
