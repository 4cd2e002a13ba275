//! IDE controllers and drives.

pub mod ahci;
pub mod ata;
pub mod atapi;
pub mod bmdma_regs;
pub mod bus;
pub mod drive;
pub mod identify;
pub mod piix;
pub mod transfer;
