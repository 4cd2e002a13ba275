//! Devices of the ISA bus that belong to no other family.

pub mod port92;
