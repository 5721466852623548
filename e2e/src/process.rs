//! Running other programs: errors carry the command line and what it wrote to stderr.

use std::io::Write;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::Progress;

/// cargo, as somebody at a shell starts it: by its name, so that rustup's takes a `+toolchain`, and without the variables by which a cargo
/// around this program says which crate it runs or tests. Build scripts (ring's for one) would see them change, and half of the workspace
/// would be built again.
#[must_use]
pub fn cargo() -> Command {
    let mut cargo = Command::new("cargo");
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
            cargo.env_remove(&*name);
        }
    }
    cargo
}

/// A process that is recognised again: a process id is reused, the pair with its start time is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    pub pid: u32,
    /// Clock ticks since boot, field 22 of `/proc/PID/stat`.
    pub started: u64,
}

impl ProcessId {
    /// The process that has this id now.
    ///
    /// # Errors
    /// There is none, or it has ended.
    pub fn of(pid: u32) -> Result<Self> {
        let stat =
            std::fs::read_to_string(format!("/proc/{pid}/stat")).with_context(|| format!("process {pid}"))?;
        let started = start_time(&stat).with_context(|| format!("process {pid} has ended"))?;
        Ok(Self { pid, started })
    }

    #[must_use]
    pub fn alive(&self) -> bool {
        Self::of(self.pid).is_ok_and(|now| now == *self)
    }
}

/// Field 22 of a stat line, `None` for a zombie. The command name may contain blanks and brackets.
fn start_time(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(") ")?;
    let fields: Vec<&str> = fields.split(' ').collect();
    if matches!(*fields.first()?, "Z" | "X") {
        return None;
    }
    fields.get(19)?.parse().ok()
}

/// The command line as a reader would type it.
#[must_use]
pub fn describe(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

/// Runs the command to its end and returns its output.
///
/// # Errors
/// The command cannot be started or fails; the error has its last lines of stderr.
pub fn run(command: &mut Command) -> Result<Output> {
    let output = command.stdin(Stdio::null()).output().with_context(|| describe(command))?;
    checked(&describe(command), output)
}

/// Runs the command and returns its standard output as text.
///
/// # Errors
/// As [`run`].
pub fn text(command: &mut Command) -> Result<String> {
    Ok(String::from_utf8_lossy(&run(command)?.stdout).into_owned())
}

/// Runs the command with `input` on its standard input and returns its standard output as text.
///
/// # Errors
/// As [`run`].
pub fn text_with_input(command: &mut Command, input: &str) -> Result<String> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| describe(command))?;
    let mut stdin = child.stdin.take().context("stdin is piped")?;
    let input = input.to_owned();
    // A child that ends early closes the pipe; its own error says more than the write's.
    let writer = std::thread::spawn(move || drop(stdin.write_all(input.as_bytes())));
    let output = child.wait_with_output().with_context(|| describe(command))?;
    drop(writer.join());
    text_of(&describe(command), output)
}

/// The standard output of what ran as text.
///
/// # Errors
/// It failed; the error has its last lines of stderr.
pub(crate) fn text_of(what: &str, output: Output) -> Result<String> {
    Ok(String::from_utf8_lossy(&checked(what, output)?.stdout).into_owned())
}

/// Runs a command that takes minutes: its output goes to the terminal and every half minute a line says that it still runs.
///
/// # Errors
/// The command cannot be started or fails.
pub fn run_long(command: &mut Command, what: &str, progress: &Progress) -> Result<()> {
    let mut child = command.stdin(Stdio::null()).spawn().with_context(|| describe(command))?;
    let mut next = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(status) = child.try_wait()? {
            if !status.success() {
                bail!("{} failed: {status}", describe(command));
            }
            return Ok(());
        }
        if Instant::now() >= next {
            progress.say(format!("{what}: still working"));
            next += Duration::from_secs(30);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn checked(what: &str, output: Output) -> Result<Output> {
    if output.status.success() {
        return Ok(output);
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    let said = if stderr.trim().is_empty() { String::from_utf8_lossy(&output.stdout) } else { stderr };
    let lines: Vec<&str> = said.trim().lines().collect();
    let last = lines.get(lines.len().saturating_sub(20)..).unwrap_or_default().join("\n");
    bail!("{what} failed ({}): {last}", output.status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_time_is_read_past_a_name_with_brackets() {
        let tail = "S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20";
        assert_eq!(start_time(&format!("12 (a) b (c)) {tail}")), Some(4711));
        assert_eq!(start_time(&format!("12 (a) {}", tail.replacen('S', "Z", 1))), None);
    }

    #[test]
    fn this_process_is_alive_and_an_older_one_of_its_number_is_not() {
        let me = ProcessId::of(std::process::id()).unwrap();
        assert!(me.alive());
        assert!(!ProcessId { started: me.started - 1, ..me }.alive());
    }

    #[test]
    fn a_failed_command_tells_what_it_wrote_to_stderr() {
        let error =
            run(Command::new("sh").args(["-c", "echo broken pipe of the organ >&2; exit 3"])).unwrap_err();
        assert!(error.to_string().contains("broken pipe of the organ"), "{error}");
    }

    #[test]
    fn cargo_is_not_told_which_crate_is_around_it() {
        let taken = |(name, value): (&std::ffi::OsStr, Option<&std::ffi::OsStr>)| {
            value.is_none().then(|| name.to_string_lossy().into_owned())
        };
        let cargo = cargo();
        let removed: Vec<String> = cargo.get_envs().filter_map(taken).collect();
        // This test is run by a cargo, which says so.
        for name in ["CARGO_MANIFEST_DIR", "CARGO_PKG_NAME"] {
            assert!(removed.iter().any(|removed| removed == name), "{name} stays: {removed:?}");
        }
    }

    #[test]
    fn input_reaches_the_command() {
        assert_eq!(text_with_input(Command::new("cat").arg("-"), "hello").unwrap(), "hello");
    }
}
