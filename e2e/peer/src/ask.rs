//! Many DNS questions as bytes, each put to several servers: lines `udp HEX` or `tcp HEX` on standard input become lines of replies in
//! hexadecimal, in the order of the servers, `-` where none came.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{BufRead, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use crate::Result;
use crate::flags::Flags;

/// Of a message over TCP, which carries its length in two bytes.
const LARGEST: usize = 65_535;

pub(crate) fn run(flags: &Flags) -> Result<bool> {
    flags.word("a server")?;
    let timeout = flags.millis("timeout", 5000)?;
    let parsed = |text: &String| text.parse::<SocketAddr>().map_err(|error| format!("{text}: {error}"));
    let servers: Vec<SocketAddr> = flags.words().iter().map(parsed).collect::<Result<_>>()?;
    let mut asker = Asker { timeout, streams: HashMap::new() };
    let mut output = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        let line = line.map_err(|error| format!("standard input: {error}"))?;
        let (transport, packet) = line.split_once(' ').ok_or_else(|| format!("no question: {line}"))?;
        let packet = bytes(packet).ok_or_else(|| format!("not hexadecimal: {packet}"))?;
        let replies: Vec<String> = servers
            .iter()
            .map(|server| match transport {
                "tcp" => asker.over_tcp(*server, &packet),
                _ => asker.over_udp(*server, &packet),
            })
            .map(|reply| reply.map_or_else(|_| "-".to_owned(), |bytes| hex(&bytes)))
            .collect();
        writeln!(output, "{}", replies.join(" ")).map_err(|error| format!("standard output: {error}"))?;
    }
    Ok(true)
}

struct Asker {
    timeout: Duration,
    /// One connection a server, for all questions until it breaks.
    streams: HashMap<SocketAddr, TcpStream>,
}

impl Asker {
    /// From a port of its own.
    fn over_udp(&self, server: SocketAddr, packet: &[u8]) -> std::io::Result<Vec<u8>> {
        let any: IpAddr = if server.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
        let socket = UdpSocket::bind((any, 0))?;
        socket.set_read_timeout(Some(self.timeout))?;
        socket.connect(server)?;
        socket.send(packet)?;
        let mut buffer = vec![0; LARGEST];
        let length = socket.recv(&mut buffer)?;
        buffer.truncate(length);
        Ok(buffer)
    }

    fn over_tcp(&mut self, server: SocketAddr, packet: &[u8]) -> std::io::Result<Vec<u8>> {
        if let Some(stream) = self.streams.get_mut(&server)
            && let Ok(reply) = exchange(stream, packet)
        {
            return Ok(reply);
        }
        // The server may have closed a connection that was idle.
        let mut stream = TcpStream::connect_timeout(&server, self.timeout)?;
        stream.set_read_timeout(Some(self.timeout))?;
        let reply = exchange(&mut stream, packet)?;
        self.streams.insert(server, stream);
        Ok(reply)
    }
}

/// Asks over a connection (RFC 1035 section 4.2.2).
pub(crate) fn exchange(stream: &mut TcpStream, packet: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut framed = u16::try_from(packet.len()).unwrap_or(u16::MAX).to_be_bytes().to_vec();
    framed.extend(packet);
    stream.write_all(&framed)?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut reply = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut reply)?;
    Ok(reply)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// `None` where the text is not hexadecimal.
fn bytes(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> =
        text.chars().map(|digit| digit.to_digit(16).and_then(|digit| u8::try_from(digit).ok())).collect();
    let digits = digits.filter(|digits| digits.len() % 2 == 0)?;
    Some(digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_survive_their_text() {
        assert_eq!(bytes(&hex(&[0, 15, 255])), Some(vec![0, 15, 255]));
        assert_eq!([bytes("0"), bytes("0g"), bytes("é0")], [None, None, None]);
    }
}
