//! A payload of many full-size segments there and back; every byte that comes back is compared. With a pause after each chunk one
//! connection goes on for as long as somebody needs it.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use crate::flags::{Deadline, Flags};
use crate::json::Value;
use crate::{Result, connect, tally};

const CHUNK: usize = 32 << 10;
/// Seconds.
const ENDLESS: f64 = 1e9;

pub(crate) fn run(flags: &Flags) -> Result<bool> {
    let (target, timeout) = (flags.target()?, flags.millis("timeout", 10_000)?);
    let plan = Plan {
        bytes: flags.get("bytes", 1_usize << 20)?,
        pause: flags.millis("pause", 0)?,
        deadline: flags.deadline(ENDLESS)?,
    };
    let start = Instant::now();
    let result = (|| {
        let mut stream = TcpStream::connect_timeout(&target, timeout)?;
        stream.set_read_timeout(Some(timeout))?;
        stream.set_write_timeout(Some(timeout))?;
        let answer = connect::greeting(&mut stream)?;
        Ok((answer, plan.exchange(&mut stream)?))
    })();
    let seconds = start.elapsed().as_secs_f64();
    let mut fields = vec![("ok", Value::Flag(result.is_ok()))];
    match &result {
        Ok((answer, bytes)) => fields.extend([
            ("bytes", Value::Count(*bytes as u64)),
            ("backend", Value::text(&answer.backend)),
            ("client", Value::text(&answer.client)),
            ("mbit_per_second", Value::Number(megabits(*bytes) / seconds)),
        ]),
        Err(error) => fields.push(("error", Value::Text(tally::name(error)))),
    }
    fields.push(("seconds", Value::Number(seconds)));
    Value::Object(fields).print();
    Ok(result.is_ok())
}

fn megabits(bytes: usize) -> f64 {
    f64::from(u32::try_from(bytes / 125).unwrap_or(u32::MAX)) / 1e3
}

struct Plan {
    bytes: usize,
    /// After each chunk.
    pause: Duration,
    /// No more is sent after it.
    deadline: Deadline,
}

impl Plan {
    /// Sends a pattern without a period that a packet could hide, and reads it back; returns how many bytes that were.
    fn exchange(self, stream: &mut TcpStream) -> std::io::Result<usize> {
        let (sender, bytes) = (stream.try_clone()?, self.bytes);
        let sending = thread::spawn(move || self.send(sender));
        let mut pattern = Pattern::new();
        let mut left = bytes;
        let (mut buffer, mut expected) = (vec![0; CHUNK], vec![0; CHUNK]);
        while left > 0 {
            let room = left.min(buffer.len());
            let length = stream.read(buffer.get_mut(..room).unwrap_or_default())?;
            if length == 0 {
                break;
            }
            pattern.fill(expected.get_mut(..length).unwrap_or_default());
            if buffer.get(..length) != expected.get(..length) {
                return Err(std::io::ErrorKind::InvalidData.into());
            }
            left -= length;
        }
        let sent = sending.join().unwrap_or_else(|_| Err(std::io::Error::other("the sender panicked")))?;
        if sent == bytes - left { Ok(sent) } else { Err(std::io::ErrorKind::UnexpectedEof.into()) }
    }

    /// Returns how many bytes were sent. The server ends when it has sent all of them back.
    fn send(self, mut stream: TcpStream) -> std::io::Result<usize> {
        let mut pattern = Pattern::new();
        let mut sent = 0;
        let mut buffer = vec![0; CHUNK];
        while sent < self.bytes && !self.deadline.over() {
            let length = (self.bytes - sent).min(buffer.len());
            let chunk = buffer.get_mut(..length).unwrap_or_default();
            pattern.fill(chunk);
            stream.write_all(chunk)?;
            sent += length;
            if !self.pause.is_zero() {
                thread::sleep(self.pause);
            }
        }
        stream.shutdown(Shutdown::Write)?;
        Ok(sent)
    }
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
