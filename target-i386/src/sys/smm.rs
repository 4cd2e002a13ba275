//! System management mode: entry on SMI, RSM. Source: Intel SDM vol. 3C chapter 31; AMD64 APM vol. 2 chapter 10.
//! The save map is the 64-bit one on CPUs with long mode, else the 32-bit one (`smram.rs`). Not modelled: I/O instruction
//! restart and I/O trap information (bit 16 of the revision identifier is clear, so software must not use them).
use super::log;
use super::msr::efer;
use super::prelude::*;
use super::smram::{self, Area, Saved, SavedSegment};

fn saved(s: Segment) -> SavedSegment {
    SavedSegment { selector: s.sel, attr: s.attr, limit: s.limit, base: s.base }
}
fn restored(s: SavedSegment) -> Segment {
    Segment { sel: s.selector, base: s.base, limit: s.limit, attr: s.attr & 0xf0ff }
}
fn load_area(c: &mut X86Cpu<'_>, smbase: u32) -> Area {
    let mut a = [0; smram::SIZE];
    let pa = u64::from(smbase) + smram::OFFSET;
    for (i, b) in a.chunks_exact_mut(4).enumerate() {
        let v = c.phys_load(W::B4, (pa + i as u64 * 4) & c.state.a20_mask) as u32;
        b.copy_from_slice(&v.to_le_bytes());
    }
    a
}
fn store_area(c: &mut X86Cpu<'_>, smbase: u32, a: &Area) {
    let pa = u64::from(smbase) + smram::OFFSET;
    for (i, b) in a.chunks_exact(4).enumerate() {
        let v = b.iter().rev().fold(0, |v, &b| v << 8 | u64::from(b));
        c.phys_store(W::B4, (pa + i as u64 * 4) & c.state.a20_mask, v);
    }
}

/// Enters SMM before the instruction at `cpu.op.ip`. INIT, SMI and NMI are held until RSM.
pub fn enter(c: &mut X86Cpu<'_>) -> Rare {
    log::smm(c, "enter");
    let s = &*c.state;
    let image = Saved {
        regs: std::array::from_fn(|i| c.gpr(i)),
        rip: c.ip(),
        rflags: c.eflags(),
        cr0: s.cr0,
        cr3: s.cr3,
        cr4: s.cr4,
        efer: s.efer,
        dr6: s.dr[6],
        dr7: s.dr[7],
        segs: s.segs.map(saved),
        ldtr: saved(s.ldtr),
        tr: saved(s.tr),
        gdt_base: s.gdtr.base,
        gdt_limit: s.gdtr.limit.into(),
        idt_base: s.idtr.base,
        idt_limit: s.idtr.limit.into(),
        smbase: s.smbase as u32,
        auto_halt: s.halted,
    };
    let smbase = c.state.smbase as u32;
    c.state.smm = true;
    c.state.smm_nmi_masked = c.state.nmi_masked;
    c.state.nmi_masked = true;
    c.state.halted = false;
    c.state.shadow = Shadow::No;
    c.state.msrs.smi_count += 1;
    c.set_view(1);
    let mut area = load_area(c, smbase);
    if c.state.cpuid.features.lm {
        image.write64(&mut area)
    } else {
        image.write32(&mut area)
    }
    store_area(c, smbase, &area);

    // SDM vol. 3C table 31-3.
    c.set_eflags(0, eflags::ALL);
    c.state.efer = 0;
    c.state.cr0 &= !(cr0::PE | cr0::EM | cr0::TS | cr0::PG);
    c.state.cr4 = 0;
    c.state.dr[7] = 0x400;
    c.set_cpl(0);
    let flat =
        |sel: u16, base: u64| Segment { sel, base, limit: 0xffff_ffff, attr: Attr::real(0).with_g(true).into_bits() };
    for reg in [ES, SS, DS, FS, GS] {
        c.set_segment(reg, flat(0, 0));
    }
    c.set_segment(CS, flat((smbase >> 4) as u16, smbase.into()));
    c.jump(0x8000)
}

/// RSM. An impossible state in the save area is a shutdown.
pub fn rsm(c: &mut X86Cpu<'_>) -> Outcome {
    if !c.state.smm {
        return Err(Exception::ud());
    }
    let smbase = c.state.smbase as u32;
    let mut area = load_area(c, smbase);
    let lm = c.state.cpuid.features.lm;
    let r = if lm { Saved::read64(&mut area) } else { Saved::read32(&mut area) };
    let bad_cr0 = r.cr0 >> 32 != 0 || r.cr0 & (cr0::PG | cr0::PE) == cr0::PG || r.cr0 & (cr0::NW | cr0::CD) == cr0::NW;
    let long = r.efer & efer::LMA != 0;
    if bad_cr0
        || r.cr4 & !c.state.cpuid.features.cr4_allowed != 0
        || long && (r.cr4 & cr4::PAE == 0 || r.cr0 & cr0::PG == 0)
    {
        tracing::debug!(target: "guest_errors", cr0 = r.cr0, cr4 = r.cr4, efer = r.efer, "RSM to an impossible state");
        return Ok(Rare::Exit(c.op.ip, EXIT_SHUTDOWN));
    }
    for (i, &v) in r.regs.iter().enumerate().take(if lm { 16 } else { 8 }) {
        c.set_gpr(i, v);
    }
    c.state.cr0 = r.cr0 & cr0::ALL | cr0::ET;
    c.state.cr4 = r.cr4;
    c.state.cr3 = r.cr3;
    c.state.efer = r.efer & (c.state.cpuid.features.efer_allowed | efer::LMA);
    c.state.dr[6] = r.dr6 & super::debug::dr6::HELD | super::debug::dr6::FIXED;
    c.state.dr[7] = r.dr7 & super::debug::dr7::HELD | super::debug::dr7::FIXED;
    c.state.gdtr = TableReg { base: r.gdt_base, limit: r.gdt_limit as u16 };
    c.state.idtr = TableReg { base: r.idt_base, limit: r.idt_limit as u16 };
    c.state.ldtr = restored(r.ldtr);
    c.state.tr = restored(r.tr);
    c.set_eflags(r.rflags, eflags::ALL);
    for (reg, &s) in r.segs.iter().enumerate() {
        c.set_segment(reg, restored(s));
    }
    let cpl = if r.cr0 & cr0::PE == 0 {
        0
    } else if r.rflags & eflags::VM != 0 {
        3
    } else {
        c.state.segs[SS].a().dpl()
    };
    c.set_cpl(cpl);
    // A handler may move the save area for the next SMI.
    c.state.smbase = r.smbase.into();
    c.state.smm = false;
    c.state.nmi_masked = c.state.smm_nmi_masked;
    c.set_view(0);
    super::cr::reload_pdptes(c);
    log::smm(c, "after RSM");
    // Events that were held are looked at now.
    c.ask_service();
    if r.auto_halt {
        c.state.halted = true;
        c.state.sync(c.hot);
        return Ok(Rare::Halt(c.state.linear_ip(r.rip)));
    }
    Ok(c.jump(r.rip))
}
