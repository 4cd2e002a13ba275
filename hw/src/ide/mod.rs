//! IDE controllers.

pub mod bmdma_regs;
pub mod bus;
pub mod piix;
