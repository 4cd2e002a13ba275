//! The interpreter as an executor: a small guest machine in long mode that looks to user code as the host does.
//!
//! Code and data pages lie at the host executor's addresses, with the same rights. Every exception enters the guest's kernel through the IDT; its
//! handlers halt, and the frame on the kernel's stack says what the program saw. Code is left through INT3, which fills the code pages. So
//! exceptions are checked as delivered, error code and saved state included.

use crate::{
    layout::{CODE_LEN, CODE_LIMIT_16, DATA_LEN, DATA_LIMIT_16, HIGH, Layout, PAGE, pattern},
    state::{Case, Executor, Fault, Mode, Outcome},
};
use accel::tcg::{Bus, Counters, Exit, FlatBus, Group, JitConfig, JitCounters, Vcpu, host::f80::F80};
use std::{collections::BTreeMap, sync::Arc};
use target_i386::{
    X86,
    cpu::{
        features,
        words::{self, Reg},
    },
    reg::{CS, DS, ES, GS, SS},
    state::{Regs, Segment, State as CpuState, TableReg, attr, bits::*},
    sys::{
        cpuid::{ANY, CpuidTable},
        cr::cr4,
    },
};

/// Where things lie in guest-physical memory.
mod pa {
    pub const TABLES: u64 = 0x1_0000;
    pub const CODE: u64 = 0x10_0000;
    pub const DATA: u64 = 0x11_0000;
    pub const KERNEL: u64 = 0x12_0000;
    pub const END: usize = 0x20_0000;
}
/// Where the kernel's pages are mapped, supervisor only.
const KERNEL: u64 = 0xffff_8000_0000_0000;
/// Offsets of the kernel's pages: descriptor tables, task state, stack, and one handler of 16 bytes per vector.
const GDT: u64 = 0;
const IDT: u64 = 0x1000;
const TSS: u64 = 0x2000;
const STACK_TOP: u64 = 0x4000;
const HANDLERS: u64 = 0x4000;
const KERNEL_PAGES: u64 = 5;

const PRESENT: u64 = 1;
const WRITE: u64 = 2;
const USER: u64 = 4;
const NX: u64 = 1 << 63;

/// How the engine is driven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drive {
    /// Blocks, as guests run: specialised handlers, flags left out where dead, pairs.
    Run,
    /// The same by the loop of handlers.
    Loop,
    /// One instruction at a time, by the loop.
    Step,
    /// Regions of tier 1, compiled when a block is entered for the first time.
    Regions,
    /// Every block gets quick code when it is first entered.
    Quick,
    /// Both, and what happens seldom happens all the time; the seed.
    Torture(u64),
}

/// The interpreter.
pub struct Guest {
    layout: Layout,
    drive: Drive,
    group: Arc<Group>,
    bus: Arc<FlatBus>,
    vcpu: Vcpu<X86>,
    regs: BTreeMap<Mode, Regs>,
    pattern: Box<[u8; DATA_LEN]>,
    memory: Box<[u8; DATA_LEN]>,
    last_code: Option<(u64, Vec<u8>)>,
}

impl Guest {
    /// A guest at the addresses of `layout`.
    pub fn new(layout: Layout, drive: Drive) -> Guest {
        let bus = Arc::new(FlatBus::new(pa::END));
        build_memory(&bus, &layout);
        let group = Group::new();
        group.set_looped(matches!(drive, Drive::Loop | Drive::Step));
        if let Some((quick, threshold)) = match drive {
            Drive::Regions => Some((0, 1)),
            Drive::Quick => Some((1, u16::MAX)),
            Drive::Torture(_) => Some((1, 1)),
            _ => None,
        } {
            let torture = if let Drive::Torture(seed) = drive { seed } else { 0 };
            group.set_jit(JitConfig { quick, threshold, torture, synchronous: true, ..JitConfig::default() });
        }
        let state = CpuState::new(Arc::new(cpuid()));
        let vcpu = Vcpu::new(&group, bus.clone(), state);
        let regs = [Mode::Bits64, Mode::Bits32, Mode::Bits16].map(|m| (m, registers(m, &layout))).into();
        Guest {
            layout,
            drive,
            group,
            bus,
            vcpu,
            regs,
            pattern: pattern(),
            memory: Box::new([0; DATA_LEN]),
            last_code: None,
        }
    }

