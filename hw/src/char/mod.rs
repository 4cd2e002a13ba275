//! Character devices.

pub mod debugcon;
pub mod serial;
pub mod uart16550;
