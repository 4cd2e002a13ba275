//! PCI hot-plug registers, 24 bytes at 0xae00 on pc. Registers only; one bus (selector 0).
//! Source: the interface QEMU documents as `acpi_pci_hotplug` (UP, DOWN, EJECT, REMOVABLE, SELECT, ACPI index).

use serde::{Deserialize, Serialize};

/// Register offsets.
mod offset {
    pub const UP: u64 = 0x00;
    pub const DOWN: u64 = 0x04;
    pub const EJECT: u64 = 0x08;
    pub const REMOVABLE: u64 = 0x0c;
    pub const SELECT: u64 = 0x10;
    pub const ACPI_INDEX: u64 = 0x14;
}

/// All that the guest can observe and a snapshot must keep.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PciHotplugRegs {
    up: u32,
    down: u32,
    removable: u32,
    select: u32,
    /// Looked up for the guest; forgotten when it is read and at any write.
    acpi_index: u32,
}

/// What a write asks of the wiring.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing.
    None,
    /// Remove the cards in these slots.
    Eject(u32),
    /// Look up the `acpi-index` property of the card in this slot, for [`PciHotplugRegs::set_acpi_index`].
    Lookup(u8),
}

/// Buses that can be selected.
const BUSES: u32 = 256;

impl PciHotplugRegs {
    /// A system reset: nothing is selected; events stay.
    pub fn reset(&mut self) {
        (self.select, self.acpi_index) = (0, 0);
    }

    /// The slots whose cards may be removed.
    pub fn set_removable(&mut self, slots: u32) {
        self.removable = slots;
    }

    /// A card was plugged into a slot while the machine runs.
    pub fn plugged(&mut self, slot: u8) {
        self.up |= 1 << (slot & 31);
    }

    /// The OS is asked to let a card go.
    pub fn request_removal(&mut self, slot: u8) {
        self.down |= 1 << (slot & 31);
    }

    /// A card is gone.
    pub fn unplugged(&mut self, slot: u8) {
        self.up &= !(1 << (slot & 31));
        self.down &= !(1 << (slot & 31));
    }

    /// A removal is pending in this slot.
    pub fn removal_pending(&self, slot: u8) -> bool {
        self.down >> (slot & 31) & 1 != 0
    }

    /// The answer to [`Action::Lookup`]; 0 if the card has no index.
    pub fn set_acpi_index(&mut self, index: u32) {
        self.acpi_index = index;
    }

    /// Reads a register.
    pub fn read(&mut self, at: u64) -> u32 {
        match (at, self.select) {
            (_, BUSES..) => 0,
            (offset::SELECT, s) => s,
            (offset::ACPI_INDEX, _) => std::mem::take(&mut self.acpi_index),
            (offset::REMOVABLE, 1..) => u32::MAX,
            (_, 1..) => 0,
            (offset::UP, _) => std::mem::take(&mut self.up),
            (offset::DOWN, _) => self.down,
            (offset::REMOVABLE, _) => self.removable,
            _ => 0,
        }
    }

    /// Writes a register.
    pub fn write(&mut self, at: u64, val: u32) -> Action {
        self.acpi_index = 0;
        match (at, self.select) {
            (offset::SELECT, _) => self.select = val,
            (_, 1..) => {}
            (offset::EJECT, _) => return Action::Eject(val),
            (offset::ACPI_INDEX, _) if val != 0 => return Action::Lookup(val.trailing_zeros() as u8),
            _ => {}
        }
        Action::None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_cards_are_told_once() {
        let mut r = PciHotplugRegs::default();
        r.plugged(4);
        assert_eq!((r.read(0), r.read(0)), (0x10, 0));
    }

    #[test]
    fn removal_goes_through_the_guest() {
        let mut r = PciHotplugRegs::default();
        r.request_removal(3);
        assert!(r.removal_pending(3));
        assert_eq!(r.read(4), 8);
        assert_eq!(r.write(8, 8), Action::Eject(8));
        r.unplugged(3);
        assert_eq!(r.read(4), 0);
    }

    #[test]
    fn the_index_of_a_card_is_told_once() {
        let mut r = PciHotplugRegs::default();
        assert_eq!(r.write(0x14, 0x30), Action::Lookup(4));
        r.set_acpi_index(7);
        assert_eq!((r.read(0x14), r.read(0x14)), (7, 0));
        r.set_acpi_index(7);
        assert_eq!((r.write(0, 0), r.read(0x14)), (Action::None, 0));
    }

    #[test]
    fn other_buses_are_empty() {
        let mut r = PciHotplugRegs::default();
        r.plugged(4);
        let _ = r.write(0x10, 1);
        assert_eq!((r.read(0), r.write(8, 16)), (0, Action::None));
    }
}
