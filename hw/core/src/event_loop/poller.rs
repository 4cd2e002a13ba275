//! Which descriptors are waited for, told to the host by `epoll(7)`: a change costs the same however many there are, and takes effect
//! while the loop sleeps.
//!
//! A descriptor may be watched several times, while the host takes it once: a *slot* is a descriptor with all its watches. What the host
//! cannot wait for (regular files) is always ready, as for `poll(2)`.

use super::Ready;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;

/// Most descriptors that are reported in one round; the others come first in the next.
const ROUND: usize = 256;

struct Slot {
    fd: Arc<OwnedFd>,
    /// Watches, by number, and what each waits for.
    watches: Vec<(u64, Ready)>,
    /// What the host waits for.
    known: Option<EventFlags>,
    /// The host does not wait for such.
    always: bool,
}

impl Slot {
    /// What its watches wait for together; `None`: they all sleep.
    fn wanted(&self) -> Option<EventFlags> {
        let awake = self.watches.iter().filter(|w| !w.1.is_empty());
        awake.map(|w| w.1).reduce(|a, b| a | b).map(|all| {
            let mut flags = EventFlags::empty();
            flags.set(EventFlags::IN, all.contains(Ready::READ));
            flags.set(EventFlags::OUT, all.contains(Ready::WRITE));
            flags
        })
    }
}

/// The descriptors of one loop.
pub(super) struct Poller {
    epoll: Arc<OwnedFd>,
    slots: BTreeMap<u64, Slot>,
    by_fd: BTreeMap<RawFd, u64>,
    /// Slots of which the host does not know yet what is wanted.
    changed: Vec<u64>,
    /// Slots that are always ready.
    always: Vec<u64>,
    next: u64,
}

impl Poller {
    pub fn new() -> std::io::Result<Self> {
        let epoll = Arc::new(epoll::create(CreateFlags::CLOEXEC)?);
        let (slots, by_fd) = (BTreeMap::new(), BTreeMap::new());
        Ok(Self { epoll, slots, by_fd, changed: vec![], always: vec![], next: 0 })
    }

    /// What [`wait`] waits on.
    pub fn descriptor(&self) -> Arc<OwnedFd> {
        self.epoll.clone()
    }

    /// Adds a watch; its slot.
    pub fn add(&mut self, watch: u64, fd: Arc<OwnedFd>, interest: Ready) -> u64 {
        let raw = fd.as_raw_fd();
        let slot = *self.by_fd.entry(raw).or_insert_with(|| {
            self.next += 1;
            self.slots.insert(self.next, Slot { fd, watches: vec![], known: None, always: false });
            self.next
        });
        if let Some(s) = self.slots.get_mut(&slot) {
            s.watches.push((watch, interest));
        }
        self.changed.push(slot);
        slot
    }

    /// What a watch waits for.
    pub fn interest(&self, slot: u64, watch: u64) -> Ready {
        let watches = self.slots.get(&slot).map_or(&[][..], |s| &s.watches);
        watches.iter().find(|w| w.0 == watch).map_or(Ready::empty(), |w| w.1)
    }

    /// Changes what a watch waits for.
    pub fn set(&mut self, slot: u64, watch: u64, interest: Ready) {
        let watches = self.slots.get_mut(&slot).into_iter().flat_map(|s| &mut s.watches);
        if let Some(w) = watches.into_iter().find(|w| w.0 == watch && w.1 != interest) {
            w.1 = interest;
            self.changed.push(slot);
        }
    }

    /// Ends a watch. With the last one of its slot the host forgets the descriptor, which may be closed then.
    pub fn remove(&mut self, slot: u64, watch: u64) {
        let Some(s) = self.slots.get_mut(&slot) else { return };
        s.watches.retain(|w| w.0 != watch);
        if !s.watches.is_empty() {
            return self.changed.push(slot);
        }
        if s.known.is_some() {
            _ = epoll::delete(&self.epoll, &s.fd);
        }
        self.by_fd.remove(&s.fd.as_raw_fd());
        self.slots.remove(&slot);
        self.always.retain(|a| *a != slot);
    }

    /// Tells the host what changed; false: it did not take all of that now.
    pub fn apply(&mut self) -> bool {
        let mut left = vec![];
        for slot in std::mem::take(&mut self.changed) {
            let Some(s) = self.slots.get_mut(&slot) else { continue };
            let wanted = s.wanted();
            if s.always {
                self.always.retain(|a| *a != slot);
                self.always.extend(wanted.map(|_| slot));
                continue;
            }
            let data = EventData::new_u64(slot);
            let done = match (s.known, wanted) {
                (a, b) if a == b => Ok(()),
                (Some(_), None) => epoll::delete(&self.epoll, &s.fd),
                (Some(_), Some(flags)) => epoll::modify(&self.epoll, &s.fd, data, flags),
                (None, Some(flags)) => epoll::add(&self.epoll, &s.fd, data, flags),
                (None, None) => Ok(()),
            };
            match done {
                Ok(()) => s.known = wanted,
                Err(Errno::PERM) => {
                    s.always = true;
                    self.always.push(slot);
                }
                // (Memory, or as many descriptors as the user may wait for.)
                Err(_) => left.push(slot),
            }
        }
        self.changed = left;
        self.changed.is_empty()
    }

    /// Whether a descriptor is ready without being asked for.
    pub fn is_ready(&self) -> bool {
        !self.always.is_empty()
    }

    /// The watches that want to hear of what was found, in the order they were made.
    pub fn found(&self, events: &[Event]) -> Vec<(u64, Ready)> {
        let always = self.always.iter().map(|slot| (*slot, Ready::READ | Ready::WRITE));
        let told = events.iter().map(|e| {
            let flags = e.flags;
            let mut ready = Ready::empty();
            ready.set(Ready::READ, flags.contains(EventFlags::IN));
            ready.set(Ready::WRITE, flags.contains(EventFlags::OUT));
            ready.set(Ready::HANGUP, flags.intersects(EventFlags::HUP | EventFlags::ERR));
            (e.data.u64(), ready)
        });
        let mut all = vec![];
        for (slot, ready) in told.chain(always) {
            for (watch, interest) in self.slots.get(&slot).into_iter().flat_map(|s| &s.watches) {
                let ready = ready & (*interest | Ready::HANGUP);
                if !interest.is_empty() && !ready.is_empty() {
                    all.push((*watch, ready));
                }
            }
        }
        all.sort_unstable_by_key(|w| w.0);
        all
    }
}

/// Waits until a descriptor is ready or `wake` is readable, at most `limit`: what is ready, and whether it was woken.
pub(super) fn wait(epoll: &OwnedFd, wake: &OwnedFd, limit: Option<&Timespec>) -> (Vec<Event>, bool) {
    // (The time of `epoll_pwait` is in milliseconds, which is too coarse for guests' timers.)
    let mut polled = [PollFd::new(wake, PollFlags::IN), PollFd::new(epoll, PollFlags::IN)];
    // EINTR is a wake-up like any other; other errors (memory) are answered by trying again.
    if poll(&mut polled, limit).is_err() {
        return (vec![], false);
    }
    let [woken, ready] = polled.map(|p| !p.revents().is_empty());
    let mut events = Vec::new();
    if ready {
        events.reserve(ROUND);
        let buffer = rustix::buffer::spare_capacity(&mut events);
        _ = epoll::wait(epoll, buffer, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
    }
    (events, woken)
}
