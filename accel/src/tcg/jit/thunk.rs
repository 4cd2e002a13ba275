//! What regions call: instructions that have to be run on the whole CPU or by tier 0's frame, flags of an unknown producer,
//! the guest's floating-point control.
#![expect(unsafe_code, reason = "called from generated code")]
#![expect(clippy::undocumented_unsafe_blocks, reason = "one argument, below, covers the thunks")]
//!
//! Unsafe here stands on: regions pass the env they run on, which the calling thread owns, and items of the region itself,
//! which lives while it runs; they hold nothing of the env but the linear address of their page, so that a thunk may change
//! all of it. No reference into the env is live when a thunk is entered.

use super::super::ops::Flow;
use super::super::{
    env::{Env, Op, fault, hot, inner, salt, state},
    mem::{Cpu, Mem},
    target::{AnyFamily, Rare, Target},
    tier0::{Interp, collect, fields, ip_at, reason, stop},
    vector::native::Fpcr,
};
use std::{marker::PhantomData, ptr::NonNull, sync::atomic::Ordering::Relaxed};

/// An instruction that a region calls.
pub(crate) struct Item<T: Target> {
    pub op: Op<T>,
    pub form: T::Form,
}

/// Addresses of the thunks.
#[derive(Clone, Copy)]
pub(super) struct Thunks {
    /// Flags of any producer become flags of [`Target::SETTLED`].
    pub settle: usize,
    /// Runs an [`Item`] by [`Target::rare`]. 0: go on; else the reason is in the env.
    pub rare: usize,
    /// Runs an [`Item`] by [`Target::run`]. 0: go on; else it missed and nothing has happened.
    pub one: usize,
    /// Loads the guest's floating-point control.
    pub fp: usize,
}
impl Thunks {
    pub fn of<T: Target>() -> Thunks {
        Thunks {
            settle: settle::<T> as *const () as usize,
            rare: rare::<T> as *const () as usize,
            one: one::<T> as *const () as usize,
            fp: load_fp::<T> as *const () as usize,
        }
    }
}

unsafe extern "C" fn settle<T: Target>(env: NonNull<Env<T>>, _: u64) -> u64 {
    unsafe {
        let h = hot(env);
        let d = T::settle((*h).deferred());
        (*h).defer(d);
    }
    0
}
unsafe extern "C" fn load_fp<T: Target>(env: NonNull<Env<T>>, _: u64) -> u64 {
    unsafe {
        let h = hot(env);
        Fpcr { guest: &mut (*h).fpcr, host: &mut (*h).fpcr_host }.enter();
    }
    0
}
unsafe extern "C" fn one<T: Target>(env: NonNull<Env<T>>, item: *const Item<T>) -> u64 {
    unsafe {
        let mut frame = Interp::<T, false>::new(env, &raw const (*item).op);
        match T::run::<_, AnyFamily>(&mut frame, (*item).form) {
            Ok(Flow::Next) => 0,
            _ => 1,
        }
    }
}
unsafe extern "C" fn rare<T: Target>(env: NonNull<Env<T>>, item: *const Item<T>) -> u64 {
    unsafe {
        collect(env);
        let op = &raw const (*item).op;
        let (at, h) = (fields(env, op), hot(env));
        let (ip, why, with) = loop {
            let mut cpu = Cpu { hot: &mut *h, state: &mut *state(env), op: at, mem: Mem(env, PhantomData) };
            match T::rare(&mut cpu, (*item).form) {
                Rare::Next if (*inner(env)).stale => break (at.next_ip, reason::LOOKUP, 0),
                Rare::Next => return 0,
                Rare::To(ip) => break (ip, reason::MODE, 0),
                Rare::Again => {
                    let kicked = (*env.as_ptr()).shared.exit_request.load(Relaxed) != 0;
                    // (Each run of a repeated instruction may count as many.)
                    if kicked || (*h).budget < 0 || (*inner(env)).stale || (*h).salt == salt::NONE {
                        (*h).budget += 1;
                        break (at.ip, reason::BUDGET, 0);
                    }
                }
                Rare::Fault(f) => {
                    *fault(env) = Some(f);
                    (*h).budget += 1;
                    break (ip_at(env, op), reason::FAULT, op as u64);
                }
                Rare::Halt(ip) => break (ip, reason::HALT, 0),
                Rare::Exit(ip, code) => break (ip, reason::EXIT, code.into()),
            }
        };
        stop(env, ip, why, with);
        1
    }
}
