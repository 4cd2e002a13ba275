//! Timers.

pub mod hpet_regs;
pub mod i8254_regs;
