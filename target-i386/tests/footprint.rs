//! What a vCPU takes of the host's memory before it runs. (A program of its own: it looks at the memory of the whole process.)
#![cfg(target_os = "linux")]

use target_i386::testing::Bare;

/// KiB that the process has of the host's memory.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("procfs");
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).expect("a size");
    line.trim_end_matches("kB").trim().parse().expect("a number")
}

#[test]
fn tables_take_no_memory_before_they_are_used() {
    // (The first one brings what all share.)
    let first = Bare::new(64, 1 << 16);
    let before = resident();
    let more: Vec<Bare> = (0..8).map(|_| Bare::new(64, 1 << 16)).collect();
    let after = resident();
    drop((first, more));
    // The translations and the jump cache of one are 5 MiB by themselves.
    let each = after.saturating_sub(before) / 8;
    assert!(each < 1024, "{each} KiB each");
}
