//! Repeated string instructions: rare functions that work page run by page run. Source: Intel SDM vol. 1 §7.3.9, vol. 2 (REP).
//! The counter and the index registers say where to go on, so a fault or an interrupt between runs is exact.

use super::flags::Kind;
use crate::{
    exception::Exception,
    forms::*,
    operand::linear,
    reg::*,
    state::bits::TF,
    sys::{Outcome, X86Cpu, debug},
};
use accel::tcg::{Deferred, Rare, W, Who};

/// MOVS, CMPS, SCAS, LODS, STOS.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[expect(missing_docs, reason = "the manual's mnemonics")]
pub enum Str {
    Movs,
    Cmps,
    Scas,
    Lods,
    Stos,
}

/// Elements done between two looks at interrupts, where they go one by one.
const SLICE: u64 = 256;

/// Runs one; `f.dst` is `M`, `G32` or `G16` by address size.
pub fn run(cpu: &mut X86Cpu<'_>, f: Form, op: Str, rep: Rep) -> Outcome {
    let mask = match f.dst {
        Loc::G16 => 0xffff,
        Loc::G32 => 0xffff_ffff,
        _ => u64::MAX,
    };
    let count = cpu.hot.regs[RCX.index()] & mask;
    if count == 0 {
        return Ok(Rare::Next);
    }
    let now = count.min(cpu.hot.iterations());
    // A single step ends after each iteration.
    let stepped = cpu.state.eflags & TF != 0;
    let (done, stop) = match op {
        _ if stepped => (0, false),
        Str::Cmps | Str::Scas => compare_run(cpu, f.w, op, rep, mask, now),
        _ => (bulk(cpu, f.w, op, mask, now), false),
    };
    if done != 0 {
        cpu.hot.refund(-(done as i64));
        set(cpu, RCX, mask, count - done);
        return Ok(if stop || done == count { Rare::Next } else { again(cpu) });
    }
    let apart = cpu.hot.regs[RDI.index()].wrapping_sub(cpu.hot.regs[RSI.index()]) & mask;
    let upward = step(cpu, f.w) == u64::from(f.w.bytes());
    let plain = upward && op != Str::Lods && (op != Str::Movs || apart >= 0x1000);
    for i in 1..=SLICE.min(now) {
        one(cpu, f.w, op, mask)?;
        cpu.hot.refund(-1);
        set(cpu, RCX, mask, count - i);
        let stop = match op {
            Str::Cmps | Str::Scas => {
                let d = cpu.hot.deferred();
                (d.v[0] == d.v[1]) != (rep == Rep::E)
            }
            _ => false,
        };
        if i == count || stop {
            return Ok(Rare::Next);
        }
        if i == 1 && plain || stepped || cpu.state.debug_hits != 0 {
            // (Plain: the element brought its pages into the TLB, or crossed into the next; the rest may go at once.)
            break;
        }
    }
    Ok(again(cpu))
}
fn again(cpu: &mut X86Cpu<'_>) -> Rare<Exception> {
    debug::between_iterations(cpu);
    Rare::Again
}
/// Writes an index or counter register under the address size.
fn set(cpu: &mut X86Cpu<'_>, r: accel::tcg::Slot, mask: u64, v: u64) {
    let r = &mut cpu.hot.regs[r.index()];
    *r = if mask == 0xffff { *r & !0xffff | v & mask } else { v & mask };
}
fn step(cpu: &X86Cpu<'_>, w: W) -> u64 {
    let n = w.bytes() as u64;
    if cpu.state.eflags & crate::state::bits::DF != 0 { n.wrapping_neg() } else { n }
}
fn source(cpu: &X86Cpu<'_>, w: W, mask: u64) -> Result<u64, Exception> {
    linear(cpu, cpu.op.seg, cpu.hot.regs[RSI.index()] & mask, w.bytes(), false)
}
fn target(cpu: &X86Cpu<'_>, w: W, mask: u64, write: bool) -> Result<u64, Exception> {
    linear(cpu, ES as u8, cpu.hot.regs[RDI.index()] & mask, w.bytes(), write)
}
fn advance(cpu: &mut X86Cpu<'_>, r: accel::tcg::Slot, mask: u64, by: u64) {
    let v = cpu.hot.regs[r.index()].wrapping_add(by);
    set(cpu, r, mask, v)
}
/// The flags of `a` minus `b`.
fn compare(w: W, a: u64, b: u64) -> Deferred<u64> {
    Deferred { kind: Kind::Sub as u8, w, v: [a, b, a.wrapping_sub(b) & w.mask()] }
}
/// One element.
fn one(cpu: &mut X86Cpu<'_>, w: W, op: Str, mask: u64) -> Result<(), Exception> {
    let by = step(cpu, w);
    let acc = cpu.hot.regs[RAX.index()] & w.mask();
    match op {
        Str::Movs => {
            let s = source(cpu, w, mask)?;
            let v = cpu.load(w, s, Who::Current)?;
            let d = target(cpu, w, mask, true)?;
            cpu.store(w, d, v, Who::Current)?;
            advance(cpu, RSI, mask, by);
            advance(cpu, RDI, mask, by);
        }
        Str::Stos => {
            let d = target(cpu, w, mask, true)?;
            cpu.store(w, d, acc, Who::Current)?;
            advance(cpu, RDI, mask, by);
        }
        Str::Lods => {
            let s = source(cpu, w, mask)?;
            let v = cpu.load(w, s, Who::Current)?;
            let r = &mut cpu.hot.regs[RAX.index()];
            *r = if w >= W::B4 { v } else { *r & !w.mask() | v };
            advance(cpu, RSI, mask, by);
        }
        Str::Scas => {
            let d = target(cpu, w, mask, false)?;
            let v = cpu.load(w, d, Who::Current)?;
            cpu.hot.defer(compare(w, acc, v));
            advance(cpu, RDI, mask, by);
        }
        Str::Cmps => {
            let s = source(cpu, w, mask)?;
            let a = cpu.load(w, s, Who::Current)?;
            let d = target(cpu, w, mask, false)?;
            let b = cpu.load(w, d, Who::Current)?;
            cpu.hot.defer(compare(w, a, b));
            advance(cpu, RSI, mask, by);
            advance(cpu, RDI, mask, by);
        }
    }
    Ok(())
}
/// How many elements, a page of them at most, can be done at once as far as direction and address size go: offsets do not
/// wrap.
fn upward(cpu: &X86Cpu<'_>, w: W, mask: u64, both: bool) -> u64 {
    let size = w.bytes() as u64;
    if step(cpu, w) != size {
        return 0;
    }
    let room = |r: accel::tcg::Slot| (0x1000 / size).min((mask - (cpu.hot.regs[r.index()] & mask)) / size);
    room(RDI).min(if both { room(RSI) } else { u64::MAX })
}
/// Bytes that are compared in one piece.
const PIECE: usize = 256;
/// As many elements of an upward CMPS or SCAS as lie in plain pages, and whether the last one ends the repetition; 0: go one
/// by one.
fn compare_run(cpu: &mut X86Cpu<'_>, w: W, op: Str, rep: Rep, mask: u64, count: u64) -> (u64, bool) {
    let size = w.bytes() as u64;
    let n = upward(cpu, w, mask, op == Str::Cmps).min(count);
    let (si, di) = (cpu.hot.regs[RSI.index()] & mask, cpu.hot.regs[RDI.index()] & mask);
    if n == 0 {
        return (0, false);
    }
    let bytes = (n * size) as u32;
    let Ok(d) = linear(cpu, ES as u8, di, bytes, false) else { return (0, false) };
    // What is compared with: the accumulator in every lane, or memory.
    let lanes = u64::MAX / w.mask();
    let acc = [((cpu.hot.regs[RAX.index()] & w.mask()).wrapping_mul(lanes)).to_le_bytes(); PIECE / 8];
    let mut left: [u8; PIECE] = *acc.as_flattened().first_chunk().expect("of this size");
    let s = match op {
        Str::Cmps => match linear(cpu, cpu.op.seg, si, bytes, false) {
            Ok(s) => Some(s),
            Err(_) => return (0, false),
        },
        _ => None,
    };
    let mut right = [0; PIECE];
    let (mut done, mut stop) = (0, false);
    while done < n && !stop {
        let at = |la: u64| la.wrapping_add(done * size);
        // Whole elements only: what is left in a page is a multiple, or an element crosses.
        let fits = [Some(d), s].into_iter().flatten().map(|la| (0x1000 - (at(la) & 0xfff)) / size).min();
        let k = fits.unwrap_or(0).min(n - done).min(PIECE as u64 / size);
        let bytes = (k * size) as usize;
        if k == 0
            || !cpu.read_run(at(d), &mut right[..bytes])
            || !s.is_none_or(|s| cpu.read_run(at(s), &mut left[..bytes]))
        {
            break;
        }
        let found = first(w, rep == Rep::Ne, &left[..bytes], &right[..bytes]);
        stop = found.is_some();
        let k = found.map_or(k, |i| i as u64 + 1);
        let last = |b: &[u8]| {
            let mut v = [0; 8];
            let at = (k as usize - 1) * size as usize;
            v[..size as usize].copy_from_slice(&b[at..at + size as usize]);
            u64::from_le_bytes(v)
        };
        cpu.hot.defer(compare(w, last(&left), last(&right)));
        done += k;
    }
    if done != 0 {
        advance(cpu, RDI, mask, done * size);
        if s.is_some() {
            advance(cpu, RSI, mask, done * size);
        }
    }
    (done, stop)
}
/// The first lane of two equally long strings that is equal (or differs).
fn first(w: W, equal: bool, a: &[u8], b: &[u8]) -> Option<usize> {
    let ones = u64::MAX / w.mask();
    let tops = ones << (w.bits() - 1);
    let word = |s: &[u8], fill: u8| {
        let mut v = [fill; 8];
        v[..s.len()].copy_from_slice(s);
        u64::from_le_bytes(v)
    };
    // (Behind the end is no lane of interest.)
    let (fa, fb) = if equal { (0, 0xff) } else { (0, 0) };
    let words = a.chunks(8).zip(b.chunks(8)).map(|(a, b)| word(a, fa) ^ word(b, fb));
    words.enumerate().find_map(|(i, x)| {
        // (The lowest lane that borrows is zero; those above may be marked wrongly.)
        let hit = if equal { x.wrapping_sub(ones) & !x & tops } else { x };
        (hit != 0).then(|| i * 8 / w.bytes() as usize + (hit.trailing_zeros() / w.bits()) as usize)
    })
}
/// As many elements of an upward MOVS or STOS as lie in plain pages; 0: go one by one.
fn bulk(cpu: &mut X86Cpu<'_>, w: W, op: Str, mask: u64, count: u64) -> u64 {
    let size = w.bytes() as u64;
    if !matches!(op, Str::Movs | Str::Stos) {
        return 0;
    }
    let (si, di) = (cpu.hot.regs[RSI.index()] & mask, cpu.hot.regs[RDI.index()] & mask);
    let n = upward(cpu, w, mask, op == Str::Movs).min(count);
    if n == 0 {
        return 0;
    }
    let bytes = (n * size) as u32;
    let Ok(d) = linear(cpu, ES as u8, di, bytes, true) else { return 0 };
    if op == Str::Stos {
        let done = cpu.fill_run(w, d, cpu.hot.regs[RAX.index()], n);
        if done != 0 {
            advance(cpu, RDI, mask, done * size);
        }
        return done;
    }
    let Ok(s) = linear(cpu, cpu.op.seg, si, bytes, false) else { return 0 };
    // Whole elements only: what is left in a page is a multiple, or an element crosses.
    let fits = (0x1000 - (d & 0xfff)).min(0x1000 - (s & 0xfff)) / size * size;
    let done = cpu.copy_run(d, s, fits.min(n * size)) / size;
    // (An advance by nothing would still clear the upper halves.)
    if done != 0 {
        advance(cpu, RSI, mask, done * size);
        advance(cpu, RDI, mask, done * size);
    }
    done
}
