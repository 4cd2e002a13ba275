//! What a guest says of itself, or a watchdog of it: it panicked, it did not answer in time. Devices report, the program decides
//! (`-action`, `watchdog-set-action`): [`GuestEvents`] is where the two meet.

use hw_core::{Core, Device};
use std::sync::OnceLock;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuestEvent {
    /// The guest's kernel panicked and stands.
    Panicked,
    /// The guest's kernel panicked and has loaded its crash kernel, which takes care of it.
    CrashLoaded,
    /// The guest is about to switch itself off.
    PvShutdown,
    /// A watchdog was not served in time.
    Watchdog,
}

type Sink = Box<dyn Fn(GuestEvent) + Send + Sync>;

/// The events of one machine: [`Core::service`].
#[derive(Default)]
pub struct GuestEvents(OnceLock<Sink>);

impl GuestEvents {
    /// Sets who decides; the first one stays. Called with the machine locked, and must not wait.
    pub fn set_sink(&self, sink: impl Fn(GuestEvent) + Send + Sync + 'static) {
        _ = self.0.set(Box::new(sink));
    }

    /// A device reports.
    pub fn report(device: &Device, event: GuestEvent) {
        if let Some(sink) = device.core().service::<Self>().0.get() {
            sink(event);
        }
    }
}

/// Sends all processors the NMI that a board's NMI button sends.
pub fn inject_nmi(core: &Core) {
    for cpu in core.cpus.list() {
        match cpu.local_apic() {
            Some(apic) => {
                apic.set_nmi(true);
                apic.set_nmi(false);
            }
            None => cpu.interrupt(hw_core::cpu::interrupt::NMI),
        }
    }
}
