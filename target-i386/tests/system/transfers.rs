//! Far jumps, calls, returns, call gates, IRET.
use crate::machine::*;
use accel::tcg::{Exit, W};
use iced_x86::code_asm::*;
use target_i386::reg::*;

fn far32(op: u8, sel: u16, ip: u64) -> [u8; 7] {
    let i = (ip as u32).to_le_bytes();
    let s = sel.to_le_bytes();
    [op, i[0], i[1], i[2], i[3], s[0], s[1]]
}
const CALL: u8 = 0x9a;
const JMP: u8 = 0xea;

#[test]
fn far_jump_checks() {
    let (f, e) = (FREE, u64::from(FREE));
    for (d, sel, cpl, want) in [
        (CODE32, f, 0, None),
        (CODE32, f | 3, 0, Some((13, e))),
        (CODE32, f, 3, Some((13, e))),
        (CODE32 | 1 << 42, f | 3, 3, None),
        (ring(CODE32, 3), f | 3, 3, None),
        (ring(CODE32 | 1 << 42, 3), f, 0, Some((13, e))),
        (CODE32 & !(1 << 47), f, 0, Some((11, e))),
        (DATA32, f, 0, Some((13, e))),
        (0, 0, 0, Some((13, 0))),
        (0, 0x1000, 0, Some((13, 0x1000))),
        (descriptor(0, 0x10, 0x9b), f, 0, Some((13, 0))),
    ] {
        let mut m = Machine::protected();
        m.set_gdt(FREE, d);
        if cpl == 3 {
            m.ring3();
        }
        m.assemble(CODE + 0x100, |a| a.int(0x80));
        m.run(|a| a.db(&far32(JMP, sel, CODE + 0x100)));
        match want {
            None => {
                assert_eq!(m.vector(), Some(0x80), "{d:#x} {sel:#x}");
                let [_, code] = m.frame();
                assert_eq!(code, u64::from(sel & !3) | cpl, "CS takes the current level as its RPL");
            }
            Some((v, code)) => assert_eq!((m.vector(), m.frame()), (Some(v), [code, CODE]), "{d:#x} {sel:#x}"),
        }
    }
}
#[test]
fn call_gate_to_an_inner_ring() {
    let mut m = Machine::protected();
    m.set_gdt(FREE, gate(CODE0, CODE + 0x200, 0xec) | 2 << 32);
    m.ring3();
    m.assemble(CODE + 0x200, |a| {
        a.mov(eax, dword_ptr(esp + 8))?;
        a.mov(ebx, dword_ptr(esp + 12))?;
        a.mov(ecx, ss)?;
        a.mov(edx, esp)?;
        a.retf_1(8)
    });
    m.run(|a| {
        a.push(0x22)?;
        a.push(0x11)?;
        a.db(&far32(CALL, FREE | 3, 0))?;
        a.int(0x80)
    });
    assert_eq!(m.vector(), Some(0x80));
    assert_eq!([RAX, RBX, RCX, RDX].map(|r| m.reg(r)), [0x11, 0x22, DATA0.into(), TSS_STACK0 - 24]);
    let [_, code, _, at, stack] = m.frame();
    assert_eq!((code, at, stack), (CODE3.into(), STACK3, DATA3.into()), "parameters are gone from both stacks");
}
#[test]
fn call_gate_checks() {
    let (f, e) = (FREE, u64::from(FREE));
    for (g, vector, error) in [
        (gate(CODE0, 0, 0x8c), 13, e),
        (gate(CODE0, 0, 0x6c), 11, e),
        (gate(0, 0, 0xec), 13, 0),
        (gate(DATA0, 0, 0xec), 13, DATA0.into()),
        (gate(0x1000, 0, 0xec), 13, 0x1000),
    ] {
        let mut m = Machine::protected();
        m.set_gdt(FREE, g);
        m.ring3();
        m.faults(vector, Some(error), 0, |a| a.db(&far32(CALL, f | 3, 0)));
    }
    // JMP through a gate cannot change the ring.
    let mut m = Machine::protected();
    m.set_gdt(FREE, gate(CODE0, CODE, 0xec));
    m.ring3();
    m.faults(13, Some(CODE0.into()), 0, |a| a.db(&far32(JMP, f | 3, 0)));
}
#[test]
fn sixteen_bit_call_gate_and_same_ring() {
    let mut m = Machine::protected();
    m.set_gdt(FREE, descriptor(CODE, 0xffff, 0x9b));
    m.set_gdt(FREE + 8, gate(FREE, 0x200, 0x84));
    m.assemble_bits(16, CODE + 0x200, 0x200, |a| a.retf());
    // The 16-bit frame cuts the return address: back in the low 64 KiB of the flat segment.
    m.put(7, &[0xf4]);
    m.run(|a| {
        a.db(&far32(CALL, FREE + 8, 0))?;
        a.hlt()
    });
    assert_eq!((m.cpu.pc(), m.reg(RSP)), (8, STACK0));
}
#[test]
fn far_call_and_return_same_ring() {
    let mut m = Machine::protected();
    m.set_gdt(FREE, CODE32);
    m.assemble(CODE + 0x200, |a| {
        a.mov(eax, cs)?;
        a.mov(ebx, dword_ptr(esp + 4))?;
        a.retf_1(4)
    });
    m.run(|a| {
        a.push(1)?;
        a.db(&far32(CALL, FREE, CODE + 0x200))?;
        a.mov(ecx, cs)?;
        a.hlt()
    });
    assert_eq!([RAX, RBX, RCX, RSP].map(|r| m.reg(r)), [FREE.into(), CODE0.into(), CODE0.into(), STACK0]);
}
#[test]
fn far_return_checks() {
    for (code, d, vector, error) in [
        (0u16, None, 13, 0u64),
        (DATA0, None, 13, DATA0.into()),
        (0x1000, None, 13, 0x1000),
        (FREE, Some(CODE32 & !(1 << 47)), 11, FREE.into()),
        (FREE | 3, Some(CODE32), 13, FREE.into()),
        (FREE, Some(descriptor(0, 0xff, 0x9b)), 13, 0),
    ] {
        let mut m = Machine::protected();
        if let Some(d) = d {
            m.set_gdt(FREE, d);
        }
        m.assemble(CODE, |a| a.retf());
        let at = STACK0 - 8;
        m.set_reg(RSP, at);
        m.put32(at, CODE as u32);
        m.put32(at + 4, code.into());
        m.go(CODE);
        assert_eq!((m.vector(), m.frame()), (Some(vector), [error, CODE]), "{code:#x}");
    }
}
/// A program of ring 0 that IRETs with this frame; stops at INT 80h at the target.
fn iret32(m: &mut Machine, frame: &[u32]) {
    let at = STACK0 - 0x40;
    m.set_reg(RSP, at);
    for (i, v) in frame.iter().enumerate() {
        m.put32(at + i as u64 * 4, *v);
    }
    m.assemble(CODE + 0x300, |a| a.int(0x80));
    m.run(|a| a.iretd());
}
const AT: u32 = CODE as u32 + 0x300;

