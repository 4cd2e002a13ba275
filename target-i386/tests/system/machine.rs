//! A CPU on flat RAM with tables laid out for tests: every vector's handler is a HLT of its own, so that where the CPU
//! stops tells what was delivered, and the frame is still on the stack.
use accel::tcg::{Bus, Exit, FlatBus, Group, JitConfig, Vcpu, W};
use iced_x86::code_asm::CodeAssembler;
use std::sync::Arc;
use target_i386::{
    X86,
    reg::*,
    state::{Interrupts, Segment, State, TableReg},
    sys::{
        cpuid::{ANY, CpuidTable},
        desc::{Attr, Descriptor},
    },
};

pub const GDT: u64 = 0x1000;
pub const LDT: u64 = 0x1800;
pub const IDT: u64 = 0x2000;
pub const TSS: u64 = 0x4000;
/// Sixteen bytes per vector, a HLT in each.
pub const STUBS: u64 = 0x8000;
pub const TABLES: u64 = 0x10_0000;
/// Where programs go.
pub const CODE: u64 = 0x2_0000;
/// Top of the stacks of ring 0 (running and from the TSS), ring 1 and ring 3.
pub const STACK0: u64 = 0x6_0000;
pub const TSS_STACK0: u64 = 0x6_8000;
pub const STACK1: u64 = 0x7_0000;
pub const STACK3: u64 = 0x7_8000;

/// Selectors of the flat segments.
pub const CODE0: u16 = 0x08;
pub const DATA0: u16 = 0x10;
pub const CODE3: u16 = 0x1b;
pub const DATA3: u16 = 0x23;
/// 64-bit code of ring 3 (in the order SYSRET wants: 32-bit code, data, 64-bit code).
pub const CODE3L: u16 = 0x2b;
/// The TSS; two slots.
pub const TR: u16 = 0x30;
/// First free slot of the GDT.
pub const FREE: u16 = 0x40;

pub const PE: u64 = 1;
pub const PG: u64 = 1 << 31;
pub const WP: u64 = 1 << 16;
pub const PAE: u64 = 1 << 5;
pub const LME: u64 = 1 << 8;
pub const LMA: u64 = 1 << 10;
pub const NXE: u64 = 1 << 11;

pub const CODE32: u64 = 0x00cf_9b00_0000_ffff;
pub const CODE64: u64 = 0x00af_9b00_0000_ffff;
pub const DATA32: u64 = 0x00cf_9300_0000_ffff;
/// Adds a privilege level to a descriptor.
pub const fn ring(d: u64, dpl: u64) -> u64 {
    d | dpl << 45
}

pub fn cpuid(intel: bool) -> CpuidTable {
    let (b, d, c) =
        if intel { (0x756e_6547, 0x4965_6e69, 0x6c65_746e) } else { (0x6874_7541, 0x6974_6e65, 0x444d_4163) };
    CpuidTable::new([
        (0, ANY, [7, b, c, d]),
        (1, ANY, [0x60fb1, 0x800, 0x80a0_2009 | 1 << 24, 0x078b_fbff]),
        (7, 0, [0, 1 << 7 | 1 << 20 | 1, 1 << 2, 0]),
        (0x8000_0000, ANY, [0x8000_0008, b, c, d]),
        (0x8000_0001, ANY, [0x60fb1, 0, 1, 0x2c13_fbff]),
        (0x8000_0008, ANY, [0x3028, 0, 0, 0]),
    ])
}

/// A piece of a program.
pub type Piece = fn(&mut CodeAssembler) -> Result<(), iced_x86::IcedError>;