    /// Pieces of code that were made in quick code.
    pub fn pieces(&self) -> u64 {
        self.group.jit_counters().map_or(0, |c| c.pieces)
    }
    /// What happened in the engine.
    pub fn counters(&self) -> Counters {
        self.vcpu.counters()
    }
    /// What tier 1 did, if there is one.
    pub fn jit_counters(&self) -> Option<JitCounters> {
        self.group.jit_counters()
    }
    fn put_code(&mut self, at: u64, code: &[u8]) {
        if self.last_code.as_ref().is_some_and(|(a, c)| *a == at && c == code) {
            return;
        }
        if let Some((old, bytes)) = self.last_code.take() {
            self.poke_code(old, &vec![0xcc; bytes.len()]);
        }
        self.poke_code(at, code);
        self.last_code = Some((at, code.to_vec()));
    }
    fn poke_code(&mut self, at: u64, code: &[u8]) {
        let pa = pa::CODE + at - self.layout.code;
        assert!(self.bus.poke(pa, code));
        // As a device would: whoever decoded these bytes must forget them.
        let cut = code.len().min((PAGE - pa % PAGE) as usize);
        for (pa, len) in [(pa, cut), (pa + cut as u64, code.len() - cut)] {
            if let Some(page) = self.bus.ram(0, pa & !(PAGE - 1)).filter(|_| len > 0) {
                self.group.written(page.host as usize + (pa % PAGE) as usize, len);
            }
        }
    }
    fn peek64(&self, kernel_offset: u64) -> u64 {
        let mut bytes = [0; 8];
        assert!(self.bus.peek(pa::KERNEL + kernel_offset, &mut bytes));
        u64::from_le_bytes(bytes)
    }
}

