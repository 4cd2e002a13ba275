//! Memory of the guest's that a request moves bytes to or from without a copy between.

use crate::node::Node;
use hw_core::memory::RamRanges;
use parking_lot::{Condvar, Mutex};
use std::io;
use std::sync::Arc;

/// Where the bytes are.
enum Place {
    Guest(Arc<RamRanges>),
    /// The guest has its memory back: what was to be written.
    Own(Vec<u8>),
}

struct State {
    place: Place,
    /// A worker moves bytes now.
    busy: bool,
}

/// The memory of one request, which its device can take back at any time.
pub struct GuestMemory {
    len: u64,
    state: Mutex<State>,
    idle: Condvar,
}

/// Says that bytes are moved, until it is dropped.
struct Busy<'a>(&'a GuestMemory);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.state.lock().busy = false;
        self.0.idle.notify_all();
    }
}

impl GuestMemory {
    /// For one request.
    pub fn new(ranges: RamRanges) -> Arc<Self> {
        let (len, place) = (ranges.len(), Place::Guest(Arc::new(ranges)));
        Arc::new(Self { len, state: Mutex::new(State { place, busy: false }), idle: Condvar::new() })
    }

    /// Bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The guest's memory is not touched by the request from now on: waits while bytes are moved. A read that has not begun will go nowhere; a
    /// write (`writes`) that has not begun will write what is in the memory now.
    pub fn take_back(&self, writes: bool) {
        let mut s = self.state.lock();
        while s.busy {
            self.idle.wait(&mut s);
        }
        if let Place::Guest(ranges) = &s.place {
            s.place = Place::Own(if writes { ranges.to_vec() } else { vec![] });
        }
    }

    /// The guest's memory, which stays so as long as the guard is there; else what was kept of it.
    fn begin(&self) -> Result<(Arc<RamRanges>, Busy<'_>), Vec<u8>> {
        let mut s = self.state.lock();
        match &mut s.place {
            Place::Own(bytes) => Err(std::mem::take(bytes)),
            Place::Guest(ranges) => {
                let ranges = ranges.clone();
                s.busy = true;
                Ok((ranges, Busy(self)))
            }
        }
    }

    pub(crate) fn read(&self, node: &Node, offset: u64) -> io::Result<()> {
        match self.begin() {
            Ok((ranges, _busy)) => node.read_into(offset, &ranges),
            Err(_) => Ok(()), // nobody wants it any more
        }
    }

    pub(crate) fn write(&self, node: &Node, offset: u64) -> io::Result<()> {
        match self.begin() {
            Ok((ranges, _busy)) => node.write_from(offset, &ranges),
            Err(bytes) => node.write(offset, &bytes),
        }
    }
}

impl PartialEq for GuestMemory {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}
impl Eq for GuestMemory {}

impl std::fmt::Debug for GuestMemory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("GuestMemory").field(&self.len).finish()
    }
}
