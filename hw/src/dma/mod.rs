//! DMA controllers.

pub mod i8257_regs;
