//! Two outcomes of one case: are they the same, as far as the architecture says?

use crate::{
    layout::DATA_LEN,
    state::{Case, Fault, Outcome},
    undefined::Undefined,
};
use std::fmt::Write as _;

const NAMES: [&str; 16] =
    ["rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"];

/// RFLAGS bits a user program can see change: status flags, DF, NT, AC, ID; RF in the image a fault saves.
pub const VISIBLE: u64 = 0x25_4cd5;

/// Bytes of a memory operand that are not compared: where it starts in the data pages, and for each byte whether it counts.
pub type Ignore = Vec<std::ops::Range<usize>>;

/// One line per difference; empty when the outcomes agree. `a` is the judge.
pub fn compare(
    case: &Case,
    undefined: &Undefined,
    (a, a_memory): (&Outcome, &[u8; DATA_LEN]),
    (b, b_memory): (&Outcome, &[u8; DATA_LEN]),
    ignore: &Ignore,
    skip_gpr: Option<usize>,
) -> String {
    let mut d = String::new();
    if undefined.everything {
        return d;
    }
    let page = |o: &Outcome| o.fault.map(|f| Fault { address: f.address & !0xfff, ..f });
    let same_fault = a.fault == b.fault
        || undefined.byte_of_page && page(a) == page(b)
        || undefined.which_fault && a.fault.is_some() && b.fault.is_some();
    if !same_fault {
        let _ = writeln!(d, "fault: {:x?} / {:x?}", a.fault, b.fault);
    }
    let mask = case.mode.mask();
    if (a.state.rip ^ b.state.rip) & mask != 0 {
        let _ = writeln!(d, "rip: {:#x} / {:#x}", a.state.rip & mask, b.state.rip & mask);
    }
    for (n, name) in NAMES.iter().enumerate().take(case.mode.registers()) {
        let mut m = mask;
        if undefined.registers || skip_gpr == Some(n) && undefined.destination {
            m = 0;
        }
        if (a.state.gpr[n] ^ b.state.gpr[n]) & m != 0 {
            let before = case.state.gpr[n] & mask;
            let _ = writeln!(
                d,
                "{}: {:#x} / {:#x} (before {before:#x})",
                name,
                a.state.gpr[n] & mask,
                b.state.gpr[n] & mask
            );
        }
    }
    let flags = VISIBLE & !undefined.rflags;
    if (a.state.rflags ^ b.state.rflags) & flags != 0 {
        let _ = writeln!(
            d,
            "rflags: {} / {} (before {})",
            flag_text(a.state.rflags & flags),
            flag_text(b.state.rflags & flags),
            flag_text(case.state.rflags)
        );
    }
    let (x, y, before) = (&a.state.fx, &b.state.fx, &case.state.fx);
    for n in 0..case.mode.registers() {
        if x.xmm(n) != y.xmm(n) {
            let _ = writeln!(d, "xmm{n}: {:#034x} / {:#034x} (before {:#034x})", x.xmm(n), y.xmm(n), before.xmm(n));
        }
    }
    if x.mxcsr() != y.mxcsr() {
        let _ = writeln!(d, "mxcsr: {:#x} / {:#x} (before {:#x})", x.mxcsr(), y.mxcsr(), before.mxcsr());
    }
    for (name, x, y, m, before) in [
        ("fcw", x.fcw(), y.fcw(), 0xff3f, before.fcw()),
        ("fsw", x.fsw(), y.fsw(), !undefined.fsw, before.fsw()),
        ("ftw", u16::from(x.ftw()), u16::from(y.ftw()), 0xff, u16::from(before.ftw())),
    ] {
        let m = match name {
            "ftw" if undefined.x87_mode => 0,
            "fsw" if undefined.x87_mode => m & !0x3800,
            _ => m,
        };
        if (x ^ y) & m != 0 {
            let _ = writeln!(d, "{name}: {x:#x} / {y:#x} (before {before:#x}, compared {m:#x})");
        }
    }
    for n in (0..8).filter(|_| !undefined.x87_mode) {
        if x.st(n) != y.st(n) {
            let _ = writeln!(d, "st{n}: {:#022x} / {:#022x} (before {:#022x})", x.st(n), y.st(n), before.st(n));
        }
    }
    if a_memory != b_memory && !undefined.memory {
        let mut shown = 0;
        for n in 0..DATA_LEN {
            if a_memory[n] != b_memory[n] && !ignore.iter().any(|r| r.contains(&n)) {
                shown += 1;
                if shown <= 16 {
                    let _ = writeln!(d, "memory+{n:#x}: {:02x} / {:02x}", a_memory[n], b_memory[n]);
                }
            }
        }
        if shown > 16 {
            let _ = writeln!(d, "and {} bytes more", shown - 16);
        }
    }
    d
}

/// Flags by name.
pub fn flag_text(flags: u64) -> String {
    let names = [
        (0, "CF"),
        (2, "PF"),
        (4, "AF"),
        (6, "ZF"),
        (7, "SF"),
        (8, "TF"),
        (10, "DF"),
        (11, "OF"),
        (14, "NT"),
        (18, "AC"),
        (21, "ID"),
    ];
    let set: Vec<_> = names.iter().filter(|(b, _)| flags >> b & 1 != 0).map(|(_, n)| *n).collect();
    format!("[{}]", set.join(" "))
}

/// The case as text: the instruction, its bytes and what it starts from, for messages.
pub fn describe(case: &Case) -> String {
    let mut out = String::new();
    let mut decoder = iced_x86::Decoder::with_ip(case.mode.bits(), &case.code, case.state.rip, 0);
    let mut formatter = iced_x86::IntelFormatter::new();
    for i in &mut decoder {
        let mut text = String::new();
        iced_x86::Formatter::format(&mut formatter, &i, &mut text);
        let at = (i.ip() - case.state.rip) as usize;
        let bytes: Vec<_> = case.code[at..at + i.len()].iter().map(|b| format!("{b:02x}")).collect();
        let _ =
            writeln!(out, "{} | {text} | {:?} at {:#x}, {}-bit", bytes.join(" "), i.code(), i.ip(), case.mode.bits());
    }
    for (n, r) in case.state.gpr.iter().enumerate().take(case.mode.registers()) {
        if *r != 0 {
            let _ = write!(out, "{}={r:#x} ", NAMES[n]);
        }
    }
    let _ = write!(out, "flags={} {:?}", flag_text(case.state.rflags), case.state.fx);
    for n in 0..8 {
        if case.state.fx.st(n) != 0 {
            let _ = write!(out, " st{n}={:#x}", case.state.fx.st(n));
        }
    }
    for n in 0..case.mode.registers() {
        if case.state.fx.xmm(n) != 0 {
            let _ = write!(out, " xmm{n}={:#x}", case.state.fx.xmm(n));
        }
    }
    for (at, bytes) in &case.memory {
        let _ = write!(out, " memory+{at:#x}={:02x?}", &bytes[..bytes.len().min(32)]);
    }
    out
}
