//! The servers: HTTP that tells name and client, TCP echo behind such a line, UDP that puts the line before the payload.

mod received;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use crate::Result;
use crate::flags::Flags;
use crate::json::Value;

/// A client that says nothing for this long is dropped.
const IDLE: Duration = Duration::from_mins(10);

pub(crate) fn run(flags: &Flags) -> Result<bool> {
    let name = flags.text("name").map_or_else(host_name, str::to_owned);
    http(&name, flags.get("http", 8080)?)?;
    echo(&name, flags.get("echo", 7000)?)?;
    loop {
        thread::park();
    }
}

fn host_name() -> String {
    let file = || std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    std::env::var("POD_NAME").unwrap_or_else(|_| file().trim().to_owned())
}

/// Serves HTTP on all addresses: one request a connection, the answer tells name, client and path.
pub(crate) fn http(name: &str, port: u16) -> Result<()> {
    accept(name, port, |name, stream| {
        let client = stream.peer_addr()?;
        let mut lines = BufReader::new(stream.try_clone()?).lines();
        let request = lines.next().transpose()?.unwrap_or_default();
        while lines.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
        let path = request.split(' ').nth(1).unwrap_or("/").to_owned();
        let answer = match path.strip_prefix("/received/") {
            Some(client) => received::json(client),
            None => Value::Object(vec![
                ("name", Value::text(name)),
                ("client", Value::text(plain(client).ip().to_string())),
                ("path", Value::Text(path)),
            ]),
        };
        let mut body = String::new();
        answer.write(&mut body);
        write!(
            stream,
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}\n",
            body.len() + 1
        )
    })
}

/// Serves TCP and UDP echo on all addresses; UDP before TCP, which is what probes ask.
pub(crate) fn echo(name: &str, port: u16) -> Result<()> {
    let socket = UdpSocket::bind(("::", port)).map_err(|error| format!("UDP port {port}: {error}"))?;
    let to_datagrams = name.to_owned();
    thread::spawn(move || {
        let mut buffer = vec![0; 64 << 10];
        while let Ok((length, client)) = socket.recv_from(&mut buffer) {
            received::datagram(client.ip());
            let mut answer = format!("{to_datagrams} {}\n", plain(client)).into_bytes();
            answer.extend_from_slice(buffer.get(..length).unwrap_or_default());
            drop(socket.send_to(&answer, client));
        }
    });
    accept(name, port, |name, stream| {
        received::connection(stream.peer_addr()?.ip());
        writeln!(stream, "{name} {}", plain(stream.peer_addr()?))?;
        let mut buffer = vec![0; 64 << 10];
        loop {
            let length = stream.read(&mut buffer)?;
            if length == 0 {
                return Ok(());
            }
            stream.write_all(buffer.get(..length).unwrap_or_default())?;
        }
    })
}

/// Listens on IPv6 and with it on IPv4, one thread a connection.
fn accept(
    name: &str,
    port: u16,
    serve: impl Fn(&str, &mut TcpStream) -> std::io::Result<()> + Send + Sync + Copy + 'static,
) -> Result<()> {
    let listener = TcpListener::bind(("::", port)).map_err(|error| format!("TCP port {port}: {error}"))?;
    let name = name.to_owned();
    thread::spawn(move || {
        for mut stream in listener.incoming().filter_map(std::io::Result::ok) {
            let name = name.clone();
            thread::spawn(move || {
                drop(stream.set_read_timeout(Some(IDLE)));
                drop(stream.set_nodelay(true));
                // A client that goes away is its own business.
                drop(serve(&name, &mut stream));
            });
        }
    });
    Ok(())
}

/// An IPv4 client of an IPv6 socket as the IPv4 address that it has.
fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
