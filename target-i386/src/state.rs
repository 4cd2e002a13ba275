//! The registers that tier 0 does not touch, and what is derived from them. Source: Intel SDM vol. 3A, chapters 2–6.
//!
//! General registers, segment bases and limits (mirrored from `Regs::segs` by [`State::sync`]), XMM registers, MXCSR
//! and the arithmetic flags live in the engine's [`Hot`].

use crate::{fpu::Fpu, reg::*, sem::flags, sys::cpuid::CpuidTable};
use accel::tcg::{Hot, SEG_BASE, SEG_LIMIT};
use serde::{Deserialize, Serialize};
use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicU32, AtomicU64, Ordering},
};

/// A segment register with its hidden part.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Segment {
    /// Visible selector.
    pub sel: u16,
    /// Base address.
    pub base: u64,
    /// Limit in bytes (granularity applied), inclusive.
    pub limit: u32,
    /// Descriptor bits 40..56 without the limit: type 0–3, S 4, DPL 5–6, P 7, AVL 12, L 13, D/B 14, G 15. 0: unusable.
    pub attr: u16,
}
/// Bits of [`Segment::attr`].
pub mod attr {
    /// Accessed (code and data).
    pub const ACCESSED: u16 = 1;
    /// Writable data, readable code.
    pub const RW: u16 = 1 << 1;
    /// Expand-down data, conforming code.
    pub const DC: u16 = 1 << 2;
    /// Code.
    pub const CODE: u16 = 1 << 3;
    /// Code or data, not a system segment.
    pub const S: u16 = 1 << 4;
    /// Present.
    pub const P: u16 = 1 << 7;
    /// 64-bit code.
    pub const L: u16 = 1 << 13;
    /// 32-bit code or stack, upper bound of expand-down data.
    pub const DB: u16 = 1 << 14;
    /// Limit in pages.
    pub const G: u16 = 1 << 15;
}
impl Segment {
    /// Type bits.
    pub const fn kind(&self) -> u8 {
        (self.attr & 15) as u8
    }
    /// Descriptor privilege level.
    pub const fn dpl(&self) -> u8 {
        (self.attr >> 5 & 3) as u8
    }
    /// All of the bits are set.
    pub const fn has(&self, bits: u16) -> bool {
        self.attr & bits == bits
    }
    /// Real-mode or VM86 segment for a selector.
    pub const fn real(sel: u16, attr: u16) -> Segment {
        Segment { sel, base: (sel as u64) << 4, limit: 0xffff, attr }
    }
    /// Base 0, limit 4 GiB, plain reads and writes allowed.
    pub const fn flat(&self) -> bool {
        self.base == 0 && self.limit == u32::MAX && self.plain()
    }
    /// Expand-up data that may be read and written: the limit is all there is to check.
    pub const fn plain(&self) -> bool {
        let a = self.attr;
        a & (attr::P | attr::S | attr::RW | attr::CODE | attr::DC) == attr::P | attr::S | attr::RW
    }
}

/// GDTR or IDTR.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct TableReg {
    /// Linear address.
    pub base: u64,
    /// Inclusive limit.
    pub limit: u16,
}

