//! Type `lab-dice`: an ISA device that no crate of Qomet knows. Each read of its port gives the next number of a fixed
//! sequence, each write starts the sequence at the written value. The type reaches `-device help`, `-device`, QMP and
//! snapshots because the binary names this crate.
#![forbid(unsafe_code)]

use hw_core::{Category, DeviceClass, DeviceImpl, IsaDevice, Locked, MachineCell, MemoryRegion, Ops, Phase};
use qom::{Class, Object, Prop, Property, Result};
use serde::{Deserialize, Serialize};

/// What a snapshot keeps.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DiceRegs {
    state: u8,
}

impl DiceRegs {
    /// The next number: a full-period linear congruential sequence modulo 256.
    fn roll(&mut self) -> u8 {
        self.state = self.state.wrapping_mul(5).wrapping_add(3);
        self.state
    }
}

/// Type `lab-dice`.
#[derive(Object)]
#[qom(name = "lab-dice", parent = IsaDevice, methods(DeviceClass), class_init = Dice::class_init)]
pub struct Dice {
    parent: IsaDevice,
    #[property(default = 0x2f0, desc = "Port")]
    iobase: Prop<u16>,
    #[state]
    regs: MachineCell<DiceRegs>,
}

impl Dice {
    fn class_init(c: &mut Class) {
        let d = c.edit::<DeviceClass>();
        d.categories = vec![Category::Misc];
        d.desc = "Dice of the plugin example";
        c.property(
            Property::computed::<u8>("state")
                .getter(|d: &Dice| Ok(d.regs.ro(&d.core().lock()).state))
                .describe("Last number"),
        );
    }

    fn read(&self, m: &mut Locked, _off: u64, _size: u32) -> u64 {
        self.regs.rw(m).roll().into()
    }

    fn write(&self, m: &mut Locked, _off: u64, _size: u32, val: u64) {
        self.regs.rw(m).state = val as u8;
    }
}

impl DeviceImpl for Dice {
    fn realize(&self, m: &mut Locked) -> Result<()> {
        self.parent_realize(m)?;
        let ops = Ops { read: Self::read, write: Self::write, ..Ops::default() };
        let region = MemoryRegion::io(self, "lab-dice", 1, ops);
        self.map_io(m, self.iobase.get().into(), &region)
    }

    fn unrealize(&self, m: &mut Locked) {
        self.unmap_io(m);
        self.parent_unrealize(m);
    }

    fn reset(&self, m: &mut Locked, phase: Phase) {
        if phase == Phase::Enter {
            *self.regs.rw(m) = DiceRegs::default();
        }
    }
}
