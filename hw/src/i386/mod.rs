//! x86 boards and what starts them.
pub mod boot_rom;
pub mod cmos;
pub mod drives;
pub mod firmware_tables;
pub mod fpu_error;
pub mod gsi;
pub mod kernel;
pub mod kernel_loader;
pub mod kvmvapic;
pub mod machine;
pub mod memory;
mod nics;
pub mod pc;
pub mod topology;
pub mod versions;
pub mod vmmouse;
pub mod vmport;
