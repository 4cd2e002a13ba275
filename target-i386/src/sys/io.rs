//! IN, OUT, INS, OUTS. Source: Intel SDM vol. 1 chapter 18 (§18.5 protection), vol. 2, the instructions.
use super::debug::{self, Watch};
use super::prelude::*;
use super::task;
use crate::operand::linear;
use crate::state::Mailbox;

/// Permission to reach `w` bytes from `port` on: IOPL, or every bit of the TSS's map clear.
pub fn check(c: &mut X86Cpu<'_>, port: u16, w: W) -> Result<(), Exception> {
    if !c.protected() || !c.vm86() && c.cpl() <= c.iopl() {
        return Ok(());
    }
    let base = u64::from(task::iomap_base(c)?);
    let at = base + u64::from(port >> 3);
    // Two bytes are always read: the map ends with a byte of ones.
    if at + 1 > c.state.tr.limit.into() {
        return Err(Exception::gp(0));
    }
    let la = c.linear(c.state.tr.base.wrapping_add(at));
    let bits = c.load(W::B2, la, Who::Implicit)? >> (port & 7);
    let mask = (1 << w.bytes()) - 1;
    if bits & mask != 0 { Err(Exception::gp(0)) } else { Ok(()) }
}
/// Notes an I/O breakpoint that this access meets; the trap is taken after the instruction.
fn breakpoint(c: &mut X86Cpu<'_>, port: u16, w: W) {
    let s = &mut *c.state;
    let de = s.cr4 & cr4::DE != 0;
    if debug::any_io(s.dr[7], de) {
        s.debug_hits |= debug::matching(&s.dr, s.dr[7], de, &[Watch::Io], port.into(), w.bytes().into());
    }
}
/// A device may have done something to this CPU: an interrupt, an SMI, a changed memory map are seen at once.
fn after(c: &X86Cpu<'_>) -> Rare {
    if c.kicked() || c.state.debug_hits != 0 { Rare::To(c.op.next_ip) } else { Rare::Next }
}
/// An access whose handler may look at the registers, and change them.
fn on_show<R>(c: &mut X86Cpu<'_>, port: u16, access: impl FnOnce(&mut X86Cpu<'_>) -> R) -> R {
    if port != Mailbox::PORT {
        return access(c);
    }
    let mailbox = c.state.mailbox.clone();
    mailbox.offer(&c.hot.regs[..16]);
    let r = access(c);
    for (n, v) in mailbox.take() {
        c.hot.regs[usize::from(n)] = v;
    }
    r
}
/// IN: AL, AX or EAX from a port.
pub fn input(c: &mut X86Cpu<'_>, w: W, port: u16) -> Outcome {
    check(c, port, w)?;
    let v = on_show(c, port, |c| c.io_load(port, w));
    c.write_gpr(w, RAX, v.into());
    breakpoint(c, port, w);
    Ok(after(c))
}
/// OUT: AL, AX or EAX to a port.
pub fn output(c: &mut X86Cpu<'_>, w: W, port: u16) -> Outcome {
    check(c, port, w)?;
    let v = c.gpr(RAX) & w.mask();
    on_show(c, port, |c| c.io_store(port, w, v as u32));
    breakpoint(c, port, w);
    Ok(after(c))
}

/// As many elements of a repeated INS or OUTS as can be done at once: upwards, in a page of plain memory, with nobody who looks on. 0: go one
/// by one. `offset`: of the first, in the segment `seg`.
fn run(
    c: &mut X86Cpu<'_>,
    w: W,
    aw: W,
    out: bool,
    (port, count): (u16, u64),
    (seg, offset): (u8, u64),
) -> Result<u64, Exception> {
    let watched = debug::any_io(c.state.dr[7], c.state.cr4 & cr4::DE != 0);
    let size = u64::from(w.bytes());
    // Offsets do not wrap.
    let n = count.min(c.hot.iterations()).min(0x1000 / size).min((aw.mask() - offset) / size);
    if watched || n < 2 || c.system_flags() & (eflags::DF | eflags::TF) != 0 || port == Mailbox::PORT {
        return Ok(0);
    }
    let Ok(la) = linear(c, seg, offset, (n * size) as u32, !out) else { return Ok(0) };
    if out { Ok(c.io_store_run(port, w, la, n)) } else { c.io_load_run(port, w, la, n) }
}

/// INS and OUTS with or without REP: one element, or as many as lie in a page; an interrupt between elements is exact. `aw` is the address
/// size, `from` the source segment of OUTS.
pub fn string(c: &mut X86Cpu<'_>, w: W, aw: W, rep: bool, from: Option<u8>) -> Outcome {
    let out = from.is_some();
    let count = c.gpr(RCX) & aw.mask();
    if rep && count == 0 {
        return Ok(Rare::Next);
    }
    let port = c.gpr(RDX) as u16;
    check(c, port, w)?;
    let index = if out { RSI } else { RDI };
    let offset = c.gpr(index) & aw.mask();
    let seg = from.unwrap_or(ES as u8);
    let done = if rep { run(c, w, aw, out, (port, count), (seg, offset))? } else { 0 };
    if done != 0 {
        c.write_gpr(aw, index, offset + done * u64::from(w.bytes()));
        c.write_gpr(aw, RCX, count - done);
        c.hot.refund(-(done as i64));
        if done < count {
            debug::between_iterations(c);
            return Ok(Rare::Again);
        }
        return Ok(after(c));
    }
    let la = linear(c, seg, offset, w.bytes(), !out)?;
    if out {
        let v = c.load(w, la, Who::Current)?;
        c.io_store(port, w, v as u32);
    } else {
        // The destination must take the value before the device gives it away.
        c.probe(la, w.bytes().into(), Kind::Write, Who::Current)?;
        let v = c.io_load(port, w);
        c.store(w, la, v.into(), Who::Current)?;
    }
    let step = u64::from(w.bytes());
    let next = if c.system_flags() & eflags::DF != 0 { offset.wrapping_sub(step) } else { offset.wrapping_add(step) };
    c.write_gpr(aw, index, next);
    breakpoint(c, port, w);
    if rep {
        c.write_gpr(aw, RCX, count.wrapping_sub(1));
        if count != 1 {
            debug::between_iterations(c);
            c.hot.refund(-1);
            return Ok(Rare::Again);
        }
    }
    Ok(after(c))
}
