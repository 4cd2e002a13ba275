//! Devices of the ISA bus that belong to no other family.

pub mod piix3;
pub mod port92;
