//! Where code and data of a case live: fixed linear addresses below 2 GiB, so that 32-bit code and absolute operands reach them too.
//! Each slot has its own set, so that several host executors can work at once in one process.

use crate::state::Mode;

/// Last offset in CS of 16-bit code: the code pages' last byte.
pub const CODE_LIMIT_16: u32 = CODE_LEN as u32 - 1;
/// Last offset in DS, ES and SS of 16-bit code: half of the absent page behind the data.
pub const DATA_LIMIT_16: u32 = 0x57ff;
/// Size of a page, bytes.
pub const PAGE: u64 = 0x1000;
/// Bytes of data that exist: four pages.
pub const DATA_LEN: usize = 4 * PAGE as usize;
/// Bytes of code that exist: two pages, so that an instruction can straddle them.
pub const CODE_LEN: usize = 2 * PAGE as usize;
/// How many slots there are.
pub const SLOTS: usize = 4;
/// Distance from the data pages to their second mapping, which needs more than 32 address bits.
pub const HIGH: u64 = 0x6000_0000_0000;
/// Distance to the mapping that only the host executor itself uses. No power of two leads there from either of the others: a bit offset is one
/// at times.
pub const PLAIN: u64 = 0x4d3c_92b5_8000;

/// Addresses of one slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// First byte of the two code pages (readable, executable; the pages around them are absent).
    pub code: u64,
    /// First byte of the data pages: read-write, read-write, read-only, read-write; the pages around them are absent.
    pub data: u64,
    /// The executor's own pages: entry and exit code, saved registers.
    pub own: u64,
    /// Base of GS in 64-bit code.
    pub gs_base: u64,
}

impl Layout {
    /// The addresses of slot `slot` (below [`SLOTS`]).
    pub const fn new(slot: usize) -> Layout {
        // Not a power of two apart: a bit offset of 2^31 must not lead from one slot to the next.
        let base = 0x1000_0000 + slot as u64 * 0x1765_4000;
        // Nor one from the data to other pages of the slot.
        Layout { code: base + 0x13_7000, data: base + 0x20_0000, own: base + 0x57_3000, gs_base: base + 0x12_3458 }
    }
    /// The addresses as code of `mode` sees them. 16-bit code has segments: CS starts at the code pages, DS, ES and SS one page before the data.
    pub const fn view(self, mode: Mode) -> Layout {
        match mode {
            Mode::Bits16 => Layout { code: 0, data: self.data - self.data_base(mode), ..self },
            _ => self,
        }
    }
    /// Base of CS.
    pub const fn code_base(&self, mode: Mode) -> u64 {
        match mode {
            Mode::Bits16 => self.code,
            _ => 0,
        }
    }
    /// Base of DS, ES and SS.
    pub const fn data_base(&self, mode: Mode) -> u64 {
        match mode {
            Mode::Bits16 => self.data - PAGE,
            _ => 0,
        }
    }
    /// Is the `n`th data page read-only?
    pub const fn read_only(n: usize) -> bool {
        n == 2
    }
    /// Does `address` lie in the code pages?
    pub const fn in_code(&self, address: u64) -> bool {
        address >= self.code && address < self.code + CODE_LEN as u64
    }
}

/// What the data pages hold before a case writes its operands: a fixed pattern without long runs of equal bytes.
pub fn pattern() -> Box<[u8; DATA_LEN]> {
    let mut x = 0x9e37_79b9_7f4a_7c15_u64;
    let mut out = Box::new([0; DATA_LEN]);
    for chunk in out.chunks_exact_mut(8) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        chunk.copy_from_slice(&x.to_le_bytes());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From one place the guest knows to one it must not meet, by a bit offset, an index or an overflow.
    #[test]
    fn no_power_of_two_leads_to_the_executors_pages() {
        let ranges = |slot: usize| {
            let l = Layout::new(slot);
            let data = DATA_LEN as u64;
            ([(l.data, data), (l.data + HIGH, data)], [(l.data + PLAIN, data), (l.own, 3 * PAGE)])
        };
        for (from, to) in (0..SLOTS).flat_map(|a| (0..SLOTS).map(move |b| (ranges(a).0, ranges(b).1))) {
            for ((from, from_len), (to, to_len)) in from.into_iter().flat_map(|f| to.map(|t| (f, t))) {
                for step in (0..64).map(|n| 1_u64 << n) {
                    for start in [from.wrapping_add(step), from.wrapping_sub(step)] {
                        // (Operands reach 512 bytes out of their pages.)
                        let near = |a: u64, b: u64, len: u64| b.wrapping_sub(a) < len + 512;
                        let meet = near(start, to, from_len) || near(to, start, to_len);
                        assert!(!meet, "{from:#x} and {step:#x}: {to:#x}");
                    }
                }
            }
        }
    }
}
