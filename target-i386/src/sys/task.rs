//! The task-state segment: stacks of the inner rings, the I/O map's place, hardware task switches.
//! Source: Intel SDM vol. 3A chapter 7 (§7.3 the steps and table 7-1 the checks, §7.4 linking, §7.7 64-bit TSS).
use super::desc::{Descriptor, Selector, canonical, system, tss16, tss32};
use super::prelude::*;
use super::seg::{self, null_segment, segment, vm86_segment};

/// SS and ESP of an inner ring from the current 16- or 32-bit TSS.
pub fn ring_stack(c: &mut X86Cpu<'_>, cpl: u8, ext: u32) -> Result<(u16, u64), Exception> {
    let tr = c.state.tr;
    let wide = tr.a().kind() & 8 != 0;
    let at = if wide { tss32::ESP0 + u64::from(cpl) * 8 } else { tss16::SP0 + u64::from(cpl) * 4 };
    let (sp_w, sel_at) = if wide { (W::B4, at + 4) } else { (W::B2, at + 2) };
    if sel_at + 1 > tr.limit.into() {
        return Err(Exception::ts(u32::from(tr.sel & 0xfffc) | ext));
    }
    let la = c.linear(tr.base.wrapping_add(at));
    let sp = c.load(sp_w, la, Who::Implicit)?;
    let la = c.linear(tr.base.wrapping_add(sel_at));
    let sel = c.load(W::B2, la, Who::Implicit)?;
    Ok((sel as u16, sp))
}
/// RSPn or ISTn at this offset of the 64-bit TSS.
pub fn long_stack(c: &mut X86Cpu<'_>, at: u64, ext: u32) -> Result<u64, Exception> {
    let tr = c.state.tr;
    if at + 7 > tr.limit.into() {
        return Err(Exception::ts(u32::from(tr.sel & 0xfffc) | ext));
    }
    let rsp = c.load(W::B8, tr.base.wrapping_add(at), Who::Implicit)?;
    if !canonical(rsp) {
        return Err(Exception::ss(ext));
    }
    Ok(rsp)
}
/// Where the I/O permission map starts, from the TSS base; beyond any limit if the TSS cannot have one.
pub fn iomap_base(c: &mut X86Cpu<'_>) -> Result<u16, Exception> {
    let tr = c.state.tr;
    if tr.a().kind() & 8 == 0 || u64::from(tr.limit) < tss32::MIN_LIMIT.into() {
        return Ok(u16::MAX);
    }
    let la = c.linear(tr.base.wrapping_add(tss32::IOMAP));
    Ok(c.load(W::B2, la, Who::Implicit)? as u16)
}

/// A TSS that may be switched to.
#[derive(Clone, Copy, Debug)]
pub struct Tss {
    sel: Selector,
    d: Descriptor,
}
/// What asks for a task switch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "the manual's names")]
pub enum Cause {
    /// JMP; the address of the next instruction.
    Jump { ip: u64 },
    /// CALL; the address of the next instruction.
    Call { ip: u64 },
    /// IRET with NT set; the address of the next instruction.
    Iret { ip: u64 },
    /// An interrupt or exception through a task gate: the address to come back to, and EXT.
    Gate { ip: u64, ext: u32 },
}
impl Cause {
    fn ip(self) -> u64 {
        match self {
            Cause::Jump { ip } | Cause::Call { ip } | Cause::Iret { ip } | Cause::Gate { ip, .. } => ip,
        }
    }
    fn ext(self) -> u32 {
        if let Cause::Gate { ext, .. } = self { ext } else { 0 }
    }
    /// The new task is nested in the old one.
    fn nests(self) -> bool {
        matches!(self, Cause::Call { .. } | Cause::Gate { .. })
    }
}

