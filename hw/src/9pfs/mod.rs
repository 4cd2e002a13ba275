//! 9P2000.L and 9P2000.u: a folder of the host for a guest, over any transport. Source: `diod`'s protocol.md (9P2000.L), intro(5) of Plan 9
//! (9P2000), and [`legacy`] for the other dialect.
//!
//! [`wire`] takes messages apart and puts replies together, [`server`] knows what a session's fids are, [`crate::fsdev`] does what is
//! asked of the host's files. A request is bytes, a reply is bytes; nothing here knows a machine.

pub mod legacy;
pub mod server;
pub mod wire;