#[test]
fn iret_to_an_outer_ring() {
    let mut m = Machine::protected();
    m.set_reg(RAX, 0);
    iret32(&mut m, &[AT, CODE3.into(), 0x3202, STACK3 as u32, DATA3.into()]);
    assert_eq!(m.vector(), Some(0x80));
    let [ip, code, flags, at, stack] = m.frame();
    assert_eq!((ip, code, flags, at, stack), (u64::from(AT) + 2, CODE3.into(), 0x3202, STACK3, DATA3.into()));
    // DS had DPL 0 and was made null on the way out.
    assert_eq!(m.cpu.state().segs[DS].sel, 0);
}
#[test]
fn iret_flags_depend_on_privilege() {
    // Ring 3 with IOPL 0: neither IF nor IOPL change.
    let mut m = Machine::protected();
    m.ring3();
    m.set_flags(0x202);
    let at = STACK3 - 12;
    m.set_reg(RSP, at);
    m.put32(at, AT);
    m.put32(at + 4, CODE3.into());
    m.put32(at + 8, 0x24_3cd7);
    m.assemble(AT.into(), |a| a.int(0x80));
    m.run(|a| a.iretd());
    assert_eq!(m.vector(), Some(0x80));
    assert_eq!(m.frame::<3>()[2], 0x24_0ed7, "AC ID and the status flags do");
    // IOPL 3: IF changes, IOPL does not.
    m.ring3();
    m.set_flags(0x3202);
    m.set_reg(RSP, at);
    m.put32(at + 8, 2);
    m.go(CODE);
    assert_eq!(m.frame::<3>()[2], 0x3002);
}
#[test]
fn iret_checks() {
    let s3 = STACK3 as u32;
    for (frame, vector, error) in [
        ([AT, 0, 2, 0, 0], 13, 0u64),
        ([AT, DATA0.into(), 2, 0, 0], 13, DATA0.into()),
        ([AT, CODE3.into(), 2, s3, 0], 13, 0),
        ([AT, CODE3.into(), 2, s3, DATA0.into()], 13, DATA0.into()),
        ([AT, CODE3.into(), 2, s3, 0x1003], 13, 0x1000),
        ([AT, CODE3.into(), 2, s3, u32::from(FREE | 3)], 12, FREE.into()),
    ] {
        let mut m = Machine::protected();
        m.set_gdt(FREE, ring(DATA32, 3) & !(1 << 47));
        iret32(&mut m, &frame);
        assert_eq!((m.vector(), m.frame()), (Some(vector), [error, CODE]), "{frame:x?}");
        assert_eq!(m.cpu.state().cpl, 0);
    }
}
#[test]
fn iretq_pops_the_stack_always() {
    let mut m = Machine::long();
    let at = STACK0 - 0x40;
    m.set_reg(RSP, at);
    for (i, v) in [u64::from(AT), CODE0.into(), 2, STACK1, 0].into_iter().enumerate() {
        m.put64(at + i as u64 * 8, v);
    }
    m.assemble(AT.into(), |a| a.hlt());
    m.run(|a| a.iretq());
    assert_eq!((m.cpu.pc(), m.reg(RSP)), (u64::from(AT) + 1, STACK1));
    assert_eq!(m.cpu.state().segs[SS].sel, 0, "null is fine in ring 0");
    // To ring 3, then to 32-bit code of ring 3.
    for (code, bits) in [(CODE3L, 64), (CODE3, 32)] {
        let mut m = Machine::long();
        m.set_reg(RSP, at);
        for (i, v) in [u64::from(AT), code.into(), 0x202, STACK3, DATA3.into()].into_iter().enumerate() {
            m.put64(at + i as u64 * 8, v);
        }
        m.assemble_bits(bits, AT.into(), AT.into(), |a| {
            a.mov(ecx, cs)?;
            a.int(0x80)
        });
        m.run(|a| a.iretq());
        assert_eq!((m.vector(), m.reg(RCX)), (Some(0x80), code.into()));
        let [_, _, flags, at, stack] = m.frame();
        assert_eq!((flags, at, stack), (0x202, STACK3, DATA3.into()));
    }
    // Not canonical: #GP(0) in ring 0. A null stack in ring 3: #GP(0). NT: #GP(0).
    for (ip, code, stack, flags) in
        [(0x8000_0000_0000, CODE3L, DATA3, 2), (u64::from(AT), CODE3L, 0, 2), (u64::from(AT), CODE0, 0, 0x4002)]
    {
        let mut m = Machine::long();
        m.set_reg(RSP, at);
        for (i, v) in [ip, code.into(), 2, STACK3, stack.into()].into_iter().enumerate() {
            m.put64(at + i as u64 * 8, v);
        }
        m.set_flags(flags);
        m.faults(13, Some(0), 0, |a| a.iretq());
    }
}
#[test]
fn long_mode_call_gate() {
    let mut m = Machine::long();
    m.set_gdt(FREE, gate(CODE0, CODE + 0x200, 0xec));
    m.set_gdt(FREE + 8, 0);
    m.ring3();
    m.assemble(CODE + 0x200, |a| {
        a.mov(rax, rsp)?;
        a.mov(ebx, ss)?;
        a.db(&[0x48, 0xcb])
    });
    m.put32(0x9000, 0);
    m.put16(0x9004, FREE | 3);
    m.run(|a| {
        a.db(&[0xff, 0x1c, 0x25, 0x00, 0x90, 0x00, 0x00])?; // call far [0x9000], m16:32
        a.int(0x80)
    });
    assert_eq!((m.vector(), m.reg(RAX), m.reg(RBX)), (Some(0x80), TSS_STACK0 - 32, 0));
    let [_, _, _, at, stack] = m.frame();
    assert_eq!((at, stack), (STACK3, DATA3.into()));
}
#[test]
fn stack_faults_of_pushes() {
    let mut m = Machine::protected();
    m.set_gdt(FREE, descriptor(0, 0xf_ffff, 0x96) | 1 << 54);
    m.set_reg(RAX, FREE.into());
    // An expand-down stack: nothing below its limit.
    m.run(|a| {
        a.mov(ss, ax)?;
        a.mov(esp, 0x10_0002)?;
        a.db(&far32(CALL, CODE0, CODE))
    });
    // The handler's frame does not fit either: #DF, then shutdown.
    assert_eq!(m.vector(), None);
    let mut m = Machine::protected();
    m.set_gdt(FREE, ring(descriptor(0, 0xf_ffff, 0x96) | 1 << 54, 3));
    m.ring3();
    m.set_reg(RAX, u64::from(FREE | 3));
    let exit = m.run(|a| {
        a.mov(ss, ax)?;
        a.mov(esp, 0x10_0002)?;
        a.db(&far32(CALL, CODE3, CODE))
    });
    assert_eq!((exit, m.vector(), m.frame()), (Exit::Halted, Some(12), [0, CODE + 8]));
    assert_eq!(m.stack(W::B4, 4), 0x10_0002);
}
