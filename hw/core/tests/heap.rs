//! What was freed goes back to the host. (A program of its own: it looks at the memory of the whole process.)
#![cfg(all(target_os = "linux", target_env = "gnu"))]

use hw_core::heap::give_back;
use std::hint::black_box;

/// KiB that the process has of the host's memory.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("procfs");
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).expect("a size");
    line.trim_end_matches("kB").trim().parse().expect("a number")
}

#[test]
fn what_lies_between_things_in_use_goes_back_too() {
    let before = resident();
    let mut pieces: Vec<(Vec<u8>, Vec<u8>)> = (0..1000).map(|_| (vec![1; 64 << 10], vec![1; 64])).collect();
    black_box(&pieces);
    pieces.iter_mut().for_each(|p| p.0 = vec![]);
    let freed = resident();
    assert!(freed > before + (32 << 10), "{before} KiB, {freed} KiB: it is given back by itself");
    give_back();
    let after = resident();
    assert!(after < before + (16 << 10), "{before} KiB, {freed} KiB, {after} KiB");
    black_box(&pieces);
}
