//! ACPI: the tables a PC hands to its firmware through fw_cfg, and the script that tells the firmware how to place them.
//! Source: ACPI 6.5 §5 and §19; the loader protocol is the one SeaBIOS and OVMF implement for `etc/table-loader`.

use hw_core::Locked;
use serde_json::Value;

pub mod cpu_hotplug_regs;
pub mod dsdt;
pub mod loader;
pub mod pci_hotplug_regs;
pub mod piix4;
pub mod pm_regs;
pub mod tables;

// Devices that describe themselves in the DSDT. A name only: the DSDT is built by the board.
qom::interface!("acpi-dev-aml-interface");

/// Interface `acpi-device-interface`: the device through which the firmware's tables speak to the OS.
pub trait AcpiDevice {
    /// What the OS said by `_OST` of each thing that can come and go; the members of QMP's `ACPIOSTInfo`.
    fn ospm_status(&self, m: &mut Locked) -> Vec<Value>;
}

qom::interface!(dyn AcpiDevice, "acpi-device-interface");
