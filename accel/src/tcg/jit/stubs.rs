//! Code that is made once: the way from Rust into a region, what stands in the jump cache where no region is known, and the ways out
//! that all regions share. Its memory is never freed.
#![expect(unsafe_code, reason = "entry into generated code")]

use super::{
    super::{
        env::{Env, HOT, Hot},
        target::Target,
    },
    frame::{ENV, Exit, exit},
    go::{self, look_up, region_signature},
};
use cranelift_codegen::{
    Context,
    ir::{AbiParam, InstBuilder, Signature, Value, types::I64},
    isa::OwnedTargetIsa,
    settings::{self, Configurable},
};
use cranelift_control::ControlPlane;
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
use cranelift_jit::{JITBuilder, JITModule};
use cranelift_module::{FuncId, Module, default_libcall_names};
use parking_lot::Mutex;
use std::{ffi::c_void, mem::offset_of};

/// Enters a region: `(env, code, entry, address, budget)`; returns one of [`exit`].
pub(super) type Enter = unsafe extern "C" fn(*mut c_void, *const u8, u64, u64, i64) -> u64;

/// Code that is made once: the way in, and addresses of what regions [go on](super::go) to.
#[derive(Clone, Copy)]
pub(super) struct Stubs {
    pub enter: Enter,
    /// A region that returns [`exit::CHAIN`] for where it was entered.
    pub no_region: usize,
    /// Ways out by [`Exit`], where addresses have 32 bits and where they have 64. Instead of the number of an entry and its address they
    /// get an offset and instructions done, packed as for [`Clif::leave_at`](super::frame::Clif::leave_at), and the address of the page.
    pub exits: [[usize; 2]; 3],
    /// Goes on at an address whose place in the jump cache is another's.
    pub unknown: usize,
}

/// The compiler's target: this host, quick to compile for.
///
/// # Errors
/// Cranelift knows no such host.
pub(super) fn isa() -> Result<OwnedTargetIsa, String> {
    let mut f = settings::builder();
    // (The way from region to region needs frame pointers. Alias analysis would move loads that other vCPUs' stores must reach.)
    for (name, value) in [
        ("opt_level", "none"),
        ("preserve_frame_pointers", "true"),
        ("unwind_info", "false"),
        ("enable_alias_analysis", "false"),
        ("enable_verifier", if cfg!(debug_assertions) { "true" } else { "false" }),
    ] {
        f.set(name, value).map_err(|e| e.to_string())?;
    }
    cranelift_native::builder()?.finish(settings::Flags::new(f)).map_err(|e| e.to_string())
}

/// The stubs of a target, made at the first call.
///
/// # Errors
/// As for [`isa`], or the host refuses executable memory.
pub(super) fn stubs<T: Target>() -> Result<Stubs, String> {
    // (They differ by where the jump cache is.)
    static MADE: Mutex<Vec<(usize, Result<Stubs, String>)>> = Mutex::new(Vec::new());
    let jc = offset_of!(Env<T>, jc);
    let mut made = MADE.lock();
    if let Some(m) = made.iter().find(|m| m.0 == jc) {
        return m.1.clone();
    }
    let new = make::<T>().map_err(|e| e.to_string());
    made.push((jc, new.clone()));
    new
}

