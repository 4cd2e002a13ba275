//! What leaves the machine: run states, and the requests that devices and vCPUs make of the main loop
//! (names after QEMU's `run-state.json`). Requests only set a flag and wake the main loop; it serves them in the order
//! of [`Requests::take`].

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU8, AtomicU32, Ordering};

use parking_lot::{Mutex, RwLock};

/// `RunState` of QMP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum RunState {
    /// A debugger stopped the machine.
    Debug,
    /// Waiting for an incoming state.
    InMigrate,
    /// Stopped because of an internal error.
    InternalError,
    /// Stopped by a host I/O error.
    IoError,
    /// Stopped by `stop`.
    Paused,
    /// The state has been sent away.
    PostMigrate,
    /// `-S`, not started yet.
    PreLaunch,
    /// Sending the last part of the state.
    FinishMigrate,
    /// A snapshot is being loaded.
    RestoreVm,
    /// vCPUs run.
    Running,
    /// A snapshot is being saved.
    SaveVm,
    /// Shut down with `-no-shutdown`.
    Shutdown,
    /// The guest sleeps (ACPI S3).
    Suspended,
    /// The watchdog expired and its action is pause.
    Watchdog,
    /// The guest reported a panic.
    GuestPanicked,
    /// COLO state.
    Colo,
}

impl RunState {
    const ALL: [(RunState, &'static str); 16] = [
        (RunState::Debug, "debug"),
        (RunState::InMigrate, "inmigrate"),
        (RunState::InternalError, "internal-error"),
        (RunState::IoError, "io-error"),
        (RunState::Paused, "paused"),
        (RunState::PostMigrate, "postmigrate"),
        (RunState::PreLaunch, "prelaunch"),
        (RunState::FinishMigrate, "finish-migrate"),
        (RunState::RestoreVm, "restore-vm"),
        (RunState::Running, "running"),
        (RunState::SaveVm, "save-vm"),
        (RunState::Shutdown, "shutdown"),
        (RunState::Suspended, "suspended"),
        (RunState::Watchdog, "watchdog"),
        (RunState::GuestPanicked, "guest-panicked"),
        (RunState::Colo, "colo"),
    ];

    /// QMP's name.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(s, _)| *s == self).map_or("", |(_, n)| n)
    }

    fn from_u8(v: u8) -> RunState {
        Self::ALL.iter().find(|(s, _)| *s as u8 == v).map_or(RunState::InternalError, |(s, _)| *s)
    }
}

/// `ShutdownCause` of QMP: why the machine stops or resets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShutdownCause {
    /// No request pending.
    None,
    /// An error on the host.
    HostError,
    /// QMP `quit`.
    HostQmpQuit,
    /// QMP `system_reset`.
    HostQmpSystemReset,
    /// SIGINT, SIGTERM or SIGHUP.
    HostSignal,
    /// The user interface's close button.
    HostUi,
    /// The guest switched itself off (ACPI).
    GuestShutdown,
    /// The guest reset itself (0x64, 0x92, 0xcf9, triple fault …).
    GuestReset,
    /// The guest reported a panic.
    GuestPanic,
    /// Part of the machine resets.
    SubsystemReset,
    /// A snapshot is being loaded.
    SnapshotLoad,
}

impl ShutdownCause {
    /// QMP's name.
    pub fn name(self) -> &'static str {
        match self {
            ShutdownCause::None => "none",
            ShutdownCause::HostError => "host-error",
            ShutdownCause::HostQmpQuit => "host-qmp-quit",
            ShutdownCause::HostQmpSystemReset => "host-qmp-system-reset",
            ShutdownCause::HostSignal => "host-signal",
            ShutdownCause::HostUi => "host-ui",
            ShutdownCause::GuestShutdown => "guest-shutdown",
            ShutdownCause::GuestReset => "guest-reset",
            ShutdownCause::GuestPanic => "guest-panic",
            ShutdownCause::SubsystemReset => "subsystem-reset",
            ShutdownCause::SnapshotLoad => "snapshot-load",
        }
    }

    /// Whether the guest, not the host, is the cause.
    pub fn is_guest(self) -> bool {
        matches!(self, Self::GuestShutdown | Self::GuestReset | Self::GuestPanic | Self::SubsystemReset)
    }
}

/// What ends a guest's sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum WakeupReason {
    /// No reason recorded.
    None,
    /// The RTC alarm.
    Rtc,
    /// The ACPI PM timer.
    PmTimer,
    /// Key press, monitor command and the like.
    Other,
}

/// A request of the main loop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// A vCPU stopped for the debugger.
    Debug,
    /// Sleep (ACPI S3).
    Suspend,
    /// End the machine.
    Shutdown(ShutdownCause),
    /// Reset the machine.
    Reset(ShutdownCause),
    /// End the guest's sleep; ignored unless it sleeps and the reason is enabled.
    Wakeup(WakeupReason),
    /// Press the power button.
    Powerdown,
    /// Stop the vCPUs and go to this state.
    Stop(RunState),
    /// A bug of ours was met: dump and stop with status 1. The text says where.
    InternalError(String),
}

#[derive(Default)]
struct Pending {
    debug: bool,
    suspend: bool,
    shutdown: Option<ShutdownCause>,
    reset: Option<ShutdownCause>,
    wakeup: Option<WakeupReason>,
    powerdown: bool,
    stop: Option<RunState>,
    internal_error: Option<String>,
}

type Hook = Arc<dyn Fn() + Send + Sync>;

/// The queue of requests: at most one of a kind is pending, the last one wins.
pub struct Requests {
    pending: Mutex<Pending>,
    hook: RwLock<Option<Hook>>,
    state: AtomicU8,
    wakeup_mask: AtomicU32,
    exit_status: AtomicI32,
}

