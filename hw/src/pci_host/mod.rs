//! Host bridges.

pub mod i440fx;
pub mod pam;
