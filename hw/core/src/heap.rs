//! Memory that was freed and that the C library keeps for later. Unsafe: one call into it.
#![allow(unsafe_code)]

/// Gives the host what was freed, from all threads' heaps. It takes milliseconds: for whoever has freed much that is not needed again soon.
/// (glibc by itself gives back only what lies at the end of a heap. Elsewhere nothing is done.)
pub fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: may be called at any time from any thread; no memory in use is touched.
    unsafe {
        libc::malloc_trim(0);
    }
}
