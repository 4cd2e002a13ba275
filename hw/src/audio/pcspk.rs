//! Port 0x61, type `isa-pcspk`: gate and output of PIT counter 2, speaker data, refresh toggle.
//! Source: PIIX3 datasheet (290550) §2.5.5.1, NMISC register.
//!
//! Not modelled: sound (there are no audio back ends yet: naming one is an error), NMI sources (SERR#, IOCHK#), whose status bits
//! read 0. The refresh toggle runs at 18 PIT clocks, what firmware programs counter 1 for on a PC.

use std::sync::OnceLock;

use hw_core::{Category, DeviceClass, DeviceImpl, IsaDevice, Locked, MachineCell, MemoryRegion, Ops, Phase, Sizes};
use qom::{Error, Link, Object, Prop, Result};

use crate::timer::i8254::PitCommon;
use crate::timer::i8254_regs::PIT_HZ;

/// SPKR_DAT_EN, PCI SERR# enable and IOCHK# enable: the bits that read back as written.
const STORED: u8 = 0x0e;
/// Refresh period in PIT clocks.
const REFRESH: u128 = 18;

/// Type `isa-pcspk`.
#[derive(Object)]
#[qom(name = "isa-pcspk", parent = IsaDevice, methods(DeviceClass), class_init = PcSpk::class_init,
    instance_init = PcSpk::instance_init)]
pub struct PcSpk {
    parent: IsaDevice,
    #[property(default = 0x61)]
    iobase: Prop<u32>,
    #[property]
    audiodev: Prop<String>,
    #[property(link)]
    pit: Link<PitCommon>,
    #[state]
    nmisc: MachineCell<u8>,
    region: OnceLock<MemoryRegion>,
}

impl PcSpk {
    fn class_init(c: &mut qom::Class) {
        let d = c.edit::<DeviceClass>();
        d.user_creatable = false;
        d.categories = vec![Category::Sound];
    }

    fn instance_init(&self) -> Result<()> {
        let ops = Ops { read: Self::read, write: Self::write, imp: Sizes::new(1, 1), ..Ops::default() };
        _ = self.region.set(MemoryRegion::io(self, "pcspk", 1, ops));
        Ok(())
    }

    fn read(&self, m: &mut Locked, _off: u64, _size: u32) -> u64 {
        let clocks = u128::from(m.clock.now()) * u128::from(PIT_HZ) / 1_000_000_000;
        let refresh = ((clocks / REFRESH) & 1) as u8;
        let (gate, out) = self.pit.with(|p| (p.gate(m, 2), p.out(m, 2))).unwrap_or_default();
        (*self.nmisc.ro(m) | u8::from(gate) | refresh << 4 | u8::from(out) << 5).into()
    }

    fn write(&self, m: &mut Locked, _off: u64, _size: u32, val: u64) {
        *self.nmisc.rw(m) = val as u8 & STORED;
        self.pit.with(|p| p.set_gate(m, 2, val & 1 != 0));
    }
}

impl DeviceImpl for PcSpk {
    fn realize(&self, m: &mut Locked) -> Result<()> {
        self.parent_realize(m)?;
        if self.pit.get().is_none() {
            return Err(Error::generic("pcspk: No \"pit\" set or available"));
        }
        let name = self.audiodev.get();
        if !name.is_empty() {
            return Err(Error::generic(format!(
                "audiodev '{name}' not found: there are no audio back ends in this build"
            )));
        }
        self.region.get().map_or(Ok(()), |r| self.map_io(m, self.iobase.get().into(), r))
    }

    fn unrealize(&self, m: &mut Locked) {
        self.unmap_io(m);
        self.parent_unrealize(m);
    }

    fn reset(&self, m: &mut Locked, phase: Phase) {
        if phase == Phase::Enter {
            *self.nmisc.rw(m) = 0;
        }
        self.parent_reset(m, phase);
    }
}
