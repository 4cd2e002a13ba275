//! The drivers there are.

mod direct;
mod file;
mod foreign;
mod null;
pub mod probe;
mod qcow2;
mod raw;
mod snapshot;

pub(crate) use snapshot::on_top;
