//! The TCG engine: soft TLB, op cache, tier 0 (a threaded interpreter), vCPU loop. Knows no guest architecture.
//!
//! | module | what |
//! |---|---|
//! | `ops` | what an instruction's meaning may say: [`Ops`], [`Vector`], [`Emit`] |
//! | `target` | what a guest architecture tells the engine: [`Target`] |
//! | `bus` | all the engine knows of the machine: [`Bus`] |
//! | `env` | the memory both the handlers and the engine work on |
//! | `mem` | what rare code sees: [`Cpu`] and its memory methods |
//! | `tlb` | filling and flushing the soft TLB |
//! | `page`, `runs` | decoded pages of a vCPU; their ops by offset |
//! | `group` | the vCPUs of a machine: map of code, self-modifying code |
//! | `tier0` | one handler per form, threaded by sibling calls |
//! | `quick` | code for warm blocks, made in no time |
//! | `insight` | what is shown of the engine: logs |
//! | `term` | values of both compilers, folding |
//! | `jit` | tier 1: regions compiled by Cranelift |
//! | `unit` | a guest's x87 unit in the host's |
//! | `engine` | [`Vcpu`]: dispatcher and run loop |
//! | `host` | host-instruction thunks: vectors, x87 |

pub mod bus;
mod cells;
mod engine;
mod env;
mod group;
pub mod host;
pub mod insight;
mod interp;
mod jit;
mod known;
mod mem;
mod mode;
pub(crate) mod ops;
mod page;
mod plain;
#[cfg(target_arch = "x86_64")]
mod quick;
mod runs;
mod sides;
pub mod softfp;
mod target;
mod term;
mod tier0;
mod tlb;
mod torture;
pub mod unit;
pub mod vector;

pub use bus::{Bus, FlatBus, RamPage};
pub use engine::{Exit, Vcpu};
pub use env::{Hot, Kick, WeakKick};
pub use group::{Counted, Group};
pub use insight::Insight;
pub use jit::{JitConfig, JitCounters};
pub use mem::{Cpu, Fields, Phys, port_reg, set_port_reg};
pub use ops::{Bin, Cmp, Deferred, Emit, Flow, Ops, PAGE, Partly, SEG_BASE, SEG_LIMIT, SLOTS, Slot, Step, Un, W, ZERO};
pub use plain::Plain;
pub use target::{Access, AnyFamily, Decoded, End, Family, Kind, Leaf, Rare, Short, Target, Who};
pub use tier0::{Handler, Handlers, form, pair};
pub use tlb::{Counters, REGIMES, STOPS};
pub use vector::{Fp, FpBin, Vector, XBin, XShift, XShuffle, XUn};
