//! Tries to connect every few milliseconds and notes when each try that was accepted began. A try that gets no answer
//! does not hold up the next: as many threads take turns as tries can be under way.

use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use super::until_standard_input_ends;
use crate::Result;
use crate::flags::Flags;
use crate::json::Value;

/// Probes until standard input ends, then prints microseconds since 1970 of each try that was accepted. The server
/// closes first (the third port of `bench-serve`), so that the client does not run out of ports.
pub(crate) fn run(flags: &Flags) -> Result<bool> {
    let plan = Plan {
        target: flags.target()?,
        interval: flags.millis("interval", 2)?.max(Duration::from_millis(1)),
        // Shorter than the kernel's first repetition of a SYN (1 s): a try is one look at one moment.
        timeout: flags.millis("timeout", 40)?,
    };
    let (begun, ended) = (Begun::now(), AtomicBool::new(false));
    let mut accepted = thread::scope(|scope| {
        let (plan, begun, ended) = (&plan, &begun, &ended);
        let start = |turn| scope.spawn(move || plan.probe(turn, begun, ended));
        let threads: Vec<_> = (0..plan.threads()).map(start).collect();
        until_standard_input_ends();
        ended.store(true, Ordering::Relaxed);
        threads.into_iter().filter_map(|thread| thread.join().ok()).flatten().collect::<Vec<u64>>()
    });
    accepted.sort_unstable();
    let list = accepted.into_iter().map(Value::Count).collect();
    Value::Object(vec![("accepted_us", Value::List(list))]).print();
    Ok(true)
}

/// One moment on both clocks: tries are timed by the one that never jumps and told by the one that processes share.
struct Begun(Instant, SystemTime);

impl Begun {
    fn now() -> Self {
        Self(Instant::now(), SystemTime::now())
    }

    /// Microseconds since 1970.
    fn micros(&self, at: Instant) -> u64 {
        let wall = self.1 + at.saturating_duration_since(self.0);
        let since = wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
    }
}

struct Plan {
    target: SocketAddr,
    interval: Duration,
    timeout: Duration,
}

impl Plan {
    /// Half as many again as tries can be under way: on a busy machine a thread wakes late.
    fn threads(&self) -> u32 {
        let under_way = self.timeout.as_micros().div_ceil(self.interval.as_micros());
        u32::try_from(under_way + under_way / 2 + 1).unwrap_or(u32::MAX)
    }

    /// Every so many-th try, beginning with number `turn`.
    fn probe(&self, turn: u32, begun: &Begun, ended: &AtomicBool) -> Vec<u64> {
        let mut accepted = Vec::new();
        let mut due = begun.0 + self.interval * turn;
        while !ended.load(Ordering::Relaxed) {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            let start = Instant::now();
            if let Ok(mut stream) = TcpStream::connect_timeout(&self.target, self.timeout) {
                accepted.push(begun.micros(start));
                drop(stream.set_read_timeout(Some(self.timeout)));
                drop(stream.read(&mut [0]));
            }
            // Turns that passed meanwhile are left out: catching up would be a flood.
            while due <= Instant::now() {
                due += self.interval * self.threads();
            }
        }
        accepted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, TcpListener};

    #[test]
    fn accepted_tries_are_told_in_microseconds_and_refused_ones_are_not() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let mut plan = Plan {
            target: listener.local_addr().unwrap(),
            interval: Duration::from_millis(1),
            timeout: Duration::from_millis(10),
        };
        thread::spawn(move || listener.incoming().take(3).for_each(drop));
        let (begun, ended) = (Begun::now(), AtomicBool::new(false));
        let probe = |plan: &Plan| {
            thread::scope(|scope| {
                let probing = scope.spawn(|| plan.probe(0, &begun, &ended));
                thread::sleep(Duration::from_millis(100));
                ended.store(true, Ordering::Relaxed);
                probing.join().unwrap()
            })
        };
        let accepted = probe(&plan);
        let first = begun.micros(begun.0);
        assert!((1..=3).contains(&accepted.len()), "{accepted:?}");
        assert!(
            accepted.iter().all(|at| (first..first + 1_000_000).contains(at)),
            "{accepted:?} after {first}"
        );
        ended.store(false, Ordering::Relaxed);
        plan.target = (Ipv4Addr::LOCALHOST, 1).into(); // never another test's
        assert_eq!(probe(&plan), [0; 0]);
    }

    #[test]
    fn a_thread_is_free_whenever_a_try_is_due() {
        let plan = |interval, timeout| Plan {
            target: (Ipv4Addr::LOCALHOST, 1).into(),
            interval: Duration::from_millis(interval),
            timeout: Duration::from_millis(timeout),
        };
        assert_eq!([plan(2, 40).threads(), plan(3, 40).threads(), plan(50, 40).threads()], [31, 22, 2]);
    }
}
