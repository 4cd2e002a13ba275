//! Debug registers, breakpoints, single step. Source: Intel SDM vol. 3B chapter 17 (§17.2 registers, §17.3 exceptions).
//! Not modelled: RTM, bus-lock and branch-trace bits (no such feature is reported). I/O breakpoints work with CR4.DE.
use super::prelude::*;

/// DR6 bits.
pub mod dr6 {
    /// Access to a debug register with DR7.GD set.
    pub const BD: u64 = 1 << 13;
    /// Single step.
    pub const BS: u64 = 1 << 14;
    /// Task switch to a TSS with T set.
    pub const BT: u64 = 1 << 15;
    /// Bits that read as ones: 4–11, 16–31.
    pub const FIXED: u64 = 0xffff_0ff0;
    /// Bits that hold something: B0–B3, BD, BS, BT.
    pub const HELD: u64 = 0xe00f;
}
/// DR7 bits.
pub mod dr7 {
    /// General detect: the next access to a debug register is #DB.
    pub const GD: u64 = 1 << 13;
    /// Bit 10 reads as one.
    pub const FIXED: u64 = 1 << 10;
    /// Bits that hold something.
    pub const HELD: u64 = 0xffff_23ff;
}

/// What one breakpoint watches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Watch {
    /// Instruction execution.
    Execute,
    /// Data writes.
    Write,
    /// I/O of either direction (CR4.DE).
    Io,
    /// Data reads and writes.
    ReadWrite,
}
/// R/Wn of DR7; `None` where the encoding means nothing without CR4.DE.
pub fn watch(dr7: u64, n: u32, de: bool) -> Option<Watch> {
    match dr7 >> (16 + n * 4) & 3 {
        0 => Some(Watch::Execute),
        1 => Some(Watch::Write),
        2 => de.then_some(Watch::Io),
        _ => Some(Watch::ReadWrite),
    }
}
/// LENn of DR7 in bytes.
pub fn length(dr7: u64, n: u32) -> u64 {
    match dr7 >> (18 + n * 4) & 3 {
        0 => 1,
        1 => 2,
        2 => 8,
        _ => 4,
    }
}
/// Ln or Gn.
pub fn enabled(dr7: u64, n: u32) -> bool {
    dr7 >> (n * 2) & 3 != 0
}
/// Some breakpoint of DR7 watches code.
pub fn any_execute(dr7: u64) -> bool {
    dr7 & 0xff != 0 && (0..4).any(|n| enabled(dr7, n) && dr7 >> (16 + n * 4) & 3 == 0)
}
/// Some breakpoint of DR7 watches data.
pub fn any_data(dr7: u64) -> bool {
    dr7 & 0xff != 0 && (0..4).any(|n| enabled(dr7, n) && dr7 >> (16 + n * 4) & 1 != 0)
}
/// Some breakpoint of DR7 watches I/O ports.
pub fn any_io(dr7: u64, de: bool) -> bool {
    de && dr7 & 0xff != 0 && (0..4).any(|n| enabled(dr7, n) && dr7 >> (16 + n * 4) & 3 == 2)
}

/// B0–B3 for the breakpoints whose condition an access of this kind meets. Those of disabled breakpoints are set as well
/// if any enabled one is met (§17.2.3); zero if none is.
pub fn matching(dr: &[u64], dr7: u64, de: bool, kinds: &[Watch], at: u64, bytes: u64) -> u64 {
    let (mut bits, mut met) = (0, false);
    for n in 0..4 {
        let Some(w) = watch(dr7, n, de) else { continue };
        if !kinds.contains(&w) {
            continue;
        }
        // An instruction breakpoint compares the first byte only.
        let len = if w == Watch::Execute { 1 } else { length(dr7, n) };
        let start = dr[n as usize] & !(len - 1);
        if at < start.wrapping_add(len) && start < at.wrapping_add(bytes) {
            bits |= 1 << n;
            met |= enabled(dr7, n);
        }
    }
    if met { bits } else { 0 }
}

/// Records the cause of a debug exception and opens the debug registers to its handler.
pub fn record(c: &mut X86Cpu<'_>, bits: u64) {
    c.state.dr[6] |= bits & dr6::HELD;
    c.state.dr[7] &= !dr7::GD;
}

