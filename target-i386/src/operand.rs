//! Operands of rare instructions: the same addressing as the ordinary ones, on the whole CPU.

use crate::{
    exception::Exception,
    forms::*,
    reg::*,
    sys::{self, X86Cpu},
};
use accel::tcg::{Kind, SEG_BASE, W, Who};

/// Offset of the memory operand in its segment.
pub fn offset(cpu: &X86Cpu<'_>, l: Loc) -> u64 {
    let (r, o) = (&cpu.hot.regs, &cpu.op);
    let sum =
        r[o.r[BASE].index()].wrapping_add(r[o.r[INDEX].index()] << (o.scale & 3)).wrapping_add(o.disp as i64 as u64);
    match l {
        Loc::Abs => o.imm,
        Loc::G16 => sum & 0xffff,
        Loc::G32 | Loc::M32 | Loc::Mx32 | Loc::S32 => sum & 0xffff_ffff,
        _ => sum,
    }
}
/// Linear address of `offset` in segment `seg`, checked outside of 64-bit mode.
pub fn linear(cpu: &X86Cpu<'_>, seg: u8, offset: u64, bytes: u32, write: bool) -> Result<u64, Exception> {
    if cpu.state.code64() {
        let base = if seg >= FS as u8 && seg <= GS as u8 { cpu.hot.regs[(SEG_BASE + seg) as usize] } else { 0 };
        return Ok(base.wrapping_add(offset));
    }
    sys::segment(cpu.hot, cpu.state, seg, offset, bytes, write)
}
/// Linear address of the form's memory operand (`bytes` long).
pub fn address(cpu: &X86Cpu<'_>, f: Form, bytes: u32, write: bool) -> Result<u64, Exception> {
    let l = f.memory().ok_or(Exception::ud())?;
    linear(cpu, cpu.op.seg, offset(cpu, l), bytes, write)
}
/// #GP unless the memory operand is aligned to 16 bytes; found before its segment is checked.
pub fn aligned(cpu: &X86Cpu<'_>, f: Form) -> Result<(), Exception> {
    let l = f.memory().ok_or(Exception::ud())?;
    let base = cpu.hot.regs[(SEG_BASE + cpu.op.seg) as usize & 31];
    if base.wrapping_add(offset(cpu, l)) & 15 != 0 { Err(Exception::gp(0)) } else { Ok(()) }
}
/// A general register's low `w` by operand location (`R` or `Rh`).
pub fn reg(cpu: &X86Cpu<'_>, w: W, l: Loc, field: usize) -> u64 {
    let v = cpu.hot.regs[cpu.op.r[field].index()];
    (if l == Loc::Rh { v >> 8 } else { v }) & w.mask()
}
/// Writes a general register as instructions do: 32-bit results clear the upper half, narrower ones keep the rest.
pub fn set_reg(cpu: &mut X86Cpu<'_>, w: W, l: Loc, field: usize, v: u64) {
    let r = &mut cpu.hot.regs[cpu.op.r[field].index()];
    *r = match (w, l) {
        (W::B4 | W::B8, _) => v & w.mask(),
        (_, Loc::Rh) => *r & !0xff00 | (v & 0xff) << 8,
        _ => *r & !w.mask() | v & w.mask(),
    }
}
/// Reads the operand `l` (register, memory or immediate) of width `w`; `field` is [`DST`] or [`SRC`].
pub fn read(cpu: &mut X86Cpu<'_>, w: W, f: Form, l: Loc, field: usize) -> Result<u64, Exception> {
    Ok(match l {
        Loc::I => cpu.op.imm & w.mask(),
        l if l.is_memory() => {
            let la = address(cpu, f, w.bytes(), false)?;
            cpu.load(w, la, Who::Current)?
        }
        l => reg(cpu, w, l, field),
    })
}
/// Writes the operand `l` (register or memory) of width `w`.
pub fn write(cpu: &mut X86Cpu<'_>, w: W, f: Form, l: Loc, field: usize, v: u64) -> Result<(), Exception> {
    if l.is_memory() {
        let la = address(cpu, f, w.bytes(), true)?;
        return cpu.store(w, la, v, Who::Current);
    }
    set_reg(cpu, w, l, field, v);
    Ok(())
}
/// Raises the fault that writing the operand would raise.
pub fn probe_write(cpu: &mut X86Cpu<'_>, w: W, f: Form, l: Loc) -> Result<(), Exception> {
    if l.is_memory() {
        let la = address(cpu, f, w.bytes(), true)?;
        cpu.probe(la, w.bytes() as u64, Kind::Write, Who::Current)?;
    }
    Ok(())
}
/// Pushes `w` on the current stack.
pub fn push(cpu: &mut X86Cpu<'_>, w: W, v: u64) -> Result<(), Exception> {
    let mask = cpu.state.stack_mask();
    let old = cpu.hot.regs[RSP.index()];
    let sp = old.wrapping_sub(w.bytes() as u64) & mask;
    let seg = std::mem::replace(&mut cpu.op.seg, SS as u8);
    let la = linear(cpu, SS as u8, sp, w.bytes(), true);
    let done = la.and_then(|la| cpu.store(w, la, v, Who::Current));
    cpu.op.seg = seg;
    done?;
    set_sp(cpu, sp);
    Ok(())
}
/// Reads `w` at `depth` bytes above the stack pointer.
pub fn peek(cpu: &mut X86Cpu<'_>, w: W, depth: u64) -> Result<u64, Exception> {
    let sp = cpu.hot.regs[RSP.index()].wrapping_add(depth) & cpu.state.stack_mask();
    let seg = std::mem::replace(&mut cpu.op.seg, SS as u8);
    let la = linear(cpu, SS as u8, sp, w.bytes(), false);
    let v = la.and_then(|la| cpu.load(w, la, Who::Current));
    cpu.op.seg = seg;
    v
}
/// Adds to the stack pointer under the stack's width.
pub fn add_sp(cpu: &mut X86Cpu<'_>, n: i64) {
    let sp = cpu.hot.regs[RSP.index()].wrapping_add_signed(n);
    set_sp(cpu, sp)
}
/// Sets the stack pointer under the stack's width: a 16-bit one keeps the upper half of ESP.
pub fn set_sp(cpu: &mut X86Cpu<'_>, v: u64) {
    let mask = cpu.state.stack_mask();
    let r = &mut cpu.hot.regs[RSP.index()];
    *r = if mask == 0xffff { *r & !0xffff | v & 0xffff } else { v & mask };
}
