//! Registers of virtio functions. Source: virtio 1.2 §4.1.4.3 (common configuration), §4.1.4.4 (notifications), §4.1.4.5 (interrupt
//! status), §4.1.4.10 (legacy). Where the text leaves room the behaviour is QEMU's: a register answers at its own offset whatever the
//! width.

use super::device::{MAX_QUEUES, VirtioDevice, feature, status};
use super::pci::VirtioPci;
use super::ring::NO_VECTOR;
use hw_core::pci::{command, reg};
use hw_core::{Locked, Ops, PciDevice, Sizes};
use serde::{Deserialize, Serialize};

/// Bytes of the windows for common configuration, interrupt status and device configuration.
pub(super) const WINDOW: u32 = 0x1000;
/// Legacy registers before the device's configuration, without and with vectors.
const LEGACY_LEN: u64 = 20;
const LEGACY_MSIX_LEN: u64 = 24;
/// What registers that are not there answer.
const NOTHING: u64 = u64::MAX;

/// What the transport itself remembers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PciRegs {
    /// Which word of the features is shown.
    device_feature_select: u32,
    /// Which word of the accepted features is meant.
    driver_feature_select: u32,
    /// What the driver wrote there.
    driver_feature: [u32; 2],
}

/// Offsets of the common configuration. §4.1.4.3
mod common {
    pub const DEVICE_FEATURE_SELECT: u64 = 0x00;
    pub const DEVICE_FEATURE: u64 = 0x04;
    pub const DRIVER_FEATURE_SELECT: u64 = 0x08;
    pub const DRIVER_FEATURE: u64 = 0x0c;
    pub const CONFIG_MSIX_VECTOR: u64 = 0x10;
    pub const NUM_QUEUES: u64 = 0x12;
    pub const DEVICE_STATUS: u64 = 0x14;
    pub const CONFIG_GENERATION: u64 = 0x15;
    pub const QUEUE_SELECT: u64 = 0x16;
    pub const QUEUE_SIZE: u64 = 0x18;
    pub const QUEUE_MSIX_VECTOR: u64 = 0x1a;
    pub const QUEUE_ENABLE: u64 = 0x1c;
    pub const QUEUE_NOTIFY_OFF: u64 = 0x1e;
    pub const QUEUE_DESC: u64 = 0x20;
    pub const QUEUE_DRIVER: u64 = 0x28;
    pub const QUEUE_DEVICE: u64 = 0x30;
    pub const QUEUE_NOTIFY_DATA: u64 = 0x38;
    pub const QUEUE_RESET: u64 = 0x3a;
}

/// Offsets of the legacy registers. §4.1.4.10
mod legacy {
    pub const HOST_FEATURES: u64 = 0;
    pub const GUEST_FEATURES: u64 = 4;
    pub const QUEUE_PFN: u64 = 8;
    pub const QUEUE_NUM: u64 = 12;
    pub const QUEUE_SEL: u64 = 14;
    pub const QUEUE_NOTIFY: u64 = 16;
    pub const STATUS: u64 = 18;
    pub const ISR: u64 = 19;
    pub const CONFIG_VECTOR: u64 = 20;
    pub const QUEUE_VECTOR: u64 = 22;
}

fn half(v: u64, at: u64) -> u64 {
    if at & 4 == 0 { v & 0xffff_ffff } else { v >> 32 }
}

fn with_half(v: u64, at: u64, new: u64) -> u64 {
    let new = new & 0xffff_ffff;
    if at & 4 == 0 { v & !0xffff_ffff | new } else { v & 0xffff_ffff | new << 32 }
}

impl VirtioPci {
    /// Handlers of common configuration, interrupt status, device configuration.
    pub(super) fn modern_ops() -> [Ops<VirtioPci>; 3] {
        let sizes = Sizes::new(1, 4);
        let ops = || Ops { valid: sizes, imp: sizes, ..Ops::default() };
        [
            Ops {
                read: |d: &VirtioPci, m, at, _| d.common_read(m, at),
                write: |d, m, at, _, v| d.common_write(m, at, v),
                ..ops()
            },
            Ops { read: |d, m, _, _| d.isr_read(m), ..ops() },
            Ops {
                read: |d, m, at, size| d.device_read(m, at, size),
                write: |d, m, at, size, v| d.device_write(m, at, size, v),
                ..ops()
            },
        ]
    }

    /// Handlers of the notification registers.
    pub(super) fn notify_ops() -> Ops<VirtioPci> {
        let sizes = Sizes::new(1, 4);
        Ops {
            write: |d: &VirtioPci, m, at, _, _| d.notify(m, at / u64::from(d.notify_step())),
            valid: sizes,
            imp: sizes,
            ..Ops::default()
        }
    }

    /// Handlers of the notification port.
    pub(super) fn port_ops() -> Ops<VirtioPci> {
        let sizes = Sizes::new(1, 4);
        Ops { write: |d: &VirtioPci, m, _, _, v| d.notify(m, v), valid: sizes, imp: sizes, ..Ops::default() }
    }