pub struct Machine {
    group: Arc<Group>,
    pub bus: Arc<FlatBus>,
    pub cpu: Vcpu<X86>,
    long: bool,
}
impl Machine {
    /// At power-on, with stubs and an otherwise empty RAM of 4 MiB.
    pub fn new() -> Machine {
        Machine::with(cpuid(true))
    }
    pub fn with(cpuid: CpuidTable) -> Machine {
        Machine::in_group(Group::new(), cpuid)
    }
    fn in_group(group: Arc<Group>, cpuid: CpuidTable) -> Machine {
        let bus = Arc::new(FlatBus::new(4 << 20));
        for v in 0..256 {
            assert!(bus.poke(STUBS + v * 16, &[0xf4]));
        }
        let mut state = State::new(Arc::new(cpuid));
        state.interrupts = Some(Arc::new(Line));
        let cpu = Vcpu::new(&group, bus.clone(), state);
        Machine { group, bus, cpu, long: false }
    }
    /// Real mode, CS = 0, SS:SP = 0:STACK below 64 KiB, vectors to the stubs.
    pub fn real() -> Machine {
        let mut m = Machine::new();
        for v in 0..256u64 {
            m.put16(v * 4, (STUBS + v * 16) as u16);
            m.put16(v * 4 + 2, 0);
        }
        let (hot, s) = m.cpu.parts();
        let cs = Segment { sel: 0, base: 0, ..s.segs[CS] };
        s.segs[CS] = cs;
        s.idtr = TableReg { base: 0, limit: 0x3ff };
        hot.regs[RSP.index()] = 0x7000;
        s.sync(hot);
        m
    }
    /// 32-bit protected mode, ring 0, flat segments, no paging.
    pub fn protected() -> Machine {
        let mut m = Machine::new();
        m.tables();
        m.flat32();
        m
    }
    /// Protected mode with flat segments.
    pub fn flat32(&mut self) {
        let (hot, s) = self.cpu.parts();
        s.cr0 |= PE;
        flat(s, CODE32);
        hot.regs[RSP.index()] = STACK0;
        s.sync(hot);
    }
    /// 64-bit mode, ring 0, the first gigabyte mapped one to one by 4 KiB and 2 MiB pages, user and writable.
    pub fn long() -> Machine {
        Machine::long_with(cpuid(true))
    }
    pub fn long_with(cpuid: CpuidTable) -> Machine {
        Machine::with(cpuid).into_long()
    }
    /// The same with regions, compiled at once.
    pub fn long_jit(threshold: u16) -> Machine {
        let group = Group::new();
        group.set_jit(JitConfig { quick: 0, threshold, cache: 1 << 20, synchronous: true, ..JitConfig::default() });
        Machine::in_group(group, cpuid(true)).into_long()
    }
    fn into_long(mut self) -> Machine {
        let m = &mut self;
        m.long = true;
        m.tables();
        // PML4, PDPT, PD, PT of the first 2 MiB.
        m.put64(TABLES, (TABLES + 0x1000) | 7);
        m.put64(TABLES + 0x1000, (TABLES + 0x2000) | 7);
        m.put64(TABLES + 0x2000, (TABLES + 0x3000) | 7);
        for i in 1..512 {
            m.put64(TABLES + 0x2000 + i * 8, i << 21 | 0x87);
        }
        for i in 0..512 {
            m.put64(TABLES + 0x3000 + i * 8, i << 12 | 7);
        }
        let (hot, s) = m.cpu.parts();
        s.cr0 |= PE | PG | WP;
        s.cr4 |= PAE;
        s.cr3 = TABLES;
        s.efer = LME | LMA | NXE;
        flat(s, CODE64);
        hot.regs[RSP.index()] = STACK0;
        s.sync(hot);
        self
    }
    /// GDT, IDT and TSS of the mode.
    pub fn tables(&mut self) {
        let long = self.long;
        let code0 = if long { CODE64 } else { CODE32 };
        for (sel, d) in [
            (CODE0, code0),
            (DATA0, DATA32),
            (CODE3, ring(CODE32, 3)),
            (DATA3, ring(DATA32, 3)),
            (CODE3L, ring(CODE64, 3)),
            (TR, descriptor(TSS, 0x67, 0x8b)),
        ] {
            self.set_gdt(sel, d);
        }
        for v in 0..=255 {
            self.gate(v, CODE0, STUBS + u64::from(v) * 16, if v >= 0x80 { 0xee } else { 0x8e });
        }
        if long {
            self.put64(TSS + 4, TSS_STACK0);
        } else {
            self.put32(TSS + 4, TSS_STACK0 as u32);
            self.put32(TSS + 8, DATA0.into());
        }
        // No I/O map.
        self.put16(TSS + 0x66, 0x68);
        let s = self.cpu.state();
        s.gdtr = TableReg { base: GDT, limit: 0x7ff };
        s.idtr = TableReg { base: IDT, limit: 0xfff };
        s.tr = Segment { sel: TR, base: TSS, limit: 0x67, attr: 0x8b };
        s.ldtr = Segment::default();
    }
    pub fn set_gdt(&mut self, sel: u16, d: u64) {
        self.put64(GDT + u64::from(sel & !7), d);
    }
    /// Puts a gate into the IDT; `access` is byte 5.
    pub fn gate(&mut self, v: u8, sel: u16, ip: u64, access: u64) {
        let low = gate(sel, ip, access);
        if self.long {
            self.put64(IDT + u64::from(v) * 16, low);
            self.put64(IDT + u64::from(v) * 16 + 8, ip >> 32);
        } else {
            self.put64(IDT + u64::from(v) * 8, low);
        }
    }
    /// Moves to ring 3 with flat segments.
    pub fn ring3(&mut self) {
        let long = self.long;
        let (hot, s) = self.cpu.parts();
        s.cpl = 3;
        let code = if long { (CODE3L, CODE64) } else { (CODE3, CODE32) };
        s.segs[CS] = loaded(code.0, ring(code.1, 3));
        for r in [ES, SS, DS, FS, GS] {
            s.segs[r] = loaded(DATA3, ring(DATA32, 3));
        }
        hot.regs[RSP.index()] = STACK3;
        s.sync(hot);
    }
    pub fn put(&mut self, at: u64, bytes: &[u8]) {
        assert!(self.bus.poke(at, bytes));
        // Like DMA: what was decoded there is dropped.
        let page = self.bus.ram(0, at & !0xfff).expect("RAM");
        self.group.written(page.host.addr() + (at as usize & 0xfff), bytes.len());
    }
    pub fn put16(&mut self, at: u64, v: u16) {
        self.put(at, &v.to_le_bytes())
    }
    pub fn put32(&mut self, at: u64, v: u32) {
        self.put(at, &v.to_le_bytes())
    }
    pub fn put64(&mut self, at: u64, v: u64) {
        self.put(at, &v.to_le_bytes())
    }
    fn get<const N: usize>(&self, at: u64) -> [u8; N] {
        let mut b = [0; N];
        assert!(self.bus.peek(at, &mut b));
        b
    }
    pub fn get8(&self, at: u64) -> u8 {
        self.get::<1>(at)[0]
    }
    pub fn get16(&self, at: u64) -> u16 {
        u16::from_le_bytes(self.get(at))
    }
    pub fn get32(&self, at: u64) -> u32 {
        u32::from_le_bytes(self.get(at))
    }
    pub fn get64(&self, at: u64) -> u64 {
        u64::from_le_bytes(self.get(at))
    }
    pub fn reg(&mut self, r: accel::tcg::Slot) -> u64 {
        self.cpu.hot().regs[r.index()]
    }
    pub fn set_reg(&mut self, r: accel::tcg::Slot, v: u64) {
        self.cpu.hot().regs[r.index()] = v
    }
    pub fn flags(&mut self) -> u64 {
        let (hot, s) = self.cpu.parts();
        s.flags(hot).into()
    }
    pub fn set_flags(&mut self, v: u64) {
        let (hot, s) = self.cpu.parts();
        s.set_flags(hot, v as u32, u32::MAX);
        s.sync(hot);
    }
    /// Assembles a program for `CODE`, in the size of the running code.
    pub fn assemble(
        &mut self,
        at: u64,
        f: impl FnOnce(&mut CodeAssembler) -> Result<(), iced_x86::IcedError>,
    ) -> usize {
        let bits = self.cpu.state().code_bits();
        self.assemble_bits(bits, at, at, f)
    }
    pub fn assemble_bits(
        &mut self,
        bits: u32,
        at: u64,
        ip: u64,
        f: impl FnOnce(&mut CodeAssembler) -> Result<(), iced_x86::IcedError>,
    ) -> usize {
        let mut a = CodeAssembler::new(bits).expect("a code size");
        f(&mut a).expect("instructions that exist");
        let bytes = a.assemble(ip).expect("a program");
        self.put(at, &bytes);
        bytes.len()
    }
    /// Assembles at `CODE` and runs until something stops.
    pub fn run(&mut self, f: impl FnOnce(&mut CodeAssembler) -> Result<(), iced_x86::IcedError>) -> Exit {
        self.assemble(CODE, f);
        self.go(CODE)
    }
    /// Runs from a linear address.
    pub fn go(&mut self, at: u64) -> Exit {
        self.cpu.state().halted = false;
        self.cpu.set_pc(at);
        self.resume()
    }
    pub fn resume(&mut self) -> Exit {
        let exit = self.cpu.run(100_000);
        assert_ne!(exit, Exit::Budget, "the program does not end; at {:#x}", self.cpu.pc());
        exit
    }
    /// The vector whose stub halted.
    pub fn vector(&self) -> Option<u8> {
        let n = self.cpu.pc().checked_sub(STUBS + 1)?;
        (n % 16 == 0 && n / 16 < 256).then_some((n / 16) as u8)
    }
    /// The `n`th word of width `w` on the current stack.
    pub fn stack(&mut self, w: W, n: u64) -> u64 {
        let rsp = self.reg(RSP);
        let s = self.cpu.state();
        let la = if s.code64() { rsp } else { s.segs[SS].base + (rsp & s.stack_mask()) };
        let at = la + n * u64::from(w.bytes());
        match w {
            W::B2 => self.get16(at).into(),
            W::B4 => self.get32(at).into(),
            _ => self.get64(at),
        }
    }
    /// Words on the stack of the mode's natural width.
    pub fn frame<const N: usize>(&mut self) -> [u64; N] {
        let w = if self.long { W::B8 } else { W::B4 };
        std::array::from_fn(|n| self.stack(w, n as u64))
    }
    /// Runs a program that must raise this exception with this error code at `CODE + at`; leaves the frame behind it.
    #[track_caller]
    pub fn faults(
        &mut self,
        vector: u8,
        error: Option<u64>,
        at: u64,
        f: impl FnOnce(&mut CodeAssembler) -> Result<(), iced_x86::IcedError>,
    ) {
        assert_eq!(self.run(f), Exit::Halted);
        self.check_fault(vector, error, at);
    }
    #[track_caller]
    pub fn check_fault(&mut self, vector: u8, error: Option<u64>, at: u64) {
        assert_eq!(self.vector(), Some(vector), "stopped at {:#x}", self.cpu.pc());
        let [a, b] = self.frame();
        match error {
            Some(e) => assert_eq!((a, b), (e, CODE + at), "error code and address"),
            None => assert_eq!(a, CODE + at, "address"),
        }
    }
}

