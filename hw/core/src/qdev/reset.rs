//! Three-phase reset along devices and buses: every `Enter` before any `Hold`, every `Hold` before any `Exit`; in each
//! phase children (of a device its buses, of a bus its devices) before parents.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::RwLock;
use qom::{ObjRef, Object};

use super::bus::Bus;
use super::device::Device;
use crate::locked::Locked;

/// A phase of a reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Own state to its reset values; nothing outside is touched.
    Enter,
    /// Lines are driven according to the new state.
    Hold,
    /// Work may start.
    Exit,
}

const COUNT: u32 = 0xffff;
const HOLD: u32 = 0x1_0000;

/// How often an object is in reset, and whether its hold phase is still to come. Changed under the machine lock.
#[derive(Debug, Default)]
pub struct ResetState(AtomicU32);

impl ResetState {
    /// Whether this phase is to be run now.
    fn step(&self, phase: Phase) -> bool {
        let s = self.0.load(Ordering::Relaxed);
        let (new, run) = match phase {
            Phase::Enter if s & COUNT == 0 => ((s + 1) | HOLD, true),
            Phase::Enter => (s + 1, false),
            Phase::Hold => (s & !HOLD, s & HOLD != 0),
            Phase::Exit => (s.saturating_sub(1), s & COUNT == 1),
        };
        self.0.store(new, Ordering::Relaxed);
        run
    }

    /// Whether a reset is in progress.
    pub fn in_reset(&self) -> bool {
        self.0.load(Ordering::Relaxed) & COUNT != 0
    }
}

/// One phase for an object and what is below it.
fn phase_of(o: &ObjRef, m: &mut Locked, phase: Phase) {
    if let Some(d) = o.cast::<Device>() {
        for bus in d.child_buses() {
            phase_of(&bus, m, phase);
        }
        if d.reset_state().step(phase) {
            (d.class_of().reset)(&**o, m, phase);
        }
    } else if let Some(b) = o.cast::<Bus>() {
        for (_, dev) in b.devices() {
            phase_of(&dev, m, phase);
        }
        if b.reset_state().step(phase) {
            (b.class_of().reset)(&**o, m, phase);
        }
    }
}

/// Resets a device or bus with everything below it.
pub fn reset_object(o: &ObjRef, m: &mut Locked) {
    for phase in [Phase::Enter, Phase::Hold, Phase::Exit] {
        phase_of(o, m, phase);
    }
}

/// Resets all devices below `root` in the composition tree, each with its buses, whether on a bus or not.
pub fn reset_all(root: &ObjRef, m: &mut Locked) {
    let mut devices = vec![];
    root.walk(&mut |o| {
        let on_bus = o.cast::<Device>().is_none_or(|d| d.bus().is_some());
        if !on_bus || o.cast::<Bus>().is_some_and(|b| b.parent_device().is_none()) {
            devices.push(o.clone());
        }
    });
    for phase in [Phase::Enter, Phase::Hold, Phase::Exit] {
        devices.iter().for_each(|d| phase_of(d, m, phase));
    }
}

type Hook = Arc<dyn Fn(&mut Locked) + Send + Sync>;

#[derive(Clone)]
enum Entry {
    Object(Weak<dyn Object>),
    /// A function, called in the hold phase.
    Call(Hook),
}

/// What a system reset resets, in the order it was registered.
#[derive(Default)]
pub struct ResetList(RwLock<Vec<Entry>>);

impl ResetList {
    /// A device or bus with everything below it.
    pub fn add(&self, o: &ObjRef) {
        self.0.write().push(Entry::Object(Arc::downgrade(o)));
    }

    /// Takes an object out again.
    pub fn remove(&self, o: &ObjRef) {
        self.0.write().retain(|e| !matches!(e, Entry::Object(w) if w.ptr_eq(&Arc::downgrade(o))));
    }

    /// A function, called in the hold phase.
    pub fn add_hook(&self, f: impl Fn(&mut Locked) + Send + Sync + 'static) {
        self.0.write().push(Entry::Call(Arc::new(f)));
    }

    /// Resets everything on the list. vCPUs are paused.
    pub fn run(&self, m: &mut Locked) {
        let all = self.0.read().clone();
        for phase in [Phase::Enter, Phase::Hold, Phase::Exit] {
            for e in &all {
                match e {
                    Entry::Object(w) => {
                        if let Some(o) = w.upgrade() {
                            phase_of(&o, m, phase);
                        }
                    }
                    Entry::Call(f) if phase == Phase::Hold => f(m),
                    Entry::Call(_) => {}
                }
            }
        }
        self.0.write().retain(|e| !matches!(e, Entry::Object(w) if w.strong_count() == 0));
    }

    pub(crate) fn clear(&self) {
        let old = std::mem::take(&mut *self.0.write());
        drop(old);
    }
}
