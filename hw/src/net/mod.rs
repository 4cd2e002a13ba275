//! Network cards.

pub mod e1000;
pub mod e1000_regs;
pub mod e1000_rx;
pub mod e1000_tx;
pub mod eeprom93c46;
