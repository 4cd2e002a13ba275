//! x87 instructions, FXSAVE and FXRSTOR: rare functions. Source: Intel SDM vol. 1 chapter 8; vol. 2.
//!
//! An unmasked exception is reported by the next waiting instruction: #MF, or with CR0.NE = 0 the FERR# line. The processor then
//! stands before that instruction until the interrupt comes or IGNNE# lets it go on (SDM vol. 1 appendix D); MMX instructions
//! assert the line, but do not stand still. FIP and FDP follow every instruction that is no control instruction; FOP, as on parts without
//! the FOP compatibility mode, the last one that raised an unmasked exception.

use crate::{
    exception::Exception,
    forms::{DST, Form, Loc, Op, SRC},
    fpu::{
        Fpu,
        image::{EnvLayout, REGISTERS},
        soft::Out,
        stack::{Arith, MemFormat, Unary},
    },
    operand,
    reg::{CS, RAX},
    sem::{flags, sse, x87_host::may_hold},
    state::bits::*,
    sys::{Outcome, X86Cpu},
};
use accel::tcg::{Kind, Rare, W, Who};
use iced_x86::{Instruction, MemorySize, Mnemonic, OpKind, Register};

/// Source of a two-operand operation.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Source {
    /// Memory, into ST(0).
    Mem(MemFormat),
    /// ST(i), into ST(0).
    Sti,
    /// ST(0), into ST(i); with a pop afterwards.
    Into(bool),
}

/// The x87 instructions.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[expect(missing_docs, reason = "the manual's mnemonics")]
pub enum X87 {
    Fninit,
    Fnclex,
    Fnstcw,
    Fnstsw,
    Fnstenv(bool),
    Fnsave(bool),
    /// FNENI, FNDISI, FNSETPM: nothing since the 387, and they do not wait.
    Ignored,
    Fldcw,
    Fldenv(bool),
    Frstor(bool),
    Fwait,
    Fnop,
    Ffree,
    /// FFREEP: FFREE and a pop.
    Ffreep,
    Fincstp,
    Fdecstp,
    /// FLD, FILD, FBLD from memory.
    Load(MemFormat),
    /// FST, FIST, FBSTP …: pops; truncates (FISTTP).
    Store(MemFormat, bool, bool),
    FldSti,
    Constant(u8),
    /// FST ST(i); pops.
    FstSti(bool),
    /// FSTPNCE: FSTP ST(i) without checks.
    Fstpnce,
    Fxch,
    Arith(Arith, Source),
    /// FCOM, FUCOM (quiet) and their popping forms, FICOM: source, quiet, pops.
    Compare(Source, bool, u8),
    /// FCOMI, FUCOMI: quiet, pops.
    Comi(bool, bool),
    /// FCMOVcc: condition in the encoding of Jcc.
    Cmov(u8),
    Unary(Unary),
    /// FXSAVE, FXSAVE64 (true).
    Fxsave(bool),
    Fxrstor(bool),
}

/// Formats of memory operands.
fn format(i: &Instruction) -> Option<MemFormat> {
    Some(match i.memory_size() {
        MemorySize::Float32 => MemFormat::F32,
        MemorySize::Float64 => MemFormat::F64,
        MemorySize::Float80 => MemFormat::F80,
        MemorySize::Int16 => MemFormat::I16,
        MemorySize::Int32 => MemFormat::I32,
        MemorySize::Int64 => MemFormat::I64,
        MemorySize::Bcd => MemFormat::Bcd,
        _ => return None,
    })
}