/// CR0, CR4, EFER and EFLAGS bits.
#[expect(missing_docs, reason = "the manual's names")]
pub mod bits {
    pub const CR0_PE: u64 = 1;
    pub const CR0_MP: u64 = 1 << 1;
    pub const CR0_EM: u64 = 1 << 2;
    pub const CR0_TS: u64 = 1 << 3;
    pub const CR0_ET: u64 = 1 << 4;
    pub const CR0_NE: u64 = 1 << 5;
    pub const CR0_WP: u64 = 1 << 16;
    pub const CR0_AM: u64 = 1 << 18;
    pub const CR0_NW: u64 = 1 << 29;
    pub const CR0_CD: u64 = 1 << 30;
    pub const CR0_PG: u64 = 1 << 31;
    pub const CR4_VME: u64 = 1;
    pub const CR4_PVI: u64 = 1 << 1;
    pub const CR4_TSD: u64 = 1 << 2;
    pub const CR4_DE: u64 = 1 << 3;
    pub const CR4_PSE: u64 = 1 << 4;
    pub const CR4_PAE: u64 = 1 << 5;
    pub const CR4_MCE: u64 = 1 << 6;
    pub const CR4_PGE: u64 = 1 << 7;
    pub const CR4_PCE: u64 = 1 << 8;
    pub const CR4_OSFXSR: u64 = 1 << 9;
    pub const CR4_OSXMMEXCPT: u64 = 1 << 10;
    pub const CR4_UMIP: u64 = 1 << 11;
    pub const CR4_OSXSAVE: u64 = 1 << 18;
    pub const CR4_SMEP: u64 = 1 << 20;
    pub const CR4_SMAP: u64 = 1 << 21;
    pub const EFER_SCE: u64 = 1;
    pub const EFER_LME: u64 = 1 << 8;
    pub const EFER_LMA: u64 = 1 << 10;
    pub const EFER_NXE: u64 = 1 << 11;
    pub const CF: u32 = 1;
    pub const PF: u32 = 1 << 2;
    pub const AF: u32 = 1 << 4;
    pub const ZF: u32 = 1 << 6;
    pub const SF: u32 = 1 << 7;
    pub const TF: u32 = 1 << 8;
    pub const IF: u32 = 1 << 9;
    pub const DF: u32 = 1 << 10;
    pub const OF: u32 = 1 << 11;
    pub const IOPL: u32 = 3 << 12;
    pub const NT: u32 = 1 << 14;
    pub const RF: u32 = 1 << 16;
    pub const VM: u32 = 1 << 17;
    pub const AC: u32 = 1 << 18;
    pub const VIF: u32 = 1 << 19;
    pub const VIP: u32 = 1 << 20;
    pub const ID: u32 = 1 << 21;
    /// The arithmetic flags: deferred.
    pub const ARITH: u32 = CF | PF | AF | ZF | SF | OF;
}
use bits::*;

/// Bits of the mode: everything that selects code.
pub mod mode {
    /// Code size in bits 0–1: 0 for 16 bits, 1 for 32, 2 for 64.
    pub const SIZE: u32 = 3;
    /// The stack pointer is ESP (outside of 64-bit mode).
    pub const STACK32: u32 = 1 << 2;
    /// SS has base 0, limit 4 GiB and takes reads and writes.
    pub const FLAT_SS: u32 = 1 << 3;
    /// DS likewise.
    pub const FLAT_DS: u32 = 1 << 4;
    /// ES likewise.
    pub const FLAT_ES: u32 = 1 << 5;
    /// CR0.EM = CR0.TS = 0: x87 and MMX instructions run.
    pub const FPU: u32 = 1 << 6;
    /// Also CR4.OSFXSR = 1: SSE instructions run.
    pub const SSE: u32 = 1 << 7;
    /// Protected mode, VM86 included.
    pub const PROTECTED: u32 = 1 << 8;
    /// VM86.
    pub const VM86: u32 = 1 << 9;
    /// The code segment's limit must be checked at branches (protected mode, less than 4 GiB).
    pub const LIMIT_CS: u32 = 1 << 10;
    /// MXCSR leaves a SIMD floating-point exception unmasked.
    pub const SIMD_UNMASKED: u32 = 1 << 11;
    /// x87 and MMX instructions run, and the host's unit can hold the guest's: all its exceptions are masked.
    pub const X87_MASKED: u32 = 1 << 12;

    /// Bits of the code size: 16, 32 or 64.
    pub const fn bits(mode: u32) -> u32 {
        match mode & SIZE {
            0 => 16,
            1 => 32,
            _ => 64,
        }
    }
}

