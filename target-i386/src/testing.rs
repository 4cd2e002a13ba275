//! A bare CPU on flat RAM: what tests of instructions run on.

use crate::{
    EXIT_CAUGHT, X86,
    exception::Exception,
    reg::*,
    state::{Segment, State, attr::*, bits::*},
};
use accel::tcg::{Counters, Exit, FlatBus, Group, Vcpu};
use std::sync::Arc;

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The instruction is done, or the address reached.
    Done,
    /// An exception, not delivered: the instruction pointer is at the instruction that raised it (after it for traps).
    Exception(Exception),
    /// HLT.
    Halted,
    /// The target's own exit.
    Exit(u32),
    /// The budget was used up.
    Budget,
}

/// A vCPU that runs 64-bit code in flat memory without paging and ends its run at exceptions: for tests of several vCPUs.
pub fn bare_vcpu(group: &Arc<Group>, bus: Arc<FlatBus>) -> Vcpu<X86> {
    let mut cpu = Vcpu::new(group, bus, State::new(Arc::default()));
    set_up(&mut cpu, 64);
    cpu
}
fn set_up(cpu: &mut Vcpu<X86>, bits: u32) {
    let (hot, s) = cpu.parts();
    s.catch = true;
    if bits != 16 {
        s.cr0 = CR0_PE | CR0_ET | CR0_NE | CR0_MP;
        s.cr4 = CR4_OSFXSR | CR4_OSXMMEXCPT;
        let data = Segment { sel: 0x10, base: 0, limit: u32::MAX, attr: P | S | RW | ACCESSED | DB | G };
        s.segs = [data; 6];
        s.segs[CS] = Segment { sel: 8, attr: P | S | RW | ACCESSED | CODE | G | DB, ..data };
        if bits == 64 {
            s.efer = EFER_LMA | EFER_LME | EFER_SCE | EFER_NXE;
            s.segs[CS].attr = P | S | RW | ACCESSED | CODE | G | L;
        }
    } else {
        s.segs[CS] = Segment { sel: 0, base: 0, ..s.segs[CS] };
    }
    s.sync(hot);
}

/// Turns paging on: four-level tables at 0xf0000 for the first 2 MiB, by which a page lies where its address says, but for those given with
/// where they lie.
pub fn paged(cpu: &mut Vcpu<X86>, bus: &FlatBus, moved: &[(u64, u64)]) {
    const TABLES: u64 = 0xf_0000;
    let put = |at: u64, entry: u64| assert!(bus.poke(at, &(entry | 7).to_le_bytes()), "outside of RAM");
    (0..3).for_each(|k| put(TABLES + (k << 12), TABLES + ((k + 1) << 12)));
    (0..512).for_each(|i| put(TABLES + 0x3000 + 8 * i, i << 12));
    moved.iter().for_each(|&(page, to)| put(TABLES + 0x3000 + 8 * (page >> 12), to));
    let (hot, s) = cpu.parts();
    (s.cr0, s.cr3, s.cr4) = (s.cr0 | CR0_PG, TABLES, s.cr4 | CR4_PAE);
    s.sync(hot);
}

/// One CPU without a machine: RAM from address 0, no paging, exceptions returned instead of delivered.
pub struct Bare {
    bus: Arc<FlatBus>,
    cpu: Vcpu<X86>,
}

