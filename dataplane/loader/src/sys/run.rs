//! `BPF_PROG_TEST_RUN`: a packet program over a frame that never leaves.

use std::{
    io, mem,
    os::fd::{AsRawFd, BorrowedFd, RawFd},
};

use super::bpf;

const BPF_PROG_TEST_RUN: u32 = 10;

/// What to run a program over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run<'a> {
    pub(crate) frame: &'a [u8],
    /// Index of the device that the program sees itself on.
    pub(crate) device: u32,
    /// Index of the device that the packet came in on; 0 for one that this host made.
    pub(crate) came_over: u32,
    /// How often, one run after the other; 0 is once.
    pub(crate) repeat: u32,
}

/// What came of it.
#[derive(Clone, Debug)]
pub(crate) struct Ran {
    /// What the last run returned.
    pub(crate) action: i32,
    /// The frame after the last run.
    pub(crate) frame: Vec<u8>,
    /// What one run took, in nanoseconds, on average.
    pub(crate) nanoseconds: u32,
}

/// Runs a packet program.
pub(crate) fn test_run(program: BorrowedFd<'_>, run: Run<'_>) -> io::Result<Ran> {
    #[repr(C)]
    #[derive(Default)]
    struct Attr {
        program: RawFd,
        verdict: u32,
        size_in: u32,
        size_out: u32,
        data_in: u64,
        data_out: u64,
        repeat: u32,
        duration: u32,
        context_size_in: u32,
        context_size_out: u32,
        context_in: u64,
        context_out: u64,
        flags: u32,
        cpu: u32,
        batch: u32,
        reserved: u32,
    }
    /// Room for what a program may add in front of the frame.
    const ROOM: usize = 256;
    /// Size of the head of `__sk_buff` up to and with `ifindex`, and two places in it, in words.
    const CONTEXT_WORDS: usize = 11;
    const INGRESS_IFINDEX: usize = 9;
    const IFINDEX: usize = 10;
    let mut context = [0_u32; CONTEXT_WORDS];
    context[INGRESS_IFINDEX] = run.came_over;
    context[IFINDEX] = run.device;
    let mut out = vec![0; run.frame.len() + ROOM];
    let size = |len: usize| u32::try_from(len).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput));
    let mut attr = Attr {
        program: program.as_raw_fd(),
        size_in: size(run.frame.len())?,
        size_out: size(out.len())?,
        data_in: run.frame.as_ptr().addr() as u64,
        data_out: out.as_mut_ptr().addr() as u64,
        repeat: run.repeat,
        context_size_in: size(mem::size_of_val(&context))?,
        context_in: context.as_ptr().addr() as u64,
        ..Attr::default()
    };
    // SAFETY: all three buffers are as long as said and outlive the call.
    unsafe { bpf(BPF_PROG_TEST_RUN, &mut attr) }?;
    out.truncate(attr.size_out as usize);
    Ok(Ran { action: attr.verdict.cast_signed(), frame: out, nanoseconds: attr.duration })
}
