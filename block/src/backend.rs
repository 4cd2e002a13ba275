//! What a device owns of the block layer: medium, error policy, statistics; and how its requests run.

use crate::data::{Data, Spare};
use crate::job::chain;
use crate::node::{Edge, Node, Perm};
use crate::overlap::{Range, Tracker};
use crate::pool::Pool;
use crate::request::{Done, Op, Outcome, Request};
use crate::stats::Stats;
use crate::throttle::Group;
use crate::transfer::{Bytes, Ended, Transfer, Way};
use crate::{Interface, SECTOR};
use hw_core::iothread::Worker;
use hw_core::{Core, Request as MachineRequest, RunState, iothread};
use parking_lot::{Mutex, RwLock};
use qom::{Error, PropEnum, Result};
use serde_json::json;
use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// `werror` and `rerror`: what becomes of a request that fails on the host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PropEnum)]
#[qom(name = "BlockdevOnError")]
pub enum OnError {
    /// The guest is told.
    Report,
    /// The guest is told that it worked.
    Ignore,
    /// The machine stops when the host's disk is full, else the guest is told.
    Enospc,
    /// The machine stops; the request is made again when it goes on.
    Stop,
    /// Writes: as `enospc`; reads: as `report`.
    #[default]
    Auto,
}

/// What is to be done about a request that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Tell the guest.
    Report,
    /// Pretend that it worked.
    Ignore,
    /// Keep the request until the machine goes on: it stops.
    Stop,
}

/// The policy for errors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ErrorPolicy {
    /// Reads.
    pub read: OnError,
    /// Everything else.
    pub write: OnError,
}

/// What `-drive` said about the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Legacy {
    /// `if`.
    pub interface: Interface,
    /// Which controller or channel.
    pub bus: u32,
    /// Which device of it.
    pub unit: u32,
    /// `media=cdrom`.
    pub cdrom: bool,
}

/// The device that owns a backend.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Owner {
    /// Id, or path if it has none: `qdev` of `query-block`.
    qdev: String,
    path: String,
    /// Its medium can be changed.
    removable: bool,
    /// It has a tray: open, locked by the guest.
    tray: Option<(bool, bool)>,
}

/// How monitors reach a device. Called with no lock held. A device whose medium cannot be changed hears of its size alone.
pub trait Media: Send + Sync {
    /// Asks the guest to let go of the medium; `force`: opens the tray whatever the guest says.
    fn request_eject(&self, _force: bool) {}
    /// The tray opens or closes.
    fn move_tray(&self, _open: bool) {}
    /// There is another medium, or none, behind the backend.
    fn changed(&self) {}
    /// The medium has another size.
    fn resized(&self) {}
}

#[derive(Default)]
struct State {
    owner: Option<Owner>,
    /// Path of the device that let go of it.
    left_by: Option<String>,
    media: Option<Arc<dyn Media>>,
    policy: ErrorPolicy,
    stats: Stats,
    /// `ok`, `failed`, `nospace`.
    io_status: Option<&'static str>,
    perms: Option<(Perm, Perm)>,
}

struct Work {
    request: Request,
    done: Done,
    node: Arc<Node>,
    begun: Instant,
    /// Where it ends, if not on the main loop's thread.
    to: Option<Arc<Worker>>,
}

/// One drive.
pub struct Backend {
    name: String,
    /// The name is another's to take: `drive_del`.
    deleted: AtomicBool,
    legacy: Option<Legacy>,
    pool: Arc<Pool>,
    root: RwLock<Option<Edge>>,
    state: Mutex<State>,
    tracker: Mutex<Tracker<Work>>,
    /// Writes are acknowledged before they are stable.
    wce: AtomicBool,
    /// The user said that it is read-only.
    read_only: AtomicBool,
    /// What is read from the backing file is copied up.
    copy_on_read: AtomicBool,
    group: Mutex<Option<Arc<Group>>>,
}

