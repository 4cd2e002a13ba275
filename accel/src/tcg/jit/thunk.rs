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
    interp::{Interp, entry},
    mem::{Cpu, Mem},
    mode,
    target::{Access, AnyFamily, Kind, Rare, Target, Who},
    tier0::{collect, fields, ip_at, reason, stop},
    tlb::{self, TlbEntry},
    unit::hold,
    vector::native::Fpcr,
};
use super::{form::LONGEST, frame::exit};
use std::{marker::PhantomData, ptr::NonNull, sync::atomic::Ordering::Relaxed};
#[cfg(target_arch = "x86_64")]
use {
    super::super::{
        env::{HOT, Hot},
        tlb::{OTHER, TLB},
    },
    std::mem::offset_of,
};

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
    /// Runs an [`Item`] by [`Target::rare`]. 0: go on; else why the region is left: for the address in the env, or the reason
    /// is there.
    pub rare: usize,
    /// Runs an [`Item`] by [`Target::run`]. 0: go on; else it missed and nothing has happened.
    pub one: usize,
    /// Loads the guest's floating-point control. Like `unit` it changes no register on x86-64 hosts.
    pub fp: usize,
    /// Loads the guest's x87 unit.
    pub unit: usize,
    /// Looks for the page of a linear address, to read and to write there, and leaves what it finds in the first level; the third
    /// argument is how far from its page's beginning an access may begin. They say in [`Hot::place`](super::super::env::Hot) by which
    /// entry to go, or [`NOWHERE`]. They change no register on x86-64 hosts.
    pub fill: [usize; 2],
}
impl Thunks {
    pub fn of<T: Target>() -> Thunks {
        Thunks {
            settle: settle::<T> as *const () as usize,
            rare: rare::<T> as *const () as usize,
            one: one::<T> as *const () as usize,
            fp: load_fp_quietly::<T> as *const () as usize,
            unit: hold_quietly::<T> as *const () as usize,
            fill: [fill_read_quietly::<T> as *const () as usize, fill_write_quietly::<T> as *const () as usize],
        }
    }
}

