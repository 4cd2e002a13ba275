//! The block layer: images of the host as nodes of a graph, and the drives that devices own.
//!
//! A [`Node`] is one layer of an image: a *protocol* (`file`, `host_device`, `null-co`) reaches bytes of the host, a *format*
//! (`raw`, `qcow2`; `vdi`, `vhdx`, `vmdk`, `vpc` for reading) gives them a meaning and has the node below it as a child. Each is made by a [`driver::DriverDef`], found by name in a
//! registry filled at link time, from options shaped as QAPI's `BlockdevOptions`. What a user of a node does with it and
//! lets others do are its permissions ([`Perm`]); files turn them into locks that other processes see.
//!
//! A [`Backend`] is what a device owns: an optional node (the medium), the policy for errors, statistics. Requests
//! ([`Request`]) may be submitted from any thread, with or without the machine lock; worker threads do the I/O, and the
//! callbacks run in [`Blocks::deliver`], which the main loop calls with no lock held. Requests whose ranges overlap run in the order
//! they came. A write is acknowledged when the host has it, a flush or a write with `fua` when the host says it is stable.
//!
//! A *filter* (`throttle`, `copy-on-read`) passes requests on to the node below. Limits ([`throttle`]) hold before a request gets a thread. Jobs
//! (`block-stream`, `block-commit`) copy between the layers of a chain while it is used. A node can be opened again with other options; that is
//! also how the layers of a chain change.
//!
//! Not here yet: mirror and backup jobs, `aio=native`. Images that are recognized as a format without a
//! driver are refused, never taken for raw.
#![deny(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing))]

mod backend;
mod blocks;
mod data;
pub mod driver;
mod drivers;
mod guest;
mod job;
mod lock;
mod node;
mod object;
mod overlap;
pub mod pool;
mod qapi;
mod reopen;
mod request;
mod ring;
pub mod stats;
pub mod throttle;
pub mod transfer;

pub use backend::{Action, Backend, ErrorPolicy, Legacy, Media, OnError};
pub use blocks::{Blocks, DriveConfig, Interface, on_error};
pub use data::Data;
pub use drivers::probe;
pub use guest::{CHUNK, GuestMemory, LENT, Loans};
pub use hw_core::opts::Opts;
pub use job::{JobOptions, Verb};
pub use node::{Cache, Common, DetectZeroes, Edge, Node, Owner, Perm};
pub use object::DriveSlot;
pub use request::{Done, Op, Outcome, Request};

/// Bytes of a sector, the unit that sizes are rounded up to.
pub const SECTOR: u64 = 512;
