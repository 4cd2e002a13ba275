//! Segment registers and descriptor tables: loads with their checks, MOV/POP Sreg, LxS, LLDT, LTR, SGDT and friends, LAR,
//! LSL, VERR, VERW, ARPL. Source: Intel SDM vol. 2 (the instructions), vol. 3A §3.4, §5.5–5.7, §5.12.
use super::desc::{Descriptor, Selector, canonical, system};
use super::prelude::*;
use super::stack::Stack;

/// Linear address of a selector's descriptor if its `len` bytes lie inside the table.
pub fn descriptor_at(c: &X86Cpu<'_>, sel: Selector, len: u32) -> Option<u64> {
    let (base, limit) = if sel.ti() {
        // LDTR with a null selector has no table: every offset is outside.
        if !c.state.ldtr.a().p() {
            return None;
        }
        (c.state.ldtr.base, c.state.ldtr.limit)
    } else {
        (c.state.gdtr.base, c.state.gdtr.limit.into())
    };
    let last = sel.offset() + (len - 1);
    (last <= limit).then(|| c.linear(base.wrapping_add(sel.offset().into())))
}
/// The descriptor's low eight bytes; `None` when it is outside its table.
pub fn descriptor(c: &mut X86Cpu<'_>, sel: Selector) -> Result<Option<Descriptor>, Exception> {
    match descriptor_at(c, sel, 8) {
        Some(la) => Ok(Some(Descriptor::from_bits(c.load(W::B8, la, Who::Implicit)?))),
        None => Ok(None),
    }
}
/// Bits 64–127 of a system descriptor or gate in IA-32e mode; `None` when they are outside the table.
pub fn descriptor_high(c: &mut X86Cpu<'_>, sel: Selector) -> Result<Option<u64>, Exception> {
    match descriptor_at(c, sel, 16) {
        Some(la) => Ok(Some(c.load(W::B8, la + 8, Who::Implicit)?)),
        None => Ok(None),
    }
}
/// Sets the accessed bit of a code or data descriptor in memory, if it is clear.
pub fn mark_accessed(c: &mut X86Cpu<'_>, sel: Selector, d: Descriptor) -> Result<(), Exception> {
    if d.kind() & 1 != 0 {
        return Ok(());
    }
    match descriptor_at(c, sel, 8) {
        Some(la) => c.store(W::B1, la + 5, (d.into_bits() >> 40 & 0xff) | 1, Who::Implicit),
        None => Ok(()),
    }
}
/// A segment register's contents for this descriptor; the accessed bit counts as set.
pub fn segment(sel: u16, d: Descriptor) -> Segment {
    let attr = d.attr();
    let attr = if attr.s() { attr.with_kind(attr.kind() | 1) } else { attr };
    Segment { sel, base: d.base().into(), limit: d.limit(), attr: attr.into_bits() }
}
/// A segment register that refers to nothing.
pub fn null_segment(sel: u16) -> Segment {
    Segment { sel, base: 0, limit: 0, attr: 0 }
}
/// A segment register in real mode: base from the selector; limit and rights stay as they are (SDM vol. 3A §20.1.1).
pub fn real_segment(old: Segment, sel: u16) -> Segment {
    Segment { sel, base: u64::from(sel) << 4, ..old }
}
/// A segment register in virtual-8086 mode (SDM vol. 3A §20.2).
pub fn vm86_segment(sel: u16) -> Segment {
    Segment { sel, base: u64::from(sel) << 4, limit: 0xffff, attr: Attr::real(3).into_bits() }
}

