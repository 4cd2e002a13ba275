//! CPU hot-plug registers, 12 bytes at 0xaf00 on pc. Registers only.
//! Source: the interface QEMU documents as `acpi_cpu_hotplug` (selector, flags, command, command data).

use serde::{Deserialize, Serialize};

/// Flags, offset 4.
mod flag {
    pub const ENABLED: u8 = 0x01;
    pub const INSERTING: u8 = 0x02;
    pub const REMOVING: u8 = 0x04;
    pub const EJECT: u8 = 0x08;
    pub const FW_REMOVE: u8 = 0x10;
}

/// Commands, offset 5.
mod command {
    pub const NEXT_WITH_EVENT: u8 = 0;
    pub const OST_EVENT: u8 = 1;
    pub const OST_STATUS: u8 = 2;
    pub const ARCH_ID: u8 = 3;
}

/// A possible processor.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuSlot {
    /// Architecture id: the APIC id.
    pub arch_id: u64,
    /// Present.
    pub enabled: bool,
    /// The OS has not yet been told of the new processor.
    pub inserting: bool,
    /// The OS is asked to let it go.
    pub removing: bool,
    /// Firmware is to remove it.
    pub fw_remove: bool,
    /// `_OST` arguments.
    pub ost: (u32, u32),
}

/// All that the guest can observe and a snapshot must keep.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuHotplugRegs {
    slots: Vec<CpuSlot>,
    selector: u32,
    command: u8,
}

/// What a write asks of the wiring.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing.
    None,
    /// Remove this processor.
    Eject(usize),
    /// Report `_OST` of this processor (event `ACPI_DEVICE_OST`).
    Ost(usize),
}

impl CpuHotplugRegs {
    /// Registers of a machine with these possible processors: APIC id, present.
    pub fn new(cpus: impl IntoIterator<Item = (u64, bool)>) -> Self {
        let slot = |(arch_id, enabled)| CpuSlot { arch_id, enabled, ..CpuSlot::default() };
        CpuHotplugRegs { slots: cpus.into_iter().map(slot).collect(), selector: 0, command: 0 }
    }

    /// A system reset: nothing is selected; processors and their events stay.
    pub fn reset(&mut self) {
        (self.selector, self.command) = (0, 0);
    }

    /// The possible processors.
    pub fn slots(&self) -> &[CpuSlot] {
        &self.slots
    }

    fn selected(&mut self) -> Option<&mut CpuSlot> {
        self.slots.get_mut(self.selector as usize)
    }

    /// A processor was plugged; true if the OS must be told.
    pub fn plugged(&mut self, arch_id: u64, hotplugged: bool) -> bool {
        let Some(slot) = self.slots.iter_mut().find(|s| s.arch_id == arch_id) else { return false };
        (slot.enabled, slot.inserting) = (true, hotplugged);
        hotplugged
    }

    /// Asks the OS to let a processor go.
    pub fn request_removal(&mut self, arch_id: u64) {
        if let Some(slot) = self.slots.iter_mut().find(|s| s.arch_id == arch_id) {
            slot.removing = true;
        }
    }

    /// A processor is gone.
    pub fn unplugged(&mut self, arch_id: u64) {
        if let Some(slot) = self.slots.iter_mut().find(|s| s.arch_id == arch_id) {
            *slot = CpuSlot { arch_id, ..CpuSlot::default() };
        }
    }

    /// Reads a register at its offset (0: command data 2, 4: flags, 8: command data).
    pub fn read(&mut self, offset: u64) -> u32 {
        let (command, selector) = (self.command, self.selector);
        let Some(slot) = self.selected() else { return 0 };
        match (offset, command) {
            (0, command::ARCH_ID) => (slot.arch_id >> 32) as u32,
            (4, _) => {
                let bit = |on: bool, b: u8| if on { b } else { 0 };
                u32::from(
                    bit(slot.enabled, flag::ENABLED)
                        | bit(slot.inserting, flag::INSERTING)
                        | bit(slot.removing, flag::REMOVING)
                        | bit(slot.fw_remove, flag::FW_REMOVE),
                )
            }
            (8, command::NEXT_WITH_EVENT) => selector,
            (8, command::ARCH_ID) => slot.arch_id as u32,
            _ => 0,
        }
    }

