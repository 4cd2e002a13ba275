//! Devices and boards.
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing))]

pub mod acpi;
pub mod audio;
pub mod backends;
pub mod block;
pub mod char;
pub mod display;
pub mod dma;
pub mod fsdev;
pub mod i2c;
pub mod i386;
pub mod ide;
pub mod input;
pub mod intc;
pub mod isa;
pub mod misc;
pub mod net;
pub mod nvme;
pub mod nvram;
#[path = "9pfs/mod.rs"]
pub mod p9;
pub mod pci_host;
pub mod rtc;
pub mod scsi;
pub mod smbios;
pub mod timer;
pub mod usb;
pub mod virtio;
pub mod watchdog;
