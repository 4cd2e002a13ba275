//! What fuzzers do with one input. Each target is a function of bytes that returns, whatever they are; what must not happen (a panic, a
//! device that does not survive its guest, work or memory out of proportion) panics. Work is counted, not timed: accesses to the file of an
//! image, requests of a drive, accesses to memory.
//!
//! `fuzz/` makes programs for `cargo fuzz` of them; `tests/replay.rs` runs them on the inputs in `seeds/` and on changed ones, without a fuzzer.
#![forbid(unsafe_code)]

mod ahci;
mod images;
pub mod input;
pub mod memory;
mod network;
mod nvme;
mod p9;
pub mod rig;
mod rings;
mod scsi;
mod virtio;

pub use ahci::{ahci, atapi};
pub use images::{formats, qcow2};
pub use network::net_user;
pub use nvme::nvme;
pub use p9::p9;
pub use rings::rings;
pub use scsi::scsi;
pub use virtio::{virtio_9p, virtio_balloon, virtio_blk, virtio_net, virtio_rng, virtio_scsi, virtio_serial};

/// A target: its name, and what it does with an input.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: [Target; 16] = [
    ("ahci", ahci),
    ("atapi", atapi),
    ("formats", formats),
    ("net_user", net_user),
    ("nvme", nvme),
    ("p9", p9),
    ("qcow2", qcow2),
    ("rings", rings),
    ("scsi", scsi),
    ("virtio_9p", virtio_9p),
    ("virtio_balloon", virtio_balloon),
    ("virtio_blk", virtio_blk),
    ("virtio_net", virtio_net),
    ("virtio_rng", virtio_rng),
    ("virtio_scsi", virtio_scsi),
    ("virtio_serial", virtio_serial),
];
