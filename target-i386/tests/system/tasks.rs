//! Hardware task switches: JMP, CALL, IRET, task gates, 16-bit TSSs, faults before and after the commit point.
use crate::machine::*;
use iced_x86::code_asm::*;
use target_i386::reg::*;

const NEW: u64 = 0x4800;
const BUSY: u8 = 0x8b;
const AVAILABLE: u8 = 0x89;

fn far(op: u8, sel: u16) -> [u8; 7] {
    let s = sel.to_le_bytes();
    [op, 0, 0, 0, 0, s[0], s[1]]
}
/// A new 32-bit task at NEW that starts at CODE + 0x400.
fn machine() -> Machine {
    let mut m = Machine::protected();
    m.set_gdt(FREE, descriptor(NEW, 0x67, AVAILABLE.into()));
    m.set_gdt(FREE + 8, gate(FREE, 0, 0xe5));
    m.put32(NEW + 0x20, CODE as u32 + 0x400);
    m.put32(NEW + 0x24, 0x3002);
    for i in 0..8 {
        m.put32(NEW + 0x28 + i * 4, 0x100 + i as u32);
    }
    m.put32(NEW + 0x28 + 16, STACK1 as u32);
    for (i, sel) in [DATA0, CODE0, DATA0, DATA0, 0, DATA3].into_iter().enumerate() {
        m.put32(NEW + 0x48 + i as u64 * 4, sel.into());
    }
    m.put16(NEW + 0x66, 0x68);
    m.assemble(CODE + 0x400, |a| a.int(0x80));
    m
}
fn busy(m: &Machine, sel: u16) -> u8 {
    m.get8(GDT + u64::from(sel) + 5)
}

