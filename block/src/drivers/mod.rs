//! The drivers there are.

pub(crate) mod direct;
mod file;
mod filters;
mod foreign;
mod null;
pub mod probe;
mod qcow2;
mod raw;
mod snapshot;

pub(crate) use qcow2::create as create_qcow2;
pub(crate) use snapshot::on_top;
