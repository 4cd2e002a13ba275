//! Monitors in the composition tree: types `monitor`, `monitor-qmp` and `monitor-hmp`, user-creatable objects below `/objects`. An object's
//! session belongs to it and ends with it. Not modelled: `close-action` other than `none`.

use super::{VmRef, hmp, qmp};
use crate::vm::Vm;
use parking_lot::Mutex;
use qom::{Base, Error, ObjRef, Prop, PropEnum, Result, UserCreatable};
use serde_json::{Map, Value};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What becomes of a monitor whose peer goes away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PropEnum)]
#[qom(name = "MonitorQMPCloseAction")]
pub enum CloseAction {
    /// It waits for the next one.
    #[default]
    None,
}

/// Type `monitor`.
#[derive(qom::Object)]
#[qom(name = "monitor", parent = Base, abstract, interfaces(dyn UserCreatable))]
pub struct Monitor {
    parent: Base,
    #[property(type = "string")]
    chardev: Prop<String>,
    session: Mutex<Option<Session>>,
    /// A command of this monitor is running.
    busy: Arc<AtomicBool>,
    vm: Mutex<VmRef>,
}

enum Session {
    Qmp(Arc<qmp::Session>),
    /// Kept for its life alone.
    Hmp(#[expect(dead_code, reason = "owns the session")] Arc<hmp::Session>),
}

impl Monitor {
    /// Lets the monitor speak on its character device.
    ///
    /// # Errors
    /// There is no such device, or it belongs to somebody else.
    fn start(&self, vm: &Arc<Vm>) -> Result<()> {
        let id = self.chardev.get();
        if id.is_empty() {
            return Err(Error::generic("Parameter 'chardev' is missing"));
        }
        let object = self.object();
        if object.cast::<MonitorHmp>().is_some_and(|h| !h.readline.get()) {
            return Err(Error::generic("'readline=off' is not supported: a human monitor edits its lines"));
        }
        let channel = chardev::find(vm.scope(), &id)?;
        let taken = |e: chardev::Error| Error::generic(e.to_string());
        *self.vm.lock() = Arc::downgrade(vm);
        let session = match object.cast::<MonitorQmp>() {
            Some(q) => {
                let session = qmp::Session::new(vm, &channel, q.pretty.get(), self.busy.clone()).map_err(taken)?;
                vm.monitors.qmp.lock().push(session.clone());
                Session::Qmp(session)
            }
            None => Session::Hmp(hmp::Session::new(vm, &channel).map_err(taken)?),
        };
        *self.session.lock() = Some(session);
        self.freeze();
        Ok(())
    }

    /// Ends the session; the character device is free again.
    pub(super) fn stop(&self) {
        let session = self.session.lock().take();
        if let (Some(Session::Qmp(s)), Some(vm)) = (&session, self.vm.lock().upgrade()) {
            vm.monitors.qmp.lock().retain(|o| !Arc::ptr_eq(o, s));
        }
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.stop();
    }
}

impl UserCreatable for Monitor {
    /// A human monitor stays, and nobody takes away the monitor that they speak on.
    fn can_be_deleted(&self) -> bool {
        self.is_a("monitor-qmp") && !self.busy.load(Ordering::Relaxed)
    }
}

/// Type `monitor-qmp`.
#[derive(qom::Object)]
#[qom(name = "monitor-qmp", parent = Monitor)]
pub struct MonitorQmp {
    parent: Monitor,
    #[property(name = "close-action")]
    close_action: Prop<CloseAction>,
    #[property]
    pretty: Prop<bool>,
}

/// Type `monitor-hmp`.
#[derive(qom::Object)]
#[qom(name = "monitor-hmp", parent = Monitor)]
pub struct MonitorHmp {
    parent: Monitor,
    #[property(default = true)]
    readline: Prop<bool>,
}

/// Creates a user's object; a monitor starts to speak.
///
/// # Errors
/// As [`qom::Scope::object_add`]; what the monitor says of its character device.
pub fn object_add(vm: &Arc<Vm>, type_name: &str, id: &str, props: &Map<String, Value>, text: bool) -> Result<ObjRef> {
    let object = vm.scope().object_add(type_name, id, props, text)?;
    if let Some(Err(e)) = object.cast::<Monitor>().map(|m| m.start(vm)) {
        object.unparent();
        return Err(e);
    }
    Ok(object)
}
