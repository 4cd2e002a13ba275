//! The parallel port, type `isa-parallel`: standard (SPP) and EPP registers over a character device that takes the bytes.
//! Source: IEEE 1284-1994 §8; IBM PC AT Technical Reference, parallel printer adapter. Not modelled: ECP; peripherals that
//! drive the lines (nothing is ever received).

use chardev::CharFrontend;
use hw_core::{
    Category, DeviceClass, DeviceImpl, IrqOut, IsaDevice, Locked, MachineCell, MemoryRegion, Ops, Phase, Sizes,
};
use qom::{Error, Object, Prop, Result};
use serde::{Deserialize, Serialize};

/// Status register: error, select, paper out, acknowledge, busy (the last four low-active or inverted as the adapter shows them).
mod sts {
    pub const BUSY: u8 = 0x80;
    pub const ACK: u8 = 0x40;
    pub const ONLINE: u8 = 0x10;
    pub const ERROR: u8 = 0x08;
    pub const TIMEOUT: u8 = 0x01;
}
/// Control register.
mod ctr {
    pub const DIR: u8 = 0x20;
    pub const INTEN: u8 = 0x10;
    pub const SELECT: u8 = 0x08;
    pub const INIT: u8 = 0x04;
    pub const STROBE: u8 = 0x01;
    pub const FIXED: u8 = 0xc0;
}

/// All that the guest can observe and a snapshot must keep.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParallelRegs {
    data: u8,
    status: u8,
    control: u8,
    irq_pending: bool,
}

impl Default for ParallelRegs {
    /// A printer that is on line and idle.
    fn default() -> Self {
        ParallelRegs {
            data: !0,
            status: sts::BUSY | sts::ACK | sts::ONLINE | sts::ERROR | sts::TIMEOUT,
            control: ctr::SELECT | ctr::INIT | ctr::FIXED,
            irq_pending: false,
        }
    }
}

impl ParallelRegs {
    /// Level of the interrupt line.
    pub fn irq(&self) -> bool {
        self.irq_pending
    }

    /// Reads register `offset`: 0 data, 1 status, 2 control, 3 EPP address, 4-7 EPP data.
    pub fn read(&mut self, offset: u64) -> u8 {
        match offset {
            // As an input the port shows lines that nobody drives.
            0 if self.control & ctr::DIR != 0 => 0xff,
            0 => self.data,
            1 => {
                let v = self.status;
                self.irq_pending = false;
                if self.status & sts::BUSY == 0 && self.control & ctr::STROBE == 0 {
                    // The printer is ready a few microseconds later: ACK goes down for one read, then all is idle.
                    if self.status & sts::ACK != 0 {
                        self.status &= !sts::ACK;
                    } else {
                        self.status |= sts::ACK | sts::BUSY;
                    }
                }
                v
            }
            2 => self.control,
            _ => 0xff,
        }
    }

    /// Writes register `offset`; a byte goes to the printer on the rising edge of STROBE.
    #[must_use]
    pub fn write(&mut self, offset: u64, val: u8) -> Option<u8> {
        match offset {
            0 => self.data = val,
            2 => {
                let val = val | ctr::FIXED;
                let old = std::mem::replace(&mut self.control, val);
                if val & ctr::INIT == 0 {
                    self.status = sts::BUSY | sts::ACK | sts::ONLINE | sts::ERROR;
                } else if val & ctr::SELECT != 0 {
                    if val & ctr::STROBE != 0 {
                        self.status &= !sts::BUSY;
                        if old & ctr::STROBE == 0 {
                            return Some(self.data);
                        }
                    } else if old & ctr::INTEN != 0 {
                        self.irq_pending = true;
                    }
                }
            }
            _ => {}
        }
        None
    }
}

/// I/O base and interrupt of the three ports of a PC.
const PORTS: [(u32, u32); 3] = [(0x378, 7), (0x278, 7), (0x3bc, 7)];

/// Type `isa-parallel`.
#[derive(Object)]
#[qom(name = "isa-parallel", parent = IsaDevice, methods(DeviceClass), class_init = IsaParallel::class_init,
    interfaces("acpi-dev-aml-interface"))]
pub struct IsaParallel {
    parent: IsaDevice,
    #[property(default = u32::MAX)]
    index: Prop<u32>,
    #[property(default = u32::MAX)]
    iobase: Prop<u32>,
    #[property(default = 7)]
    irq: Prop<u32>,
    #[property]
    chardev: CharFrontend,
    #[state]
    regs: MachineCell<ParallelRegs>,
    line: IrqOut,
}

impl IsaParallel {
    fn class_init(c: &mut qom::Class) {
        c.edit::<DeviceClass>().categories = vec![Category::Input];
    }

    fn drive(&self, m: &mut Locked) {
        let level = self.regs.ro(m).irq();
        if level != self.line.level() {
            self.line.set(m, level);
        }
    }

    fn read(&self, m: &mut Locked, off: u64, _size: u32) -> u64 {
        let v = self.regs.rw(m).read(off);
        self.drive(m);
        v.into()
    }

    fn write(&self, m: &mut Locked, off: u64, _size: u32, val: u64) {
        let byte = self.regs.rw(m).write(off, val as u8);
        if let Some(b) = byte {
            self.chardev.write_all(&[b]);
        }
        self.drive(m);
    }
}

impl DeviceImpl for IsaParallel {
    fn realize(&self, m: &mut Locked) -> Result<()> {
        self.parent_realize(m)?;
        if !self.chardev.is_attached() {
            return Err(Error::generic("Can't create parallel device, empty char device"));
        }
        super::serial::place(self, "isa-parallel", &PORTS, &self.index, &self.iobase, &self.irq)?;
        self.line.connect(Some(self.isa_irq(self.irq.get())?));
        let valid = Sizes::default().unaligned();
        let ops =
            Ops { read: Self::read, write: Self::write, valid, imp: Sizes::new(1, 1).unaligned(), ..Ops::default() };
        self.map_io(m, self.iobase.get().into(), &MemoryRegion::io(self, "parallel", 8, ops))
    }

    fn unrealize(&self, m: &mut Locked) {
        self.unmap_io(m);
        self.chardev.detach();
        self.parent_unrealize(m);
    }

    fn reset(&self, m: &mut Locked, phase: Phase) {
        self.parent_reset(m, phase);
        match phase {
            Phase::Enter => *self.regs.rw(m) = ParallelRegs::default(),
            Phase::Hold => self.drive(m),
            Phase::Exit => {}
        }
    }

    fn post_load(&self, m: &mut Locked) -> Result<()> {
        self.drive(m);
        self.parent_post_load(m)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_is_printed_on_the_strobe_and_acknowledged() {
        let mut r = ParallelRegs::default();
        assert_eq!(r.write(0, b'x'), None);
        assert_eq!(r.write(2, 0x0d), Some(b'x'));
        assert_eq!(r.write(2, 0x0d), None);
        assert_eq!(r.write(2, 0x0c), None);
        assert_eq!(r.read(1) & 0xc0, 0x40); // busy
        assert_eq!(r.read(1) & 0xc0, 0x00); // acknowledged
        assert_eq!(r.read(1) & 0xc0, 0xc0); // idle
    }
}
