//! Single step, breakpoints, RF, debug registers.
use crate::machine::*;
use iced_x86::code_asm::*;
use target_i386::reg::*;

const TF: u64 = 1 << 8;
const BS: u64 = 1 << 14;
const RF: u64 = 1 << 16;

fn status(m: &mut Machine) -> u64 {
    m.cpu.state().dr[6] & 0xe00f
}
fn breakpoint(m: &mut Machine, n: usize, at: u64, control: u64) {
    let s = m.cpu.state();
    s.dr[n] = at;
    s.dr[7] |= 1 << (n * 2) | control << (16 + n * 4);
    m.cpu.flush();
}
const WRITE4: u64 = 0b1101;
const READ_WRITE1: u64 = 0b0011;

#[test]
fn single_step_traps_after_one_instruction() {
    for mut m in [Machine::protected(), Machine::long()] {
        m.set_flags(2 | TF);
        m.run(|a| {
            a.mov(eax, 1)?;
            a.mov(eax, 2)
        });
        assert_eq!((m.vector(), m.reg(RAX)), (Some(1), 1));
        let [ip, _, flags] = m.frame();
        assert_eq!((ip, flags), (CODE + 5, 2 | TF), "a trap: next address, no RF");
        assert_eq!(status(&mut m), BS);
        assert_eq!(m.flags() & TF, 0);
    }
}
#[test]
fn popf_that_sets_tf_traps_one_later() {
    let mut m = Machine::protected();
    m.run(|a| {
        a.push(0x102)?;
        a.popfd()?;
        a.mov(eax, 1)?;
        a.mov(eax, 2)
    });
    assert_eq!((m.vector(), m.reg(RAX)), (Some(1), 1));
}
#[test]
fn mov_ss_holds_the_trap_off() {
    let mut m = Machine::protected();
    m.set_reg(RAX, DATA0.into());
    m.set_flags(2 | TF);
    m.run(|a| {
        a.mov(ss, ax)?;
        a.mov(ebx, 1)?;
        a.mov(ebx, 2)
    });
    assert_eq!((m.vector(), m.reg(RBX)), (Some(1), 1), "not between MOV SS and the next instruction");
}
#[test]
fn int_n_under_single_step_clears_tf() {
    let mut m = Machine::protected();
    m.set_flags(2 | TF);
    m.run(|a| a.int(0x80));
    assert_eq!(m.vector(), Some(0x80));
    assert_eq!(m.frame::<3>()[2] & TF, TF);
}
#[test]
fn instruction_breakpoint_and_rf() {
    let mut m = Machine::protected();
    breakpoint(&mut m, 1, CODE + 1, 0);
    m.run(|a| {
        a.nop()?;
        a.mov(eax, 7)?;
        a.hlt()
    });
    assert_eq!(m.vector(), Some(1));
    assert_eq!((m.frame::<1>(), m.reg(RAX), status(&mut m)), ([CODE + 1], 0, 2), "a fault, before the instruction");
    // Going on with RF set passes it, once.
    let at = m.reg(RSP);
    m.put32(at + 8, 2 | 1 << 16);
    m.assemble(0x3_0000, |a| a.iretd());
    m.go(0x3_0000);
    assert_eq!((m.cpu.pc(), m.reg(RAX)), (CODE + 7, 7));
    m.go(CODE);
    assert_eq!(m.vector(), Some(1), "RF is used up");
}
#[test]
fn a_repeated_instruction_meets_its_breakpoint_once() {
    let mut m = Machine::protected();
    breakpoint(&mut m, 0, CODE, 0);
    m.set_reg(RCX, 0x2800);
    m.set_reg(RDI, 0x30_0f00);
    m.run(|a| {
        a.rep().stosb()?;
        a.hlt()
    });
    assert_eq!((m.vector(), m.reg(RCX)), (Some(1), 0x2800));
    let at = m.reg(RSP);
    m.put32(at + 8, 2 | RF as u32);
    m.assemble(0x3_0000, |a| a.iretd());
    m.go(0x3_0000);
    assert_eq!((m.cpu.pc(), m.reg(RCX)), (CODE + 3, 0), "over several pages");
    // A data breakpoint between two iterations leaves RF in the image, one after the last does not.
    for (address, image) in [(0x30_1000u64, 2 | RF), (0x30_17ff, 2)] {
        let mut m = Machine::protected();
        breakpoint(&mut m, 0, address, 0b0001);
        m.set_reg(RCX, 0x800);
        m.set_reg(RDI, 0x30_1000);
        m.run(|a| {
            a.rep().stosb()?;
            a.hlt()
        });
        assert_eq!(m.vector(), Some(1));
        assert_eq!(m.frame::<3>()[2], image, "{address:x}");
    }
}
#[test]
fn single_step_traps_after_each_iteration() {
    let mut m = Machine::protected();
    m.set_reg(RCX, 3);
    m.set_reg(RSI, 0x9000);
    m.set_reg(RDI, 0x9100);
    m.set_flags(2 | TF);
    m.run(|a| a.rep().movsd());
    assert_eq!((m.vector(), m.reg(RCX), m.frame::<1>()), (Some(1), 2, [CODE]));
}
#[test]
fn general_detect_sets_rf_in_the_image() {
    let mut m = Machine::protected();
    m.cpu.state().dr[7] |= 1 << 13;
    m.run(|a| a.mov(eax, dr7));
    assert_eq!(m.vector(), Some(1));
    assert_eq!(m.frame::<3>()[2], 2 | RF);
    assert_eq!(m.cpu.state().dr[7] & 1 << 13, 0);
}
#[test]
fn data_breakpoints() {
    for mut m in [Machine::protected(), Machine::long()] {
        breakpoint(&mut m, 0, 0x9000, WRITE4);
        m.run(|a| {
            a.mov(eax, dword_ptr(0x9000))?;
            a.mov(dword_ptr(0x9004), eax)?;
            a.mov(byte_ptr(0x9003), 5)?;
            a.mov(ebx, 1)
        });
        assert_eq!((m.vector(), m.get8(0x9003), m.reg(RBX)), (Some(1), 5, 0), "a trap, after the write");
        assert_eq!(status(&mut m), 1);
    }
    let mut m = Machine::protected();
    breakpoint(&mut m, 3, 0x9008, READ_WRITE1);
    m.run(|a| {
        a.mov(eax, dword_ptr(0x9004))?;
        a.mov(ecx, 1)?;
        a.mov(eax, dword_ptr(0x9005))?;
        a.mov(ecx, 2)
    });
    assert_eq!((m.vector(), m.reg(RCX), status(&mut m)), (Some(1), 1, 8));
    // Pushes count.
    let mut m = Machine::protected();
    breakpoint(&mut m, 2, STACK0 - 4, WRITE4);
    m.run(|a| {
        a.push(eax)?;
        a.hlt()
    });
    assert_eq!((m.vector(), status(&mut m)), (Some(1), 4));
}
#[test]
fn a_data_breakpoint_of_mov_ss_comes_before_the_handler_of_int_n() {
    for mut m in [Machine::protected(), Machine::long()] {
        m.put32(0x9000, DATA0.into());
        breakpoint(&mut m, 0, 0x9000, READ_WRITE1);
        m.run(|a| {
            a.mov(ss, word_ptr(0x9000))?;
            a.int(0x80)
        });
        assert_eq!((m.vector(), status(&mut m)), (Some(1), 1));
        let [ip, ..] = m.frame::<3>();
        assert_eq!(ip, STUBS + 16 * 0x80, "the handler of INT 80H has not run an instruction");
    }
}
#[test]
fn a_watched_stack_traps_at_the_handlers_first_instruction() {
    let mut m = Machine::protected();
    breakpoint(&mut m, 2, STACK0 - 4, WRITE4);
    m.run(|a| a.int(0x80));
    assert_eq!((m.vector(), m.frame::<1>(), status(&mut m)), (Some(1), [STUBS + 16 * 0x80], 4));
}
#[test]
fn io_breakpoint() {
    let mut m = Machine::protected();
    m.cpu.state().cr4 |= 8;
    breakpoint(&mut m, 0, 0x71, 2);
    m.run(|a| {
        a.in_(al, 0x70)?;
        a.mov(bl, 1)?;
        a.in_(al, 0x71)?;
        a.mov(bl, 2)
    });
    assert_eq!((m.vector(), m.reg(RBX), status(&mut m)), (Some(1), 1, 1));
}
#[test]
fn general_detect() {
    let mut m = Machine::protected();
    m.cpu.state().dr[7] |= 1 << 13;
    m.run(|a| a.mov(eax, dr0));
    assert_eq!((m.vector(), m.frame(), status(&mut m)), (Some(1), [CODE], 1 << 13));
    assert_eq!(m.cpu.state().dr[7] & 1 << 13, 0, "open to the handler");
}
#[test]
fn debug_register_moves() {
    let mut m = Machine::protected();
    m.run(|a| {
        a.mov(eax, 0x1234_5678)?;
        a.mov(dr3, eax)?;
        a.mov(ebx, dr3)?;
        a.xor(eax, eax)?;
        a.mov(dr6, eax)?;
        a.mov(dr7, eax)?;
        a.mov(ecx, dr6)?;
        a.mov(edx, dr7)?;
        a.db(&[0x0f, 0x21, 0xe6])?; // mov esi, dr4
        a.hlt()
    });
    assert_eq!([RBX, RCX, RDX, RSI].map(|r| m.reg(r)), [0x1234_5678, 0xffff_0ff0, 0x400, 0xffff_0ff0]);
    m.cpu.state().cr4 |= 8;
    m.faults(6, None, 0, |a| a.db(&[0x0f, 0x21, 0xe6]));
    let mut m = Machine::long();
    m.set_reg(RAX, 1 << 32);
    m.faults(13, Some(0), 0, |a| a.mov(dr7, rax));
}
#[test]
fn single_stepping_a_repeated_instruction_stays_exact() {
    let mut m = Machine::protected();
    m.set_flags(2 | TF);
    m.set_reg(RCX, 3);
    m.set_reg(RDI, 0x9000);
    m.run(|a| {
        a.rep().stosb()?;
        a.nop()
    });
    assert_eq!(m.vector(), Some(1));
    let (left, ip) = (m.reg(RCX), m.frame::<1>()[0]);
    assert_eq!(m.reg(RDI), 0x9000 + 3 - left);
    assert_eq!(ip, if left == 0 { CODE + 2 } else { CODE });
}
