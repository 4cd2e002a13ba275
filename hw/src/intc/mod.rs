//! Interrupt controllers.

pub mod apic_regs;
pub mod i8259_regs;
pub mod ioapic_regs;
