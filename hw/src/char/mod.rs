//! Character devices.

pub mod serial;
pub mod uart16550;
