//! Interrupts between instructions: shadows, NMI, priorities, INIT and start-up, HLT.
use crate::machine::*;
use accel::tcg::{Exit, Kick};
use iced_x86::code_asm::*;
use std::sync::{Arc, Mutex};
use target_i386::{
    reg::*,
    state::{Interrupts, Signals, bits::CR0_NE, signal},
};

const IF: u64 = 1 << 9;

fn raise(m: &mut Machine, bits: u32) {
    m.cpu.state().signals.set(bits);
    m.cpu.kick().service();
}
#[test]
fn interrupts_wait_for_if() {
    let mut m = Machine::protected();
    raise(&mut m, signal::HARD);
    m.run(|a| {
        a.mov(eax, 1)?;
        a.sti()?;
        a.mov(eax, 2)?;
        a.mov(eax, 3)
    });
    assert_eq!((m.vector(), m.reg(RAX)), (Some(0x91), 2), "STI's shadow covers one instruction");
    assert_eq!(m.frame::<1>(), [CODE + 11]);
    assert_eq!(m.frame::<3>()[2], 2 | IF);
}
#[test]
fn sti_with_if_set_has_no_shadow() {
    let mut m = Machine::protected();
    m.set_flags(2 | IF);
    raise(&mut m, signal::HARD);
    m.run(|a| a.mov(eax, 1));
    assert_eq!((m.vector(), m.reg(RAX)), (Some(0x91), 0), "taken before the first instruction");
}
#[test]
fn popf_and_iret_let_interrupts_in() {
    let mut m = Machine::protected();
    raise(&mut m, signal::HARD);
    m.run(|a| {
        a.push(0x202)?;
        a.popfd()?;
        a.mov(eax, 1)
    });
    assert_eq!((m.vector(), m.reg(RAX)), (Some(0x91), 0), "POPF has no shadow");
    for mut m in [Machine::protected(), Machine::long()] {
        raise(&mut m, signal::HARD);
        let long = m.cpu.state().code64();
        m.assemble(CODE + 0x100, |a| a.mov(eax, 1));
        m.run(|a| {
            if long {
                a.push(0)?;
                a.push(STACK1 as i32)?;
            }
            a.push(0x202)?;
            a.push(i32::from(CODE0))?;
            a.push(CODE as i32 + 0x100)?;
            if long { a.iretq() } else { a.iretd() }
        });
        assert_eq!((m.vector(), m.reg(RAX), m.frame::<1>()), (Some(0x91), 0, [CODE + 0x100]));
    }
}
#[test]
fn sti_hlt_wakes_at_once() {
    let mut m = Machine::protected();
    raise(&mut m, signal::HARD);
    m.run(|a| {
        a.sti()?;
        a.hlt()?;
        a.nop()
    });
    if m.vector().is_none() {
        m.resume();
    }
    assert_eq!(m.vector(), Some(0x91));
    assert_eq!(m.frame::<1>(), [CODE + 2], "after HLT");
}
#[test]
fn a_halted_cpu_stays_halted_without_an_event() {
    let mut m = Machine::protected();
    m.run(|a| {
        a.sti()?;
        a.hlt()?;
        a.mov(eax, 1)
    });
    m.cpu.kick().service();
    assert_eq!(m.resume(), Exit::Halted);
    assert_eq!((m.cpu.pc(), m.reg(RAX)), (CODE + 2, 0));
    raise(&mut m, signal::HARD);
    m.resume();
    assert_eq!((m.vector(), m.frame()), (Some(0x91), [CODE + 2]));
    assert!(m.cpu.state().halted, "the stub's own HLT");
}
#[test]
fn nmi_masks_itself_until_iret() {
    let mut m = Machine::protected();
    raise(&mut m, signal::NMI);
    m.run(|a| a.nop());
    assert_eq!(m.vector(), Some(2));
    raise(&mut m, signal::NMI);
    assert_eq!(m.resume(), Exit::Halted);
    assert_eq!(m.vector(), Some(2), "still in the first");
    assert_eq!(m.reg(RSP), STACK0 - 12);
    m.assemble(0x3_0000, |a| a.iretd());
    // Out of the handler's HLT by hand: IRET from here.
    m.cpu.state().halted = false;
    m.go(0x3_0000);
    assert_eq!((m.vector(), m.frame()), (Some(2), [CODE]), "the second came right after IRET");
}
#[test]
fn mov_ss_shadow_covers_nmi() {
    let mut m = Machine::protected();
    m.set_reg(RAX, DATA0.into());
    m.assemble(CODE, |a| {
        a.mov(ss, ax)?;
        a.mov(ebx, 1)?;
        a.mov(ebx, 2)
    });
    m.cpu.set_pc(CODE);
    m.cpu.step();
    raise(&mut m, signal::NMI);
    m.resume();
    assert_eq!((m.vector(), m.reg(RBX)), (Some(2), 1));
}
#[test]
fn init_and_start_up() {
    let mut m = Machine::protected();
    m.put(0xffff0, &[0xf4]);
    m.set_reg(RBX, 5);
    m.cpu.state().msrs.star = 77;
    m.cpu.state().wait_for_sipi = false;
    raise(&mut m, signal::INIT);
    // The boot processor starts at the reset vector, which is no RAM here: take the state only.
    m.cpu.set_pc(CODE);
    m.cpu.run(0);
    let s = m.cpu.state();
    assert_eq!((s.cr0 & 1, s.segs[CS].base, s.msrs.star), (0, 0xffff_0000, 77));
    assert_eq!((m.cpu.pc(), m.reg(RBX), m.reg(RDX)), (0xffff_fff0, 0, 0x60fb1));
    // An application processor waits.
    m.cpu.state().wait_for_sipi = true;
    m.cpu.kick().service();
    assert_eq!(m.resume(), Exit::Halted);
    m.assemble_bits(16, 0x9_8000, 0, |a| {
        a.mov(ax, cs)?;
        a.hlt()
    });
    m.cpu.state().signals.set_sipi(0x98);
    m.cpu.kick().service();
    m.resume();
    assert_eq!((m.reg(RAX), m.cpu.pc()), (0x9800, 0x9_8003));
}
#[test]
fn a20_signal() {
    let mut m = Machine::real();
    raise(&mut m, signal::A20);
    m.assemble_bits(16, 0x5000, 0x5000, |a| a.hlt());
    m.go(0x5000);
    assert_eq!(m.cpu.state().a20_mask, !(1 << 20));
    m.cpu.state().signals.clear(signal::A20);
    m.cpu.kick().service();
    m.resume();
    assert_eq!(m.cpu.state().a20_mask, u64::MAX);
}
#[test]
fn rare_instructions_use_no_stack() {
    // A loop of instructions that all run on the whole CPU, on a host stack that a frame for each would overflow.
    let run = || {
        let mut m = Machine::long();
        m.assemble(CODE, |a| {
            a.mov(ebx, 100_000)?;
            let mut again = a.create_label();
            a.set_label(&mut again)?;
            a.pushfq()?;
            a.cli()?;
            a.cld()?;
            a.popfq()?;
            a.dec(ebx)?;
            a.jne(again)?;
            a.hlt()
        });
        m.cpu.set_pc(CODE);
        assert_eq!(m.cpu.run(10_000_000), Exit::Halted);
    };
    std::thread::Builder::new().stack_size(256 << 10).spawn(run).expect("a thread").join().expect("no overflow");
}

