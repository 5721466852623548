//! One side of a comparison between places. Slices of time come on demand, so that whoever compares can let processes in
//! different namespaces take turns. Orders are lines of standard input, each answered by one JSON line:
//! `crr MILLIS`, `rr MILLIS`, `bulk MILLIS` (a slice of that length) and `reach HOST:PORT MILLIS` (whether a connection is accepted).

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::samples::Samples;
use super::{BULK, SIZE, crr};
use crate::Result;
use crate::flags::Flags;
use crate::json::Value;
use crate::resolve::target;

/// Ends with standard input. `--to` is the first port of a `bench-serve`.
pub(crate) fn run(flags: &Flags) -> Result<bool> {
    let mut lane = Lane::new(flags.target()?);
    for order in std::io::stdin().lines() {
        let order = order.map_err(|error| format!("standard input: {error}"))?;
        lane.obey(&order)?.print();
    }
    Ok(true)
}

struct Lane {
    server: SocketAddr,
    /// The connection of all `rr` slices, made by the first.
    open: Option<TcpStream>,
}

impl Lane {
    fn new(server: SocketAddr) -> Self {
        Self { server, open: None }
    }

    fn obey(&mut self, order: &str) -> Result<Value> {
        match order.split(' ').collect::<Vec<_>>().as_slice() {
            ["crr", length] => self.slice(millis(length)?, |lane| crr::once(lane.server)),
            ["rr", length] => self.slice(millis(length)?, Self::round_trip),
            ["bulk", length] => {
                self.bulk(millis(length)?).map_err(|error| format!("bulk to {}: {error}", self.server))
            }
            ["reach", host, limit] => {
                let reached = TcpStream::connect_timeout(&target(host)?, millis(limit)?).is_ok();
                Ok(Value::Object(vec![("reached", Value::Flag(reached))]))
            }
            _ => Err(format!("no such order: {order}")),
        }
    }

    fn slice(
        &mut self,
        length: Duration,
        exchange: impl Fn(&mut Self) -> std::io::Result<()>,
    ) -> Result<Value> {
        let (rate, samples) = Samples::of(length, || exchange(self))
            .map_err(|error| format!("exchange with {}: {error}", self.server))?;
        Ok(Value::Object(vec![
            ("per_second", Value::Number(rate)),
            ("p50_us", Value::Number(samples.percentile(500))),
            ("p99_us", Value::Number(samples.percentile(990))),
        ]))
    }

    /// One connection full of data, to the fourth port: Gbit/s by the count of the server.
    fn bulk(&self, length: Duration) -> std::io::Result<Value> {
        let mut stream = TcpStream::connect((self.server.ip(), self.server.port() + 3))?;
        stream.set_read_timeout(Some(crr::LOST))?;
        let (begun, data) = (Instant::now(), vec![7; BULK]);
        while begun.elapsed() < length {
            stream.write_all(&data)?;
        }
        stream.shutdown(Shutdown::Write)?;
        let mut sum = [0; 8];
        stream.read_exact(&mut sum)?;
        let (bytes, seconds) = (u64::from_be_bytes(sum), begun.elapsed().as_secs_f64());
        let megabytes = u32::try_from(bytes / 1_000_000).map_err(std::io::Error::other)?;
        Ok(Value::Object(vec![
            ("per_second", Value::Number(f64::from(megabytes) * 0.008 / seconds)),
            ("p50_us", Value::Number(0.0)),
            ("p99_us", Value::Number(0.0)),
        ]))
    }

    /// Request and response on the connection that stays open, to the port after the first.
    fn round_trip(&mut self) -> std::io::Result<()> {
        let stream = match &mut self.open {
            Some(stream) => stream,
            closed => {
                let stream = TcpStream::connect((self.server.ip(), self.server.port() + 1))?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(crr::LOST))?;
                closed.insert(stream)
            }
        };
        stream.write_all(&[7; SIZE])?;
        stream.read_exact(&mut [0; SIZE])
    }
}

fn millis(text: &str) -> Result<Duration> {
    text.parse().map(Duration::from_millis).map_err(|error| format!("{text} is no number of ms: {error}"))
}

#[cfg(test)]
mod tests {
    use super::super::serve::{answer_all, answer_one, swallow};
    use super::*;
    use std::net::{Ipv4Addr, TcpListener};
    use std::thread;

    /// Two ports in a row with the behaviours of `bench-serve`; the second takes one connection and no more.
    fn server() -> SocketAddr {
        let bind = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
        let (once, always) = (0..100)
            .find_map(|_| {
                let once = bind(0).ok()?;
                let next = once.local_addr().ok()?.port().checked_add(1)?;
                Some((once, bind(next).ok()?))
            })
            .unwrap();
        let address = once.local_addr().unwrap();
        thread::spawn(move || while once.accept().and_then(|(stream, _)| answer_one(stream)).is_ok() {});
        thread::spawn(move || always.accept().and_then(|(stream, _)| answer_all(stream)));
        address
    }

    fn text(value: &Value) -> String {
        let mut out = String::new();
        value.write(&mut out);
        out
    }

    #[test]
    fn round_trips_of_all_slices_share_one_connection() {
        let mut lane = Lane::new(server());
        for _ in 0..2 {
            let said = text(&lane.obey("rr 20").unwrap());
            assert!(said.starts_with(r#"{"per_second":"#) && !said.contains(":0.000"), "{said}");
        }
        assert!(text(&lane.obey("crr 20").unwrap()).contains("p99_us"));
    }

    #[test]
    fn bulk_is_what_the_server_counted() {
        let sink = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let first = SocketAddr::from((Ipv4Addr::LOCALHOST, sink.local_addr().unwrap().port() - 3));
        let server = thread::spawn(move || swallow(sink.accept().unwrap().0).unwrap());
        let said = text(&Lane::new(first).obey("bulk 50").unwrap());
        server.join().unwrap();
        let rate: f64 = said.split([':', ',']).nth(1).unwrap().parse().unwrap();
        assert!(rate > 0.0 && rate.is_finite(), "{said}");
    }

    #[test]
    fn a_closed_port_is_not_reached_and_an_unknown_order_is_refused() {
        let server = server();
        let mut lane = Lane::new(server);
        assert_eq!(text(&lane.obey(&format!("reach {server} 1000")).unwrap()), r#"{"reached":true}"#);
        let closed = SocketAddr::from((Ipv4Addr::LOCALHOST, 1)); // never another test's
        assert_eq!(text(&lane.obey(&format!("reach {closed} 1000")).unwrap()), r#"{"reached":false}"#);
        assert!(lane.obey("crr").is_err() && lane.obey("rr soon").is_err());
    }
}
