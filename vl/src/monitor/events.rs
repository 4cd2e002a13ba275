//! QMP events: which there are, when they happened, how often they are sent.

use super::commands::jobs::{JOB_STATUS, JOB_TYPE};
use super::commands::networks::ADDRESS;
use super::schema::{Entity, Member, Ty, opt, req};
use crate::vm::Vm;
use hw_core::event_loop::HostTimer;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const CAUSE: Ty = Ty::Enum(&[
    "none",
    "host-error",
    "host-qmp-quit",
    "host-qmp-system-reset",
    "host-signal",
    "host-ui",
    "guest-shutdown",
    "guest-reset",
    "guest-panic",
    "subsystem-reset",
    "snapshot-load",
]);

pub(crate) const OST: &[Member] = &[
    opt("device", Ty::Str),
    req("slot", Ty::Str),
    req("slot-type", Ty::Enum(&["DIMM", "CPU"])),
    req("source", Ty::Int),
    req("status", Ty::Int),
];

/// Data of the events that a job has come to something.
macro_rules! block_job {
    ($($more:expr),*) => {
        &[
            req("type", JOB_TYPE),
            req("device", Ty::Str),
            req("len", Ty::Int),
            req("offset", Ty::Int),
            req("speed", Ty::Int),
            $($more),*
        ]
    };
}

const PANIC_ACTION: Ty = Ty::Enum(&["pause", "poweroff", "run"]);
const WATCHDOG_ACTION: Ty = Ty::Enum(&["reset", "shutdown", "poweroff", "pause", "debug", "none", "inject-nmi"]);

/// One event.
pub struct EventDef {
    /// Name.
    pub name: &'static str,
    /// Data.
    pub data: &'static [Member],
    /// At most one in this many milliseconds; the last one of a burst is sent late.
    pub throttle_ms: u64,
    /// Member of the data whose values are throttled each for itself.
    pub throttle_by: Option<&'static str>,
}

const fn event(name: &'static str, data: &'static [Member]) -> EventDef {
    EventDef { name, data, throttle_ms: 0, throttle_by: None }
}

/// An event of which there is at most one a second.
const fn throttled(name: &'static str, data: &'static [Member], by: Option<&'static str>) -> EventDef {
    EventDef { name, data, throttle_ms: 1000, throttle_by: by }
}

/// Every event this program sends.
pub static EVENTS: &[EventDef] = &[
    event("ACPI_DEVICE_OST", &[req("info", Ty::Object(OST))]),
    throttled("BALLOON_CHANGE", &[req("actual", Ty::Int)], None),
    event(
        "BLOCK_IO_ERROR",
        &[
            req("qom-path", Ty::Str),
            req("device", Ty::Str),
            opt("node-name", Ty::Str),
            req("operation", Ty::Enum(&["read", "write"])),
            req("action", Ty::Enum(&["ignore", "report", "stop"])),
            opt("nospace", Ty::Bool),
            req("reason", Ty::Str),
        ],
    ),
    event(
        "BLOCK_IMAGE_CORRUPTED",
        &[
            req("device", Ty::Str),
            opt("node-name", Ty::Str),
            req("msg", Ty::Str),
            opt("offset", Ty::Int),
            opt("size", Ty::Int),
            req("fatal", Ty::Bool),
        ],
    ),
    event("BLOCK_JOB_CANCELLED", block_job!()),
    event("BLOCK_JOB_COMPLETED", block_job!(opt("error", Ty::Str))),
    event(
        "BLOCK_JOB_ERROR",
        &[
            req("device", Ty::Str),
            req("operation", Ty::Enum(&["read", "write"])),
            req("action", Ty::Enum(&["ignore", "report", "stop"])),
        ],
    ),
    event("BLOCK_JOB_PENDING", &[req("type", JOB_TYPE), req("id", Ty::Str)]),
    event("BLOCK_JOB_READY", block_job!()),
    event("DEVICE_TRAY_MOVED", &[req("device", Ty::Str), req("id", Ty::Str), req("tray-open", Ty::Bool)]),
    event("DEVICE_DELETED", &[opt("device", Ty::Str), req("path", Ty::Str)]),
    event("GUEST_CRASHLOADED", &[req("action", PANIC_ACTION)]),
    event("GUEST_PANICKED", &[req("action", PANIC_ACTION)]),
    event("GUEST_PVSHUTDOWN", &[]),
    event("JOB_STATUS_CHANGE", &[req("id", Ty::Str), req("status", JOB_STATUS)]),
    event("NETDEV_STREAM_CONNECTED", &[req("netdev-id", Ty::Str), req("addr", ADDRESS)]),
    event("NETDEV_STREAM_DISCONNECTED", &[req("netdev-id", Ty::Str)]),
    event("NIC_RX_FILTER_CHANGED", &[opt("name", Ty::Str), req("path", Ty::Str)]),
    event("POWERDOWN", &[]),
    event("RESET", &[req("guest", Ty::Bool), req("reason", CAUSE)]),
    event("RESUME", &[]),
    throttled("RTC_CHANGE", &[req("offset", Ty::Int), req("qom-path", Ty::Str)], None),
    event("SHUTDOWN", &[req("guest", Ty::Bool), req("reason", CAUSE)]),
    event("STOP", &[]),
    event("SUSPEND", &[]),
    event("SUSPEND_DISK", &[]),
    throttled("VSERPORT_CHANGE", &[req("id", Ty::Str), req("open", Ty::Bool)], Some("id")),
    event("WAKEUP", &[]),
    event("WATCHDOG", &[req("action", WATCHDOG_ACTION)]),
];