/// The operation of an x87 instruction and its width; `None`: not one of ours.
pub fn classify(i: &Instruction) -> Option<(Op, W)> {
    use Mnemonic as M;
    let memory = i.op_count() > 0 && i.op_kind(0) == OpKind::Memory;
    let source = || match format(i) {
        Some(f) if memory => Source::Mem(f),
        _ if i.op_register(0) == Register::ST0 => Source::Sti,
        _ => Source::Into(false),
    };
    let arith = |a| X87::Arith(a, source());
    let popping = |a| X87::Arith(a, Source::Into(true));
    let compare = |quiet, pops| match (memory, format(i)) {
        (true, Some(f)) => X87::Compare(Source::Mem(f), quiet, pops),
        _ => X87::Compare(Source::Sti, quiet, pops),
    };
    let load = || match (memory, format(i)) {
        (true, Some(f)) => X87::Load(f),
        _ => X87::FldSti,
    };
    let store = |pops, truncate| match (memory, format(i)) {
        (true, Some(f)) => X87::Store(f, pops, truncate),
        _ => X87::FstSti(pops),
    };
    let wide_env = i.memory_size() == MemorySize::FpuEnv28 || i.memory_size() == MemorySize::FpuState108;
    let op = match i.mnemonic() {
        M::Fninit => X87::Fninit,
        M::Fnclex => X87::Fnclex,
        M::Fnstcw => X87::Fnstcw,
        M::Fnstsw => X87::Fnstsw,
        M::Fnstenv => X87::Fnstenv(wide_env),
        M::Fnsave => X87::Fnsave(wide_env),
        M::Fneni | M::Fndisi | M::Fnsetpm => X87::Ignored,
        M::Fldcw => X87::Fldcw,
        M::Fldenv => X87::Fldenv(wide_env),
        M::Frstor => X87::Frstor(wide_env),
        M::Wait => X87::Fwait,
        M::Fnop => X87::Fnop,
        M::Ffree => X87::Ffree,
        M::Ffreep => X87::Ffreep,
        M::Fincstp => X87::Fincstp,
        M::Fdecstp => X87::Fdecstp,
        M::Fld | M::Fild | M::Fbld => load(),
        M::Fst | M::Fist => store(false, false),
        M::Fstp | M::Fistp | M::Fbstp => store(true, false),
        M::Fstpnce => X87::Fstpnce,
        M::Fisttp => store(true, true),
        M::Fld1 => X87::Constant(0),
        M::Fldl2t => X87::Constant(1),
        M::Fldl2e => X87::Constant(2),
        M::Fldpi => X87::Constant(3),
        M::Fldlg2 => X87::Constant(4),
        M::Fldln2 => X87::Constant(5),
        M::Fldz => X87::Constant(6),
        M::Fxch => X87::Fxch,
        M::Fadd | M::Fiadd => arith(Arith::Add),
        M::Fmul | M::Fimul => arith(Arith::Mul),
        M::Fsub | M::Fisub => arith(Arith::Sub),
        M::Fsubr | M::Fisubr => arith(Arith::SubR),
        M::Fdiv | M::Fidiv => arith(Arith::Div),
        M::Fdivr | M::Fidivr => arith(Arith::DivR),
        M::Faddp => popping(Arith::Add),
        M::Fmulp => popping(Arith::Mul),
        M::Fsubp => popping(Arith::Sub),
        M::Fsubrp => popping(Arith::SubR),
        M::Fdivp => popping(Arith::Div),
        M::Fdivrp => popping(Arith::DivR),
        M::Fcom | M::Ficom => compare(false, 0),
        M::Fcomp | M::Ficomp => compare(false, 1),
        M::Fcompp => compare(false, 2),
        M::Fucom => compare(true, 0),
        M::Fucomp => compare(true, 1),
        M::Fucompp => compare(true, 2),
        M::Fcomi => X87::Comi(false, false),
        M::Fcomip => X87::Comi(false, true),
        M::Fucomi => X87::Comi(true, false),
        M::Fucomip => X87::Comi(true, true),
        M::Fcmovb => X87::Cmov(2),
        M::Fcmovnb => X87::Cmov(3),
        M::Fcmove => X87::Cmov(4),
        M::Fcmovne => X87::Cmov(5),
        M::Fcmovbe => X87::Cmov(6),
        M::Fcmovnbe => X87::Cmov(7),
        M::Fcmovu => X87::Cmov(10),
        M::Fcmovnu => X87::Cmov(11),
        M::Fchs => X87::Unary(Unary::Fchs),
        M::Fabs => X87::Unary(Unary::Fabs),
        M::Ftst => X87::Unary(Unary::Ftst),
        M::Fxam => X87::Unary(Unary::Fxam),
        M::F2xm1 => X87::Unary(Unary::F2xm1),
        M::Fyl2x => X87::Unary(Unary::Fyl2x),
        M::Fptan => X87::Unary(Unary::Fptan),
        M::Fpatan => X87::Unary(Unary::Fpatan),
        M::Fxtract => X87::Unary(Unary::Fxtract),
        M::Fprem1 => X87::Unary(Unary::Fprem1),
        M::Fprem => X87::Unary(Unary::Fprem),
        M::Fyl2xp1 => X87::Unary(Unary::Fyl2xp1),
        M::Fsqrt => X87::Unary(Unary::Fsqrt),
        M::Fsincos => X87::Unary(Unary::Fsincos),
        M::Frndint => X87::Unary(Unary::Frndint),
        M::Fscale => X87::Unary(Unary::Fscale),
        M::Fsin => X87::Unary(Unary::Fsin),
        M::Fcos => X87::Unary(Unary::Fcos),
        M::Fxsave => X87::Fxsave(false),
        M::Fxsave64 => X87::Fxsave(true),
        M::Fxrstor => X87::Fxrstor(false),
        M::Fxrstor64 => X87::Fxrstor(true),
        _ => return None,
    };
    Some((Op::X87(op), W::B2))
}

