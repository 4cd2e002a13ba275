//! Timers.

pub mod hpet;
pub mod hpet_regs;
pub mod i8254;
pub mod i8254_regs;