    /// Handlers of the legacy registers.
    pub(super) fn legacy_ops() -> Ops<VirtioPci> {
        Ops {
            read: |d: &VirtioPci, m, at, size| d.legacy_read(m, at, size),
            write: |d, m, at, size, v| d.legacy_write(m, at, size, v),
            imp: Sizes::new(1, 4),
            ..Ops::default()
        }
    }

    /// Reads by offset in the window of modern registers.
    pub(super) fn modern_read(&self, m: &mut Locked, at: u64, size: u32) -> Option<u64> {
        let window = u64::from(WINDOW);
        Some(match at / window {
            0 => self.common_read(m, at),
            1 => self.isr_read(m),
            2 => self.device_read(m, at - 2 * window, size),
            _ if self.queue_at(at).is_some() => 0,
            _ => return None,
        })
    }

    /// Writes by offset in the window of modern registers.
    pub(super) fn modern_write(&self, m: &mut Locked, at: u64, size: u32, val: u64) {
        let window = u64::from(WINDOW);
        match at / window {
            0 => self.common_write(m, at, val),
            1 => {}
            2 => self.device_write(m, at - 2 * window, size, val),
            _ => {
                if let Some(n) = self.queue_at(at) {
                    self.notify(m, n);
                }
            }
        }
    }

    /// Number of the queue whose notification register is at an offset of the window.
    fn queue_at(&self, at: u64) -> Option<u64> {
        let n = at.checked_sub(3 * u64::from(WINDOW))? / u64::from(self.notify_step());
        (n < MAX_QUEUES as u64).then_some(n)
    }

    fn notify(&self, m: &mut Locked, n: u64) {
        if let (Some(dev), Ok(n)) = (self.backend(), usize::try_from(n)) {
            dev.notified(m, n);
        }
    }

    fn isr_read(&self, m: &mut Locked) -> u64 {
        let Some(dev) = self.backend() else { return 0 };
        let isr = std::mem::take(&mut dev.regs().rw(m).isr);
        self.set_intx(m, false);
        isr.into()
    }

    fn device_read(&self, m: &mut Locked, at: u64, size: u32) -> u64 {
        self.backend().and_then(|d| d.read_config(m, at, size)).unwrap_or(NOTHING)
    }

    fn device_write(&self, m: &mut Locked, at: u64, size: u32, val: u64) {
        if let Some(d) = self.backend() {
            d.write_config(m, at, size, val);
        }
    }

    fn common_read(&self, m: &mut Locked, at: u64) -> u64 {
        let Some(dev) = self.backend() else { return NOTHING };
        let own = *self.regs.ro(m);
        let features = dev.offered() & !feature::LEGACY;
        let regs = dev.regs().rw(m);
        let number = regs.queue_sel;
        let queues = regs.queues.iter().rposition(|q| q.max != 0).map_or(0, |n| n as u64 + 1);
        match at {
            common::DEVICE_FEATURE_SELECT => own.device_feature_select.into(),
            common::DEVICE_FEATURE => match own.device_feature_select {
                n @ 0..=1 => features >> (32 * n) & 0xffff_ffff,
                _ => 0,
            },
            common::DRIVER_FEATURE_SELECT => own.driver_feature_select.into(),
            common::DRIVER_FEATURE => {
                own.driver_feature.get(own.driver_feature_select as usize).copied().unwrap_or(0).into()
            }
            common::CONFIG_MSIX_VECTOR => regs.config_vector.into(),
            common::NUM_QUEUES => queues,
            common::DEVICE_STATUS => regs.status.into(),
            common::CONFIG_GENERATION => regs.generation.into(),
            common::QUEUE_SELECT => number.into(),
            common::QUEUE_NOTIFY_OFF => number.into(),
            common::QUEUE_NOTIFY_DATA | common::QUEUE_RESET => 0,
            _ => {
                let q = regs.selected();
                let q = q.as_deref();
                match at {
                    common::QUEUE_SIZE => q.map_or(0, |q| q.size.into()),
                    common::QUEUE_MSIX_VECTOR => q.map_or(NO_VECTOR, |q| q.vector).into(),
                    common::QUEUE_ENABLE => q.is_some_and(|q| q.enabled).into(),
                    0x20 | 0x24 => half(q.map_or(0, |q| q.desc), at),
                    0x28 | 0x2c => half(q.map_or(0, |q| q.driver), at),
                    0x30 | 0x34 => half(q.map_or(0, |q| q.device), at),
                    _ => 0,
                }
            }
        }
    }

    /// A vector that the function has, or none: what the driver reads back tells it.
    fn vector(&self, val: u64) -> u16 {
        if val < u64::from(self.vector_count()) { val as u16 } else { NO_VECTOR }
    }

