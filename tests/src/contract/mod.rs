//! The contract of every device type, checked by machine: it can be created, a second reset changes nothing, no access whatever
//! makes it panic or hang, and its saved state is all there is of it. [`types`] says how to reach each type of the registry,
//! [`traffic`] makes the seeded random accesses, [`board`] holds the machine, [`check`] is the contract itself, [`lifetime`]
//! has devices come and go, [`soak`] is the whole board at once.
//!
//! The virtual clock is stepped by the traffic and nothing else, so that a seed decides everything that happens.

pub mod board;
pub mod check;
pub mod dma;
pub mod lifetime;
mod rng;
pub mod soak;
pub mod traffic;
pub mod types;

pub use board::Board;
pub use rng::Rng;
