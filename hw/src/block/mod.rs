//! Controllers of block devices.

pub mod fdc;
pub mod fdc_regs;
