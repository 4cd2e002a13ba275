//! Character backends: byte channels between the machine and the host.
//!
//! A [`Channel`] is one character device of the host side (`-chardev`): a [`config::Config`] says which, [`backend`] holds the kinds.
//! A device or monitor owns a [`CharFrontend`] and attaches it to a channel. Bytes to the host are written without ever blocking:
//! [`CharFrontend::write`] says how many were taken and [`CharFrontend::on_writable`] when to go on. Bytes from the host
//! arrive on the event loop's thread, and only as many as the front end said it can take.
//!
//! No lock of this crate is held while a front end's handler runs, so handlers may take the machine lock; writing takes only
//! small locks of this crate, so a device may write while it holds the machine lock.
#![deny(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing))]

pub mod backend;
pub mod channel;
pub mod config;
mod error;
mod fdpass;
mod frontend;
pub mod mux;
mod object;
pub mod terminal;

pub use channel::{Channel, Host, Hub};
pub use config::Config;
pub use error::Error;
pub use frontend::{CharFrontend, Event, Handlers};
pub use object::{Chardev, DeviceHandlers, find, publish};

/// Result with this crate's error.
pub type Result<T, E = Error> = std::result::Result<T, E>;
