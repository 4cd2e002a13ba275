//! Devices that belong to no family.

pub mod debugexit;
pub mod edu;
pub mod pci_testdev;
