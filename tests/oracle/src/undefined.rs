//! What an instruction leaves undefined, so that nobody is blamed for it.
//!
//! Flags: iced's `rflags_undefined`, made exact where it depends on a value (Intel SDM vol. 2):
//! - SAL/SAR/SHL/SHR: count 0 changes no flag; OF is defined for count 1 only; AF undefined for a count other than 0; CF undefined for SHL and SHR
//!   with a count of at least the operand's size.
//! - RCL/RCR/ROL/ROR: count 0 changes no flag; OF is defined for count 1 only.
//! - SHLD/SHRD: count 0 changes no flag; OF for count 1 only; count above the operand's size: flags and destination undefined.
//! - BSF/BSR: source 0 leaves the destination undefined (every CPU known keeps it, in 64-bit mode with a 32-bit operand some clear the upper half).

use crate::state::{Case, Mode, Outcome};
use iced_x86::{Instruction, Mnemonic as M, OpKind, Register, RflagsBits};

/// What not to compare.
#[derive(Clone, Copy, Debug, Default)]
pub struct Undefined {
    /// Bits of RFLAGS.
    pub rflags: u64,
    /// The first operand's value.
    pub destination: bool,
    /// Bits of the x87 status word.
    pub fsw: u16,
    /// All general registers.
    pub registers: bool,
    /// All of memory.
    pub memory: bool,
    /// Which of several exceptions is raised, its error code and address.
    pub which_fault: bool,
    /// Which byte of the page an exception's address names.
    pub byte_of_page: bool,
    /// x87 tag word and stack pointer.
    pub x87_mode: bool,
    /// Makers differ: nothing to compare.
    pub everything: bool,
}

impl Undefined {
    /// What only shows in the outcomes, `judge`'s and `other`'s: where makers differ, and what an instruction that faults may have done already.
    pub fn outcomes(&mut self, i: &Instruction, judge: &Outcome, other: &Outcome) {
        let both = judge.fault.is_some() && other.fault.is_some();
        let one = judge.fault.is_some() != other.fault.is_some();
        let vectors = judge.fault.zip(other.fault).map(|(a, b)| (a.vector, b.vector));
        // A misaligned operand beyond the limit of the stack segment: #GP or #SS.
        if matches!(vectors, Some((12 | 13, 12 | 13))) && i.memory_size().size() >= 16 {
            self.which_fault = true;
        }
        match i.mnemonic() {
            // The order in which the two operands are read is nowhere said.
            M::Cmpsb | M::Cmpsw | M::Cmpsd | M::Cmpsq => self.which_fault = both,
            // SDM checks the target first, AMD's the stack.
            M::Call => self.which_fault = both,
            // Some elements may have been stored or loaded.
            M::Pusha | M::Pushad | M::Enter => self.memory = both,
            M::Popa | M::Popad => self.registers = both,
            // AMD's read 32 bits, Intel's 16.
            M::Movsxd if i.op0_register().size() == 2 => self.everything = judge.fault != other.fault,
            // Must the operand be writable when nothing changes?
            M::Arpl => self.everything = one,
            // Several accesses; which is the first to meet the page is nowhere said.
            M::Fnstenv | M::Fnsave | M::Fldenv | M::Frstor | M::Fxsave | M::Fxsave64 | M::Fxrstor | M::Fxrstor64 => {
                self.byte_of_page = true;
                self.memory = both;
                // One of them may meet a page before the next one meets the limit.
                self.which_fault = matches!(vectors, Some((12..=14, 12..=14)));
            }
            // "Exceptions for a mask of zero are implementation-dependent" (SDM).
            M::Maskmovq | M::Maskmovdqu => {
                self.everything = one;
                // Bytes are stored each by itself: one may meet a page before another one meets the limit.
                self.which_fault = matches!(vectors, Some((12..=14, 12..=14)));
                self.byte_of_page = true;
            }
            // Whether the x87 unit has become the MMX unit when the exception is raised.
            M::Cvtps2pi | M::Cvttps2pi | M::Cvtpd2pi | M::Cvttpd2pi | M::Cvtpi2ps | M::Cvtpi2pd => self.x87_mode = both,
            // Whether a count of zero needs the privilege.
            M::Insb | M::Insw | M::Insd | M::Outsb | M::Outsw | M::Outsd => self.everything = i.has_rep_prefix() && one,
            _ => {}
        }
    }
}

/// iced's flag bits as bits of RFLAGS (status flags and DF).
pub fn flags(bits: u32) -> u64 {
    [
        (RflagsBits::CF, 0x1),
        (RflagsBits::PF, 0x4),
        (RflagsBits::AF, 0x10),
        (RflagsBits::ZF, 0x40),
        (RflagsBits::SF, 0x80),
        (RflagsBits::DF, 0x400),
        (RflagsBits::OF, 0x800),
    ]
    .iter()
    .filter(|(b, _)| bits & b != 0)
    .map(|(_, f)| f)
    .sum()
}

