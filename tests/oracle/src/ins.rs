//! Instruction tests in text, one per line: `bytes | text | in | out`.
//!
//! - A line `bits N` (64, 32, 16) sets the mode of those that follow; `#` starts a comment.
//! - `in` and `out` are words `name=value`. Names: general registers of any width, flags (`cf pf af zf sf df of`), `xmmN`, `mxcsr`, `stN`, `fcw`, `fsw`,
//!   `ftw`, and `@offset` for bytes in the data pages (value: hex digits, first byte first). `out` may also say `fault=vector:error`, of a page fault
//!   `fault=vector:error:address`.
//! - Values are decimal or `0x` hexadecimal, `-` negates, `data+N` is an address in the data pages. `stN` and `xmmN` take all their bits.
//! - In `out`, registers and memory that are not named must not have changed; flags that are not named do not matter.

use crate::{
    layout::{Layout, pattern},
    state::{Case, Executor, Mode, Outcome, State},
};
use iced_x86::{Decoder, DecoderOptions, Formatter, IntelFormatter, Register};

/// One line.
#[derive(Clone, Debug)]
pub struct Line {
    /// Line number, from 1.
    pub number: usize,
    /// Code size.
    pub mode: Mode,
    /// The instruction.
    pub bytes: Vec<u8>,
    /// Its disassembly, as the line has it.
    pub text: String,
    /// State before.
    pub before: Vec<(String, String)>,
    /// State after.
    pub after: Vec<(String, String)>,
}

/// Reads a file's text.
///
/// # Errors
/// The line and what is wrong with it.
pub fn parse(text: &str) -> Result<Vec<Line>, String> {
    let mut mode = Mode::Bits64;
    let mut out = vec![];
    for (n, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        let number = n + 1;
        if let Some(bits) = line.strip_prefix("bits ") {
            mode = match bits {
                "64" => Mode::Bits64,
                "32" => Mode::Bits32,
                "16" => Mode::Bits16,
                other => return Err(format!("line {number}: bits {other}")),
            };
            continue;
        }
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [bytes, text, before, after] = cells[..] else {
            return Err(format!("line {number}: bytes | text | in | out"));
        };
        let bytes = bytes.split(' ').map(|b| u8::from_str_radix(b, 16)).collect::<Result<Vec<_>, _>>();
        let words = |cell: &str| {
            cell.split_whitespace()
                .map(|w| w.split_once('=').map(|(a, b)| (a.to_string(), b.to_string())))
                .collect::<Option<Vec<_>>>()
                .ok_or_else(|| format!("line {number}: {cell:?} is not a list of name=value"))
        };
        out.push(Line {
            number,
            mode,
            bytes: bytes.map_err(|e| format!("line {number}: {e}"))?,
            text: text.to_string(),
            before: words(before)?,
            after: words(after)?,
        });
    }
    Ok(out)
}

/// A place a word names.
enum Place {
    Gpr { n: usize, shift: u32, bits: u32 },
    Flag(u32),
    Xmm(usize),
    St(usize),
    Mxcsr,
    Fcw,
    Fsw,
    Ftw,
    Memory(usize),
}

fn place(name: &str) -> Option<Place> {
    if let Some(offset) = name.strip_prefix('@') {
        return usize::from_str_radix(offset, 16).ok().map(Place::Memory);
    }
    let numbered = |prefix: &str| name.strip_prefix(prefix).and_then(|n| n.parse().ok());
    if let Some(n) = numbered("xmm") {
        return Some(Place::Xmm(n));
    }
    if let Some(n) = numbered("st") {
        return Some(Place::St(n));
    }
    let flag = |bit| Some(Place::Flag(bit));
    match name {
        "cf" => return flag(0),
        "pf" => return flag(2),
        "af" => return flag(4),
        "zf" => return flag(6),
        "sf" => return flag(7),
        "df" => return flag(10),
        "of" => return flag(11),
        "mxcsr" => return Some(Place::Mxcsr),
        "fcw" => return Some(Place::Fcw),
        "fsw" => return Some(Place::Fsw),
        "ftw" => return Some(Place::Ftw),
        _ => {}
    }
    let r = Register::values().find(|r| r.is_gpr() && format!("{r:?}").eq_ignore_ascii_case(name))?;
    let shift = if matches!(r, Register::AH | Register::CH | Register::DH | Register::BH) { 8 } else { 0 };
    Some(Place::Gpr { n: r.full_register().number(), shift, bits: r.size() as u32 * 8 })
}