/// Events that other threads announce; set a bit, then kick. A machine's CPU keeps most of them itself ([`Wires`]).
#[derive(Default)]
pub struct Signals {
    bits: AtomicU32,
    sipi: AtomicU32,
    wires: OnceLock<Box<dyn Wires>>,
}
/// Where a machine's CPU gets its events from; bits of [`signal`](mod@signal).
pub trait Wires: Send + Sync {
    /// What is announced.
    fn pending(&self) -> u32;
    /// Consumes events that are no levels.
    fn clear(&self, bits: u32);
    /// Vector of the start-up IPI that was just consumed; `None`: an INIT came after it, it is lost.
    fn sipi_vector(&self) -> Option<u8>;
}
/// Bits of [`Signals`].
pub mod signal {
    /// The interrupt line (PIC) or the local APIC has a maskable interrupt. A level: stays until withdrawn.
    pub const HARD: u32 = 1;
    /// Non-maskable interrupt.
    pub const NMI: u32 = 2;
    /// System management interrupt.
    pub const SMI: u32 = 4;
    /// INIT.
    pub const INIT: u32 = 8;
    /// Start-up IPI; the vector is beside it.
    pub const SIPI: u32 = 16;
    /// Machine check.
    pub const MCE: u32 = 32;
    /// The A20 line is masked. A level: stays until withdrawn.
    pub const A20: u32 = 64;
}
impl Signals {
    /// Connects the CPU. The first stays.
    pub fn connect(&self, wires: Box<dyn Wires>) {
        _ = self.wires.set(wires);
    }
    /// What is announced.
    pub fn get(&self) -> u32 {
        self.bits.load(Ordering::SeqCst) | self.wires.get().map_or(0, |w| w.pending())
    }
    /// Announces; the caller then kicks the vCPU.
    pub fn set(&self, bits: u32) {
        self.bits.fetch_or(bits, Ordering::SeqCst);
    }
    /// Withdraws or consumes.
    pub fn clear(&self, bits: u32) {
        self.bits.fetch_and(!bits, Ordering::SeqCst);
        if let Some(w) = self.wires.get() {
            w.clear(bits)
        }
    }
    /// Consumes one bit: whether it was set.
    pub fn take(&self, bit: u32) -> bool {
        let set = self.get() & bit != 0;
        self.clear(bit);
        set
    }
    /// Announces a start-up IPI with its vector.
    pub fn set_sipi(&self, vector: u8) {
        self.sipi.store(vector as u32, Ordering::SeqCst);
        self.set(signal::SIPI)
    }
    /// Vector of the last start-up IPI; `None`: it is lost.
    pub fn sipi_vector(&self) -> Option<u8> {
        self.wires.get().map_or(Some(self.sipi.load(Ordering::SeqCst) as u8), |w| w.sipi_vector())
    }
}

/// General registers on show while an access to [`Mailbox::PORT`] is handled: the handler runs on the vCPU's thread, which
/// holds the registers themselves.
#[derive(Default)]
pub struct Mailbox {
    regs: [AtomicU64; 16],
    written: AtomicU32,
}
impl Mailbox {
    /// The only port with a device that looks at registers (VMware's).
    pub const PORT: u16 = 0x5658;

    /// Puts the registers on show.
    pub fn offer(&self, regs: &[u64]) {
        self.written.store(0, Ordering::Relaxed);
        self.regs.iter().zip(regs).for_each(|(to, from)| to.store(*from, Ordering::Relaxed));
    }
    /// What was written since: numbers and values.
    pub fn take(&self) -> impl Iterator<Item = (u8, u64)> + '_ {
        let written = self.written.swap(0, Ordering::Relaxed);
        let regs = self.regs.iter().zip(0u8..).filter(move |(_, i)| written >> i & 1 != 0);
        regs.map(|(r, i)| (i, r.load(Ordering::Relaxed)))
    }
    /// Register `n`; 0 for one that there is not.
    pub fn read(&self, n: usize) -> u64 {
        self.regs.get(n).map_or(0, |r| r.load(Ordering::Relaxed))
    }
    /// Replaces register `n`.
    pub fn write(&self, n: usize, v: u64) {
        if let Some(r) = self.regs.get(n) {
            r.store(v, Ordering::Relaxed);
            self.written.fetch_or(1 << n, Ordering::Relaxed);
        }
    }
}

/// The interrupt controller in front of a CPU, as the CPU uses it.
pub trait Interrupts: Send + Sync {
    /// Acknowledges the highest pending maskable interrupt (local APIC first, then the PIC): its vector, or nothing if it
    /// went away.
    fn acknowledge(&self) -> Option<u8>;
    /// Task priority, CR8 (bits 0–3).
    fn tpr(&self) -> u8;
    /// Sets the task priority.
    fn set_tpr(&self, v: u8);
    /// IA32_APIC_BASE.
    fn base(&self) -> u64;
    /// Writes IA32_APIC_BASE; false for a value that must raise #GP.
    fn set_base(&self, v: u64) -> bool;
    /// Reads an APIC MSR (x2APIC range, TSC deadline); `None` raises #GP.
    fn read_msr(&self, msr: u32) -> Option<u64>;
    /// Writes an APIC MSR of the x2APIC range; false raises #GP.
    fn write_msr(&self, msr: u32, v: u64) -> bool;
    /// Writes IA32_TSC_DEADLINE; `ticks` is the deadline by [`Tsc::now`], without the guest's offset.
    fn set_deadline(&self, v: u64, ticks: u64);
    /// Drives FERR#: an x87 exception is pending while CR0.NE = 0 (IRQ 13 on a PC). True: the processor waits for the
    /// interrupt; false: nobody is there, or IGNNE# is asserted.
    fn ferr(&self, _level: bool) -> bool {
        false
    }
    /// The local APIC was reset by INIT.
    fn init(&self);
}

