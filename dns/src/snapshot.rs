//! What a server knew, kept on disk (`--state`), so that the next one in the same pod answers at once, with the API server gone too.
//! A snapshot that is not exactly what this program wrote is not used: then the server waits for the API server, as without one.

mod format;
mod keeper;

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

pub(crate) use format::Refused;
pub(crate) use keeper::{PAUSE, keep};

use crate::metrics::Metrics;
use crate::watch::SeenNetwork;
use crate::zone::Zone;

const VERSION: &str = env!("CARGO_PKG_VERSION");
const FILE: &str = "zone.snapshot";
const DRAFT: &str = "zone.snapshot.new";
/// Bytes of a snapshot at most. 8,200 Services and 150,000 endpoints take 4.8 MB.
const LIMIT: u64 = 64 << 20;

/// What is kept.
#[derive(Clone, Debug)]
pub struct Contents {
    /// The names of the cluster.
    pub zone: Zone,
    /// The ClusterNetwork, where one is followed.
    pub network: Option<SeenNetwork>,
}

/// What the last server in this pod has kept in `folder`, put into a clone of `empty`; says in the log and the metrics what came of it.
pub(crate) fn load(folder: &Path, empty: &Zone, metrics: &Metrics) -> Option<Contents> {
    let path = folder.join(FILE);
    let (result, contents) = match read(&path, empty.clone()) {
        Ok(None) => ("none", None),
        Ok(Some(contents)) => {
            let (path, services) = (path.display(), contents.zone.services());
            tracing::info!(%path, services, "answering from what the last server knew, until the API server is heard");
            metrics.lasting().serving_from_snapshot(true);
            ("used", Some(contents))
        }
        Err(error) => {
            let refused = &error as &dyn std::error::Error;
            tracing::warn!(path = %path.display(), error = refused, "the kept names are not used: waiting for the API server");
            (error.reason(), None)
        }
    };
    metrics.lasting().snapshot_loaded(result);
    contents
}

fn read(path: &Path, empty: Zone) -> Result<Option<Contents>, Refused> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let length = file.metadata()?.len();
    if length > LIMIT {
        return Err(Refused::Oversized);
    }
    let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
    file.take(LIMIT).read_to_end(&mut bytes)?;
    format::read(&bytes, VERSION, empty).map(Some)
}

/// Puts `contents` into `folder` in place of what is there, as a whole or not at all. Gives the number of bytes.
fn save(folder: &Path, contents: &Contents) -> Result<u64, Refused> {
    let draft: PathBuf = folder.join(DRAFT);
    let written = write(&draft, contents);
    if written.is_err() {
        let _ = fs::remove_file(&draft); // it may have filled the disk
    }
    let length = written?;
    fs::rename(&draft, folder.join(FILE))?;
    File::open(folder)?.sync_all()?; // the rename itself
    Ok(length)
}

fn write(draft: &Path, contents: &Contents) -> Result<u64, Refused> {
    let mut file = File::create(draft)?;
    let length = format::write(contents, VERSION, LIMIT, &mut file)?;
    file.sync_all()?;
    Ok(length)
}

#[cfg(test)]
pub(crate) mod tests;
