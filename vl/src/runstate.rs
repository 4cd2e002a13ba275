//! Run state: starting and stopping the vCPUs, and the main loop that serves what the machine asks for.

use crate::vm::Vm;
use hw::misc::guest_events::{GuestEvent, inject_nmi};
use hw_core::events::VmState;
use hw_core::{Request, RunState, ShutdownCause, WakeupReason};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

fn cause_data(cause: ShutdownCause) -> Value {
    json!({"guest": cause.is_guest(), "reason": cause.name()})
}

impl Vm {
    /// The machine's run state.
    pub fn state(&self) -> RunState {
        self.core().requests.state()
    }

    /// Whether time passes for the guest (a sleeping guest's does).
    fn is_live(&self) -> bool {
        matches!(self.state(), RunState::Running | RunState::Suspended)
    }

    /// `cont`: lets the vCPUs run. Nothing happens if they do.
    pub fn resume(self: &Arc<Self>) {
        if self.is_live() {
            return;
        }
        let core = self.core();
        let state = if self.slept.swap(false, Ordering::SeqCst) { RunState::Suspended } else { RunState::Running };
        core.requests.set_state(state);
        core.clocks.start();
        core.events.vm_state.notify(&mut core.lock(), &VmState { running: true, state });
        if state == RunState::Running {
            core.cpus.resume_all();
        }
        self.emit("RESUME", json!({}));
    }

    /// `stop`: parks the vCPUs and goes to `state`. Nothing happens to a machine that is stopped already.
    pub fn stop(self: &Arc<Self>, state: RunState) {
        if !self.is_live() {
            return;
        }
        let core = self.core();
        self.slept.store(self.state() == RunState::Suspended, Ordering::SeqCst);
        core.cpus.pause_all(core);
        core.clocks.stop();
        // What the guest has asked of its drives is done and stable before anybody hears that it stopped.
        self.blocks.drain();
        self.blocks.flush_all();
        core.requests.set_state(state);
        core.events.vm_state.notify(&mut core.lock(), &VmState { running: false, state });
        self.emit("STOP", json!({}));
    }

    /// Whether only a reset can let the machine go on.
    pub fn needs_reset(&self) -> bool {
        matches!(self.state(), RunState::Shutdown | RunState::InternalError)
    }

    /// Ends the machine at the next round of the main loop, `-no-shutdown` or not.
    pub fn quit(&self, cause: ShutdownCause) {
        self.action.lock().shutdown = "poweroff";
        self.core().requests.post(Request::Shutdown(cause));
    }

    /// Runs the main loop until the machine ends; the status to end the process with.
    pub fn run(self: &Arc<Self>) -> i32 {
        loop {
            if let Some(status) = self.turn(None) {
                return status;
            }
        }
    }

    /// One round of the main loop: waits at most `limit`, then timers, then requests. Some: the machine has ended.
    pub fn turn(self: &Arc<Self>, limit: Option<Duration>) -> Option<i32> {
        if let Some(status) = *self.exit.lock() {
            return Some(status);
        }
        let core = self.core();
        let timers = core.clocks.next_deadline().map(Duration::from_nanos);
        self.events.run_once(limit.into_iter().chain(timers).min());
        if core.clocks.next_deadline() == Some(0) {
            core.clocks.run_expired(&mut core.lock());
        }
        while let Some(request) = core.requests.take() {
            self.serve(request);
            if let Some(status) = *self.exit.lock() {
                return Some(status);
            }
        }
        None
    }

    fn serve(self: &Arc<Self>, request: Request) {
        match request {
            Request::Debug => self.stop(RunState::Debug),
            Request::Suspend => self.suspend(),
            Request::Shutdown(cause) => self.shut_down(cause),
            Request::Reset(cause) => {
                // -no-reboot turns every reset of the whole machine into an end.
                let reboots = self.action.lock().reboot == "reset" || cause == ShutdownCause::SubsystemReset;
                if reboots { self.reset(cause) } else { self.shut_down(cause) }
            }
            Request::Wakeup(reason) => self.wake_up(reason),
            Request::Powerdown => self.power_down(),
            Request::Stop(state) => self.stop(state),
            Request::InternalError(what) => self.internal_error(&what),
        }
    }

    /// Runs `f` with the vCPUs parked.
    pub fn parked<R>(&self, f: impl FnOnce() -> R) -> R {
        let core = self.core();
        let running = !core.cpus.are_paused();
        if running {
            core.cpus.pause_all(core);
        }
        let result = f();
        if running {
            core.cpus.resume_all();
        }
        result
    }

