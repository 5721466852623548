//! kubectl for tests, which call it some thousand times: its own code in a process that stays
//! (`e2e/go/kube/kubectl-server`), one per program of tests and [`Cluster`], in the fabric's network namespace. What a call
//! prints, and its exit code, are those of the program kubectl.

use std::fs::{DirBuilder, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, ensure};

use super::Cluster;
use super::start::log_hint;
use crate::process::{self, ProcessId};

/// The program, beside kubectl.
const PROGRAM: &str = "kubectl-server";
/// Of the cluster's: sockets, what its calls cache of the API, and the log, which has what kubectl logs.
const FOLDER: &str = "kubectl";
/// Commands that end their process, write past the streams that they are given, or start other programs: they get a process
/// of their own.
const OWN_PROCESS: [&str; 8] = ["attach", "auth", "cp", "diff", "edit", "logs", "port-forward", "proxy"];

/// The process of a [`Cluster`], started by the first call.
#[derive(Default)]
pub(super) struct Kubectl(Mutex<Option<Arc<Server>>>);

impl Kubectl {
    fn slot(&self) -> MutexGuard<'_, Option<Arc<Server>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Server {
    /// It ends when its standard input does: with this program at the latest.
    child: Child,
    /// Whose network namespace it is in.
    fabric: ProcessId,
    socket: PathBuf,
}

impl Server {
    /// Starts it with a socket of its own in the folder, which only this user can enter.
    fn start(command: &mut Command, folder: &Path, fabric: ProcessId) -> Result<Self> {
        static STARTED: AtomicU32 = AtomicU32::new(0);
        DirBuilder::new().recursive(true).mode(0o700).create(folder.join("log"))?;
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let socket = folder.join(format!("{}-{number}.socket", std::process::id()));
        // Of one that was killed, in a process of the same number.
        drop(std::fs::remove_file(&socket));
        let log = folder.join(format!("log/{PROGRAM}.log"));
        let log = File::options().create(true).append(true).open(log)?;
        command.arg(&socket).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
        let mut child = command.spawn().with_context(|| process::describe(command))?;
        let stdout = child.stdout.take().context("stdout is piped")?;
        let server = Self { child, fabric, socket };
        let mut said = String::new();
        BufReader::new(stdout).read_line(&mut said)?;
        ensure!(said == "ready\n", "{} did not start", process::describe(command));
        Ok(server)
    }

    fn call(&self, arguments: &[&str], input: &str) -> Result<Output> {
        let mut stream = UnixStream::connect(&self.socket)?;
        send(&mut stream, &serde_json::to_vec(arguments)?)?;
        send(&mut stream, input.as_bytes())?;
        answer(&mut stream).map_err(Into::into)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        drop(self.child.wait());
    }
}

/// A part of a call or of an answer: its length in four bytes, the highest first, and the part.
fn send(stream: &mut impl Write, part: &[u8]) -> io::Result<()> {
    let length = u32::try_from(part.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), part].concat())
}

/// The exit code in four bytes, and what went to standard output and to standard error.
fn answer(stream: &mut impl Read) -> io::Result<Output> {
    let code = number(stream)?;
    // As of a process: the lowest byte (wait(2)).
    let status = ExitStatus::from_raw(i32::from(code.to_be_bytes()[3]) << 8);
    Ok(Output { status, stdout: part(stream)?, stderr: part(stream)? })
}

