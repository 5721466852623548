//! Connect, request, response, close: one connection after the other, in slices of time that alternate between two targets.
//! The server closes first, so that no port of the client stays taken after its end.

use std::io::{Error, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::SIZE;
use super::samples::Samples;
use crate::Result;
use crate::flags::Flags;
use crate::json::Value;
use crate::resolve::target;

const WARM_UP: Duration = Duration::from_millis(500);
/// A connection that takes this long is lost.
pub(super) const LOST: Duration = Duration::from_secs(5);

/// Rounds of one slice to each target; which comes first alternates.
pub(crate) fn run(flags: &Flags) -> Result<bool> {
    let service = target(flags.text("service").ok_or("--service HOST:PORT is missing")?)?;
    let direct = target(flags.text("direct").ok_or("--direct HOST:PORT is missing")?)?;
    let rounds: u32 = flags.get("rounds", 10)?;
    let slice = flags.millis("slice", 1000)?;
    let mut sides = [Side::new(service), Side::new(direct)];
    for side in &sides {
        Side::new(side.target).measure(WARM_UP)?;
    }
    for round in 0..rounds {
        sides.iter_mut().try_for_each(|side| side.measure(slice))?;
        if round + 1 < rounds {
            sides.reverse();
        }
    }
    sides.sort_by_key(|side| side.target != service);
    let values = sides.iter().map(Side::value);
    Value::Object(["service", "direct"].into_iter().zip(values).collect()).print();
    Ok(true)
}

/// One target and what was seen there.
struct Side {
    target: SocketAddr,
    /// Connections a second in each slice.
    rates: Vec<f64>,
    samples: Samples,
}

impl Side {
    fn new(target: SocketAddr) -> Self {
        Self { target, rates: Vec::new(), samples: Samples::default() }
    }

    fn measure(&mut self, slice: Duration) -> Result<()> {
        let (rate, samples) =
            Samples::of(slice, || once(self.target)).map_err(|error| format!("{}: {error}", self.target))?;
        self.rates.push(rate);
        self.samples.extend(samples);
        Ok(())
    }

    fn value(&self) -> Value {
        Value::Object(vec![
            ("per_second", Value::List(self.rates.iter().copied().map(Value::Number).collect())),
            ("p50_us", Value::Number(self.samples.percentile(500))),
            ("p99_us", Value::Number(self.samples.percentile(990))),
        ])
    }
}

pub(super) fn once(target: SocketAddr) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(target)?;
    stream.set_read_timeout(Some(LOST))?;
    stream.write_all(&[7; SIZE])?;
    let mut response = [0; SIZE];
    stream.read_exact(&mut response)?;
    match stream.read_exact(&mut response[..1]) {
        Ok(()) => Err(Error::new(ErrorKind::InvalidData, "the server sent more than the response")),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::super::serve::answer_one;
    use super::*;
    use std::net::{Ipv4Addr, TcpListener};

    #[test]
    fn a_slice_counts_what_it_did() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let mut side = Side::new(listener.local_addr().unwrap());
        std::thread::spawn(
            move || {
                while listener.accept().and_then(|(stream, _)| answer_one(stream)).is_ok() {}
            },
        );
        side.measure(Duration::from_millis(50)).unwrap();
        side.measure(Duration::from_millis(50)).unwrap();
        assert!(side.rates.len() == 2 && side.rates.iter().all(|rate| *rate > 1.0), "{:?}", side.rates);
        assert!(side.samples.count() >= 2 && side.samples.percentile(500) > 0.0);
    }

    #[test]
    fn a_refused_connection_ends_the_measurement() {
        // A port that was free a moment ago may be another test's by now; nobody is ever given this one.
        let closed = (Ipv4Addr::LOCALHOST, 1).into();
        let error = Side::new(closed).measure(Duration::from_millis(50)).unwrap_err();
        assert!(error.contains("refused"), "{error}");
    }
}