/// Reports a pending exception before a waiting instruction; true: the processor stands still.
pub fn wait(cpu: &mut X86Cpu<'_>) -> Result<bool, Exception> {
    if !cpu.state.fpu.pending() {
        return Ok(false);
    }
    if cpu.state.cr0 & CR0_NE != 0 {
        return Err(Exception::mf());
    }
    cpu.state.ferr = true;
    Ok(cpu.state.interrupts.as_ref().is_some_and(|i| i.ferr(true)))
}
/// FERR# falls with the last pending exception.
fn release(cpu: &mut X86Cpu<'_>) {
    if cpu.state.ferr && !cpu.state.fpu.pending() {
        cpu.state.ferr = false;
        if let Some(i) = &cpu.state.interrupts {
            i.ferr(false);
        }
    }
}
/// The number of the register operand that is not ST(0).
fn sti(cpu: &X86Cpu<'_>, f: Form) -> u8 {
    let number = |l, field: usize| if l == Loc::St { cpu.op.r[field].index() as u8 & 7 } else { 0 };
    number(f.dst, DST) | number(f.src, SRC)
}
/// Reads a number from memory.
fn load(cpu: &mut X86Cpu<'_>, f: Form, m: MemFormat) -> Result<u128, Exception> {
    let la = operand::address(cpu, f, m.bytes(), false)?;
    Ok(match m.bytes() {
        2 => cpu.load(W::B2, la, Who::Current)? as u128,
        4 => cpu.load(W::B4, la, Who::Current)? as u128,
        8 => cpu.load(W::B8, la, Who::Current)? as u128,
        n => {
            let mut b = [0; 16];
            cpu.load_bytes(la, &mut b[..n as usize], Who::Current)?;
            u128::from_le_bytes(b)
        }
    })
}
/// The address of a long memory operand, probed where real parts find faults: at its first and last byte, in the order
/// given by `last_first`.
fn area(cpu: &mut X86Cpu<'_>, f: Form, bytes: u32, kind: Kind, last_first: bool) -> Result<u64, Exception> {
    let la = operand::address(cpu, f, bytes, kind == Kind::Write)?;
    let ends = [la, la.wrapping_add(bytes as u64 - 1)];
    for n in 0..2 {
        cpu.probe(ends[n ^ last_first as usize], 1, kind, Who::Current)?;
    }
    Ok(la)
}
/// The address of the memory operand as FDP and FDS will have it.
type Pointer = Option<(u64, u16)>;
fn pointer(cpu: &X86Cpu<'_>, f: Form) -> Pointer {
    let l = f.memory()?;
    Some((operand::offset(cpu, l), cpu.state.segs.get(cpu.op.seg as usize).map_or(0, |s| s.sel)))
}
/// FIP, FCS, FDP, FDS after an instruction that is no control instruction.
fn note(cpu: &mut X86Cpu<'_>, p: Pointer, pending_before: bool) {
    let (ip, cs) = (cpu.state.ip_of(cpu.op.ip), cpu.state.segs[CS].sel);
    let fpu = &mut cpu.state.fpu;
    (fpu.fip, fpu.fcs) = (ip, cs);
    if let Some((offset, sel)) = p {
        (fpu.fdp, fpu.fds) = (offset, sel);
    }
    if fpu.pending() && !pending_before {
        opcode(cpu);
    }
}
/// FOP: the low three bits of the first opcode byte and the second one, read where they were fetched.
#[cold]
fn opcode(cpu: &mut X86Cpu<'_>) {
    let n = (cpu.op.next_ip.wrapping_sub(cpu.op.ip) as usize).min(15);
    let mut b = [0; 16];
    if cpu.load_bytes(cpu.op.ip, &mut b[..n], Who::Current).is_ok()
        && let Some(w) = b.windows(2).find(|w| w[0] & 0xf8 == 0xd8)
    {
        cpu.state.fpu.fop = ((w[0] & 7) as u16) << 8 | w[1] as u16;
    }
}
fn layout(cpu: &X86Cpu<'_>, wide: bool) -> EnvLayout {
    EnvLayout { wide, real: !cpu.state.protected() || cpu.state.vm86() }
}
fn env_bytes(cpu: &X86Cpu<'_>, wide: bool, registers: bool) -> (EnvLayout, usize) {
    let l = layout(cpu, wide);
    (l, l.bytes() + if registers { REGISTERS } else { 0 })
}
fn store_env(cpu: &mut X86Cpu<'_>, f: Form, wide: bool, registers: bool) -> Result<(), Exception> {
    let (l, n) = env_bytes(cpu, wide, registers);
    let la = area(cpu, f, n as u32, Kind::Write, false)?;
    let mut image = [0; 28 + REGISTERS];
    cpu.state.fpu.save_env(l, &mut image[..l.bytes()]);
    if registers {
        cpu.state.fpu.save_regs(&mut image[l.bytes()..n]);
    }
    cpu.store_bytes(la, &image[..n], Who::Current)
}
fn load_env(cpu: &mut X86Cpu<'_>, f: Form, wide: bool, registers: bool) -> Result<(), Exception> {
    let (l, n) = env_bytes(cpu, wide, registers);
    let la = area(cpu, f, n as u32, Kind::Read, false)?;
    let mut image = [0; 28 + REGISTERS];
    cpu.load_bytes(la, &mut image[..n], Who::Current)?;
    cpu.state.fpu.load_env(l, &image[..l.bytes()]);
    if registers {
        cpu.state.fpu.load_regs(&image[l.bytes()..n]);
    }
    Ok(())
}

