//! x86 boards and what starts them.
pub mod boot_rom;
pub mod kernel;
pub mod kvmvapic;