    /// Writes a register at its offset (0: selector, 4: flags, 5: command, 8: command data).
    pub fn write(&mut self, offset: u64, val: u32) -> Action {
        if offset == 0 {
            self.selector = val;
            return Action::None;
        }
        let (index, command) = (self.selector as usize, self.command);
        let Some(slot) = self.selected() else { return Action::None };
        match offset {
            4 => {
                let val = val as u8;
                if val & flag::INSERTING != 0 {
                    slot.inserting = false;
                } else if val & flag::REMOVING != 0 {
                    slot.removing = false;
                } else if val & flag::EJECT != 0 {
                    // The boot processor stays.
                    if slot.enabled && index != 0 {
                        return Action::Eject(index);
                    }
                } else if val & flag::FW_REMOVE != 0 && slot.enabled && index != 0 {
                    slot.fw_remove = true;
                }
            }
            5 if val <= command::ARCH_ID.into() => {
                self.command = val as u8;
                if self.command == command::NEXT_WITH_EVENT {
                    self.select_next();
                }
            }
            8 => match command {
                command::OST_EVENT => slot.ost.0 = val,
                command::OST_STATUS => {
                    slot.ost.1 = val;
                    return Action::Ost(index);
                }
                _ => {}
            },
            _ => {}
        }
        Action::None
    }

    /// Moves the selector to the next processor with an event, if there is one, starting with the selected one.
    fn select_next(&mut self) {
        let n = self.slots.len();
        let start = self.selector as usize;
        let event = |s: &CpuSlot| s.inserting || s.removing || s.fw_remove;
        let found = (0..n).map(|i| (start + i) % n).find(|i| self.slots.get(*i).is_some_and(event));
        if let Some(i) = found {
            self.selector = i as u32;
        }
    }

    /// Rejects what no machine can have.
    ///
    /// # Errors
    /// More processors than the machine.
    pub fn check(&self, slots: usize) -> Result<(), String> {
        if self.slots.len() == slots {
            Ok(())
        } else {
            Err(format!("{} CPU slots, expected {slots}", self.slots.len()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_processor_is_found_and_acknowledged() {
        let mut r = CpuHotplugRegs::new([(0, true), (1, false), (2, false)]);
        assert!(r.plugged(2, true));
        assert_eq!(r.write(5, 0), Action::None);
        assert_eq!((r.read(8), r.read(4)), (2, 0x03));
        assert_eq!(r.write(4, 0x02), Action::None);
        assert_eq!(r.read(4), 0x01);
    }

    #[test]
    fn ejection_spares_the_boot_processor() {
        let mut r = CpuHotplugRegs::new([(0, true), (1, true)]);
        assert_eq!(r.write(4, 0x08), Action::None);
        let _ = r.write(0, 1);
        assert_eq!(r.write(4, 0x08), Action::Eject(1));
        r.unplugged(1);
        assert_eq!(r.read(4), 0);
    }

    #[test]
    fn a_selector_out_of_range_does_nothing() {
        let mut r = CpuHotplugRegs::new([(0, true)]);
        let _ = r.write(0, 77);
        assert_eq!((r.read(4), r.read(8), r.write(4, 0x08)), (0, 0, Action::None));
    }

    #[test]
    fn ost_is_reported() {
        let mut r = CpuHotplugRegs::new([(0, true)]);
        for (at, v) in [(5, 1), (8, 3), (5, 2)] {
            let _ = r.write(at, v);
        }
        assert_eq!(r.write(8, 0), Action::Ost(0));
        assert_eq!(r.slots()[0].ost, (3, 0));
    }
}
