//! How one region goes on to the next: a jump, with the stack as the first one found it.
//!
//! Cranelift has tail calls in one calling convention only, in which each region would save five registers for nobody: whoever
//! enters the first one has saved them. So on x86-64 regions have the convention without such registers, and what is emitted
//! is a call that does not return, a trap behind it. Once compiled, its bytes become those of the way out.

use super::{
    super::{
        env::{Env, HOT, Hot, JC, JcEntry},
        target::Target,
    },
    frame::ENV,
};
use cranelift_codegen::{
    ir::{AbiParam, Block, BlockArg, InstBuilder, Signature, TrapCode, Value, condcodes::IntCC, types::I64},
    isa::CallConv,
};
use cranelift_frontend::FunctionBuilder;
use std::mem::offset_of;

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

/// Ends the block: goes on at a linear address, in the region that the jump cache knows for it in its place, or in the one beside that; to
/// a block if that is another's.
pub(super) fn look_up<T: Target>(
    b: &mut FunctionBuilder<'_>,
    env: Value,
    (ip, left): (Value, Value),
    beside: bool,
    (unknown, args): (Block, &[BlockArg]),
) {
    let at = offset_of!(Env<T>, jc) as i32;
    let k = |b: &mut FunctionBuilder<'_>, v: i64| b.ins().iconst(I64, v);
    let twelve = k(b, 12);
    let h = b.ins().ushr(ip, twelve);
    let h = b.ins().bxor(h, ip);
    let mask = k(b, JC as i64 - 1);
    let mut h = b.ins().band(h, mask);
    if beside {
        let one = k(b, 1);
        h = b.ins().bxor(h, one)
    }
    let size = k(b, size_of::<JcEntry<T>>().trailing_zeros().into());
    let h = b.ins().ishl(h, size);
    let e = b.ins().iadd(env, h);
    let key = b.ins().load(I64, ENV, e, at + offset_of!(JcEntry<T>, key) as i32);
    let salt = b.ins().load(I64, ENV, env, (HOT + offset_of!(Hot, salt)) as i32);
    let want = b.ins().bxor(ip, salt);
    let same = b.ins().icmp(IntCC::Equal, key, want);
    let hit = b.create_block();
    b.ins().brif(same, hit, &[], unknown, args);
    b.switch_to_block(hit);
    let code = b.ins().load(I64, ENV, e, at + offset_of!(JcEntry<T>, code) as i32);
    let entry = b.ins().load(I64, ENV, e, at + offset_of!(JcEntry<T>, entry) as i32);
    go_on(b, code, [env, entry, ip, left])
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
