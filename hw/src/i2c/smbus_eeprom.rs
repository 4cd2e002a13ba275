//! A 256-byte serial EEPROM on the SMBus, type `smbus-eeprom`. Source: Atmel AT24C02 (byte and sequential access);
//! SMBus 2.0 §5.5.

use hw_core::{
    Category, DeviceClass, DeviceImpl, Locked, MachineCell, Phase,
    i2c::{Nack, SmbusClass, SmbusDevice, SmbusImpl},
};
use parking_lot::RwLock;
use qom::{Error, Object, Result};
use serde::{Deserialize, Serialize};

/// Bytes of an EEPROM.
pub const SIZE: usize = 256;

/// All that the guest can observe and a snapshot must keep.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EepromRegs {
    data: Vec<u8>,
    offset: u8,
}

impl Default for EepromRegs {
    fn default() -> Self {
        EepromRegs { data: vec![0; SIZE], offset: 0 }
    }
}

/// Type `smbus-eeprom`.
#[derive(Object)]
#[qom(name = "smbus-eeprom", parent = SmbusDevice, methods(DeviceClass, SmbusClass), class_init = SmbusEeprom::class_init)]
pub struct SmbusEeprom {
    parent: SmbusDevice,
    #[state]
    regs: MachineCell<EepromRegs>,
    initial: RwLock<Vec<u8>>,
}

impl SmbusEeprom {
    fn class_init(c: &mut qom::Class) {
        let d = c.edit::<DeviceClass>();
        d.user_creatable = false;
        d.categories = vec![Category::Misc];
    }

    /// Contents at power-on; the rest is zero.
    pub fn set_contents(&self, m: &mut Locked, bytes: &[u8]) {
        *self.initial.write() = bytes.to_vec();
        self.regs.rw(m).data = self.image();
    }

    fn image(&self) -> Vec<u8> {
        let mut data = self.initial.read().clone();
        data.resize(SIZE, 0);
        data
    }
}

impl SmbusImpl for SmbusEeprom {
    fn write_data(&self, m: &mut Locked, bytes: &[u8]) -> std::result::Result<(), Nack> {
        let r = self.regs.rw(m);
        let [offset, data @ ..] = bytes else { return Ok(()) };
        r.offset = *offset;
        for b in data {
            if let Some(cell) = r.data.get_mut(usize::from(r.offset)) {
                *cell = *b;
            }
            r.offset = r.offset.wrapping_add(1);
        }
        Ok(())
    }

    fn receive_byte(&self, m: &mut Locked) -> u8 {
        let r = self.regs.rw(m);
        let v = r.data.get(usize::from(r.offset)).copied().unwrap_or(0xff);
        r.offset = r.offset.wrapping_add(1);
        v
    }
}

impl DeviceImpl for SmbusEeprom {
    fn reset(&self, m: &mut Locked, phase: Phase) {
        self.parent_reset(m, phase);
        if phase == Phase::Enter {
            *self.regs.rw(m) = EepromRegs { data: self.image(), offset: 0 };
        }
    }

    fn post_load(&self, m: &mut Locked) -> Result<()> {
        if self.regs.ro(m).data.len() != SIZE {
            return Err(Error::generic("smbus-eeprom: contents of the wrong size"));
        }
        self.parent_post_load(m)
    }
}
