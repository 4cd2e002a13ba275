//! Devices and boards.

pub mod acpi;
pub mod nvram;
pub mod smbios;
