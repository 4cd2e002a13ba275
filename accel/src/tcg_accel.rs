//! Type `tcg-accel`: vCPUs run in the engine of [`crate::tcg`].
//!
//! The engine is generic over the guest architecture, so the architecture says how one of its vCPUs runs: see [`set_runner`].

use hw_core::Cpu;
use hw_core::accel::{Accel, AccelClass};
use qom::{Class, Error, Prop, Ref, Result};
use std::sync::OnceLock;

/// Starts the thread of a vCPU.
pub type Runner = fn(&Ref<Cpu>) -> Result<()>;

static RUNNER: OnceLock<Runner> = OnceLock::new();

/// Says how vCPUs run; called once by the guest architecture that is linked in. The first stays.
pub fn set_runner(runner: Runner) {
    _ = RUNNER.set(runner);
}

/// Type `tcg-accel`.
#[derive(qom::Object)]
#[qom(name = "tcg-accel", parent = Accel, class_init = TcgAccel::class_init)]
pub struct TcgAccel {
    parent: Accel,
    #[property(name = "tb-size", type = "int", desc = "Translation block cache size, in MiB; 0 for the default")]
    tb_size: Prop<u32>,
    #[property(name = "one-insn-per-tb", desc = "Only put one guest instruction in each translation block")]
    one_insn_per_tb: Prop<bool>,
}

impl TcgAccel {
    fn class_init(c: &mut Class) {
        c.edit::<AccelClass>().create_vcpu_thread = |_, cpu| match RUNNER.get() {
            Some(run) => run(cpu),
            None => Err(Error::generic(format!("no interpreter for '{}' is linked in", cpu.type_name()))),
        };
    }
}
