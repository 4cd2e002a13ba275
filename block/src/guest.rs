//! Memory of the guest's that a request moves bytes to or from without a copy between.

use crate::node::Node;
use crate::request::Request;
use hw_core::memory::RamRanges;
use parking_lot::{Condvar, Mutex};
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

/// Bytes that one request moves at a time by way of a buffer: bounds what a guest can make us hold.
pub const CHUNK: u64 = 1 << 20;
/// Bytes that one request moves at a time of memory that is lent to it. Fewer and larger ones cost less, but with a single one the guest and
/// the medium would take turns: of what guests have in flight (some 4 MiB) this leaves two.
pub const LENT: u64 = 2 << 20;

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
pub(crate) struct Busy(Arc<GuestMemory>);

impl Drop for Busy {
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
    fn begin(self: &Arc<Self>) -> Result<(Arc<RamRanges>, Busy), Vec<u8>> {
        self.borrow().ok_or_else(|| match &mut self.state.lock().place {
            Place::Own(bytes) => std::mem::take(bytes),
            Place::Guest(_) => vec![], // (what the guest has back stays so)
        })
    }

    /// The guest's memory, while the guard is there; `None`: it has it back.
    pub(crate) fn borrow(self: &Arc<Self>) -> Option<(Arc<RamRanges>, Busy)> {
        let mut s = self.state.lock();
        let Place::Guest(ranges) = &s.place else { return None };
        let ranges = ranges.clone();
        s.busy = true;
        Some((ranges, Busy(self.clone())))
    }

    pub(crate) fn read(self: &Arc<Self>, node: &Node, offset: u64) -> io::Result<()> {
        match self.begin() {
            Ok((ranges, _busy)) => node.read_into(offset, &ranges),
            Err(_) => Ok(()), // nobody wants it any more
        }
    }

    pub(crate) fn write(self: &Arc<Self>, node: &Node, offset: u64) -> io::Result<()> {
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

/// What a device has lent of the guest's memory to its requests under way, by its own names for these. Whatever makes the device forget a request,
/// such as a reset, takes that memory back first: nothing is moved to or from it afterwards.
pub struct Loans<K>(Mutex<BTreeMap<K, Loan>>);

struct Loan {
    writes: bool,
    memory: Arc<GuestMemory>,
}

impl<K: Ord> Loans<K> {
    /// A request that reads from `offset` on into `ranges`.
    pub fn read(&self, key: K, offset: u64, ranges: RamRanges) -> Request {
        let memory = GuestMemory::new(ranges);
        let request = Request::read_into(offset, &memory);
        self.0.lock().insert(key, Loan { writes: false, memory });
        request
    }

    /// A request that writes `ranges` from `offset` on; `fua`: stable before it is acknowledged.
    pub fn write(&self, key: K, offset: u64, ranges: RamRanges, fua: bool) -> Request {
        let memory = GuestMemory::new(ranges);
        let request = Request::write_from(offset, &memory, fua);
        self.0.lock().insert(key, Loan { writes: true, memory });
        request
    }

    /// The request has ended.
    pub fn end(&self, key: &K) {
        self.0.lock().remove(key);
    }

    /// The guest has its memory back of the requests that `which` says. Waits while their bytes are moved.
    pub fn take_back(&self, mut which: impl FnMut(&K) -> bool) {
        let taken: Vec<Loan> = {
            let mut all = self.0.lock();
            all.extract_if(.., |k, _| which(k)).map(|l| l.1).collect()
        };
        taken.iter().for_each(|l| l.memory.take_back(l.writes));
    }

    /// [`Loans::take_back`] of all.
    pub fn take_all_back(&self) {
        self.take_back(|_| true);
    }
}

impl<K> Default for Loans<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}
