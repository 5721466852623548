//! The API server over the socket of a `kubectl proxy`: writes whose answers are timed without a program's start in them.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use netkeel_e2e::wait_until;
use serde_json::Value;

use super::bed::Bed;

/// Until it is dropped.
pub(super) struct Api {
    proxy: Child,
    socket: PathBuf,
}

/// When a write was sent, and when the API server's answer began to arrive; microseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) sent: u64,
    pub(super) answered: u64,
}

impl Api {
    pub(super) fn start(bed: &Bed) -> Result<Self> {
        let socket = bed.cluster.folder().join("bench-api.sock");
        drop(std::fs::remove_file(&socket));
        let mut command = bed.cluster.kubectl_command()?;
        command.arg("proxy").arg(format!("--unix-socket={}", socket.display()));
        let proxy = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().context("kubectl proxy")?;
        let api = Self { proxy, socket };
        wait_until("kubectl proxy answers", Duration::from_secs(10), || {
            api.request("GET", "/readyz", None).map(drop)
        })?;
        Ok(api)
    }

    /// Merges `change` into the object at `path`.
    pub(super) fn merge(&self, path: &str, change: &Value) -> Result<Written> {
        self.request("PATCH", path, Some(change))
    }

    /// Makes an object in the collection at `path`.
    pub(super) fn create(&self, path: &str, object: &Value) -> Result<Written> {
        self.request("POST", path, Some(object))
    }

    fn request(&self, verb: &str, path: &str, body: Option<&Value>) -> Result<Written> {
        let kind = if verb == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        let body = body.map(Value::to_string).unwrap_or_default();
        let mut stream = UnixStream::connect(&self.socket)?;
        let head = format!(
            "{verb} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             Content-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let sent = micros_now();
        stream.write_all((head + &body).as_bytes())?;
        let mut answer = vec![0; 16];
        stream.read_exact(&mut answer).with_context(|| format!("{verb} {path}"))?;
        let answered = micros_now();
        stream.read_to_end(&mut answer)?;
        let text = String::from_utf8_lossy(&answer);
        let done = ["HTTP/1.1 200", "HTTP/1.1 201"].iter().any(|status| text.starts_with(status));
        ensure!(done, "{verb} {path}: {text}");
        Ok(Written { sent, answered })
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        drop(self.proxy.kill());
        drop(self.proxy.wait());
        drop(std::fs::remove_file(&self.socket));
    }
}

fn micros_now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;
    use std::process::Command;

    #[test]
    fn an_answer_that_is_not_ok_is_an_error_with_its_text() {
        let socket = std::env::temp_dir().join(format!("xtask-api-{}.sock", std::process::id()));
        let listener = UnixListener::bind(&socket).unwrap();
        let server = std::thread::spawn(move || {
            for status in ["200 OK\r\n\r\n{}", "409 Conflict\r\n\r\nsomebody else wrote"] {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = [0; 1024];
                let length = stream.read(&mut request).unwrap();
                assert!(request[..length].ends_with(b"{\"a\":1}"));
                write!(stream, "HTTP/1.1 {status}").unwrap();
            }
        });
        let api = Api { proxy: Command::new("true").spawn().unwrap(), socket };
        let change = serde_json::json!({"a": 1});
        let written = api.merge("/x", &change).unwrap();
        assert!(written.sent > 0 && written.sent <= written.answered);
        let error = api.merge("/x", &change).unwrap_err().to_string();
        assert!(error.contains("PATCH /x") && error.contains("somebody else wrote"), "{error}");
        server.join().unwrap();
    }
}
