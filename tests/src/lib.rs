//! What whole-machine tests and project tasks share: packages, guests ([`guest`] watches one), clients ([`process`] runs the
//! binary, [`qmp`] and [`qtest`] speak to it, [`schema`] knows QMP's types; [`qtest_diff`] compares with the peer, [`golden`] with its
//! descriptions, [`peer_bench`] measures both), installed systems ([`debian`]),
//! what a network goes through ([`network`]).
#![forbid(unsafe_code)]

pub mod builtin_guest;
pub mod builtin_screen;
pub mod contract;
pub mod debian;
pub mod golden;
pub mod guest;
pub mod guest_programs;
pub mod images;
pub mod initramfs;
pub mod modules;
pub mod network;
pub mod packages;
pub mod peer_bench;
pub mod process;
pub mod qmp;
pub mod qtest;
pub mod qtest_diff;
pub mod reset_guest;
pub mod rom;
pub mod schema;
pub mod tools;
pub mod virtio;
