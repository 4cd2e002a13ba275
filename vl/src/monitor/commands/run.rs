//! Commands about the machine's life: start, stop, reset, power, end.

use super::{Args, Command, command};
use crate::monitor::error::{QmpError, QmpResult};
use crate::monitor::schema::{Ty, opt, req};
use crate::vm::Vm;
use hw_core::{Request, RunState, ShutdownCause, WakeupReason};
use serde_json::json;
use std::sync::Arc;

const RUN_STATE: Ty = Ty::Enum(&[
    "debug",
    "inmigrate",
    "internal-error",
    "io-error",
    "paused",
    "postmigrate",
    "prelaunch",
    "finish-migrate",
    "restore-vm",
    "running",
    "save-vm",
    "shutdown",
    "suspended",
    "watchdog",
    "guest-panicked",
    "colo",
]);
const WATCHDOG: &[&str] = &["reset", "shutdown", "poweroff", "pause", "debug", "none", "inject-nmi"];
const PANIC: &[&str] = &["pause", "shutdown", "exit-failure", "none"];

pub(super) static COMMANDS: &[Command] = &[
    command("query-status", &[], Some(Ty::Object(&[req("running", Ty::Bool), req("status", RUN_STATE)])), |vm, _| {
        let state = vm.state();
        Ok(json!({"running": state == RunState::Running, "status": state.name()}))
    }),
    command("query-name", &[], Some(Ty::Object(&[opt("name", Ty::Str)])), |vm, _| {
        Ok(vm.name().map_or_else(|| json!({}), |n| json!({"name": n})))
    }),
    command("query-uuid", &[], Some(Ty::Object(&[req("UUID", Ty::Str)])), |vm, _| {
        Ok(json!({"UUID": vm.options.uuid.as_deref().unwrap_or("00000000-0000-0000-0000-000000000000")}))
    }),
    command("stop", &[], None, |vm, _| {
        vm.stop(RunState::Paused);
        Ok(json!({}))
    }),
    command("cont", &[], None, |vm, _| cont(vm)),
    command("system_reset", &[], None, |vm, _| post(vm, Request::Reset(ShutdownCause::HostQmpSystemReset))),
    command("system_powerdown", &[], None, |vm, _| post(vm, Request::Powerdown)),
    command("system_wakeup", &[], None, |vm, _| {
        if vm.state() != RunState::Suspended {
            return Err(QmpError::generic("Unable to wake up: guest is not in suspended state"));
        }
        post(vm, Request::Wakeup(WakeupReason::Other))
    }),
    command("quit", &[], None, |vm, _| {
        vm.quit(ShutdownCause::HostQmpQuit);
        Ok(json!({}))
    }),
    command(
        "set-action",
        &[
            opt("reboot", Ty::Enum(&["reset", "shutdown"])),
            opt("shutdown", Ty::Enum(&["poweroff", "pause"])),
            opt("panic", Ty::Enum(PANIC)),
            opt("watchdog", Ty::Enum(WATCHDOG)),
        ],
        None,
        set_action,
    ),
    command("watchdog-set-action", &[req("action", Ty::Enum(WATCHDOG))], None, |vm, args| {
        vm.action.lock().watchdog = word(WATCHDOG, args.opt_str("action")).unwrap_or("reset");
        Ok(json!({}))
    }),
];

fn post(vm: &Vm, request: Request) -> QmpResult {
    vm.core().requests.post(request);
    Ok(json!({}))
}

/// `cont`, also for the human monitor.
pub(crate) fn cont(vm: &Arc<Vm>) -> QmpResult {
    if vm.needs_reset() {
        return Err(QmpError::generic("Resetting the Virtual Machine is required"));
    }
    vm.resume();
    Ok(json!({}))
}

/// The table's own copy of a word.
fn word(words: &'static [&'static str], given: Option<&str>) -> Option<&'static str> {
    words.iter().find(|w| Some(**w) == given).copied()
}

fn set_action(vm: &Arc<Vm>, args: Args<'_>) -> QmpResult {
    let mut a = vm.action.lock();
    a.reboot = word(&["reset", "shutdown"], args.opt_str("reboot")).unwrap_or(a.reboot);
    a.shutdown = word(&["poweroff", "pause"], args.opt_str("shutdown")).unwrap_or(a.shutdown);
    a.panic = word(PANIC, args.opt_str("panic")).unwrap_or(a.panic);
    a.watchdog = word(WATCHDOG, args.opt_str("watchdog")).unwrap_or(a.watchdog);
    Ok(json!({}))
}
