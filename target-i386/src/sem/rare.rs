//! Ordinary instructions that are plain functions on the whole CPU, and the dispatch of all rare ones.

use super::{bcd, flags, light, mmx, sse, string, x87};
use crate::{
    exception::Exception,
    forms::*,
    operand::*,
    reg::*,
    state::bits::*,
    sys::{self, Outcome, X86Cpu},
};
use accel::tcg::{Kind, Plain, Rare, SEG_BASE, W, W::*, Who};

/// Runs a rare form.
pub fn run(cpu: &mut X86Cpu<'_>, f: Form) -> Outcome {
    match f.op {
        Op::Sys(op) => return sys::run(cpu, f, op),
        Op::X87(op) => return x87::run(cpu, f, op),
        // (What the host's unit refuses is a control word.)
        Op::X87Host(_) => return x87::run(cpu, f, x87::X87::Fldcw),
        Op::Mmx(op) => return mmx::run(cpu, f, op),
        Op::Sse(op) => return sse::rare(cpu, f, op),
        Op::Str(op, rep) => return string::run(cpu, f, op, rep),
        Op::Bcd(op) => return bcd::run(cpu, op),
        Op::Branch(b) => return branch(cpu, f, b),
        Op::NoFpu(unit) => return Err(no_fpu(cpu, unit)),
        Op::Shift(op @ (Shift::Rcl | Shift::Rcr)) => rotate(cpu, f, op == Shift::Rcl)?,
        Op::LockNeg => lock_neg(cpu, f)?,
        Op::CmpxchgWide => cmpxchg16b(cpu, f)?,
        Op::PushAll(false) => pusha(cpu, f.w)?,
        Op::PushAll(true) => popa(cpu, f.w)?,
        Op::Enter => enter(cpu, f.w)?,
        Op::Xlat => xlat(cpu, f)?,
        Op::Bound => bound(cpu, f)?,
        Op::Cld | Op::Std | Op::Fence => _ = light::run(cpu.hot, cpu.state, f),
        Op::Salc => {
            let c = cpu.state.flags(cpu.hot) & CF != 0;
            let r = &mut cpu.hot.regs[RAX.index()];
            *r = *r & !0xff | if c { 0xff } else { 0 };
        }
        _ => return Err(Exception::ud()),
    }
    Ok(Rare::Next)
}
/// Why an FP instruction may not run: SDM vol. 3A table 2-2, vol. 2 "SIMD exceptions".
fn no_fpu(cpu: &X86Cpu<'_>, unit: Unit) -> Exception {
    let s = &cpu.state;
    let ud = match unit {
        Unit::X87 => false,
        Unit::Mmx => s.cr0 & CR0_EM != 0,
        Unit::Sse => s.cr0 & CR0_EM != 0 || s.cr4 & CR4_OSFXSR == 0,
    };
    if ud { Exception::ud() } else { Exception::nm() }
}
/// RCL (`left`), RCR: rotate through CF. OF (undefined for counts above 1) as for a count of one.
fn rotate(cpu: &mut X86Cpu<'_>, f: Form, left: bool) -> Result<(), Exception> {
    let bits = f.w.bits();
    let n = match f.src {
        Loc::I => cpu.op.imm as u32,
        Loc::No => 0,
        _ => cpu.hot.regs[RCX.index()] as u32,
    } & if f.w == B8 { 63 } else { 31 };
    probe_write(cpu, f.w, f, f.dst)?;
    let a = read(cpu, f.w, f, f.dst, DST)?;
    let turns = n % (bits + 1);
    let fl = cpu.state.flags(cpu.hot);
    let (mut v, mut c) = (a, (fl & CF != 0) as u64);
    for _ in 0..turns {
        if left {
            let out = v >> (bits - 1) & 1;
            v = (v << 1 | c) & f.w.mask();
            c = out;
        } else {
            let out = v & 1;
            v = v >> 1 | c << (bits - 1);
            c = out;
        }
    }
    write(cpu, f.w, f, f.dst, DST, v)?;
    if n != 0 {
        let top = v >> (bits - 1) & 1;
        let o = if left { top ^ c } else { top ^ (v >> (bits - 2) & 1) };
        cpu.state.set_flags(cpu.hot, ((c as u32) * CF) | ((o as u32) * OF), CF | OF);
    }
    Ok(())
}
fn lock_neg(cpu: &mut X86Cpu<'_>, f: Form) -> Result<(), Exception> {
    let la = address(cpu, f, f.w.bytes(), true)?;
    cpu.probe(la, f.w.bytes() as u64, Kind::Write, Who::Current)?;
    loop {
        let old = cpu.load(f.w, la, Who::Current)?;
        let r = old.wrapping_neg() & f.w.mask();
        if cpu.cas(f.w, la, old, r, Who::Current)? == old {
            cpu.hot.defer(accel::tcg::Deferred { kind: flags::Kind::Sub as u8, w: f.w, v: [0, old, r] });
            return Ok(());
        }
    }
}
/// CMPXCHG16B: #GP unless aligned; ZF only.
fn cmpxchg16b(cpu: &mut X86Cpu<'_>, f: Form) -> Result<(), Exception> {
    let la = address(cpu, f, 16, true)?;
    if la & 15 != 0 {
        return Err(Exception::gp(0));
    }
    let pair = |hi: u64, lo: u64| (hi as u128) << 64 | lo as u128;
    let r = &cpu.hot.regs;
    let acc = pair(r[RDX.index()], r[RAX.index()]);
    let new = pair(r[RCX.index()], r[RBX.index()]);
    let old = cpu.cas16(la, acc, new, Who::Current)?;
    if old != acc {
        cpu.hot.regs[RAX.index()] = old as u64;
        cpu.hot.regs[RDX.index()] = (old >> 64) as u64;
    }
    cpu.state.set_flags(cpu.hot, if old == acc { ZF } else { 0 }, ZF);
    Ok(())
}
/// PUSHA, PUSHAD: all or nothing.
fn pusha(cpu: &mut X86Cpu<'_>, w: W) -> Result<(), Exception> {
    let (n, mask) = (w.bytes() as u64, cpu.state.stack_mask());
    let old = cpu.hot.regs[RSP.index()];
    cpu.op.seg = SS as u8;
    let mut to = [0; 8];
    for (i, la) in to.iter_mut().enumerate() {
        *la = linear(cpu, SS as u8, old.wrapping_sub((i as u64 + 1) * n) & mask, w.bytes(), true)?;
        cpu.probe(*la, n, Kind::Write, Who::Current)?;
    }
    for (i, la) in to.into_iter().enumerate() {
        let v = cpu.hot.regs[i];
        cpu.store(w, la, v, Who::Current)?;
    }
    set_sp(cpu, old.wrapping_sub(8 * n));
    Ok(())
}
/// POPA, POPAD; the stored stack pointer is skipped.
fn popa(cpu: &mut X86Cpu<'_>, w: W) -> Result<(), Exception> {
    let mut v = [0; 8];
    for (i, v) in v.iter_mut().enumerate() {
        *v = peek(cpu, w, i as u64 * w.bytes() as u64)?;
    }
    add_sp(cpu, 8 * w.bytes() as i64);
    for (i, v) in v.into_iter().rev().enumerate() {
        if i != RSP.index() {
            let r = &mut cpu.hot.regs[i];
            *r = if w == B4 { v } else { *r & !0xffff | v };
        }
    }
    Ok(())
}
/// ENTER: size in the low 16 bits of the immediate, nesting level above.
fn enter(cpu: &mut X86Cpu<'_>, w: W) -> Result<(), Exception> {
    let (size, level) = (cpu.op.imm & 0xffff, cpu.op.imm >> 16 & 31);
    let (n, mask) = (w.bytes() as u64, cpu.state.stack_mask());
    let old = cpu.hot.regs[RSP.index()];
    let bp = cpu.hot.regs[RBP.index()];
    let go = |cpu: &mut X86Cpu<'_>| {
        push(cpu, w, bp)?;
        let frame = cpu.hot.regs[RSP.index()];
        for i in 1..level {
            let seg = std::mem::replace(&mut cpu.op.seg, SS as u8);
            let la = linear(cpu, SS as u8, bp.wrapping_sub(i * n) & mask, w.bytes(), false)?;
            let v = cpu.load(w, la, Who::Current)?;
            cpu.op.seg = seg;
            push(cpu, w, v)?;
        }
        if level > 0 {
            push(cpu, w, frame)?;
        }
        // The new top must be writable as well.
        let top = cpu.hot.regs[RSP.index()].wrapping_sub(size) & mask;
        let la = linear(cpu, SS as u8, top, w.bytes(), true)?;
        cpu.probe(la, n, Kind::Write, Who::Current)?;
        add_sp(cpu, -(size as i64));
        Ok(frame)
    };
    match go(cpu) {
        Ok(frame) => {
            let r = &mut cpu.hot.regs[RBP.index()];
            *r = match w {
                B2 => *r & !0xffff | frame & 0xffff,
                _ => frame & w.mask(),
            };
            Ok(())
        }
        Err(e) => {
            cpu.hot.regs[RSP.index()] = old;
            Err(e)
        }
    }
}
/// XLAT: AL = [rBX + AL].
fn xlat(cpu: &mut X86Cpu<'_>, f: Form) -> Result<(), Exception> {
    let r = &cpu.hot.regs;
    let sum = r[RBX.index()].wrapping_add(r[RAX.index()] & 0xff);
    let o = match f.src {
        Loc::G16 => sum & 0xffff,
        Loc::G32 => sum & 0xffff_ffff,
        _ => sum,
    };
    let la = linear(cpu, cpu.op.seg, o, 1, false)?;
    let v = cpu.load(B1, la, Who::Current)?;
    let r = &mut cpu.hot.regs[RAX.index()];
    *r = *r & !0xff | v;
    Ok(())
}
/// BOUND: #BR outside of the two signed bounds.
fn bound(cpu: &mut X86Cpu<'_>, f: Form) -> Result<(), Exception> {
    let la = address(cpu, f, 2 * f.w.bytes(), false)?;
    let low = cpu.load(f.w, la, Who::Current)?;
    let high = cpu.load(f.w, la.wrapping_add(f.w.bytes() as u64), Who::Current)?;
    let v = f.w.signed(reg(cpu, f.w, Loc::R, DST));
    if v < f.w.signed(low) || v > f.w.signed(high) { Err(Exception::br()) } else { Ok(()) }
}
/// A near branch in a segment with a limit below 4 GiB: #GP beyond it, before anything changes.
fn branch(cpu: &mut X86Cpu<'_>, f: Form, b: Branch) -> Outcome {
    let w = f.w;
    let base = cpu.hot.regs[SEG_BASE as usize + CS];
    let direct = cpu.op.next_ip.wrapping_add(cpu.op.disp as i64 as u64).wrapping_sub(base) & w.mask();
    let to = match b {
        Branch::Call | Branch::Jmp | Branch::Jcc(_) | Branch::Loop(_) => direct,
        Branch::Ret => peek(cpu, w, 0)?,
        Branch::CallTo | Branch::JmpTo => read(cpu, w, f, f.src, SRC)?,
    };
    let mut counter = None;
    let taken = match b {
        Branch::Jcc(cc) => flags::condition(&mut Plain, cc, cpu.hot.deferred()),
        Branch::Loop(k) => {
            // The counter's width is kept in the immediate.
            let cw = W::from_code(cpu.op.imm as u8);
            let n = cpu.hot.regs[RCX.index()] & cw.mask();
            if k == 3 {
                n == 0
            } else {
                let z = flags::zf(&mut Plain, cpu.hot.deferred());
                let n = n.wrapping_sub(1) & cw.mask();
                counter = Some((cw, n));
                n != 0 && (k == 0 || z == (k == 1))
            }
        }
        _ => true,
    };
    if taken && to > cpu.state.segs[CS].limit as u64 {
        return Err(Exception::gp(0));
    }
    if let Some((cw, n)) = counter {
        let r = &mut cpu.hot.regs[RCX.index()];
        *r = if cw == B2 { *r & !0xffff | n } else { n };
    }
    match b {
        Branch::Call | Branch::CallTo => {
            let ret = cpu.op.next_ip.wrapping_sub(base) & w.mask();
            push(cpu, w, ret)?
        }
        Branch::Ret => add_sp(cpu, w.bytes() as i64 + (cpu.op.imm & 0xffff) as i64),
        _ => {}
    }
    if !taken {
        return Ok(Rare::Next);
    }
    Ok(Rare::To(base.wrapping_add(to) & 0xffff_ffff))
}
