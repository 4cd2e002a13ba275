//! I²C and SMBus.

pub mod pm_smbus_regs;
pub mod smbus_eeprom;
pub mod spd;
