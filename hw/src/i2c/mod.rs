//! I²C and SMBus.

pub mod pm_smbus_regs;
pub mod spd;
