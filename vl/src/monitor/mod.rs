//! Monitors: QMP for programs, HMP for people, on any character device.

pub mod commands;
pub mod error;
pub mod events;
pub mod hmp;
pub mod qmp;
mod readline;
pub mod schema;

pub use error::{QmpError, QmpResult};
pub use events::Events;

use crate::vm::Vm;
use parking_lot::Mutex;
use serde_json::Value;
use std::sync::{Arc, Weak};

/// All monitors of one machine.
#[derive(Default)]
pub struct Monitors {
    qmp: Mutex<Vec<Arc<qmp::Session>>>,
    hmp: Mutex<Vec<Arc<hmp::Session>>>,
    /// Event throttling.
    pub events: Events,
}

impl Monitors {
    /// Adds a QMP monitor on `channel`.
    ///
    /// # Errors
    /// When the channel belongs to somebody else.
    pub fn add_qmp(&self, vm: &Arc<Vm>, channel: &Arc<chardev::Channel>, pretty: bool) -> chardev::Result<()> {
        let session = qmp::Session::new(vm, channel, pretty)?;
        self.qmp.lock().push(session);
        Ok(())
    }

    /// Adds a human monitor on `channel`.
    ///
    /// # Errors
    /// When the channel belongs to somebody else.
    pub fn add_hmp(&self, vm: &Arc<Vm>, channel: &Arc<chardev::Channel>) -> chardev::Result<()> {
        let session = hmp::Session::new(vm, channel)?;
        self.hmp.lock().push(session);
        Ok(())
    }

    /// Sends `event` to every QMP monitor that finished its negotiation.
    pub(crate) fn broadcast(&self, event: &Value) {
        let sessions: Vec<_> = self.qmp.lock().clone();
        for s in sessions {
            s.send_event(event);
        }
    }

    /// Ends all monitors; their channels are free again.
    pub fn close(&self) {
        let gone = (std::mem::take(&mut *self.qmp.lock()), std::mem::take(&mut *self.hmp.lock()));
        drop(gone);
    }
}

/// What a session keeps of its machine.
pub(crate) type VmRef = Weak<Vm>;