/// Control instructions: true if `op` was one.
fn control(cpu: &mut X86Cpu<'_>, f: Form, op: X87) -> Result<bool, Exception> {
    match op {
        X87::Fninit => cpu.state.fpu.init(),
        X87::Fnclex => cpu.state.fpu.clear_exceptions(),
        X87::Fnstcw => operand::write(cpu, W::B2, f, f.dst, DST, cpu.state.fpu.fcw as u64)?,
        X87::Fnstsw if f.dst.is_memory() => operand::write(cpu, W::B2, f, f.dst, DST, cpu.state.fpu.fsw as u64)?,
        X87::Fnstsw => {
            let r = &mut cpu.hot.regs[RAX.index()];
            *r = *r & !0xffff | cpu.state.fpu.fsw as u64;
        }
        X87::Fnstenv(wide) => {
            store_env(cpu, f, wide, false)?;
            let fpu = &mut cpu.state.fpu;
            fpu.set_fcw(fpu.fcw | 0x3f);
        }
        X87::Fnsave(wide) => {
            store_env(cpu, f, wide, true)?;
            cpu.state.fpu.init();
        }
        X87::Fldcw => {
            let v = operand::read(cpu, W::B2, f, f.dst, DST)?;
            cpu.state.fpu.set_fcw(v as u16);
        }
        X87::Fldenv(wide) => load_env(cpu, f, wide, false)?,
        X87::Frstor(wide) => load_env(cpu, f, wide, true)?,
        X87::Fwait | X87::Ignored => {}
        X87::Fxsave(wide) => fxsave(cpu, f, wide)?,
        X87::Fxrstor(wide) => fxrstor(cpu, f, wide)?,
        _ => return Ok(false),
    }
    Ok(true)
}

