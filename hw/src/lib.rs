//! Devices and boards.

pub mod acpi;