fn perform(node: &Arc<Node>, request: &mut Request, copy_on_read: bool, spare: &Arc<Spare>) -> io::Result<()> {
    if let (Op::Read { .. } | Op::ReadInto(_), true) = (&request.op, copy_on_read) {
        chain::copy_up(node, None, request.offset, request.len())?;
    }
    match request.op {
        Op::ReadInto(ref memory) => memory.read(node, request.offset),
        Op::WriteFrom { ref memory, fua } => {
            memory.write(node, request.offset)?;
            if fua { node.flush() } else { Ok(()) }
        }
        Op::Read { len } => {
            request.data = spare.take(len);
            let done = node.read(request.offset, &mut request.data);
            if done.is_err() {
                request.data.fill(0); // what was in the memory before is nobody's business
            }
            done
        }
        Op::Write { fua } => {
            node.write(request.offset, &request.data)?;
            if fua { node.flush() } else { Ok(()) }
        }
        Op::WriteZeroes { len, unmap, fua } => {
            node.write_zeroes(request.offset, len, unmap)?;
            if fua { node.flush() } else { Ok(()) }
        }
        Op::Discard { len } => node.discard(request.offset, len),
        Op::Flush => node.flush(),
    }
}

/// A driver that panics has not done its work; whoever waits for it must hear of that.
fn guarded(f: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    catch_unwind(AssertUnwindSafe(f)).unwrap_or_else(|_| Err(io::Error::from_raw_os_error(libc::EIO)))
}

/// Begins a transfer; one that is to be done as always comes back at once.
fn pass_on(node: &Arc<Node>, transfer: Transfer) {
    if let Err(t) = node.begin(transfer) {
        (t.done)(Ended::Again, t.bytes);
    }
}

impl Backend {
    pub(crate) fn new(name: String, legacy: Option<Legacy>, pool: Arc<Pool>) -> Arc<Self> {
        Arc::new(Self {
            name,
            deleted: AtomicBool::new(false),
            legacy,
            pool,
            root: RwLock::default(),
            state: Mutex::default(),
            tracker: Mutex::default(),
            wce: AtomicBool::new(true),
            read_only: AtomicBool::new(false),
            copy_on_read: AtomicBool::new(false),
            group: Mutex::default(),
        })
    }

    /// Its name; empty if it was made for a device that names a node, or deleted.
    pub fn name(&self) -> &str {
        if self.deleted.load(Ordering::Relaxed) { "" } else { &self.name }
    }

    /// The monitor deletes it: what device has it finds no medium, and an error on that concerns the guest alone.
    pub(crate) fn delete(&self) -> Result<()> {
        self.set_policy(ErrorPolicy { read: OnError::Report, write: OnError::Report });
        self.deleted.store(true, Ordering::Relaxed);
        self.set_root(None)
    }

    /// What `-drive` said about the device.
    pub fn legacy(&self) -> Option<Legacy> {
        self.legacy
    }

    /// The node of the medium, if there is one.
    pub fn root(&self) -> Option<Arc<Node>> {
        self.root.read().as_ref().map(|e| e.node().clone())
    }

    /// Puts a medium in, or takes it out.
    ///
    /// # Errors
    /// Another user is in the way; the old medium is gone then.
    pub fn set_root(&self, node: Option<&Arc<Node>>) -> Result<()> {
        let old = self.root.write().take();
        drop(old);
        if let Some(node) = node {
            let (perm, shared) = self.state.lock().perms.unwrap_or((Perm::empty(), Perm::all()));
            let perm = if node.is_read_only() { perm - Perm::WRITE } else { perm };
            let edge = Edge::new(node, &self.user_name(), perm, shared)?;
            *self.root.write() = Some(edge);
        }
        Ok(())
    }

    /// Puts another node in the place of the medium's: the device does not notice. With no requests under way.
    ///
    /// # Errors
    /// Another user is in the way; the old node stays.
    pub(crate) fn replace_root(&self, node: &Arc<Node>) -> Result<()> {
        let old = self.root();
        self.set_root(Some(node)).inspect_err(|_| {
            // It was granted before.
            _ = self.set_root(old.as_ref());
        })
    }

    /// Its name, or its device's.
    pub fn label(&self) -> String {
        let named = Some(self.name().to_owned()).filter(|n| !n.is_empty());
        named.or_else(|| self.qdev()).unwrap_or_default()
    }

    fn user_name(&self) -> String {
        match &self.state.lock().owner {
            _ if !self.name().is_empty() => format!("block device '{}'", self.name),
            Some(o) => format!("block device '{}'", o.qdev),
            None => "a block device".into(),
        }
    }

