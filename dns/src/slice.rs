//! How long a thread computes at a time where others want its processor.

#![expect(unsafe_code, reason = "no crate of ours has sched_setattr(2)")]

use std::io;
use std::mem;

/// The shortest that the kernel takes, nanoseconds.
const SHORTEST: u64 = 100_000;

/// Lets this thread compute for a short time at once, and as soon as there is something to do: one that forwards, which may compute as long as others at
/// once, is interrupted for it. Its share of the processor is the same. Needs no right, and Linux 6.12; earlier ones take no notice.
///
/// # Errors
/// The kernel, or a seccomp profile, refuses. Then it is as with any thread.
pub(crate) fn short() -> io::Result<()> {
    // SAFETY: all of it is numbers, for which zero is a value
    let mut attributes: libc::sched_attr = unsafe { mem::zeroed() };
    let size = u32::try_from(size_of_val(&attributes)).unwrap_or_default();
    // SAFETY: the kernel writes at most `size` bytes; 0 is the calling thread
    checked(unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, size, 0) })?;
    attributes.sched_runtime = SHORTEST;
    // SAFETY: the kernel reads as many bytes as the structure itself says
    checked(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) })
}

fn checked(result: libc::c_long) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_thread_may_ask_for_a_short_slice_without_any_right() {
        std::thread::spawn(|| super::short().unwrap()).join().unwrap();
    }
}
