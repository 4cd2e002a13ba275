//! ACPI: the tables a PC hands to its firmware through fw_cfg, and the script that tells the firmware how to place them.
//! Source: ACPI 6.5 §5 and §19; the loader protocol is the one SeaBIOS and OVMF implement for `etc/table-loader`.

pub mod cpu_hotplug_regs;
pub mod dsdt;
pub mod loader;
pub mod pci_hotplug_regs;
pub mod piix4;
pub mod pm_regs;
pub mod tables;

// Devices that describe themselves in the DSDT. A name only: the DSDT is built by the board.
qom::interface!("acpi-dev-aml-interface");

qom::interface!("acpi-device-interface");
