//! PCI: bus, functions, configuration space, BARs, INTx, MSI, MSI-X, expansion ROMs, host bridge base.
//! Sources: PCI Local Bus 3.0 (§6 configuration space, §6.2.5 base addresses, §6.3 expansion ROM, §6.8 MSI), PCI-to-PCI Bridge 1.2
//! (§9.1 swizzle). Types `PCI`, `pci-device`, `pci-host-bridge`, names as QEMU's.
//!
//! Not modelled: PCI Express configuration (the types for it come with its bus), SR-IOV, VPD, power management beyond
//! its capability bytes, configuration cycles type 1 through bridges other than by their bus numbers.

mod bar;
mod bus;
mod config;
mod devfn;
mod device;
mod host;
mod msi;
mod msix;
mod rom;

pub use bar::BarKind;
pub use bus::{IrqMapper, IrqSetter, PciBus, swizzle};
pub use config::{ConfigSpace, cap, command, reg, status};
pub use devfn::Devfn;
pub use device::{PciDevice, PciDeviceClass, PciImpl};
pub use host::PciHostBridge;
pub use msix::MsixPlace;

qom::interface!("conventional-pci-device");
qom::interface!("pci-express-device");
qom::interface!("cxl-device");
