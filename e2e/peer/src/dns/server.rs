//! The resolver outside the cluster. It knows `outside.test`, `alias.outside.test` (CNAME) and `large.outside.test`
//! (TXT of 4000 bytes, truncated over UDP); every other name does not exist.

use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::{A, AAAA, CNAME, Message, Record, SOA, TXT, wire_name};
use crate::Result;

const PORT: u16 = 53;
const TTL: u32 = 30;
/// Answer, recursion desired and available.
const ANSWER: u16 = 0x8180;
const TRUNCATED: u16 = 0x0200;
const NO_SUCH_NAME: u16 = 3;

/// Answers over both families; `outside` are the addresses of `outside.test`.
pub(crate) fn start(outside: Vec<IpAddr>) -> Result<()> {
    let say = |error| format!("DNS port: {error}");
    let udp = UdpSocket::bind(("::", PORT)).map_err(say)?;
    let tcp = TcpListener::bind(("::", PORT)).map_err(say)?;
    let outside: Arc<[IpAddr]> = outside.into();
    let known = Arc::clone(&outside);
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok((length, client)) = udp.recv_from(&mut buffer) {
            if let Some(query) = buffer.get(..length).and_then(Message::decode) {
                drop(udp.send_to(&over_udp(&query, &known), client));
            }
        }
    });
    thread::spawn(move || {
        for stream in tcp.incoming().filter_map(std::io::Result::ok) {
            let outside = Arc::clone(&outside);
            thread::spawn(move || drop(over_tcp(stream, &outside)));
        }
    });
    Ok(())
}

fn over_udp(query: &Message, outside: &[IpAddr]) -> Vec<u8> {
    let whole = answer(query, outside);
    let bytes = whole.encode();
    if bytes.len() <= usize::from(query.udp_size.unwrap_or(512).max(512)) {
        return bytes;
    }
    Message { flags: whole.flags | TRUNCATED, answers: Vec::new(), ..whole }.encode()
}

fn over_tcp(mut stream: TcpStream, outside: &[IpAddr]) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    loop {
        let mut length = [0; 2];
        stream.read_exact(&mut length)?;
        let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut query)?;
        let Some(query) = Message::decode(&query) else { return Ok(()) };
        let bytes = answer(&query, outside).encode();
        let mut framed = u16::try_from(bytes.len()).unwrap_or(u16::MAX).to_be_bytes().to_vec();
        framed.extend(bytes);
        stream.write_all(&framed)?;
    }
}

fn answer(query: &Message, outside: &[IpAddr]) -> Message {
    let mut message = Message {
        id: query.id,
        flags: ANSWER,
        question: query.question.clone(),
        udp_size: query.udp_size.map(|_| 4096),
        ..Message::default()
    };
    let Some((asked, kind)) = &query.question else { return message };
    let name = asked.trim_end_matches('.').to_ascii_lowercase();
    let record = |owner: &str, kind, data| Record { name: owner.to_owned(), kind, ttl: TTL, data };
    let addresses = |owner: &str| {
        let of_kind = outside.iter().filter(|address| *kind == if address.is_ipv4() { A } else { AAAA });
        of_kind.map(|address| record(owner, *kind, octets(*address))).collect::<Vec<_>>()
    };
    match (name.as_str(), *kind) {
        ("outside.test", A | AAAA) => message.answers.extend(addresses(asked)),
        ("alias.outside.test", A | AAAA | CNAME) => {
            message.answers.push(record(asked, CNAME, wire_name("outside.test")));
            message.answers.extend(addresses("outside.test"));
        }
        ("large.outside.test", TXT) => message.answers.push(record(asked, TXT, large())),
        ("outside.test" | "alias.outside.test" | "large.outside.test" | "test", _) => {
            message.authority.push(start_of_authority());
        }
        _ => {
            message.flags |= NO_SUCH_NAME;
            message.authority.push(start_of_authority());
        }
    }
    message
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// Twenty strings of 200 bytes.
fn large() -> Vec<u8> {
    (0..20).flat_map(|string| std::iter::once(200).chain(std::iter::repeat_n(b'a' + string, 200))).collect()
}

/// Negative answers live five seconds.
fn start_of_authority() -> Record {
    let mut data = wire_name("ns.test");
    data.extend(wire_name("admin.test"));
    data.extend([1_u32, 3600, 600, 86400, 5].iter().flat_map(|number| number.to_be_bytes()));
    Record { name: "test".into(), kind: SOA, ttl: 5, data }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTSIDE: &[IpAddr] = &[
        IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 10)),
        IpAddr::V6(std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10)),
    ];

    fn query(name: &str, kind: u16) -> Message {
        Message { id: 1, question: Some((name.into(), kind)), ..Message::default() }
    }

    #[test]
    fn a_name_an_alias_and_an_unknown_name_are_answered() {
        let text = |name, kind| {
            let answer = answer(&query(name, kind), OUTSIDE);
            (answer.code(), answer.answers.iter().map(Record::text).collect::<Vec<_>>())
        };
        assert_eq!(text("Outside.Test", A), ("NOERROR", vec!["198.51.100.10".into()]));
        assert_eq!(
            text("alias.outside.test", A),
            ("NOERROR", vec!["outside.test".into(), "198.51.100.10".into()])
        );
        assert_eq!(text("outside.test", AAAA), ("NOERROR", vec!["2001:db8::10".into()]));
        assert_eq!(text("outside.test", TXT), ("NOERROR", vec![]));
        assert_eq!(text("nobody.test", A), ("NXDOMAIN", vec![]));
    }

    #[test]
    fn a_large_answer_is_truncated_over_udp_only() {
        let short = Message::decode(&over_udp(&query("large.outside.test", TXT), OUTSIDE)).unwrap();
        assert_eq!((short.flags & TRUNCATED, short.answers.len()), (TRUNCATED, 0));
        let whole = answer(&query("large.outside.test", TXT), OUTSIDE);
        assert_eq!(whole.answers[0].text().len(), 4000);
    }
}
