//! Delivery: frames, error codes, gates, stacks, double and triple faults.
use crate::machine::*;
use accel::tcg::{Exit, W};
use iced_x86::code_asm::*;
use target_i386::{EXIT_SHUTDOWN, reg::*};

const RF: u64 = 1 << 16;
const IF: u64 = 1 << 9;

#[test]
fn fault_frame_in_protected_mode() {
    let mut m = Machine::protected();
    m.set_flags(0x202);
    m.faults(6, None, 1, |a| {
        a.nop()?;
        a.ud2()
    });
    let [ip, code, flags] = m.frame();
    assert_eq!((ip, code, flags), (CODE + 1, CODE0.into(), 0x202 | RF), "a fault's image has RF");
    assert_eq!(m.reg(RSP), STACK0 - 12);
    assert_eq!(m.flags() & (IF | RF), 0, "an interrupt gate clears IF");
}
#[test]
fn trap_gate_keeps_if() {
    let mut m = Machine::protected();
    m.gate(0x80, CODE0, STUBS + 0x800, 0xef);
    m.set_flags(0x202);
    m.run(|a| a.int(0x80));
    assert_eq!(m.vector(), Some(0x80));
    assert_eq!(m.flags() & IF, IF);
    let [ip, _, flags] = m.frame();
    assert_eq!((ip, flags), (CODE + 2, 0x202), "after INT n, without RF");
}
#[test]
fn sixteen_bit_gate() {
    let mut m = Machine::protected();
    m.gate(0x80, CODE0, STUBS + 0x800, 0xe6);
    m.run(|a| a.int(0x80));
    assert_eq!(m.vector(), Some(0x80));
    assert_eq!(m.reg(RSP), STACK0 - 6);
    assert_eq!(m.stack(W::B2, 0), (CODE + 2) & 0xffff);
}
#[test]
fn inner_ring_takes_its_stack_from_the_tss() {
    let mut m = Machine::protected();
    m.ring3();
    m.run(|a| a.int(0x80));
    assert_eq!(m.vector(), Some(0x80));
    let [ip, code, _, at, stack] = m.frame();
    assert_eq!((ip, code, at, stack), (CODE + 2, CODE3.into(), STACK3, DATA3.into()));
    assert_eq!(m.reg(RSP), TSS_STACK0 - 20);
    let s = m.cpu.state();
    assert_eq!((s.cpl, s.segs[SS].sel, s.segs[CS].sel), (0, DATA0, CODE0));
}
#[test]
fn gate_privilege_is_for_software_only() {
    let mut m = Machine::protected();
    m.ring3();
    // Vector 0x20's gate has DPL 0: INT n may not use it, an exception (vector 6) may.
    m.faults(13, Some(0x20 << 3 | 2), 0, |a| a.int(0x20));
    let mut m = Machine::protected();
    m.ring3();
    m.faults(6, None, 0, |a| a.ud2());
    let mut m = Machine::protected();
    m.ring3();
    m.faults(13, Some(3 << 3 | 2), 0, |a| a.int3());
}
#[test]
fn hlt_and_other_privileged_instructions_in_ring3() {
    let pieces: &[Piece] = &[
        |a| a.hlt(),
        |a| a.clts(),
        |a| a.mov(eax, cr0),
        |a| a.mov(cr3, eax),
        |a| a.wrmsr(),
        |a| a.rdmsr(),
        |a| a.invlpg(ptr(eax)),
        |a| a.lgdt(ptr(eax)),
        |a| a.lmsw(ax),
        |a| a.mov(dr7, eax),
        |a| a.wbinvd(),
        |a| a.cli(),
        |a| a.sti(),
        |a| a.in_(al, dx),
    ];
    for &f in pieces {
        let mut m = Machine::protected();
        m.ring3();
        m.set_reg(RAX, 0x9000);
        m.faults(13, Some(0), 0, f);
    }
}
#[test]
fn errors_while_finding_the_handler() {
    // Not present gate.
    let mut m = Machine::protected();
    m.gate(0x80, CODE0, STUBS, 0x6e);
    m.faults(11, Some(0x80 << 3 | 2), 0, |a| a.int(0x80));
    // Not a gate.
    let mut m = Machine::protected();
    m.gate(0x80, CODE0, STUBS, 0xec);
    m.faults(13, Some(0x80 << 3 | 2), 0, |a| a.int(0x80));
    // Beyond the IDT.
    let mut m = Machine::protected();
    m.cpu.state().idtr.limit = 0x7f * 8 + 7;
    m.faults(13, Some(0x80 << 3 | 2), 0, |a| a.int(0x80));
    // Handler selector: null, data, beyond the GDT, not present.
    for (sel, d, vector, error) in [
        (0, None, 13, 0),
        (DATA0, None, 13, u64::from(DATA0)),
        (0x1000, None, 13, 0x1000),
        (FREE, Some(CODE32 & !(1 << 47)), 11, u64::from(FREE)),
    ] {
        let mut m = Machine::protected();
        if let Some(d) = d {
            m.set_gdt(FREE, d);
        }
        m.gate(0x80, sel, STUBS, 0xee);
        m.faults(vector, Some(error), 0, |a| a.int(0x80));
        // For an exception the same errors carry EXT.
        if vector == 11 {
            let mut m = Machine::protected();
            m.set_gdt(FREE, d.unwrap());
            m.gate(6, sel, STUBS, 0xee);
            m.faults(11, Some(error | 1), 0, |a| a.ud2());
        }
    }
}
#[test]
fn bad_inner_stacks() {
    // Null SS0, wrong DPL, read-only, not present.
    for (sel, d, vector, error) in [
        (0, 0, 10, 0),
        (DATA3, 0, 10, u64::from(DATA3 & !3)),
        (FREE, DATA32 & !(1 << 41), 10, u64::from(FREE)),
        (FREE, DATA32 & !(1 << 47), 12, u64::from(FREE)),
        (0x1000, 0, 10, 0x1000),
    ] {
        let mut m = Machine::protected();
        if d != 0 {
            m.set_gdt(FREE, d);
        }
        m.put32(TSS + 8, u32::from(sel));
        m.ring3();
        // The handler of the consequence would need the same stack: give it a conforming ring-3 one.
        m.set_gdt(FREE + 8, ring(CODE32, 0) | 1 << 42);
        m.put(STUBS + 0x500, &[0xcd, 0x81]);
        m.gate(vector, FREE + 8, STUBS + 0x500, 0xee);
        m.put32(TSS + 0x0c, STACK1 as u32);
        m.assemble(CODE, |a| a.int(0x80));
        m.cpu.set_pc(CODE);
        // One instruction: the delivery; then look at the frame on the ring-3 stack.
        m.cpu.step();
        assert_eq!(m.cpu.pc(), STUBS + 0x500, "{sel:#x}");
        let [e, ip] = m.frame();
        assert_eq!((e, ip), (error, CODE), "{sel:#x}");
    }
}
#[test]
fn tss_too_small_for_the_stack() {
    let mut m = Machine::protected();
    m.ring3();
    m.cpu.state().tr.limit = 7;
    m.set_gdt(FREE, CODE32 | 1 << 42);
    m.gate(10, FREE, STUBS + 10 * 16, 0xee);
    m.assemble(CODE, |a| a.int(0x80));
    m.cpu.set_pc(CODE);
    m.cpu.step();
    let [e, ip] = m.frame();
    assert_eq!((e, ip), (u64::from(TR), CODE));
}
#[test]
fn double_fault_from_contributory_pairs() {
    // #GP whose gate is missing: a contributory pair, #DF with error code 0.
    let mut m = Machine::protected();
    m.gate(13, CODE0, STUBS, 0x0e);
    m.set_reg(RAX, 0x1000);
    m.faults(8, Some(0), 0, |a| a.mov(ds, ax));
    // #UD is benign: the missing gate is just #NP.
    let mut m = Machine::protected();
    m.gate(6, CODE0, STUBS, 0x0e);
    m.faults(11, Some(6 << 3 | 3), 0, |a| a.ud2());
}
#[test]
fn triple_fault_exits() {
    let mut m = Machine::protected();
    m.cpu.state().idtr.limit = 0;
    assert_eq!(m.run(|a| a.ud2()), Exit::Target(EXIT_SHUTDOWN));
    let mut m = Machine::real();
    m.cpu.state().idtr.limit = 0;
    assert_eq!(m.run(|a| a.int3()), Exit::Target(EXIT_SHUTDOWN));
}
#[test]
fn real_mode_frames() {
    let mut m = Machine::real();
    m.assemble_bits(16, 0x5000, 0x5000, |a| a.int(0x21));
    m.set_flags(0x202);
    m.go(0x5000);
    assert_eq!(m.vector(), Some(0x21));
    assert_eq!(m.reg(RSP), 0x7000 - 6);
    assert_eq!([0, 1, 2].map(|n| m.stack(W::B2, n)), [0x5002, 0, 0x202]);
    assert_eq!(m.flags() & IF, 0);
}
#[test]
fn long_mode_frames_align_the_stack() {
    let mut m = Machine::long();
    m.set_reg(RSP, STACK0 - 3);
    m.faults(6, None, 0, |a| a.ud2());
    let [ip, code, flags, at, stack] = m.frame();
    assert_eq!((ip, code, flags, at, stack), (CODE, CODE0.into(), 2 | RF, STACK0 - 3, DATA0.into()));
    assert_eq!(m.reg(RSP), STACK0 - 0x10 - 40);
    // With an error code.
    let mut m = Machine::long();
    m.set_reg(RAX, 0x1000);
    m.faults(13, Some(0x1000), 0, |a| a.mov(ds, ax));
    assert_eq!(m.reg(RSP) & 15, 0);
}
#[test]
fn long_mode_ring_switch_and_ist() {
    let mut m = Machine::long();
    m.ring3();
    m.run(|a| a.int(0x80));
    assert_eq!(m.vector(), Some(0x80));
    let [ip, code, _, at, stack] = m.frame();
    assert_eq!((ip, code, at, stack), (CODE + 2, CODE3L.into(), STACK3, DATA3.into()));
    assert_eq!(m.reg(RSP), TSS_STACK0 - 40);
    let s = m.cpu.state();
    assert_eq!((s.cpl, s.segs[SS].sel), (0, 0), "a null stack segment");
    // IST 2, without a change of ring: SS stays.
    let mut m = Machine::long();
    m.gate(0x80, CODE0, STUBS + 0x800, 0xee);
    m.put(IDT + 0x80 * 16 + 4, &[2]);
    m.put64(TSS + 0x2c, 0x5_5558);
    m.run(|a| a.int(0x80));
    assert_eq!(m.vector(), Some(0x80));
    assert_eq!(m.reg(RSP), 0x5_5550 - 40);
    assert_eq!(m.cpu.state().segs[SS].sel, DATA0);
    // A stack that is not canonical: #SS(0), delivered on the old one.
    let mut m = Machine::long();
    m.gate(0x80, CODE0, STUBS + 0x800, 0xee);
    m.put(IDT + 0x80 * 16 + 4, &[2]);
    m.put64(TSS + 0x2c, 0x8000_0000_0000);
    m.faults(12, Some(0), 0, |a| a.int(0x80));
}
#[test]
fn long_mode_gates_are_checked() {
    // A 32-bit code segment cannot be a handler.
    let mut m = Machine::long();
    m.set_gdt(FREE, CODE32);
    m.gate(0x80, FREE, STUBS, 0xee);
    m.faults(13, Some(FREE.into()), 0, |a| a.int(0x80));
    // 16-bit gates and task gates do not exist.
    for access in [0xe6, 0xe5, 0xe7] {
        let mut m = Machine::long();
        m.gate(0x80, CODE0, STUBS, access);
        m.faults(13, Some(0x80 << 3 | 2), 0, |a| a.int(0x80));
    }
    // An entry point that is not canonical.
    let mut m = Machine::long();
    m.gate(0x80, CODE0, 0x8000_0000_0000, 0xee);
    m.faults(13, Some(0), 0, |a| a.int(0x80));
}
#[test]
fn page_fault_in_delivery_is_a_double_fault() {
    let mut m = Machine::long();
    // Page fault with an unmapped handler stack: #PF then #PF makes #DF; its IST is good.
    m.put64(TABLES + 0x3000 + (STACK0 / 4096 - 1) * 8, 0);
    m.gate(8, CODE0, STUBS + 8 * 16, 0x8e);
    m.put(IDT + 8 * 16 + 4, &[1]);
    m.put64(TSS + 0x24, 0x5_0000);
    m.put64(TABLES + 0x3000 + 0x30 * 8, 0);
    m.faults(8, Some(0), 0, |a| a.mov(rax, qword_ptr(0x3_0000)));
    assert_eq!(m.cpu.state().cr2, STACK0 - 8, "CR2 is the last page fault's");
}
#[test]
fn into_and_int1() {
    let mut m = Machine::protected();
    m.set_flags(0x802);
    m.gate(4, CODE0, STUBS + 4 * 16, 0xee);
    m.run(|a| a.into());
    assert_eq!((m.vector(), m.frame()), (Some(4), [CODE + 1]));
    let mut m = Machine::protected();
    m.run(|a| {
        a.into()?;
        a.hlt()
    });
    assert_eq!(m.cpu.pc(), CODE + 2, "OF is clear");
    let mut m = Machine::protected();
    m.ring3();
    m.run(|a| a.int1());
    assert_eq!((m.vector(), m.frame()), (Some(1), [CODE + 1]), "INT1 does not look at the gate's DPL");
}
