//! Conversions that round by MXCSR, which the compiler of regions has no operation for, as routines: the operand in `xmm0`,
//! the result at `rdi`. They change no register but the sticky flags of MXCSR, so that generated code calls them with all
//! registers live.

use core::arch::naked_asm;

/// A routine, called by generated code in its own convention only.
pub type Routine = unsafe extern "C" fn();

macro_rules! routines {
    ($($(#[$doc:meta])* $name:ident: $($insn:literal)+;)*) => { $(
        $(#[$doc])*
        ///
        /// # Safety
        /// Only for generated code; see the module.
        #[unsafe(naked)]
        pub unsafe extern "C" fn $name() {
            naked_asm!($($insn,)+ "ret")
        }
    )* };
}
// (The 128 bytes below the stack pointer are the routine's.)
routines! {
    /// CVTPS2DQ.
    cvtps2dq: "movups [rsp - 24], xmm0" "cvtps2dq xmm0, xmm0" "movups [rdi], xmm0" "movups xmm0, [rsp - 24]";
    /// CVTPD2DQ.
    cvtpd2dq: "movups [rsp - 24], xmm0" "cvtpd2dq xmm0, xmm0" "movups [rdi], xmm0" "movups xmm0, [rsp - 24]";
    /// CVTSS2SI to 32 bits.
    cvtss2si32: "push rax" "cvtss2si eax, xmm0" "mov [rdi], eax" "pop rax";
    /// CVTSS2SI to 64 bits.
    cvtss2si64: "push rax" "cvtss2si rax, xmm0" "mov [rdi], rax" "pop rax";
    /// CVTSD2SI to 32 bits.
    cvtsd2si32: "push rax" "cvtsd2si eax, xmm0" "mov [rdi], eax" "pop rax";
    /// CVTSD2SI to 64 bits.
    cvtsd2si64: "push rax" "cvtsd2si rax, xmm0" "mov [rdi], rax" "pop rax";
}
