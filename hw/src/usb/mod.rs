//! USB host controllers. There are no USB devices yet: their buses stay empty.

pub mod uhci;
pub mod uhci_regs;