    /// Bytes of the medium, rounded up to whole sectors; 0 without one.
    pub fn len(&self) -> u64 {
        let len = self.root().and_then(|n| n.len().ok()).unwrap_or(0);
        len.checked_next_multiple_of(SECTOR).unwrap_or(len)
    }

    /// Whether there is no medium, or one without bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether it cannot be written.
    pub fn is_read_only(&self) -> bool {
        self.root().map_or_else(|| self.read_only.load(Ordering::Relaxed), |n| n.is_read_only())
    }

    /// The user wants it read-only: for drives whose medium comes later.
    pub fn set_read_only(&self, on: bool) {
        self.read_only.store(on, Ordering::Relaxed);
    }

    /// What the user wants of a medium that comes later.
    pub fn wants_read_only(&self) -> bool {
        self.read_only.load(Ordering::Relaxed)
    }

    /// Whether writes are acknowledged before they are stable.
    pub fn write_cache(&self) -> bool {
        self.wce.load(Ordering::Relaxed)
    }

    /// Sets that.
    pub fn set_write_cache(&self, on: bool) {
        self.wce.store(on, Ordering::Relaxed);
    }

    /// Whether what is read from the backing file is copied up.
    pub fn copy_on_read(&self) -> bool {
        self.copy_on_read.load(Ordering::Relaxed)
    }

    /// Sets that.
    pub fn set_copy_on_read(&self, on: bool) {
        self.copy_on_read.store(on, Ordering::Relaxed);
    }

    /// The group whose limits hold for it.
    pub fn group(&self) -> Option<Arc<Group>> {
        self.group.lock().clone()
    }

    /// Sets that. With no requests under way.
    pub fn set_group(&self, group: Option<Arc<Group>>) {
        *self.group.lock() = group;
    }

    /// The policy for errors.
    pub fn policy(&self) -> ErrorPolicy {
        self.state.lock().policy
    }

    /// Sets it.
    pub fn set_policy(&self, policy: ErrorPolicy) {
        self.state.lock().policy = policy;
    }

    // ---- the device ----

    /// A device takes it. `qdev`: its id, or path without one.
    ///
    /// # Errors
    /// Another device has it.
    pub fn attach(&self, qdev: &str, path: &str, removable: bool) -> Result<()> {
        let mut s = self.state.lock();
        if s.owner.is_some() {
            return Err(Error::generic(format!("Drive '{}' is already in use by another device", self.name)));
        }
        s.owner = Some(Owner { qdev: qdev.into(), path: path.into(), removable, tray: None });
        s.io_status = Some("ok");
        Ok(())
    }

    /// The device that took it keeps no status of errors.
    pub fn without_io_status(&self) {
        self.state.lock().io_status = None;
    }

    /// The device lets go.
    pub fn detach(&self) {
        let old = {
            let mut s = self.state.lock();
            s.left_by = s.owner.take().map(|o| o.path);
            s.io_status = None;
            s.perms = None;
            s.media.take()
        };
        drop(old);
        if let Some(edge) = &*self.root.read() {
            // Fewer permissions are always granted.
            _ = edge.set(Perm::empty(), Perm::all());
        }
    }

    /// Path of the device that had it last.
    pub(crate) fn left_by(&self) -> Option<String> {
        self.state.lock().left_by.clone()
    }

    /// Whether a device has it.
    pub fn is_attached(&self) -> bool {
        self.state.lock().owner.is_some()
    }

    /// The device's id, or its path without one.
    pub fn qdev(&self) -> Option<String> {
        self.state.lock().owner.as_ref().map(|o| o.qdev.clone())
    }

    /// Whether the medium can be changed: also while no device says otherwise.
    pub fn is_removable(&self) -> bool {
        self.state.lock().owner.as_ref().is_none_or(|o| o.removable)
    }

    /// Tray of the device, if it has one: open, locked.
    pub fn tray(&self) -> Option<(bool, bool)> {
        self.state.lock().owner.as_ref().and_then(|o| o.tray)
    }

    /// Says how the tray is; whether it moved.
    pub fn set_tray(&self, open: bool, locked: bool) -> bool {
        let mut s = self.state.lock();
        let Some(owner) = &mut s.owner else { return false };
        let was = owner.tray.replace((open, locked));
        was.is_some_and(|w| w.0 != open)
    }

