//! The servers of the loads, on four ports in a row, each with one behaviour.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

use super::{BULK, SIZE, until_standard_input_ends};
use crate::Result;
use crate::flags::Flags;

/// The first port answers one request a connection and closes it, one connection at a time; the second answers every
/// request of a connection; the third closes each connection at once; the fourth reads all and says how many bytes it was.
pub(crate) fn run(flags: &Flags) -> Result<bool> {
    let port: u16 = flags.get("port", 9000)?;
    let [once, always, never, sink] =
        [listen(port)?, listen(port + 1)?, listen(port + 2)?, listen(port + 3)?];
    thread::spawn(move || {
        for stream in always.incoming().filter_map(std::io::Result::ok) {
            // A client that goes away ends its thread and nothing else.
            thread::spawn(move || drop(answer_all(stream)));
        }
    });
    thread::spawn(move || never.incoming().for_each(drop));
    thread::spawn(move || {
        for stream in sink.incoming().filter_map(std::io::Result::ok) {
            drop(swallow(stream));
        }
    });
    if flags.get("attached", false)? {
        thread::spawn(end_with_standard_input);
    }
    loop {
        // A client that goes away, a probe for example, is its own business.
        drop(once.accept().and_then(|(stream, _)| answer_one(stream)));
    }
}

fn listen(port: u16) -> Result<TcpListener> {
    TcpListener::bind(("::", port)).map_err(|error| format!("TCP port {port}: {error}"))
}

pub(super) fn answer_one(mut stream: TcpStream) -> std::io::Result<()> {
    let mut request = [0; SIZE];
    stream.read_exact(&mut request)?;
    stream.write_all(&request)
}

pub(super) fn answer_all(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut request = [0; SIZE];
    loop {
        stream.read_exact(&mut request)?;
        stream.write_all(&request)?;
    }
}

/// Reads until the client has ended, and answers with the number of bytes (big endian).
pub(super) fn swallow(mut stream: TcpStream) -> std::io::Result<()> {
    let (mut buffer, mut sum) = (vec![0; BULK], 0_u64);
    loop {
        match stream.read(&mut buffer)? {
            0 => return stream.write_all(&sum.to_be_bytes()),
            some => sum += some as u64,
        }
    }
}

fn end_with_standard_input() {
    until_standard_input_ends();
    std::process::exit(0);
}
