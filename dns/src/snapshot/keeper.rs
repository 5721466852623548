//! Writes the snapshot when something has changed: beside the answers, and seldom enough that a busy cluster costs little.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::{Contents, Refused, save};
use crate::metrics::Metrics;

/// Between two writes, at least.
pub(crate) const PAUSE: Duration = Duration::from_secs(5);
/// And at least this many times as long as the last one took: 5 % of a processor at most.
const SHARE: u32 = 20;

/// Keeps the latest of `contents` in `folder` until there are no more.
pub(crate) async fn keep(
    folder: PathBuf,
    mut contents: watch::Receiver<Option<Arc<Contents>>>,
    pause: Duration,
    metrics: Metrics,
) {
    let mut failing = false;
    while contents.changed().await.is_ok() {
        let Some(latest) = contents.borrow_and_update().clone() else { continue };
        let (began, folder) = (Instant::now(), folder.clone());
        let result = spawn_blocking(move || save(&folder, &latest)).await;
        let result = result.unwrap_or_else(|error| Err(Refused::Io(std::io::Error::other(error))));
        metrics.lasting().snapshot_written(result.as_ref().ok().copied());
        match result {
            Ok(bytes) => {
                tracing::debug!(bytes, took = ?began.elapsed(), "the names are kept");
                failing = false;
            }
            Err(error) if !failing => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(
                    error,
                    "the names cannot be kept: a restarted server will wait for the API server"
                );
                failing = true;
            }
            Err(_) => {}
        }
        sleep(pause.max(began.elapsed() * SHARE)).await;
    }
}
