//! Message-signalled interrupts. PCI 3.0 §6.8.1: capability, address, data, per-vector masking.

use qom::{Error, Result};

use super::config::cap;
use super::device::PciDevice;
use crate::locked::Locked;

/// Message control, offset 2 of the capability.
const CONTROL: usize = 2;
const ENABLE: u16 = 1;
/// Multiple message enable, log2.
const MME: u16 = 0x70;
const BITS_64: u16 = 0x80;
const MASKABLE: u16 = 0x100;
const ADDRESS: usize = 4;

/// Offsets that depend on the form of the capability.
struct Form {
    at: usize,
    control: u16,
}

impl Form {
    fn is_64(&self) -> bool {
        self.control & BITS_64 != 0
    }
    fn data(&self) -> usize {
        self.at + if self.is_64() { 12 } else { 8 }
    }
    fn mask(&self) -> Option<usize> {
        (self.control & MASKABLE != 0).then(|| self.at + if self.is_64() { 16 } else { 12 })
    }
    fn pending(&self) -> Option<usize> {
        self.mask().map(|m| m + 4)
    }
    fn vectors(&self) -> u32 {
        1 << ((self.control & MME) >> 4).min(5)
    }
}

impl PciDevice {
    /// Adds the MSI capability for 1, 2, 4 … 32 vectors.
    ///
    /// # Errors
    /// No room for it.
    pub fn msi_init(&self, m: &mut Locked, at: Option<usize>, vectors: u32, is_64: bool, maskable: bool) -> Result<()> {
        if !vectors.is_power_of_two() || vectors > 32 {
            return Err(Error::generic(format!("MSI with {vectors} vectors is impossible")));
        }
        let mut control = (vectors.trailing_zeros() as u16) << 1;
        control |= if is_64 { BITS_64 } else { 0 } | if maskable { MASKABLE } else { 0 };
        let size = 10 + if is_64 { 4 } else { 0 } + if maskable { 10 } else { 0 };
        let at = self.add_capability(m, cap::MSI, at, size)?;
        let form = Form { at, control };
        self.config().rw(m).set_word(at + CONTROL, control);
        self.edit_masks(|k| {
            k.write.set_word(at + CONTROL, MME | ENABLE);
            k.write.set_long(at + ADDRESS, !3);
            if is_64 {
                k.write.set_long(at + ADDRESS + 4, u32::MAX);
            }
            k.write.set_word(form.data(), 0xffff);
            if let Some(mask) = form.mask() {
                k.write.set_long(mask, u32::MAX >> (32 - vectors));
            }
        });
        *self.msi_cap.write() = Some(at);
        Ok(())
    }

    fn msi_form(&self, m: &Locked) -> Option<Form> {
        let at = (*self.msi_cap.read())?;
        Some(Form { at, control: self.config().ro(m).word(at + CONTROL) })
    }

    /// Whether the guest has switched MSI on.
    pub fn msi_enabled(&self, m: &Locked) -> bool {
        self.msi_form(m).is_some_and(|f| f.control & ENABLE != 0)
    }

    /// Vectors the guest has allocated.
    pub fn msi_vectors(&self, m: &Locked) -> u32 {
        self.msi_form(m).map_or(0, |f| f.vectors())
    }

    /// Signals a vector: sends its message, or marks it pending if it is masked.
    pub fn msi_notify(&self, m: &mut Locked, vector: u32) {
        let Some(f) = self.msi_form(m).filter(|f| f.control & ENABLE != 0) else { return };
        let vector = vector % f.vectors();
        let c = self.config().rw(m);
        if let (Some(mask), Some(pending)) = (f.mask(), f.pending())
            && c.long(mask) >> vector & 1 != 0
        {
            c.set_long(pending, c.long(pending) | 1 << vector);
            return;
        }
        let (addr, data) = message(&f, c, vector);
        self.send_message(m, addr, data);
    }

    pub(super) fn msi_reset(&self, m: &mut Locked) {
        let Some(f) = self.msi_form(m) else { return };
        let c = self.config().rw(m);
        c.set_word(f.at + CONTROL, f.control & !(MME | ENABLE));
        c.set(f.at + ADDRESS, if f.is_64() { 8 } else { 4 }, 0);
        c.set_word(f.data(), 0);
        if let (Some(mask), Some(pending)) = (f.mask(), f.pending()) {
            c.set_long(mask, 0);
            c.set_long(pending, 0);
        }
    }

    /// The guest wrote to configuration space: INTx is off while MSI is on; vectors that were unmasked are sent.
    pub(super) fn msi_config_written(&self, m: &mut Locked, at: usize, len: usize) {
        let Some(f) = self.msi_form(m) else { return };
        if at >= f.at + 24 || at + len <= f.at || f.control & ENABLE == 0 {
            return;
        }
        self.set_intx(m, false);
        // More vectors than the capability offers cannot be allocated.
        let offered = (f.control >> 1 & 7).min(5);
        if (f.control & MME) >> 4 > offered {
            self.config().rw(m).set_word(f.at + CONTROL, f.control & !MME | offered << 4);
        }
        let (Some(mask), Some(pending)) = (f.mask(), f.pending()) else { return };
        let c = self.config().rw(m);
        let ready = c.long(pending) & !c.long(mask);
        c.set_long(pending, c.long(pending) & !ready);
        for vector in (0..f.vectors()).filter(|v| ready >> v & 1 != 0) {
            self.msi_notify(m, vector);
        }
    }
}

/// Address and data of a vector: its number replaces the low bits of the data.
fn message(f: &Form, c: &super::ConfigSpace, vector: u32) -> (u64, u32) {
    let addr = if f.is_64() { c.get(f.at + ADDRESS, 8) } else { c.get(f.at + ADDRESS, 4) };
    let data = u32::from(c.word(f.data()));
    (addr, (data & !(f.vectors() - 1)) | vector)
}