    /// The guest, or a watchdog, said something: what the user wants then (`-action`). Called with the machine locked.
    pub(crate) fn guest_event(self: &Arc<Self>, event: GuestEvent) {
        let requests = &self.core().requests;
        let (panic, shutdown, watchdog) = {
            let a = self.action.lock();
            (a.panic, a.shutdown, a.watchdog)
        };
        match event {
            GuestEvent::CrashLoaded => self.emit("GUEST_CRASHLOADED", json!({"action": "run"})),
            GuestEvent::PvShutdown => {
                self.emit("GUEST_PVSHUTDOWN", json!({}));
                requests.post(Request::Shutdown(ShutdownCause::GuestShutdown));
            }
            GuestEvent::Panicked => match panic {
                "shutdown" | "exit-failure" if panic == "exit-failure" || shutdown != "pause" => {
                    self.emit("GUEST_PANICKED", json!({"action": "poweroff"}));
                    requests.post(Request::Stop(RunState::GuestPanicked));
                    requests.post(Request::Shutdown(ShutdownCause::GuestPanic));
                }
                "pause" | "shutdown" => {
                    self.emit("GUEST_PANICKED", json!({"action": "pause"}));
                    requests.post(Request::Stop(RunState::GuestPanicked));
                }
                _ => self.emit("GUEST_PANICKED", json!({"action": "run"})),
            },
            GuestEvent::Watchdog => {
                self.emit("WATCHDOG", json!({"action": watchdog}));
                match watchdog {
                    "reset" => requests.post(Request::Reset(ShutdownCause::GuestReset)),
                    "shutdown" => requests.post(Request::Powerdown),
                    "poweroff" => *self.exit.lock() = Some(0),
                    "pause" => requests.post(Request::Stop(RunState::Watchdog)),
                    "debug" => self.report.say("watchdog: timer fired"),
                    "inject-nmi" => inject_nmi(self.core()),
                    _ => {}
                }
                requests.wake();
            }
        }
    }

    fn suspend(self: &Arc<Self>) {
        if self.state() == RunState::Suspended {
            return;
        }
        let core = self.core();
        core.cpus.pause_all(core);
        core.events.suspend.notify(&mut core.lock(), &());
        core.requests.set_state(RunState::Suspended);
        self.emit("SUSPEND", json!({}));
    }

    fn wake_up(self: &Arc<Self>, reason: WakeupReason) {
        let core = self.core();
        if self.state() != RunState::Suspended {
            return;
        }
        core.requests.set_state(RunState::Running);
        {
            let m = &mut core.lock();
            // Waking from S3 resets the machine; firmware finds out why it runs and jumps to the guest's vector.
            core.events.wakeup.notify(m, &reason);
            if let Some(machine) = self.machine() {
                machine.reset(m, ShutdownCause::SubsystemReset);
            }
        }
        core.cpus.resume_all();
        self.emit("WAKEUP", json!({}));
    }

    fn shut_down(self: &Arc<Self>, cause: ShutdownCause) {
        self.emit("SHUTDOWN", cause_data(cause));
        let (pause, failed) = {
            let a = self.action.lock();
            (a.shutdown == "pause", cause == ShutdownCause::GuestPanic && a.panic == "exit-failure")
        };
        if pause {
            self.stop(RunState::Shutdown);
        } else {
            let status = match self.core().requests.exit_status() {
                0 => i32::from(failed || cause == ShutdownCause::HostError),
                chosen => chosen, // by the guest: isa-debug-exit
            };
            *self.exit.lock() = Some(status);
        }
    }

    /// Resets the machine now. `cause` [`ShutdownCause::None`]: the silent reset of start-up.
    pub(crate) fn reset(self: &Arc<Self>, cause: ShutdownCause) {
        let core = self.core().clone();
        self.parked(|| {
            self.blocks.drain();
            if let Some(machine) = self.machine() {
                machine.reset(&mut core.lock(), cause);
            }
        });
        self.slept.store(false, Ordering::SeqCst);
        if !matches!(cause, ShutdownCause::None | ShutdownCause::SubsystemReset) {
            self.emit("RESET", cause_data(cause));
        }
        if self.state() != RunState::Running {
            core.requests.set_state(RunState::PreLaunch);
        }
    }

    fn power_down(self: &Arc<Self>) {
        self.emit("POWERDOWN", json!({}));
        let core = self.core();
        core.events.powerdown.notify(&mut core.lock(), &());
    }

    /// A bug of ours: everything useful on standard error, then the end.
    fn internal_error(self: &Arc<Self>, what: &str) {
        self.report.say(&format!("internal error: {what}"));
        self.stop(RunState::InternalError);
        for cpu in self.core().cpus.list() {
            self.report.say(&format!("CPU#{}\n{}", cpu.index().unwrap_or(0), (cpu.cpu_class().dump_state)(&cpu)));
        }
        *self.exit.lock() = Some(1);
    }
}
