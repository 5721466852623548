//! The least of HTTP: one GET to a program of the cluster, from the network namespace of the fabric or of a node.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use nix::sched::{CloneFlags, setns};

use crate::Cluster;

const PATIENCE: Duration = Duration::from_secs(10);

/// The body of the answer to `GET path`, asked for from the fabric. The answer must be 200.
pub(crate) fn get(cluster: &Cluster, address: SocketAddr, path: &str) -> Result<String> {
    get_from(cluster, "fabric", address, path)
}

/// The same, asked for from a node, or another member of the cluster.
pub(crate) fn get_from(cluster: &Cluster, member: &str, address: SocketAddr, path: &str) -> Result<String> {
    let namespace = format!("/proc/{}/ns/net", cluster.process_of(member)?.pid);
    let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\nAccept: application/json\r\n\r\n");
    // A thread has a network namespace of its own; the caller's stays as it is.
    let ask = move || -> Result<String> {
        setns(File::open(&namespace)?, CloneFlags::CLONE_NEWNET).context(namespace)?;
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = thread::spawn(ask).join().map_err(|_| anyhow!("the thread that asks panicked"))?;
    body(&answer.with_context(|| format!("http://{address}{path}"))?)
        .with_context(|| format!("http://{address}{path}"))
}

fn body(answer: &str) -> Result<String> {
    let (head, body) = answer.split_once("\r\n\r\n").context("the answer is cut off")?;
    let status = head.split(' ').nth(1).unwrap_or_default();
    ensure!(status == "200", "answered {status}: {body}");
    Ok(body.to_owned())
}

/// `text` as a value of a query string.
pub(crate) fn quoted(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    text.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{body, quoted};

    #[test]
    fn what_is_not_200_is_an_error_with_its_text() {
        assert_eq!(body("HTTP/1.0 200 OK\r\nA: b\r\n\r\n{}").unwrap(), "{}");
        let error = body("HTTP/1.0 400 Bad Request\r\n\r\nno such metric").unwrap_err().to_string();
        assert!(error.contains("400") && error.contains("no such metric"), "{error}");
        assert!(body("HTTP/1.0 200 OK\r\n").is_err());
    }

    #[test]
    fn queries_are_quoted() {
        assert_eq!(quoted("rate(a{b=\"c\"}[1m])"), "rate%28a%7Bb%3D%22c%22%7D%5B1m%5D%29");
    }
}
