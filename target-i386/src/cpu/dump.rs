//! `info registers`, in QEMU's layout.

use crate::X86;
use crate::reg::*;
use crate::state::{Segment, Shadow, State, attr, bits};
use accel::tcg::{Hot, Vcpu};
use std::fmt::Write;

const GPR: [&str; 16] =
    ["AX", "CX", "DX", "BX", "SP", "BP", "SI", "DI", "8 ", "9 ", "10", "11", "12", "13", "14", "15"];
/// The order in which they are shown.
const ORDER: [usize; 16] = [0, 3, 1, 2, 6, 7, 5, 4, 8, 9, 10, 11, 12, 13, 14, 15];
const SEGS: [(usize, &str); 6] = [(ES, "ES"), (CS, "CS"), (SS, "SS"), (DS, "DS"), (FS, "FS"), (GS, "GS")];
/// System segment types, outside of long mode.
const SYSTEM: [&str; 16] = [
    "Reserved",
    "TSS16-avl",
    "LDT",
    "TSS16-busy",
    "CallGate16",
    "TaskGate",
    "IntGate16",
    "TrapGate16",
    "Reserved",
    "TSS32-avl",
    "Reserved",
    "TSS32-busy",
    "CallGate32",
    "Reserved",
    "IntGate32",
    "TrapGate32",
];
/// The same in long mode.
const SYSTEM_LONG: [&str; 16] = [
    "<hiword>",
    "Reserved",
    "LDT",
    "Reserved",
    "Reserved",
    "Reserved",
    "Reserved",
    "Reserved",
    "Reserved",
    "TSS64-avl",
    "Reserved",
    "TSS64-busy",
    "CallGate64",
    "Reserved",
    "IntGate64",
    "TrapGate64",
];

fn letter(on: bool, c: char) -> char {
    if on { c } else { '-' }
}

fn segment(out: &mut String, s: &State, name: &str, seg: &Segment) {
    // Bits 8 to 23 of the descriptor's second word; the limit is kept apart.
    let limit = if seg.has(attr::G) { seg.limit >> 12 } else { seg.limit };
    let flags = u32::from(seg.attr) << 8 | limit & 0xf_0000;
    let base = if s.long() { format!("{:016x}", seg.base) } else { format!("{:08x}", seg.base as u32) };
    _ = write!(out, "{name:<3}={:04x} {base} {:08x} {flags:08x}", seg.sel, seg.limit);
    if s.protected() && seg.has(attr::P) {
        _ = write!(out, " DPL={} ", seg.dpl());
        if seg.has(attr::S) {
            let (kind, one, two) = match seg.has(attr::CODE) {
                true if seg.has(attr::L) => ("CS64", 'C', 'R'),
                true if seg.has(attr::DB) => ("CS32", 'C', 'R'),
                true => ("CS16", 'C', 'R'),
                false if seg.has(attr::DB) || s.long() => ("DS  ", 'E', 'W'),
                false => ("DS16", 'E', 'W'),
            };
            let (dc, rw, a) = (seg.has(attr::DC), seg.has(attr::RW), seg.has(attr::ACCESSED));
            _ = write!(out, "{kind} [{}{}{}]", letter(dc, one), letter(rw, two), letter(a, 'A'));
        } else {
            let names = if s.long() { &SYSTEM_LONG } else { &SYSTEM };
            out.push_str(names.get(usize::from(seg.kind())).copied().unwrap_or("Reserved"));
        }
    }
    out.push('\n');
}

/// What is shown beside the general, segment, control and debug registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// What `info registers` and the log of resets show: the floating-point registers.
    All,
    /// What a log shows: the arithmetic flags as the engine keeps them, the floating-point registers on demand.
    Log {
        /// With the floating-point registers.
        fpu: bool,
    },
}

/// All registers as text.
pub fn registers(v: &mut Vcpu<X86>) -> String {
    let pc = v.pc();
    let (hot, s) = v.parts();
    text(hot, s, pc, Shown::All)
}

