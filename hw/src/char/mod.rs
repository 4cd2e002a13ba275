//! Character devices.

pub mod debugcon;
pub mod uart16550;
