//! The two pieces of code that are made once: the way from Rust into a region, and what stands in the jump cache where no
//! region is known. Their memory is never freed.
#![expect(unsafe_code, reason = "entry into generated code")]

use super::{
    super::env::{HOT, Hot},
    frame::{ENV, exit},
    go::region_signature,
};
use cranelift_codegen::{
    Context,
    ir::{AbiParam, InstBuilder, types::I64},
    isa::OwnedTargetIsa,
    settings::{self, Configurable},
};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
use cranelift_jit::{JITBuilder, JITModule};
use cranelift_module::{Module, default_libcall_names};
use std::{ffi::c_void, mem::offset_of, sync::OnceLock};

/// Enters a region: `(env, code, entry, address, budget)`; returns one of [`exit`].
pub(super) type Enter = unsafe extern "C" fn(*mut c_void, *const u8, u64, u64, i64) -> u64;

/// Code that is made once.
#[derive(Clone, Copy)]
pub(super) struct Stubs {
    pub enter: Enter,
    /// A region that returns [`exit::CHAIN`] for where it was entered.
    pub no_region: usize,
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

/// The stubs, made at the first call.
///
/// # Errors
/// As for [`isa`], or the host refuses executable memory.
pub(super) fn stubs() -> Result<Stubs, String> {
    static MADE: OnceLock<Result<Stubs, String>> = OnceLock::new();
    MADE.get_or_init(|| make().map_err(|e| e.to_string())).clone()
}
fn make() -> Result<Stubs, Box<dyn std::error::Error>> {
    let mut module = JITModule::new(JITBuilder::with_isa(isa()?, default_libcall_names()));
    let mut fb = FunctionBuilderContext::new();
    let mut ids = Vec::new();
    for enter in [true, false] {
        let mut ctx = Context::new();
        let region = region_signature();
        ctx.func.signature = region.clone();
        if enter {
            let mut s = module.make_signature();
            s.params = vec![AbiParam::new(I64); 5];
            s.returns.push(AbiParam::new(I64));
            ctx.func.signature = s;
        }
        let mut b = FunctionBuilder::new(&mut ctx.func, &mut fb);
        let block = b.create_block();
        b.append_block_params_for_function_params(block);
        b.switch_to_block(block);
        b.seal_block(block);
        let p = b.block_params(block).to_vec();
        let why = if enter {
            let sig = b.import_signature(region);
            let call = b.ins().call_indirect(sig, p[1], &[p[0], p[2], p[3], p[4]]);
            b.inst_results(call)[0]
        } else {
            for (v, field) in [(p[2], offset_of!(Hot, ip)), (p[3], offset_of!(Hot, budget))] {
                b.ins().store(ENV, v, p[0], (HOT + field) as i32);
            }
            b.ins().iconst(I64, exit::CHAIN)
        };
        b.ins().return_(&[why]);
        b.finalize(module.target_config());
        let id = module.declare_anonymous_function(&ctx.func.signature)?;
        module.define_function(id, &mut ctx)?;
        ids.push(id);
    }
    module.finalize_definitions()?;
    let [enter, none] = [0, 1].map(|i| module.get_finalized_function(ids[i]));
    // Never freed: code stays where it is.
    std::mem::forget(module);
    // SAFETY: compiled just now with this signature, in the host's own calling convention.
    let enter = unsafe { std::mem::transmute::<*const u8, Enter>(enter) };
    Ok(Stubs { enter, no_region: none as usize })
}
