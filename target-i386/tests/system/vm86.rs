//! Virtual-8086 mode: entry and exit, IOPL-sensitive instructions, VME, the redirection bitmap, PVI.
use crate::machine::*;
use accel::tcg::W;
use iced_x86::code_asm::*;
use target_i386::reg::*;

const VM: u64 = 1 << 17;
const IF: u64 = 1 << 9;
const VIF: u64 = 1 << 19;
const VIP: u64 = 1 << 20;
const IOPL3: u64 = 3 << 12;
/// Where the 8086 program lies, and its segment.
const SEG: u16 = 0x2000;

/// Enters the program by IRET with these flags.
fn enter(flags: u64, vme: bool, f: impl FnOnce(&mut CodeAssembler) -> Result<(), iced_x86::IcedError>) -> Machine {
    let mut m = Machine::protected();
    if vme {
        m.cpu.state().cr4 |= 1;
    }
    prepare(&mut m);
    start(&mut m, flags, f);
    m
}
/// A TSS with an interrupt redirection bitmap (all clear) below an I/O map of no ports.
fn prepare(m: &mut Machine) {
    m.cpu.state().tr.limit = 0x67 + 33;
    m.put16(TSS + 0x66, 0x68 + 32);
    m.put(TSS + 0x68 + 32, &[0xff]);
    // Vector 0x21 of the 8086 program: 2000:0800.
    m.put32(0x21 * 4, (u32::from(SEG) << 16) | 0x800);
    m.assemble_bits(16, (u64::from(SEG) << 4) + 0x800, 0x800, |a| a.hlt());
}
fn start(m: &mut Machine, flags: u64, f: impl FnOnce(&mut CodeAssembler) -> Result<(), iced_x86::IcedError>) {
    m.assemble_bits(16, u64::from(SEG) << 4, 0, f);
    let at = STACK0 - 0x40;
    m.set_reg(RSP, at);
    let frame = [0, SEG.into(), (flags | VM | 2) as u32, 0xff00, 0x1000, 0x1111, 0x2222, 0x3333, 0x4444];
    for (i, v) in frame.into_iter().enumerate() {
        m.put32(at + i as u64 * 4, v);
    }
    // (At 0x30000: the program's segment is CODE's.)
    m.assemble_bits(32, 0x3_0000, 0x3_0000, |a| a.iretd());
    m.go(0x3_0000);
}
#[test]
fn entry_and_exit() {
    let mut m = enter(IOPL3, false, |a| {
        a.mov(ax, cs)?;
        a.mov(bx, ds)?;
        a.int(0x80)
    });
    assert_eq!(m.vector(), Some(0x80));
    assert_eq!([RAX, RBX].map(|r| m.reg(r) & 0xffff), [SEG.into(), 0x2222]);
    let frame: [u64; 9] = m.frame();
    assert_eq!(frame, [6, SEG.into(), VM | IOPL3 | 2, 0xff00, 0x1000, 0x1111, 0x2222, 0x3333, 0x4444]);
    let s = m.cpu.state();
    assert_eq!((s.cpl, s.vm86(), s.segs[ES].sel, s.segs[GS].sel), (0, false, 0, 0));
}
#[test]
fn exceptions_from_vm86_go_to_ring_0_only() {
    let mut m = enter(IOPL3, false, |a| a.ud2());
    assert_eq!((m.vector(), m.frame::<2>()), (Some(6), [0, SEG.into()]));
    // A ring-1 handler is #GP of its selector.
    let mut m = Machine::protected();
    prepare(&mut m);
    m.set_gdt(FREE, ring(CODE32, 1));
    m.gate(0x80, FREE | 1, STUBS + 0x800, 0xee);
    start(&mut m, IOPL3, |a| a.int(0x80));
    assert_eq!((m.vector(), m.frame()), (Some(13), [FREE.into(), 0]));
}
#[test]
fn without_iopl_3_everything_faults() {
    let pieces: &[Piece] = &[
        |a| a.pushf(),
        |a| a.popf(),
        |a| a.cli(),
        |a| a.sti(),
        |a| a.int(0x21),
        |a| a.iret(),
        |a| a.hlt(),
        |a| a.in_(al, 0x10),
        |a| a.lmsw(ax),
    ];
    for &f in pieces {
        let mut m = enter(0, false, f);
        assert_eq!((m.vector(), m.frame()), (Some(13), [0, 0]));
    }
    let pieces: &[Piece] = &[|a| a.sldt(ax), |a| a.lar(ax, bx), |a| a.verr(ax), |a| a.lldt(ax)];
    for &f in pieces {
        assert_eq!(enter(IOPL3, false, f).vector(), Some(6));
    }
}
#[test]
fn with_iopl_3_it_is_its_own_master() {
    let mut m = enter(IOPL3 | IF, false, |a| {
        a.pushf()?;
        a.cli()?;
        a.pushf()?;
        a.popf()?;
        a.pop(ax)?;
        a.sti()?;
        a.nop()?;
        a.int(0x80)
    });
    assert_eq!(m.reg(RAX) & 0xffff, 0x3202);
    assert_eq!(m.frame::<3>()[2], VM | IOPL3 | IF | 2);
}
#[test]
fn vme_virtualises_if() {
    let mut m = enter(VIF, true, |a| {
        a.pushf()?;
        a.pop(ax)?;
        a.cli()?;
        a.pushf()?;
        a.pop(bx)?;
        a.sti()?;
        a.pushf()?;
        a.popf()?;
        a.push(0x0000)?;
        a.popf()?;
        a.int3()
    });
    assert_eq!(m.vector(), Some(13), "INT3 is not redirected: gate DPL");
    assert_eq!([RAX, RBX].map(|r| m.reg(r) & 0xf202), [0x3202, 0x3002], "IOPL reads as 3, IF as VIF");
    assert_eq!(m.stack(W::B4, 3) & (VIF | IF), 0, "POPF cleared VIF");
    // STI with VIP pending, POPF of IF with VIP pending, POPF of TF.
    let mut m = enter(VIP, true, |a| a.sti());
    assert_eq!((m.vector(), m.frame()), (Some(13), [0, 0]));
    let mut m = enter(VIP, true, |a| {
        a.push(0x200)?;
        a.popf()
    });
    assert_eq!((m.vector(), m.frame()), (Some(13), [0, 3]));
    let mut m = enter(0, true, |a| {
        a.push(0x100)?;
        a.popf()
    });
    assert_eq!((m.vector(), m.frame()), (Some(13), [0, 3]));
    // 32-bit forms still fault.
    let mut m = enter(0, true, |a| a.pushfd());
    assert_eq!((m.vector(), m.frame()), (Some(13), [0, 0]));
}
#[test]
fn vme_redirects_int_n() {
    // Bit clear: to the program's own vector table, in 8086 style. Its HLT then faults, which tells where it is.
    let mut m = enter(VIF, true, |a| a.int(0x21));
    let [e, ip, code, flags, at] = m.frame();
    assert_eq!((m.vector(), e, ip, code, at), (Some(13), 0, 0x800, SEG.into(), 0xff00 - 6));
    assert_eq!(flags & (VIF | IF), 0);
    assert_eq!(m.get16(0x1_0000 + 0xff00 - 2), 0x3202, "the image shows VIF as IF and IOPL 3");
    assert_eq!(m.get16(0x1_0000 + 0xff00 - 6), 2);
    // Bit set and IOPL < 3: #GP(0). Bit set and IOPL 3: the protected-mode handler.
    for iopl in [0, IOPL3] {
        let mut m = Machine::protected();
        m.cpu.state().cr4 |= 1;
        prepare(&mut m);
        m.put(TSS + 0x68 + 0x80 / 8, &[1]);
        start(&mut m, iopl, |a| a.int(0x80));
        assert_eq!(m.vector(), Some(if iopl == 0 { 13 } else { 0x80 }));
    }
}
#[test]
fn vme_iret() {
    let mut m = Machine::protected();
    m.cpu.state().cr4 |= 1;
    prepare(&mut m);
    m.assemble_bits(16, (u64::from(SEG) << 4) + 0x40, 0x40, |a| a.hlt());
    start(&mut m, 0, |a| {
        a.push(0x202)?;
        a.push(i32::from(SEG as i16))?;
        a.push(0x40)?;
        a.iret()
    });
    let [_, ip, _, flags] = m.frame();
    assert_eq!((ip, flags & (VIF | IF)), (0x40, VIF));
}
#[test]
fn pvi_in_ring_3() {
    let mut m = Machine::protected();
    m.ring3();
    m.cpu.state().cr4 |= 2;
    m.run(|a| {
        a.sti()?;
        a.int(0x80)
    });
    assert_eq!((m.vector(), m.frame::<3>()[2] & (VIF | IF)), (Some(0x80), VIF));
    m.ring3();
    m.set_flags(2 | VIF);
    m.run(|a| {
        a.cli()?;
        a.int(0x80)
    });
    assert_eq!(m.frame::<3>()[2] & (VIF | IF), 0);
    m.ring3();
    m.set_flags(2 | VIP);
    m.faults(13, Some(0), 0, |a| a.sti());
}
