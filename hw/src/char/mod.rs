//! Character devices.

pub mod debugcon;
pub mod parallel;
pub mod serial;
pub mod uart16550;
