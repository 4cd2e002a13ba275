//! Who is told when something happens to the whole machine.

use std::sync::Arc;

use parking_lot::RwLock;
use qom::Level;

use crate::locked::Locked;
use crate::request::{RunState, WakeupReason};

type Callback<A> = Arc<dyn Fn(&mut Locked, &A) -> bool + Send + Sync>;

/// A list of callbacks, called in the order they were added, under the machine lock.
pub struct Notifiers<A>(RwLock<Vec<Callback<A>>>);

impl<A> Default for Notifiers<A> {
    fn default() -> Self {
        Self(RwLock::default())
    }
}

impl<A: 'static> Notifiers<A> {
    /// Calls `f` each time.
    pub fn add(&self, f: impl Fn(&mut Locked, &A) + Send + Sync + 'static) {
        self.0.write().push(Arc::new(move |m, a| {
            f(m, a);
            true
        }));
    }

    /// Calls `f` on `object` each time, as long as it lives.
    pub fn add_for<T: Level>(&self, object: &T, f: fn(&T, &mut Locked, &A)) {
        let handle = object.this();
        self.0.write().push(Arc::new(move |m, a| handle.with(|o| f(o, m, a)).is_some()));
    }

    /// Tells everybody; forgets those whose object is gone.
    pub fn notify(&self, m: &mut Locked, a: &A) {
        let all = self.0.read().clone();
        let gone: Vec<Callback<A>> = all.into_iter().filter(|f| !f(m, a)).collect();
        if !gone.is_empty() {
            self.0.write().retain(|f| !gone.iter().any(|g| Arc::ptr_eq(f, g)));
        }
    }

    fn clear(&self) {
        let old = std::mem::take(&mut *self.0.write());
        drop(old); // without the lock: captured objects go with it
    }
}

/// Run state of the vCPUs, as `vm_state` listeners see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VmState {
    /// Whether vCPUs run.
    pub running: bool,
    /// The new state.
    pub state: RunState,
}

/// A device that is gone, as `device_deleted` listeners see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeletedDevice {
    /// The user's name for it.
    pub id: Option<String>,
    /// Its canonical path.
    pub path: String,
}

/// The machine's notifier lists.
#[derive(Default)]
pub struct Events {
    /// Something the user should know, without `warning:` in front.
    pub warning: Notifiers<String>,
    /// The power button was pressed.
    pub powerdown: Notifiers<()>,
    /// The guest is going to sleep.
    pub suspend: Notifiers<()>,
    /// The guest's sleep ends, and why.
    pub wakeup: Notifiers<WakeupReason>,
    /// Board and command line devices are complete, before the first reset.
    pub machine_ready: Notifiers<()>,
    /// vCPUs start or stop.
    pub vm_state: Notifiers<VmState>,
    /// A realized device was taken out of the machine.
    pub device_deleted: Notifiers<DeletedDevice>,
    /// The process ends in order.
    pub exit: Notifiers<()>,
}

impl Events {
    pub(crate) fn clear(&self) {
        self.warning.clear();
        self.warning.clear();
        self.powerdown.clear();
        self.suspend.clear();
        self.wakeup.clear();
        self.machine_ready.clear();
        self.vm_state.clear();
        self.device_deleted.clear();
        self.exit.clear();
    }
}
