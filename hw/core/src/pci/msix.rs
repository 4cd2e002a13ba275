//! MSI-X: a table of messages in memory space. PCI 3.0 §6.8.2.

use qom::{Error, Result};
use serde::{Deserialize, Serialize};

use super::bar::BarKind;
use super::config::{ConfigSpace, cap};
use super::device::PciDevice;
use crate::locked::Locked;
use crate::memory::{MemoryRegion, Ops, Sizes};

/// Message control, offset 2 of the capability.
const CONTROL: usize = 2;
const ENABLE: u16 = 0x8000;
const MASK_ALL: u16 = 0x4000;
/// Bytes of a table entry: address, upper address, data, vector control.
const ENTRY: usize = 16;
const VECTOR_CONTROL: usize = 12;

/// Table and pending bits.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct MsixState {
    table: Vec<u32>,
    pending: Vec<u32>,
}

impl MsixState {
    fn word(&self, vector: usize, off: usize) -> u32 {
        self.table.get((vector * ENTRY + off) / 4).copied().unwrap_or(0)
    }
    fn masked(&self, vector: usize) -> bool {
        self.word(vector, VECTOR_CONTROL) & 1 != 0
    }
    fn set_pending(&mut self, vector: usize, on: bool) {
        if let Some(w) = self.pending.get_mut(vector / 32) {
            *w = if on { *w | 1 << (vector % 32) } else { *w & !(1 << (vector % 32)) };
        }
    }
    fn is_pending(&self, vector: usize) -> bool {
        self.pending.get(vector / 32).is_some_and(|w| w >> (vector % 32) & 1 != 0)
    }
    /// All vectors masked, as after reset.
    fn reset(entries: usize) -> Self {
        let mut s = Self { table: vec![0; entries * ENTRY / 4], pending: vec![0; entries.div_ceil(64) * 2] };
        s.table.chunks_mut(ENTRY / 4).filter_map(|e| e.last_mut()).for_each(|control| *control = 1);
        s
    }
}

/// Wiring of a function's MSI-X.
#[derive(Clone, Debug)]
pub(super) struct Msix {
    at: usize,
    entries: usize,
}

/// Where a table is: base address register, its region, offset in it.
pub struct MsixPlace<'a> {
    /// Number of the base address register.
    pub bar: u8,
    /// The region behind it.
    pub region: &'a MemoryRegion,
    /// Offset, a multiple of 8.
    pub offset: u32,
}

impl PciDevice {
    /// Adds the MSI-X capability for `entries` vectors, with table and pending bits at the given places.
    ///
    /// # Errors
    /// No room in configuration space, or an impossible number of vectors.
    pub fn msix_init(
        &self,
        m: &mut Locked,
        entries: usize,
        table: &MsixPlace<'_>,
        pba: &MsixPlace<'_>,
        at: Option<usize>,
    ) -> Result<()> {
        if !(1..=2048).contains(&entries) || (table.offset | pba.offset) & 7 != 0 {
            return Err(Error::generic(format!("MSI-X with {entries} vectors is impossible")));
        }
        let at = self.add_capability(m, cap::MSIX, at, 12)?;
        let c = self.config().rw(m);
        c.set_word(at + CONTROL, entries as u16 - 1);
        c.set_long(at + 4, table.offset | u32::from(table.bar & 7));
        c.set_long(at + 8, pba.offset | u32::from(pba.bar & 7));
        self.set_write_mask(at + CONTROL, 2, (ENABLE | MASK_ALL).into());
        *self.msix_state.rw(m) = MsixState::reset(entries);
        *self.msix.write() = Some(Msix { at, entries });
        let ops = || Ops { valid: Sizes::new(4, 8), imp: Sizes::new(4, 4), ..Ops::default() };
        let table_ops = Ops { read: Self::table_read, write: Self::table_write, ..ops() };
        let pba_ops = Ops { read: Self::pba_read, ..ops() };
        let table_region = MemoryRegion::io(self, "msix-table", (entries * ENTRY) as u64, table_ops);
        let pba_region = MemoryRegion::io(self, "msix-pba", (entries.div_ceil(64) * 8) as u64, pba_ops);
        table.region.add_subregion(m, table.offset.into(), &table_region);
        pba.region.add_subregion(m, pba.offset.into(), &pba_region);
        Ok(())
    }

