//! The file below an image.

use super::geometry::eio;
use crate::node::Edge;
use hw_core::memory::RamRanges;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

/// A file that holds tables or guest clusters.
pub(super) struct Host {
    pub edge: Edge,
    /// Its size when it was last looked at: it only grows while an image uses it.
    len: AtomicU64,
}

impl Host {
    pub fn new(edge: Edge) -> Self {
        Self { edge, len: AtomicU64::new(0) }
    }

    /// Whether the file has these bytes.
    ///
    /// # Errors
    /// The host does not say its size.
    pub fn contains(&self, at: u64, len: u64) -> io::Result<bool> {
        let Some(end) = at.checked_add(len) else { return Ok(false) };
        if end <= self.len.load(Ordering::Relaxed) {
            return Ok(true);
        }
        Ok(end <= self.len()?)
    }

    /// Its size.
    ///
    /// # Errors
    /// The host does not say.
    pub fn len(&self) -> io::Result<u64> {
        let now = self.edge.node().len()?;
        self.len.store(now, Ordering::Relaxed);
        Ok(now)
    }

    /// Reads; zeros beyond the end of the file.
    ///
    /// # Errors
    /// As the host says.
    pub fn read(&self, at: u64, buf: &mut [u8]) -> io::Result<()> {
        self.edge.node().read(at, buf)
    }

    /// [`Host::read`] into memory of the guest's.
    ///
    /// # Errors
    /// As the host says.
    pub fn read_into(&self, at: u64, to: &RamRanges) -> io::Result<()> {
        self.edge.node().read_into(at, to)
    }

    /// [`Host::write`] of memory of the guest's.
    ///
    /// # Errors
    /// As the host says.
    pub fn write_from(&self, at: u64, from: &RamRanges) -> io::Result<()> {
        self.edge.node().write_from(at, from)
    }

    /// Reads what must be there.
    ///
    /// # Errors
    /// The file ends before, or as the host says.
    pub fn read_all(&self, at: u64, len: u64) -> io::Result<Vec<u8>> {
        if !self.contains(at, len)? {
            return Err(eio());
        }
        let mut buf = vec![0; len as usize];
        self.read(at, &mut buf)?;
        Ok(buf)
    }

    /// Writes.
    ///
    /// # Errors
    /// As the host says.
    pub fn write(&self, at: u64, buf: &[u8]) -> io::Result<()> {
        self.edge.node().write(at, buf)
    }

    /// Makes what was written stable.
    ///
    /// # Errors
    /// As the host says.
    pub fn flush(&self) -> io::Result<()> {
        self.edge.node().flush()
    }
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Host").field(&self.edge.node().name()).finish()
    }
}
