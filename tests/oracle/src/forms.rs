//! Which instructions there are, and in which forms: read off iced-x86's tables.

use crate::state::Mode;
use iced_x86::{Code, CpuidFeature, Mnemonic, OpCodeOperandKind as K};
use std::{collections::HashSet, sync::LazyLock};
use target_i386::cpu::features;

/// Prefix that is part of a form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Prefix {
    /// None.
    None,
    /// LOCK, on a memory destination.
    Lock,
    /// REP or REPE.
    Rep,
    /// REPNE.
    Repne,
}

/// An instruction and the kind of its operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Form {
    /// The opcode, as iced numbers them.
    pub code: Code,
    /// Is the register-or-memory operand memory?
    pub memory: bool,
    /// Prefix.
    pub prefix: Prefix,
}

impl Form {
    /// The form as the manual writes it, with the choice made where there is one.
    pub fn text(self) -> String {
        let base = self.code.op_code().instruction_string();
        let prefix = match self.prefix {
            Prefix::None => "",
            Prefix::Lock => "LOCK ",
            Prefix::Rep => "REP ",
            Prefix::Repne => "REPNE ",
        };
        let choice = match (has_choice(self.code), self.memory) {
            (false, _) => "",
            (true, false) => " (register)",
            (true, true) => " (memory)",
        };
        format!("{prefix}{base}{choice}")
    }
}

/// Is the operand a register or memory, as ModRM.mod says?
pub fn is_choice(k: K) -> bool {
    matches!(k, K::r8_or_mem | K::r16_or_mem | K::r32_or_mem | K::r64_or_mem | K::mm_or_mem | K::xmm_or_mem)
}

/// Does one operand of `code` leave that choice?
pub fn has_choice(code: Code) -> bool {
    code.op_code().op_kinds().iter().any(|&k| is_choice(k))
}

/// iced's features that no CPUID bit stands for: every processor we model has them.
const BASE: &[CpuidFeature] = {
    use CpuidFeature::*;
    &[INTEL8086, INTEL186, INTEL286, INTEL386, INTEL486, X64, CPUID, FPU287, FPU387, MULTIBYTENOP, PAUSE, RDPMC, SMM]
};

/// iced's features and the CPUID bits (QEMU's names) that report them.
#[rustfmt::skip]
const REPORTED_BY: &[(CpuidFeature, &str)] = {
    use CpuidFeature::*;
    &[
        (ADX, "adx"), (AES, "aes"), (AVX, "avx"), (AVX2, "avx2"), (BMI1, "bmi1"), (BMI2, "bmi2"), (CLDEMOTE, "cldemote"),
        (CLFLUSHOPT, "clflushopt"), (CLFSH, "clflush"), (CLWB, "clwb"), (CLZERO, "clzero"), (CMOV, "cmov"),
        (CMPXCHG16B, "cx16"), (CX8, "cx8"), (D3NOW, "3dnow"), (D3NOWEXT, "3dnowext"), (F16C, "f16c"), (FMA, "fma"),
        (FPU, "fpu"), (FSGSBASE, "fsgsbase"), (FXSR, "fxsr"), (GFNI, "gfni"), (INVPCID, "invpcid"), (LZCNT, "abm"),
        (MMX, "mmx"), (MONITOR, "monitor"), (MOVBE, "movbe"), (MOVDIR64B, "movdir64b"), (MOVDIRI, "movdiri"), (MSR, "msr"),
        (PCLMULQDQ, "pclmulqdq"), (PKU, "pku"), (POPCNT, "popcnt"), (PREFETCHW, "3dnowprefetch"), (RDPID, "rdpid"),
        (RDRAND, "rdrand"), (RDSEED, "rdseed"), (RDTSCP, "rdtscp"), (SEP, "sep"), (SERIALIZE, "serialize"),
        (SHA, "sha-ni"), (SMAP, "smap"), (SSE, "sse"), (SSE2, "sse2"), (SSE3, "pni"), (SSE4A, "sse4a"),
        (SSE4_1, "sse4.1"), (SSE4_2, "sse4.2"), (SSSE3, "ssse3"), (SVM, "svm"), (SYSCALL, "syscall"), (TSC, "tsc"),
        (VAES, "vaes"), (VMX, "vmx"), (VPCLMULQDQ, "vpclmulqdq"), (WBNOINVD, "wbnoinvd"), (XSAVE, "xsave"),
        (XSAVEC, "xsavec"), (XSAVEOPT, "xsaveopt"), (XSAVES, "xsaves"),
    ]
};

/// Does the engine report `feature`?
pub fn reports(feature: CpuidFeature) -> bool {
    static SET: LazyLock<HashSet<CpuidFeature>> = LazyLock::new(|| {
        let bits = REPORTED_BY.iter().filter(|(_, name)| features::engine().has(name)).map(|(f, _)| *f);
        BASE.iter().copied().chain(bits).collect()
    });
    SET.contains(&feature)
}