fn part(stream: &mut impl Read) -> io::Result<Vec<u8>> {
    let length = number(stream)?;
    let mut part = Vec::new();
    stream.take(length.into()).read_to_end(&mut part)?;
    if part.len() != length as usize {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(part)
}

fn number(stream: &mut impl Read) -> io::Result<u32> {
    let mut bytes = [0; 4];
    stream.read_exact(&mut bytes)?;
    Ok(u32::from_be_bytes(bytes))
}

impl Cluster {
    /// The program kubectl in the fabric's network namespace, arguments to be added.
    ///
    /// # Errors
    /// The fabric does not run.
    pub fn kubectl_command(&self) -> Result<Command> {
        let mut command = self.fabric_command(&self.state.kubectl)?;
        // A fifth of what its start costs.
        command.env("GOMAXPROCS", "1").env("GOGC", "800");
        Ok(command)
    }

    /// Runs kubectl and returns what it printed.
    ///
    /// # Errors
    /// kubectl fails; the error has its stderr.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        process::text_of(&describe(arguments), self.kubectl_output(arguments, "")?)
    }

    /// Runs kubectl with `-o json` and returns the object.
    ///
    /// # Errors
    /// As [`Cluster::kubectl`], or what it printed is not JSON.
    pub fn kubectl_json(&self, arguments: &[&str]) -> Result<serde_json::Value> {
        let text = self.kubectl(&[arguments, &["-o", "json"]].concat())?;
        serde_json::from_str(&text).with_context(|| describe(arguments))
    }

    /// Applies a manifest.
    ///
    /// # Errors
    /// As [`Cluster::kubectl`].
    pub fn apply(&self, manifest: &str) -> Result<String> {
        let arguments = ["apply", "-f", "-"];
        process::text_of(&describe(&arguments), self.kubectl_output(&arguments, manifest)?)
    }

    /// Runs kubectl to its end, also where it fails. With `-` among the arguments it reads `input`.
    ///
    /// # Errors
    /// It cannot be run.
    pub fn kubectl_output(&self, arguments: &[&str], input: &str) -> Result<Output> {
        let own = arguments.iter().take_while(|argument| **argument != "--");
        if own.into_iter().any(|argument| OWN_PROCESS.contains(argument)) {
            ensure!(input.is_empty(), "{} gets no input", describe(arguments));
            let mut command = self.kubectl_command()?;
            let command = command.args(arguments).stdin(Stdio::null());
            return command.output().with_context(|| process::describe(command));
        }
        let server = self.kubectl_server()?;
        server.call(arguments, input).map_err(|error| {
            // The next call starts another.
            self.kubectl.slot().take_if(|known| Arc::ptr_eq(known, &server));
            error.context(format!("{PROGRAM} broke off {}: {}", describe(arguments), self.kubectl_log()))
        })
    }

    fn kubectl_server(&self) -> Result<Arc<Server>> {
        let fabric = self.fabric()?;
        let mut slot = self.kubectl.slot();
        if let Some(running) = slot.as_ref().filter(|server| server.fabric == fabric) {
            return Ok(running.clone());
        }
        let folder = self.folder.join(FOLDER);
        let mut command = self.fabric_command(&self.state.kubectl.with_file_name(PROGRAM))?;
        command.env("KUBECACHEDIR", folder.join("cache")).env("GOGC", "400");
        let started = Server::start(&mut command, &folder, fabric).with_context(|| self.kubectl_log())?;
        Ok(slot.insert(Arc::new(started)).clone())
    }

    fn kubectl_log(&self) -> String {
        log_hint(self, FOLDER, PROGRAM)
    }
}

fn describe(arguments: &[&str]) -> String {
    format!("kubectl {}", arguments.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_has_its_length_before_it() {
        let mut sent = Vec::new();
        send(&mut sent, &[7; 300]).unwrap();
        assert_eq!(sent.get(..5), Some(&[0, 0, 1, 44, 7][..]));
        assert_eq!(part(&mut sent.as_slice()).unwrap(), [7; 300]);
    }

    #[test]
    fn an_answer_is_the_exit_code_and_both_outputs() {
        let bytes = [&[0, 0, 0, 3][..], &[0, 0, 0, 2], b"on", &[0, 0, 0, 0]].concat();
        let output = answer(&mut bytes.as_slice()).unwrap();
        assert_eq!((output.status.code(), output.stdout, output.stderr), (Some(3), b"on".to_vec(), vec![]));
    }

    #[test]
    fn an_answer_that_breaks_off_is_an_error() {
        let bytes = [&[0, 0, 0, 0][..], &[0, 0, 0, 2], b"on", &[0, 0, 0, 9], b"part"].concat();
        for end in 0..bytes.len() {
            let error = answer(&mut bytes.get(..end).unwrap()).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{end}");
        }
    }

    #[test]
    fn a_process_that_does_not_start_is_named_and_leaves_what_it_said() {
        let folder = tempfile::tempdir().unwrap();
        let me = ProcessId::of(std::process::id()).unwrap();
        let mut command = Command::new("sh");
        let error = Server::start(command.args(["-c", "echo no room >&2"]), folder.path(), me).err().unwrap();
        assert!(
            error.to_string().starts_with("sh -c") && error.to_string().ends_with("did not start"),
            "{error}"
        );
        let log = std::fs::read_to_string(folder.path().join("log/kubectl-server.log")).unwrap();
        assert_eq!(log, "no room\n");
    }
}