/// The clock behind RDTSC.
pub trait Tsc: Send + Sync {
    /// Ticks since power-on.
    fn now(&self) -> u64;
}

/// Model-specific registers that only remember.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the manual's names")]
pub struct Msrs {
    pub star: u64,
    pub lstar: u64,
    pub cstar: u64,
    pub fmask: u64,
    pub kernel_gs_base: u64,
    pub sysenter_cs: u64,
    pub sysenter_esp: u64,
    pub sysenter_eip: u64,
    pub tsc_aux: u64,
    pub tsc_offset: u64,
    pub pat: u64,
    pub misc_enable: u64,
    pub mtrr_def_type: u64,
    pub mtrr_fixed: [u64; 11],
    pub mtrr_var: [[u64; 2]; 8],
    pub mcg_status: u64,
    pub mcg_ctl: u64,
    pub mc_banks: [[u64; 4]; 10],
    pub smi_count: u64,
    pub ucode_rev: u64,
}
impl Default for Msrs {
    fn default() -> Self {
        Msrs {
            star: 0,
            lstar: 0,
            cstar: 0,
            fmask: 0,
            kernel_gs_base: 0,
            sysenter_cs: 0,
            sysenter_esp: 0,
            sysenter_eip: 0,
            tsc_aux: 0,
            tsc_offset: 0,
            pat: 0x0007_0406_0007_0406,
            misc_enable: 1,
            mtrr_def_type: 0,
            mtrr_fixed: [0; 11],
            mtrr_var: [[0; 2]; 8],
            mcg_status: 0,
            mcg_ctl: u64::MAX,
            mc_banks: [[u64::MAX, 0, 0, 0]; 10],
            smi_count: 0,
            ucode_rev: 0x1_0000_0000,
        }
    }
}

/// All that a snapshot keeps beside the engine's registers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the manual's names")]
pub struct Regs {
    /// ES CS SS DS FS GS. After a change call [`State::sync`].
    pub segs: [Segment; 6],
    pub ldtr: Segment,
    pub tr: Segment,
    pub gdtr: TableReg,
    pub idtr: TableReg,
    pub cr0: u64,
    pub cr2: u64,
    pub cr3: u64,
    pub cr4: u64,
    pub dr: [u64; 8],
    pub xcr0: u64,
    pub efer: u64,
    /// PAE page directory pointers, loaded with CR3.
    pub pdpte: [u64; 4],
    pub msrs: Msrs,
    /// EFLAGS without the arithmetic flags; bit 1 is set.
    pub eflags: u32,
    pub cpl: u8,
    /// STI or MOV SS has just been executed: interrupts (and for MOV SS debug traps) wait for one instruction.
    pub shadow: Shadow,
    /// The shadow was made by the running instruction (single stepping).
    pub shadow_fresh: bool,
    /// EFLAGS.TF was set when the running instruction began (single stepping).
    pub step_armed: bool,
    /// EFLAGS.RF was set when the running instruction began (single stepping).
    pub resume_armed: bool,
    /// An NMI handler has not yet executed IRET.
    pub nmi_masked: bool,
    pub smm: bool,
    /// NMIs were masked when SMM was entered.
    pub smm_nmi_masked: bool,
    pub smbase: u64,
    /// INIT or power-on of an application processor: only a start-up IPI gets it going.
    pub wait_for_sipi: bool,
    /// Halted by HLT.
    pub halted: bool,
    /// Bits of [`signal`] that waited when events were last looked at: worth another look once they may be deliverable.
    pub held: u32,
    /// Physical addresses are taken through this mask (A20 gate).
    pub a20_mask: u64,
    /// DR6 bits of data breakpoints hit by the running instruction.
    pub debug_hits: u64,
    /// FERR# is asserted.
    pub ferr: bool,
    pub fpu: Fpu,
}

/// Interrupt shadow.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum Shadow {
    /// None.
    #[default]
    No,
    /// After STI.
    Sti,
    /// After MOV SS or POP SS.
    MovSs,
}

