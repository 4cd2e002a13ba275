//! Tier 0: one handler per form, threaded by sibling calls.
//!
//! A handler ends by calling the next one through its pointer; the optimiser turns that into a jump, which a test that
//! reads the machine code holds. Every way out of a handler is a sibling call of its own, cold ones included: an ordinary
//! call would give the whole handler a stack frame.
//!
//! Plan B is a loop that calls one handler after the other. It needs no other code: the ops of a *looped* vCPU all have the
//! handler [`paused`], which returns; the loop in [`run`] knows the one it stands for.
//!
//! Unsafe here stands on: handlers get an env owned by the calling thread and an op of a live page; `page.rs` builds no op
//! with a slot number out of range, ends every run of ops with one that does not fall through, and gives every direct
//! branch a target; pages are dropped by the dispatcher only, when no handler runs.
#![expect(unsafe_code, reason = "tier-0 dispatch")]
#![expect(clippy::undocumented_unsafe_blocks, reason = "one argument, above, covers the handlers")]

use super::{
    env::{Env, Op, Run, fault, hot, inner, jc, jc_entry, jc_index, pages, salt, state},
    interp::{Interp, Miss, entry, info},
    mem::{Cpu, Fields, Mem},
    mode,
    ops::*,
    target::{Access, AnyFamily, Family, Kind, Rare, Target, Who},
    tlb::{self},
    unit::{self},
    vector::native::Fpcr,
};
use std::{
    hint::black_box,
    marker::PhantomData,
    ptr::{NonNull, null},
    sync::atomic::Ordering::Relaxed,
};

/// Why handlers stopped.
pub(crate) mod reason {
    /// The op for `ip` must be looked up.
    pub const LOOKUP: u64 = 0;
    /// Budget or kick, before `ip`.
    pub const BUDGET: u64 = 1;
    /// A fault of the op at `at`.
    pub const FAULT: u64 = 2;
    /// The instruction at `ip` crosses its page, and where the next one lies must be looked up; the op is in `at`.
    pub const STRADDLE: u64 = 3;
    /// A rare instruction ended at `ip` and may have changed the mode.
    pub const MODE: u64 = 4;
    /// Halted before `ip`.
    pub const HALT: u64 = 5;
    /// The target's own exit, code in `at`.
    pub const EXIT: u64 = 6;
    /// The block at `ip` is hot.
    pub const HOT: u64 = 7;
    /// A region gave up before the instruction at `ip`, which its own handler must run.
    pub const SIDE: u64 = 8;
}

/// One handler.
pub struct Handler<T: Target>(pub(crate) Run<T>);
impl<T: Target> Handler<T> {
    /// Address of its machine code, for tests that read it.
    pub fn address(&self) -> usize {
        self.0 as usize
    }
}
/// The handler tables of a target, sixteen rows per line; made by [`tcg_handlers!`](crate::tcg_handlers).
pub struct Handlers<T: Target> {
    /// Rows of [`Target::FORMS`].
    pub forms: &'static [[Option<Handler<T>>; 16]],
    /// Rows of [`Target::PAIRS`].
    pub pairs: &'static [[Option<Handler<T>>; 16]],
}

// ---- control: every way out of a handler is its own sibling call ----

