//! DMA controllers.

pub mod i8257;
pub mod i8257_regs;
