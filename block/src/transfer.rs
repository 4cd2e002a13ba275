//! Bytes that move without a thread that waits for them: what drivers pass on to the host's file, and the ring to the host.

use crate::data::Data;
use crate::node::Node;
use hw_core::memory::RamRanges;
use std::io;
use std::sync::Arc;

/// What is done with the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// The file is read.
    Read,
    /// The file is written.
    Write,
    /// What was written becomes stable; there are no bytes.
    Sync,
}

/// The bytes.
pub enum Bytes {
    /// Memory of the guest's.
    Guest(Arc<RamRanges>),
    /// Memory of the request's; empty for [`Way::Sync`].
    Own(Data),
}

impl Bytes {
    /// How many.
    pub fn len(&self) -> u64 {
        match self {
            Self::Guest(ranges) => ranges.len(),
            Self::Own(data) => data.len() as u64,
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where they are, for one call of the host's; `None`: in more places than such a call takes.
    pub(crate) fn vector(&mut self) -> Option<Vec<libc::iovec>> {
        match self {
            Self::Guest(ranges) => ranges.vector(),
            Self::Own(data) => Some(vec![libc::iovec { iov_base: data.as_mut_ptr().cast(), iov_len: data.len() }]),
        }
    }
}

/// How a transfer ended.
#[derive(Debug)]
pub enum Ended {
    /// All of it was done, or failed.
    Done(io::Result<()>),
    /// Not all of it was done: it is to be done as always, which knows what to do about that (such as the end of the file).
    Again,
}

/// One transfer.
pub struct Transfer {
    /// What is done.
    pub way: Way,
    /// First byte, in the node that is asked.
    pub offset: u64,
    /// The bytes.
    pub bytes: Bytes,
    /// Called once, from another thread, with the bytes; must not wait for long.
    pub done: Box<dyn FnOnce(Ended, Bytes) + Send>,
    /// Nodes it came through, and its first byte in each: their watchers hear of a write when it is done.
    pub(crate) passed: Vec<(Arc<Node>, u64)>,
}

impl Transfer {
    /// A new one.
    pub fn new(way: Way, offset: u64, bytes: Bytes, done: impl FnOnce(Ended, Bytes) + Send + 'static) -> Self {
        Self { way, offset, bytes, done: Box::new(done), passed: vec![] }
    }
}
