//! Monitors: QMP for programs, HMP for people, on any character device.

pub mod commands;
pub mod error;
pub mod events;
pub mod hmp;
mod jit;
pub mod object;
pub mod qmp;
mod readline;
pub mod schema;

pub use error::{QmpError, QmpResult};
pub use events::Events;

use crate::vm::Vm;
use parking_lot::Mutex;
use qom::Scope;
use serde_json::Value;
use std::sync::{Arc, Weak};

/// All monitors of one machine. They are objects below `/objects`, see [`object`].
#[derive(Default)]
pub struct Monitors {
    qmp: Mutex<Vec<Arc<qmp::Session>>>,
    /// Event throttling.
    pub events: Events,
}

impl Monitors {
    /// Sends `event` to every QMP monitor that finished its negotiation.
    pub(crate) fn broadcast(&self, event: &Value) {
        let sessions: Vec<_> = self.qmp.lock().clone();
        for s in sessions {
            s.send_event(event);
        }
    }

    /// Ends all monitors of `scope`'s machine; their channels are free again.
    pub fn close(&self, scope: &Arc<Scope>) {
        let objects = scope.container("/objects").map(|o| o.children()).unwrap_or_default();
        objects.iter().filter_map(|(_, o)| o.cast::<object::Monitor>()).for_each(object::Monitor::stop);
    }
}

/// What a session keeps of its machine.
pub(crate) type VmRef = Weak<Vm>;
