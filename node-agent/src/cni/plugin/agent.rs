//! The way to the agent: one connection a call, tried again where a repeated call does no harm.

use std::{
    io,
    os::{fd::BorrowedFd, unix::net::UnixStream},
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::cni::{
    config::NetworkConfig,
    failure::{Failure, TRY_AGAIN},
    protocol::{Reply, Request, Verb},
    wire,
};

/// How long an agent that is being restarted is waited for.
const RESTART: Duration = Duration::from_secs(5);
/// Pause between two tries.
const PAUSE: Duration = Duration::from_millis(50);

pub(super) struct Agent {
    socket: PathBuf,
}

/// No answer came; the call may have been done or not.
#[derive(Debug, thiserror::Error)]
#[error("no answer from the agent at {}", socket.display())]
pub(super) struct Lost {
    socket: PathBuf,
    source: io::Error,
}

type Answer = Result<Option<Value>, Failure>;

impl Agent {
    pub(super) fn new(config: &NetworkConfig) -> Self {
        Self { socket: config.socket() }
    }

    /// One try.
    pub(super) fn ask(&self, request: &Request, descriptors: &[BorrowedFd<'_>]) -> Result<Answer, Lost> {
        let asked = self.exchange(request, descriptors);
        let reply = asked.map_err(|source| Lost { socket: self.socket.clone(), source })?;
        Ok(match reply {
            Reply::Done(result) => Ok(result),
            Reply::Failed(failure) => Err(failure),
        })
    }

    /// Tries again while the agent is away, for a few seconds. ADD, CHECK and GC may be repeated.
    pub(super) fn insist(&self, request: &Request, descriptors: &[BorrowedFd<'_>]) -> Answer {
        let deadline = Instant::now() + RESTART;
        loop {
            match self.ask(request, descriptors) {
                Ok(answer) => return answer,
                Err(lost) if Instant::now() >= deadline => {
                    let msg = "the netkeel agent of this node does not answer, it is tried again";
                    return Err(Failure::caused(TRY_AGAIN, msg, &lost));
                }
                Err(_) => thread::sleep(PAUSE),
            }
        }
    }

    fn exchange(&self, request: &Request, descriptors: &[BorrowedFd<'_>]) -> io::Result<Reply> {
        let stream = UnixStream::connect(&self.socket)?;
        stream.set_write_timeout(Some(patience(request.verb)))?;
        stream.set_read_timeout(Some(patience(request.verb)))?;
        wire::send(&stream, &serde_json::to_vec(request)?, descriptors)?;
        let (reply, _) = wire::receive(&stream)?;
        Ok(serde_json::from_slice(&reply)?)
    }
}

/// How long an agent that took the call may need. The kubelet asks for STATUS every 5 s and waits for it.
fn patience(verb: Verb) -> Duration {
    Duration::from_secs(if verb == Verb::Status { 2 } else { 15 })
}
