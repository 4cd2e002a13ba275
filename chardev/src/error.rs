//! What can go wrong with a character device.

use std::io;
use std::path::PathBuf;

/// Why a character device could not be made or used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No channel has this id.
    #[error("chardev '{0}' not found")]
    NotFound(String),
    /// The id is taken.
    #[error("Duplicate ID '{0}' for chardev")]
    Duplicate(String),
    /// Another front end has it.
    #[error("chardev '{0}' is already in use")]
    InUse(String),
    /// A front end or a multiplexer uses it: it cannot be removed.
    #[error("Chardev '{0}' is busy")]
    Busy(String),
    /// A file or device of the host cannot be opened.
    #[error("Failed to open '{path}': {}", reason(.source))]
    Open {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A socket cannot be bound.
    #[error("Failed to bind socket to {address}: {}", reason(.source))]
    Bind {
        /// Where.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// A socket cannot be connected.
    #[error("Failed to connect to '{address}': {}", reason(.source))]
    Connect {
        /// Where.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// Another call of the host failed.
    #[error("{what}: {}", reason(.source))]
    Host {
        /// What was attempted.
        what: String,
        /// Why.
        source: io::Error,
    },
    /// A combination of options that cannot be.
    #[error("{0}")]
    Config(String),
}

/// The host's text for an error, without Rust's "(os error n)".
pub(crate) fn reason(e: &io::Error) -> String {
    let text = e.to_string();
    match text.find(" (os error ") {
        Some(at) => text.get(..at).unwrap_or_default().to_owned(),
        None => text,
    }
}

impl Error {
    pub(crate) fn open(path: impl Into<PathBuf>) -> impl FnOnce(rustix::io::Errno) -> Self {
        move |e| Self::Open { path: path.into(), source: e.into() }
    }
    pub(crate) fn host(what: impl Into<String>) -> impl FnOnce(rustix::io::Errno) -> Self {
        move |e| Self::Host { what: what.into(), source: e.into() }
    }
}
