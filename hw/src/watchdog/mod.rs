//! Watchdogs. What happens when one is not served in time: [`crate::misc::guest_events`].

pub mod i6300esb;
pub mod i6300esb_regs;
pub mod ib700;
