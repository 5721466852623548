//! Whether a program is the plugin that it should be: it is asked for its versions, as a runtime may ask at any time.

use std::{
    io::{self, Read, Write},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::cni::config::VERSIONS;

/// Far more than the answer takes.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(2);

/// Asks the program at `path`; the error is in words.
pub(super) fn run(path: &Path) -> Result<(), String> {
    let answer = ask(path).map_err(|error| error.to_string())?;
    let said: Value =
        serde_json::from_slice(&answer).map_err(|error| format!("it answers no JSON: {error}"))?;
    if said["supportedVersions"] == json!(VERSIONS) {
        return Ok(());
    }
    Err(format!("it speaks CNI {}, not {}", said["supportedVersions"], VERSIONS.join(", ")))
}

fn ask(path: &Path) -> io::Result<Vec<u8>> {
    let mut child = start(path)?;
    if let Some(mut input) = child.stdin.take() {
        // It may end without reading.
        drop(input.write_all(br#"{"cniVersion":"1.1.0"}"#));
    }
    let until = Instant::now() + PATIENCE;
    let status = loop {
        match child.try_wait()? {
            Some(status) => break status,
            None if Instant::now() < until => thread::sleep(PAUSE),
            None => {
                child.kill()?;
                child.wait()?;
                return Err(io::Error::other(format!("no answer in {} s", PATIENCE.as_secs())));
            }
        }
    };
    let mut answer = Vec::new();
    if let Some(output) = child.stdout.take() {
        // Of one that writes more the rest is none of an answer.
        output.take(4096).read_to_end(&mut answer)?;
    }
    if status.success() { Ok(answer) } else { Err(io::Error::other(format!("it ends with {status}"))) }
}

/// A process that another thread is starting at this moment may still hold the file open for writing, until it runs its own program.
fn start(path: &Path) -> io::Result<Child> {
    let until = Instant::now() + PATIENCE;
    loop {
        let started = Command::new(path)
            .env_clear()
            .env("CNI_COMMAND", "VERSION")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        match started {
            Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy && Instant::now() < until => {
                thread::sleep(PAUSE);
            }
            started => return started,
        }
    }
}