    fn common_write(&self, m: &mut Locked, at: u64, val: u64) {
        let Some(dev) = self.backend() else { return };
        match at {
            common::DEVICE_FEATURE_SELECT => self.regs.rw(m).device_feature_select = val as u32,
            common::DRIVER_FEATURE_SELECT => self.regs.rw(m).driver_feature_select = val as u32,
            common::DRIVER_FEATURE => {
                let own = self.regs.rw(m);
                if let Some(word) = own.driver_feature.get_mut(own.driver_feature_select as usize) {
                    *word = val as u32;
                    let [low, high] = own.driver_feature;
                    dev.set_features(m, u64::from(high) << 32 | u64::from(low));
                }
            }
            common::CONFIG_MSIX_VECTOR => dev.regs().rw(m).config_vector = self.vector(val),
            common::DEVICE_STATUS => {
                dev.set_status(m, val as u8);
                self.reset_with_device(m, &dev);
            }
            common::QUEUE_SELECT if val < MAX_QUEUES as u64 => dev.regs().rw(m).queue_sel = val as u16,
            common::QUEUE_RESET if val == 1 => {
                let n = usize::from(dev.regs().ro(m).queue_sel);
                dev.reset_queue(m, n);
            }
            common::QUEUE_ENABLE if val != 1 => dev.set_broken(m, &format!("wrong value for queue_enable {val:x}")),
            _ => {
                let vector = self.vector(val);
                let Some(q) = dev.regs().rw(m).selected() else { return };
                match at {
                    common::QUEUE_SIZE => q.set_size(val as u16),
                    common::QUEUE_MSIX_VECTOR => q.vector = vector,
                    common::QUEUE_ENABLE => q.enabled = true,
                    at if at & !4 == common::QUEUE_DESC => q.desc = with_half(q.desc, at, val),
                    at if at & !4 == common::QUEUE_DRIVER => q.driver = with_half(q.driver, at, val),
                    at if at & !4 == common::QUEUE_DEVICE => q.device = with_half(q.device, at, val),
                    _ => {}
                }
            }
        }
    }

    /// After a write of the device status.
    fn reset_with_device(&self, m: &mut Locked, dev: &VirtioDevice) {
        if dev.regs().ro(m).status == 0 {
            *self.regs.rw(m) = PciRegs::default();
            self.set_intx(m, false);
        }
    }

    /// Length of the legacy registers now.
    fn legacy_len(&self, m: &Locked) -> u64 {
        if self.msix_enabled(m) { LEGACY_MSIX_LEN } else { LEGACY_LEN }
    }

    fn legacy_read(&self, m: &mut Locked, at: u64, size: u32) -> u64 {
        let Some(dev) = self.backend() else { return NOTHING };
        if let Some(at) = at.checked_sub(self.legacy_len(m)) {
            return self.device_read(m, at, size);
        }
        let offered = dev.offered();
        let regs = dev.regs().rw(m);
        match at {
            legacy::HOST_FEATURES => offered & 0xffff_ffff,
            legacy::GUEST_FEATURES => regs.features & 0xffff_ffff,
            legacy::QUEUE_PFN => regs.selected().map_or(0, |q| q.desc >> 12),
            legacy::QUEUE_NUM => regs.selected().map_or(0, |q| q.size.into()),
            legacy::QUEUE_SEL => regs.queue_sel.into(),
            legacy::STATUS => regs.status.into(),
            legacy::ISR => self.isr_read(m),
            legacy::CONFIG_VECTOR => regs.config_vector.into(),
            legacy::QUEUE_VECTOR => regs.selected().map_or(NO_VECTOR, |q| q.vector).into(),
            _ => NOTHING,
        }
    }

    fn legacy_write(&self, m: &mut Locked, at: u64, size: u32, val: u64) {
        let Some(dev) = self.backend() else { return };
        if let Some(at) = at.checked_sub(self.legacy_len(m)) {
            return self.device_write(m, at, size, val);
        }
        match at {
            legacy::GUEST_FEATURES => {
                // A driver that accepts everything has not looked: it gets nothing.
                let wanted = if val & feature::BAD_FEATURE != 0 { 0 } else { val & 0xffff_ffff };
                dev.set_features(m, wanted);
            }
            legacy::QUEUE_PFN if val == 0 => {
                dev.reset_device(m);
                self.reset_with_device(m, &dev);
            }
            legacy::QUEUE_PFN => {
                if let Some(q) = dev.regs().rw(m).selected() {
                    q.set_legacy_address((val & 0xffff_ffff) << 12);
                }
            }
            legacy::QUEUE_SEL if val < MAX_QUEUES as u64 => dev.regs().rw(m).queue_sel = val as u16,
            legacy::QUEUE_NOTIFY => self.notify(m, val & 0xffff),
            legacy::STATUS => {
                dev.set_status(m, val as u8);
                self.reset_with_device(m, &dev);
                // Linux before 2.6.34 does not make the function a bus master.
                if val as u8 == status::ACKNOWLEDGE | status::DRIVER {
                    let word = self.config().ro(m).word(reg::COMMAND) | command::MASTER;
                    let function: &PciDevice = self;
                    function.default_config_write(m, reg::COMMAND as u32, 2, word.into());
                }
            }
            legacy::CONFIG_VECTOR => dev.regs().rw(m).config_vector = self.vector(val & 0xffff),
            legacy::QUEUE_VECTOR => {
                let vector = self.vector(val & 0xffff);
                if let Some(q) = dev.regs().rw(m).selected() {
                    q.vector = vector;
                }
            }
            _ => {}
        }
    }
}