/// How a form can be checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Check {
    /// Against the host CPU.
    Host,
    /// System instruction: by guest programs in tests.
    Program(&'static str),
}

/// Does iced assign `code` to features that the engine all reports, and is it an instruction of the mode?
pub fn is_reported(code: Code, bits: u32) -> bool {
    let op = code.op_code();
    // 0F 0D with a register: a NOP on Intel's, #UD on AMD's.
    let maker = matches!(
        code,
        Code::Reservednop_rm16_r16_0F0D | Code::Reservednop_rm32_r32_0F0D | Code::Reservednop_rm64_r64_0F0D
    );
    op.is_instruction()
        && !maker
        && !op.fwait() // WAIT and another instruction
        && op.is_available_in_mode(bits)
        && (bits != 64 || op.intel_decoder64())
        && (bits != 32 || op.intel_decoder32())
        && (bits != 16 || op.intel_decoder16())
        && op.decoder_option() == 0
        && code.cpuid_features().iter().all(|f| reports(*f))
}

/// How `code` is checked.
pub fn check(code: Code) -> Check {
    use Mnemonic as M;
    let op = code.op_code();
    if !op.cpl3() {
        return Check::Program("privileged");
    }
    let kinds = op.op_kinds();
    let segment = |k: &K| matches!(k, K::seg_reg | K::es | K::cs | K::ss | K::ds | K::fs | K::gs);
    match code.mnemonic() {
        M::Syscall | M::Sysret | M::Sysexit | M::Sysenter | M::Int | M::Int1 | M::Iret | M::Iretd | M::Iretq => {
            Check::Program("leaves user code")
        }
        M::Cpuid | M::Rdtsc | M::Rdtscp | M::Rdpmc | M::Rdpid => Check::Program("says what the machine is"),
        M::Sgdt | M::Sidt | M::Sldt | M::Str | M::Smsw | M::Lar | M::Lsl | M::Verr | M::Verw => {
            Check::Program("shows system state")
        }
        // The host's own thread data hang on FS.
        M::Rdfsbase | M::Rdgsbase | M::Wrfsbase | M::Wrgsbase => Check::Program("loads a segment"),
        M::Lds | M::Les | M::Lfs | M::Lgs | M::Lss | M::Retf => Check::Program("loads a segment"),
        M::In | M::Out | M::Insb | M::Insw | M::Insd | M::Outsb | M::Outsw | M::Outsd | M::Cli | M::Sti => {
            Check::Program("needs I/O privilege")
        }
        _ if code.is_jmp_far()
            || code.is_jmp_far_indirect()
            || code.is_call_far()
            || code.is_call_far_indirect()
            || kinds.iter().any(segment) =>
        {
            Check::Program("loads a segment")
        }
        _ => Check::Host,
    }
}

/// All forms of `mode` that the host can check, in iced's order.
pub fn host_forms(mode: Mode) -> Vec<Form> {
    all_forms(mode).into_iter().filter(|f| check(f.code) == Check::Host).collect()
}

/// Forms that user code may not run: the host can only say which exception they raise.
pub fn forbidden_forms(mode: Mode) -> Vec<Form> {
    // (On AMD's SYSEXIT does not exist in long mode; which exception that is differs.)
    let differs = |f: &Form| matches!(f.code.mnemonic(), Mnemonic::Sysexit | Mnemonic::Sysexitq);
    let forbidden =
        |f: &Form| !differs(f) && matches!(check(f.code), Check::Program("privileged" | "needs I/O privilege"));
    all_forms(mode).into_iter().filter(forbidden).collect()
}

/// All forms of `mode` that belong to a reported feature.
pub fn all_forms(mode: Mode) -> Vec<Form> {
    Code::values().filter(|&c| is_reported(c, mode.bits())).flat_map(forms_of).collect()
}

/// The forms of one opcode.
pub fn forms_of(code: Code) -> Vec<Form> {
    let op = code.op_code();
    let mut out = vec![];
    let choice = has_choice(code);
    let mem_only = op.op_kinds().iter().any(|&k| matches!(k, K::mem | K::mem_offs));
    for memory in [false, true] {
        if memory && !choice && !mem_only || !memory && mem_only {
            continue;
        }
        out.push(Form { code, memory, prefix: Prefix::None });
        let k0 = op.op_kinds().first().copied().unwrap_or(K::None);
        if memory && op.can_use_lock_prefix() && (is_choice(k0) || k0 == K::mem) {
            out.push(Form { code, memory, prefix: Prefix::Lock });
        }
        if op.can_use_rep_prefix() && code.is_string_instruction() {
            out.push(Form { code, memory, prefix: Prefix::Rep });
        }
        if op.can_use_repne_prefix() && code.is_string_instruction() {
            out.push(Form { code, memory, prefix: Prefix::Repne });
        }
    }
    out
}
