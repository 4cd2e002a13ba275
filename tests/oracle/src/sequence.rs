//! Short straight runs of instructions, ended by a branch now and then: they meet what single instructions do not, flags that
//! nobody reads and pairs that run as one.

use crate::{
    cases,
    forms::{self, Form, Prefix},
    layout::Layout,
    state::{Case, Mode},
    undefined,
    values::Values,
};
use iced_x86::{FlowControl, Instruction, InstructionInfoFactory, Mnemonic as M, OpAccess, OpKind, Register};

/// A run of instructions on a state, and the flags it leaves undefined.
pub struct Sequence {
    /// The case; `count` is the number of instructions.
    pub case: Case,
    /// Flags that are undefined behind the last instruction.
    pub undefined: u64,
    /// Flags that are undefined behind any instruction: what counts when one faults.
    pub ever_undefined: u64,
}

/// Forms that may be part of a sequence in `mode`: the straight ones, and those that end it.
pub struct Pool {
    mode: Mode,
    straight: Vec<Form>,
    branches: Vec<Form>,
    /// The ones compilers use most, drawn as often as all others together.
    common: Vec<Form>,
}

impl Pool {
    /// Sorts the forms of `mode`.
    pub fn new(mode: Mode) -> Pool {
        let (mut straight, mut branches, mut common) = (vec![], vec![], vec![]);
        for form in forms::host_forms(mode) {
            let code = form.code;
            if code.is_jcc_short_or_near() || code.is_jmp_short_or_near() {
                branches.push(form);
            }
            let odd = matches!(
                code.mnemonic(),
                M::Bsf
                    | M::Arpl
                    | M::Movsxd
                    | M::Pusha
                    | M::Pushad
                    | M::Popa
                    | M::Popad
                    | M::Bsr
                    | M::Shld
                    | M::Shrd
                    | M::Rcpps
                    | M::Rcpss
                    | M::Rsqrtps
                    | M::Rsqrtss
                    | M::Enter
                    | M::Leave
                    | M::Popf
                    | M::Popfd
                    | M::Popfq
                    | M::Xlatb
                    | M::Maskmovq
                    | M::Maskmovdqu
                    | M::Fxrstor
                    | M::Fxrstor64
                    | M::Fxsave
                    | M::Fxsave64
                    | M::Into
                    | M::Bound
            );
            let x87 = code.op_code().instruction_string().starts_with('F')
                && code.cpuid_features().iter().any(|f| format!("{f:?}").starts_with("FPU"));
            // (A bit offset in a register reaches far.)
            let far = form.memory && matches!(code.mnemonic(), M::Bt | M::Btc | M::Btr | M::Bts);
            if far
                || code.flow_control() != FlowControl::Next
                || odd
                || x87
                || code.is_string_instruction()
                || form.prefix != Prefix::None
            {
                continue;
            }
            if matches!(
                code.mnemonic(),
                M::Cmp
                    | M::Test
                    | M::Add
                    | M::Sub
                    | M::And
                    | M::Or
                    | M::Xor
                    | M::Dec
                    | M::Inc
                    | M::Mov
                    | M::Lea
                    | M::Push
                    | M::Pop
                    | M::Shl
                    | M::Adc
                    | M::Sbb
            ) {
                common.push(form);
            }
            straight.push(form);
        }
        Pool { mode, straight, branches, common }
    }

    /// A random sequence of up to `most` instructions.
    pub fn sequence(&self, layout: &Layout, most: u64, v: &mut Values) -> Option<Sequence> {
        let count = 2 + v.below(most - 1);
        let start = layout.code + 0x400 + v.below(0x400);
        let (mut code, mut tainted, mut ever) = (vec![], 0, 0);
        let mut factory = InstructionInfoFactory::new();
        let mut done = 0;
        let mut tries = 0;
        while done < count {
            tries += 1;
            if tries > 200 {
                return None;
            }
            let last = done + 1 == count;
            let form = if last && v.chance(60) {
                v.pick(&self.branches)
            } else if v.chance(50) {
                v.pick(&self.common)
            } else {
                v.pick(&self.straight)
            };
            let ip = start + code.len() as u64;
            let Some(e) = cases::encode_at(form, self.mode, layout, ip, cases::Addressing::Fixed, v) else { continue };
            let i = &e.instruction;
            if undefined::flags(i.rflags_read()) & tainted != 0 || !keeps_stack(i, &mut factory) {
                continue;
            }
            let mut undefined = undefined::flags(i.rflags_undefined());
            if matches!(i.mnemonic(), M::Shl | M::Sal | M::Shr | M::Sar | M::Rol | M::Ror | M::Rcl | M::Rcr) {
                undefined |= 0x811; // whichever the count makes undefined
            }
            // A shift by CL may be one by nothing, which leaves the flags alone.
            let by_cl = i.op_count() > 0
                && i.op_kind(i.op_count() - 1) == OpKind::Register
                && i.op_register(i.op_count() - 1) == Register::CL;
            let written = if by_cl { 0 } else { i.rflags_written() | i.rflags_cleared() | i.rflags_set() };
            tainted = tainted & !undefined::flags(written) | undefined;
            ever |= undefined;
            code.extend_from_slice(&e.bytes);
            done += 1;
        }
        let mut case = cases::random(self.mode, start, v);
        case.state.gpr[4] = layout.data + 0x800 + (v.below(0x400) & !7);
        case.code = code;
        case.count = done as u32;
        Some(Sequence { case, undefined: tainted, ever_undefined: ever })
    }
}

/// Does the stack pointer stay where pushes and pops work?
fn keeps_stack(i: &Instruction, factory: &mut InstructionInfoFactory) -> bool {
    if i.is_stack_instruction() {
        // POP to rsp, and the forms whose memory operand would need an address in a register.
        return i.op_count() == 0
            || i.op0_kind() != OpKind::Register
            || i.op0_register().full_register() != Register::RSP;
    }
    factory.info(i).used_registers().iter().all(|r| {
        r.register().full_register() != Register::RSP
            || matches!(r.access(), OpAccess::Read | OpAccess::CondRead | OpAccess::NoMemAccess)
    })
}
