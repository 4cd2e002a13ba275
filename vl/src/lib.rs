//! Options, start-up, run state, main loop, monitors.
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing))]

pub mod json;
pub mod nearest;
pub mod options;
