//! What the allocator keeps. The programs are linked with glibc, which gives each thread a heap of its own: lists and the kernel's types,
//! which are large for a moment, would leave their size behind in several. See also [`netkeel_client::give_back`].
#![expect(unsafe_code, reason = "mallopt is a C function")]

/// Has all threads share one heap: they allocate little at the same time. Before any other thread begins.
pub fn share_one_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it sets a number of the allocator.
    if unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) } == 0 {
        tracing::debug!("each thread has a heap of its own");
    }
}
