//! What a user can watch of the engine: the text of `-d in_asm,op,out_asm,exec,cpu`, and names of its code for `perf`.
//!
//! Each item is a `tracing` target of its name. Whether one is wanted is asked where something is made (a run decoded, a region
//! compiled) or when a vCPU begins to run, never where code runs; `exec` and `cpu` run a vCPU one instruction at a time
//! (`traced`). Layouts are QEMU's.

pub(crate) mod host;
mod perf;
pub(crate) mod traced;

use std::{fmt::Write, io, ops::RangeInclusive, path::Path, sync::OnceLock};

/// What the vCPUs of a machine show.
#[derive(Default)]
pub struct Insight {
    ranges: OnceLock<Vec<RangeInclusive<u64>>>,
    map: OnceLock<perf::PerfMap>,
    dump: OnceLock<perf::JitDump>,
}
impl Insight {
    /// Only code at these linear addresses is shown (`-dfilter`). Once, before anything runs.
    pub fn set_ranges(&self, ranges: Vec<RangeInclusive<u64>>) {
        _ = self.ranges.set(ranges);
    }
    /// Names generated code in a file for perf, a line each (`-perfmap`). Once, before anything runs.
    ///
    /// # Errors
    /// The file cannot be made.
    pub fn start_perf_map(&self, path: &Path) -> io::Result<()> {
        _ = self.map.set(perf::PerfMap::create(path)?);
        Ok(())
    }
    /// Keeps generated code and its names in a file for `perf inject` (`-jitdump`). Once, before anything runs.
    ///
    /// # Errors
    /// The file cannot be made or mapped.
    pub fn start_jit_dump(&self, path: &Path) -> io::Result<()> {
        _ = self.dump.set(perf::JitDump::create(path)?);
        Ok(())
    }
    /// Code was placed at `at`; `name` says what it is.
    pub(crate) fn placed(&self, at: u64, code: &[u8], name: impl Fn() -> String) {
        if let Some(m) = self.map.get() {
            m.add(&name(), at, code)
        }
        if let Some(d) = self.dump.get() {
            d.add(&name(), at, code)
        }
    }
    /// Whether code at an address is shown.
    pub(crate) fn covers(&self, pc: u64) -> bool {
        self.ranges.get().is_none_or(|r| r.iter().any(|r| r.contains(&pc)))
    }
}

/// Somebody wants the log item.
macro_rules! wanted {
    ($item:literal) => {
        tracing::enabled!(target: $item, tracing::Level::TRACE)
    };
}
pub(crate) use wanted;

/// The syntax of all disassembly here: AT&T's.
pub fn formatter() -> iced_x86::GasFormatter {
    use iced_x86::Formatter;
    let mut format = iced_x86::GasFormatter::new();
    let o = format.options_mut();
    o.set_uppercase_hex(false);
    o.set_small_hex_numbers_in_decimal(false);
    o.set_branch_leading_zeros(false);
    o.set_space_after_operand_separator(true);
    format
}

/// Bytes of an instruction on its first line, and on each that follows.
const SPLIT: usize = 8;

/// Adds one disassembled instruction: address, bytes, text; bytes that are too many stand in lines of their own.
pub fn push_instruction(out: &mut String, address: u64, bytes: &[u8], text: &str) {
    let hex = |bytes: &[u8]| bytes.iter().fold(String::new(), |t, b| t + &format!(" {b:02x}"));
    let (mnemonic, operands) = text.split_once(' ').unwrap_or((text, ""));
    let mut lines = bytes.chunks(SPLIT);
    let first = hex(lines.next().unwrap_or_default());
    let line = format!("{address:#010x}: {first:width$}  {mnemonic:<8} {operands}", width = 3 * SPLIT);
    _ = writeln!(out, "{}", line.trim_end());
    for (n, rest) in lines.enumerate() {
        _ = writeln!(out, "{:#010x}: {}", address.wrapping_add(((n + 1) * SPLIT) as u64), hex(rest));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instruction_takes_as_many_lines_as_its_bytes_need() {
        let mut out = String::new();
        push_instruction(&mut out, 0xffff_fff0, &[0xea, 0x5b, 0xe0, 0, 0xf0], "ljmpw $0xf000,$0xe05b");
        push_instruction(&mut out, 0x10, &[0x48, 0xb8, 1, 2, 3, 4, 5, 6, 7, 8], "movabs $0x807060504030201,%rax");
        push_instruction(&mut out, 0x1a, &[0xc3], "ret");
        let lines = [
            "0xfffffff0:  ea 5b e0 00 f0           ljmpw    $0xf000,$0xe05b",
            "0x00000010:  48 b8 01 02 03 04 05 06  movabs   $0x807060504030201,%rax",
            "0x00000018:  07 08",
            "0x0000001a:  c3                       ret",
        ];
        assert_eq!(out.lines().collect::<Vec<_>>(), lines);
    }

    #[test]
    fn without_ranges_everything_is_shown() {
        let i = Insight::default();
        assert!(i.covers(0) && i.covers(u64::MAX));
        i.set_ranges(vec![0x1000..=0x1fff, 5..=5]);
        assert_eq!([0xfff, 0x1000, 0x1fff, 0x2000, 5].map(|a| i.covers(a)), [false, true, true, false, true]);
    }
}