impl Default for Requests {
    fn default() -> Self {
        Self {
            pending: Mutex::default(),
            hook: RwLock::default(),
            state: AtomicU8::new(RunState::PreLaunch as u8),
            wakeup_mask: AtomicU32::new(u32::MAX),
            exit_status: AtomicI32::new(0),
        }
    }
}

impl Requests {
    /// Sets what wakes the main loop (an event descriptor); called after each request, from any thread.
    pub fn set_hook(&self, hook: impl Fn() + Send + Sync + 'static) {
        *self.hook.write() = Some(Arc::new(hook));
    }

    /// Queues a request and wakes the main loop.
    pub fn post(&self, request: Request) {
        {
            let mut p = self.pending.lock();
            match request {
                Request::Debug => p.debug = true,
                Request::Suspend if self.state() == RunState::Suspended => return,
                Request::Suspend => p.suspend = true,
                Request::Shutdown(cause) => p.shutdown = Some(cause),
                Request::Reset(cause) => p.reset = Some(cause),
                Request::Wakeup(reason) => {
                    let enabled = self.wakeup_mask.load(Ordering::Relaxed) & 1 << reason as u8 != 0;
                    if self.state() != RunState::Suspended || !enabled {
                        return;
                    }
                    p.wakeup = Some(reason);
                }
                Request::Powerdown => p.powerdown = true,
                Request::Stop(state) => p.stop = Some(state),
                Request::InternalError(what) => _ = p.internal_error.get_or_insert(what),
            }
        }
        self.wake();
    }

    /// Wakes the main loop.
    pub fn wake(&self) {
        let hook = self.hook.read().clone();
        if let Some(hook) = hook {
            hook();
        }
    }

    /// The next request to serve: internal error, debug, suspend, shutdown, reset, wake-up, powerdown, stop.
    pub fn take(&self) -> Option<Request> {
        let mut p = self.pending.lock();
        if let Some(what) = p.internal_error.take() {
            return Some(Request::InternalError(what));
        }
        if std::mem::take(&mut p.debug) {
            return Some(Request::Debug);
        }
        if std::mem::take(&mut p.suspend) {
            return Some(Request::Suspend);
        }
        if let Some(cause) = p.shutdown.take() {
            return Some(Request::Shutdown(cause));
        }
        if let Some(cause) = p.reset.take() {
            return Some(Request::Reset(cause));
        }
        if let Some(reason) = p.wakeup.take() {
            return Some(Request::Wakeup(reason));
        }
        if std::mem::take(&mut p.powerdown) {
            return Some(Request::Powerdown);
        }
        p.stop.take().map(Request::Stop)
    }

    /// Status with which the process is to end at the next shutdown.
    pub fn set_exit_status(&self, status: i32) {
        self.exit_status.store(status, Ordering::Relaxed);
    }

    /// Status with which the process ends in order: 0 unless the guest chose one.
    pub fn exit_status(&self) -> i32 {
        self.exit_status.load(Ordering::Relaxed)
    }

    /// Whether a reset waits to be served.
    pub fn reset_pending(&self) -> bool {
        self.pending.lock().reset.is_some()
    }

    /// The machine's run state.
    pub fn state(&self) -> RunState {
        RunState::from_u8(self.state.load(Ordering::Acquire))
    }

    /// Changes the run state. Whether the change is allowed is the caller's business.
    pub fn set_state(&self, state: RunState) {
        self.state.store(state as u8, Ordering::Release);
    }

    /// Allows or forbids a reason to end the guest's sleep (the RTC alarm and PM timer enable bits).
    pub fn enable_wakeup(&self, reason: WakeupReason, on: bool) {
        let bit = 1 << reason as u8;
        if on {
            self.wakeup_mask.fetch_or(bit, Ordering::Relaxed);
        } else {
            self.wakeup_mask.fetch_and(!bit, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    #[test]
    fn requests_are_served_in_order_and_wake_the_loop() {
        let r = Requests::default();
        let woken = Arc::new(AtomicUsize::new(0));
        let count = woken.clone();
        r.set_hook(move || _ = count.fetch_add(1, Ordering::Relaxed));
        r.post(Request::Powerdown);
        r.post(Request::Reset(ShutdownCause::GuestReset));
        r.post(Request::Shutdown(ShutdownCause::HostSignal));
        r.post(Request::Shutdown(ShutdownCause::HostQmpQuit));
        assert_eq!(woken.load(Ordering::Relaxed), 4);
        assert!(r.reset_pending());
        assert_eq!(r.take(), Some(Request::Shutdown(ShutdownCause::HostQmpQuit)));
        assert_eq!(r.take(), Some(Request::Reset(ShutdownCause::GuestReset)));
        assert_eq!(r.take(), Some(Request::Powerdown));
        assert_eq!(r.take(), None);
    }

    #[test]
    fn wakeup_needs_a_sleeping_guest_and_an_enabled_reason() {
        let r = Requests::default();
        r.post(Request::Wakeup(WakeupReason::Rtc));
        assert_eq!(r.take(), None);
        r.set_state(RunState::Suspended);
        r.enable_wakeup(WakeupReason::Rtc, false);
        r.post(Request::Wakeup(WakeupReason::Rtc));
        assert_eq!(r.take(), None);
        r.post(Request::Wakeup(WakeupReason::Other));
        assert_eq!(r.take(), Some(Request::Wakeup(WakeupReason::Other)));
    }

    #[test]
    fn every_run_state_has_its_own_name() {
        for (s, n) in RunState::ALL {
            assert_eq!((RunState::from_u8(s as u8), s.name()), (s, n));
        }
    }
}
