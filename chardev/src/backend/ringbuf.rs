//! `ringbuf` (also `memory`): the last bytes that were written, for the monitor to read.

use super::Backend;
use crate::channel::Channel;
use crate::{Error, Result};
use hw_core::event_loop::{EventLoop, Job};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;

/// The buffer: when it is full, new bytes push out the oldest.
pub struct Ringbuf {
    events: EventLoop,
    size: usize,
    bytes: Mutex<VecDeque<u8>>,
}

impl Ringbuf {
    pub(crate) fn new(channel: &Arc<Channel>, size: u64) -> Result<Self> {
        let limit = usize::try_from(size).ok().filter(|s| s.is_power_of_two() && *s <= 1 << 30);
        let size = limit.ok_or_else(|| Error::Config("size of ringbuf chardev must be power of two".into()))?;
        channel.start_open();
        Ok(Self { events: channel.host().events.clone(), size, bytes: Mutex::default() })
    }

    /// Takes the oldest bytes out, at most `limit`.
    pub fn read(&self, limit: usize) -> Vec<u8> {
        let mut b = self.bytes.lock();
        let n = limit.min(b.len());
        b.drain(..n).collect()
    }

    /// Adds bytes as if the guest had written them.
    pub fn put(&self, bytes: &[u8]) {
        let mut b = self.bytes.lock();
        b.extend(bytes);
        let over = b.len().saturating_sub(self.size);
        b.drain(..over);
    }
}

impl Backend for Ringbuf {
    fn write(&self, bytes: &[u8]) -> usize {
        self.put(bytes);
        bytes.len()
    }
    fn on_writable(&self, job: Job) {
        self.events.post(job);
    }
    fn filename(&self) -> String {
        "ringbuf".into()
    }
    fn ringbuf(&self) -> Option<&Ringbuf> {
        Some(self)
    }
}