/// Runs it.
pub fn run(cpu: &mut X86Cpu<'_>, f: Form, op: X87) -> Outcome {
    let at_once = match op {
        // WAIT heeds TS only together with MP, and not EM (SDM vol. 3A §2.5).
        X87::Fwait if cpu.state.cr0 & (CR0_MP | CR0_TS) == CR0_MP | CR0_TS => return Err(Exception::nm()),
        X87::Fninit | X87::Fnclex | X87::Fnstcw | X87::Fnstsw | X87::Fnstenv(_) | X87::Fnsave(_) => true,
        X87::Ignored | X87::Fxsave(_) | X87::Fxrstor(_) => true,
        _ => false,
    };
    if !at_once && wait(cpu)? {
        return Ok(Rare::To(cpu.op.ip));
    }
    let held = may_hold(cpu.state.fpu.fcw);
    if control(cpu, f, op)? {
        release(cpu);
        // (MXCSR and the control word may select other code.)
        let other = matches!(op, X87::Fxrstor(_)) || may_hold(cpu.state.fpu.fcw) != held;
        return Ok(if other { Rare::To(cpu.op.next_ip) } else { Rare::Next });
    }
    let p = pointer(cpu, f);
    let pending = cpu.state.fpu.pending();
    let i = sti(cpu, f);
    match op {
        X87::Load(m) => {
            let v = load(cpu, f, m)?;
            cpu.state.fpu.push(Fpu::loaded(m, v));
        }
        X87::Store(m, pops, truncate) => {
            let la = operand::address(cpu, f, m.bytes(), true)?;
            let s = cpu.state.fpu.store(m, truncate);
            match s.bits {
                Some(bits) => cpu.store_bytes(la, &bits.to_le_bytes()[..m.bytes() as usize], Who::Current)?,
                None => cpu.probe(la, m.bytes() as u64, Kind::Write, Who::Current)?,
            }
            cpu.state.fpu.stored(s, pops);
        }
        X87::Arith(a, source) => {
            let (dst, b) = match source {
                Source::Mem(m) => (0, Some(Fpu::operand(m, load(cpu, f, m)?))),
                Source::Sti => (0, cpu.state.fpu.st(i).map(Out::exact)),
                Source::Into(_) => (i, cpu.state.fpu.st(0).map(Out::exact)),
            };
            if cpu.state.fpu.arith(a, dst, b) && source == Source::Into(true) {
                cpu.state.fpu.pop();
            }
        }
        X87::Compare(source, quiet, pops) => {
            let b = match source {
                Source::Mem(m) => Some(Fpu::operand(m, load(cpu, f, m)?)),
                // FCOMPP and FUCOMPP name no operand.
                _ => cpu.state.fpu.st(if pops == 2 { 1 } else { i }).map(Out::exact),
            };
            let fpu = &mut cpu.state.fpu;
            let (c, done) = fpu.compare(b, quiet);
            fpu.set_codes(c);
            if done {
                (0..pops).for_each(|_| fpu.pop());
            }
        }
        X87::Comi(quiet, pops) => {
            let b = cpu.state.fpu.st(i).map(Out::exact);
            let (c, done) = cpu.state.fpu.compare_flags(b, quiet);
            let on = |bit: u8, flag| if c >> bit & 1 != 0 { flag } else { 0 };
            cpu.hot.defer(flags::from_image(on(0, CF) | on(1, PF) | on(2, ZF)));
            if done && pops {
                cpu.state.fpu.pop();
            }
        }
        X87::Cmov(cc) => {
            let fl = cpu.state.flags(cpu.hot);
            let holds = match cc >> 1 {
                1 => fl & CF != 0,
                2 => fl & ZF != 0,
                3 => fl & (CF | ZF) != 0,
                _ => fl & PF != 0,
            };
            cpu.state.fpu.cmov(i, holds ^ (cc & 1 != 0));
        }
        X87::FldSti => cpu.state.fpu.push_st(i),
        X87::Constant(n) => cpu.state.fpu.push_constant(n),
        X87::FstSti(pops) => cpu.state.fpu.store_st(i, pops),
        X87::Fstpnce => cpu.state.fpu.move_pop(i),
        X87::Fxch => cpu.state.fpu.exchange(i),
        X87::Ffree => cpu.state.fpu.free(i),
        X87::Ffreep => {
            cpu.state.fpu.free(i);
            cpu.state.fpu.rotate_pop();
        }
        X87::Fincstp => cpu.state.fpu.rotate(true),
        X87::Fdecstp => cpu.state.fpu.rotate(false),
        X87::Unary(u) => cpu.state.fpu.unary(u),
        _ => {}
    }
    note(cpu, p, pending);
    Ok(Rare::Next)
}