/// Checks a selector for SS at privilege `cpl`, errors made by `fail` (general protection or invalid TSS).
/// A missing segment is #SS in every case.
pub fn check_stack(
    c: &mut X86Cpu<'_>,
    sel: Selector,
    cpl: u8,
    fail: fn(u32) -> Exception,
) -> Result<Descriptor, Exception> {
    if sel.is_null() {
        return Err(fail(0));
    }
    let d = descriptor(c, sel)?.ok_or(fail(sel.error()))?;
    let a = d.attr();
    if sel.rpl() != cpl || !a.writable() || a.dpl() != cpl {
        return Err(fail(sel.error()));
    }
    if !d.p() {
        return Err(Exception::ss(sel.error()));
    }
    Ok(d)
}
/// Checks a selector for DS, ES, FS or GS, errors made by `fail`. A missing segment is #NP.
pub fn check_data(
    c: &mut X86Cpu<'_>,
    sel: Selector,
    cpl: u8,
    fail: fn(u32) -> Exception,
) -> Result<Descriptor, Exception> {
    let d = descriptor(c, sel)?.ok_or(fail(sel.error()))?;
    let a = d.attr();
    if !a.readable() || !a.conforming() && (sel.rpl() > a.dpl() || cpl > a.dpl()) {
        return Err(fail(sel.error()));
    }
    if !d.p() {
        return Err(Exception::np(sel.error()));
    }
    Ok(d)
}

/// Loads DS, ES, FS, GS or SS with every check of MOV Sreg.
pub fn load_segment(c: &mut X86Cpu<'_>, reg: usize, value: u16) -> Result<(), Exception> {
    if !c.protected() || c.vm86() {
        let s = if c.vm86() { vm86_segment(value) } else { real_segment(c.state.segs[reg], value) };
        c.set_segment(reg, s);
        return Ok(());
    }
    let sel = Selector::from_bits(value);
    let cpl = c.cpl();
    if sel.is_null() {
        if reg == SS {
            // 64-bit mode lets inner rings run on a null stack segment.
            if !c.code64() || cpl == 3 || sel.rpl() != cpl {
                return Err(Exception::gp(0));
            }
            c.set_segment(SS, null_stack(value, cpl));
        } else {
            c.set_segment(reg, null_segment(value));
        }
        return Ok(());
    }
    let d = if reg == SS { check_stack(c, sel, cpl, Exception::gp)? } else { check_data(c, sel, cpl, Exception::gp)? };
    mark_accessed(c, sel, d)?;
    c.set_segment(reg, segment(value, d));
    Ok(())
}
/// The stack segment of 64-bit code without a selector: writable as far as anybody looks, DPL as needed.
pub fn null_stack(sel: u16, cpl: u8) -> Segment {
    Segment { sel, base: 0, limit: 0xffff_ffff, attr: Attr::real(cpl).with_db(true).with_g(true).into_bits() }
}

/// MOV Sreg, r/m16 and POP Sreg after the value is known. CS is #UD (the decoder sees to it).
/// A load of SS holds off interrupts and debug traps for one instruction (SDM vol. 3A §6.8.3).
pub fn mov_to_segment(c: &mut X86Cpu<'_>, reg: usize, value: u16) -> Outcome {
    load_segment(c, reg, value)?;
    if reg == SS {
        c.set_shadow(Shadow::MovSs);
    }
    Ok(c.resume())
}

/// PUSH Sreg. A 32-bit push writes only the low half of its slot, as processors do.
pub fn push(c: &mut X86Cpu<'_>, w: W, sel: u16) -> Outcome {
    let mut stack = Stack::current(c);
    if w == W::B4 {
        stack.push_low(c, sel)?;
    } else {
        stack.push(c, w, sel.into())?;
    }
    stack.commit(c);
    Ok(Rare::Next)
}
/// POP Sreg.
pub fn pop(c: &mut X86Cpu<'_>, w: W, reg: usize) -> Outcome {
    let mut stack = Stack::current(c);
    let v = stack.pop(c, w)?;
    let done = mov_to_segment(c, reg, v as u16)?;
    stack.commit(c);
    Ok(done)
}

