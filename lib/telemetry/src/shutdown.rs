//! When a program has to end.

use std::io;

use tokio::signal::unix::{SignalKind, signal as on};

/// Listens for SIGTERM and SIGINT from now on; the future it gives ends at the first of them, with its name.
///
/// # Errors
/// The process may not handle signals.
pub fn signal() -> io::Result<impl Future<Output = &'static str> + Send> {
    let mut term = on(SignalKind::terminate())?;
    let mut int = on(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = term.recv() => "SIGTERM",
            _ = int.recv() => "SIGINT",
        }
    })
}
