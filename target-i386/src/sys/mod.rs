//! Rare system instructions and everything the processor does by itself: page walks, segmentation, exceptions.
//! Tier 0 only; plain functions on [`Cpu`].

pub mod cpuid;
pub mod cr;
pub mod debug;
pub mod desc;
pub mod events;
pub mod excp;
pub mod far;
pub mod flags;
pub mod io;
pub mod iret;
mod log;
pub mod misc;
pub mod mmu;
pub mod msr;
pub mod paging;
pub mod prelude;
pub mod seg;
pub mod smm;
pub mod smram;
pub mod stack;
pub mod syscall;
pub mod task;

use crate::{
    X86,
    exception::Exception,
    forms::*,
    operand::{address, linear, offset, read, reg, set_reg, write},
    reg::*,
    sem::flags::{from_image, image},
    state::State,
};
use accel::tcg::{Access, Cpu, Hot, Leaf, Phys, Rare, W, Who};
use iced_x86::{Code, Instruction, Mnemonic, OpKind, Register};

pub use events::{after, before, service, stepping, watched};
pub use excp::deliver;

/// A CPU of this architecture, for the length of one rare instruction or event.
pub type X86Cpu<'a> = Cpu<'a, X86>;
/// What rare code returns.
pub type Outcome = Result<Rare<Exception>, Exception>;

/// The system instructions, by what runs them. Operands are the form's; far pointers in the instruction are in the
/// immediate, offset in the low half, selector in the high one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[expect(missing_docs, reason = "the manual's mnemonics")]
pub enum Sys {
    Pushf,
    Popf,
    Cli,
    Sti,
    Clac,
    Stac,
    Int,
    Int1,
    Int3,
    Into,
    Iret,
    Retf,
    /// CALL ptr16:16, ptr16:32.
    CallPtr,
    /// CALL m16:16, m16:32, m16:64.
    CallMem,
    /// JMP ptr16:16, ptr16:32.
    JmpPtr,
    /// JMP m16:16, m16:32, m16:64.
    JmpMem,
    Syscall,
    Sysret,
    Sysenter,
    Sysexit,
    ReadCr,
    WriteCr,
    ReadDr,
    WriteDr,
    /// MOV r/m, Sreg.
    ReadSeg,
    /// MOV Sreg, r/m.
    WriteSeg,
    PushSeg,
    PopSeg,
    /// LES, LSS, LDS, LFS, LGS: number of the segment register.
    LoadFar(u8),
    Lgdt,
    Lidt,
    Sgdt,
    Sidt,
    Lldt,
    Ltr,
    Sldt,
    Str,
    Lar,
    Lsl,
    Verr,
    Verw,
    Arpl,
    Lmsw,
    Smsw,
    Clts,
    Invlpg,
    /// INVD, WBINVD.
    Wbinvd,
    Rdmsr,
    Wrmsr,
    Rdtsc,
    Rdtscp,
    Rdpmc,
    Rdpid,
    Cpuid,
    Hlt,
    /// Address size, segment.
    Monitor(W, u8),
    Mwait,
    Swapgs,
    ReadBase(u8),
    WriteBase(u8),
    Xgetbv,
    Xsetbv,
    Rsm,
    /// Port in DX (true) or the immediate.
    In(bool),
    Out(bool),
    /// Address size, REP.
    Ins(W, bool),
    /// Address size, REP, segment.
    Outs(W, bool, u8),
}

