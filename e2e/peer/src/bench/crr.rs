//! Connect, request, response, close: one connection after the other, in slices of time that alternate between two targets.
//! The server closes first, so that no port of the client stays taken after its end.

use std::io::{Error, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use super::samples::Samples;
use crate::Result;
use crate::flags::Flags;
use crate::json::Value;
use crate::resolve::target;

/// Bytes of a request and of its response.
const SIZE: usize = 64;
const WARM_UP: Duration = Duration::from_millis(500);
/// A connection that takes this long is lost.
const LOST: Duration = Duration::from_secs(5);

/// Answers one request a connection and closes it; one connection at a time.
pub(crate) fn serve(flags: &Flags) -> Result<bool> {
    let port: u16 = flags.get("port", 9000)?;
    let listener = TcpListener::bind(("::", port)).map_err(|error| format!("TCP port {port}: {error}"))?;
    loop {
        // A client that goes away, a probe for example, is its own business.
        drop(listener.accept().and_then(|(stream, _)| answer(stream)));
    }
}

fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    let mut request = [0; SIZE];
    stream.read_exact(&mut request)?;
    stream.write_all(&request)
}

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

    /// Any failed connection ends the measurement: a rate with failures in it says nothing.
    fn measure(&mut self, slice: Duration) -> Result<()> {
        let mut samples = Samples::default();
        let begun = Instant::now();
        let mut last = begun;
        while last - begun < slice {
            once(self.target).map_err(|error| format!("{}: {error}", self.target))?;
            let now = Instant::now();
            samples.add(now - last);
            last = now;
        }
        self.rates.push(f64::from(samples.count()) / (last - begun).as_secs_f64());
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

fn once(target: SocketAddr) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(target)?;
    stream.set_read_timeout(Some(LOST))?;
    stream.write_all(&[7; SIZE])?;
    let mut response = [0; SIZE];
    stream.read_exact(&mut response)?;
    match stream.read(&mut response)? {
        0 => Ok(()),
        _ => Err(Error::new(ErrorKind::InvalidData, "the server sent more than the response")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn a_slice_counts_what_it_did() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let mut side = Side::new(listener.local_addr().unwrap());
        std::thread::spawn(move || while listener.accept().and_then(|(stream, _)| answer(stream)).is_ok() {});
        side.measure(Duration::from_millis(50)).unwrap();
        side.measure(Duration::from_millis(50)).unwrap();
        assert!(side.rates.len() == 2 && side.rates.iter().all(|rate| *rate > 1.0), "{:?}", side.rates);
        assert!(side.samples.count() >= 2 && side.samples.percentile(500) > 0.0);
    }

    #[test]
    fn a_refused_connection_ends_the_measurement() {
        let closed = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
        let error = Side::new(closed).measure(Duration::from_millis(50)).unwrap_err();
        assert!(error.contains("refused"), "{error}");
    }
}