/// LLDT.
pub fn lldt(c: &mut X86Cpu<'_>, value: u16) -> Outcome {
    c.require_protected()?;
    c.require_cpl0()?;
    let sel = Selector::from_bits(value);
    if sel.is_null() {
        c.state.ldtr = null_segment(value);
        return Ok(Rare::Next);
    }
    let ldtr = ldt_register(c, sel, Exception::gp)?;
    c.state.ldtr = ldtr;
    Ok(Rare::Next)
}
/// The LDTR contents for a non-null selector; `fail` makes the error of everything but a missing segment.
pub fn ldt_register(c: &mut X86Cpu<'_>, sel: Selector, fail: fn(u32) -> Exception) -> Result<Segment, Exception> {
    if sel.ti() {
        return Err(fail(sel.error()));
    }
    let d = descriptor(c, sel)?.ok_or(fail(sel.error()))?;
    if d.s() || d.kind() != system::LDT {
        return Err(fail(sel.error()));
    }
    let high = if c.lma() { descriptor_high(c, sel)?.ok_or(fail(sel.error()))? } else { 0 };
    if !d.p() {
        return Err(Exception::np(sel.error()));
    }
    system_segment(c, sel, d, high)
}
/// LDTR or TR contents; in IA-32e mode the base is 64 bits wide and must be canonical.
fn system_segment(c: &X86Cpu<'_>, sel: Selector, d: Descriptor, high: u64) -> Result<Segment, Exception> {
    let mut s = segment(sel.into_bits(), d);
    if c.lma() {
        s.base |= high << 32;
        // The type field of the upper half must be zero (SDM vol. 3A figure 7-4).
        if high >> 40 & 0x1f != 0 || !canonical(s.base) {
            return Err(Exception::gp(sel.error()));
        }
    }
    Ok(s)
}
/// LTR.
pub fn ltr(c: &mut X86Cpu<'_>, value: u16) -> Outcome {
    c.require_protected()?;
    c.require_cpl0()?;
    let sel = Selector::from_bits(value);
    if sel.is_null() {
        return Err(Exception::gp(0));
    }
    if sel.ti() {
        return Err(Exception::gp(sel.error()));
    }
    let d = descriptor(c, sel)?.ok_or(Exception::gp(sel.error()))?;
    let long = c.lma();
    if d.s() || !(d.kind() == system::TSS32 || d.kind() == system::TSS16 && !long) {
        return Err(Exception::gp(sel.error()));
    }
    let high = if long { descriptor_high(c, sel)?.ok_or(Exception::gp(sel.error()))? } else { 0 };
    if !d.p() {
        return Err(Exception::np(sel.error()));
    }
    let mut s = system_segment(c, sel, d, high)?;
    set_busy(c, sel, d, true)?;
    s.attr |= 2;
    c.state.tr = s;
    Ok(Rare::Next)
}
/// Writes the busy bit of a TSS descriptor.
pub fn set_busy(c: &mut X86Cpu<'_>, sel: Selector, d: Descriptor, busy: bool) -> Result<(), Exception> {
    match descriptor_at(c, sel, 8) {
        Some(la) => {
            let access = d.into_bits() >> 40 & 0xfd | if busy { 2 } else { 0 };
            c.store(W::B1, la + 5, access, Who::Implicit)
        }
        None => Ok(()),
    }
}

/// SLDT and STR: the selector, unless UMIP keeps it from user code.
pub fn store_selector(c: &mut X86Cpu<'_>, task: bool) -> Result<u16, Exception> {
    c.require_protected()?;
    c.require_no_umip()?;
    Ok(if task { c.state.tr.sel } else { c.state.ldtr.sel })
}

/// SGDT and SIDT: limit and base at a linear address; ten bytes in 64-bit mode, else six (the base unmasked in every operand size,
/// as from the 386 on).
pub fn store_table(c: &mut X86Cpu<'_>, interrupt: bool, la: u64) -> Outcome {
    c.require_no_umip()?;
    let t = if interrupt { c.state.idtr } else { c.state.gdtr };
    let mut b = [0; 10];
    b[..2].copy_from_slice(&t.limit.to_le_bytes());
    b[2..].copy_from_slice(&t.base.to_le_bytes());
    let n = if c.code64() { 10 } else { 6 };
    c.store_bytes(la, &b[..n], Who::Current)?;
    Ok(Rare::Next)
}
/// LGDT and LIDT: `w` is the operand size; a 16-bit one loads 24 bits of base.
pub fn load_table(c: &mut X86Cpu<'_>, interrupt: bool, w: W, la: u64) -> Outcome {
    c.require_cpl0()?;
    let long = c.code64();
    let n = if long { 10 } else { 6 };
    let mut b = [0u8; 10];
    c.load_bytes(la, &mut b[..n], Who::Current)?;
    let limit = u16::from_le_bytes([b[0], b[1]]);
    let mut base = u64::from_le_bytes([b[2], b[3], b[4], b[5], b[6], b[7], b[8], b[9]]);
    if !long {
        base &= if w == W::B2 { 0xff_ffff } else { 0xffff_ffff };
    } else if !canonical(base) {
        return Err(Exception::gp(0));
    }
    let t = TableReg { base, limit };
    if interrupt {
        c.state.idtr = t
    } else {
        c.state.gdtr = t
    }
    Ok(Rare::Next)
}

