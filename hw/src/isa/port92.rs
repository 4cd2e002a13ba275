//! System control port A, type `port92`: fast A20 and fast reset.
//! Source: IBM PS/2 Hardware Interface Technical Reference, "System Control Port A". Not modelled: the other bits (security lock, disk
//! lights) only read back.

use std::sync::OnceLock;

use hw_core::{
    DeviceClass, DeviceImpl, IrqOut, IsaDevice, Locked, MachineCell, MemoryRegion, Ops, Phase, Request, ShutdownCause,
    Sizes,
};
use qom::{Object, Result};
use serde::{Deserialize, Serialize};

const PORT: u64 = 0x92;
/// A rising edge resets the processor.
const FAST_RESET: u8 = 1 << 0;
/// A20 enabled.
const A20: u8 = 1 << 1;

/// The register.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Port92Regs {
    outport: u8,
}

impl Port92Regs {
    /// Writes; true: reset the machine.
    #[must_use]
    pub fn write(&mut self, val: u8) -> bool {
        let reset = val & !self.outport & FAST_RESET != 0;
        self.outport = val;
        reset
    }
}

/// Type `port92`.
#[derive(Object)]
#[qom(name = "port92", parent = IsaDevice, methods(DeviceClass), class_init = Port92::class_init, instance_init = Port92::instance_init)]
pub struct Port92 {
    parent: IsaDevice,
    #[state]
    regs: MachineCell<Port92Regs>,
    a20: IrqOut,
    region: OnceLock<MemoryRegion>,
}

impl Port92 {
    fn class_init(c: &mut qom::Class) {
        c.edit::<DeviceClass>().user_creatable = false;
    }

    fn instance_init(&self) -> Result<()> {
        self.gpio_out("a20", &self.a20);
        let ops = Ops { read: Self::read, write: Self::write, imp: Sizes::new(1, 1), ..Ops::default() };
        _ = self.region.set(MemoryRegion::io(self, "port92", 1, ops));
        Ok(())
    }

    fn read(&self, m: &mut Locked, _off: u64, _size: u32) -> u64 {
        self.regs.ro(m).outport.into()
    }

    fn write(&self, m: &mut Locked, _off: u64, _size: u32, val: u64) {
        let reset = self.regs.rw(m).write(val as u8);
        self.a20.set(m, val as u8 & A20 != 0);
        if reset {
            m.request(Request::Reset(ShutdownCause::GuestReset));
        }
    }
}

impl DeviceImpl for Port92 {
    fn realize(&self, m: &mut Locked) -> Result<()> {
        self.parent_realize(m)?;
        self.region.get().map_or(Ok(()), |r| self.map_io(m, PORT, r))
    }

    fn unrealize(&self, m: &mut Locked) {
        self.unmap_io(m);
        self.parent_unrealize(m);
    }

    fn reset(&self, m: &mut Locked, phase: Phase) {
        if phase == Phase::Enter {
            // Bit 0 down keeps the line of the gate as the 8042 leaves it: the register only drives it when written.
            *self.regs.rw(m) = Port92Regs::default();
        }
        self.parent_reset(m, phase);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reset_needs_a_rising_edge() {
        let mut r = Port92Regs::default();
        assert!(!r.write(A20));
        assert!(r.write(A20 | FAST_RESET));
        assert!(!r.write(A20 | FAST_RESET));
        assert_eq!(r.outport, 3);
    }
}
