//! How one region goes on to the next: a jump, with the stack as the first one found it.
//!
//! Cranelift has tail calls in one calling convention only, in which each region would save five registers for nobody: whoever
//! enters the first one has saved them. So on x86-64 regions have the convention without such registers, and what is emitted
//! is a call that does not return, a trap behind it. Once compiled, its bytes become those of the way out.

use cranelift_codegen::{
    ir::{AbiParam, InstBuilder, Signature, TrapCode, Value, types::I64},
    isa::CallConv,
};
use cranelift_frontend::FunctionBuilder;

/// Calls can be made jumps on this host.
const PATCHED: bool = cfg!(target_arch = "x86_64");
/// Behind a call that becomes a jump.
const GONE: TrapCode = TrapCode::unwrap_user(1);

/// The signature of regions: env, number of the entry, its linear address and the budget to an exit. What a region returns leaves
/// address and budget in the env, what it goes on to gets them in registers.
pub(super) fn region_signature() -> Signature {
    let mut s = Signature::new(if PATCHED { CallConv::Winch } else { CallConv::Tail });
    s.params = vec![AbiParam::new(I64); 4];
    s.returns.push(AbiParam::new(I64));
    s
}

/// Ends the block: goes on at `code`, with the arguments of a region.
pub(super) fn go_on(b: &mut FunctionBuilder<'_>, code: Value, args: [Value; 4]) {
    let sig = b.import_signature(region_signature());
    if PATCHED {
        b.ins().call_indirect(sig, code, &args);
        b.ins().trap(GONE);
    } else {
        b.ins().return_call_indirect(sig, code, &args);
    }
}

/// Makes the calls of [`go_on`] jumps; `traps` are where instructions that trap lie in the code, and why they do.
///
/// # Errors
/// A call is not the one that was expected.
pub(super) fn finish(code: &mut [u8], traps: impl Iterator<Item = (u32, TrapCode)>) -> Result<(), String> {
    // `call r10`, the register in which this convention has what is called; `ud2`.
    const CALL: [u8; 5] = [0x41, 0xff, 0xd2, 0x0f, 0x0b];
    // `leave`, `jmp r10`, and a byte that is not run.
    const JUMP: [u8; 5] = [0xc9, 0x41, 0xff, 0xe2, 0xcc];
    for (at, _) in traps.filter(|t| t.1 == GONE) {
        let end = at as usize + 2;
        match end.checked_sub(CALL.len()).and_then(|start| code.get_mut(start..end)) {
            Some(bytes) if *bytes == CALL => bytes.copy_from_slice(&JUMP),
            other => return Err(format!("{other:02x?} is no call of another region")),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_that_do_not_return_become_jumps() {
        let mut code = [0x90, 0x41, 0xff, 0xd2, 0x0f, 0x0b, 0x0f, 0x0b];
        let traps = [(4, GONE), (6, TrapCode::HEAP_OUT_OF_BOUNDS)];
        assert_eq!(finish(&mut code, traps.into_iter()), Ok(()));
        assert_eq!(code, [0x90, 0xc9, 0x41, 0xff, 0xe2, 0xcc, 0x0f, 0x0b]);
        assert!(finish(&mut code, traps.into_iter()).is_err(), "it is one already");
        assert!(finish(&mut code, [(1, GONE)].into_iter()).is_err(), "it begins before the code");
    }
}
