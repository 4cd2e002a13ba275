//! Display adapters.

pub mod edid;
pub mod vga;
pub mod vga_pci;
