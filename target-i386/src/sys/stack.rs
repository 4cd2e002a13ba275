//! A stack under construction: pushes and pops with the checks of any stack segment, without touching the CPU until `commit`.
use super::desc::in_limit;
use super::prelude::*;

/// A stack pointer that moves before it is committed. Faults leave the CPU as it was.
#[derive(Clone, Copy, Debug)]
pub struct Stack {
    ss: Segment,
    /// Offset from the base, always below or equal to `mask`.
    pub sp: u64,
    /// Bits of the stack pointer in use.
    mask: u64,
    who: Who,
    /// Error code of a stack fault here.
    error: u32,
    /// IA-32e: linear addresses have 64 bits.
    long: bool,
}
impl Stack {
    /// The current stack. Its faults are #SS(0).
    pub fn current(c: &X86Cpu<'_>) -> Stack {
        let mask = c.stack_mask();
        Stack { ss: c.state.segs[SS], sp: c.gpr(RSP) & mask, mask, who: who_at(c.cpl()), error: 0, long: c.code64() }
    }
    /// Another protected-mode stack.
    pub fn new(ss: Segment, sp: u64, cpl: u8, error: u32) -> Stack {
        let mask = if ss.a().db() { 0xffff_ffff } else { 0xffff };
        Stack { ss, sp: sp & mask, mask, who: who_at(cpl), error, long: false }
    }
    /// A 64-bit stack: no base, no limit.
    pub fn long(ss: Segment, rsp: u64, cpl: u8, error: u32) -> Stack {
        Stack { ss, sp: rsp, mask: u64::MAX, who: who_at(cpl), error, long: true }
    }
    /// The same stack with this error code for its faults.
    pub fn with_error(self, error: u32) -> Stack {
        Stack { error, ..self }
    }
    fn address(&self, sp: u64, w: W) -> Result<u64, Exception> {
        if self.long {
            return if super::desc::canonical(sp) && super::desc::canonical(sp.wrapping_add(u64::from(w.bytes()) - 1)) {
                Ok(sp)
            } else {
                Err(Exception::ss(self.error))
            };
        }
        if !in_limit(self.ss.a(), self.ss.limit, sp as u32, w.bytes()) {
            return Err(Exception::ss(self.error));
        }
        Ok(self.ss.base.wrapping_add(sp) & 0xffff_ffff)
    }
    /// Pushes the low `w` of `v`.
    pub fn push(&mut self, c: &mut X86Cpu<'_>, w: W, v: u64) -> Result<(), Exception> {
        let sp = self.sp.wrapping_sub(w.bytes().into()) & self.mask;
        let la = self.address(sp, w)?;
        c.store(w, la, v & w.mask(), self.who)?;
        self.sp = sp;
        Ok(())
    }
    /// Pushes a 16-bit value into a 32-bit slot whose upper half stays as it was.
    pub fn push_low(&mut self, c: &mut X86Cpu<'_>, v: u16) -> Result<(), Exception> {
        let sp = self.sp.wrapping_sub(4) & self.mask;
        let la = self.address(sp, W::B4)?;
        c.store(W::B2, la, v.into(), self.who)?;
        self.sp = sp;
        Ok(())
    }
    /// Pops a `w`.
    pub fn pop(&mut self, c: &mut X86Cpu<'_>, w: W) -> Result<u64, Exception> {
        let la = self.address(self.sp, w)?;
        let v = c.load(w, la, self.who)?;
        self.skip(w.bytes().into());
        Ok(v)
    }
    /// Reads the `n`th `w` above the stack pointer.
    pub fn peek(&self, c: &mut X86Cpu<'_>, w: W, n: u64) -> Result<u64, Exception> {
        let la = self.address(self.sp.wrapping_add(n * u64::from(w.bytes())) & self.mask, w)?;
        c.load(w, la, self.who)
    }
    /// Drops `n` bytes.
    pub fn skip(&mut self, n: u64) {
        self.sp = self.sp.wrapping_add(n) & self.mask;
    }
    /// Makes it the CPU's stack pointer. A 16-bit stack leaves the upper bits of ESP.
    pub fn commit(&self, c: &mut X86Cpu<'_>) {
        let old = c.gpr(RSP);
        let v = match self.mask {
            0xffff => old & !0xffff | self.sp,
            _ => self.sp,
        };
        c.set_gpr(RSP, v);
    }
}
