//! Interrupt controllers.

pub mod apic;
pub mod apic_message;
pub mod apic_regs;
pub mod apic_timer;
pub mod i8259;
pub mod i8259_regs;
pub mod ioapic;
pub mod ioapic_regs;
pub mod stats;
