//! Devices and boards.

pub mod acpi;
pub mod i386;
pub mod nvram;
pub mod smbios;