/// The registers tier 0 does not touch, and the CPU's connections.
pub struct State {
    /// What a snapshot keeps.
    pub r: Regs,
    /// What CPUID reports and which features exist.
    pub cpuid: Arc<CpuidTable>,
    /// Events from other threads.
    pub signals: Arc<Signals>,
    /// Registers that a port's device may ask for.
    pub mailbox: Arc<Mailbox>,
    /// Interrupt controller; none in bare tests.
    pub interrupts: Option<Arc<dyn Interrupts>>,
    /// Time stamp counter; none: counts calls.
    pub tsc: Option<Arc<dyn Tsc>>,
    /// Calls counted where there is no time stamp counter.
    pub tsc_calls: u64,
    /// Exceptions end the run with [`EXIT_CAUGHT`](crate::EXIT_CAUGHT) instead of being delivered: for tests.
    pub catch: bool,
    /// The exception caught last.
    pub caught: Option<crate::exception::Exception>,
    /// Events that the log has shown.
    pub logged: u64,
}
impl std::ops::Deref for State {
    type Target = Regs;
    fn deref(&self) -> &Regs {
        &self.r
    }
}
impl std::ops::DerefMut for State {
    fn deref_mut(&mut self) -> &mut Regs {
        &mut self.r
    }
}

impl Default for Regs {
    /// Power-on values, SDM vol. 3A table 9-1.
    fn default() -> Regs {
        use attr::*;
        let data = Segment::real(0, P | S | RW | ACCESSED);
        let mut segs = [data; 6];
        segs[CS] = Segment { sel: 0xf000, base: 0xffff_0000, limit: 0xffff, attr: P | S | CODE | RW | ACCESSED };
        Regs {
            segs,
            ldtr: Segment { sel: 0, base: 0, limit: 0xffff, attr: P | 2 },
            tr: Segment { sel: 0, base: 0, limit: 0xffff, attr: P | 11 },
            gdtr: TableReg { base: 0, limit: 0xffff },
            idtr: TableReg { base: 0, limit: 0xffff },
            cr0: CR0_ET | CR0_NW | CR0_CD,
            cr2: 0,
            cr3: 0,
            cr4: 0,
            dr: [0, 0, 0, 0, 0, 0, 0xffff_0ff0, 0x400],
            xcr0: 1,
            efer: 0,
            pdpte: [0; 4],
            msrs: Msrs::default(),
            eflags: 2,
            cpl: 0,
            shadow: Shadow::No,
            shadow_fresh: false,
            step_armed: false,
            resume_armed: false,
            nmi_masked: false,
            smm: false,
            smm_nmi_masked: false,
            smbase: 0x30000,
            wait_for_sipi: false,
            halted: false,
            held: 0,
            a20_mask: u64::MAX,
            debug_hits: 0,
            ferr: false,
            fpu: Fpu::default(),
        }
    }
}

