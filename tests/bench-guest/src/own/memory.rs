//! Memory kernels: latency, the library's block operations, string instructions.
#![expect(unsafe_code, reason = "string instructions")]

use crate::digest::{Digest, Random};
use std::{arch::asm, hint::black_box};

/// Follows a random cycle through `lines` cache lines of 64 bytes.
fn chase(lines: u64, steps: u64) -> u64 {
    // A full-period congruential generator makes the cycle: multiplier 1 mod 4, increment odd.
    let (a, c) = (0x9e37_79b1 & !3 | 1, 0x51_ed27 | 1);
    let mut memory = vec![[0u64; 8]; lines as usize];
    for (i, line) in memory.iter_mut().enumerate() {
        line[0] = (i as u64).wrapping_mul(a).wrapping_add(c) % lines;
    }
    let mut at = 0;
    for _ in 0..steps {
        at = memory[at as usize][0];
    }
    at
}

/// A cycle through 256 KiB: inside most second-level caches.
pub fn chase_256k(n: u64) -> u64 {
    chase(256 << 10 >> 6, n * 100_000)
}

/// A cycle through 64 MiB: outside of caches and TLBs.
pub fn chase_64m(n: u64) -> u64 {
    chase(64 << 20 >> 6, n * 100_000)
}

/// Sizes of the block operations, in bytes: few are large.
fn sizes() -> Vec<usize> {
    let mut random = Random::new(40);
    (0..200).map(|i| if i % 50 == 0 { 65_536 } else { 1 + random.below(2048) as usize }).collect()
}

/// The C library's copy, sizes mixed.
pub fn copy(n: u64) -> u64 {
    let (sizes, from) = (sizes(), Random::new(41).bytes(70_000));
    let mut to = vec![0; 70_000];
    for i in 0..n * 20 {
        for (k, size) in sizes.iter().enumerate() {
            let at = (k * 13 + i as usize) % 4096;
            to[at..at + size].copy_from_slice(&black_box(&from)[at / 2..at / 2 + size]);
        }
    }
    Digest::new().bytes(&to).end()
}

/// The C library's fill, sizes mixed.
pub fn set(n: u64) -> u64 {
    let sizes = sizes();
    let mut to = vec![0; 70_000];
    for i in 0..n * 20 {
        for (k, size) in sizes.iter().enumerate() {
            let at = (k * 13 + i as usize) % 4096;
            black_box(&mut to)[at..at + size].fill(k as u8);
        }
    }
    Digest::new().bytes(&to).end()
}

/// Lengths of the string instructions, in bytes.
const LENGTHS: [usize; 6] = [7, 64, 300, 1500, 4096, 30_000];

/// REP MOVSB.
pub fn rep_movs(n: u64) -> u64 {
    let from = Random::new(42).bytes(40_000);
    let mut to = vec![0u8; 40_000];
    for i in 0..n * 10 {
        for length in LENGTHS {
            let (s, d) = (&from[i as usize % 1000..][..length], &mut to[length % 1000..][..length]);
            // SAFETY: reads `length` bytes of `s`, writes as many of `d`; the direction flag is clear.
            unsafe {
                asm!("rep movsb", inout("rcx") length => _, inout("rsi") s.as_ptr() => _, inout("rdi") d.as_mut_ptr() => _,
                    options(nostack, preserves_flags));
            }
        }
    }
    Digest::new().bytes(&to).end()
}

/// REP STOSB.
pub fn rep_stos(n: u64) -> u64 {
    let mut to = vec![0u8; 40_000];
    for i in 0..n * 10 {
        for length in LENGTHS {
            let d = &mut to[(length + i as usize) % 1000..][..length];
            // SAFETY: writes `length` bytes of `d`; the direction flag is clear.
            unsafe {
                asm!("rep stosb", inout("rcx") length => _, inout("rdi") d.as_mut_ptr() => _, in("al") i as u8,
                    options(nostack, preserves_flags));
            }
        }
    }
    Digest::new().bytes(&to).end()
}

/// REPNE SCASB: the length of a string.
pub fn rep_scas(n: u64) -> u64 {
    let mut text = vec![b'x'; 40_000];
    let mut sum = 0u64;
    for i in 0..n * 10 {
        for length in LENGTHS {
            text[length] = 0;
            let from = &text[i as usize % 5..];
            let left: usize;
            // SAFETY: reads at most `from.len()` bytes of `from`; the direction flag is clear.
            unsafe {
                asm!("repne scasb", inout("rcx") from.len() => left, inout("rdi") from.as_ptr() => _, in("al") 0u8,
                    options(nostack, readonly));
            }
            sum = sum.wrapping_mul(31).wrapping_add((from.len() - left) as u64);
            text[length] = b'x';
        }
    }
    sum
}

/// REPE CMPSB: where two strings differ.
pub fn rep_cmps(n: u64) -> u64 {
    let a = Random::new(43).bytes(40_000);
    let mut b = a.clone();
    let mut sum = 0u64;
    for i in 0..n * 10 {
        for length in LENGTHS {
            b[length] ^= 1;
            let (x, y) = (&a[i as usize % 5..], &b[i as usize % 5..]);
            let left: usize;
            // SAFETY: reads at most `x.len()` bytes of both, which are equally long; the direction flag is clear.
            unsafe {
                asm!("repe cmpsb", inout("rcx") x.len() => left, inout("rsi") x.as_ptr() => _, inout("rdi") y.as_ptr() => _,
                    options(nostack, readonly));
            }
            sum = sum.wrapping_mul(31).wrapping_add((x.len() - left) as u64);
            b[length] ^= 1;
        }
    }
    sum
}
