//! Objects that devices take from the host.

pub mod rng;