/// The interrupt controller of these tests: vector 0x91 on request.
struct Line;
impl Interrupts for Line {
    fn acknowledge(&self) -> Option<u8> {
        Some(0x91)
    }
    fn tpr(&self) -> u8 {
        5
    }
    fn set_tpr(&self, _: u8) {}
    fn base(&self) -> u64 {
        0xfee0_0900
    }
    fn set_base(&self, _: u64) -> bool {
        true
    }
    fn read_msr(&self, msr: u32) -> Option<u64> {
        (msr == 0x802).then_some(7)
    }
    fn write_msr(&self, msr: u32, _: u64) -> bool {
        msr == 0x80b
    }
    fn set_deadline(&self, _: u64, _: u64) {}
    fn init(&self) {}
}

/// A byte-granular descriptor; `access` is byte 5.
pub fn descriptor(base: u64, limit: u64, access: u64) -> u64 {
    limit & 0xffff | (base & 0xff_ffff) << 16 | access << 40 | (limit >> 16 & 0xf) << 48 | (base >> 24 & 0xff) << 56
}
/// A gate's low half; `access` is byte 5.
pub fn gate(sel: u16, ip: u64, access: u64) -> u64 {
    ip & 0xffff | u64::from(sel) << 16 | access << 40 | (ip >> 16 & 0xffff) << 48
}
/// A segment register as loading this descriptor makes it.
pub fn loaded(sel: u16, d: u64) -> Segment {
    let d = Descriptor::from_bits(d);
    let attr: Attr = d.attr();
    Segment { sel, base: d.base().into(), limit: d.limit(), attr: attr.into_bits() }
}
fn flat(s: &mut State, code: u64) {
    s.segs[CS] = loaded(CODE0, code);
    for r in [ES, SS, DS, FS, GS] {
        s.segs[r] = loaded(DATA0, DATA32);
    }
}
