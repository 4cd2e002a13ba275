//! `aio=io_uring`: one ring of the host's per machine, and the thread that it belongs to. Source: io_uring(7), io_uring_enter(2).
//!
//! Whoever has a transfer puts it into a queue; the thread gives the host all that wait at once and sleeps until something has ended or more
//! has come. So there is one thread for any number of requests in flight, and nobody who waits for one of them ever has to run the ring.
#![expect(
    unsafe_code,
    reason = "what is given to the host must stay where it is until the host says so, which no safe wrapper can know"
)]

use crate::transfer::{Bytes, Way};
use io_uring::{IoUring, opcode, squeue, types};
use parking_lot::Mutex;
use rustix::event::{EventfdFlags, eventfd};
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

/// Most transfers that the host has at once: the ring has room for what has ended of all of them.
const ENTRIES: u32 = 128;
/// Name of the completion that says that more has come.
const MORE: u64 = u64::MAX;

/// One transfer of a file's bytes.
pub(crate) struct Entry {
    pub file: Arc<File>,
    pub way: Way,
    /// First byte of the file.
    pub offset: u64,
    pub bytes: Bytes,
    /// Called on the ring's thread: how many bytes were moved.
    pub done: Box<dyn FnOnce(io::Result<u64>, Bytes) + Send>,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Entry>,
    /// The thread sleeps, or is about to: it must be told.
    asleep: bool,
    quit: bool,
}

struct Shared {
    queue: Mutex<Queue>,
    /// Readable when there is something new.
    more: OwnedFd,
}

impl Shared {
    /// Changes the queue, of which the thread hears.
    fn tell(&self, change: impl FnOnce(&mut Queue)) {
        let mut q = self.queue.lock();
        change(&mut q);
        let wake = std::mem::take(&mut q.asleep);
        drop(q);
        if wake {
            // (It can only fail when the count is full: then it is readable.)
            _ = rustix::io::write(&self.more, &1u64.to_ne_bytes());
        }
    }
}

/// A ring and its thread. Dropped, it ends when all that it was given has ended.
pub(crate) struct Ring {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Ring {
    /// # Errors
    /// The host has no rings, gives none, or no thread.
    pub fn new() -> io::Result<Arc<Self>> {
        let more = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let shared = Arc::new(Shared { queue: Mutex::default(), more });
        let (said, made) = mpsc::channel();
        let of_thread = shared.clone();
        // The ring is made by its thread: nobody else may use it.
        let run = move || match set_up() {
            Err(e) => _ = said.send(Err(e)),
            Ok(ring) => {
                _ = said.send(Ok(()));
                Running { ring, shared: of_thread, slots: vec![], free: vec![], armed: false }.run();
            }
        };
        let thread = std::thread::Builder::new().name("io_uring".into()).spawn(run)?;
        made.recv().map_err(|_| io::Error::from_raw_os_error(libc::EIO))??;
        Ok(Arc::new(Self { shared, thread: Some(thread) }))
    }

    /// Begins a transfer.
    pub fn begin(&self, entry: Entry) {
        self.shared.tell(|q| q.waiting.push_back(entry));
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        self.shared.tell(|q| q.quit = true);
        if let Some(thread) = self.thread.take().filter(|t| t.thread().id() != std::thread::current().id()) {
            _ = thread.join();
        }
    }
}

/// A ring that is for one thread alone, where the host knows such (Linux 6.1).
fn set_up() -> io::Result<IoUring> {
    let alone = IoUring::builder().setup_single_issuer().setup_defer_taskrun().build(ENTRIES);
    match alone {
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => IoUring::new(ENTRIES),
        made => made,
    }
}

/// What the host has: its memory stays where it is.
struct Slot {
    entry: Entry,
    vector: Vec<libc::iovec>,
}

struct Running {
    ring: IoUring,
    shared: Arc<Shared>,
    slots: Vec<Option<Slot>>,
    free: Vec<usize>,
    /// The host watches `Shared::more`.
    armed: bool,
}

impl Running {
    fn run(mut self) {
        loop {
            if self.submit() {
                return;
            }
            match self.ring.submit_and_wait(1) {
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                // The host is short of memory for what it was to begin, which stays in the ring.
                Err(_) => std::thread::sleep(Duration::from_millis(1)),
            }
            self.complete();
        }
    }