#[test]
fn jump_to_a_tss() {
    let mut m = machine();
    m.set_reg(RDI, 0x7777);
    m.set_flags(0x202);
    m.run(|a| {
        a.db(&far(0xea, FREE))?;
        a.hlt()
    });
    assert_eq!(m.vector(), Some(0x80));
    assert_eq!([RAX, RCX, RDI].map(|r| m.reg(r)), [0x100, 0x101, 0x107]);
    let [_, code, flags] = m.frame();
    assert_eq!((code, flags), (CODE0.into(), 0x3002));
    assert_eq!((busy(&m, TR), busy(&m, FREE)), (AVAILABLE, BUSY));
    assert_eq!((m.get32(TSS + 0x20), m.get32(TSS + 0x24)), (CODE as u32 + 7, 0x202));
    assert_eq!((m.get32(TSS + 0x28 + 28), m.get32(TSS + 0x48 + 4)), (0x7777, u32::from(CODE0)));
    let s = m.cpu.state();
    assert_eq!((s.tr.sel, s.segs[GS].sel, s.segs[FS].sel, s.cr0 & 8), (FREE, DATA3, 0, 8), "CR0.TS");
}
#[test]
fn call_and_iret_nest() {
    let mut m = machine();
    m.assemble(CODE + 0x400, |a| {
        a.mov(dword_ptr(0x9000), eax)?;
        a.pushfd()?;
        a.pop(dword_ptr(0x9004))?;
        a.iretd()?;
        a.int(0x81)
    });
    m.run(|a| {
        a.mov(ebx, 5)?;
        a.db(&far(0x9a, FREE))?;
        a.int(0x80)
    });
    assert_eq!((m.vector(), m.reg(RBX)), (Some(0x80), 5));
    assert_eq!((m.get32(0x9000), m.get32(0x9004)), (0x100, 0x7002), "NT in the nested task");
    assert_eq!(m.get16(NEW), TR, "back link");
    assert_eq!((busy(&m, TR), busy(&m, FREE)), (BUSY, AVAILABLE));
    assert_eq!(m.get32(NEW + 0x24) & 0x4000, 0, "IRET clears NT of the image it leaves");
    assert_eq!(m.get32(NEW + 0x20), CODE as u32 + 0x400 + 13);
    assert_eq!(m.cpu.state().tr.sel, TR);
}
#[test]
fn task_gate_in_the_idt_pushes_the_error_code() {
    let mut m = machine();
    m.put64(IDT + 13 * 8, gate(FREE, 0, 0x85));
    m.assemble(CODE + 0x400, |a| {
        a.pop(ebx)?;
        a.hlt()
    });
    m.set_reg(RAX, 0x1000);
    m.run(|a| a.mov(ds, ax));
    assert_eq!((m.cpu.pc(), m.reg(RBX), m.reg(RSP)), (CODE + 0x402, 0x1000, STACK1));
    assert_eq!(m.get32(TSS + 0x20), CODE as u32, "the fault's own address");
    assert_eq!(m.get16(NEW), TR);
}
#[test]
fn through_a_task_gate_from_ring3() {
    let mut m = machine();
    m.ring3();
    m.run(|a| a.db(&far(0x9a, FREE + 8)));
    assert_eq!(m.vector(), Some(0x80));
    assert_eq!(m.get32(TSS + 0x4c), u32::from(CODE3));
}
#[test]
fn faults_before_the_switch_belong_to_the_old_task() {
    let e = u64::from(FREE);
    for (d, vector, error) in [
        (descriptor(NEW, 0x66, 0x89), 10, e),
        (descriptor(NEW, 0x67, 0x8b), 13, e),
        (descriptor(NEW, 0x67, 0x09), 11, e),
        (descriptor(NEW, 0x67, 0x82), 13, e),
    ] {
        let mut m = machine();
        m.set_gdt(FREE, d);
        m.faults(vector, Some(error), 0, |a| a.db(&far(0xea, FREE)));
        assert_eq!(m.cpu.state().tr.sel, TR);
        assert_eq!(busy(&m, TR), BUSY);
    }
    // DPL 0 from ring 3.
    let mut m = machine();
    m.ring3();
    m.faults(13, Some(e), 0, |a| a.db(&far(0xea, FREE)));
    // IRET with NT and a bad link.
    let mut m = machine();
    m.set_flags(0x4002);
    m.put16(TSS, DATA0);
    m.faults(10, Some(DATA0.into()), 0, |a| a.iretd());
}
#[test]
fn faults_after_the_switch_belong_to_the_new_task() {
    for (at, sel, vector, error) in [
        (0x4c, DATA0, 10, u64::from(DATA0)),
        (0x4c, 0, 10, 0),
        (0x50, DATA3, 10, u64::from(DATA3 & !3)),
        (0x54, 0x1000, 10, 0x1000),
        (0x60, DATA0, 10, u64::from(DATA0)),
    ] {
        let mut m = machine();
        // The handler takes a task of its own: the new one has no usable stack everywhere.
        const HANDLER: u64 = 0x5000;
        m.set_gdt(FREE + 0x10, descriptor(HANDLER, 0x67, 0x89));
        m.put32(HANDLER + 0x20, CODE as u32 + 0x500);
        m.put32(HANDLER + 0x28 + 16, STACK0 as u32 - 0x100);
        for (i, s) in [DATA0, CODE0, DATA0, DATA0, 0, 0].into_iter().enumerate() {
            m.put32(HANDLER + 0x48 + i as u64 * 4, s.into());
        }
        m.assemble(CODE + 0x500, |a| a.hlt());
        m.put64(IDT + vector * 8, gate(FREE + 0x10, 0, 0x85));
        m.put32(NEW + at, sel.into());
        m.run(|a| a.db(&far(0xea, FREE)));
        assert_eq!(m.cpu.pc(), CODE + 0x501, "{at:#x}");
        assert_eq!(m.frame::<1>(), [error], "{at:#x}");
        assert_eq!(m.get16(HANDLER), FREE, "the new task is the one that faulted");
        assert_eq!(m.get32(NEW + 0x20), CODE as u32 + 0x400);
    }
}
#[test]
fn sixteen_bit_tss() {
    let mut m = Machine::protected();
    m.set_gdt(FREE, descriptor(NEW, 0x2b, 0x81));
    m.set_gdt(FREE + 8, descriptor(CODE, 0xffff, 0x9b));
    m.put16(NEW + 0x0e, 0x400);
    m.put16(NEW + 0x10, 2);
    for i in 0..8 {
        m.put16(NEW + 0x12 + i * 2, 0x100 + i as u16);
    }
    for (i, sel) in [DATA0, FREE + 8, DATA0, DATA0].into_iter().enumerate() {
        m.put16(NEW + 0x22 + i as u64 * 2, sel);
    }
    m.assemble_bits(16, CODE + 0x400, 0x400, |a| a.hlt());
    m.run(|a| a.db(&far(0xea, FREE)));
    assert_eq!(m.cpu.pc(), CODE + 0x401);
    assert_eq!([RAX, RDI].map(|r| m.reg(r) & 0xffff), [0x100, 0x107]);
    assert_eq!(busy(&m, FREE), 0x83);
}
#[test]
fn the_trap_bit() {
    let mut m = machine();
    m.put16(NEW + 0x64, 1);
    m.run(|a| a.db(&far(0xea, FREE)));
    assert_eq!(m.vector(), Some(1));
    assert_eq!(m.frame::<1>(), [CODE + 0x400]);
    assert_eq!(m.cpu.state().dr[6] & 0x8000, 0x8000);
}
#[test]
fn task_switch_loads_cr3() {
    let mut m = machine();
    for t in [TABLES, TABLES + 0x1000] {
        m.put32(t, 0x87);
        m.put32(t + 4, 0x87);
    }
    m.put32(TABLES + 0x1004, 0);
    m.put32(NEW + 0x1c, TABLES as u32 + 0x1000);
    let (hot, s) = m.cpu.parts();
    s.cr4 |= 0x10;
    s.cr3 = TABLES;
    s.cr0 |= PG;
    s.sync(hot);
    m.assemble(CODE + 0x400, |a| a.mov(eax, dword_ptr(0x40_0000)));
    m.run(|a| {
        a.mov(eax, dword_ptr(0x40_0000))?;
        a.db(&far(0xea, FREE))
    });
    assert_eq!((m.vector(), m.frame()), (Some(14), [0, CODE + 0x400]));
    // No task switches in long mode.
    let mut m = Machine::long();
    m.set_gdt(FREE, descriptor(NEW, 0x67, 0x89));
    m.put32(0x9000, 0);
    m.put16(0x9004, FREE);
    m.faults(13, Some(FREE.into()), 0, |a| a.db(&[0xff, 0x2c, 0x25, 0x00, 0x90, 0x00, 0x00]));
}
