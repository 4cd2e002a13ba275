//! Interface `intctrl`: interrupt controllers as the monitor sees them (`info pic`, `info irq`).

use hw_core::Locked;

/// An interrupt controller that can be looked at.
pub trait InterruptStats {
    /// Its registers, in lines ended by a newline.
    fn print_info(&self, m: &mut Locked) -> String;
    /// How often each input was asserted, if the controller counts.
    fn statistics(&self, _m: &mut Locked) -> Vec<u64> {
        vec![]
    }
}

qom::interface!(dyn InterruptStats, "intctrl");
