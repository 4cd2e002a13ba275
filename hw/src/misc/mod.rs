//! Devices that belong to no family.

pub mod debugexit;