/// Whether LAR or LSL may look at this descriptor, and its limit when it may.
fn visible(c: &mut X86Cpu<'_>, value: u16, lsl: bool) -> Result<Option<Descriptor>, Exception> {
    let sel = Selector::from_bits(value);
    if sel.is_null() {
        return Ok(None);
    }
    let Some(d) = descriptor(c, sel)? else { return Ok(None) };
    let a = d.attr();
    let long = c.lma();
    if !a.s() {
        let known = match a.kind() {
            system::LDT | system::TSS32 | system::TSS32_BUSY => true,
            system::TSS16 | system::TSS16_BUSY => !long,
            system::CALL32 => !lsl,
            system::CALL16 | system::TASK => !lsl && !long,
            _ => false,
        };
        if !known {
            return Ok(None);
        }
        // In IA-32e mode these are 16 bytes; the type of the upper half must be zero.
        if long {
            match descriptor_high(c, sel)? {
                Some(high) if high >> 40 & 0x1f == 0 => {}
                _ => return Ok(None),
            }
        }
    }
    let cpl = c.cpl();
    Ok((a.conforming() || a.dpl() >= cpl && a.dpl() >= sel.rpl()).then_some(d))
}
/// LAR: the access-rights bytes, or `None` (ZF = 0).
pub fn lar(c: &mut X86Cpu<'_>, value: u16) -> Result<Option<u32>, Exception> {
    c.require_protected()?;
    Ok(visible(c, value, false)?.map(|d| (d.into_bits() >> 32) as u32 & 0x00f0_ff00))
}
/// LSL: the limit in bytes, or `None` (ZF = 0).
pub fn lsl(c: &mut X86Cpu<'_>, value: u16) -> Result<Option<u32>, Exception> {
    c.require_protected()?;
    Ok(visible(c, value, true)?.map(Descriptor::limit))
}
/// VERR and VERW.
pub fn verify(c: &mut X86Cpu<'_>, value: u16, write: bool) -> Result<bool, Exception> {
    c.require_protected()?;
    let sel = Selector::from_bits(value);
    if sel.is_null() {
        return Ok(false);
    }
    let Some(d) = descriptor(c, sel)? else { return Ok(false) };
    let a = d.attr();
    let cpl = c.cpl();
    let privileged = a.dpl() >= cpl && a.dpl() >= sel.rpl();
    Ok(if write { a.writable() && privileged } else { a.readable() && (a.conforming() || privileged) })
}
/// ARPL: the destination with its RPL raised to the source's, if that changes it.
pub fn arpl(dst: u16, src: u16) -> Option<u16> {
    (dst & 3 < src & 3).then_some(dst & !3 | src & 3)
}

/// After a return to an outer ring: data segments that the new ring may not use become null (SDM vol. 2, IRET, RET).
pub fn drop_privileged(c: &mut X86Cpu<'_>, cpl: u8) {
    for reg in [ES, DS, FS, GS] {
        let s = c.state.segs[reg];
        // One that is null already stays as it is: FS and GS may hold a base written through their MSRs.
        if s.sel > 3 && !s.a().conforming() && s.a().dpl() < cpl {
            c.set_segment(reg, null_segment(0));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arpl_only_raises() {
        assert_eq!(arpl(0x08, 0x03), Some(0x0b));
        assert_eq!(arpl(0x0b, 0x01), None);
        assert_eq!(arpl(0x0a, 0x02), None);
    }
}
