//! Long-lived connections that carry numbers there and back: a lost, doubled or late number is a fault of the network.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use crate::flags::Flags;
use crate::json::Value;
use crate::{Result, connect, tally};

pub(crate) fn run(flags: &Flags) -> Result<bool> {
    let plan = Plan {
        target: flags.target()?,
        length: Duration::from_secs_f64(flags.get("seconds", 5.0)?),
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
    let errors = outcomes.iter().filter_map(|outcome| outcome.error.clone()).map(Value::Text).collect();
    Value::Object(vec![
        ("streams", Value::Count(streams as u64)),
        ("broken", Value::Count(broken as u64)),
        ("exchanges", Value::Count(outcomes.iter().map(|outcome| outcome.exchanges).sum())),
        ("longest_gap_ms", Value::Number(longest.as_secs_f64() * 1e3)),
        ("errors", Value::List(errors)),
    ])
    .print();
    Ok(broken == 0)
}

struct Plan {
    target: SocketAddr,
    length: Duration,
    interval: Duration,
    /// An answer that takes longer breaks the stream.
    stall: Duration,
}

#[derive(Default)]
struct Outcome {
    exchanges: u64,
    longest_gap: Duration,
    error: Option<String>,
}

impl Plan {
    fn one(&self) -> Outcome {
        let mut outcome = Outcome::default();
        outcome.error = self.exchange(&mut outcome).err().map(|error| tally::name(&error));
        outcome
    }

    fn exchange(&self, outcome: &mut Outcome) -> std::io::Result<()> {
        let mut stream = TcpStream::connect_timeout(&self.target, self.stall)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(self.stall))?;
        stream.set_write_timeout(Some(self.stall))?;
        connect::greeting(&mut stream)?;
        let end = Instant::now() + self.length;
        while Instant::now() < end {
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