/// The operand size that a code's name carries.
fn size(i: &Instruction) -> W {
    match i.code().op_code().operand_size() {
        64 => W::B8,
        32 => W::B4,
        _ => W::B2,
    }
}
/// The system instruction that `i` is, with the width of its operation; `None`: not one of ours.
pub fn classify(i: &Instruction, mode: u32) -> Option<(Sys, W)> {
    use Mnemonic as M;
    use W::*;
    let long = mode & crate::state::mode::SIZE == 2;
    // System registers are read and written whole: 64 bits in 64-bit mode, else 32.
    let whole = if long { B8 } else { B4 };
    let kind = |n: u32| i.op_kind(n);
    let register = |n: u32| if kind(n) == OpKind::Register { i.op_register(n) } else { Register::None };
    Some(match i.mnemonic() {
        M::Pushf => (Sys::Pushf, B2),
        M::Pushfd => (Sys::Pushf, B4),
        M::Pushfq => (Sys::Pushf, B8),
        M::Popf => (Sys::Popf, B2),
        M::Popfd => (Sys::Popf, B4),
        M::Popfq => (Sys::Popf, B8),
        M::Cli => (Sys::Cli, B4),
        M::Sti => (Sys::Sti, B4),
        M::Clac => (Sys::Clac, B4),
        M::Stac => (Sys::Stac, B4),
        M::Int => (Sys::Int, B1),
        M::Int1 => (Sys::Int1, B1),
        M::Int3 => (Sys::Int3, B1),
        M::Into => (Sys::Into, B1),
        M::Iret => (Sys::Iret, B2),
        M::Iretd => (Sys::Iret, B4),
        M::Iretq => (Sys::Iret, B8),
        M::Retf => match i.code() {
            Code::Retfw | Code::Retfw_imm16 => (Sys::Retf, B2),
            Code::Retfd | Code::Retfd_imm16 => (Sys::Retf, B4),
            _ => (Sys::Retf, B8),
        },
        M::Call => match i.code() {
            Code::Call_ptr1616 => (Sys::CallPtr, B2),
            Code::Call_ptr1632 => (Sys::CallPtr, B4),
            Code::Call_m1616 => (Sys::CallMem, B2),
            Code::Call_m1632 => (Sys::CallMem, B4),
            Code::Call_m1664 => (Sys::CallMem, B8),
            _ => return None,
        },
        M::Jmp => match i.code() {
            Code::Jmp_ptr1616 => (Sys::JmpPtr, B2),
            Code::Jmp_ptr1632 => (Sys::JmpPtr, B4),
            Code::Jmp_m1616 => (Sys::JmpMem, B2),
            Code::Jmp_m1632 => (Sys::JmpMem, B4),
            Code::Jmp_m1664 => (Sys::JmpMem, B8),
            _ => return None,
        },
        M::Syscall => (Sys::Syscall, B4),
        M::Sysret => (Sys::Sysret, B4),
        M::Sysretq => (Sys::Sysret, B8),
        M::Sysenter => (Sys::Sysenter, B4),
        M::Sysexit => (Sys::Sysexit, B4),
        M::Sysexitq => (Sys::Sysexit, B8),
        M::Mov if register(1).is_cr() => (Sys::ReadCr, whole),
        M::Mov if register(0).is_cr() => (Sys::WriteCr, whole),
        M::Mov if register(1).is_dr() => (Sys::ReadDr, whole),
        M::Mov if register(0).is_dr() => (Sys::WriteDr, whole),
        M::Mov if register(1).is_segment_register() => {
            // To memory it is 16 bits whatever the operand size.
            (Sys::ReadSeg, if kind(0) == OpKind::Memory { B2 } else { size(i) })
        }
        M::Mov if register(0).is_segment_register() => (Sys::WriteSeg, B2),
        M::Push if register(0).is_segment_register() => (Sys::PushSeg, size_of_push(i)),
        M::Pop if register(0).is_segment_register() => (Sys::PopSeg, size_of_push(i)),
        M::Les => (Sys::LoadFar(ES as u8), size(i)),
        M::Lss => (Sys::LoadFar(SS as u8), size(i)),
        M::Lds => (Sys::LoadFar(DS as u8), size(i)),
        M::Lfs => (Sys::LoadFar(FS as u8), size(i)),
        M::Lgs => (Sys::LoadFar(GS as u8), size(i)),
        M::Lgdt => (Sys::Lgdt, table_size(i)),
        M::Lidt => (Sys::Lidt, table_size(i)),
        M::Sgdt => (Sys::Sgdt, table_size(i)),
        M::Sidt => (Sys::Sidt, table_size(i)),
        M::Lldt => (Sys::Lldt, B2),
        M::Ltr => (Sys::Ltr, B2),
        M::Sldt => (Sys::Sldt, if kind(0) == OpKind::Memory { B2 } else { size(i) }),
        M::Str => (Sys::Str, if kind(0) == OpKind::Memory { B2 } else { size(i) }),
        M::Lar => (Sys::Lar, size(i)),
        M::Lsl => (Sys::Lsl, size(i)),
        M::Verr => (Sys::Verr, B2),
        M::Verw => (Sys::Verw, B2),
        M::Arpl => (Sys::Arpl, B2),
        M::Lmsw => (Sys::Lmsw, B2),
        M::Smsw => (Sys::Smsw, if kind(0) == OpKind::Memory { B2 } else { size(i) }),
        M::Clts => (Sys::Clts, B4),
        M::Invlpg => (Sys::Invlpg, B1),
        M::Invd | M::Wbinvd => (Sys::Wbinvd, B4),
        M::Rdmsr => (Sys::Rdmsr, B4),
        M::Wrmsr => (Sys::Wrmsr, B4),
        M::Rdtsc => (Sys::Rdtsc, B4),
        M::Rdtscp => (Sys::Rdtscp, B4),
        M::Rdpmc => (Sys::Rdpmc, B4),
        M::Rdpid => (Sys::Rdpid, whole),
        M::Cpuid => (Sys::Cpuid, B4),
        M::Hlt => (Sys::Hlt, B4),
        M::Monitor => match i.code() {
            Code::Monitorw => (Sys::Monitor(B2, segment_of(i)), B1),
            Code::Monitord => (Sys::Monitor(B4, segment_of(i)), B1),
            _ => (Sys::Monitor(B8, segment_of(i)), B1),
        },
        M::Mwait => (Sys::Mwait, B4),
        M::Swapgs => (Sys::Swapgs, B8),
        M::Rdfsbase => (Sys::ReadBase(FS as u8), general_width(register(0))),
        M::Rdgsbase => (Sys::ReadBase(GS as u8), general_width(register(0))),
        M::Wrfsbase => (Sys::WriteBase(FS as u8), general_width(register(0))),
        M::Wrgsbase => (Sys::WriteBase(GS as u8), general_width(register(0))),
        M::Xgetbv => (Sys::Xgetbv, B4),
        M::Xsetbv => (Sys::Xsetbv, B4),
        M::Rsm => (Sys::Rsm, B4),
        M::In => (Sys::In(register(1) == Register::DX), general_width(register(0))),
        M::Out => (Sys::Out(register(0) == Register::DX), general_width(register(1))),
        M::Insb | M::Insw | M::Insd => {
            let w = string_width(i.mnemonic());
            (Sys::Ins(address_width(kind(0)), repeated(i)), w)
        }
        M::Outsb | M::Outsw | M::Outsd => {
            let w = string_width(i.mnemonic());
            (Sys::Outs(address_width(kind(1)), repeated(i), segment_of(i)), w)
        }
        _ => return None,
    })
}
fn general_width(r: Register) -> W {
    match r.size() {
        1 => W::B1,
        2 => W::B2,
        8 => W::B8,
        _ => W::B4,
    }
}
fn string_width(m: Mnemonic) -> W {
    match m {
        Mnemonic::Insb | Mnemonic::Outsb => W::B1,
        Mnemonic::Insw | Mnemonic::Outsw => W::B2,
        _ => W::B4,
    }
}
fn address_width(k: OpKind) -> W {
    match k {
        OpKind::MemoryESDI | OpKind::MemorySegSI => W::B2,
        OpKind::MemoryESEDI | OpKind::MemorySegESI => W::B4,
        _ => W::B8,
    }
}
/// DS or the prefix's segment.
fn segment_of(i: &Instruction) -> u8 {
    seg_number(i.segment_prefix()).unwrap_or(DS as u8)
}
fn repeated(i: &Instruction) -> bool {
    i.has_rep_prefix() || i.has_repne_prefix()
}
fn size_of_push(i: &Instruction) -> W {
    match i.stack_pointer_increment().unsigned_abs() {
        8 => W::B8,
        4 => W::B4,
        _ => W::B2,
    }
}
fn table_size(i: &Instruction) -> W {
    match i.code() {
        Code::Lgdt_m1632_16 | Code::Lidt_m1632_16 | Code::Sgdt_m1632_16 | Code::Sidt_m1632_16 => W::B2,
        Code::Lgdt_m1664 | Code::Lidt_m1664 | Code::Sgdt_m1664 | Code::Sidt_m1664 => W::B8,
        _ => W::B4,
    }
}

