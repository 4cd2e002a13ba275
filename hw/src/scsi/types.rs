//! Types `scsi-hd` and `scsi-cd`.

use super::disk::{ScsiDisk, refuse_quirks};
use super::disk_commands::DiskInfo;
use hw_core::{DeviceClass, DeviceImpl, Locked};
use qom::{Class, Error, Object, Prop, Result};

/// Type `scsi-hd`.
#[derive(Object)]
#[qom(name = "scsi-hd", parent = ScsiDisk, methods(DeviceClass), class_init = |c: &mut Class| {
    c.edit::<DeviceClass>().desc = "virtual SCSI disk";
})]
pub struct ScsiHd {
    parent: ScsiDisk,
    #[property(default = false)]
    removable: Prop<bool>,
    #[property(default = true)]
    dpofua: Prop<bool>,
    #[property(name = "rotation_rate", default = 0)]
    rotation_rate: Prop<u16>,
    #[property(name = "max_unmap_size", default = 1 << 30)]
    max_unmap_size: Prop<u64>,
    #[property(default = 0)]
    cyls: Prop<u32>,
    #[property(default = 0)]
    heads: Prop<u32>,
    #[property(default = 0)]
    secs: Prop<u32>,
    #[property(default = 0)]
    lcyls: Prop<u32>,
    #[property(default = 0)]
    lheads: Prop<u32>,
    #[property(default = 0)]
    lsecs: Prop<u32>,
}

impl DeviceImpl for ScsiHd {
    fn realize(&self, m: &mut Locked) -> Result<()> {
        if [&self.lcyls, &self.lheads, &self.lsecs].iter().any(|p| p.get() != 0) {
            return Err(Error::generic("translated geometries (lcyls, lheads, lsecs) are not built yet"));
        }
        let chs = (self.cyls.get(), self.heads.get(), self.secs.get());
        match chs {
            (0, 0, 0) | (1..=65535, 1..=255, 1..=255) => {}
            _ => return Err(Error::generic("cyls must be between 1 and 65535, heads and secs between 1 and 255")),
        }
        self.set_info(DiskInfo {
            removable: self.removable.get(),
            dpofua: self.dpofua.get(),
            rotation_rate: self.rotation_rate.get(),
            max_unmap: self.max_unmap_size.get(),
            chs,
            ..DiskInfo::default()
        });
        self.parent_realize(m)
    }
}

/// Type `scsi-cd`.
#[derive(Object)]
#[qom(name = "scsi-cd", parent = ScsiDisk, methods(DeviceClass), class_init = |c: &mut Class| {
    c.edit::<DeviceClass>().desc = "virtual SCSI CD-ROM";
})]
pub struct ScsiCd {
    parent: ScsiDisk,
    #[property(name = "quirk_mode_page_apple_vendor", default = false)]
    quirk_apple_vendor: Prop<bool>,
    #[property(name = "quirk_mode_page_truncated", default = false)]
    quirk_truncated: Prop<bool>,
    #[property(name = "quirk_mode_sense_rom_use_dbd", default = false)]
    quirk_dbd: Prop<bool>,
}

impl DeviceImpl for ScsiCd {
    fn realize(&self, m: &mut Locked) -> Result<()> {
        refuse_quirks(&[
            ("quirk_mode_page_apple_vendor", &self.quirk_apple_vendor),
            ("quirk_mode_page_truncated", &self.quirk_truncated),
            ("quirk_mode_sense_rom_use_dbd", &self.quirk_dbd),
        ])?;
        self.set_info(DiskInfo { rom: true, removable: true, ..DiskInfo::default() });
        self.parent_realize(m)
    }
}
