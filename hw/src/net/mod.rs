//! Network cards.

pub mod e1000;
pub mod e1000_regs;
pub mod e1000_rx;
pub mod e1000_tx;
pub mod eeprom93c46;
pub mod ne2000;
pub mod ne2000_regs;
pub mod rtl8139;
pub mod rtl8139_regs;
pub mod rtl8139_tx;
