//! The drives that `-drive if=ide` and its short forms put on the board, and what CMOS says of disks.
//! Source: Ralf Brown's CMOS list (12H, 19H-2CH), SeaBIOS `rtc.h` (39H).

use crate::block::conf::HasDisk;
use crate::block::fdc::IsaFdc;
use crate::ide::bus::{IDE_UNITS, IdeBus, IdeDevice};
use crate::ide::drive::Kind;
use crate::net::e1000::E1000;
use crate::net::ne2000::{Ne2kIsa, Ne2kPci};
use crate::net::rtl8139::Rtl8139;
use crate::nvme::ctrl::Nvme;
use crate::nvme::ns::NvmeNs;
use crate::rtc::mc146818rtc::Mc146818Rtc;
use crate::scsi::disk::ScsiDisk;
use crate::virtio::blk::VirtioBlk;
use crate::virtio::net::VirtioNet;
use block::{Blocks, Interface};
use hw_core::{Bus, Core, Device, Locked, qdev::find_bus};
use qom::{Error, ObjRef, Ref, Result, Scope};
use serde_json::json;
use std::sync::Arc;

/// Channels of the controller.
const CHANNELS: u32 = 2;

fn channel(scope: &Arc<Scope>, n: u32) -> Option<Ref<Bus>> {
    find_bus(scope, &format!("ide.{n}")).ok()
}

/// Makes the drives.
///
/// # Errors
/// What a drive says of its image.
pub fn create(scope: &Arc<Scope>, m: &mut Locked) -> Result<()> {
    let Some(core) = scope.ext_arc::<Core>() else { return Ok(()) };
    let blocks = Blocks::of(&core);
    for n in 0..CHANNELS {
        for unit in 0..IDE_UNITS {
            let (Some(drive), Some(bus)) = (blocks.drive_at(Interface::Ide, n, unit), channel(scope, n)) else {
                continue;
            };
            let cdrom = drive.legacy().is_some_and(|l| l.cdrom);
            let dev: Ref<Device> = scope.object_new_as(if cdrom { "ide-cd" } else { "ide-hd" })?;
            dev.set_str("drive", drive.name())?;
            dev.set("unit", json!(unit))?;
            dev.realize_on(m, &bus)?;
        }
    }
    Ok(())
}

/// The machine's floppy controller.
pub fn floppy_controller(scope: &Arc<Scope>) -> Option<Ref<IsaFdc>> {
    let mut found = None;
    scope.root().walk(&mut |o| {
        if found.is_none() {
            found = Ref::<IsaFdc>::new(o.clone()).filter(|f| f.is_realized());
        }
    });
    found
}

/// Place in the boot order of a realized device that has one, and firmware's name of what it boots.
fn boot_entry(o: &ObjRef) -> Option<(i32, String)> {
    let (index, dev, suffix): (_, &Device, _) = if let Some(d) = o.cast::<IdeDevice>() {
        (d.disk_conf().boot_index()?, d, format!("disk@{}", d.unit.get()))
    } else if let Some(d) = o.cast::<VirtioBlk>() {
        (d.disk_conf().boot_index()?, d, "disk@0,0".to_owned())
    } else if let Some(d) = o.cast::<ScsiDisk>() {
        (d.disk_conf().boot_index()?, d, String::new())
    } else if let Some(d) = o.cast::<Nvme>() {
        (d.disk_conf().boot_index()?, d, "namespace@1,0".to_owned())
    } else if let Some(d) = o.cast::<NvmeNs>() {
        let controller = d.bus().and_then(|b| b.parent_device()).map(|c| c.fw_path()).unwrap_or_default();
        let index = d.disk_conf().boot_index()?;
        return d.is_realized().then(|| (index, format!("{controller}/namespace@{},0", d.number())));
    } else if let Some(d) = o.cast::<E1000>() {
        (d.boot_index()?, d, "ethernet-phy@0".to_owned())
    } else if let Some(d) = o.cast::<VirtioNet>() {
        (d.boot_index()?, d, "ethernet-phy@0".to_owned())
    } else if let Some(d) = o.cast::<Rtl8139>() {
        (d.boot_index()?, d, "ethernet-phy@0".to_owned())
    } else if let Some(d) = o.cast::<Ne2kPci>() {
        (d.boot_index()?, d, "ethernet-phy@0".to_owned())
    } else if let Some(d) = o.cast::<Ne2kIsa>() {
        (d.boot_index()?, d, "ethernet-phy@0".to_owned())
    } else {
        return None;
    };
    let below = if suffix.is_empty() { "" } else { "/" };
    dev.is_realized().then(|| (index, format!("{}{below}{suffix}", dev.fw_path())))
}