impl Bare {
    /// A CPU that runs `bits`-bit code (16: real mode; 32, 64: flat segments, privilege level 0 and SSE on) with `ram`
    /// bytes of memory.
    pub fn new(bits: u32, ram: usize) -> Bare {
        Bare::in_group(&Group::new(), bits, ram)
    }
    /// The same as a member of a group.
    pub fn in_group(group: &Arc<Group>, bits: u32, ram: usize) -> Bare {
        let bus = Arc::new(FlatBus::new(ram));
        let mut cpu: Vcpu<X86> = Vcpu::new(group, bus.clone(), State::new(Arc::default()));
        set_up(&mut cpu, bits);
        Bare { bus, cpu }
    }
    /// The engine's CPU.
    pub fn cpu(&mut self) -> &mut Vcpu<X86> {
        &mut self.cpu
    }
    /// Writes guest memory behind the CPU's back. Decoded code is not looked at again: use [`flush`](Self::flush).
    pub fn poke(&mut self, at: u64, data: &[u8]) {
        assert!(self.bus.poke(at, data), "outside of RAM")
    }
    /// Reads guest memory.
    pub fn peek(&self, at: u64, data: &mut [u8]) {
        assert!(self.bus.peek(at, data), "outside of RAM")
    }
    /// As [`paged`].
    pub fn paged(&mut self, moved: &[(u64, u64)]) {
        paged(&mut self.cpu, &self.bus, moved)
    }
    /// Forgets translations and decoded code.
    pub fn flush(&mut self) {
        self.cpu.kick().flush()
    }
    /// A general register by number.
    pub fn gpr(&mut self, n: usize) -> u64 {
        self.cpu.hot().regs[n & 15]
    }
    /// Sets a general register.
    pub fn set_gpr(&mut self, n: usize, v: u64) {
        self.cpu.hot().regs[n & 15] = v
    }
    /// A vector register.
    pub fn xmm(&mut self, n: usize) -> u128 {
        self.cpu.hot().x[n & 15]
    }
    /// Sets a vector register.
    pub fn set_xmm(&mut self, n: usize, v: u128) {
        self.cpu.hot().x[n & 15] = v
    }
    /// MXCSR.
    pub fn mxcsr(&mut self) -> u32 {
        self.cpu.hot().fpcr as u32
    }
    /// Sets MXCSR.
    pub fn set_mxcsr(&mut self, v: u32) {
        self.cpu.parts().0.fpcr = v as u64
    }
    /// EFLAGS.
    pub fn flags(&mut self) -> u32 {
        let (hot, s) = self.cpu.parts();
        s.flags(hot)
    }
    /// Sets EFLAGS.
    pub fn set_flags(&mut self, v: u32) {
        let (hot, s) = self.cpu.parts();
        s.set_flags(hot, v, u32::MAX)
    }
    /// Linear address of the next instruction.
    pub fn pc(&self) -> u64 {
        self.cpu.pc()
    }
    /// Sets it.
    pub fn set_pc(&mut self, v: u64) {
        self.cpu.set_pc(v)
    }
    /// What happened in the engine.
    pub fn counters(&self) -> Counters {
        self.cpu.counters()
    }
    /// All other registers. Call [`sync`](Self::sync) after a change of segments or modes.
    pub fn state(&mut self) -> &mut State {
        self.cpu.state()
    }
    /// Mirrors the segments after a change.
    pub fn sync(&mut self) {
        let (hot, s) = self.cpu.parts();
        s.sync(hot)
    }
    fn outcome(&mut self, e: Exit) -> Outcome {
        match e {
            Exit::Budget => Outcome::Budget,
            Exit::Stopped => Outcome::Budget,
            Exit::Halted => Outcome::Halted,
            Exit::Target(EXIT_CAUGHT) => match self.cpu.state().caught.take() {
                Some(x) => Outcome::Exception(x),
                None => Outcome::Exit(EXIT_CAUGHT),
            },
            Exit::Target(c) => Outcome::Exit(c),
        }
    }
    /// Runs one instruction by itself (a repeated one: one run between two pages; the pc then stays).
    pub fn step(&mut self) -> Outcome {
        let e = self.cpu.step();
        match self.outcome(e) {
            Outcome::Budget => Outcome::Done,
            o => o,
        }
    }
    /// Runs through the threaded handlers until HLT, an exception, or `budget` instructions are done.
    pub fn run(&mut self, budget: u64) -> Outcome {
        let e = self.cpu.run(budget);
        self.outcome(e)
    }
}
