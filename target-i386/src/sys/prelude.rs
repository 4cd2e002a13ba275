//! What every file of this folder uses: the CPU seen the way the manual speaks of it.
pub use super::cr::{cr0, cr4};
pub use super::desc::Attr;
pub use super::{Outcome, X86Cpu};
pub use crate::EXIT_SHUTDOWN;
pub use crate::exception::{Exception, Source};
pub use crate::reg::*;
use crate::state::signal;
pub use crate::state::{Segment, Shadow, State, TableReg};
pub use accel::tcg::{Kind, SEG_BASE, SEG_LIMIT, W, Who};

/// How system code ends.
pub type Rare = accel::tcg::Rare<Exception>;

/// EFLAGS bits, SDM vol. 1 §3.4.3.
pub mod eflags {
    /// CF PF AF ZF SF OF.
    pub const STATUS: u64 = 0x8d5;
    /// Trap.
    pub const TF: u64 = 1 << 8;
    /// Interrupt enable.
    pub const IF: u64 = 1 << 9;
    /// Direction.
    pub const DF: u64 = 1 << 10;
    /// I/O privilege level.
    pub const IOPL: u64 = 3 << 12;
    /// Nested task.
    pub const NT: u64 = 1 << 14;
    /// Resume.
    pub const RF: u64 = 1 << 16;
    /// Virtual-8086 mode.
    pub const VM: u64 = 1 << 17;
    /// Alignment check, access control.
    pub const AC: u64 = 1 << 18;
    /// Virtual interrupt flag.
    pub const VIF: u64 = 1 << 19;
    /// Virtual interrupt pending.
    pub const VIP: u64 = 1 << 20;
    /// CPUID exists.
    pub const ID: u64 = 1 << 21;
    /// Every bit that can be other than fixed.
    pub const ALL: u64 = STATUS | TF | IF | DF | IOPL | NT | RF | VM | AC | VIF | VIP | ID;
}

/// A general register named by slot or number.
pub trait Gpr {
    /// Its number.
    fn number(self) -> usize;
}
impl Gpr for accel::tcg::Slot {
    #[inline]
    fn number(self) -> usize {
        self.index() & 15
    }
}
impl Gpr for usize {
    #[inline]
    fn number(self) -> usize {
        self & 15
    }
}

/// Access rights as a type.
pub trait Rights {
    /// The rights.
    fn a(&self) -> Attr;
}
impl Rights for Segment {
    #[inline]
    fn a(&self) -> Attr {
        Attr::from_bits(self.attr)
    }
}

/// On whose behalf code at privilege level `cpl` accesses memory.
#[inline]
pub fn who_at(cpl: u8) -> Who {
    if cpl == 3 { Who::User } else { Who::Supervisor }
}

