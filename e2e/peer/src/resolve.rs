//! One DNS question, asked as given; and names of targets, looked up as resolv.conf says.

use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use crate::Result;
use crate::ask::exchange;
use crate::dns::{self, Message, Record};
use crate::flags::Flags;
use crate::json::Value;
use crate::tally;

const TIMEOUT: Duration = Duration::from_secs(2);

pub(crate) fn run(flags: &Flags) -> Result<bool> {
    let kind = flags.text("type").unwrap_or("A");
    let question = Question {
        name: flags.word("the name to resolve")?,
        kind: dns::kind_number(kind).ok_or_else(|| format!("--type {kind} is not known"))?,
        server: name_server(flags.text("server"))?,
        tcp: flags.get("tcp", false)?,
        timeout: flags.millis("timeout", 2000)?,
    };
    let start = Instant::now();
    let result = question.ask();
    let mut fields = vec![("millis", Value::Number(start.elapsed().as_secs_f64() * 1e3))];
    match &result {
        Ok(answer) => fields.extend([
            ("code", Value::text(answer.code())),
            ("authoritative", Value::Flag(answer.flags & 0x0400 != 0)),
            ("truncated", Value::Flag(answer.flags & 0x0200 != 0)),
            ("answers", records(&answer.answers)),
            ("authority", records(&answer.authority)),
            ("additional", records(&answer.additional)),
        ]),
        Err(error) => fields.push(("error", Value::Text(tally::name(error)))),
    }
    Value::Object(fields).print();
    Ok(result.is_ok())
}

fn records(records: &[Record]) -> Value {
    let object = |record: &Record| {
        Value::Object(vec![
            ("name", Value::text(&record.name)),
            ("type", Value::Text(dns::kind_name(record.kind))),
            ("ttl", Value::Count(u64::from(record.ttl))),
            ("data", Value::Text(record.text())),
        ])
    };
    Value::List(records.iter().map(object).collect())
}

/// The one that is told, else the first of resolv.conf.
pub(crate) fn name_server(told: Option<&str>) -> Result<SocketAddr> {
    match told {
        None => Ok(Configuration::read()?.server),
        Some(text) => server(text),
    }
}

/// `ADDRESS` or `ADDRESS:PORT`.
fn server(text: &str) -> Result<SocketAddr> {
    let with_port = text.parse::<IpAddr>().map(|address| SocketAddr::new(address, 53));
    with_port.or_else(|_| text.parse()).map_err(|error| format!("{text}: {error}"))
}

struct Question<'a> {
    name: &'a str,
    kind: u16,
    server: SocketAddr,
    tcp: bool,
    timeout: Duration,
}

impl Question<'_> {
    fn ask(&self) -> std::io::Result<Message> {
        let id = u16::try_from(std::process::id() & 0xffff).unwrap_or(1);
        let query = Message {
            id,
            flags: 0x0100,
            question: Some((self.name.to_owned(), self.kind)),
            udp_size: Some(1232),
            ..Message::default()
        };
        let bytes = if self.tcp { self.over_tcp(&query.encode())? } else { self.over_udp(&query.encode())? };
        Message::decode(&bytes)
            .filter(|answer| answer.id == id)
            .ok_or_else(|| std::io::ErrorKind::InvalidData.into())
    }

    fn over_udp(&self, query: &[u8]) -> std::io::Result<Vec<u8>> {
        let socket = UdpSocket::bind(if self.server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
        socket.set_read_timeout(Some(self.timeout))?;
        socket.connect(self.server)?;
        socket.send(query)?;
        let mut buffer = vec![0; 65535];
        let length = socket.recv(&mut buffer)?;
        buffer.truncate(length);
        Ok(buffer)
    }

    fn over_tcp(&self, query: &[u8]) -> std::io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect_timeout(&self.server, self.timeout)?;
        stream.set_read_timeout(Some(self.timeout))?;
        exchange(&mut stream, query)
    }
}

/// What resolv.conf says.
#[derive(Debug, PartialEq, Eq)]
struct Configuration {
    server: SocketAddr,
    search: Vec<String>,
    /// Names with at least this many dots are tried as they are first.
    ndots: usize,
}

impl Configuration {
    fn read() -> Result<Self> {
        let text = std::fs::read_to_string("/etc/resolv.conf")
            .map_err(|error| format!("/etc/resolv.conf: {error}"))?;
        Self::parse(&text)
    }

    fn parse(text: &str) -> Result<Self> {
        let (mut address, mut search, mut ndots) = (None, Vec::new(), 1);
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") if address.is_none() => address = words.next(),
                Some("search") => search = words.map(str::to_owned).collect(),
                Some("options") => {
                    let value = words.find_map(|word| word.strip_prefix("ndots:")?.parse().ok());
                    ndots = value.unwrap_or(ndots);
                }
                _ => {}
            }
        }
        Ok(Self { server: server(address.ok_or("resolv.conf names no server")?)?, search, ndots })
    }

    /// The names to ask for, in their order.
    fn candidates(&self, name: &str) -> Vec<String> {
        if let Some(absolute) = name.strip_suffix('.') {
            return vec![absolute.to_owned()];
        }
        let mut names: Vec<String> = self.search.iter().map(|suffix| format!("{name}.{suffix}")).collect();
        let first = name.matches('.').count() >= self.ndots;
        names.insert(if first { 0 } else { names.len() }, name.to_owned());
        names
    }
}

/// `HOST:PORT` with an address or a name, whose IPv4 address counts before an IPv6 one.
pub(crate) fn target(text: &str) -> Result<SocketAddr> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let (host, port) = text.rsplit_once(':').ok_or_else(|| format!("{text}: HOST:PORT is expected"))?;
    let port: u16 = port.parse().map_err(|error| format!("{text}: {error}"))?;
    let configuration = Configuration::read()?;
    for name in configuration.candidates(host) {
        for kind in [dns::A, dns::AAAA] {
            let question =
                Question { name: &name, kind, server: configuration.server, tcp: false, timeout: TIMEOUT };
            let answer = question
                .ask()
                .map_err(|error| format!("resolve {name} at {}: {error}", configuration.server))?;
            let mut addresses = answer.answers.iter().filter(|record| record.kind == kind);
            if let Some(address) = addresses.find_map(|record| record.text().parse::<IpAddr>().ok()) {
                return Ok(SocketAddr::new(address, port));
            }
        }
    }
    Err(format!("{host} does not exist (asked {})", configuration.server))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_searched_as_kubelet_configures_it() {
        let text = "search ns.svc.cluster.local svc.cluster.local\nnameserver 10.96.0.10\noptions ndots:5\n";
        let configuration = Configuration::parse(text).unwrap();
        assert_eq!(configuration.server, "10.96.0.10:53".parse().unwrap());
        assert_eq!(
            configuration.candidates("web"),
            ["web.ns.svc.cluster.local", "web.svc.cluster.local", "web"]
        );
        assert_eq!(configuration.candidates("a.b.c.d.e.f")[0], "a.b.c.d.e.f");
        assert_eq!(configuration.candidates("web.ns."), ["web.ns"]);
    }

    #[test]
    fn an_address_needs_no_server() {
        assert_eq!(target("10.0.0.1:80").unwrap(), "10.0.0.1:80".parse().unwrap());
        assert!(target("10.0.0.1").unwrap_err().contains("HOST:PORT"));
    }
}