#[inline(always)]
pub(super) unsafe fn next_ip<T: Target>(env: NonNull<Env<T>>, op: *const Op<T>) -> u64 {
    unsafe { ip_at(env, op) + ((*op).len_scale & 15) as u64 }
}
#[inline(always)]
pub(crate) unsafe fn ip_at<T: Target>(env: NonNull<Env<T>>, op: *const Op<T>) -> u64 {
    unsafe { (*hot(env)).regs[PAGE.0 as usize] + ((*op).off & 0xfff) as u64 }
}
/// The address an op stands for, with or without an instruction.
pub(crate) unsafe fn ip_of<T: Target>(env: NonNull<Env<T>>, op: *const Op<T>) -> u64 {
    unsafe {
        if (*op).len_scale & 15 == 0 {
            return (*hot(env)).regs[PAGE.0 as usize].wrapping_add((*op).disp as i64 as u64) & (*op).imm;
        }
        ip_at(env, op)
    }
}
#[inline(always)]
unsafe fn go<T: Target>(env: NonNull<Env<T>>, op: *const Op<T>) -> *const Op<T> {
    unsafe { ((*op).run)(env, op) }
}
/// The handler of every op of a looped vCPU: back to the loop.
pub(crate) unsafe extern "C" fn paused<T: Target>(_: NonNull<Env<T>>, op: *const Op<T>) -> *const Op<T> {
    op
}
/// Runs from `op` until something stops it; the reason is left in the env.
/// # Safety
/// The calling thread owns `env`, holds no reference into it, and `op` is an op of a live page of it.
pub(crate) unsafe fn run<T: Target>(env: NonNull<Env<T>>, op: *const Op<T>) {
    unsafe { run_on(env, enter(env, op)) }
}
/// The same from what a handler returned.
/// # Safety
/// As for [`run`].
pub(crate) unsafe fn run_on<T: Target>(env: NonNull<Env<T>>, mut op: *const Op<T>) {
    while !op.is_null() {
        op = unsafe { ((*pages(env)).looped(&*op))(env, op) }
    }
    unsafe { collect(env) }
}
/// Host code other than handlers is about to run: the host's floating-point control is put back, the guest's sticky
/// flags are collected, and its x87 unit is in its state.
#[inline(always)]
pub(crate) unsafe fn collect<T: Target>(env: NonNull<Env<T>>) {
    unsafe {
        collect_control(env);
        unit::release(env)
    }
}
/// The same for code that has nothing to do with the x87 unit.
#[inline(always)]
unsafe fn collect_control<T: Target>(env: NonNull<Env<T>>) {
    unsafe {
        let h = hot(env);
        Fpcr { guest: &mut (*h).fpcr, host: &mut (*h).fpcr_host }.leave()
    }
}
/// Enters a block: instruction budget, kick, hotness.
#[inline(always)]
unsafe fn enter<T: Target>(env: NonNull<Env<T>>, op: *const Op<T>) -> *const Op<T> {
    unsafe {
        let h = hot(env);
        let b = (*h).budget - (*op).n as i64;
        (*h).budget = b;
        if b < (*env.as_ptr()).shared.exit_request.load(Relaxed) {
            return stopped(env, op);
        }
        let heat = (*op).heat.wrapping_sub(1);
        (*op.cast_mut()).heat = heat;
        if heat == 0 {
            return got_hot(env, op);
        }
        go(env, op)
    }
}
#[cold]
#[inline(never)]
pub(crate) unsafe extern "C" fn got_hot<T: Target>(env: NonNull<Env<T>>, op: *const Op<T>) -> *const Op<T> {
    unsafe {
        (*hot(env)).budget += (*op).n as i64;
        stop(env, ip_of(env, op), reason::HOT, 0)
    }
}
#[cold]
#[inline(never)]
pub(crate) unsafe extern "C" fn stopped<T: Target>(env: NonNull<Env<T>>, op: *const Op<T>) -> *const Op<T> {
    unsafe {
        (*hot(env)).budget += (*op).n as i64;
        stop(env, ip_of(env, op), reason::BUDGET, 0)
    }
}
#[inline(always)]
pub(crate) unsafe fn stop<T: Target>(env: NonNull<Env<T>>, ip: u64, why: u64, with: u64) -> *const Op<T> {
    unsafe {
        let h = hot(env);
        (*h).ip = ip;
        (*h).reason = why;
        (*h).at = with;
        // Opaque: if the optimiser knew that this is always null it would put the constant into every caller, and their
        // tail calls would be gone.
        black_box(null())
    }
}
#[inline(always)]
pub(crate) unsafe fn jump<T: Target>(env: NonNull<Env<T>>, ip: u64) -> *const Op<T> {
    unsafe {
        let (h, j) = (hot(env), jc(env, ip));
        if (*j).key == ip ^ (*h).salt {
            (*h).regs[PAGE.0 as usize] = ip & !0xfff;
            return enter(env, (*j).op);
        }
        lost(env, null(), ip)
    }
}
#[cold]
#[inline(never)]
pub(crate) unsafe extern "C" fn lost<T: Target>(env: NonNull<Env<T>>, _: *const Op<T>, ip: u64) -> *const Op<T> {
    unsafe {
        // (Two addresses that meet may both be met often.)
        let (h, j) = (hot(env), jc_entry(env, jc_index(ip) ^ 1));
        if (*j).key == ip ^ (*h).salt {
            (*h).regs[PAGE.0 as usize] = ip & !0xfff;
            return enter(env, (*j).op);
        }
        stop(env, ip, reason::LOOKUP, 0)
    }
}
#[inline(always)]
unsafe fn conclude<T: Target>(
    env: NonNull<Env<T>>,
    op: *const Op<T>,
    s: Result<Flow<u64, bool>, Miss>,
) -> *const Op<T> {
    unsafe {
        match s {
            Ok(Flow::Next) => go(env, op.add(1)),
            Ok(Flow::If(c)) => {
                if c {
                    enter(env, (*op).imm as *const Op<T>)
                } else {
                    enter(env, op.add(1))
                }
            }
            Ok(Flow::Goto) => enter(env, (*op).imm as *const Op<T>),
            Ok(Flow::To(ip)) => jump(env, ip),
            Ok(Flow::Rare) => rare(env, op),
            Err(m) => miss(env, op, m.ea, m.info),
        }
    }
}
/// Row `I` of the forms, as a family.
struct Row<T, const I: usize>(PhantomData<T>);
impl<T: Target, const I: usize> Family for Row<T, I> {
    const FAMILY: u8 = T::FAMILIES[I % T::FAMILIES.len()];
}
/// The first of row `I` of the pairs.
struct First<T, const I: usize>(PhantomData<T>);
impl<T: Target, const I: usize> Family for First<T, I> {
    const FAMILY: u8 = T::PAIR_FAMILIES[I % T::PAIR_FAMILIES.len()].0;
}
/// The second of row `I` of the pairs.
struct Second<T, const I: usize>(PhantomData<T>);
impl<T: Target, const I: usize> Family for Second<T, I> {
    const FAMILY: u8 = T::PAIR_FAMILIES[I % T::PAIR_FAMILIES.len()].1;
}
unsafe extern "C" fn exec<T: Target, const I: usize>(env: NonNull<Env<T>>, op: *const Op<T>) -> *const Op<T> {
    unsafe {
        let (form, live) = const { T::FORMS[I % T::FORMS.len()] };
        let s = T::run::<_, Row<T, I>>(&mut Interp::<T, false> { env, op, live, wanted: live, pend: None }, form);
        conclude(env, op, s)
    }
}
unsafe extern "C" fn exec_pair<T: Target, const I: usize>(env: NonNull<Env<T>>, op: *const Op<T>) -> *const Op<T> {
    unsafe {
        let (a, b, live) = const { T::PAIRS[I % T::PAIRS.len()] };
        let mut f = Interp::<T, false> { env, op, live, wanted: true, pend: None };
        if let Err(m) = T::run::<_, First<T, I>>(&mut f, a) {
            return miss(env, op, m.ea, m.info);
        }
        f.op = op.add(1);
        let s = T::run::<_, Second<T, I>>(&mut f, b);
        conclude(env, op.add(1), s)
    }
}
/// Row `I` of the target's forms, or nothing past the end.
pub const fn form<T: Target, const I: usize>() -> Option<Handler<T>> {
    if I < T::FORMS.len() { Some(Handler(exec::<T, I>)) } else { None }
}
/// Row `I` of the target's pairs, or nothing past the end.
pub const fn pair<T: Target, const I: usize>() -> Option<Handler<T>> {
    if I < T::PAIRS.len() { Some(Handler(exec_pair::<T, I>)) } else { None }
}
/// `tcg_handlers!(Target, form: 0 16 32 …)`: the rows from each number on, sixteen a line; `form` or `pair`.
#[macro_export]
macro_rules! tcg_handlers {
    ($t:ty, $f:ident: $($n:literal)*) => { [$($crate::tcg_handlers!(@ $t, $f, $n)),*] };
    (@ $t:ty, $f:ident, $n:literal) => { [
        $crate::tcg::$f::<$t, { $n }>(), $crate::tcg::$f::<$t, { $n + 1 }>(),
        $crate::tcg::$f::<$t, { $n + 2 }>(), $crate::tcg::$f::<$t, { $n + 3 }>(),
        $crate::tcg::$f::<$t, { $n + 4 }>(), $crate::tcg::$f::<$t, { $n + 5 }>(),
        $crate::tcg::$f::<$t, { $n + 6 }>(), $crate::tcg::$f::<$t, { $n + 7 }>(),
        $crate::tcg::$f::<$t, { $n + 8 }>(), $crate::tcg::$f::<$t, { $n + 9 }>(),
        $crate::tcg::$f::<$t, { $n + 10 }>(), $crate::tcg::$f::<$t, { $n + 11 }>(),
        $crate::tcg::$f::<$t, { $n + 12 }>(), $crate::tcg::$f::<$t, { $n + 13 }>(),
        $crate::tcg::$f::<$t, { $n + 14 }>(), $crate::tcg::$f::<$t, { $n + 15 }>(),
    ] };
}

