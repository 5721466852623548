//! A payload of many full-size segments there and back; every byte that comes back is compared.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Instant;

use crate::flags::Flags;
use crate::json::Value;
use crate::{Result, connect, tally};

pub(crate) fn run(flags: &Flags) -> Result<bool> {
    let (target, timeout, bytes) =
        (flags.target()?, flags.millis("timeout", 10_000)?, flags.get("bytes", 1_usize << 20)?);
    let start = Instant::now();
    let result = (|| {
        let mut stream = TcpStream::connect_timeout(&target, timeout)?;
        stream.set_read_timeout(Some(timeout))?;
        stream.set_write_timeout(Some(timeout))?;
        let answer = connect::greeting(&mut stream)?;
        exchange(&mut stream, bytes)?;
        Ok(answer)
    })();
    let seconds = start.elapsed().as_secs_f64();
    let megabits = f64::from(u32::try_from(bytes / 125).unwrap_or(u32::MAX)) / 1e3 / seconds;
    let mut fields = vec![("ok", Value::Flag(result.is_ok())), ("bytes", Value::Count(bytes as u64))];
    match &result {
        Ok(answer) => fields.extend([
            ("backend", Value::text(&answer.backend)),
            ("client", Value::text(&answer.client)),
            ("mbit_per_second", Value::Number(megabits)),
        ]),
        Err(error) => fields.push(("error", Value::Text(tally::name(error)))),
    }
    fields.push(("seconds", Value::Number(seconds)));
    Value::Object(fields).print();
    Ok(result.is_ok())
}

/// Sends `bytes` bytes of a pattern without a period that a packet could hide, and reads them back.
fn exchange(stream: &mut TcpStream, bytes: usize) -> std::io::Result<()> {
    let mut sender = stream.try_clone()?;
    let sending = thread::spawn(move || {
        let mut pattern = Pattern::new();
        let mut left = bytes;
        let mut buffer = vec![0; 32 << 10];
        while left > 0 {
            let length = left.min(buffer.len());
            let chunk = buffer.get_mut(..length).unwrap_or_default();
            pattern.fill(chunk);
            sender.write_all(chunk)?;
            left -= length;
        }
        Ok::<(), std::io::Error>(())
    });
    let mut pattern = Pattern::new();
    let mut left = bytes;
    let (mut buffer, mut expected) = (vec![0; 32 << 10], vec![0; 32 << 10]);
    while left > 0 {
        let room = left.min(buffer.len());
        let length = stream.read(buffer.get_mut(..room).unwrap_or_default())?;
        if length == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        pattern.fill(expected.get_mut(..length).unwrap_or_default());
        if buffer.get(..length) != expected.get(..length) {
            return Err(std::io::ErrorKind::InvalidData.into());
        }
        left -= length;
    }
    sending.join().unwrap_or_else(|_| Err(std::io::Error::other("the sender panicked")))
}

/// Bytes of xorshift32: no block of a packet's length equals another.
struct Pattern(u32);

impl Pattern {
    fn new() -> Self {
        Self(0x9e37_79b9)
    }

    fn fill(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 17;
            self.0 ^= self.0 << 5;
            *byte = self.0.to_be_bytes()[0];
        }
    }
}