/// Registers as text; `pc` is the linear address of the next instruction.
pub fn text(hot: &Hot, s: &State, pc: u64, shown: Shown) -> String {
    let mut out = String::new();
    let wide = s.code64();
    let order = if wide { &ORDER[..] } else { &ORDER[..8] };
    for (i, r) in order.iter().enumerate() {
        let v = hot.regs.get(*r).copied().unwrap_or(0);
        let name = GPR.get(*r).copied().unwrap_or("");
        _ = if wide { write!(out, "R{name}={v:016x}") } else { write!(out, "E{name}={:08x}", v as u32) };
        out.push(if i % 4 == 3 { '\n' } else { ' ' });
    }
    let flags = s.flags(hot);
    let letters: String = [
        (bits::DF, 'D'),
        (bits::OF, 'O'),
        (bits::SF, 'S'),
        (bits::ZF, 'Z'),
        (bits::AF, 'A'),
        (bits::PF, 'P'),
        (bits::CF, 'C'),
    ]
    .iter()
    .map(|(b, c)| letter(flags & b != 0, *c))
    .collect();
    let ip = s.ip_of(pc);
    _ = if wide {
        write!(out, "RIP={ip:016x} RFL={flags:08x}")
    } else {
        write!(out, "EIP={:08x} EFL={flags:08x}", ip as u32)
    };
    _ = writeln!(
        out,
        " [{letters}] CPL={} II={} A20={} SMM={} HLT={}",
        s.cpl,
        u8::from(s.shadow != Shadow::No),
        s.a20_mask >> 20 & 1,
        u8::from(s.smm),
        u8::from(s.halted || s.wait_for_sipi)
    );
    for (i, name) in SEGS {
        segment(&mut out, s, name, &s.segs[i]);
    }
    segment(&mut out, s, "LDT", &s.ldtr);
    segment(&mut out, s, "TR", &s.tr);
    for (name, t) in [("GDT", s.gdtr), ("IDT", s.idtr)] {
        let base = if s.long() { format!("{:016x}", t.base) } else { format!("{:08x}", t.base as u32) };
        _ = writeln!(out, "{name}=     {base} {:08x}", t.limit);
    }
    if s.long() {
        _ = writeln!(out, "CR0={:08x} CR2={:016x} CR3={:016x} CR4={:08x}", s.cr0, s.cr2, s.cr3, s.cr4);
    } else {
        _ = writeln!(out, "CR0={:08x} CR2={:08x} CR3={:08x} CR4={:08x}", s.cr0, s.cr2 as u32, s.cr3 as u32, s.cr4);
    }
    for (i, d) in s.dr.iter().enumerate().take(4) {
        _ = write!(out, "DR{i}={d:016x} ");
    }
    _ = writeln!(out, "\nDR6={:016x} DR7={:016x}", s.dr[6], s.dr[7]);
    if let Shown::Log { .. } = shown {
        // (One line stands for a producer and its values: what they come to.)
        let flags = flags & bits::ARITH;
        _ = if wide {
            writeln!(out, "CCS={flags:016x} CCD={:016x} CCO=EFLAGS", 0)
        } else {
            writeln!(out, "CCS={flags:08x} CCD={:08x} CCO=EFLAGS", 0)
        };
    }
    _ = writeln!(out, "EFER={:016x}", s.efer);
    if shown != (Shown::Log { fpu: false }) {
        floating_point(&mut out, hot, s, wide)
    }
    out
}

/// x87 and SSE registers.
fn floating_point(out: &mut String, hot: &Hot, s: &State, wide: bool) {
    let f = &s.fpu;
    let top = f.fsw >> 11 & 7;
    _ = writeln!(
        out,
        "FCW={:04x} FSW={:04x} [ST={top}] FTW={:02x} MXCSR={:08x}",
        f.fcw,
        f.fsw & !0x3800,
        f.ftw,
        hot.fpcr as u32
    );
    for (i, r) in f.regs.iter().enumerate() {
        _ = write!(out, "FPR{i}={:016x} {:04x}{}", r.sig, r.se, if i % 2 == 1 { '\n' } else { ' ' });
    }
    for (i, x) in hot.x.iter().enumerate().take(if wide { 16 } else { 8 }) {
        _ = write!(
            out,
            "XMM{i:02}={:016x} {:016x}{}",
            (x >> 64) as u64,
            *x as u64,
            if i % 2 == 1 { '\n' } else { ' ' }
        );
    }
}
