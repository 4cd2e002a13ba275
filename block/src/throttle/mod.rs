//! Limits of bytes and requests in a time: what they are, and groups of drives and nodes that share them.
//!
//! A request that is over a limit waits in its group's queue, not on a thread: a timer of the machine lets it go. While everything is drained
//! there are no limits.

mod bucket;
mod group;
mod object;

pub use bucket::{Limit, Limits, WORDS};
pub use group::Group;
