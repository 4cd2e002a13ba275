//! SSE instructions that run on the whole CPU: LDMXCSR, STMXCSR, MASKMOVDQU, CLFLUSH, those that mix MMX and XMM
//! registers, and every floating-point operation while MXCSR leaves an exception unmasked. Source: Intel SDM vol. 1
//! §11.5, §11.6.4; vol. 2.

use super::{
    flags,
    sse::{Arith, Sse, memory_fp, memory_un},
};
use crate::{
    exception::Exception,
    forms::{DST, Form, SRC},
    operand,
    state::bits::*,
    sys::{Outcome, X86Cpu},
};
use accel::tcg::{
    Rare,
    W::{self, *},
    Who,
    vector::{mxcsr as csr, soft_fp, soft_int},
};
use iced_x86::{Instruction, Mnemonic};

/// What [`rare`] runs.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum SseRare {
    /// LDMXCSR.
    Ldmxcsr,
    /// STMXCSR.
    Stmxcsr,
    /// CLFLUSH: a load as far as protection goes.
    Clflush,
    /// MASKMOVDQU.
    Maskmovdqu,
    /// MOVQ2DQ.
    Movq2dq,
    /// MOVDQ2Q.
    Movdq2q,
    /// CVTPI2PS, CVTPI2PD: to lanes of that width.
    CvtPi(W),
    /// CVTPS2PI, CVTPD2PI: from lanes of that width; truncates.
    CvtToPi(W, bool),
}

/// The instruction, if it is one of these.
pub fn classify(i: &Instruction) -> Option<SseRare> {
    use Mnemonic::*;
    Some(match i.mnemonic() {
        Ldmxcsr => SseRare::Ldmxcsr,
        Stmxcsr => SseRare::Stmxcsr,
        Clflush => SseRare::Clflush,
        Maskmovdqu => SseRare::Maskmovdqu,
        Movq2dq => SseRare::Movq2dq,
        Movdq2q => SseRare::Movdq2q,
        Cvtpi2ps => SseRare::CvtPi(B4),
        Cvtpi2pd => SseRare::CvtPi(B8),
        Cvtps2pi => SseRare::CvtToPi(B4, false),
        Cvttps2pi => SseRare::CvtToPi(B4, true),
        Cvtpd2pi => SseRare::CvtToPi(B8, false),
        Cvttpd2pi => SseRare::CvtToPi(B8, true),
        _ => return None,
    })
}
/// MXCSR. (Rare code runs with the sticky flags collected.)
pub fn mxcsr(cpu: &X86Cpu<'_>) -> u32 {
    cpu.hot.fpcr as u32
}
/// Loads MXCSR; #GP for reserved bits. The mode may have changed: the instruction must end with [`Rare::To`].
pub fn set_mxcsr(cpu: &mut X86Cpu<'_>, v: u32) -> Result<(), Exception> {
    if v & !csr::VALID != 0 {
        return Err(Exception::gp(0));
    }
    cpu.hot.fpcr = v as u64;
    Ok(())
}
/// Notes exceptions in MXCSR; an unmasked one is raised.
fn signal(cpu: &mut X86Cpu<'_>, flags: u32) -> Result<(), Exception> {
    let open = soft_fp::unmasked(mxcsr(cpu), flags);
    cpu.hot.fpcr |= open.unwrap_or(flags) as u64;
    match open {
        None => Ok(()),
        Some(_) if cpu.state.cr4 & CR4_OSXMMEXCPT != 0 => Err(Exception::xm()),
        Some(_) => Err(Exception::ud()),
    }
}

fn load16(cpu: &mut X86Cpu<'_>, f: Form, bytes: u32, aligned: bool) -> Result<u128, Exception> {
    if aligned {
        operand::aligned(cpu, f)?;
    }
    let la = operand::address(cpu, f, bytes, false)?;
    let mut b = [0; 16];
    cpu.load_bytes(la, &mut b[..bytes as usize], Who::Current)?;
    Ok(u128::from_le_bytes(b))
}
fn source(cpu: &mut X86Cpu<'_>, f: Form, (bytes, aligned): (u32, bool)) -> Result<u128, Exception> {
    if f.src.is_memory() { load16(cpu, f, bytes, aligned) } else { Ok(cpu.hot.x[cpu.op.r[SRC].index()]) }
}
/// The MMX source of a conversion: a register, or eight bytes of memory.
fn mmx_source(cpu: &mut X86Cpu<'_>, f: Form) -> Result<u64, Exception> {
    if f.src.is_memory() {
        let la = operand::address(cpu, f, 8, false)?;
        return cpu.load(B8, la, Who::Current);
    }
    Ok(cpu.state.fpu.mmx(cpu.op.r[SRC].index()))
}

/// Runs it.
pub fn rare(cpu: &mut X86Cpu<'_>, f: Form, op: Sse) -> Outcome {
    match op {
        Sse::Rare(op) => special(cpu, f, op),
        Sse::Checked(op) => checked(cpu, f, op),
        _ => Err(Exception::ud()),
    }
}