    /// [`PciDevice::msix_init`] with a base address register of its own: the table at its start, the pending bits in
    /// its upper half.
    ///
    /// # Errors
    /// As [`PciDevice::msix_init`].
    pub fn msix_init_exclusive_bar(&self, m: &mut Locked, entries: usize, bar: u8) -> Result<()> {
        let half = (entries * ENTRY).next_power_of_two().max(2048) as u32;
        let name = format!("{}-msix", self.type_name());
        let region = MemoryRegion::container(&*self.object(), &name, u64::from(half) * 2);
        let (table, pba) =
            (MsixPlace { bar, region: &region, offset: 0 }, MsixPlace { bar, region: &region, offset: half });
        self.msix_init(m, entries, &table, &pba, None)?;
        self.register_bar(m, bar.into(), BarKind::Mem32, &region)
    }

    fn msix_wiring(&self) -> Option<Msix> {
        self.msix.read().clone()
    }

    fn msix_control(&self, m: &Locked) -> Option<(Msix, u16)> {
        let x = self.msix_wiring()?;
        let control = self.config().ro(m).word(x.at + CONTROL);
        Some((x, control))
    }

    /// Whether the guest has switched MSI-X on.
    pub fn msix_enabled(&self, m: &Locked) -> bool {
        self.msix_control(m).is_some_and(|(_, c)| c & ENABLE != 0)
    }

    /// Signals a vector: sends its message, or marks it pending if it is masked.
    pub fn msix_notify(&self, m: &mut Locked, vector: usize) {
        let Some((x, control)) = self.msix_control(m).filter(|(_, c)| c & ENABLE != 0) else { return };
        if vector >= x.entries {
            return;
        }
        let s = self.msix_state.rw(m);
        if control & MASK_ALL != 0 || s.masked(vector) {
            s.set_pending(vector, true);
            return;
        }
        let addr = u64::from(s.word(vector, 0)) | u64::from(s.word(vector, 4)) << 32;
        let data = s.word(vector, 8);
        self.send_message(m, addr, data);
    }

    /// Sends what is pending and no longer masked.
    fn msix_flush(&self, m: &mut Locked) {
        let Some((x, control)) = self.msix_control(m) else { return };
        if control & ENABLE == 0 || control & MASK_ALL != 0 {
            return;
        }
        for vector in 0..x.entries {
            let s = self.msix_state.rw(m);
            if s.is_pending(vector) && !s.masked(vector) {
                s.set_pending(vector, false);
                self.msix_notify(m, vector);
            }
        }
    }

    fn table_read(&self, m: &mut Locked, off: u64, _: u32) -> u64 {
        self.msix_state.ro(m).table.get(off as usize / 4).copied().unwrap_or(0).into()
    }

    fn table_write(&self, m: &mut Locked, off: u64, _: u32, val: u64) {
        if let Some(w) = self.msix_state.rw(m).table.get_mut(off as usize / 4) {
            *w = val as u32;
        }
        self.msix_flush(m);
    }

    fn pba_read(&self, m: &mut Locked, off: u64, _: u32) -> u64 {
        self.msix_state.ro(m).pending.get(off as usize / 4).copied().unwrap_or(0).into()
    }

    pub(super) fn msix_config_written(&self, m: &mut Locked, at: usize, len: usize) {
        let Some((x, control)) = self.msix_control(m) else { return };
        if at <= x.at + CONTROL + 1 && x.at + CONTROL < at + len && control & ENABLE != 0 {
            self.set_intx(m, false);
            self.msix_flush(m);
        }
    }

    pub(super) fn msix_reset(&self, m: &mut Locked) {
        let Some((x, control)) = self.msix_control(m) else { return };
        let c: &mut ConfigSpace = self.config().rw(m);
        c.set_word(x.at + CONTROL, control & !(ENABLE | MASK_ALL));
        *self.msix_state.rw(m) = MsixState::reset(x.entries);
    }

    pub(super) fn msix_post_load(&self, m: &mut Locked) -> Result<()> {
        let entries = self.msix_wiring().map_or(0, |x| x.entries);
        let (s, want) = (self.msix_state.ro(m), MsixState::reset(entries));
        if s.table.len() != want.table.len() || s.pending.len() != want.pending.len() {
            return Err(Error::generic("MSI-X table of another size"));
        }
        Ok(())
    }
}
