//! SYSCALL, SYSRET, SYSENTER, SYSEXIT.
use crate::machine::*;
use iced_x86::code_asm::*;
use target_i386::reg::*;

const ENTRY: u64 = CODE + 0x400;

fn machine(intel: bool) -> Machine {
    let mut m = Machine::long_with(cpuid(intel));
    let s = m.cpu.state();
    s.efer |= 1;
    // Kernel CS 8, user base 0x18: 32-bit code, then data, then 64-bit code.
    s.msrs.star = 0x0018_0008 << 32;
    s.msrs.lstar = ENTRY;
    s.msrs.cstar = ENTRY + 0x100;
    s.msrs.fmask = 0x4_7700;
    s.msrs.sysenter_cs = 8;
    s.msrs.sysenter_esp = TSS_STACK0;
    s.msrs.sysenter_eip = ENTRY;
    m
}
#[test]
fn syscall_and_sysret() {
    let mut m = machine(true);
    m.ring3();
    m.set_flags(0x246);
    m.assemble(ENTRY, |a| {
        a.pushfq()?;
        a.pop(rbx)?;
        a.mov(esi, ss)?;
        a.mov(r8, rcx)?;
        a.mov(r9, r11)?;
        a.sysretq()
    });
    m.run(|a| {
        a.syscall()?;
        a.int(0x80)
    });
    assert_eq!(m.vector(), Some(0x80));
    assert_eq!(m.reg(RBX), 0x46, "FMASK cleared IF");
    assert_eq!(m.reg(RSI), 0x10);
    let saved_ip = m.cpu.hot().regs[8];
    let saved_flags = m.cpu.hot().regs[9];
    assert_eq!((saved_ip, saved_flags), (CODE + 2, 0x246));
    let [ip, code, flags, at, stack] = m.frame();
    assert_eq!((ip, code, flags, at, stack), (CODE + 4, CODE3L.into(), 0x246, STACK3, DATA3.into()));
}
#[test]
fn sysret_to_compatibility_mode() {
    let mut m = machine(true);
    m.assemble_bits(32, CODE + 0x200, CODE + 0x200, |a| a.int(0x80));
    m.set_reg(RCX, 0xffff_ffff_0000_0000 | (CODE + 0x200));
    m.set_reg(R11, 0x2);
    m.run(|a| a.sysret());
    let [ip, code] = m.frame();
    assert_eq!((m.vector(), ip, code), (Some(0x80), CODE + 0x202, CODE3.into()));
}
#[test]
fn checks() {
    let mut m = machine(true);
    m.cpu.state().efer &= !1;
    m.faults(6, None, 0, |a| a.syscall());
    m.faults(6, None, 0, |a| a.sysretq());
    let mut m = machine(true);
    m.ring3();
    m.faults(13, Some(0), 0, |a| a.sysretq());
    // Not canonical: on Intel's in ring 0, on AMD's at the target in ring 3.
    for intel in [true, false] {
        let mut m = machine(intel);
        m.set_reg(RCX, 0x8000_0000_0000);
        m.set_reg(R11, 2);
        m.run(|a| a.sysretq());
        let [e, ip, code] = m.frame();
        assert_eq!((m.vector(), e), (Some(13), 0));
        assert_eq!((ip, code), if intel { (CODE, CODE0.into()) } else { (0x8000_0000_0000, CODE3L.into()) });
    }
    // From compatibility mode: #UD on Intel's, CSTAR on AMD's.
    for intel in [true, false] {
        let mut m = machine(intel);
        m.ring3();
        let (hot, s) = m.cpu.parts();
        s.segs[CS] = loaded(CODE3, ring(CODE32, 3));
        s.sync(hot);
        m.assemble_bits(64, ENTRY + 0x100, ENTRY + 0x100, |a| a.hlt());
        m.run(|a| a.syscall());
        if intel { assert_eq!(m.vector(), Some(6)) } else { assert_eq!(m.cpu.pc(), ENTRY + 0x101) }
    }
}
#[test]
fn sysenter_and_sysexit() {
    let mut m = machine(true);
    m.set_gdt(8 + 32, ring(CODE64, 3));
    m.ring3();
    m.set_flags(0x202);
    m.assemble(ENTRY, |a| {
        a.mov(rbx, rsp)?;
        a.mov(rdx, CODE + 0x200)?;
        a.mov(rcx, STACK1)?;
        a.sysexitq()
    });
    m.assemble(CODE + 0x200, |a| a.int(0x80));
    m.run(|a| a.sysenter());
    assert_eq!((m.vector(), m.reg(RBX)), (Some(0x80), TSS_STACK0));
    let [ip, code, flags, at, stack] = m.frame();
    assert_eq!((ip, code, flags, at, stack), (CODE + 0x202, (8 + 32) | 3, 2, STACK1, (8 + 40) | 3));
    let mut m = machine(true);
    m.set_reg(RDX, 0x8000_0000_0000);
    m.faults(13, Some(0), 0, |a| a.sysexitq());
    m.cpu.state().msrs.sysenter_cs = 0;
    m.faults(13, Some(0), 0, |a| a.sysenter());
    let mut m = machine(false);
    m.faults(6, None, 0, |a| a.sysenter());
    // 32-bit.
    let mut m = Machine::protected();
    let s = m.cpu.state();
    s.msrs.sysenter_cs = 8;
    s.msrs.sysenter_esp = TSS_STACK0;
    s.msrs.sysenter_eip = ENTRY;
    m.ring3();
    m.assemble(ENTRY, |a| {
        a.mov(edx, CODE as u32 + 0x200)?;
        a.mov(ecx, STACK1 as u32)?;
        a.sysexit()
    });
    m.assemble(CODE + 0x200, |a| a.int(0x80));
    m.run(|a| a.sysenter());
    let [_, code, _, at, stack] = m.frame();
    assert_eq!((m.vector(), code, at, stack), (Some(0x80), CODE3.into(), STACK1, DATA3.into()));
}
