//! What the allocator keeps. The programs are linked with glibc, which returns free memory only from the end of a heap, and gives each
//! thread a heap of its own: lists and the kernel's types, which are large for a moment, would leave their size behind for good.
#![expect(unsafe_code, reason = "mallopt and malloc_trim are C functions")]

/// Has all threads share one heap: they allocate little at the same time. Before any other thread begins.
pub fn share_one_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it sets a number of the allocator.
    if unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) } == 0 {
        tracing::debug!("each thread has a heap of its own");
    }
}

/// Returns the pages to the kernel on which nothing is left: a few milliseconds for a heap of 100 MiB.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes the allocator's own locks and moves nothing.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Memory of this process in MiB.
    fn resident() -> usize {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() / 1024
    }

    #[test]
    fn what_is_free_between_what_is_held_goes_back_to_the_kernel() {
        share_one_heap();
        let mut pieces: Vec<Option<Box<[u8]>>> =
            (0..32 * 1024).map(|_| Some(vec![1; 2048].into_boxed_slice())).collect();
        // One of sixteen stays, so that no heap's end is free.
        for (number, piece) in pieces.iter_mut().enumerate() {
            if number % 16 != 15 {
                *piece = None;
            }
        }
        let before = resident();
        give_back();
        let after = resident();
        assert!(before.saturating_sub(after) > 40, "{before} MiB before, {after} MiB after");
        assert_eq!(pieces.iter().flatten().count(), 2048);
    }
}