/// FXSAVE. The SSE part is saved if CR4.OSFXSR is set; reserved bytes and absent registers are not written.
fn fxsave(cpu: &mut X86Cpu<'_>, f: Form, wide: bool) -> Result<(), Exception> {
    operand::aligned(cpu, f)?;
    let la = area(cpu, f, 512, Kind::Write, true)?;
    let mut image = [0; 512];
    cpu.state.fpu.fxsave(wide, &mut image);
    if cpu.state.cr4 & CR4_OSFXSR == 0 {
        // MXCSR and its mask stay what they are in memory.
        cpu.store_bytes(la, &image[..24], Who::Current)?;
        return cpu.store_bytes(la.wrapping_add(32), &image[32..160], Who::Current);
    }
    image[24..28].copy_from_slice(&sse::mxcsr(cpu).to_le_bytes());
    image[28..32].copy_from_slice(&accel::tcg::vector::mxcsr::VALID.to_le_bytes());
    let regs = if cpu.state.code64() { 16 } else { 8 };
    for (d, x) in image[160..].chunks_exact_mut(16).zip(&cpu.hot.x[..regs]) {
        d.copy_from_slice(&x.to_le_bytes());
    }
    cpu.store_bytes(la, &image[..160 + 16 * regs], Who::Current)
}
/// FXRSTOR.
fn fxrstor(cpu: &mut X86Cpu<'_>, f: Form, wide: bool) -> Result<(), Exception> {
    operand::aligned(cpu, f)?;
    let la = area(cpu, f, 512, Kind::Read, true)?;
    let mut image = [0; 512];
    cpu.load_bytes(la, &mut image, Who::Current)?;
    if cpu.state.cr4 & CR4_OSFXSR != 0 {
        let csr = u32::from_le_bytes([image[24], image[25], image[26], image[27]]);
        sse::set_mxcsr(cpu, csr)?;
        let regs = if cpu.state.code64() { 16 } else { 8 };
        for (s, x) in image[160..].chunks_exact(16).zip(&mut cpu.hot.x[..regs]) {
            *x = s.iter().rev().fold(0, |v, &b| v << 8 | b as u128);
        }
    }
    cpu.state.fpu.fxrstor(wide, &image);
    Ok(())
}
