//! Host-instruction thunks: small safe functions with inline assembly inside and a software path beside.
//!
//! The control registers are as the thunks found them, apart from `fpcr`, which says so.
#![allow(unsafe_code, reason = "inline assembly and intrinsics")]

pub mod div;
pub mod f80;
#[cfg(target_arch = "x86_64")]
pub mod fpcr;
pub mod lock;
#[cfg(target_arch = "x86_64")]
pub mod routine;
#[cfg(target_arch = "x86_64")]
pub mod sse;
#[cfg(target_arch = "x86_64")]
pub mod unit;
#[cfg(target_arch = "x86_64")]
pub mod x87;
