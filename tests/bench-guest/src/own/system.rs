//! What operating systems do all day: system calls, faults, processes, pipes, signals.

use crate::sys::{self, Pages};
use std::{
    ffi::CString,
    io::{Read, Write},
};

/// The argument that makes this program end at once.
pub const NOTHING: &str = "nothing";

/// getppid(2).
pub fn syscall(n: u64) -> u64 {
    let parent = sys::parent_id();
    (0..n * 1000).map(|_| u64::from(sys::parent_id() == parent)).sum()
}

/// 64 pages mapped, touched and unmapped.
pub fn page_fault(n: u64) -> u64 {
    let mut sum = 0;
    for i in 0..n * 10 {
        let mut pages = Pages::map(64 * 4096, false);
        for page in pages.bytes().chunks_mut(4096) {
            page[(i % 4096) as usize] = 1;
        }
        sum += pages.bytes().iter().step_by(4096).map(|b| u64::from(*b)).sum::<u64>() + 64;
    }
    sum
}

/// 16 pages made read-only and writable again, touched each time.
pub fn mprotect(n: u64) -> u64 {
    let mut pages = Pages::map(16 * 4096, false);
    for i in 0..n * 20 {
        pages.protect(true);
        pages.bytes().chunks_mut(4096).for_each(|p| p[(i % 4096) as usize] = i as u8);
        pages.protect(false);
    }
    crate::digest::Digest::new().bytes(pages.bytes()).end()
}

/// One byte to another process and back.
pub fn pipe(n: u64) -> u64 {
    let ((mut from_parent, mut to_child), (mut from_child, mut to_parent)) = (sys::pipe(), sys::pipe());
    let rounds = n * 50;
    let child = sys::fork(|| {
        let mut byte = [0];
        for _ in 0..rounds {
            from_parent.read_exact(&mut byte).expect("the parent writes");
            to_parent.write_all(&[byte[0].wrapping_mul(5).wrapping_add(1)]).expect("the parent reads");
        }
        0
    });
    let (mut byte, mut sum) = ([1], 0u64);
    for _ in 0..rounds {
        to_child.write_all(&byte).expect("the child reads");
        from_child.read_exact(&mut byte).expect("the child writes");
        sum = sum.wrapping_mul(31).wrapping_add(u64::from(byte[0]));
    }
    sum + sys::wait(child) as u64
}

/// A process made and ended.
pub fn fork(n: u64) -> u64 {
    (0..n * 5).map(|i| sys::wait(sys::fork(|| (i % 200) as i32)) as u64).sum()
}

/// A process made that becomes this program again, which ends at once.
pub fn exec(n: u64) -> u64 {
    let path = CString::new("/proc/self/exe").expect("no zeros");
    let args = ["bench-guest", NOTHING].map(|a| CString::new(a).expect("no zeros"));
    (0..n * 2).map(|_| sys::wait(sys::fork(|| sys::exec(&path, &args))) as u64 + 1).sum()
}

/// Signals to itself.
pub fn signal(n: u64) -> u64 {
    sys::signals(n * 100)
}
