//! Memory and port access: `x`, `xp`, `i`, `o`.

use super::{Call, Result};
use std::fmt::Write;

/// `/[count][format][size]`, as in gdb.
struct Format {
    count: u64,
    radix: char,
    size: u32,
}

impl Format {
    /// Takes the format off `args`; what is left.
    fn parse(args: &str) -> std::result::Result<(Self, &str), String> {
        let mut f = Self { count: 1, radix: 'x', size: 4 };
        let Some(rest) = args.strip_prefix('/') else { return Ok((f, args)) };
        let (spec, rest) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
        let digits = spec.find(|c: char| !c.is_ascii_digit()).unwrap_or(spec.len());
        let (count, letters) = spec.split_at(digits);
        if !count.is_empty() {
            f.count = count.parse().map_err(|_| format!("invalid count '{count}'"))?;
        }
        for c in letters.chars() {
            match c {
                'x' | 'd' | 'u' | 'o' | 'c' => f.radix = c,
                'b' => f.size = 1,
                'h' => f.size = 2,
                'w' => f.size = 4,
                'g' => f.size = 8,
                'i' => return Err("disassembly is not built yet".into()),
                _ => return Err(format!("invalid char in format: '{c}'")),
            }
        }
        Ok((f, rest.trim()))
    }

    /// Width in which values line up.
    fn show(&self, v: u64) -> String {
        let bits = 8 * self.size;
        let signed = (v << (64 - bits)) as i64 >> (64 - bits);
        match self.radix {
            'd' => format!(
                "{signed:>w$}",
                w = [4, 6, 11, 20].get(self.size.trailing_zeros() as usize).copied().unwrap_or(20)
            ),
            'u' => {
                format!("{v:>w$}", w = [3, 5, 10, 20].get(self.size.trailing_zeros() as usize).copied().unwrap_or(20))
            }
            'o' => format!("{v:0w$o}", w = 1 + bits.div_ceil(3) as usize),
            'c' => format!("'{}'", (v as u8).escape_ascii()),
            _ => format!("{v:#0w$x}", w = 2 + 2 * self.size as usize),
        }
    }

    fn per_line(&self) -> u64 {
        match self.radix {
            'c' => 8,
            'o' | 'd' | 'u' if self.size == 8 => 1,
            _ => (16 / u64::from(self.size)).min(8),
        }
    }
}

/// A number in C's notation. `$reg` is not known here.
pub(super) fn number(text: &str) -> std::result::Result<u64, String> {
    crate::options::size::number(text).ok_or_else(|| format!("'{text}' is not a number"))
}

/// `x` (`virt`) and `xp`.
pub(super) fn dump(c: &mut Call<'_>, virt: bool) -> Result {
    let (f, rest) = Format::parse(c.args)?;
    let mut addr = number(rest)?;
    let core = c.vm.core().clone();
    let cpu = core.cpus.get(c.cpu);
    if virt && cpu.is_none() {
        return Err("No CPU available".into());
    }
    let read = |addr: u64| -> Option<u64> {
        let at = match &cpu {
            Some(cpu) if virt => c.vm.parked(|| (cpu.cpu_class().translate)(cpu, addr))?,
            _ => addr,
        };
        core.memory.load(&mut core.lock(), at, f.size).ok()
    };
    let mut left = f.count;
    while left > 0 {
        let _ = write!(c.out, "{addr:016x}:");
        for _ in 0..left.min(f.per_line()) {
            let Some(v) = read(addr) else {
                let _ = writeln!(c.out, "\nCannot access memory");
                return Ok(());
            };
            let _ = write!(c.out, " {}", f.show(v));
            addr = addr.wrapping_add(u64::from(f.size));
            left -= 1;
        }
        c.out.push('\n');
    }
    Ok(())
}

/// `i/fmt addr`.
pub(super) fn port_in(c: &mut Call<'_>) -> Result {
    let (f, rest) = Format::parse(c.args)?;
    let port = number(rest)? & 0xffff;
    let size = f.size.min(4);
    let core = c.vm.core();
    let v = core.io.load(&mut core.lock(), port, size).unwrap_or_else(hw_core::MemTxError::read_value)
        & (u64::MAX >> (64 - 8 * size));
    let letter = match size {
        1 => 'b',
        2 => 'w',
        _ => 'l',
    };
    let _ = writeln!(c.out, "port{letter}[{port:#06x}] = {v:#x}");
    Ok(())
}

/// `o/fmt addr value`.
pub(super) fn port_out(c: &mut Call<'_>) -> Result {
    let (f, rest) = Format::parse(c.args)?;
    let (port, value) = rest.split_once(' ').ok_or("expected: addr value")?;
    let (port, value) = (number(port)? & 0xffff, number(value.trim())?);
    let core = c.vm.core();
    let _ = core.io.store(&mut core.lock(), port, f.size.min(4), value);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats() {
        let show = |spec: &str, v: u64| Format::parse(spec).unwrap().0.show(v);
        assert_eq!(show("/1xb 0", 7), "0x07");
        assert_eq!(show("/g 0", 7), "0x0000000000000007");
        assert_eq!(show("/db 0", 0xff), "  -1");
        assert_eq!(show("/uh 0", 0xffff), "65535");
        assert_eq!(show("/c 0", 65), "'A'");
        assert_eq!(show("/ob 0", 8), "0010");
        assert_eq!(Format::parse("/16xw 0x100").unwrap().1, "0x100");
        assert!(Format::parse("/z 0").is_err());
    }
}
