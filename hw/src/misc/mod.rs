//! Devices that belong to no family.

pub mod debugexit;
pub mod edu;
pub mod guest_events;
pub mod pci_testdev;
pub mod pvpanic;
