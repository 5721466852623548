//! Runs a program with its output in a log file, says now and then how far it is, and ends it when it takes too long.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// Between two lines of progress.
const BEAT: Duration = Duration::from_secs(30);
/// Between two looks at the program.
const LOOK: Duration = Duration::from_millis(20);

/// How cargo's messages for programs begin.
const FOR_PROGRAMS: &str = "{\"reason\":";

/// The log file of one step, below `target/test-logs`.
pub(super) struct Log {
    path: PathBuf,
    root: PathBuf,
}

impl Log {
    /// An empty log of the step `name`.
    pub(super) fn create(root: &Path, name: &str) -> Result<Self> {
        let folder = root.join("target/test-logs");
        fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
        let path = folder.join(format!("{name}.log"));
        File::create(&path).with_context(|| format!("create {}", path.display()))?;
        Ok(Self { path, root: root.to_owned() })
    }

    /// An empty log beside this one, for what runs at the same time.
    pub(super) fn beside(&self, name: &str) -> Result<Self> {
        let stem = self.path.file_stem().unwrap_or_default().to_string_lossy();
        Self::create(&self.root, &format!("{stem}-{name}"))
    }

    /// Adds all that another log says.
    pub(super) fn append(&mut self, other: &Self) -> Result<()> {
        let text = fs::read(&other.path).with_context(|| format!("read {}", other.path.display()))?;
        self.open()?.write_all(&text).with_context(|| format!("write {}", self.path.display()))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes the whole log to stdout, without what cargo says for programs.
    pub(super) fn show(&self) {
        let text = fs::read(&self.path).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        for line in text.lines().filter(|line| !line.starts_with(FOR_PROGRAMS)) {
            println!("    | {line}");
        }
    }

    /// Adds one line.
    pub(super) fn line(&mut self, line: &str) -> Result<()> {
        writeln!(self.open()?, "{line}").with_context(|| format!("write {}", self.path.display()))
    }

    /// Runs `command` from the repository's root, unless it names a folder, for `limit` at most. Gives what it
    /// wrote; fails when it fails.
    pub(super) fn run(&mut self, command: &mut Command, limit: Duration) -> Result<String> {
        let (output, success) = self.try_run(command, limit)?;
        if !success {
            bail!("{} failed", told(command));
        }
        Ok(output)
    }

    /// Like `run`, but leaves it to the caller what a failure means.
    pub(super) fn try_run(&mut self, command: &mut Command, limit: Duration) -> Result<(String, bool)> {
        self.line(&format!("$ {}", told(command)))?;
        let begin = usize::try_from(fs::metadata(&self.path)?.len())?;
        if command.get_current_dir().is_none() {
            command.current_dir(&self.root);
        }
        command.env("RUST_BACKTRACE", "0").stdin(Stdio::null()).stdout(self.open()?).stderr(self.open()?);
        let child = command.spawn().with_context(|| format!("start {}", told(command)))?;
        let success = self.wait(child, limit).with_context(|| told(command))?;
        let text = fs::read(&self.path)?;
        Ok((String::from_utf8_lossy(&text[begin..]).into_owned(), success))
    }

    fn wait(&self, mut child: Child, limit: Duration) -> Result<bool> {
        let (start, mut told) = (Instant::now(), Instant::now());
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(status.success());
            }
            if start.elapsed() > limit {
                child.kill()?;
                child.wait()?;
                bail!("ended after {} s, which is too long", limit.as_secs());
            }
            if told.elapsed() > BEAT {
                println!("    … {} s  {}", start.elapsed().as_secs(), self.last_line());
                told = Instant::now();
            }
            sleep(LOOK);
        }
    }

    fn last_line(&self) -> String {
        let text = fs::read(&self.path).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let told = |line: &&str| !line.trim().is_empty() && !line.starts_with(FOR_PROGRAMS);
        let line = text.lines().rfind(told).unwrap_or_default();
        line.trim().chars().take(100).collect()
    }

    fn open(&self) -> Result<File> {
        let opened = OpenOptions::new().append(true).open(&self.path);
        opened.with_context(|| format!("open {}", self.path.display()))
    }
}

/// The command as one would type it.
fn told(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(name: &str) -> Log {
        let root = std::env::temp_dir().join(format!("xtask-child-{}-{name}", std::process::id()));
        Log::create(&root, name).unwrap()
    }

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn output_of_each_command_is_its_own_and_all_of_it_is_logged() {
        let mut log = log("output");
        let limit = Duration::from_secs(10);
        assert_eq!(log.run(&mut shell("echo one; echo err >&2"), limit).unwrap(), "one\nerr\n");
        assert_eq!(log.run(&mut shell("echo two"), limit).unwrap(), "two\n");
        assert!(log.run(&mut shell("exit 3"), limit).unwrap_err().to_string().contains("exit 3 failed"));
        let all = fs::read_to_string(log.path()).unwrap();
        assert!(all.contains("one\nerr\n$ sh -c echo two\ntwo\n"), "{all}");
        let mut other = log.beside("lane").unwrap();
        other.line("three").unwrap();
        log.append(&other).unwrap();
        assert!(fs::read_to_string(log.path()).unwrap().ends_with("three\n"));
        fs::remove_dir_all(&log.root).unwrap();
    }

    #[test]
    fn what_takes_too_long_is_ended() {
        let mut log = log("long");
        let error = log.run(&mut shell("exec sleep 60"), Duration::from_millis(100)).unwrap_err();
        assert!(format!("{error:#}").contains("too long"), "{error:#}");
        fs::remove_dir_all(&log.root).unwrap();
    }
}
