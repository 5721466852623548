//! The first process of a node: starts its programs, starts them again when they end, and reaps orphans.
//! A program named in the folder `stopped` stays down.

use std::collections::HashMap;
use std::fs::{self, File};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};

use super::{Daemon, Spec};

const RESTART_AFTER: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_millis(50);

/// Never returns but for an error.
pub(super) fn run(spec: &Spec) -> Result<()> {
    let mut running: HashMap<i32, &Daemon> = HashMap::new();
    let mut not_before: HashMap<&str, Instant> = HashMap::new();
    loop {
        for pid in ended()? {
            if let Some(daemon) = running.remove(&pid) {
                eprintln!("{} ended", daemon.name);
                not_before.insert(&daemon.name, Instant::now() + RESTART_AFTER);
            }
        }
        for daemon in &spec.daemons {
            let up = running.values().any(|other| other.name == daemon.name);
            let early = not_before.get(daemon.name.as_str()).is_some_and(|due| Instant::now() < *due);
            if !up && !early && wanted(spec, daemon) {
                running.insert(start(spec, daemon)?, daemon);
            }
        }
        std::thread::sleep(TICK);
    }
}

fn wanted(spec: &Spec, daemon: &Daemon) -> bool {
    let stopped = spec.folder.join("stopped").join(&daemon.name).exists();
    let reachable = |address| TcpStream::connect_timeout(&address, Duration::from_millis(200)).is_ok();
    !stopped && daemon.after.is_none_or(reachable)
}

fn start(spec: &Spec, daemon: &Daemon) -> Result<i32> {
    let path = spec.folder.join("log").join(format!("{}.log", daemon.name));
    let log =
        File::options().create(true).append(true).open(&path).with_context(|| path.display().to_string())?;
    let (program, arguments) = daemon.command.split_first().context("a command has a program")?;
    let mut command = Command::new(program);
    command.args(arguments).env("PATH", &spec.path).env("HOME", "/root");
    // They are Go's, whose collector takes memory for processor time: tests run several clusters on two processors.
    command.env("GOGC", "400");
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    let pid = command.spawn().with_context(|| program.clone())?.id();
    fs::write(spec.folder.join("log").join(format!("{}.pid", daemon.name)), pid.to_string())?;
    Ok(i32::try_from(pid)?)
}

/// Process ids that have ended, children of ours and orphans alike.
fn ended() -> Result<Vec<i32>> {
    let mut found = Vec::new();
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, _, _)) => found.push(pid.as_raw()),
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return Ok(found),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
