//! Segment loads and their checks, limits, descriptor-table instructions, LAR, LSL, VERR, VERW, ARPL.
use crate::machine::*;
use iced_x86::code_asm::*;
use target_i386::reg::*;

/// Loads a selector into a segment register in ring `cpl`: the exception and its error code, or nothing.
fn load(cpl: u8, d: u64, sel: u16, ss_: bool) -> Option<(u8, u64)> {
    let mut m = Machine::protected();
    m.set_gdt(FREE, d);
    if cpl == 3 {
        m.ring3();
    }
    m.set_reg(RAX, sel.into());
    m.run(|a| {
        if ss_ {
            a.mov(ss, ax)?
        } else {
            a.mov(es, ax)?
        }
        a.int(0x80)
    });
    match m.vector() {
        Some(0x80) => {
            let s = m.cpu.state();
            if !ss_ {
                assert_eq!(s.segs[ES].sel, sel);
            }
            None
        }
        v => Some((v.expect("a stub"), m.frame::<1>()[0])),
    }
}
#[test]
fn data_segment_checks() {
    let (f, e) = (FREE, u64::from(FREE));
    assert_eq!(load(0, DATA32, f, false), None);
    assert_eq!(load(3, DATA32, f, false), Some((13, e)), "DPL 0 from ring 3");
    assert_eq!(load(0, DATA32, f | 3, false), Some((13, e)), "RPL 3 weakens");
    assert_eq!(load(0, CODE32, f, false), None, "readable code");
    assert_eq!(load(0, CODE32 & !(1 << 41), f, false), Some((13, e)), "execute-only code");
    assert_eq!(load(3, CODE32 | 1 << 42, f | 3, false), None, "conforming readable code");
    assert_eq!(load(0, DATA32 & !(1 << 47), f, false), Some((11, e)), "not present");
    assert_eq!(load(0, descriptor(0, 0x67, 0x89), f, false), Some((13, e)), "a system segment");
    assert_eq!(load(0, DATA32, 0x1000, false), Some((13, 0x1000)), "beyond the GDT");
    assert_eq!(load(0, DATA32, f | 4, false), Some((13, e | 4)), "no LDT");
    assert_eq!(load(0, DATA32, 3, false), None, "null");
}
#[test]
fn stack_segment_checks() {
    let (f, e) = (FREE, u64::from(FREE));
    assert_eq!(load(0, DATA32, f, true), None);
    assert_eq!(load(0, DATA32, f | 1, true), Some((13, e)), "RPL");
    assert_eq!(load(0, ring(DATA32, 3), f, true), Some((13, e)), "DPL");
    assert_eq!(load(0, DATA32 & !(1 << 41), f, true), Some((13, e)), "read-only");
    assert_eq!(load(0, CODE32, f, true), Some((13, e)), "code");
    assert_eq!(load(0, DATA32 & !(1 << 47), f, true), Some((12, e)), "not present");
    assert_eq!(load(0, DATA32, 0, true), Some((13, 0)), "null");
    assert_eq!(load(3, ring(DATA32, 3), f | 3, true), None);
}
#[test]
fn loading_sets_the_accessed_bit() {
    let mut m = Machine::protected();
    m.set_gdt(FREE, DATA32 & !(1 << 40));
    m.set_reg(RAX, FREE.into());
    m.run(|a| {
        a.mov(es, ax)?;
        a.hlt()
    });
    assert_eq!(m.get64(GDT + u64::from(FREE)), DATA32);
}
#[test]
fn local_descriptor_table() {
    let mut m = Machine::protected();
    m.set_gdt(FREE, descriptor(LDT, 0xf, 0x82));
    m.put64(LDT + 8, descriptor(0x3_0000, 0xff, 0x92));
    m.put32(0x3_0010, 0x1234_5678);
    m.set_reg(RAX, FREE.into());
    m.run(|a| {
        a.lldt(ax)?;
        a.sldt(ebx)?;
        a.mov(eax, 0xc)?;
        a.mov(fs, ax)?;
        a.mov(eax, dword_ptr(0x10).fs())?;
        a.hlt()
    });
    assert_eq!((m.reg(RAX), m.reg(RBX)), (0x1234_5678, FREE.into()));
    // Beyond its limit.
    m.faults(13, Some(0x14), 5, |a| {
        a.mov(eax, 0x14)?;
        a.mov(gs, ax)
    });
    // LLDT of something else, of an absent one, from the LDT itself.
    for (d, vector) in [(DATA32, 13), (descriptor(LDT, 0xf, 0x02), 11)] {
        let mut m = Machine::protected();
        m.set_gdt(FREE, d);
        m.set_reg(RAX, FREE.into());
        m.faults(vector, Some(FREE.into()), 0, |a| a.lldt(ax));
    }
}
#[test]
fn limits() {
    let mut m = Machine::protected();
    m.set_gdt(FREE, descriptor(0x3_0000, 0xff, 0x92));
    m.set_gdt(FREE + 8, descriptor(0x3_0000, 0xff, 0x96));
    m.set_reg(RAX, FREE.into());
    m.set_reg(RCX, u64::from(FREE) + 8);
    m.put32(0x3_00fc, 77);
    m.run(|a| {
        a.mov(fs, ax)?;
        a.mov(gs, cx)?;
        a.mov(ebx, dword_ptr(0xfc).fs())?;
        a.mov(dword_ptr(0x100).gs(), ebx)?;
        a.hlt()
    });
    assert_eq!((m.reg(RBX), m.get32(0x3_0100)), (77, 77));
    m.faults(13, Some(0), 0, |a| a.mov(ebx, dword_ptr(0xfd).fs()));
    m.faults(13, Some(0), 0, |a| a.mov(ebx, dword_ptr(0xfc).gs()));
    m.faults(13, Some(0), 0, |a| a.mov(bl, byte_ptr(0x1_0000).gs()));
    // A read-only segment, and the stack segment's own exception.
    let mut m = Machine::protected();
    m.set_gdt(FREE, descriptor(0, 0xf_ffff, 0x90));
    m.set_reg(RAX, FREE.into());
    m.faults(13, Some(0), 3, |a| {
        a.mov(fs, ax)?;
        a.mov(dword_ptr(0x3_0000).fs(), eax)
    });
    let mut m = Machine::protected();
    m.set_gdt(FREE, descriptor(0, 0x5_ffff, 0x92) | 1 << 54);
    m.set_reg(RAX, FREE.into());
    m.set_reg(RBX, 0x5_fffe);
    m.run(|a| {
        a.mov(ss, ax)?;
        a.mov(esp, 0x5_8000)?;
        a.mov(eax, dword_ptr(ebx).ss())?;
        a.hlt()
    });
    assert_eq!((m.vector(), m.frame()), (Some(12), [0, CODE + 8]));
    // A null segment.
    let mut m = Machine::protected();
    m.set_reg(RAX, 0);
    m.faults(13, Some(0), 3, |a| {
        a.mov(ds, ax)?;
        a.mov(eax, dword_ptr(ebx))
    });
}
#[test]
fn lar_lsl_verr_verw() {
    let cases = [
        // descriptor, selector bits, ring, LAR, LSL, VERR, VERW
        (ring(DATA32, 3), 3, 3, Some(0xcf_f300 & 0xf0_ff00), Some(0xffff_ffff), true, true),
        (DATA32, 0, 3, None, None, false, false),
        (DATA32 & !(1 << 41), 0, 0, Some(0xc0_9100), Some(0xffff_ffff), true, false),
        (CODE32 & !(1 << 41) | 1 << 42, 3, 3, Some(0xc0_9d00), Some(0xffff_ffff), false, false),
        (CODE32 | 1 << 42, 3, 3, Some(0xc0_9f00), Some(0xffff_ffff), true, false),
        (descriptor(0, 0x67, 0x89), 0, 0, Some(0x8900), Some(0x67), false, false),
        (descriptor(0, 0x67, 0x82), 0, 0, Some(0x8200), Some(0x67), false, false),
        (gate(CODE0, 0, 0x8c), 0, 0, Some(0x8c00), None, false, false),
        (gate(CODE0, 0, 0x8e), 0, 0, None, None, false, false),
    ];
    for (d, bits, cpl, lar, lsl, verr, verw) in cases {
        let mut m = Machine::protected();
        m.set_gdt(FREE, d);
        if cpl == 3 {
            m.ring3();
        }
        m.set_reg(RAX, u64::from(FREE | bits));
        m.set_reg(RBX, 0x5555);
        m.set_reg(RCX, 0x5555);
        m.run(|a| {
            a.lar(ebx, eax)?;
            a.setz(dl)?;
            a.lsl(ecx, eax)?;
            a.setz(dh)?;
            a.verr(ax)?;
            a.mov(esi, 0)?;
            a.lahf()?;
            a.mov(byte_ptr(0x9000), ah)?;
            a.mov(eax, u32::from(FREE | bits))?;
            a.verw(ax)?;
            a.lahf()?;
            a.mov(byte_ptr(0x9001), ah)?;
            a.int(0x80)
        });
        assert_eq!(m.vector(), Some(0x80));
        let zf = |m: &Machine, at| m.get8(at) & 0x40 != 0;
        assert_eq!(m.reg(RDX) & 1 != 0, lar.is_some(), "{d:#x}");
        assert_eq!(m.reg(RBX), lar.unwrap_or(0x5555), "{d:#x}");
        assert_eq!(m.reg(RDX) >> 8 & 1 != 0, lsl.is_some(), "{d:#x}");
        assert_eq!(m.reg(RCX), lsl.unwrap_or(0x5555), "{d:#x}");
        assert_eq!((zf(&m, 0x9000), zf(&m, 0x9001)), (verr, verw), "{d:#x}");
    }
}
#[test]
fn arpl_and_table_registers() {
    let mut m = Machine::protected();
    m.set_reg(RAX, 0x10);
    m.set_reg(RBX, 3);
    m.run(|a| {
        a.arpl(ax, bx)?;
        a.setz(cl)?;
        a.sgdt(ptr(0x9000))?;
        a.sidt(ptr(0x9010))?;
        a.str(edx)?;
        a.hlt()
    });
    assert_eq!((m.reg(RAX), m.reg(RCX) & 1, m.reg(RDX)), (0x13, 1, TR.into()));
    assert_eq!((m.get16(0x9000), m.get32(0x9002)), (0x7ff, GDT as u32));
    assert_eq!((m.get16(0x9010), m.get32(0x9012)), (0xfff, IDT as u32));
    let mut m = Machine::long();
    m.put16(0x9000, 0x123);
    m.put64(0x9002, 0xffff_8000_1234_5678);
    m.run(|a| {
        a.lidt(ptr(0x9000))?;
        a.sidt(ptr(0x9010))?;
        a.hlt()
    });
    assert_eq!((m.get16(0x9010), m.get64(0x9012)), (0x123, 0xffff_8000_1234_5678));
    let mut m = Machine::long();
    m.put64(0x9002, 0x8000_1234_5678);
    m.faults(13, Some(0), 0, |a| a.lgdt(ptr(0x9000)));
}
#[test]
fn ltr_marks_the_tss_busy() {
    let mut m = Machine::protected();
    m.set_gdt(FREE, descriptor(TSS, 0x67, 0x89));
    m.set_reg(RAX, FREE.into());
    m.run(|a| {
        a.ltr(ax)?;
        a.hlt()
    });
    assert_eq!(m.get8(GDT + u64::from(FREE) + 5), 0x8b);
    assert_eq!(m.cpu.state().tr.sel, FREE);
    m.faults(13, Some(FREE.into()), 5, |a| {
        a.mov(eax, u32::from(FREE))?;
        a.ltr(ax)
    });
    // In long mode it is sixteen bytes.
    let mut m = Machine::long();
    m.set_gdt(FREE, descriptor(TSS, 0x67, 0x89));
    m.set_gdt(FREE + 8, 0xffff_8000);
    m.set_reg(RAX, FREE.into());
    m.run(|a| {
        a.ltr(ax)?;
        a.hlt()
    });
    assert_eq!(m.cpu.state().tr.base, 0xffff_8000_0000_0000 | TSS);
}
#[test]
fn null_stack_in_long_mode() {
    let mut m = Machine::long();
    m.set_reg(RAX, 0);
    m.run(|a| {
        a.mov(ss, ax)?;
        a.push(rax)?;
        a.hlt()
    });
    assert_eq!(m.reg(RSP), STACK0 - 8);
    m.set_reg(RAX, 3);
    m.faults(13, Some(0), 0, |a| a.mov(ss, ax));
}
#[test]
fn far_pointer_loads_and_segment_stack_ops() {
    let mut m = Machine::protected();
    m.put32(0x9000, 0x1122_3344);
    m.put16(0x9004, DATA3);
    m.run(|a| {
        a.les(edi, ptr(0x9000))?;
        a.push(es)?;
        a.pop(fs)?;
        a.mov(eax, fs)?;
        a.hlt()
    });
    assert_eq!((m.reg(RDI), m.reg(RAX)), (0x1122_3344, DATA3.into()));
    assert_eq!(m.reg(RSP), STACK0);
    // A failing POP leaves ESP.
    m.faults(13, Some(0x1000), 5, |a| {
        a.push(0x1000)?;
        a.pop(fs)
    });
    assert_eq!(m.reg(RSP), STACK0 - 4 - 16);
}
#[test]
fn fs_and_gs_bases_in_long_mode() {
    let mut m = Machine::long();
    m.put64(0x9_0010, 0x55);
    m.cpu.state().msrs.kernel_gs_base = 0x9_0000;
    m.run(|a| {
        a.swapgs()?;
        a.mov(rax, qword_ptr(0x10).gs())?;
        a.swapgs()?;
        a.hlt()
    });
    assert_eq!(m.reg(RAX), 0x55);
    assert_eq!(m.cpu.state().msrs.kernel_gs_base, 0x9_0000);
    // WRMSR of FS_BASE, with a canonical address only.
    m.run(|a| {
        a.mov(ecx, 0xc000_0100u32)?;
        a.mov(eax, 0x9_0000)?;
        a.xor(edx, edx)?;
        a.wrmsr()?;
        a.mov(rbx, qword_ptr(0x10).fs())?;
        a.hlt()
    });
    assert_eq!(m.reg(RBX), 0x55);
    m.faults(13, Some(0), 10, |a| {
        a.mov(ecx, 0xc000_0100u32)?;
        a.mov(edx, 0x8000)?;
        a.wrmsr()
    });
}
