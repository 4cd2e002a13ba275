//! What whole-machine tests and project tasks share: packages, guests, clients.
#![forbid(unsafe_code)]

pub mod initramfs;
pub mod packages;
