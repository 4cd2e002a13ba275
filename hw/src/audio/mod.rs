//! Sound devices.

pub mod pcspk;