/// A thunk of the env that keeps all registers: what calls it now and then need not give up its own for that.
#[cfg(target_arch = "x86_64")]
macro_rules! quietly {
    ($name:ident($($arg:ident: $ty:ty),*), $thunk:path$(, $first:literal)*$(; $k:ident = $v:expr)*) => {
        #[unsafe(naked)]
        unsafe extern "C" fn $name<T: Target>(env: NonNull<Env<T>>$(, $arg: $ty)*) {
            // (At the call the stack was a multiple of 16 bytes: with the return address and nine registers it is again.)
            core::arch::naked_asm!(
                $($first,)*
                "push rax", "push rcx", "push rdx", "push rsi", "push rdi", "push r8", "push r9", "push r10", "push r11",
                "sub rsp, 256",
                "movaps [rsp], xmm0", "movaps [rsp + 16], xmm1", "movaps [rsp + 32], xmm2", "movaps [rsp + 48], xmm3",
                "movaps [rsp + 64], xmm4", "movaps [rsp + 80], xmm5", "movaps [rsp + 96], xmm6", "movaps [rsp + 112], xmm7",
                "movaps [rsp + 128], xmm8", "movaps [rsp + 144], xmm9", "movaps [rsp + 160], xmm10", "movaps [rsp + 176], xmm11",
                "movaps [rsp + 192], xmm12", "movaps [rsp + 208], xmm13", "movaps [rsp + 224], xmm14", "movaps [rsp + 240], xmm15",
                "call {thunk}",
                "movaps xmm0, [rsp]", "movaps xmm1, [rsp + 16]", "movaps xmm2, [rsp + 32]", "movaps xmm3, [rsp + 48]",
                "movaps xmm4, [rsp + 64]", "movaps xmm5, [rsp + 80]", "movaps xmm6, [rsp + 96]", "movaps xmm7, [rsp + 112]",
                "movaps xmm8, [rsp + 128]", "movaps xmm9, [rsp + 144]", "movaps xmm10, [rsp + 160]", "movaps xmm11, [rsp + 176]",
                "movaps xmm12, [rsp + 192]", "movaps xmm13, [rsp + 208]", "movaps xmm14, [rsp + 224]", "movaps xmm15, [rsp + 240]",
                "add rsp, 256",
                "pop r11", "pop r10", "pop r9", "pop r8", "pop rdi", "pop rsi", "pop rdx", "pop rcx", "pop rax",
                "ret",
                thunk = sym $thunk,
                $($k = const $v,)*
            )
        }
    };
}
#[cfg(target_arch = "x86_64")]
quietly!(load_fp_quietly(), load_fp::<T>);
#[cfg(target_arch = "x86_64")]
quietly!(hold_quietly(), hold::<T>);
/// One that looks for a page, in its other place at first.
#[cfg(target_arch = "x86_64")]
macro_rules! fill_quietly {
    ($name:ident, $thunk:path, $tag:ident) => {
        quietly!($name(la: u64, limit: u64), $thunk,
            "push rax", "push rcx",
            "mov rax, rsi", "shr rax, {shift}", "and eax, {mask}", "xor eax, {other}",
            "mov rcx, [rdi + {tlb}]", "mov rcx, [rcx + rax + {tag}]", "xor rcx, rsi", "cmp rcx, rdx", "ja 2f",
            "mov [rdi + {place}], rax", "pop rcx", "pop rax", "ret",
            "2: pop rcx", "pop rax";
            shift = 12 - size_of::<TlbEntry>().trailing_zeros();
            mask = (TLB - 1) * size_of::<TlbEntry>();
            other = OTHER * size_of::<TlbEntry>();
            tlb = HOT + offset_of!(Hot, tlb);
            tag = offset_of!(TlbEntry, $tag);
            place = HOT + offset_of!(Hot, place)
        );
    };
}
#[cfg(target_arch = "x86_64")]
fill_quietly!(fill_read_quietly, fill_read::<T>, read);
#[cfg(target_arch = "x86_64")]
fill_quietly!(fill_write_quietly, fill_write::<T>, write);
#[cfg(not(target_arch = "x86_64"))]
use {
    fill_read as fill_read_quietly, fill_write as fill_write_quietly, hold as hold_quietly, load_fp as load_fp_quietly,
};

