//! Interrupt controllers.

pub mod i8259_regs;
pub mod ioapic_regs;
