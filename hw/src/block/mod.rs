//! Controllers of block devices.

pub mod conf;
pub mod fdc;
pub mod fdc_regs;