/// A controller that makes FERR# an interrupt.
struct Ferr {
    signals: Arc<Signals>,
    kick: Kick,
    levels: Mutex<Vec<bool>>,
}
impl Interrupts for Ferr {
    fn acknowledge(&self) -> Option<u8> {
        Some(0x91)
    }
    fn ferr(&self, level: bool) -> bool {
        self.levels.lock().unwrap().push(level);
        if level {
            self.signals.set(signal::HARD);
            self.kick.service();
        }
        level
    }
    fn tpr(&self) -> u8 {
        0
    }
    fn set_tpr(&self, _: u8) {}
    fn base(&self) -> u64 {
        0
    }
    fn set_base(&self, _: u64) -> bool {
        false
    }
    fn read_msr(&self, _: u32) -> Option<u64> {
        None
    }
    fn write_msr(&self, _: u32, _: u64) -> bool {
        false
    }
    fn set_deadline(&self, _: u64, _: u64) {}
    fn init(&self) {}
}
#[test]
fn x87_errors_without_ne_are_interrupts_before_the_next_waiting_instruction() {
    let mut m = Machine::protected();
    m.set_flags(2 | IF);
    let (signals, kick) = (m.cpu.state().signals.clone(), m.cpu.kick());
    let ferr = Arc::new(Ferr { signals, kick, levels: Mutex::default() });
    let s = m.cpu.state();
    s.interrupts = Some(ferr.clone());
    s.cr0 &= !CR0_NE;
    m.put16(CODE + 0x800, 0x37b); // ZE unmasked
    m.run(|a| {
        a.fninit()?; // two bytes
        a.fldcw(word_ptr(CODE + 0x800))?; // six
        a.fld1()?;
        a.fldz()?;
        a.fdivp(st1, st0)?;
        a.fld1()?; // waits
        a.mov(eax, 1)
    });
    assert_eq!((m.vector(), m.frame::<1>(), m.reg(RAX)), (Some(0x91), [CODE + 14], 0));
    assert_eq!(*ferr.levels.lock().unwrap(), [true]);
    // FNCLEX lets the line fall.
    m.run(|a| {
        a.fnclex()?;
        a.fnclex()?;
        a.hlt()
    });
    assert_eq!(*ferr.levels.lock().unwrap(), [true, false]);
}