/// Where an instruction that was run out of line goes. Two words, so that it comes back in registers: a handler that gave
/// the address of a local away could not end in a jump.
#[repr(C)]
struct Way {
    to: To,
    /// Address for [`To::Ip`] and [`To::Lost`].
    ip: u64,
}
#[repr(u64)]
enum To {
    Next,
    Taken,
    NotTaken,
    Ip,
    Lost,
    Rare,
    /// The miss is in the env's scratch words.
    Miss,
    /// Again, by its own handler.
    Go,
    /// Again, in the walking frame.
    Any,
    Fault,
}
impl Way {
    fn new(to: To) -> Way {
        Way { to, ip: 0 }
    }
    unsafe fn of<T: Target>(env: NonNull<Env<T>>, s: Result<Flow<u64, bool>, Miss>) -> Way {
        match s {
            Ok(Flow::Next) => Way::new(To::Next),
            Ok(Flow::If(false)) => Way::new(To::NotTaken),
            Ok(Flow::If(true) | Flow::Goto) => Way::new(To::Taken),
            Ok(Flow::To(ip)) => Way { to: To::Ip, ip },
            Ok(Flow::Rare) => Way::new(To::Rare),
            Err(m) => {
                unsafe { (*hot(env)).scratch = [m.ea, m.info] }
                Way::new(To::Miss)
            }
        }
    }
    #[inline(always)]
    unsafe fn take<T: Target>(self, env: NonNull<Env<T>>, op: *const Op<T>) -> *const Op<T> {
        unsafe {
            match self.to {
                To::Next => go(env, op.add(1)),
                To::Taken => enter(env, (*op).imm as *const Op<T>),
                To::NotTaken => enter(env, op.add(1)),
                To::Ip => jump(env, self.ip),
                To::Lost => lost(env, op, self.ip),
                To::Rare => rare(env, op),
                To::Miss => miss(env, op, (*hot(env)).scratch[0], (*hot(env)).scratch[1]),
                // (Not `run`: the op may be the second of a pair.)
                To::Go => go(env, op),
                To::Any => exec_any(env, op),
                To::Fault => faulted(env, op),
            }
        }
    }
}

