//! Devices and boards.

pub mod acpi;
pub mod smbios;
