//! Controllers of block devices.

pub mod conf;
pub mod fdc;
pub mod fdc_regs;
pub mod fdc_transfer;
pub mod floppy;
pub mod floppy_format;