fn value(text: &str, layout: &Layout) -> Option<u128> {
    if let Some(rest) = text.strip_prefix("data+") {
        return value(rest, layout).map(|v| v + u128::from(layout.data));
    }
    if let Some(rest) = text.strip_prefix('-') {
        return value(rest, layout).map(u128::wrapping_neg);
    }
    match text.strip_prefix("0x") {
        Some(hex) => u128::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

fn set(state: &mut State, memory: &mut Vec<(usize, Vec<u8>)>, name: &str, text: &str, layout: &Layout) -> Option<()> {
    let place = place(name)?;
    if let Place::Memory(at) = place {
        let bytes = (0..text.len() / 2).map(|n| u8::from_str_radix(text.get(2 * n..2 * n + 2)?, 16).ok());
        memory.push((at, bytes.collect::<Option<_>>()?));
        return Some(());
    }
    let v = value(text, layout)?;
    match place {
        Place::Gpr { n, shift, bits } => {
            let mask = if bits == 64 { u64::MAX } else { ((1 << bits) - 1) << shift };
            state.gpr[n] = state.gpr[n] & !mask | (v as u64) << shift & mask;
        }
        Place::Flag(bit) => state.rflags = state.rflags & !(1 << bit) | (v as u64 & 1) << bit,
        Place::Xmm(n) => state.fx.set_xmm(n, v),
        Place::St(n) => state.fx.set_st(n, v),
        Place::Mxcsr => state.fx.set_mxcsr(v as u32),
        Place::Fcw => state.fx.set_fcw(v as u16),
        Place::Fsw => state.fx.set_fsw(v as u16),
        Place::Ftw => state.fx.set_ftw(v as u8),
        Place::Memory(_) => {}
    }
    Some(())
}

/// Runs a line; what is wrong, one difference per line of text.
pub fn check(line: &Line, executor: &mut dyn Executor) -> String {
    let layout = executor.layout().view(line.mode);
    let mut decoder = Decoder::with_ip(line.mode.bits(), &line.bytes, layout.code + 0x400, DecoderOptions::NONE);
    let i = decoder.decode();
    let mut text = String::new();
    let mut formatter = IntelFormatter::new();
    formatter.options_mut().set_space_after_operand_separator(true);
    formatter.options_mut().set_branch_leading_zeros(false);
    formatter.format(&i, &mut text);
    if !i.is_jmp_short_or_near() && !i.is_jcc_short_or_near() && text != line.text {
        return format!("the bytes say {text:?}, the line {:?}\n", line.text);
    }
    if i.len() != line.bytes.len() {
        return format!("{} bytes, but the instruction has {}\n", line.bytes.len(), i.len());
    }
    let mut case = Case {
        mode: line.mode,
        code: line.bytes.clone(),
        count: 1,
        state: State { rip: layout.code + 0x400, rflags: 0x202, ..State::default() },
        memory: vec![],
    };
    for (name, text) in &line.before {
        if set(&mut case.state, &mut case.memory, name, text, &layout).is_none() {
            return format!("in: {name}={text} makes no sense\n");
        }
    }
    let got = executor.run(&case);
    differences(line, &layout, &case, &got, executor)
}

fn differences(line: &Line, layout: &Layout, case: &Case, got: &Outcome, executor: &dyn Executor) -> String {
    let mut d = String::new();
    let mut want = case.state;
    let mut patches = case.memory.clone();
    let (mut fault, mut flags) = (String::new(), 0);
    for (name, text) in &line.after {
        if name == "fault" {
            fault.clone_from(text);
            continue;
        }
        if let Some(Place::Flag(bit)) = place(name) {
            flags |= 1 << bit;
        }
        if set(&mut want, &mut patches, name, text, layout).is_none() {
            return format!("out: {name}={text} makes no sense\n");
        }
    }
    let got_fault = got.fault.map_or(String::new(), |f| {
        let address = if fault.matches(':').count() == 2 { format!(":{:#x}", f.address) } else { String::new() };
        format!("{}:{:x}{address}", f.vector, f.error)
    });
    if got_fault != fault {
        d += &format!("fault: {fault:?} expected, {got_fault:?} found\n");
    }
    let mask = line.mode.mask();
    for n in 0..line.mode.registers() {
        if (got.state.gpr[n] ^ want.gpr[n]) & mask != 0 {
            d += &format!("gpr {n}: {:#x} expected, {:#x} found\n", want.gpr[n] & mask, got.state.gpr[n] & mask);
        }
        if got.state.fx.xmm(n) != want.fx.xmm(n) {
            d += &format!("xmm{n}: {:#x} expected, {:#x} found\n", want.fx.xmm(n), got.state.fx.xmm(n));
        }
    }
    if (got.state.rflags ^ want.rflags) & flags != 0 {
        let text = crate::compare::flag_text;
        d += &format!("flags: {} expected, {} found\n", text(want.rflags & flags), text(got.state.rflags & flags));
    }
    let (a, b) = (&want.fx, &got.state.fx);
    let words = |fx: &crate::Fx| [u32::from(fx.fcw()), u32::from(fx.fsw()), u32::from(fx.ftw()), fx.mxcsr()];
    if words(a) != words(b) {
        d += &format!("fcw fsw ftw mxcsr: {:x?} expected, {:x?} found\n", words(a), words(b));
    }
    for n in 0..8 {
        let used = a.ftw() >> (((a.fsw() >> 11 & 7) as usize + n) & 7) & 1 != 0;
        if used && a.st(n) != b.st(n) {
            d += &format!("st{n}: {:#x} expected, {:#x} found\n", a.st(n), b.st(n));
        }
    }
    let mut memory = pattern();
    for (at, bytes) in &patches {
        memory[*at..*at + bytes.len()].copy_from_slice(bytes);
    }
    for (n, (a, b)) in memory.iter().zip(executor.memory()).enumerate() {
        if a != b {
            d += &format!("@{n:x}: {a:02x} expected, {b:02x} found\n");
        }
    }
    d
}