    /// Sets how monitors reach the device.
    pub fn set_media(&self, media: Arc<dyn Media>) {
        self.state.lock().media = Some(media);
    }

    /// How monitors reach the device.
    pub fn media(&self) -> Option<Arc<dyn Media>> {
        self.state.lock().media.clone()
    }

    /// What the device does with the medium, and lets others do.
    ///
    /// # Errors
    /// Another user, here or in another process, is in the way.
    pub fn set_perms(&self, perm: Perm, shared: Perm) -> Result<()> {
        if let Some(edge) = &*self.root.read() {
            let perm = if edge.node().is_read_only() { perm - Perm::WRITE } else { perm };
            edge.set(perm, shared)?;
        }
        self.state.lock().perms = Some((perm, shared));
        Ok(())
    }

    /// Takes what it may of what it wants: the medium may have become writable.
    pub(crate) fn renew_perms(&self) {
        let wanted = self.state.lock().perms;
        if let (Some((perm, shared)), Some(edge)) = (wanted, &*self.root.read()) {
            let perm = if edge.node().is_read_only() { perm - Perm::WRITE } else { perm };
            // Whoever is in the way now was so before: the drive stays what it is.
            _ = edge.set(perm, shared);
        }
    }

    // ---- errors ----

    /// `ok`, `failed` or `nospace`, while a policy can stop the machine.
    pub fn io_status(&self) -> Option<&'static str> {
        let s = self.state.lock();
        let stops = matches!(s.policy.read, OnError::Stop | OnError::Enospc)
            || matches!(s.policy.write, OnError::Stop | OnError::Enospc | OnError::Auto);
        s.io_status.filter(|_| stops)
    }

    /// The machine goes on: errors are forgotten.
    pub fn reset_io_status(&self) {
        let mut s = self.state.lock();
        s.io_status = s.io_status.map(|_| "ok");
    }

    /// Decides about a request that failed, sends `BLOCK_IO_ERROR`, and stops the machine if the policy says so.
    pub fn failed(&self, core: &Core, read: bool, error: &io::Error) -> Action {
        let nospace = error.raw_os_error() == Some(libc::ENOSPC);
        let (device, path, action) = {
            let mut s = self.state.lock();
            let policy = match (read, s.policy) {
                (true, p) if p.read == OnError::Auto => OnError::Report,
                (true, p) => p.read,
                (false, p) if p.write == OnError::Auto => OnError::Enospc,
                (false, p) => p.write,
            };
            let action = match policy {
                OnError::Ignore => Action::Ignore,
                OnError::Stop => Action::Stop,
                OnError::Enospc if nospace => Action::Stop,
                _ => Action::Report,
            };
            if action == Action::Stop && s.io_status == Some("ok") {
                s.io_status = Some(if nospace { "nospace" } else { "failed" });
            }
            let path = s.owner.as_ref().map_or_else(String::new, |o| o.path.clone());
            (self.name().to_owned(), path, action)
        };
        let mut data = json!({
            "qom-path": path,
            "device": device,
            "operation": if read { "read" } else { "write" },
            "action": match action { Action::Report => "report", Action::Ignore => "ignore", Action::Stop => "stop" },
            "nospace": nospace,
            "reason": crate::blocks::plain(error),
        });
        if let (Some(node), Some(map)) = (self.root(), data.as_object_mut()) {
            map.insert("node-name".into(), node.name().into());
        }
        core.emit("BLOCK_IO_ERROR", data);
        if action == Action::Stop {
            core.requests.post(MachineRequest::Stop(RunState::IoError));
        }
        action
    }

    // ---- requests ----

    /// `len` bytes for a write, where they need not be copied once more. What is in them is of no use: all of it is to be written first.
    pub fn buffer(&self, len: usize) -> Data {
        self.pool.spare().take(len)
    }

    /// Whether [`Backend::submit`] could as well be done at once: nothing waits for a medium, for limits or for another request.
    fn is_instant(&self, node: &Node) -> bool {
        node.driver().is_instant() && !self.copy_on_read() && self.group().is_none() && self.tracker.lock().is_idle()
    }

    /// Whether [`Backend::do_now`] does what is asked of it.
    pub fn takes_no_time(&self) -> bool {
        self.root().is_some_and(|n| self.is_instant(&n))
    }

    /// Does a request on the spot if it takes no time, whatever its medium; else it is the caller's again, for [`Backend::submit`]. May be
    /// called with the machine locked. The caller bounds how much it does so.
    ///
    /// # Errors
    /// The request, untouched.
    pub fn do_now(&self, mut request: Request) -> std::result::Result<Outcome, Request> {
        let Some(node) = self.root().filter(|n| self.is_instant(n)) else { return Err(request) };
        let end = request.offset.checked_add(request.len());
        if request.op != Op::Flush && end.is_none_or(|end| end > self.len()) {
            return Err(request); // refused there
        }
        let begun = Instant::now();
        let result = perform(&node, &mut request, false, self.pool.spare());
        self.account(&request, &result, begun);
        Ok(Outcome { result, data: request.data })
    }

    /// Starts a request; `done` is called by [`crate::Blocks::deliver`], never from here; on the thread of an `iothread` if this is one.
    /// May be called with the machine locked.
    pub fn submit(self: &Arc<Self>, mut request: Request, done: Done) {
        self.pool.begin();
        let to = iothread::current();
        let refuse = |done: Done, errno: i32| {
            let outcome = Outcome { result: Err(io::Error::from_raw_os_error(errno)), data: Data::default() };
            self.pool.end(done, outcome, iothread::current());
        };
        let Some(node) = self.root() else { return refuse(done, libc::ENOMEDIUM) };
        if let (Op::Write { fua } | Op::WriteFrom { fua, .. } | Op::WriteZeroes { fua, .. }, false) =
            (&mut request.op, self.write_cache())
        {
            *fua = true;
        }
        let (start, len) = (request.offset, request.len());
        let end = start.checked_add(len);
        let limit = match request.op {
            Op::Flush => u64::MAX,
            _ => self.len(),
        };
        let Some(end) = end.filter(|e| *e <= limit) else {
            self.state.lock().stats.of(&request.op).invalid += 1;
            return refuse(done, libc::EIO);
        };
        let range = Range { start, end, changes: request.changes() };
        let work = Work { request, done, node, begun: Instant::now(), to };
        let free = self.tracker.lock().enter(range, work);
        if let Some((ticket, work)) = free {
            self.launch(ticket, work);
        }
    }

    /// A request's turn has come: it waits for the limits, then for a thread.
    fn launch(self: &Arc<Self>, ticket: u64, work: Work) {
        let mut groups: VecDeque<Arc<Group>> = self.group().into_iter().collect();
        if work.request.op != Op::Flush {
            let below = std::iter::successors(Some(work.node.clone()), |n| n.filtered());
            groups.extend(below.filter_map(|n| n.driver().limits()));
        }
        self.pass(groups, ticket, work);
    }

    fn pass(self: &Arc<Self>, mut groups: VecDeque<Arc<Group>>, ticket: u64, work: Work) {
        let this = self.clone();
        match groups.pop_front().filter(|_| work.request.op != Op::Flush) {
            None if work.node.driver().has_ring() && !self.copy_on_read() => this.begin(ticket, work),
            None => this.on_worker(ticket, work),
            Some(group) => {
                let (write, bytes) = (work.request.changes(), work.request.len());
                let member = Arc::as_ptr(self).addr() as u64;
                group.enter(member, write, bytes, Box::new(move || this.pass(groups, ticket, work)));
            }
        }
    }

    fn on_worker(self: Arc<Self>, ticket: u64, work: Work) {
        let pool = self.pool.clone();
        pool.run(Box::new(move || self.work(ticket, work)));
    }

    /// Begins what needs no thread that waits for it; a worker does all else.
    fn begin(self: Arc<Self>, ticket: u64, mut work: Work) {
        let (way, bytes, busy) = match &work.request.op {
            Op::Flush => return self.make_stable(ticket, work),
            Op::WriteZeroes { .. } | Op::Discard { .. } => return self.on_worker(ticket, work),
            Op::Read { len } => (Way::Read, Bytes::Own(self.pool.spare().take(*len)), None),
            Op::Write { .. } => (Way::Write, Bytes::Own(std::mem::take(&mut work.request.data)), None),
            Op::ReadInto(memory) | Op::WriteFrom { memory, .. } => {
                let way = if work.request.changes() { Way::Write } else { Way::Read };
                match memory.borrow() {
                    Some((ranges, busy)) => (way, Bytes::Guest(ranges), Some(busy)),
                    None => return self.on_worker(ticket, work),
                }
            }
        };
        let (node, offset) = (work.node.clone(), work.request.offset);
        let done = move |ended: Ended, bytes: Bytes| {
            if let Bytes::Own(data) = bytes {
                work.request.data = data;
            }
            // From here on the guest may have its memory back.
            drop(busy);
            match (ended, &work.request.op) {
                (Ended::Again, _) => self.on_worker(ticket, work),
                (Ended::Done(Ok(())), Op::Write { fua: true } | Op::WriteFrom { fua: true, .. }) => {
                    self.make_stable(ticket, work)
                }
                (Ended::Done(result), _) => self.finish(ticket, work, result),
            }
        };
        pass_on(&node, Transfer::new(way, offset, bytes, done));
    }

    /// Makes what was written stable, which ends the request.
    fn make_stable(self: Arc<Self>, ticket: u64, work: Work) {
        let node = work.node.clone();
        let done = move |ended: Ended, _: Bytes| match ended {
            Ended::Done(result) => self.finish(ticket, work, result),
            Ended::Again => {
                let pool = self.pool.clone();
                pool.run(Box::new(move || {
                    let result = guarded(|| work.node.flush());
                    self.finish(ticket, work, result);
                }));
            }
        };
        pass_on(&node, Transfer::new(Way::Sync, 0, Bytes::Own(Data::default()), done));
    }

    fn work(self: Arc<Self>, ticket: u64, mut work: Work) {
        let copy_on_read = self.copy_on_read();
        let result = guarded(|| perform(&work.node, &mut work.request, copy_on_read, self.pool.spare()));
        self.finish(ticket, work, result);
    }

    /// A request has ended.
    fn finish(self: Arc<Self>, ticket: u64, mut work: Work, result: io::Result<()>) {
        if let (Err(_), Op::Read { .. }) = (&result, &work.request.op) {
            work.request.data.fill(0); // what was in the memory before is nobody's business
        }
        self.account(&work.request, &result, work.begun);
        let next = self.tracker.lock().leave(ticket);
        for (ticket, work) in next {
            self.launch(ticket, work);
        }
        let (pool, done, data, to) = (self.pool.clone(), work.done, work.request.data, work.to);
        // Whoever hears of the end may delete the drive and its node at once: this thread must hold neither then.
        drop((work.node, self));
        pool.end(done, Outcome { result, data }, to);
    }

    /// Counts a request that has ended.
    fn account(&self, request: &Request, result: &io::Result<()>, begun: Instant) {
        let op = &request.op;
        let mut s = self.state.lock();
        let now = Instant::now();
        s.stats.last = Some(now);
        if let (Op::Write { .. } | Op::WriteFrom { .. }, Ok(())) = (op, result) {
            s.stats.wr_highest_offset = s.stats.wr_highest_offset.max(request.offset + request.len());
        }
        let count = s.stats.of(op);
        if result.is_ok() {
            count.bytes += request.len();
            count.operations += 1;
            count.total_time_ns += now.duration_since(begun).as_nanos() as u64;
        } else {
            count.failed += 1;
        }
    }

    /// A request that has ended was made of `more` than one of the guest's.
    pub fn count_merged(&self, reads: bool, more: u64) {
        let stats = &mut self.state.lock().stats;
        let count = if reads { &mut stats.rd } else { &mut stats.wr };
        (count.operations, count.merged) = (count.operations + more, count.merged + more);
    }

    /// A merged request that failed is made again in its parts: those are what counts.
    pub fn forget_failed(&self, reads: bool) {
        let stats = &mut self.state.lock().stats;
        let count = if reads { &mut stats.rd } else { &mut stats.wr };
        count.failed = count.failed.saturating_sub(1);
    }

    /// What it did.
    pub fn stats(&self) -> Stats {
        self.state.lock().stats
    }
}

impl std::fmt::Debug for Backend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Backend").field(&self.name).finish()
    }
}