/// Replaces ZF.
fn set_zf(cpu: &mut X86Cpu<'_>, on: bool) {
    use crate::state::bits::ZF;
    let v = image(cpu.hot.deferred()) & !ZF | if on { ZF } else { 0 };
    cpu.hot.defer(from_image(v));
}
/// A far pointer in memory: offset of width `w`, then the selector.
fn far_pointer(cpu: &mut X86Cpu<'_>, f: Form) -> Result<(u16, u64), Exception> {
    let n = f.w.bytes();
    let la = address(cpu, f, n + 2, false)?;
    let mut b = [0; 10];
    cpu.load_bytes(la, &mut b[..n as usize + 2], Who::Current)?;
    let (ip, sel) = b.split_at(n as usize);
    let ip = ip.iter().rev().fold(0, |v, &b| v << 8 | u64::from(b));
    Ok((u16::from_le_bytes([sel[0], sel[1]]), ip))
}
/// Number of the segment, control or debug register in an operand field.
fn number(cpu: &X86Cpu<'_>, field: usize) -> u8 {
    cpu.op.r[field].index() as u8
}
fn pointer(cpu: &X86Cpu<'_>) -> (u16, u64) {
    ((cpu.op.imm >> 32) as u16, cpu.op.imm & 0xffff_ffff)
}

