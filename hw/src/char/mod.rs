//! Character devices.

pub mod uart16550;