/// Functions on their way into memory.
struct Maker {
    module: JITModule,
    builder: FunctionBuilderContext,
}
impl Maker {
    /// Adds one, given what its body does with its parameters.
    fn add(
        &mut self,
        signature: Signature,
        body: impl FnOnce(&mut FunctionBuilder<'_>, &[Value]),
    ) -> Result<FuncId, Box<dyn std::error::Error>> {
        let mut ctx = Context::new();
        ctx.func.signature = signature;
        let mut b = FunctionBuilder::new(&mut ctx.func, &mut self.builder);
        let block = b.create_block();
        b.append_block_params_for_function_params(block);
        b.switch_to_block(block);
        let params = b.block_params(block).to_vec();
        body(&mut b, &params);
        b.seal_all_blocks();
        b.finalize(self.module.target_config());
        let id = self.module.declare_anonymous_function(&ctx.func.signature)?;
        let code = ctx.compile(self.module.isa(), &mut ControlPlane::default()).map_err(|e| e.inner)?;
        debug_assert!(code.buffer.relocs().is_empty(), "code that depends on its place");
        let mut bytes = code.code_buffer().to_vec();
        go::finish(&mut bytes, code.buffer.traps().iter().map(|t| (t.offset, t.code)))?;
        self.module.define_function_bytes(id, 16, &bytes, &[])?;
        Ok(id)
    }
}
/// Returns to whoever entered the first region.
fn back(b: &mut FunctionBuilder<'_>, env: Value, (ip, left): (Value, Value), why: i64) {
    for (v, field) in [(ip, offset_of!(Hot, ip)), (left, offset_of!(Hot, budget))] {
        b.ins().store(ENV, v, env, (HOT + field) as i32);
    }
    let why = b.ins().iconst(I64, why);
    b.ins().return_(&[why]);
}
/// As in [`back`], after a look into the place beside that of the address.
fn beside<T: Target>(b: &mut FunctionBuilder<'_>, env: Value, to: (Value, Value)) {
    let none = b.create_block();
    b.set_cold_block(none);
    look_up::<T>(b, env, to, true, (none, &[]));
    b.switch_to_block(none);
    back(b, env, to, exit::CHAIN)
}
fn make<T: Target>() -> Result<Stubs, Box<dyn std::error::Error>> {
    let module = JITModule::new(JITBuilder::with_isa(isa()?, default_libcall_names()));
    let mut m = Maker { module, builder: FunctionBuilderContext::new() };
    let mut sig = m.module.make_signature();
    sig.params = vec![AbiParam::new(I64); 5];
    sig.returns.push(AbiParam::new(I64));
    let enter = m.add(sig, |b, p| {
        let sig = b.import_signature(region_signature());
        let call = b.ins().call_indirect(sig, p[1], &[p[0], p[2], p[3], p[4]]);
        let why = b.inst_results(call)[0];
        b.ins().return_(&[why]);
    })?;
    let no_region = m.add(region_signature(), |b, p| back(b, p[0], (p[2], p[3]), exit::CHAIN))?;
    let unknown = m.add(region_signature(), |b, p| beside::<T>(b, p[0], (p[2], p[3])))?;
    let mut exits = Vec::new();
    for by in [Exit::Side, Exit::Kick, Exit::Far] {
        for mask in [u32::MAX.into(), u64::MAX] {
            exits.push(m.add(region_signature(), |b, p| {
                let k = [16, 0xffff, mask as i64].map(|k| b.ins().iconst(I64, k));
                let off = b.ins().sshr(p[1], k[0]);
                let ip = b.ins().iadd(p[2], off);
                let ip = b.ins().band(ip, k[2]);
                let done = b.ins().band(p[1], k[1]);
                let to = (ip, b.ins().isub(p[3], done));
                match by {
                    Exit::Side => back(b, p[0], to, exit::SIDE),
                    Exit::Kick => back(b, p[0], to, exit::KICK),
                    Exit::Far => {
                        let other = b.create_block();
                        look_up::<T>(b, p[0], to, false, (other, &[]));
                        b.switch_to_block(other);
                        beside::<T>(b, p[0], to)
                    }
                }
            })?)
        }
    }
    m.module.finalize_definitions()?;
    let at = |id| m.module.get_finalized_function(id);
    let exits = [0, 1, 2].map(|by| [0, 1].map(|wide| at(exits[2 * by + wide]) as usize));
    let (enter, no_region, unknown) = (at(enter), at(no_region) as usize, at(unknown) as usize);
    // Never freed: code stays where it is.
    std::mem::forget(m.module);
    // SAFETY: compiled just now with this signature, in the host's own calling convention.
    let enter = unsafe { std::mem::transmute::<*const u8, Enter>(enter) };
    Ok(Stubs { enter, no_region, exits, unknown })
}
