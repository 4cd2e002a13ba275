//! Atomic operations of any alignment: what a LOCK prefix does on the host.
#![expect(unsafe_code, reason = "atomic accesses to guest RAM")]

use super::super::ops::{Bin, W};
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering::SeqCst};

/// Compare and exchange of `w` at `p`; returns what was there.
/// # Safety
/// `p` points to `w` bytes of guest RAM.
#[inline(always)]
pub unsafe fn cas(w: W, p: *mut u8, expected: u64, new: u64) -> u64 {
    if !(p as usize).is_multiple_of(w.bytes() as usize) {
        // SAFETY: as demanded of the caller.
        return unsafe { cas_unaligned(w, p, expected, new) };
    }
    // SAFETY: aligned, inside guest RAM; guest RAM is only accessed by atomic or volatile accesses.
    unsafe {
        macro_rules! cas {
            ($a:ty, $t:ty) => {
                match <$a>::from_ptr(p.cast()).compare_exchange(expected as $t, new as $t, SeqCst, SeqCst) {
                    Ok(v) | Err(v) => v as u64,
                }
            };
        }
        match w {
            W::B1 => cas!(AtomicU8, u8),
            W::B2 => cas!(AtomicU16, u16),
            W::B4 => cas!(AtomicU32, u32),
            W::B8 => cas!(AtomicU64, u64),
        }
    }
}

/// A locked access that is not aligned: the host does the same (it may be slow, but it is atomic).
#[cold]
#[inline(never)]
unsafe fn cas_unaligned(w: W, p: *mut u8, expected: u64, new: u64) -> u64 {
    #[cfg(target_arch = "x86_64")]
    {
        let mut old = expected;
        // SAFETY: `p` is valid for `w` bytes; CMPXCHG touches nothing else.
        unsafe {
            match w {
                W::B1 => unreachable!("a byte is always aligned"),
                W::B2 => {
                    std::arch::asm!("lock cmpxchg word ptr [{p}], {n:x}", p = in(reg) p, n = in(reg) new, inout("rax") old)
                }
                W::B4 => {
                    std::arch::asm!("lock cmpxchg dword ptr [{p}], {n:e}", p = in(reg) p, n = in(reg) new, inout("rax") old)
                }
                W::B8 => {
                    std::arch::asm!("lock cmpxchg qword ptr [{p}], {n}", p = in(reg) p, n = in(reg) new, inout("rax") old)
                }
            }
        }
        old & w.mask()
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        // Split locks of two vCPUs exclude each other; a split lock against an aligned one does not.
        static SPLIT: std::sync::Mutex<()> = std::sync::Mutex::new(());
        let _held = SPLIT.lock();
        let n = w.bytes() as usize;
        let mut old = 0;
        for i in 0..n {
            // SAFETY: `p` is valid for `w` bytes.
            old |= (unsafe { p.add(i).read_volatile() } as u64) << (8 * i);
        }
        if old == expected {
            for i in 0..n {
                // SAFETY: as above.
                unsafe { p.add(i).write_volatile((new >> (8 * i)) as u8) };
            }
        }
        old
    }
}

/// `[p] = old op v` (an exchange without an operation); returns `old`.
/// # Safety
/// `p` points to `w` bytes of guest RAM.
#[inline(always)]
pub unsafe fn rmw(op: Option<Bin>, w: W, p: *mut u8, v: u64) -> u64 {
    if !(p as usize).is_multiple_of(w.bytes() as usize) {
        // SAFETY: as demanded of the caller.
        return unsafe { rmw_loop(op, w, p, v) };
    }
    // SAFETY: aligned, inside guest RAM.
    unsafe {
        macro_rules! rmw {
            ($a:ty, $t:ty) => {{
                let (a, v) = (<$a>::from_ptr(p.cast()), v as $t);
                match op {
                    None => a.swap(v, SeqCst) as u64,
                    Some(Bin::Add) => a.fetch_add(v, SeqCst) as u64,
                    Some(Bin::Sub) => a.fetch_sub(v, SeqCst) as u64,
                    Some(Bin::And) => a.fetch_and(v, SeqCst) as u64,
                    Some(Bin::Or) => a.fetch_or(v, SeqCst) as u64,
                    Some(Bin::Xor) => a.fetch_xor(v, SeqCst) as u64,
                    Some(_) => rmw_loop(op, w, p, v as u64),
                }
            }};
        }
        match w {
            W::B1 => rmw!(AtomicU8, u8),
            W::B2 => rmw!(AtomicU16, u16),
            W::B4 => rmw!(AtomicU32, u32),
            W::B8 => rmw!(AtomicU64, u64),
        }
    }
}

#[cold]
#[inline(never)]
unsafe fn rmw_loop(op: Option<Bin>, w: W, p: *mut u8, v: u64) -> u64 {
    let mut old = 0;
    loop {
        let new = op.map_or(v, |op| super::super::plain::plain_bin(op, w, old, v)) & w.mask();
        // SAFETY: as demanded of the caller.
        let seen = unsafe { cas(w, p, old, new) };
        if seen == old {
            return old;
        }
        old = seen;
    }
}

/// Compare and exchange of 16 bytes at an address that is a multiple of 16; returns what was there.
/// # Safety
/// `p` points to 16 bytes of guest RAM.
pub unsafe fn cas16(p: *mut u8, expected: u128, new: u128) -> u128 {
    debug_assert!((p as usize).is_multiple_of(16));
    #[cfg(target_arch = "x86_64")]
    {
        let (mut lo, mut hi) = (expected as u64, (expected >> 64) as u64);
        // SAFETY: aligned guest RAM; RBX is reserved by the compiler and so saved by hand.
        unsafe {
            std::arch::asm!(
                "xchg rsi, rbx", "lock cmpxchg16b [rdi]", "mov rbx, rsi",
                in("rdi") p, inout("rsi") new as u64 => _, in("rcx") (new >> 64) as u64,
                inout("rax") lo, inout("rdx") hi,
            );
        }
        lo as u128 | (hi as u128) << 64
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        static WIDE: std::sync::Mutex<()> = std::sync::Mutex::new(());
        let _held = WIDE.lock();
        // SAFETY: aligned guest RAM.
        let old = unsafe { p.cast::<u128>().read_volatile() };
        if old == expected {
            // SAFETY: as above.
            unsafe { p.cast::<u128>().write_volatile(new) };
        }
        old
    }
}