/// The TSS a task gate names: an available one in the GDT.
pub fn gate_target(c: &mut X86Cpu<'_>, sel: Selector, ext: u32) -> Result<Tss, Exception> {
    let error = sel.error() | ext;
    if sel.ti() {
        return Err(Exception::gp(error));
    }
    let d = seg::descriptor(c, sel)?.ok_or(Exception::gp(error))?;
    available(sel, d, ext)
}
/// Checks that a descriptor is an available TSS, for JMP, CALL and task gates.
pub fn available(sel: Selector, d: Descriptor, ext: u32) -> Result<Tss, Exception> {
    let error = sel.error() | ext;
    if d.s() || !matches!(d.kind(), system::TSS16 | system::TSS32) {
        return Err(Exception::gp(error));
    }
    if !d.p() {
        return Err(Exception::np(error));
    }
    Ok(Tss { sel, d })
}
/// The task that the current one is nested in (IRET with NT set).
pub fn outer(c: &mut X86Cpu<'_>) -> Result<Tss, Exception> {
    let la = c.linear(c.state.tr.base);
    let sel = Selector::from_bits(c.load(W::B2, la, Who::Implicit)? as u16);
    let error = sel.error();
    if sel.is_null() || sel.ti() {
        return Err(Exception::ts(error));
    }
    let d = seg::descriptor(c, sel)?.ok_or(Exception::ts(error))?;
    if d.s() || !matches!(d.kind(), system::TSS16_BUSY | system::TSS32_BUSY) {
        return Err(Exception::ts(error));
    }
    if !d.p() {
        return Err(Exception::np(error));
    }
    Ok(Tss { sel, d })
}

/// A task's registers as a TSS holds them.
struct Image {
    cr3: u32,
    ip: u32,
    flags: u32,
    regs: [u32; 8],
    segs: [u16; 6],
    ldt: u16,
    trap: bool,
}

