//! The kinds of character device.

mod fd;
mod link;
mod null;
mod pty;
mod ringbuf;
mod socket;
mod telnet;

pub use ringbuf::Ringbuf;

use crate::channel::{Channel, Hub};
use crate::config::Backend as Kind;
use crate::{Error, Result};
use hw_core::event_loop::Job;
use std::sync::Arc;

/// The host's side of a channel. Nothing here blocks, and nothing calls the channel while it holds a lock.
pub(crate) trait Backend: Send + Sync {
    /// Writes; how many bytes were taken. With nobody there all are, and are lost.
    fn write(&self, bytes: &[u8]) -> usize;
    /// Runs `job` once on the event loop's thread when `write` would take something.
    fn on_writable(&self, job: Job);
    /// Asks the channel again how much it takes.
    fn accept_input(&self) {}
    /// Where it leads.
    fn filename(&self) -> String;
    /// Whether a terminal shows what is typed.
    fn set_echo(&self, _on: bool) {}
    /// Gives back what the host lent: descriptors, paths, terminal modes.
    fn close(&self) {}
    /// The buffer that the monitor reads, for the kind that has one.
    fn ringbuf(&self) -> Option<&Ringbuf> {
        None
    }
}

/// Name of the kind, as in `chardev-…`.
pub(crate) fn kind(k: &Kind) -> &'static str {
    match k {
        Kind::Null => "null",
        Kind::Stdio { .. } => "stdio",
        Kind::File { .. } => "file",
        Kind::Socket(_) => "socket",
        Kind::Pty { .. } => "pty",
        Kind::Ringbuf { .. } => "ringbuf",
        Kind::Pipe { .. } => "pipe",
        Kind::Vc { .. } => "vc",
        Kind::Mux { .. } => "mux",
    }
}

/// Opens what `k` says for `channel`.
pub(crate) fn open(k: &Kind, channel: &Arc<Channel>, hub: &Hub) -> Result<Box<dyn Backend>> {
    Ok(match k {
        Kind::Null | Kind::Vc { .. } => Box::new(null::Null::new(channel, kind(k))),
        Kind::Stdio { signal } => fd::stdio(channel, *signal)?,
        Kind::File { path, input, append } => fd::file(channel, path, input.as_deref(), *append)?,
        Kind::Pipe { path } => fd::pipe(channel, path)?,
        Kind::Socket(s) => socket::open(channel, s)?,
        Kind::Pty { path } => pty::open(channel, path.as_deref())?,
        Kind::Ringbuf { size } => Box::new(Ringbuf::new(channel, *size)?),
        Kind::Mux { chardev } => {
            let base = hub.find(chardev).ok_or_else(|| Error::NotFound(chardev.clone()))?;
            Box::new(link::Link::new(channel, &base)?)
        }
    })
}