fn boot_entries(scope: &Arc<Scope>) -> Vec<(i32, String)> {
    let mut found = vec![];
    scope.root().walk(&mut |o| {
        found.extend(boot_entry(o));
        if let Some(fdc) = o.cast::<IsaFdc>().filter(|f| f.is_realized()) {
            let entry = |(unit, index)| (index, format!("{}/floppy@{unit}", fdc.fw_path()));
            found.extend(fdc.boot_indices().into_iter().map(entry));
        }
    });
    found.sort();
    found
}

/// Firmware's names of the devices that have a place in the boot order, in that order.
pub fn boot_order(scope: &Arc<Scope>) -> Vec<String> {
    boot_entries(scope).into_iter().map(|f| f.1).collect()
}

/// Whether a device may have this place in the boot order.
///
/// # Errors
/// Another one has it.
pub fn check_boot_index(scope: &Arc<Scope>, index: Option<i32>) -> Result<()> {
    match index {
        Some(n) if boot_entries(scope).iter().any(|e| e.0 == n) => {
            Err(Error::generic(format!("The bootindex {n} has already been used")))
        }
        _ => Ok(()),
    }
}

/// Writes the kinds of the floppy drives.
pub fn set_floppy_cmos(scope: &Arc<Scope>, rtc: &Mc146818Rtc, m: &mut Locked) {
    let fdc = floppy_controller(scope);
    let kind = |unit| fdc.as_ref().and_then(|f| f.floppy(unit)).map_or(0, |f| f.drive_type().cmos());
    super::cmos::set_floppies(rtc, m, [kind(0), kind(1)]);
}

/// Writes the types and geometries of the first channel's disks, and how firmware translates those of all.
pub fn set_cmos(scope: &Arc<Scope>, rtc: &Mc146818Rtc, m: &mut Locked) {
    let (mut types, mut translations) = (0u8, 0u8);
    for n in 0..CHANNELS {
        let Some(bus) = channel(scope, n).and_then(|b| Ref::<IdeBus>::new(Ref::object(&b).clone())) else { continue };
        for unit in 0..IDE_UNITS {
            let Some(info) = bus.unit(unit).map(|d| d.info()).filter(|i| i.kind == Kind::Hd) else { continue };
            let (cyls, heads, secs) = info.chs;
            // No translation below 1024 cylinders, else LBA.
            let small = cyls <= 1024 && heads <= 16 && secs <= 63;
            translations |= u8::from(!small) << (2 * (n * 2 + unit));
            if n != 0 {
                continue;
            }
            types |= if unit == 0 { 0xf0 } else { 0x0f };
            let [lo, hi] = (cyls as u16).to_le_bytes();
            let (kind, base) = if unit == 0 { (0x19, 0x1b) } else { (0x1a, 0x24) };
            rtc.set_cmos(m, kind, 47); // user defined
            let many = if heads > 8 { 1 << 3 } else { 0 };
            let bytes = [lo, hi, heads as u8, 0xff, 0xff, 0xc0 | many, lo, hi, secs as u8];
            for (at, v) in (base..).zip(bytes) {
                rtc.set_cmos(m, at, v);
            }
        }
    }
    rtc.set_cmos(m, 0x12, types);
    rtc.set_cmos(m, 0x39, translations);
}
