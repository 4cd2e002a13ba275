//! SMI and RSM on both save maps.
use crate::machine::*;
use accel::tcg::Exit;
use iced_x86::code_asm::*;
use target_i386::{
    EXIT_SHUTDOWN,
    reg::*,
    state::signal,
    sys::cpuid::{ANY, CpuidTable},
};

const SMBASE: u64 = 0xa_0000;
const HANDLER: u64 = SMBASE + 0x8000;
const SAVE: u64 = SMBASE + 0x8000;

fn smi(m: &mut Machine) {
    m.cpu.state().smbase = SMBASE;
    m.cpu.state().signals.set(signal::SMI);
    m.cpu.kick().service();
}
#[test]
fn entry_state_and_rsm_from_long_mode() {
    let mut m = Machine::long();
    m.set_reg(RBX, 0x1122_3344_5566_7788);
    m.set_flags(0x246);
    smi(&mut m);
    m.assemble_bits(16, HANDLER, 0x8000, |a| {
        a.mov(eax, cr0)?;
        a.mov(ebx, eax)?;
        a.rsm()
    });
    // One instruction of the handler.
    m.assemble(CODE, |a| {
        a.mov(rcx, rbx)?;
        a.hlt()
    });
    m.cpu.set_pc(CODE);
    m.cpu.run(1);
    let s = m.cpu.state();
    assert_eq!((s.smm, s.efer, s.cr4, s.cpl, s.cr0 & 0x8000_000d), (true, 0, 0, 0, 0));
    assert_eq!((s.segs[CS].sel, s.segs[CS].base, s.segs[DS].limit, s.code_bits()), (0xa000, SMBASE, u32::MAX, 16));
    assert_eq!((m.get64(SAVE + 0x7f78), m.get64(SAVE + 0x7fe0)), (CODE, 0x1122_3344_5566_7788));
    assert_eq!((m.get32(SAVE + 0x7efc), m.get32(SAVE + 0x7f00)), (0x20064, SMBASE as u32));
    assert_eq!((m.get64(SAVE + 0x7ed0) & LMA, m.get16(SAVE + 0x7e10)), (LMA, CODE0));
    assert_eq!(m.resume(), Exit::Halted);
    let s = m.cpu.state();
    assert_eq!((s.smm, s.code64(), s.efer & LMA), (false, true, LMA));
    assert_eq!((m.reg(RCX), m.cpu.pc()), (0x1122_3344_5566_7788, CODE + 4));
    assert_eq!(m.flags(), 0x246);
}
#[test]
fn relocation_and_changed_registers() {
    let mut m = Machine::protected();
    smi(&mut m);
    m.assemble_bits(16, HANDLER, 0x8000, |a| {
        // SMBASE and RIP in the save area, through a flat DS.
        a.mov(dword_ptr(esi), 0xb_0000)?;
        a.mov(dword_ptr(edi), CODE as u32 + 0x100)?;
        a.rsm()
    });
    m.set_reg(RSI, SAVE + 0x7f00);
    m.set_reg(RDI, SAVE + 0x7f78);
    m.assemble(CODE + 0x100, |a| a.hlt());
    m.run(|a| a.ud2());
    assert_eq!(m.cpu.pc(), CODE + 0x101);
    let s = m.cpu.state();
    assert_eq!((s.smbase, s.smm, s.msrs.smi_count), (0xb_0000, false, 1));
}
#[test]
fn the_32_bit_map_without_long_mode() {
    let table =
        CpuidTable::new([(0, ANY, [1, 0x756e_6547, 0x6c65_746e, 0x4965_6e69]), (1, ANY, [0x633, 0, 0, 0x0781_abfd])]);
    let mut m = Machine::with(table);
    let (hot, s) = m.cpu.parts();
    s.segs[CS] = target_i386::state::Segment { sel: 0, base: 0, ..s.segs[CS] };
    s.sync(hot);
    m.set_reg(RAX, 0x1234_5678);
    smi(&mut m);
    m.assemble_bits(16, HANDLER, 0x8000, |a| a.rsm());
    m.assemble_bits(16, 0x5000, 0x5000, |a| a.hlt());
    m.go(0x5000);
    assert_eq!((m.get32(SAVE + 0x7efc), m.get32(SAVE + 0x7ef8)), (0x20000, SMBASE as u32));
    assert_eq!((m.get32(SAVE + 0x7fd0), m.get32(SAVE + 0x7ff0)), (0x1234_5678, 0x5000));
    assert_eq!((m.cpu.pc(), m.reg(RAX)), (0x5001, 0x1234_5678));
}
#[test]
fn smi_in_hlt_goes_back_to_it() {
    let mut m = Machine::protected();
    m.run(|a| {
        a.hlt()?;
        a.mov(eax, 1)?;
        a.hlt()
    });
    smi(&mut m);
    m.assemble_bits(16, HANDLER, 0x8000, |a| a.rsm());
    assert_eq!(m.resume(), Exit::Halted);
    assert_eq!((m.cpu.pc(), m.reg(RAX)), (CODE + 1, 0), "halted again");
    // A handler that clears the restart flag lets it go on.
    smi(&mut m);
    m.set_reg(RSI, SAVE + 0x7ec9);
    m.assemble_bits(16, HANDLER, 0x8000, |a| {
        a.mov(byte_ptr(esi), 0)?;
        a.rsm()
    });
    m.cpu.flush();
    m.resume();
    assert_eq!(m.reg(RAX), 1);
}
#[test]
fn rsm_outside_and_bad_state() {
    let mut m = Machine::protected();
    m.faults(6, None, 0, |a| a.rsm());
    let mut m = Machine::protected();
    smi(&mut m);
    m.set_reg(RSI, SAVE + 0x7f58);
    m.assemble_bits(16, HANDLER, 0x8000, |a| {
        a.mov(dword_ptr(esi), 0x8000_0010u32)?;
        a.rsm()
    });
    assert_eq!(m.run(|a| a.nop()), Exit::Target(EXIT_SHUTDOWN));
}
#[test]
fn smm_holds_smi_nmi_and_init() {
    let mut m = Machine::protected();
    smi(&mut m);
    m.assemble_bits(16, HANDLER, 0x8000, |a| {
        a.inc(dword_ptr(esi))?;
        a.rsm()
    });
    m.set_reg(RSI, 0x9000);
    m.assemble(CODE, |a| a.hlt());
    m.cpu.set_pc(CODE);
    m.cpu.run(1);
    assert!(m.cpu.state().smm);
    m.cpu.state().signals.set(signal::SMI | signal::NMI);
    m.cpu.kick().service();
    m.resume();
    assert_eq!(m.get32(0x9000), 2, "the second SMI after the first RSM");
    assert_eq!(m.vector(), Some(2), "then the NMI");
}