/// Switches tasks for an instruction. A fault after the commit point is delivered to the new task here.
pub fn go(c: &mut X86Cpu<'_>, new: Tss, cause: Cause) -> Outcome {
    let mut committed = false;
    match switch(c, new, cause, &mut committed) {
        Ok(ip) => Ok(c.jump(ip)),
        Err(e) if committed => Ok(super::excp::deliver(c, e)),
        Err(e) => Err(e),
    }
}
/// Switches tasks; the new task's instruction pointer.
///
/// Everything up to the commit point (new TSS read, old TSS known to be writable) leaves the old task as it was. Later
/// faults belong to the new task, before its first instruction (§7.3, step 13 on).
pub fn switch(c: &mut X86Cpu<'_>, new: Tss, cause: Cause, committed: &mut bool) -> Result<u64, Exception> {
    let ext = cause.ext();
    let error = new.sel.error() | ext;
    let wide = new.d.kind() & 8 != 0;
    let min = if wide { tss32::MIN_LIMIT } else { tss16::MIN_LIMIT };
    if new.d.limit() < min {
        return Err(Exception::ts(error));
    }
    let base = u64::from(new.d.base());
    let image = read(c, base, wide)?;
    // The old TSS and both descriptors must take our writes.
    let old = c.state.tr;
    let old_wide = old.a().kind() & 8 != 0;
    let (first, bytes) = if old_wide { (tss32::EIP, 0x40) } else { (tss16::IP, 0x1c) };
    c.probe(c.linear(old.base.wrapping_add(first)), bytes, Kind::Write, Who::Implicit)?;
    if cause.nests() {
        c.probe(c.linear(base), 2, Kind::Write, Who::Implicit)?;
    }

    let mut flags = c.eflags();
    if matches!(cause, Cause::Jump { .. } | Cause::Iret { .. }) {
        let sel = Selector::from_bits(old.sel);
        if let Some(d) = seg::descriptor(c, sel)? {
            seg::set_busy(c, sel, d, false)?;
        }
    }
    if matches!(cause, Cause::Iret { .. }) {
        flags &= !eflags::NT;
    }
    save(c, old, old_wide, flags, cause.ip())?;
    if cause.nests() {
        c.store(W::B2, c.linear(base), old.sel.into(), Who::Implicit)?;
    }
    if !matches!(cause, Cause::Iret { .. }) {
        seg::set_busy(c, new.sel, new.d, true)?;
    }

    // From here on everything belongs to the new task.
    *committed = true;
    let mut tr = segment(new.sel.into_bits(), new.d);
    tr.attr |= 2;
    c.state.tr = tr;
    c.state.cr0 |= cr0::TS;
    c.state.dr[7] &= !0x155;
    if wide && c.state.cr0 & cr0::PG != 0 {
        super::cr::load_cr3(c, image.cr3.into())?;
    }
    load(c, &image, wide, cause)
}
fn read(c: &mut X86Cpu<'_>, base: u64, wide: bool) -> Result<Image, Exception> {
    let get = |c: &mut X86Cpu<'_>, at: u64, w: W| {
        let la = c.linear(base.wrapping_add(at));
        c.load(w, la, Who::Implicit).map(|v| v as u32)
    };
    let mut regs = [0; 8];
    let mut segs = [0; 6];
    if wide {
        for (i, r) in regs.iter_mut().enumerate() {
            *r = get(c, tss32::REGS + i as u64 * 4, W::B4)?;
        }
        for (i, s) in segs.iter_mut().enumerate() {
            *s = get(c, tss32::SEGS + i as u64 * 4, W::B2)? as u16;
        }
        Ok(Image {
            cr3: get(c, tss32::CR3, W::B4)?,
            ip: get(c, tss32::EIP, W::B4)?,
            flags: get(c, tss32::EFLAGS, W::B4)?,
            regs,
            segs,
            ldt: get(c, tss32::LDT, W::B2)? as u16,
            trap: get(c, tss32::TRAP, W::B2)? & 1 != 0,
        })
    } else {
        for (i, r) in regs.iter_mut().enumerate() {
            // The upper halves of the 32-bit registers become ones on some, stay on other processors: ones here.
            *r = get(c, tss16::REGS + i as u64 * 2, W::B2)? | 0xffff_0000;
        }
        for (i, s) in segs.iter_mut().enumerate().take(4) {
            *s = get(c, tss16::SEGS + i as u64 * 2, W::B2)? as u16;
        }
        Ok(Image {
            cr3: 0,
            ip: get(c, tss16::IP, W::B2)?,
            flags: get(c, tss16::FLAGS, W::B2)?,
            regs,
            segs,
            ldt: get(c, tss16::LDT, W::B2)? as u16,
            trap: false,
        })
    }
}
/// Writes the dynamic fields of the old TSS.
fn save(c: &mut X86Cpu<'_>, tr: Segment, wide: bool, flags: u64, ip: u64) -> Result<(), Exception> {
    let put = |c: &mut X86Cpu<'_>, at: u64, w: W, v: u64| {
        let la = c.linear(tr.base.wrapping_add(at));
        c.store(w, la, v & w.mask(), Who::Implicit)
    };
    let (ip_at, flags_at, regs, segs, w, n) = if wide {
        (tss32::EIP, tss32::EFLAGS, tss32::REGS, tss32::SEGS, W::B4, 6)
    } else {
        (tss16::IP, tss16::FLAGS, tss16::REGS, tss16::SEGS, W::B2, 4)
    };
    put(c, ip_at, w, ip)?;
    put(c, flags_at, w, flags)?;
    for i in 0..8 {
        put(c, regs + i as u64 * u64::from(w.bytes()), w, c.gpr(i))?;
    }
    for i in 0..n {
        put(c, segs + i as u64 * u64::from(w.bytes()), W::B2, c.state.segs[i].sel.into())?;
    }
    Ok(())
}
/// Loads the new task's registers, then its descriptors with the checks of table 7-1.
fn load(c: &mut X86Cpu<'_>, t: &Image, wide: bool, cause: Cause) -> Result<u64, Exception> {
    let ext = cause.ext();
    let mut flags = u64::from(t.flags);
    if cause.nests() {
        flags |= eflags::NT;
    }
    let mask = eflags::ALL & if wide { u64::MAX } else { 0xffff };
    c.set_eflags(flags, mask);
    if !wide {
        c.set_eflags(0, eflags::VM | eflags::RF);
    }
    for (i, &r) in t.regs.iter().enumerate() {
        c.set_gpr(i, r.into());
    }
    // Selectors are visible at once; until each is checked nothing can be reached through it.
    let vm86 = flags & eflags::VM != 0 && wide;
    for (reg, &sel) in t.segs.iter().enumerate() {
        let s = if vm86 { vm86_segment(sel) } else { null_segment(sel) };
        c.set_segment(reg, s);
    }
    c.state.ldtr = null_segment(t.ldt);
    let cpl = if vm86 { 3 } else { (t.segs[CS] & 3) as u8 };
    c.set_cpl(cpl);
    if !vm86 {
        // Enough of a code segment to fault in.
        let flat = Attr::new().with_kind(11).with_s(true).with_p(true).with_dpl(cpl).with_db(wide).with_g(true);
        c.set_segment(CS, Segment { sel: t.segs[CS], base: 0, limit: 0xffff_ffff, attr: flat.into_bits() });
        c.set_segment(
            SS,
            Segment {
                sel: t.segs[SS],
                base: 0,
                limit: 0xffff_ffff,
                attr: Attr::real(cpl).with_db(wide).with_g(true).into_bits(),
            },
        );
    }
    let ip = u64::from(if wide { t.ip } else { t.ip & 0xffff });
    let done = load_descriptors(c, t, ip, vm86, cpl, ext);
    if done.is_err() {
        // The fault belongs to the new task, before its first instruction.
        c.op.ip = c.state.linear_ip(ip);
        c.op.next_ip = c.op.ip;
    }
    done
}
fn load_descriptors(c: &mut X86Cpu<'_>, t: &Image, ip: u64, vm86: bool, cpl: u8, ext: u32) -> Result<u64, Exception> {
    let ts = if ext == 0 { Exception::ts } else { |e| Exception::ts(e | 1) };
    let ldt = Selector::from_bits(t.ldt);
    if !ldt.is_null() {
        let r = seg::ldt_register(c, ldt, ts).map_err(|e| if e.vector == 11 { ts(ldt.error()) } else { e })?;
        c.state.ldtr = r;
    }
    if !vm86 {
        load_code(c, Selector::from_bits(t.segs[CS]), ts, ext)?;
        let sel = Selector::from_bits(t.segs[SS]);
        let d = seg::check_stack(c, sel, cpl, ts)?;
        seg::mark_accessed(c, sel, d)?;
        c.set_segment(SS, segment(t.segs[SS], d));
        for reg in [ES, DS, FS, GS] {
            let sel = Selector::from_bits(t.segs[reg]);
            if !sel.is_null() {
                let d = seg::check_data(c, sel, cpl, ts)?;
                seg::mark_accessed(c, sel, d)?;
                c.set_segment(reg, segment(t.segs[reg], d));
            }
        }
    }
    if ip > c.state.segs[CS].limit.into() {
        return Err(Exception::gp(ext));
    }
    if t.trap {
        return Err(Exception::db(super::debug::dr6::BT, true));
    }
    Ok(ip)
}
fn load_code(c: &mut X86Cpu<'_>, sel: Selector, ts: fn(u32) -> Exception, ext: u32) -> Result<(), Exception> {
    if sel.is_null() {
        return Err(ts(0));
    }
    let d = seg::descriptor(c, sel)?.ok_or(ts(sel.error()))?;
    let a = d.attr();
    let privilege = if a.conforming() { a.dpl() <= sel.rpl() } else { a.dpl() == sel.rpl() };
    if !a.code() || !privilege {
        return Err(ts(sel.error()));
    }
    if !d.p() {
        return Err(Exception::np(sel.error() | ext));
    }
    seg::mark_accessed(c, sel, d)?;
    c.set_segment(CS, segment(sel.into_bits(), d));
    Ok(())
}
