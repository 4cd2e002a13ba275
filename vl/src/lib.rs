//! Options, start-up, run state, main loop, monitors.
//!
//! [`Vm::start`] builds a machine from a command line and [`Vm::run`] is its main loop; the `qomet` binary adds signals, terminal
//! and `-daemonize`. This crate names every crate that contributes types: one that nobody names is dropped by the linker and
//! its types vanish without a word.
#![deny(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing))]

use accel as _;
use hw as _;
use target_i386 as _;
use ui as _;

pub mod base64;
mod cli;
pub mod cpu;
mod date;
mod defaults;
mod firmware;
mod guestfwd;
pub mod json;
pub mod lists;
pub mod log;
pub mod monitor;
pub mod nearest;
pub mod options;
pub mod process;
pub mod qtest;
mod report;
mod runstate;
mod start;
mod vm;

pub use cli::main;
pub use hw_core::ShutdownCause;
pub use report::Reporter;
pub use vm::{Env, StartError, Started, Vm};