/// Runs a system instruction.
pub fn run(cpu: &mut X86Cpu<'_>, f: Form, op: Sys) -> Outcome {
    use prelude::View;
    let w = f.w;
    match op {
        Sys::Pushf => flags::pushf(cpu, w),
        Sys::Popf => flags::popf(cpu, w),
        Sys::Cli => flags::cli(cpu),
        Sys::Sti => flags::sti(cpu),
        Sys::Clac => flags::set_ac(cpu, false),
        Sys::Stac => flags::set_ac(cpu, true),
        Sys::Int => excp::int_n(cpu, cpu.op.imm as u8),
        Sys::Int1 => Err(excp::int1()),
        Sys::Int3 => Err(Exception::bp()),
        Sys::Into => {
            if cpu.eflags() & u64::from(crate::state::bits::OF) != 0 {
                Err(Exception::of())
            } else {
                Ok(Rare::Next)
            }
        }
        Sys::Iret => iret::iret(cpu, w),
        Sys::Retf => iret::retf(cpu, w, cpu.op.imm as u16),
        Sys::CallPtr => {
            let (sel, ip) = pointer(cpu);
            far::call(cpu, w, sel, ip)
        }
        Sys::JmpPtr => {
            let (sel, ip) = pointer(cpu);
            far::jmp(cpu, w, sel, ip)
        }
        Sys::CallMem => {
            let (sel, ip) = far_pointer(cpu, f)?;
            far::call(cpu, w, sel, ip)
        }
        Sys::JmpMem => {
            let (sel, ip) = far_pointer(cpu, f)?;
            far::jmp(cpu, w, sel, ip)
        }
        Sys::Syscall => syscall::syscall(cpu),
        Sys::Sysret => syscall::sysret(cpu, w),
        Sys::Sysenter => syscall::sysenter(cpu),
        Sys::Sysexit => syscall::sysexit(cpu, w),
        Sys::ReadCr => {
            let v = cr::read(cpu, number(cpu, SRC))?;
            set_reg(cpu, w, Loc::R, DST, v);
            Ok(Rare::Next)
        }
        Sys::WriteCr => {
            let v = reg(cpu, w, Loc::R, SRC);
            cr::write(cpu, number(cpu, DST), v)
        }
        Sys::ReadDr => {
            let v = debug::read(cpu, number(cpu, SRC))?;
            set_reg(cpu, w, Loc::R, DST, v);
            Ok(Rare::Next)
        }
        Sys::WriteDr => {
            let v = reg(cpu, w, Loc::R, SRC);
            debug::write(cpu, number(cpu, DST), v)
        }
        Sys::ReadSeg => {
            let v = cpu.state.segs[usize::from(number(cpu, SRC)) % 6].sel;
            write(cpu, w, f, f.dst, DST, v.into())?;
            Ok(Rare::Next)
        }
        Sys::WriteSeg => {
            let v = read(cpu, W::B2, f, f.src, SRC)?;
            let reg = usize::from(number(cpu, DST));
            if reg == CS || reg > GS {
                return Err(Exception::ud());
            }
            seg::mov_to_segment(cpu, reg, v as u16)
        }
        Sys::PushSeg => {
            let v = cpu.state.segs[usize::from(number(cpu, DST)) % 6].sel;
            seg::push(cpu, w, v)
        }
        Sys::PopSeg => seg::pop(cpu, w, usize::from(number(cpu, DST)) % 6),
        Sys::LoadFar(reg) => {
            let (sel, v) = far_pointer(cpu, f)?;
            // No shadow after LSS: it loads the stack pointer in the same breath.
            seg::load_segment(cpu, reg.into(), sel)?;
            set_reg(cpu, w, Loc::R, DST, v);
            Ok(cpu.resume())
        }
        Sys::Lgdt | Sys::Lidt => {
            let n = if w == W::B8 { 10 } else { 6 };
            let la = address(cpu, f, n, false)?;
            seg::load_table(cpu, op == Sys::Lidt, w, la)
        }
        Sys::Sgdt | Sys::Sidt => {
            let n = if w == W::B8 { 10 } else { 6 };
            let la = address(cpu, f, n, true)?;
            seg::store_table(cpu, op == Sys::Sidt, la)
        }
        Sys::Lldt | Sys::Ltr => {
            cpu.require_protected()?;
            cpu.require_cpl0()?;
            let v = read(cpu, W::B2, f, f.dst, DST)? as u16;
            if op == Sys::Ltr { seg::ltr(cpu, v) } else { seg::lldt(cpu, v) }
        }
        Sys::Sldt | Sys::Str => {
            let v = seg::store_selector(cpu, op == Sys::Str)?;
            write(cpu, w, f, f.dst, DST, v.into())?;
            Ok(Rare::Next)
        }
        Sys::Lar | Sys::Lsl => {
            cpu.require_protected()?;
            let v = read(cpu, W::B2, f, f.src, SRC)? as u16;
            let r = if op == Sys::Lar { seg::lar(cpu, v)? } else { seg::lsl(cpu, v)? };
            set_zf(cpu, r.is_some());
            if let Some(v) = r {
                set_reg(cpu, w, Loc::R, DST, v.into());
            }
            Ok(Rare::Next)
        }
        Sys::Verr | Sys::Verw => {
            cpu.require_protected()?;
            let v = read(cpu, W::B2, f, f.dst, DST)? as u16;
            let ok = seg::verify(cpu, v, op == Sys::Verw)?;
            set_zf(cpu, ok);
            Ok(Rare::Next)
        }
        Sys::Arpl => {
            cpu.require_protected()?;
            let v = read(cpu, W::B2, f, f.dst, DST)? as u16;
            let r = seg::arpl(v, reg(cpu, W::B2, Loc::R, SRC) as u16);
            // The destination must be writable even if it is not written.
            write(cpu, W::B2, f, f.dst, DST, r.unwrap_or(v).into())?;
            set_zf(cpu, r.is_some());
            Ok(Rare::Next)
        }
        Sys::Lmsw => {
            cpu.require_cpl0()?;
            let v = read(cpu, W::B2, f, f.dst, DST)?;
            cr::lmsw(cpu, v as u16)
        }
        Sys::Smsw => {
            let v = cr::smsw(cpu)?;
            write(cpu, w, f, f.dst, DST, v)?;
            Ok(Rare::Next)
        }
        Sys::Clts => cr::clts(cpu),
        Sys::Invlpg => {
            cpu.require_cpl0()?;
            // The segment's base counts, its limit does not.
            let l = f.memory().ok_or(Exception::ud())?;
            let off = offset(cpu, l);
            let base = match usize::from(cpu.op.seg) {
                s if cpu.state.code64() && s < FS => 0,
                s => cpu.state.segs.get(s).map_or(0, |s| s.base),
            };
            cr::invlpg(cpu, base.wrapping_add(off))
        }
        Sys::Wbinvd => cr::wbinvd(cpu),
        Sys::Rdmsr => msr::rdmsr(cpu),
        Sys::Wrmsr => msr::wrmsr(cpu),
        Sys::Rdtsc => misc::rdtsc(cpu, false),
        Sys::Rdtscp => misc::rdtsc(cpu, true),
        Sys::Rdpmc => Err(misc::rdpmc()),
        Sys::Rdpid => {
            let v = misc::rdpid(cpu)?;
            set_reg(cpu, w, Loc::R, DST, v);
            Ok(Rare::Next)
        }
        Sys::Cpuid => Ok(cpuid::cpuid(cpu)),
        Sys::Hlt => misc::hlt(cpu),
        Sys::Monitor(aw, seg) => {
            misc::may_monitor(cpu)?;
            let off = cpu.gpr(RAX) & aw.mask();
            let la = linear(cpu, seg, off, 1, false)?;
            misc::monitor(cpu, la)
        }
        Sys::Mwait => misc::mwait(cpu),
        Sys::Swapgs => misc::swapgs(cpu),
        Sys::ReadBase(r) => {
            let v = misc::read_base(cpu, r.into())?;
            set_reg(cpu, w, Loc::R, DST, v);
            Ok(Rare::Next)
        }
        Sys::WriteBase(r) => {
            let v = reg(cpu, w, Loc::R, DST);
            misc::write_base(cpu, r.into(), w, v)
        }
        Sys::Xgetbv => misc::xgetbv(cpu),
        Sys::Xsetbv => misc::xsetbv(cpu),
        Sys::Rsm => smm::rsm(cpu),
        Sys::In(dx) | Sys::Out(dx) => {
            let port = if dx { cpu.gpr(RDX) as u16 } else { u16::from(cpu.op.imm as u8) };
            if matches!(op, Sys::In(_)) { io::input(cpu, w, port) } else { io::output(cpu, w, port) }
        }
        Sys::Ins(aw, rep) => io::string(cpu, w, aw, rep, None),
        Sys::Outs(aw, rep, seg) => io::string(cpu, w, aw, rep, Some(seg)),
    }
}
/// Is it an address at all?
pub fn check_address(state: &State, la: u64, access: Access) -> Result<(), Exception> {
    mmu::check_address(state, la, access)
}
/// Walks the page tables.
pub fn walk(state: &mut State, phys: &mut Phys<'_>, la: u64, access: Access) -> Result<Leaf, Exception> {
    mmu::walk(state, phys, la, access)
}
/// Full check of an access to segment `seg` outside of 64-bit mode.
pub fn segment(_: &Hot, state: &State, seg: u8, offset: u64, bytes: u32, write: bool) -> Result<u64, Exception> {
    mmu::segment(state, seg, offset, bytes, write)
}