impl Executor for Guest {
    fn name(&self) -> &str {
        match self.drive {
            Drive::Run => "interpreter",
            Drive::Loop => "interpreter, looped",
            Drive::Step => "interpreter, single steps",
            Drive::Regions => "regions",
            Drive::Quick => "quick code",
            Drive::Torture(_) => "torture",
        }
    }
    fn layout(&self) -> Layout {
        self.layout
    }
    fn run(&mut self, case: &Case) -> Outcome {
        let base = self.layout.code_base(case.mode);
        let start = base + case.state.rip;
        self.put_code(start, &case.code);
        self.memory.copy_from_slice(&self.pattern[..]);
        for (at, bytes) in &case.memory {
            self.memory[*at..*at + bytes.len()].copy_from_slice(bytes);
        }
        self.bus.poke(pa::DATA, &self.memory[..]);

        let (hot, state) = self.vcpu.parts();
        state.r.clone_from(&self.regs[&case.mode]);
        state.sync(hot);
        state.set_flags(hot, case.state.rflags as u32, u32::MAX);
        hot.regs[..16].copy_from_slice(&case.state.gpr);
        let fx = &case.state.fx;
        for n in 0..16 {
            hot.x[n] = fx.xmm(n);
        }
        hot.fpcr = u64::from(fx.mxcsr());
        let fpu = &mut state.r.fpu;
        (fpu.fcw, fpu.fsw, fpu.ftw) = (fx.fcw(), fx.fsw(), fx.ftw());
        let top = |fsw: u16, n: usize| (usize::from(fsw >> 11 & 7) + n) & 7;
        for n in 0..8 {
            fpu.regs[top(fx.fsw(), n)] = F80 { sig: fx.st(n) as u64, se: (fx.st(n) >> 64) as u16 };
        }
        self.vcpu.set_pc(start);

        let exit = match self.drive {
            Drive::Run | Drive::Loop | Drive::Regions | Drive::Quick | Drive::Torture(_) => self.vcpu.run(10_000),
            // Repeated instructions take several steps; everything ends in a handler.
            Drive::Step => {
                let mut steps = (0..10_000).map(|_| self.vcpu.step());
                steps.find(|exit| *exit != Exit::Budget).unwrap_or(Exit::Budget)
            }
        };
        let pc = self.vcpu.pc();
        self.bus.peek(pa::DATA, &mut self.memory[..]);
        let vector = pc.wrapping_sub(KERNEL + HANDLERS) >> 4;
        let halted = exit == Exit::Halted && vector < 256;
        let has_error = matches!(vector, 8 | 10..=14 | 17 | 21);
        let frame = STACK_TOP - if has_error { 48 } else { 40 };
        let error = if has_error { self.peek64(frame) } else { 0 };
        let frame: [u64; 4] = std::array::from_fn(|n| self.peek64(STACK_TOP - 40 + 8 * n as u64));
        let (hot, state) = self.vcpu.parts();
        let mut out = Outcome::default();
        out.state.gpr.copy_from_slice(&hot.regs[..16]);
        let fx = &mut out.state.fx;
        for n in 0..16 {
            fx.set_xmm(n, hot.x[n]);
        }
        fx.set_mxcsr(hot.fpcr as u32);
        let fpu = &state.r.fpu;
        fx.set_fcw(fpu.fcw);
        fx.set_fsw(fpu.fsw);
        fx.set_ftw(fpu.ftw);
        for n in 0..8 {
            let r = fpu.regs[top(fpu.fsw, n)];
            fx.set_st(n, u128::from(r.se) << 64 | u128::from(r.sig));
        }
        if !halted {
            // No real vector: shows in the comparison whatever the judge says.
            out.state.rip = pc;
            out.fault = Some(Fault { vector: 255, error: 0, address: 0 });
            return out;
        }
        let [rip, _cs, rflags, rsp] = frame;
        out.state.gpr[4] = rsp;
        out.state.rip = rip;
        out.state.rflags = rflags;
        let address = if vector == 14 { state.r.cr2 } else { 0 };
        out.fault = Some(Fault { vector: vector as u8, error: error as u32, address });
        out.settle(case);
        out
    }
    fn memory(&self) -> &[u8; DATA_LEN] {
        &self.memory
    }
}

/// What the guest's CPUID says: all that the engine implements.
fn cpuid() -> CpuidTable {
    let word = |leaf, sub, reg| features::engine().cpuid(leaf, sub, reg);
    let basic = |leaf, ecx, edx| (leaf, ANY, [0x000f_0f01, 0, ecx, edx]);
    CpuidTable::new([
        (0, ANY, [0xd, 0x6874_7541, 0x444d_4163, 0x6974_6e65]),
        basic(1, word(1, words::ANY, Reg::ECX), word(1, words::ANY, Reg::EDX)),
        (7, 0, [0, word(7, 0, Reg::EBX), word(7, 0, Reg::ECX), word(7, 0, Reg::EDX)]),
        (0x8000_0000, ANY, [0x8000_0008, 0, 0, 0]),
        basic(0x8000_0001, word(0x8000_0001, words::ANY, Reg::ECX), word(0x8000_0001, words::ANY, Reg::EDX)),
        (0x8000_0008, ANY, [0x3028, 0, 0, 0]),
    ])
}

fn segment(sel: u16, base: u64, limit: u32, kind: u16) -> Segment {
    Segment { sel, base, limit, attr: kind | attr::P | attr::S | attr::RW | attr::ACCESSED | 3 << 5 }
}