/// The register a MOV DR names: 4 and 5 are 6 and 7, or #UD with CR4.DE. #DB with DR7.GD.
fn select(c: &mut X86Cpu<'_>, n: u8) -> Result<u8, Exception> {
    if n > 7 || matches!(n, 4 | 5) && c.state.cr4 & cr4::DE != 0 {
        return Err(Exception::ud());
    }
    c.require_cpl0()?;
    if c.state.dr[7] & dr7::GD != 0 {
        return Err(Exception::db(dr6::BD, false));
    }
    Ok(if n < 4 { n } else { n | 2 })
}
/// MOV r, DRn.
pub fn read(c: &mut X86Cpu<'_>, n: u8) -> Result<u64, Exception> {
    Ok(match select(c, n)? {
        6 => c.state.dr[6],
        7 => c.state.dr[7],
        n => c.state.dr[usize::from(n & 3)],
    })
}
/// MOV DRn, r.
pub fn write(c: &mut X86Cpu<'_>, n: u8, v: u64) -> Outcome {
    match select(c, n)? {
        n @ (6 | 7) => {
            if v >> 32 != 0 {
                return Err(Exception::gp(0));
            }
            if n == 6 { c.state.dr[6] = v & dr6::HELD | dr6::FIXED } else { c.state.dr[7] = v & dr7::HELD | dr7::FIXED }
        }
        n => c.state.dr[usize::from(n & 3)] = v,
    }
    breakpoints_changed(c);
    Ok(c.resume())
}
/// Pages with data breakpoints are watched through the TLB: after a change it must forget what it knows.
fn breakpoints_changed(c: &mut X86Cpu<'_>) {
    // RF is for breakpoints that existed when it was set.
    c.set_eflags(0, eflags::RF);
    c.flush_tlb();
}

/// A repeated instruction goes on after an iteration: its breakpoint has been met, so RF is set until the last is done.
pub fn between_iterations(c: &mut X86Cpu<'_>) {
    if c.state.dr[7] & 0xff != 0 {
        c.set_eflags(eflags::RF, eflags::RF);
        c.state.resume_armed = false;
    }
}
/// Instruction breakpoints at the address about to run. RF suppresses them for one instruction.
pub fn instruction_breakpoint(c: &X86Cpu<'_>, la: u64) -> Option<Exception> {
    let s = &*c.state;
    if s.dr[7] & 0xff == 0 || c.system_flags() & eflags::RF != 0 {
        return None;
    }
    let bits = matching(&s.dr, s.dr[7], s.cr4 & cr4::DE != 0, &[Watch::Execute], la, 1);
    (bits != 0).then(|| Exception::db(bits, false))
}
/// B bits of the data breakpoints that an access meets.
pub fn data_breakpoint(s: &State, la: u64, bytes: u64, write: bool) -> u64 {
    let kinds: &[Watch] = if write { &[Watch::Write, Watch::ReadWrite] } else { &[Watch::ReadWrite] };
    matching(&s.dr, s.dr[7], s.cr4 & cr4::DE != 0, kinds, la, bytes)
}
/// Whether some enabled data breakpoint lies in the page at `page`.
pub fn page_watched(s: &State, page: u64) -> bool {
    s.dr[7] & 0xff != 0
        && (0..4).any(|n| {
            let len = length(s.dr[7], n);
            let start = s.dr[n as usize] & !(len - 1);
            enabled(s.dr[7], n) && s.dr[7] >> (16 + n * 4) & 1 != 0 && start >> 12 == page >> 12
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use Watch::*;

    #[test]
    fn lengths_and_alignment() {
        // DR0: 4-byte write watch at 0x1002 (aligned down to 0x1000), L0.
        let dr7 = 1 | 0b1101 << 16;
        let dr = [0x1002, 0, 0, 0];
        assert_eq!(matching(&dr, dr7, false, &[Write, ReadWrite], 0x1003, 1), 1);
        assert_eq!(matching(&dr, dr7, false, &[Write, ReadWrite], 0xffe, 4), 1);
        assert_eq!(matching(&dr, dr7, false, &[Write, ReadWrite], 0x1004, 4), 0);
        assert_eq!(matching(&dr, dr7, false, &[ReadWrite], 0x1000, 4), 0, "a read does not meet a write watch");
    }
    #[test]
    fn disabled_ones_are_reported_beside_enabled_ones() {
        let dr = [0x10, 0x10, 0x20, 0];
        assert_eq!(matching(&dr, 0b01, false, &[Execute], 0x10, 1), 0b11);
        assert_eq!(matching(&dr, 0b1_0000, false, &[Execute], 0x10, 1), 0, "DR2 is enabled, but does not match");
    }
    #[test]
    fn kinds() {
        assert!(any_execute(1) && !any_execute(0) && !any_data(1));
        assert!(any_data(1 << 3 | 1 << 20) && any_io(1 | 2 << 16, true) && !any_io(1 | 2 << 16, false));
        assert_eq!(watch(2 << 16, 0, false), None);
        assert_eq!(length(2 << 18, 0), 8);
    }
}
