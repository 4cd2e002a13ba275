//! How vCPUs run: the TCG engine and qtest.
//!
//! All `unsafe` of the CPU core lives in this crate, in the modules listed in `tests/unsafe-files.txt`; guest
//! architectures are safe code written against [`tcg::Target`].
#![deny(unsafe_code)]

pub mod icount;
mod machine_bus;
pub mod qtest;
mod round_robin;
pub mod tcg;
pub mod tcg_accel;

pub use tcg_accel::{AccelCpu, AccelCpuClass, TcgAccel, VcpuThread};
