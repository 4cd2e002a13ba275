//! The `qomet` binary.
fn main() {}