/// User mode as Linux sets it up.
fn registers(mode: Mode, layout: &Layout) -> Regs {
    let flat = |sel, kind| segment(sel, 0, u32::MAX, kind | attr::G);
    let mut r = Regs {
        cr0: CR0_PE | CR0_MP | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_PG,
        cr3: pa::TABLES,
        cr4: CR4_PAE | CR4_PGE | CR4_OSFXSR | CR4_OSXMMEXCPT | cr4::FSGSBASE,
        efer: EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE,
        cpl: 3,
        gdtr: TableReg { base: KERNEL + GDT, limit: 0x7f },
        idtr: TableReg { base: KERNEL + IDT, limit: 0xfff },
        tr: Segment { sel: 0x40, base: KERNEL + TSS, limit: 0x67, attr: attr::P | 11 },
        ..Regs::default()
    };
    let data = flat(0x2b, attr::DB);
    r.segs = [data, flat(0x33, attr::CODE | attr::L), data, data, Segment::default(), Segment::default()];
    match mode {
        Mode::Bits64 => r.segs[GS].base = layout.gs_base,
        Mode::Bits32 => r.segs[CS] = flat(0x23, attr::CODE | attr::DB),
        Mode::Bits16 => {
            r.segs[CS] = segment(7, layout.code_base(mode), CODE_LIMIT_16, attr::CODE);
            for n in [ES, SS, DS] {
                r.segs[n] = segment(15, layout.data_base(mode), DATA_LIMIT_16, 0);
            }
        }
    }
    r
}

/// Page tables, descriptor tables, task state, handlers.
fn build_memory(bus: &FlatBus, layout: &Layout) {
    let put = |at: u64, v: u64| assert!(bus.poke(at, &v.to_le_bytes()));
    let get = |at: u64| {
        let mut b = [0; 8];
        assert!(bus.peek(at, &mut b));
        u64::from_le_bytes(b)
    };
    let mut next = pa::TABLES + PAGE;
    let mut map = |la: u64, pa: u64, rights: u64| {
        let mut table = pa::TABLES;
        for level in (1..4).rev() {
            let slot = table + (la >> (12 + 9 * level) & 511) * 8;
            if get(slot) == 0 {
                put(slot, next | PRESENT | WRITE | USER);
                next += PAGE;
            }
            table = get(slot) & 0xf_ffff_f000;
        }
        put(table + (la >> 12 & 511) * 8, pa | PRESENT | rights);
    };
    for n in 0..CODE_LEN as u64 / PAGE {
        map(layout.code + n * PAGE, pa::CODE + n * PAGE, USER | WRITE);
    }
    for n in 0..DATA_LEN as u64 / PAGE {
        let write = if Layout::read_only(n as usize) { 0 } else { WRITE };
        for la in [layout.data, layout.data + HIGH] {
            map(la + n * PAGE, pa::DATA + n * PAGE, USER | NX | write);
        }
    }
    for n in 0..KERNEL_PAGES {
        map(KERNEL + n * PAGE, pa::KERNEL + n * PAGE, WRITE);
    }
    assert!(bus.poke(pa::CODE, &[0xcc; CODE_LEN]));

    // Linux's user descriptors at Linux's places, and the kernel's code segment for the handlers.
    for (n, d) in [
        (2, 0x00af_9b00_0000_ffff_u64),
        (3, 0x00cf_9300_0000_ffff),
        (4, 0x00cf_fb00_0000_ffff),
        (5, 0x00cf_f300_0000_ffff),
        (6, 0x00af_fb00_0000_ffff),
    ] {
        put(pa::KERNEL + GDT + 8 * n, d);
    }
    for vector in 0..256 {
        let handler = KERNEL + HANDLERS + 16 * vector;
        // Breakpoint and overflow may be raised by user code.
        let dpl = if matches!(vector, 3 | 4) { 3 } else { 0 };
        let gate = handler & 0xffff | 0x10 << 16 | (0x8e00 | dpl << 13) << 32 | (handler >> 16 & 0xffff) << 48;
        put(pa::KERNEL + IDT + 16 * vector, gate);
        put(pa::KERNEL + IDT + 16 * vector + 8, handler >> 32);
        assert!(bus.poke(pa::KERNEL + HANDLERS + 16 * vector, &[0xf4]));
    }
    // RSP0, and no I/O permission map.
    let stack = KERNEL + STACK_TOP;
    assert!(bus.poke(pa::KERNEL + TSS + 4, &stack.to_le_bytes()));
    assert!(bus.poke(pa::KERNEL + TSS + 0x66, &0xffff_u16.to_le_bytes()));
}