unsafe extern "C" fn settle<T: Target>(env: NonNull<Env<T>>, _: u64) -> u64 {
    unsafe {
        let h = hot(env);
        let d = T::settle((*h).deferred());
        (*h).defer(d);
    }
    0
}
unsafe extern "C" fn load_fp<T: Target>(env: NonNull<Env<T>>) {
    unsafe {
        let h = hot(env);
        Fpcr { guest: &mut (*h).fpcr, host: &mut (*h).fpcr_host }.enter();
    }
}
unsafe extern "C" fn fill_read<T: Target>(env: NonNull<Env<T>>, la: u64, limit: u64) {
    unsafe {
        let found = aside(env, || found(env, la, limit, Kind::Read));
        place(env, entry(env, la), la, limit, found)
    }
}
unsafe extern "C" fn fill_write<T: Target>(env: NonNull<Env<T>>, la: u64, limit: u64) {
    unsafe {
        let len = 0x1000_u64.saturating_sub(limit) as usize;
        // (Code does not change by a store beside it, which need not leave the region. Many follow one another in a page that is known.)
        let beside = |s: Option<tlb::Spot>| s.is_some_and(|s| tlb::once(env, &s, la, len));
        let once = !known(env, la, Kind::Write)
            && aside(env, || beside(tlb::writable(env, la)) || beside(look_up(env, la, Kind::Write)));
        let found = once || aside(env, || fits(env, la, limit, Kind::Write));
        place(env, if once { &raw const (*env.as_ptr()).once } else { entry(env, la) }, la, limit, found)
    }
}
/// Whether the page of `la` has its place in the first level, for accesses of a kind.
unsafe fn known<T: Target>(env: NonNull<Env<T>>, la: u64, kind: Kind) -> bool {
    unsafe { (*entry(env, la)).tag(kind) ^ la <= 0xfff }
}
/// Whether an access goes by the entry that is the place of `la`: it begins at most `limit` behind the page's beginning, or it reaches
/// into a page that lies behind it on the host, too.
unsafe fn fits<T: Target>(env: NonNull<Env<T>>, la: u64, limit: u64, kind: Kind) -> bool {
    unsafe { known(env, la, kind) && (la & 0xfff <= limit || tlb::runs_on(env, la, kind)) }
}
/// As for [`fits`], after a look for the page.
unsafe fn found<T: Target>(env: NonNull<Env<T>>, la: u64, limit: u64, kind: Kind) -> bool {
    unsafe {
        if !known(env, la, kind) {
            look_up(env, la, kind);
        }
        fits(env, la, limit, kind)
    }
}
/// Where an access is to go that cannot go on: no entry is at this offset.
pub(super) const NOWHERE: u64 = u64::MAX;
/// Tells a region by which entry to go, as an offset in the regime's TLB.
unsafe fn place<T: Target>(env: NonNull<Env<T>>, e: *const TlbEntry, la: u64, limit: u64, found: bool) {
    unsafe {
        let sides = &mut (*inner(env)).sides;
        let found = found && (la & 0xfff <= limit || sides.goes_on(la, limit));
        if !found {
            sides.failed(la, limit)
        }
        let at = e.addr().wrapping_sub((*hot(env)).tlb.addr()) as u64;
        (*hot(env)).place = if found { at } else { NOWHERE }
    }
}
/// Runs something with the host's own floating-point control.
unsafe fn aside<T: Target, R>(env: NonNull<Env<T>>, f: impl FnOnce() -> R) -> R {
    unsafe {
        let h = hot(env);
        let mut fp = Fpcr { guest: &mut (*h).fpcr, host: &mut (*h).fpcr_host };
        let loaded = *fp.host != 0;
        fp.leave();
        let r = f();
        if loaded {
            Fpcr { guest: &mut (*h).fpcr, host: &mut (*h).fpcr_host }.enter()
        }
        r
    }
}
/// Looks for a page; a fault is not this one's to report, but the instruction's, when it is run by its own handler.
unsafe fn look_up<T: Target>(env: NonNull<Env<T>>, la: u64, kind: Kind) -> Option<tlb::Spot> {
    unsafe { tlb::find(env, &mut *state(env), la, Access { kind, who: Who::Current, stack: false }).ok() }
}
/// What a piece of quick code wants looked for: eight bytes behind the call.
#[cfg(target_arch = "x86_64")]
#[repr(C)]
pub(crate) struct Look {
    /// The host's register with the address that `min` is relative to.
    root: u8,
    write: u8,
    bytes: u16,
    min: i32,
}
#[cfg(target_arch = "x86_64")]
impl Look {
    /// Its bytes in the code.
    pub fn code(root: u8, min: i32, bytes: u16, write: bool) -> [u8; size_of::<Look>()] {
        let ([a, b], [c, d, e, f]) = (bytes.to_ne_bytes(), min.to_ne_bytes());
        [root, write as u8, a, b, c, d, e, f]
    }
}
/// Registers of the host that pieces use, by number; those between are not looked at.
#[cfg(target_arch = "x86_64")]
type Regs = [u64; 12];
/// Looks for a page; how far behind the call the piece goes on.
#[cfg(target_arch = "x86_64")]
unsafe extern "C" fn look_for<T: Target>(env: NonNull<Env<T>>, regs: *const Regs, at: *const Look) -> usize {
    // What follows the call, and the jump that follows that.
    const FOUND: usize = size_of::<Look>();
    const NOT: usize = FOUND + 5;
    unsafe {
        let l = at.read_unaligned();
        let la = (*regs)[l.root as usize].wrapping_add(l.min as i64 as u64);
        let kind = if l.write != 0 { Kind::Write } else { Kind::Read };
        if aside(env, || found(env, la, 0x1000 - l.bytes as u64, kind)) { FOUND } else { NOT }
    }
}
/// Called by pieces with [`Look`] behind the call, by way of code that has put `rax` into the last word of the piece's red
/// zone. Keeps all registers.
#[cfg(target_arch = "x86_64")]
#[unsafe(naked)]
pub(crate) unsafe extern "C" fn look<T: Target>() {
    // (Where handlers begin, the stack is a multiple of 16 but for 8. The frame begins below the red zone, 120 bytes from here.)
    core::arch::naked_asm!(
        "mov rax, [rsp - 120]",
        "sub rsp, 480",
        "mov [rsp + 256], rax", "mov [rsp + 264], rcx", "mov [rsp + 272], rdx", "mov [rsp + 304], rsi", "mov [rsp + 312], rdi",
        "mov [rsp + 320], r8", "mov [rsp + 328], r9", "mov [rsp + 336], r10", "mov [rsp + 344], r11",
        "movaps [rsp], xmm0", "movaps [rsp + 16], xmm1", "movaps [rsp + 32], xmm2", "movaps [rsp + 48], xmm3",
        "movaps [rsp + 64], xmm4", "movaps [rsp + 80], xmm5", "movaps [rsp + 96], xmm6", "movaps [rsp + 112], xmm7",
        "movaps [rsp + 128], xmm8", "movaps [rsp + 144], xmm9", "movaps [rsp + 160], xmm10", "movaps [rsp + 176], xmm11",
        "movaps [rsp + 192], xmm12", "movaps [rsp + 208], xmm13", "movaps [rsp + 224], xmm14", "movaps [rsp + 240], xmm15",
        "lea rsi, [rsp + 256]",
        "mov rdx, [rsp + 480]",
        "call {look_for}",
        "add [rsp + 480], rax",
        "movaps xmm0, [rsp]", "movaps xmm1, [rsp + 16]", "movaps xmm2, [rsp + 32]", "movaps xmm3, [rsp + 48]",
        "movaps xmm4, [rsp + 64]", "movaps xmm5, [rsp + 80]", "movaps xmm6, [rsp + 96]", "movaps xmm7, [rsp + 112]",
        "movaps xmm8, [rsp + 128]", "movaps xmm9, [rsp + 144]", "movaps xmm10, [rsp + 160]", "movaps xmm11, [rsp + 176]",
        "movaps xmm12, [rsp + 192]", "movaps xmm13, [rsp + 208]", "movaps xmm14, [rsp + 224]", "movaps xmm15, [rsp + 240]",
        "mov rax, [rsp + 256]", "mov rcx, [rsp + 264]", "mov rdx, [rsp + 272]", "mov rsi, [rsp + 304]", "mov rdi, [rsp + 312]",
        "mov r8, [rsp + 320]", "mov r9, [rsp + 328]", "mov r10, [rsp + 336]", "mov r11, [rsp + 344]",
        "add rsp, 480",
        "ret",
        look_for = sym look_for::<T>,
    )
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
        if (*env.as_ptr()).shared.exit_request.load(Relaxed) == 0
            && T::light(&mut *hot(env), &mut *state(env), (*item).form)
        {
            return 0;
        }
        collect(env);
        let op = &raw const (*item).op;
        let (at, h) = (fields(env, op), hot(env));
        let (ip, why, with) = loop {
            tlb::count(env, 1);
            let mut cpu = Cpu { hot: &mut *h, state: &mut *state(env), op: at, mem: Mem(env, PhantomData) };
            cpu.hot.paid = 1;
            match T::rare(&mut cpu, (*item).form) {
                // (A repeated one may have used what the region looked for when it was entered.)
                Rare::Next if tlb::must_leave(env) || (*h).budget < LONGEST as i64 => {
                    break (at.next_ip, reason::LOOKUP, 0);
                }
                Rare::Next => return 0,
                Rare::To(ip) => {
                    if mode::goes_on(env) {
                        (*h).ip = ip;
                        return exit::CHAIN as u64;
                    }
                    break (ip, reason::MODE, 0);
                }
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
        exit::OUT as u64
    }
}