/// Short names for the parts of a CPU that system code works on.
pub trait View {
    /// A general register, all 64 bits.
    fn gpr(&self, r: impl Gpr) -> u64;
    /// Sets a general register, all 64 bits.
    fn set_gpr(&mut self, r: impl Gpr, v: u64);
    /// Writes a general register as instructions do: 32-bit results clear the upper half, narrower ones keep the rest.
    fn write_gpr(&mut self, w: W, r: impl Gpr, v: u64);
    /// All of EFLAGS.
    fn eflags(&self) -> u64;
    /// EFLAGS without the arithmetic flags, which would have to be computed.
    fn system_flags(&self) -> u64;
    /// Replaces the EFLAGS bits of `mask`.
    fn set_eflags(&mut self, v: u64, mask: u64);
    /// I/O privilege level.
    fn iopl(&self) -> u8;
    /// CR0.PE.
    fn protected(&self) -> bool;
    /// EFLAGS.VM.
    fn vm86(&self) -> bool;
    /// EFER.LMA.
    fn lma(&self) -> bool;
    /// 64-bit code runs.
    fn code64(&self) -> bool;
    /// Privilege level.
    fn cpl(&self) -> u8;
    /// Sets the privilege level.
    fn set_cpl(&mut self, cpl: u8);
    /// Mask of the stack pointer.
    fn stack_mask(&self) -> u64;
    /// The instruction pointer of the running instruction.
    fn ip(&self) -> u64;
    /// The instruction pointer of the next instruction.
    fn next_ip(&self) -> u64;
    /// A sum as a linear address: 64 bits in IA-32e mode, else 32.
    fn linear(&self, la: u64) -> u64;
    /// Sets a segment register. What is derived from it follows when the instruction ends by [`resume`](View::resume) or
    /// [`jump`](View::jump).
    fn set_segment(&mut self, reg: usize, s: Segment);
    /// Sets CS and the privilege level.
    fn enter_ring(&mut self, cpl: u8, cs: Segment);
    /// Mirrors what is derived from segment registers and the mode, and has newly deliverable events looked at.
    fn settle(&mut self);
    /// Has events looked at that wait and may be deliverable now. Shadows do that when they end.
    fn poll(&mut self);
    /// Goes on at the next instruction after a change that may have changed the mode.
    fn resume(&mut self) -> Rare;
    /// Goes on at an instruction pointer after a change that may have changed the mode.
    fn jump(&mut self, ip: u64) -> Rare;
    /// #GP(0) outside of ring 0.
    fn require_cpl0(&self) -> Result<(), Exception>;
    /// #UD in real and virtual-8086 mode.
    fn require_protected(&self) -> Result<(), Exception>;
    /// #GP(0) for user code under CR4.UMIP.
    fn require_no_umip(&self) -> Result<(), Exception>;
    /// Interrupts wait for one more instruction.
    fn set_shadow(&mut self, s: Shadow);
}
impl View for X86Cpu<'_> {
    #[inline]
    fn gpr(&self, r: impl Gpr) -> u64 {
        self.hot.regs[r.number()]
    }
    #[inline]
    fn set_gpr(&mut self, r: impl Gpr, v: u64) {
        self.hot.regs[r.number()] = v
    }
    fn write_gpr(&mut self, w: W, r: impl Gpr, v: u64) {
        let old = &mut self.hot.regs[r.number()];
        *old = match w {
            W::B4 | W::B8 => v & w.mask(),
            _ => *old & !w.mask() | v & w.mask(),
        };
    }
    #[inline]
    fn eflags(&self) -> u64 {
        self.state.flags(self.hot).into()
    }
    #[inline]
    fn system_flags(&self) -> u64 {
        self.state.eflags.into()
    }
    #[inline]
    fn set_eflags(&mut self, v: u64, mask: u64) {
        if mask & eflags::STATUS == 0 {
            let (v, mask) = (v as u32, mask as u32);
            self.state.eflags = self.state.eflags & !mask | v & mask;
        } else {
            self.state.set_flags(self.hot, v as u32, mask as u32)
        }
    }
    #[inline]
    fn iopl(&self) -> u8 {
        self.state.iopl()
    }
    #[inline]
    fn protected(&self) -> bool {
        self.state.protected()
    }
    #[inline]
    fn vm86(&self) -> bool {
        self.state.vm86()
    }
    #[inline]
    fn lma(&self) -> bool {
        self.state.long()
    }
    #[inline]
    fn code64(&self) -> bool {
        self.state.code64()
    }
    #[inline]
    fn cpl(&self) -> u8 {
        self.state.cpl
    }
    #[inline]
    fn set_cpl(&mut self, cpl: u8) {
        self.state.cpl = cpl
    }
    #[inline]
    fn stack_mask(&self) -> u64 {
        self.state.stack_mask()
    }
    #[inline]
    fn ip(&self) -> u64 {
        self.state.ip_of(self.op.ip)
    }
    #[inline]
    fn next_ip(&self) -> u64 {
        self.state.ip_of(self.op.next_ip)
    }
    #[inline]
    fn linear(&self, la: u64) -> u64 {
        if self.lma() { la } else { la & 0xffff_ffff }
    }
    #[inline]
    fn set_segment(&mut self, reg: usize, s: Segment) {
        self.state.segs[reg] = s
    }
    #[inline]
    fn enter_ring(&mut self, cpl: u8, cs: Segment) {
        self.state.cpl = cpl;
        self.state.segs[CS] = cs;
    }
    fn settle(&mut self) {
        // Between two pieces of 64-bit code only the bases of FS and GS can differ; the limit says that this is one.
        if self.code64() && self.hot.regs[usize::from(SEG_LIMIT)] == u64::MAX {
            for reg in [FS, GS] {
                self.hot.regs[usize::from(SEG_BASE) + reg] = self.state.segs[reg].base;
            }
        } else {
            self.state.sync(self.hot);
        }
        self.poll();
    }
    #[inline]
    fn poll(&mut self) {
        // What came since then has kicked the CPU.
        let held = self.state.held;
        let only_masked = held == signal::HARD && u64::from(self.state.eflags) & eflags::IF == 0;
        if held != 0 && !only_masked && self.state.shadow == Shadow::No {
            self.ask_service();
        }
    }
    fn resume(&mut self) -> Rare {
        self.settle();
        Rare::To(self.op.next_ip)
    }
    fn jump(&mut self, ip: u64) -> Rare {
        self.settle();
        Rare::To(self.state.linear_ip(ip))
    }
    fn require_cpl0(&self) -> Result<(), Exception> {
        if self.state.cpl == 0 { Ok(()) } else { Err(Exception::gp(0)) }
    }
    fn require_protected(&self) -> Result<(), Exception> {
        if self.protected() && !self.vm86() { Ok(()) } else { Err(Exception::ud()) }
    }
    fn require_no_umip(&self) -> Result<(), Exception> {
        if self.state.cr4 & cr4::UMIP != 0 && self.state.cpl != 0 { Err(Exception::gp(0)) } else { Ok(()) }
    }
    fn set_shadow(&mut self, s: Shadow) {
        self.state.shadow = s;
        self.state.shadow_fresh = true;
    }
}