    /// How many transfers the host has.
    fn busy(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Puts into the ring what waits, as far as there is room; whether there is nothing left to do, ever.
    fn submit(&mut self) -> bool {
        let shared = self.shared.clone();
        let room = (ENTRIES as usize).saturating_sub(self.busy() + 1);
        let (new, over) = {
            let mut q = shared.queue.lock();
            let n = room.min(q.waiting.len());
            let new: Vec<Entry> = q.waiting.drain(..n).collect();
            // While there are more than there is room for, what ends makes room.
            q.asleep = q.waiting.is_empty();
            (new, q.quit && q.waiting.is_empty())
        };
        new.into_iter().for_each(|e| self.give(e));
        if over && self.busy() == 0 {
            return true;
        }
        if !self.armed {
            let watch = opcode::PollAdd::new(types::Fd(shared.more.as_raw_fd()), libc::POLLIN as u32).build();
            self.armed = self.push(&watch.user_data(MORE));
        }
        false
    }

    /// Puts one transfer into the ring.
    fn give(&mut self, mut entry: Entry) {
        let vector = match entry.way {
            Way::Sync => Some(vec![]),
            _ => entry.bytes.vector(),
        };
        let Some(vector) = vector else {
            return (entry.done)(Err(io::Error::from_raw_os_error(libc::EINVAL)), entry.bytes);
        };
        let (fd, at, n) = (types::Fd(entry.file.as_raw_fd()), vector.as_ptr(), vector.len() as u32);
        let made = match entry.way {
            Way::Read => opcode::Readv::new(fd, at.cast(), n).offset(entry.offset).build(),
            Way::Write => opcode::Writev::new(fd, at.cast(), n).offset(entry.offset).build(),
            Way::Sync => opcode::Fsync::new(fd).flags(types::FsyncFlags::DATASYNC).build(),
        };
        let place = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        // From here on the slot keeps file, vector and memory.
        if let Some(slot) = self.slots.get_mut(place) {
            *slot = Some(Slot { entry, vector });
        }
        if !self.push(&made.user_data(place as u64)) {
            self.end(place, Err(io::Error::from_raw_os_error(libc::EAGAIN)));
        }
    }

    fn push(&mut self, entry: &squeue::Entry) -> bool {
        // SAFETY: what the entry names lives until its completion was seen. A watch names a descriptor alone, which `shared` keeps. A transfer's
        // file, vector and bytes are in its slot, which is emptied by `end` alone: when its completion has come, or when it was not put into the
        // ring. Their addresses do not change meanwhile: the vector and a request's bytes are on the heap, guest memory is mapped as long as its
        // ranges are there, and nobody has a reference to it. `run` leaves only when no slot is in use, and what is called in `end` cannot
        // unwind through it.
        unsafe { self.ring.submission().push(entry).is_ok() }
    }

    /// Sees what has ended.
    fn complete(&mut self) {
        let ended: Vec<(u64, i32)> = self.ring.completion().map(|c| (c.user_data(), c.result())).collect();
        for (name, result) in ended {
            if name == MORE {
                self.armed = false;
                _ = rustix::io::read(&self.shared.more, &mut [0u8; 8]);
                continue;
            }
            let result = u64::try_from(result).map_err(|_| io::Error::from_raw_os_error(result.saturating_neg()));
            self.end(name as usize, result);
        }
    }

    /// A transfer has ended: its slot is free.
    fn end(&mut self, place: usize, result: io::Result<u64>) {
        let Some(Slot { entry, vector }) = self.slots.get_mut(place).and_then(Option::take) else { return };
        self.free.push(place);
        let Entry { bytes, done, file, .. } = entry;
        drop((vector, file)); // whoever hears of the end may close the file, and with it its locks
        // Whoever waits for a request whose end is not told waits for ever; that is better than memory that the host writes to being given away.
        if catch_unwind(AssertUnwindSafe(move || done(result, bytes))).is_err() {
            tracing::error!("the end of a request failed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    fn file(bytes: &[u8]) -> Arc<File> {
        let f = tempfile::tempfile().unwrap();
        f.write_all_at(bytes, 0).unwrap();
        Arc::new(f)
    }

    #[test]
    fn more_transfers_than_the_ring_has_room_for_all_end() {
        let Ok(ring) = Ring::new() else {
            // A host that gives no ring says why; that is what the drivers show.
            let why = Ring::new().err().and_then(|e| e.raw_os_error());
            return assert!(matches!(why, Some(libc::EPERM | libc::ENOSYS | libc::ENOMEM)), "{why:?}");
        };
        let all: Vec<u8> = (0..1000u32).flat_map(|n| n.to_le_bytes()).collect();
        let (from, to) = (file(&all), file(&[]));
        let (said, heard) = mpsc::channel();
        for n in 0..1000u64 {
            let (ring2, to, said) = (ring.clone(), to.clone(), said.clone());
            let write = move |r: io::Result<u64>, bytes: Bytes| {
                assert_eq!(r.unwrap(), 4);
                let done = move |r: io::Result<u64>, _: Bytes| said.send(r.unwrap()).unwrap();
                let again = Entry { file: to, way: Way::Write, offset: 4 * n, bytes, done: Box::new(done) };
                ring2.begin(again);
            };
            let bytes = Bytes::Own(vec![0; 4].into());
            ring.begin(Entry { file: from.clone(), way: Way::Read, offset: 4 * n, bytes, done: Box::new(write) });
        }
        assert!((0..1000).all(|_| heard.recv().unwrap() == 4));
        let mut back = vec![0; 4000];
        to.read_exact_at(&mut back, 0).unwrap();
        assert_eq!(back, all);
        // Stable; nothing behind the end; a file that is not open for writing.
        let (said, heard) = mpsc::channel();
        let read_only = Arc::new(File::open("/proc/self/exe").unwrap());
        for (file, way, offset) in [(&to, Way::Sync, 0), (&to, Way::Read, 4000), (&read_only, Way::Write, 0)] {
            let said = said.clone();
            let done = move |r: io::Result<u64>, _: Bytes| said.send(r.map_err(|e| e.raw_os_error())).unwrap();
            let bytes = Bytes::Own(vec![0; 4].into());
            ring.begin(Entry { file: file.clone(), way, offset, bytes, done: Box::new(done) });
            let want = if way == Way::Write { Err(Some(libc::EBADF)) } else { Ok(0) };
            assert_eq!(heard.recv().unwrap(), want);
        }
        drop(ring);
    }
}