impl State {
    /// A CPU at power-on.
    pub fn new(cpuid: Arc<CpuidTable>) -> State {
        State {
            r: Regs::default(),
            cpuid,
            signals: Arc::default(),
            mailbox: Arc::default(),
            interrupts: None,
            tsc: None,
            tsc_calls: 0,
            catch: false,
            caught: None,
            logged: 0,
        }
    }
    /// Ticks of the time stamp counter before the guest's offset.
    pub fn ticks(&mut self) -> u64 {
        match &self.tsc {
            Some(t) => t.now(),
            None => {
                self.tsc_calls += 1;
                self.tsc_calls
            }
        }
    }
    /// CS.L in long mode.
    pub fn code64(&self) -> bool {
        self.efer & EFER_LMA != 0 && self.segs[CS].has(attr::L)
    }
    /// Size of code as 16, 32 or 64.
    pub fn code_bits(&self) -> u32 {
        if self.code64() {
            64
        } else if self.segs[CS].has(attr::DB) {
            32
        } else {
            16
        }
    }
    /// CR0.PE.
    pub fn protected(&self) -> bool {
        self.cr0 & CR0_PE != 0
    }
    /// EFLAGS.VM.
    pub fn vm86(&self) -> bool {
        self.eflags & VM != 0
    }
    /// EFER.LMA.
    pub fn long(&self) -> bool {
        self.efer & EFER_LMA != 0
    }
    /// I/O privilege level.
    pub fn iopl(&self) -> u8 {
        (self.eflags >> 12 & 3) as u8
    }
    /// CLI and STI act on IF.
    pub fn owns_if(&self) -> bool {
        !self.protected() || self.cpl <= self.iopl()
    }
    /// STI: interrupts stay off for one more instruction if they were off.
    pub fn set_if(&mut self) {
        if self.eflags & IF == 0 {
            self.eflags |= IF;
            self.shadow = Shadow::Sti;
            self.shadow_fresh = true;
        }
    }
    /// Mask of the stack pointer.
    pub fn stack_mask(&self) -> u64 {
        if self.code64() {
            u64::MAX
        } else if self.segs[SS].has(attr::DB) {
            0xffff_ffff
        } else {
            0xffff
        }
    }
    /// Linear address of an instruction pointer.
    pub fn linear_ip(&self, ip: u64) -> u64 {
        if self.code64() { ip } else { self.segs[CS].base.wrapping_add(ip) & 0xffff_ffff }
    }
    /// Instruction pointer of a linear address.
    pub fn ip_of(&self, pc: u64) -> u64 {
        if self.code64() { pc } else { pc.wrapping_sub(self.segs[CS].base) & 0xffff_ffff }
    }
    /// Sets the slots that follow from this: [`STEP`].
    pub fn follow(&self, hot: &mut Hot) {
        hot.regs[STEP.index()] = if self.eflags & bits::DF != 0 { u64::MAX } else { 1 }
    }
    /// Everything that selects code.
    pub fn mode(&self, hot: &Hot) -> u32 {
        use crate::sem::x87_host::may_hold;
        use accel::tcg::vector::mxcsr::MASKS;
        let mut m = match self.code_bits() {
            16 => 0,
            32 => 1,
            _ => 2,
        };
        let s = &self.segs;
        let code64 = m == 2;
        for (on, bit) in [
            (!code64 && s[SS].has(attr::DB), mode::STACK32),
            (code64 || s[SS].flat(), mode::FLAT_SS),
            (code64 || s[DS].flat(), mode::FLAT_DS),
            (code64 || s[ES].flat(), mode::FLAT_ES),
            (self.cr0 & (CR0_EM | CR0_TS) == 0, mode::FPU),
            (self.cr0 & (CR0_EM | CR0_TS) == 0 && self.cr4 & CR4_OSFXSR != 0, mode::SSE),
            (self.cr0 & (CR0_EM | CR0_TS) == 0 && may_hold(self.fpu.fcw), mode::X87_MASKED),
            (self.protected(), mode::PROTECTED),
            (self.vm86(), mode::VM86),
            (!code64 && s[CS].limit != u32::MAX && self.protected() && !self.vm86(), mode::LIMIT_CS),
            (hot.fpcr as u32 & MASKS != MASKS, mode::SIMD_UNMASKED),
        ] {
            if on {
                m |= bit
            }
        }
        m
    }
    /// Mirrors segment bases and limits into the register file. Call after every change of a segment, CR0.PE, EFLAGS.VM
    /// or of 64-bit mode.
    pub fn sync(&self, hot: &mut Hot) {
        let code64 = self.code64();
        for (i, s) in self.segs.iter().enumerate() {
            let (base, limit) = match (code64, i) {
                (true, FS | GS) => (s.base, u64::MAX),
                (true, _) => (0, u64::MAX),
                // Outside of protected mode attributes do not forbid anything.
                _ if s.plain() || !self.protected() || self.vm86() => (s.base, s.limit as u64 + 1),
                _ => (s.base, 0),
            };
            hot.regs[SEG_BASE as usize + i] = base;
            hot.regs[SEG_LIMIT as usize + i] = limit;
        }
    }
    /// All of EFLAGS.
    pub fn flags(&self, hot: &Hot) -> u32 {
        self.eflags & !ARITH | flags::image(hot.deferred())
    }
    /// Replaces the EFLAGS bits of `mask`. The caller has judged them.
    pub fn set_flags(&mut self, hot: &mut Hot, v: u32, mask: u32) {
        let all = self.flags(hot) & !mask | v & mask | 2;
        self.eflags = all & !ARITH;
        hot.defer(flags::from_image(all & ARITH));
    }
}

#[cfg(test)]
mod tests {
    use super::Mailbox;

    #[test]
    fn only_written_registers_come_back() {
        let m = Mailbox::default();
        m.offer(&[7; 16]);
        m.write(3, 5);
        m.write(16, 9);
        assert_eq!((m.read(0), m.read(3), m.read(99)), (7, 5, 0));
        assert_eq!(m.take().collect::<Vec<_>>(), [(3, 5)]);
        assert_eq!(m.take().count(), 0);
    }
}