/// What `case`, which is the single instruction `i`, leaves undefined.
pub fn undefined(i: &Instruction, case: &Case) -> Undefined {
    const CF: u64 = 0x1;
    const AF: u64 = 0x10;
    const OF: u64 = 0x800;
    let mut u = Undefined { rflags: flags(i.rflags_undefined()), ..Undefined::default() };
    let last = i.op_count().saturating_sub(1);
    let bits = match i.op_count() {
        0 => 0,
        _ if i.op0_kind() == OpKind::Register => i.op0_register().size() as u32 * 8,
        _ => i.memory_size().size() as u32 * 8,
    };
    let count = || {
        let raw = match i.op_kind(last) {
            OpKind::Register => case.state.gpr[1] as u32,
            _ => u32::from(i.immediate8()),
        };
        raw & if bits == 64 { 63 } else { 31 }
    };
    match i.mnemonic() {
        M::Shl | M::Sal | M::Shr | M::Sar => {
            let n = count();
            u.rflags = match n {
                0 => 0,
                1 => AF,
                _ => AF | OF,
            };
            if n >= bits && i.mnemonic() != M::Sar {
                u.rflags |= CF;
            }
        }
        M::Rol | M::Ror | M::Rcl | M::Rcr => u.rflags = if count() > 1 { OF } else { 0 },
        M::Shld | M::Shrd => {
            let n = count();
            u.rflags = match n {
                0 => 0,
                1 => AF,
                _ => AF | OF,
            };
            if n > bits {
                u.rflags = 0x8d5;
                u.destination = true;
                u.memory = i.op0_kind() == OpKind::Memory;
            }
        }
        M::Bsf | M::Bsr => {
            // Only the upper half is in doubt, and only for 32-bit operands in 64-bit mode; compared through the low half.
            u.destination =
                case.mode == Mode::Bits64 && bits == 32 && i.op1_register() != Register::None && zero_source(i, case);
            u.rflags = 0x8d5 & !0x40;
        }
        _ => {}
    }
    u.fsw = condition_codes(i.mnemonic());
    u
}

fn zero_source(i: &Instruction, case: &Case) -> bool {
    case.state.gpr[i.op1_register().full_register().number()] as u32 == 0
}

/// Condition code bits of the status word an x87 instruction leaves undefined: C0, C2, C3 for nearly all (SDM vol. 2, "FPU Flags Affected").
fn condition_codes(m: M) -> u16 {
    const C0: u16 = 0x100;
    const C1: u16 = 0x200;
    const C2: u16 = 0x400;
    const C3: u16 = 0x4000;
    match m {
        M::Fcom
        | M::Fcomp
        | M::Fcompp
        | M::Fucom
        | M::Fucomp
        | M::Fucompp
        | M::Ficom
        | M::Ficomp
        | M::Ftst
        | M::Fxam => 0,
        M::Fprem | M::Fprem1 => 0,
        M::Fcomi | M::Fcomip | M::Fucomi | M::Fucomip => 0,
        M::Fsin | M::Fcos | M::Fsincos | M::Fptan => C0 | C3,
        M::Fnstcw | M::Fstcw | M::Fldcw | M::Fnstsw | M::Fstsw | M::Fnclex | M::Fclex | M::Ffree | M::Fnop => {
            C0 | C1 | C2 | C3
        }
        M::Fninit | M::Finit | M::Fnsave | M::Fsave | M::Frstor | M::Fldenv | M::Fnstenv | M::Fstenv => 0,
        M::Fadd
        | M::Faddp
        | M::Fiadd
        | M::Fsub
        | M::Fsubp
        | M::Fisub
        | M::Fsubr
        | M::Fsubrp
        | M::Fisubr
        | M::Fmul
        | M::Fmulp
        | M::Fimul
        | M::Fdiv
        | M::Fdivp
        | M::Fidiv
        | M::Fdivr
        | M::Fdivrp
        | M::Fidivr
        | M::Fsqrt
        | M::Fabs
        | M::Fchs
        | M::Frndint
        | M::Fscale
        | M::Fxtract
        | M::Fld
        | M::Fild
        | M::Fst
        | M::Fstp
        | M::Fist
        | M::Fistp
        | M::Fisttp
        | M::Fbld
        | M::Fbstp
        | M::Fxch
        | M::Fld1
        | M::Fldl2t
        | M::Fldl2e
        | M::Fldpi
        | M::Fldlg2
        | M::Fldln2
        | M::Fldz
        | M::Fincstp
        | M::Fdecstp
        | M::F2xm1
        | M::Fyl2x
        | M::Fyl2xp1
        | M::Fpatan
        | M::Fcmovb
        | M::Fcmove
        | M::Fcmovbe
        | M::Fcmovu
        | M::Fcmovnb
        | M::Fcmovne
        | M::Fcmovnbe
        | M::Fcmovnu => C0 | C2 | C3,
        M::Fstpnce => C0 | C1 | C2 | C3,
        _ => 0,
    }
}
