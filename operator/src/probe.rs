//! The kubelet's question, asked inside the pod. Two operators on one node share its ports, so each says in a file
//! of its own pod where it listens, and the probe asks there.

use std::{fs, io, net::SocketAddr, path::Path, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::args::Probe;

/// An operator that does not answer for this time is not alive.
const PATIENCE: Duration = Duration::from_secs(2);

/// Why the answer is no.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operator has not said where it listens.
    #[error("{file} does not say where the operator listens: it has not started")]
    NotStarted {
        /// The file.
        file: String,
    },
    /// It did not answer in time.
    #[error("no answer from port {port}")]
    NoAnswer {
        /// Where it should listen.
        port: u16,
    },
    /// It answered something else than yes.
    #[error("{path}: {answer}")]
    No {
        /// What was asked.
        path: &'static str,
        /// What it said.
        answer: String,
    },
}

/// Says in `file` where the admin server listens.
///
/// # Errors
/// If the file cannot be written.
pub fn publish(file: &Path, address: SocketAddr) -> io::Result<()> {
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(file, address.port().to_string())
}

/// Asks the operator whose address is in `file`.
///
/// # Errors
/// If it does not answer with 200.
pub async fn ask(file: &Path, what: Probe) -> Result<(), Error> {
    let text = fs::read_to_string(file).unwrap_or_default();
    let port: u16 =
        text.trim().parse().map_err(|_| Error::NotStarted { file: file.display().to_string() })?;
    let path = match what {
        Probe::Live => "/healthz",
        Probe::Ready => "/readyz",
    };
    match timeout(PATIENCE, get(port, path)).await {
        Ok(Ok(answer)) if answer.starts_with("HTTP/1.1 200") => Ok(()),
        Ok(Ok(answer)) => Err(Error::No { path, answer }),
        Ok(Err(_)) | Err(_) => Err(Error::NoAnswer { port }),
    }
}

async fn get(port: u16, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(4096).read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
