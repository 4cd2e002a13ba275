//! The host CPU as the judge of the interpreter.
//!
//! A *case* is one encoded instruction (or a short run of them) with the machine state before it. An [`Executor`] runs it and says
//! what the state is after it, or which exception it raised. [`host::Host`] is the real CPU; anything else that implements the trait is compared
//! with it. Cases come from iced-x86's own tables ([`forms`], [`cases`]), differences from [`compare`], small ones from [`mod@shrink`].
//!
//! Modes: 64-bit user mode, and 32-bit user mode through the kernel's compatibility code segment. The host part needs Linux on x86-64.
#![deny(unsafe_code)]

pub mod approx;
pub mod big;
pub mod cases;
pub mod compare;
pub mod forms;
pub mod guest;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub mod host;
pub mod ins;
pub mod isa;
pub mod layout;
pub mod run;
pub mod sequence;
pub mod shrink;
pub mod state;
pub mod undefined;
pub mod values;

pub use layout::Layout;
pub use state::{Case, Executor, Fault, Fx, Mode, Outcome, State};
