//! From tier 0 into a region and back.
//!
//! An op at which a region can be entered has [`region`] as its handler; the vCPU's [`Pages`](super::super::page::Pages) know
//! the handler it had. A region that gives up before an instruction has tier 0 run it by that handler.
#![expect(unsafe_code, reason = "entry into generated code")]
#![expect(clippy::undocumented_unsafe_blocks, reason = "one argument, below, covers the handlers")]
//!
//! Unsafe here stands on what is said in `tier0`, and: code in the jump cache and in the pages' list of patched ops belongs to
//! regions that the vCPU's pages hold, which are dropped by the dispatcher only, and what the jump cache has of them before a handler runs.

use super::{
    super::{
        env::{Env, Op, Run, hot, inner, jc_known, pages},
        ops::PAGE,
        target::Target,
        tier0::{ip_at, jump, reason, stop, stopped},
    },
    exit, stubs,
};
use std::{ptr::NonNull, sync::atomic::Ordering::Relaxed, time::Instant};

/// Where a region's handler goes: a handler, and the op (or the address) it gets.
#[repr(C)]
struct Way<T: Target> {
    run: Run<T>,
    op: *const Op<T>,
}

/// The handler of an op at which a region can be entered. Whoever came here has paid for the op's block.
pub(crate) unsafe extern "C" fn region<T: Target>(env: NonNull<Env<T>>, op: *const Op<T>) -> *const Op<T> {
    unsafe {
        let way = enter(env, op);
        (way.run)(env, way.op)
    }
}
#[inline(never)]
unsafe extern "C" fn enter<T: Target>(env: NonNull<Env<T>>, op: *const Op<T>) -> Way<T> {
    unsafe {
        let (h, ip) = (hot(env), ip_at(env, op));
        (*h).budget += (*op).n as i64;
        let (pages, known) = (&*pages(env), jc_known(env, ip));
        let (code, entry) = match known {
            Some(j) if (*j).code != pages.no_region() => ((*j).code, (*j).entry),
            _ => pages.patch(op),
        };
        if let Some(j) = known {
            ((*j).code, (*j).entry) = (code, entry)
        }
        let why = (pages.trampoline())(env.as_ptr().cast(), code, entry, ip, (*h).budget);
        let n = &mut (*inner(env)).counters;
        n.entered += 1;
        match why as i64 {
            exit::CHAIN => Way { run: chain::<T>, op: (*h).ip as *const Op<T> },
            exit::OUT => {
                n.out += 1;
                Way { run: nowhere::<T>, op: std::ptr::null() }
            }
            exit::KICK if (*env.as_ptr()).shared.exit_request.load(Relaxed) != 0 => {
                n.kicked += 1;
                stop(env, (*h).ip, reason::BUDGET, 0);
                Way { run: nowhere::<T>, op: std::ptr::null() }
            }
            _ => {
                n.side += 1;
                let ip = (*h).ip;
                let often = (*inner(env)).sides.note(ip, Instant::now);
                if let Some(j) = jc_known(env, ip)
                    && !often
                {
                    (*h).regs[PAGE.index()] = ip & !0xfff;
                    return original(env, (*j).op);
                }
                stop(env, ip, reason::SIDE, ip);
                Way { run: nowhere::<T>, op: std::ptr::null() }
            }
        }
    }
}
/// The way to run an op by its own handler, paid for.
unsafe fn original<T: Target>(env: NonNull<Env<T>>, op: *const Op<T>) -> Way<T> {
    unsafe {
        let h = hot(env);
        (*h).budget -= (*op).n as i64;
        if (*h).budget < (*env.as_ptr()).shared.exit_request.load(Relaxed) {
            return Way { run: stopped::<T>, op };
        }
        Way { run: (*pages(env)).original(op), op }
    }
}
/// Runs an op by its own handler, and those after it by theirs.
/// # Safety
/// As for [`run`](super::super::tier0::run).
pub(crate) unsafe fn run_original<T: Target>(env: NonNull<Env<T>>, op: *const Op<T>) -> *const Op<T> {
    unsafe {
        let way = original(env, op);
        (way.run)(env, way.op)
    }
}
/// A handler that goes on at an address.
unsafe extern "C" fn chain<T: Target>(env: NonNull<Env<T>>, ip: *const Op<T>) -> *const Op<T> {
    unsafe { jump(env, ip as u64) }
}
/// A handler that ends the run: the reason is in the env.
unsafe extern "C" fn nowhere<T: Target>(_: NonNull<Env<T>>, _: *const Op<T>) -> *const Op<T> {
    std::hint::black_box(std::ptr::null())
}
/// The way from Rust into a region.
pub(crate) fn trampoline<T: Target>() -> Option<Trampoline> {
    stubs::stubs::<T>().ok().map(|s| s.enter)
}
/// As in [`trampoline`].
pub(crate) type Trampoline = stubs::Enter;
