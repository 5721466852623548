//! Programs over single frames, without a device that sends them.

use super::{Datapath, Error};
use crate::sys::{self, Run};

/// What a program did with a frame in [`Datapath::dry_run`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The program's return value: −1 next program or the host stack, 2 drop, 7 redirect.
    pub action: i32,
    /// The frame afterwards.
    pub frame: Vec<u8>,
}

/// Where a frame is in [`Datapath::dry_run`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// Index of the device that the program filters.
    pub device: u32,
    /// Index of the device that the frame came in on; 0 for one that the host's own stack made.
    pub came_over: u32,
}

/// A frame that comes in on the device with this index.
impl From<u32> for Way {
    fn from(device: u32) -> Self {
        Self { device, came_over: device }
    }
}

impl Datapath {
    /// Runs a packet program (`from_pod`, `to_pod`, `from_overlay`, `to_overlay`, `from_underlay`, `empty`) over a frame as if it were on a
    /// device, without sending it anywhere. Counters count it, maps keep it.
    ///
    /// # Errors
    /// When there is no such program or device, or the kernel refuses the frame.
    pub fn dry_run(&self, program: &str, frame: &[u8], way: impl Into<Way>) -> Result<Verdict, Error> {
        let Way { device, came_over } = way.into();
        let ran = self.run(program, Run { frame, device, came_over, repeat: 1 })?;
        Ok(Verdict { action: ran.action, frame: ran.frame })
    }

    /// Runs a packet program so often over a frame that is on its way; returns what one run took, in nanoseconds, on
    /// average.
    ///
    /// # Errors
    /// As [`Self::dry_run`].
    pub fn dry_run_timed(
        &self,
        program: &str,
        frame: &[u8],
        way: impl Into<Way>,
        repeat: u32,
    ) -> Result<u32, Error> {
        let Way { device, came_over } = way.into();
        let ran = self.run(program, Run { frame, device, came_over, repeat })?;
        Ok(ran.nanoseconds)
    }

    fn run(&self, program: &str, run: Run<'_>) -> Result<sys::Ran, Error> {
        sys::test_run(self.program(program)?, run)
            .map_err(|source| Error::Run { name: program.to_owned(), source })
    }
}
