//! The machine lock. Whoever holds it has `&mut Locked`; device registers live in [`MachineCell`]s that open only with
//! it, so that a second borrow, or a call out while registers are borrowed, does not compile.
//!
//! Invariants: at most one thread holds the lock; a thread that locks it twice is stopped by a panic instead of hanging;
//! nobody waits for a vCPU while holding it.

use std::any::Any;
use std::ops::{Deref, DerefMut};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::{Mutex, MutexGuard};
use qcell::{QCell, QCellOwner, QCellOwnerID};

use crate::clock::Clocks;
use crate::memory::Topology;
use crate::request::{Request, Requests};

/// What the holder of the machine lock may touch. Made by [`Core::lock`](crate::Core::lock) only.
pub struct Locked {
    owner: QCellOwner,
    /// The machine's clocks; `m.clock.now()` is the virtual clock in nanoseconds.
    pub clock: Arc<Clocks>,
    /// Open memory transaction and the address spaces it concerns.
    pub(crate) topology: Topology,
    requests: Arc<Requests>,
    /// Index of the vCPU on whose behalf the current access runs; `None` for devices, monitors and tests.
    pub(crate) cpu: Option<u32>,
}

impl Locked {
    /// Queues a run-state request for the main loop and wakes it.
    pub fn request(&mut self, request: Request) {
        self.requests.post(request);
    }

    /// Index of the vCPU whose access is being handled, if it is one's.
    pub fn cpu(&self) -> Option<u32> {
        self.cpu
    }

    /// Runs code of a device. A panic in it is our bug: it stops the machine with `internal-error`, and `None` comes back.
    pub fn guarded<R>(&mut self, f: impl FnOnce(&mut Locked) -> R, what: impl FnOnce() -> String) -> Option<R> {
        match catch_unwind(AssertUnwindSafe(|| f(self))) {
            Ok(r) => Some(r),
            Err(panic) => {
                let what = format!("{} failed: {}", what(), panic_text(&*panic));
                tracing::error!("{what}");
                self.requests.post(Request::InternalError(what));
                None
            }
        }
    }

    /// Steps a machine whose clock is stepped by hand (see [`Clocks::step`]) by `ns` nanoseconds.
    pub fn advance(&mut self, ns: u64) {
        let clock = self.clock.clone();
        clock.step(self, ns);
    }
}

/// What a panic said.
pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("unknown panic")
}

/// The mutex around [`Locked`], with a check of who holds it.
pub struct MachineLock {
    mutex: Mutex<Locked>,
    /// Token of the holding thread, 0 for none.
    holder: AtomicUsize,
    id: QCellOwnerID,
}

/// A number that identifies the calling thread for as long as it runs.
fn thread_token() -> usize {
    thread_local!(static TOKEN: u8 = const { 0 });
    TOKEN.with(|t| std::ptr::from_ref(t) as usize)
}

impl MachineLock {
    pub(crate) fn new(clock: Arc<Clocks>, requests: Arc<Requests>) -> Self {
        let owner = QCellOwner::new();
        let id = owner.id();
        let locked = Locked { owner, clock, topology: Topology::default(), requests, cpu: None };
        Self { mutex: Mutex::new(locked), holder: AtomicUsize::new(0), id }
    }

    /// Takes the machine lock.
    ///
    /// # Panics
    /// When the calling thread holds it already: that is a bug in a device, and waiting would hang the machine.
    pub fn lock(&self) -> CoreGuard<'_> {
        let me = thread_token();
        // Relaxed: only this thread can have stored its own token.
        assert!(self.holder.load(Ordering::Relaxed) != me, "machine lock taken twice by one thread");
        let guard = self.mutex.lock();
        self.holder.store(me, Ordering::Relaxed);
        CoreGuard { guard, holder: &self.holder }
    }

    /// Whether the calling thread holds the lock.
    pub fn is_mine(&self) -> bool {
        self.holder.load(Ordering::Relaxed) == thread_token()
    }

    pub(crate) fn cell<T>(&self, value: T) -> MachineCell<T> {
        MachineCell(self.id.cell(value))
    }
}

/// The held machine lock; derefs to [`Locked`].
pub struct CoreGuard<'a> {
    guard: MutexGuard<'a, Locked>,
    holder: &'a AtomicUsize,
}

impl Deref for CoreGuard<'_> {
    type Target = Locked;
    fn deref(&self) -> &Locked {
        &self.guard
    }
}

impl DerefMut for CoreGuard<'_> {
    fn deref_mut(&mut self) -> &mut Locked {
        &mut self.guard
    }
}

impl Drop for CoreGuard<'_> {
    fn drop(&mut self) {
        self.holder.store(0, Ordering::Relaxed); // before the mutex is released, which happens when the field drops
    }
}

/// Device state under the machine lock.
pub struct MachineCell<T>(QCell<T>);

impl<T> MachineCell<T> {
    /// The state, to look at.
    ///
    /// # Panics
    /// When `m` is another machine's lock.
    pub fn ro<'a>(&'a self, m: &'a Locked) -> &'a T {
        m.owner.ro(&self.0)
    }

    /// The state, to change. While it is borrowed `m` cannot be used: nothing can be called with it.
    ///
    /// # Panics
    /// When `m` is another machine's lock.
    pub fn rw<'a>(&'a self, m: &'a mut Locked) -> &'a mut T {
        m.owner.rw(&self.0)
    }
}

impl<T> std::fmt::Debug for MachineCell<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MachineCell")
    }
}

/// Device state behind a small mutex of its own, for what vCPUs reach without the machine lock (the local APIC). Clones share the
/// state. Whoever locks it calls nobody else until it is released.
#[derive(Clone, Debug, Default)]
pub struct SharedCell<T>(Arc<Mutex<T>>);

impl<T> SharedCell<T> {
    /// The state.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock()
    }
}
