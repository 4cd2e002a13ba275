//! IDE controllers.

pub mod bmdma_regs;
pub mod piix;
