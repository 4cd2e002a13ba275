//! Virtio: devices that driver and device were designed for. Source: OASIS virtio 1.2.
//!
//! Three things meet here. A *device* (`virtio-blk-device` …, below [`device::VirtioDevice`]) knows features, configuration and
//! what the buffers of its queues mean; it does so by [`device::VirtioImpl`]. A *transport* ([`pci`]) shows it to the guest and
//! carries interrupts; it creates the device as its child `virtio-backend`, on a bus of one place. The *rings* ([`ring`]) are data in
//! guest memory that the driver writes as it likes: whatever it does wrong marks that one device broken.

pub mod balloon;
pub mod blk;
mod blk_request;
pub mod device;
pub mod dma;
pub mod net;
mod net_filter;
pub mod p9;
pub mod pci;
mod pci_regs;
mod pci_types;
pub mod ring;
pub mod rng;
pub mod scsi;
mod scsi_request;
pub mod serial;
mod serial_control;
pub mod serial_port;
mod threads;
