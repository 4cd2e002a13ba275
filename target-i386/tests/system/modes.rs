//! Mode switches made by guest code: real to protected to long and back; reset state.
use crate::machine::*;
use accel::tcg::{Exit, W};
use iced_x86::code_asm::*;
use target_i386::{reg::*, state::attr, sys::events};

#[test]
fn power_on() {
    let mut m = Machine::new();
    let (hot, s) = m.cpu.parts();
    hot.regs[3] = 77;
    s.cr3 = 0x1000;
    events::power_on(s, hot, true);
    assert_eq!((hot.regs[3], hot.regs[2]), (0, 0x60fb1), "EDX has the signature");
    assert_eq!((s.cr0, s.cr3, s.segs[CS].sel, s.segs[CS].base), (0x6000_0010, 0, 0xf000, 0xffff_0000));
    assert_eq!(s.linear_ip(0xfff0), 0xffff_fff0);
    assert_eq!(s.code_bits(), 16);
}
#[test]
fn real_mode_segments() {
    let mut m = Machine::real();
    m.put16(0x1_2345, 0xbeef);
    m.assemble_bits(16, 0x5000, 0x5000, |a| {
        a.mov(ax, 0x1234)?;
        a.mov(ds, ax)?;
        a.mov(bx, word_ptr(5))?;
        a.mov(di, 0xffff)?;
        a.mov(al, byte_ptr(di))?;
        a.mov(ax, word_ptr(di))
    });
    m.go(0x5000);
    assert_eq!(m.reg(RBX), 0xbeef);
    assert_eq!(m.vector(), Some(13), "a word at FFFF is beyond the limit");
    assert_eq!(m.stack(W::B2, 0), 0x500e);
}
#[test]
fn far_jumps_and_calls_in_real_mode() {
    let mut m = Machine::real();
    m.assemble_bits(16, 0x5000, 0x5000, |a| {
        a.db(&[0x9a, 0x10, 0x00, 0x00, 0x03])?; // call 0300:0010
        a.mov(ax, cs)?;
        a.hlt()
    });
    m.assemble_bits(16, 0x3010, 0x10, |a| {
        a.mov(bx, cs)?;
        a.retf()
    });
    m.go(0x5000);
    assert_eq!((m.reg(RAX), m.reg(RBX), m.reg(RSP)), (0, 0x300, 0x7000));
    assert_eq!(m.cpu.pc(), 0x5008);
}
#[test]
fn big_real_mode() {
    // Limits loaded in protected mode stay after the return to real mode.
    let mut m = Machine::real();
    m.set_gdt(8, 0x008f_9200_0000_ffff);
    m.put16(0x900, 0xf);
    m.put32(0x902, GDT as u32);
    m.put32(0x30_0000, 0x1234_5678);
    m.assemble_bits(16, 0x5000, 0x5000, |a| {
        a.lgdt(ptr(0x900))?;
        a.mov(eax, cr0)?;
        a.or(al, 1)?;
        a.mov(cr0, eax)?;
        a.mov(bx, 8)?;
        a.mov(fs, bx)?;
        a.and(al, 0xfeu32 as i32)?;
        a.mov(cr0, eax)?;
        a.xor(bx, bx)?;
        a.mov(fs, bx)?;
        a.mov(esi, 0x30_0000)?;
        a.mov(ecx, dword_ptr(esi).fs())?;
        a.mov(ecx, dword_ptr(esi))
    });
    m.go(0x5000);
    assert_eq!(m.reg(RCX), 0x1234_5678);
    assert_eq!(m.vector(), Some(13), "DS still has its 64 KiB");
}
#[test]
fn real_to_protected_to_long_and_back() {
    let mut m = Machine::real();
    for (sel, d) in [(8, CODE32), (0x10, DATA32), (0x18, CODE64), (0x20, 0x0000_9b00_0000_ffff)] {
        m.set_gdt(sel, d);
    }
    m.put16(0x900, 0x27);
    m.put32(0x902, GDT as u32);
    m.put64(TABLES, (TABLES + 0x1000) | 3);
    m.put64(TABLES + 0x1000, 0x83);
    m.assemble_bits(16, 0x5000, 0x5000, |a| {
        a.lgdt(ptr(0x900))?;
        a.mov(eax, cr0)?;
        a.or(eax, 1)?;
        a.mov(cr0, eax)?;
        a.db(&[0xea, 0x00, 0x60, 0x08, 0x00]) // jmp 0008:6000
    });
    m.assemble_bits(32, 0x6000, 0x6000, |a| {
        a.mov(eax, 0x10)?;
        a.mov(ds, ax)?;
        a.mov(ss, ax)?;
        a.mov(esp, 0x7000)?;
        a.mov(dword_ptr(0x9000), 32)?;
        a.mov(eax, cr4)?;
        a.or(eax, 0x20)?;
        a.mov(cr4, eax)?;
        a.mov(eax, TABLES as u32)?;
        a.mov(cr3, eax)?;
        a.mov(ecx, 0xc000_0080u32)?;
        a.rdmsr()?;
        a.or(eax, 0x100)?;
        a.wrmsr()?;
        a.mov(eax, cr0)?;
        a.or(eax, 0x8000_0000u32 as i32)?;
        a.mov(cr0, eax)?;
        // Compatibility mode now.
        a.rdmsr()?;
        a.mov(dword_ptr(0x9008), eax)?;
        a.db(&[0xea, 0x00, 0x68, 0x00, 0x00, 0x18, 0x00])
    });
    m.assemble_bits(64, 0x6800, 0x6800, |a| {
        a.mov(rax, 0x1_0000_0001u64)?;
        a.mov(qword_ptr(0x9010), rax)?;
        a.push(8)?;
        a.push(0x6900)?;
        a.db(&[0x48, 0xcb])
    });
    m.assemble_bits(32, 0x6900, 0x6900, |a| {
        a.mov(eax, cr0)?;
        a.and(eax, 0x7fff_ffff)?;
        a.mov(cr0, eax)?;
        a.rdmsr()?;
        a.mov(dword_ptr(0x9018), eax)?;
        a.db(&[0xea, 0x00, 0x6a, 0x00, 0x00, 0x20, 0x00])
    });
    m.assemble_bits(16, 0x6a00, 0x6a00, |a| {
        a.mov(eax, cr0)?;
        a.and(al, 0xfeu32 as i32)?;
        a.mov(cr0, eax)?;
        a.db(&[0xea, 0x10, 0x6a, 0x00, 0x00])
    });
    m.assemble_bits(16, 0x6a10, 0x6a10, |a| a.hlt());
    assert_eq!(m.go(0x5000), Exit::Halted);
    assert_eq!(m.cpu.pc(), 0x6a11);
    assert_eq!((m.get32(0x9000), m.get64(0x9010)), (32, 0x1_0000_0001));
    assert_eq!((m.get32(0x9008) & 0x500, m.get32(0x9018) & 0x500), (0x500, 0x100), "LMA follows paging");
    let s = m.cpu.state();
    assert_eq!((s.protected(), s.segs[CS].sel, s.segs[CS].has(attr::DB)), (false, 0, false));
}
#[test]
fn cr0_refuses_impossible_states() {
    // PG without PE, NW without CD, reserved upper half.
    let mut m = Machine::protected();
    for (v, ok) in [(0x8000_0000u64, false), (0x2000_0001, false), (0x6000_0011, true), (0x11, true)] {
        m.set_reg(RAX, v);
        m.run(|a| {
            a.mov(cr0, eax)?;
            a.int(0x80)
        });
        assert_eq!(m.vector(), Some(if ok { 0x80 } else { 13 }), "{v:#x}");
    }
    let mut m = Machine::long();
    for (v, ok) in [(1u64 << 32 | 0x8000_0011, false), (0x11, false), (0x8000_0011, true)] {
        m.set_reg(RAX, v);
        m.run(|a| {
            a.mov(cr0, rax)?;
            a.int(0x80)
        });
        assert_eq!(m.vector(), Some(if ok { 0x80 } else { 13 }), "{v:#x}");
    }
}
#[test]
fn cr4_and_efer_refuse_what_cpuid_does_not_have() {
    let mut m = Machine::long();
    // SMEP: the program must not lie in user pages.
    for i in 0..512 {
        m.put64(TABLES + 0x3000 + i * 8, i << 12 | 3);
    }
    for (v, ok) in [
        (0x20u64, true),
        (0, false),
        (0x20 | 1 << 12, false),
        (0x20 | 1 << 20 | 1 << 21, true),
        (0x20 | 1 << 32, false),
    ] {
        m.set_reg(RAX, v);
        m.run(|a| {
            a.mov(cr4, rax)?;
            a.int(0x80)
        });
        assert_eq!(m.vector(), Some(if ok { 0x80 } else { 13 }), "{v:#x}");
        m.cpu.state().cr4 = 0x20;
    }
    for (v, ok) in [(0xd01u64, true), (0x901, true), (0xd03, false), (0xc01, false), (0xd01 | 1 << 12, false)] {
        m.set_reg(RAX, v);
        m.run(|a| {
            a.xor(edx, edx)?;
            a.mov(ecx, 0xc000_0080u32)?;
            a.wrmsr()?;
            a.int(0x80)
        });
        assert_eq!(m.vector(), Some(if ok { 0x80 } else { 13 }), "{v:#x}");
        assert_eq!(m.cpu.state().efer & LMA, LMA, "LMA cannot be written");
    }
}
#[test]
fn lmsw_smsw_clts_cr8() {
    let mut m = Machine::protected();
    m.run(|a| {
        a.mov(eax, 0xe)?;
        a.lmsw(ax)?;
        a.smsw(ebx)?;
        a.clts()?;
        a.mov(ecx, cr0)?;
        a.hlt()
    });
    assert_eq!((m.reg(RBX) & 0xf, m.reg(RCX) & 0xf), (0xf, 7), "LMSW cannot clear PE");
    let mut m = Machine::long();
    m.run(|a| {
        a.mov(rax, cr8)?;
        a.mov(ecx, 16)?;
        a.mov(cr8, rcx)
    });
    assert_eq!((m.reg(RAX), m.vector()), (5, Some(13)));
}
