//! The agent's sign of life on the node: a file with the time since boot. STATUS fails only when it is minutes old,
//! because one `NotReady` takes all of the node's pods out of their Services.

use std::{fs, io, path::Path, time::Duration};

/// How often the agent writes it.
pub const PERIOD: Duration = Duration::from_secs(10);
/// How long the agent may be away before the node counts as unable to add pods.
pub const ABSENCE: Duration = Duration::from_mins(3);

const FILE: &str = "heartbeat";

/// Writes the sign of life; `now` is the time since boot.
///
/// # Errors
/// When the file cannot be written.
pub fn write(state_folder: &Path, now: Duration) -> io::Result<()> {
    let new = state_folder.join(".heartbeat.new");
    fs::write(&new, now.as_secs().to_string())?;
    fs::rename(new, state_folder.join(FILE))
}

/// For how long the agent has been silent; `None` where there was none since boot.
#[must_use]
pub fn silence(state_folder: &Path, now: Duration) -> Option<Duration> {
    let written = fs::read_to_string(state_folder.join(FILE)).ok()?.trim().parse().ok()?;
    Some(now.saturating_sub(Duration::from_secs(written)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_the_age_of_the_last_sign() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(silence(folder.path(), Duration::from_secs(9)), None);
        write(folder.path(), Duration::from_secs(100)).unwrap();
        assert_eq!(silence(folder.path(), Duration::from_secs(290)), Some(Duration::from_secs(190)));
        assert_eq!(
            silence(folder.path(), Duration::from_secs(50)),
            Some(Duration::ZERO),
            "clock of another boot"
        );
    }
}