/// Events as introspection shows them.
pub fn entities() -> impl Iterator<Item = Entity> {
    EVENTS.iter().map(|e| Entity {
        meta: "event",
        name: e.name,
        args: e.data,
        union: None,
        ret: None,
        features: &[],
        oob: false,
    })
}

#[derive(Default)]
struct Throttle {
    /// Came while waiting; only the last is kept.
    last: Option<Value>,
    /// Ends the wait; held so that it is not cancelled.
    _timer: Option<HostTimer>,
}

/// What is throttled together: an event's name, and the value of the member that says which of several.
type Burst = (&'static str, Option<String>);

/// Bursts in progress.
#[derive(Default)]
pub struct Events {
    waiting: Mutex<HashMap<Burst, Throttle>>,
}

/// The event as it is sent; the time is now.
fn stamped(name: &str, data: Value) -> Value {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut v = json!({"timestamp": {"seconds": now.as_secs(), "microseconds": now.subsec_micros()}, "event": name});
    if let (Some(map), false) = (v.as_object_mut(), data.as_object().is_none_or(|d| d.is_empty())) {
        map.insert("data".into(), data);
    }
    v
}

impl Vm {
    /// Sends event `name` with `data` to all QMP monitors, or later if it comes too often. From any thread.
    pub fn emit(self: &Arc<Self>, name: &'static str, data: Value) {
        let def = EVENTS.iter().find(|e| e.name == name);
        let which = def.and_then(|d| d.throttle_by).and_then(|key| Some(data.get(key)?.to_string()));
        let event = stamped(name, data);
        let wait = def.map_or(0, |e| e.throttle_ms);
        if wait > 0 {
            let burst = (name, which);
            let mut waiting = self.monitors.events.waiting.lock();
            if let Some(t) = waiting.get_mut(&burst) {
                t.last = Some(event);
                return;
            }
            let _timer = Some(self.throttle_timer(burst.clone(), wait));
            waiting.insert(burst, Throttle { last: None, _timer });
        }
        self.monitors.broadcast(&event);
    }

    fn throttle_timer(self: &Arc<Self>, burst: Burst, wait: u64) -> HostTimer {
        let vm = Arc::downgrade(self);
        self.events.after(Duration::from_millis(wait), move || {
            let Some(vm) = vm.upgrade() else { return };
            let last = {
                let mut waiting = vm.monitors.events.waiting.lock();
                let last = waiting.get_mut(&burst).and_then(|t| t.last.take());
                match &last {
                    Some(_) => {
                        let _timer = Some(vm.throttle_timer(burst.clone(), wait));
                        drop(waiting.insert(burst.clone(), Throttle { last: None, _timer }));
                    }
                    None => drop(waiting.remove(&burst)),
                }
                last
            };
            if let Some(event) = last {
                vm.monitors.broadcast(&event);
            }
        })
    }
}