/// A form without a handler of its own.
#[inline(never)]
pub(crate) unsafe extern "C" fn exec_dyn<T: Target>(env: NonNull<Env<T>>, op: *const Op<T>) -> *const Op<T> {
    unsafe { dynamic(env, op).take(env, op) }
}
#[inline(never)]
unsafe extern "C" fn dynamic<T: Target>(env: NonNull<Env<T>>, op: *const Op<T>) -> Way {
    unsafe {
        let f = (&(*pages(env)).known.forms)[(*op).form()];
        let mut frame = Interp::<T, false> { env, op, live: true, wanted: true, pend: None };
        Way::of(env, T::run::<_, AnyFamily>(&mut frame, f))
    }
}
/// Any form, its memory by walk: page crossers, special pages.
#[inline(never)]
pub(crate) unsafe extern "C" fn exec_any<T: Target>(env: NonNull<Env<T>>, op: *const Op<T>) -> *const Op<T> {
    unsafe { any(env, op).take(env, op) }
}
#[inline(never)]
unsafe extern "C" fn any<T: Target>(env: NonNull<Env<T>>, op: *const Op<T>) -> Way {
    unsafe {
        let n = inner(env);
        (*n).counters.slow += 1;
        (*n).n_places = 0;
        let f = (&(*pages(env)).known.forms)[(*op).form()];
        tlb::count(env, (*op).n as i64);
        let mut frame = Interp::<T, true> { env, op, live: true, wanted: true, pend: None };
        let s = T::run::<_, AnyFamily>(&mut frame, f);
        if tlb::must_leave(env) && matches!(s, Ok(Flow::Next)) {
            // (Other flows look at the exit request, which was set with the flag.)
            (*hot(env)).budget += (*op).n as i64 - 1;
            return Way { to: To::Lost, ip: next_ip(env, op) };
        }
        Way::of(env, s)
    }
}
#[cold]
#[inline(never)]
unsafe extern "C" fn miss<T: Target>(env: NonNull<Env<T>>, op: *const Op<T>, ea: u64, why: u64) -> *const Op<T> {
    unsafe { missed(env, op, ea, why).take(env, op) }
}
#[inline(never)]
unsafe extern "C" fn missed<T: Target>(env: NonNull<Env<T>>, op: *const Op<T>, ea: u64, why: u64) -> Way {
    unsafe {
        collect_control(env);
        let bytes = why & 0xff;
        if why & info::FAULT != 0 {
            return Way::new(To::Fault);
        }
        if why & info::RARE != 0 {
            return Way::new(To::Rare);
        }
        if why & (info::DIVIDE | info::ALIGN) != 0 {
            *fault(env) = Some(if why & info::DIVIDE != 0 { T::divide_fault() } else { T::alignment_fault() });
            return Way::new(To::Fault);
        }
        if why & info::SLOW != 0 || (ea & 0xfff) + bytes > 0x1000 {
            return Way::new(To::Any);
        }
        let this = (op as usize, tlb::index(ea));
        if std::mem::replace(&mut (*inner(env)).last_miss, this) == this {
            (*inner(env)).last_miss = (0, 0);
            return Way::new(To::Any);
        }
        let write = why & info::WRITE != 0;
        let kind = if write { Kind::Write } else { Kind::Read };
        let access = Access { kind, who: Who::Current, stack: (*op).off >> 12 == 2 };
        if let Err(f) = tlb::find(env, &mut *state(env), ea, access) {
            *fault(env) = Some(f);
            return Way::new(To::Fault);
        }
        let e = entry(env, ea);
        let tag = if write { &(*e).write } else { &(*e).read }.load(Relaxed);
        Way::new(if tag == ea & !0xfff { To::Go } else { To::Any })
    }
}
unsafe fn faulted<T: Target>(env: NonNull<Env<T>>, op: *const Op<T>) -> *const Op<T> {
    unsafe {
        (*hot(env)).budget += (*op).n as i64;
        stop(env, ip_at(env, op), reason::FAULT, op as u64)
    }
}
/// Operand fields of an op, as rare code sees them.
pub(crate) unsafe fn fields<T: Target>(env: NonNull<Env<T>>, op: *const Op<T>) -> Fields {
    unsafe {
        Fields {
            imm: (*op).imm,
            disp: (*op).disp,
            r: (*op).r.map(Slot),
            scale: (*op).len_scale >> 4,
            seg: ((*op).off >> 12) as u8,
            ip: ip_at(env, op),
            next_ip: next_ip(env, op),
        }
    }
}
/// A form that only runs on the whole CPU.
#[cold]
#[inline(never)]
pub(crate) unsafe extern "C" fn rare<T: Target>(env: NonNull<Env<T>>, op: *const Op<T>) -> *const Op<T> {
    unsafe {
        match rare_step(env, op) {
            RareStep::Next => go(env, op.add(1)),
            RareStep::Again => enter(env, op),
            RareStep::To(ip) => jump(env, ip),
            RareStep::Stopped(nowhere) => nowhere,
        }
    }
}
/// Where a rare instruction's handler goes.
enum RareStep<T: Target> {
    Next,
    Again,
    To(u64),
    /// Out: what [`stop`] gave.
    Stopped(*const Op<T>),
}
/// Everything of a rare instruction that takes the address of a local: in its handler that would keep the compiler from
/// making the last call a jump.
#[inline(never)]
unsafe fn rare_step<T: Target>(env: NonNull<Env<T>>, op: *const Op<T>) -> RareStep<T> {
    unsafe {
        let form = (&(*pages(env)).known.forms)[(*op).form()];
        if (*env.as_ptr()).shared.exit_request.load(Relaxed) == 0 && T::light(&mut *hot(env), &mut *state(env), form) {
            return RareStep::Next;
        }
        collect(env);
        let op_fields = fields(env, op);
        // The whole CPU as references, for this call only: no handler runs meanwhile, other threads touch atomics only.
        tlb::count(env, (*op).n as i64);
        let mut cpu = Cpu { hot: &mut *hot(env), state: &mut *state(env), op: op_fields, mem: Mem(env, PhantomData) };
        let n = (*op).n as i64;
        cpu.hot.paid = n;
        let r = T::rare(&mut cpu, form);
        RareStep::Stopped(match r {
            // (A repeated one may have used what was paid for those behind it.)
            Rare::Next if tlb::must_leave(env) || (*hot(env)).budget < 0 => {
                (*hot(env)).budget += n - 1;
                stop(env, op_fields.next_ip, reason::LOOKUP, 0)
            }
            Rare::Next => return RareStep::Next,
            Rare::To(ip) => {
                (*hot(env)).budget += n - 1;
                if mode::goes_on(env) {
                    return RareStep::To(ip);
                }
                stop(env, ip, reason::MODE, 0)
            }
            Rare::Again => {
                (*hot(env)).budget += n;
                if (*hot(env)).salt != salt::NONE {
                    return RareStep::Again;
                }
                // An instruction run by itself: it is the dispatcher's to go on with.
                stop(env, op_fields.ip, reason::LOOKUP, 0)
            }
            Rare::Fault(f) => {
                *fault(env) = Some(f);
                faulted(env, op)
            }
            Rare::Halt(ip) => {
                (*hot(env)).budget += n - 1;
                stop(env, ip, reason::HALT, 0)
            }
            Rare::Exit(ip, code) => {
                (*hot(env)).budget += n - 1;
                stop(env, ip, reason::EXIT, code as u64)
            }
        })
    }
}
/// An op without an instruction: goes to an address.
pub(crate) unsafe extern "C" fn leave<T: Target>(env: NonNull<Env<T>>, op: *const Op<T>) -> *const Op<T> {
    unsafe { jump(env, (*hot(env)).regs[PAGE.0 as usize].wrapping_add((*op).disp as i64 as u64) & (*op).imm) }
}
/// An op without an instruction: goes on at an op of another run.
pub(crate) unsafe extern "C" fn link<T: Target>(env: NonNull<Env<T>>, op: *const Op<T>) -> *const Op<T> {
    unsafe { enter(env, (*op).imm as *const Op<T>) }
}
/// An op in place of an instruction that crosses its page, which has not been run yet.
pub(crate) unsafe extern "C" fn straddle<T: Target>(env: NonNull<Env<T>>, op: *const Op<T>) -> *const Op<T> {
    unsafe { stop(env, ip_of(env, op), reason::STRADDLE, op as u64) }
}
/// An op before an instruction that crosses its page: the next page must be where it was when the instruction was decoded.
pub(crate) unsafe extern "C" fn cross<T: Target>(env: NonNull<Env<T>>, op: *const Op<T>) -> *const Op<T> {
    unsafe {
        let next = (*hot(env)).regs[PAGE.index()].wrapping_add(0x1000);
        let e = entry(env, next);
        if (*e).exec.load(Relaxed) == next && (*e).addend.load(Relaxed).wrapping_add(next) == (*op).imm {
            return go(env, op.add(1));
        }
        (*hot(env)).budget += (*op).n as i64;
        stop(env, ip_at(env, op), reason::STRADDLE, op as u64)
    }
}
