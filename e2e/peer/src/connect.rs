//! Connect, read who answered, close; again and again, and count.

use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::Result;
use crate::flags::Flags;
use crate::tally::{Answer, Tally};

pub(crate) fn run(flags: &Flags) -> Result<bool> {
    let target = flags.target()?;
    let timeout = flags.millis("timeout", 2000)?;
    let seconds: f64 = flags.get("seconds", 0.0)?;
    let count: u64 = flags.get("count", if seconds > 0.0 { u64::MAX } else { 1 })?;
    let deadline = (seconds > 0.0).then(|| flags.deadline(seconds)).transpose()?;
    let pause = flags.millis("pause", 0)?;
    let begun = AtomicU64::new(0);
    let tally = Mutex::new(Tally::new());
    thread::scope(|scope| {
        for _ in 0..flags.get("parallel", 1)? {
            scope.spawn(|| {
                while begun.fetch_add(1, Ordering::Relaxed) < count
                    && deadline.as_ref().is_none_or(|deadline| !deadline.over())
                {
                    let start = Instant::now();
                    let result = once(target, timeout);
                    if result.is_err() {
                        // A refusal comes at once; a loop must not become a flood of them.
                        thread::sleep(Duration::from_millis(1));
                    }
                    tally.lock().unwrap_or_else(PoisonError::into_inner).add(result, start.elapsed());
                    thread::sleep(pause);
                }
            });
        }
        Ok::<(), String>(())
    })?;
    Ok(tally.into_inner().unwrap_or_else(PoisonError::into_inner).print())
}

fn once(target: SocketAddr, timeout: Duration) -> std::io::Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&target, timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    greeting(&mut stream)
}

/// Reads the line with which every echo connection begins, and nothing after it.
pub(crate) fn greeting(stream: &mut TcpStream) -> std::io::Result<Answer> {
    let mut line = Vec::new();
    let mut byte = [0];
    while byte != [b'\n'] {
        stream.read_exact(&mut byte)?;
        line.push(byte[0]);
    }
    Answer::parse(&line).ok_or_else(|| std::io::ErrorKind::InvalidData.into())
}
