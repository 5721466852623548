//! What the allocator keeps. The programs are linked with glibc, which returns free memory only from the end of a heap: lists, which are large
//! for a moment, would leave their size behind for good.
#![expect(unsafe_code, reason = "malloc_trim is a C function")]

/// Returns the pages to the kernel on which nothing is left, of every heap: a few milliseconds for 100 MiB.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes the allocator's own locks and moves nothing.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Memory of this process in MiB.
    fn resident() -> usize {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() / 1024
    }

    #[test]
    fn what_is_free_between_what_is_held_goes_back_to_the_kernel() {
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