fn special(cpu: &mut X86Cpu<'_>, f: Form, op: SseRare) -> Outcome {
    let (d, s) = (cpu.op.r[DST].index(), cpu.op.r[SRC].index());
    match op {
        SseRare::Ldmxcsr => {
            let v = operand::read(cpu, B4, f, f.dst, DST)?;
            set_mxcsr(cpu, v as u32)?;
            return Ok(Rare::To(cpu.op.next_ip));
        }
        SseRare::Stmxcsr => {
            let v = mxcsr(cpu);
            operand::write(cpu, B4, f, f.dst, DST, v as u64)?;
        }
        SseRare::Clflush => {
            operand::read(cpu, B1, f, f.dst, DST)?;
        }
        SseRare::Maskmovdqu => {
            let (data, mask) = (cpu.hot.x[d], cpu.hot.x[s]);
            masked_store(cpu, f, data, mask, 16)?;
        }
        SseRare::Movq2dq => {
            mmx_ready(cpu)?;
            cpu.state.fpu.enter_mmx();
            cpu.hot.x[d] = cpu.state.fpu.mmx(s) as u128;
        }
        SseRare::Movdq2q => {
            mmx_ready(cpu)?;
            cpu.state.fpu.enter_mmx();
            let v = cpu.hot.x[s] as u64;
            cpu.state.fpu.set_mmx(d, v);
        }
        SseRare::CvtPi(w) => {
            // From memory the x87 state is left alone.
            let touches = !f.src.is_memory();
            if touches {
                mmx_ready(cpu)?;
            }
            let v = mmx_source(cpu, f)?;
            if touches {
                cpu.state.fpu.enter_mmx();
            }
            let csr = mxcsr(cpu);
            let (a, fa) = soft_fp::from_int(B4, w, v & 0xffff_ffff, csr);
            let (b, fb) = soft_fp::from_int(B4, w, v >> 32, csr);
            if w == B4 {
                signal(cpu, fa | fb)?;
            }
            let x = &mut cpu.hot.x[d];
            *x = if w == B4 { *x >> 64 << 64 | (b << 32 | a) as u128 } else { (b as u128) << 64 | a as u128 };
        }
        SseRare::CvtToPi(w, truncate) => {
            mmx_ready(cpu)?;
            let x = source(cpu, f, if w == B4 { (8, false) } else { (16, true) })?;
            let csr = mxcsr(cpu);
            let at = |i| soft_fp::to_int(w, B4, truncate, soft_int::lane(w, x, i), csr);
            let ((a, fa), (b, fb)) = (at(0), at(1));
            cpu.state.fpu.enter_mmx();
            signal(cpu, fa | fb)?;
            cpu.state.fpu.set_mmx(d, b << 32 | a);
        }
    }
    Ok(Rare::Next)
}
/// What an MMX instruction checks: a pending x87 exception.
pub fn mmx_ready(cpu: &mut X86Cpu<'_>) -> Result<(), Exception> {
    super::x87::wait(cpu).map(drop)
}
/// MASKMOVQ and MASKMOVDQU: stores the bytes of `data` whose mask byte has its sign set at DS:(E/R)DI.
pub fn masked_store(cpu: &mut X86Cpu<'_>, f: Form, data: u128, mask: u128, bytes: u32) -> Result<(), Exception> {
    // All bytes are probed, picked or not.
    let la = operand::address(cpu, f, bytes, true)?;
    cpu.probe(la, bytes as u64, accel::tcg::Kind::Write, Who::Current)?;
    let (data, mask) = (data.to_le_bytes(), mask.to_le_bytes());
    for i in (0..bytes as usize).filter(|&i| mask[i] & 0x80 != 0) {
        cpu.store(B1, la.wrapping_add(i as u64), data[i] as u64, Who::Current)?;
    }
    Ok(())
}

/// A floating-point operation in software, with the exceptions raised before anything changes.
fn checked(cpu: &mut X86Cpu<'_>, f: Form, op: Arith) -> Outcome {
    let d = cpu.op.r[DST].index();
    let csr = mxcsr(cpu);
    match op {
        Arith::Fp(op, t) => {
            let b = source(cpu, f, memory_fp(op, t))?;
            let (r, flags) = soft_fp::fp(op, t, cpu.hot.x[d], b, csr);
            signal(cpu, flags)?;
            cpu.hot.x[d] = r;
        }
        Arith::Un(op) => {
            let x = source(cpu, f, memory_un(op))?;
            let (r, flags) = soft_fp::xun(op, x, csr).ok_or(Exception::ud())?;
            signal(cpu, flags)?;
            cpu.hot.x[d] = r;
        }
        Arith::Comis(quiet) => {
            let b = source(cpu, f, (f.w.bytes(), false))?;
            let (a, b) = (soft_int::lane(f.w, cpu.hot.x[d], 0), soft_int::lane(f.w, b, 0));
            let ([c, z, p], flags) = soft_fp::comis(f.w, a, b, csr, quiet);
            signal(cpu, flags)?;
            cpu.hot.defer(flags::from_image((c as u32 * CF) | (z as u32 * ZF) | (p as u32 * PF)));
        }
        Arith::ToInt(lane, truncate) => {
            let x = source(cpu, f, (lane.bytes(), false))?;
            let (v, flags) = soft_fp::to_int(lane, f.w, truncate, soft_int::lane(lane, x, 0), csr);
            signal(cpu, flags)?;
            cpu.hot.regs[d] = v;
        }
        Arith::FromInt(lane) => {
            let v = operand::read(cpu, f.w, f, f.src, SRC)?;
            let (r, flags) = soft_fp::from_int(f.w, lane, v, csr);
            signal(cpu, flags)?;
            let x = &mut cpu.hot.x[d];
            *x = *x & !(lane.mask() as u128) | r as u128;
        }
    }
    Ok(Rare::Next)
}
