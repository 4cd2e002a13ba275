//! The host's x87 unit. Each thunk loads the guest's rounding and precision control with all exceptions masked, operates,
//! reads the status word and restores the host's control word. The register stack is empty on entry and exit, as the
//! calling convention demands; no exception can be unmasked, so nothing here can raise a signal.

use super::f80::F80;
use core::arch::asm;

/// Rounding and precision control, the bits taken from the guest's control word.
const RC_PC: u16 = 0x0f00;
/// All exceptions masked; bit 6 is fixed.
const MASKED: u16 = 0x007f;
/// The control word after FNINIT, which every host thread keeps.
const HOST: u16 = 0x037f;

/// Clearing the host's flags (FNCLEX) costs several times the operation. It is done only if the host has flags set that
/// the caller does not know: `known` are those that are sticky in the guest's status word already, so that the flags
/// returned, old host ones included, add nothing wrong to it.
macro_rules! thunk {
    ($(#[$doc:meta])* $name:ident ($($arg:ident),+) $($insn:literal)+) => {
        $(#[$doc])*
        /// Result, and the status word; its flags are those of the operation and some of `known`.
        #[inline]
        pub fn $name(control: u16, known: u16, $($arg: &F80),+) -> (F80, u16) {
            let mut r = F80::default();
            let sw: u16;
            let cw = control & RC_PC | MASKED;
            let unknown = !known as u8 & 0x3f;
            // SAFETY: reads 10 bytes at each operand, which is 16 long; writes 10 at `r`; the x87 registers are clobbered and
            // left empty; the control word is the host's again at the end.
            unsafe {
                asm!(
                    "fnstsw ax",
                    "test al, {unknown}",
                    "jz 2f",
                    "fnclex",
                    "2:",
                    "fldcw word ptr [{cw}]",
                    $($insn,)+
                    "fldcw word ptr [{host}]",
                    unknown = in(reg_byte) unknown, cw = in(reg) &cw, host = in(reg) &HOST, $($arg = in(reg) $arg,)+ r = in(reg) &mut r,
                    out("ax") sw,
                    out("st(0)") _, out("st(1)") _, out("st(2)") _, out("st(3)") _,
                    out("st(4)") _, out("st(5)") _, out("st(6)") _, out("st(7)") _,
                    options(nostack)
                );
            }
            (r, sw)
        }
    };
}
macro_rules! binary {
    ($(#[$doc:meta])* $name:ident, $insn:literal) => {
        thunk! { $(#[$doc])* $name(a, b)
            "fld tbyte ptr [{b}]" "fld tbyte ptr [{a}]" $insn "fnstsw ax" "fstp tbyte ptr [{r}]" "fstp st(0)" }
    };
}
macro_rules! unary {
    ($(#[$doc:meta])* $name:ident, $insn:literal) => {
        thunk! { $(#[$doc])* $name(a) "fld tbyte ptr [{a}]" $insn "fnstsw ax" "fstp tbyte ptr [{r}]" }
    };
}

binary!(
    /// `a + b`.
    add, "fadd st, st(1)"
);
binary!(
    /// `a − b`.
    sub, "fsub st, st(1)"
);
binary!(
    /// `a · b`.
    mul, "fmul st, st(1)"
);
binary!(
    /// `a / b`.
    div, "fdiv st, st(1)"
);
binary!(
    /// FSCALE: `a · 2^trunc(b)`.
    scale, "fscale"
);
binary!(
    /// FPREM of `a` by `b`; C0–C3 of the status word hold the quotient's low bits and the completion flag.
    prem, "fprem"
);
binary!(
    /// FPREM1 of `a` by `b`.
    prem1, "fprem1"
);
unary!(
    /// `√a`.
    sqrt, "fsqrt"
);
unary!(
    /// FRNDINT.
    rndint, "frndint"
);
