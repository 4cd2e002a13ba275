//! The properties that disks of all kinds have: drive, block sizes, error policy, place in the boot order. Names and limits are QEMU's.
//! Not modelled: `account-failed=off`, `account-invalid=off`, `stats-intervals`.

use block::{Backend, DriveSlot, ErrorPolicy, OnError};
use hw_core::Device;
use qom::{Class, Error, Level, OnOffAuto, Prop, PropType, Property, PropertyField, Result, Size};
use serde_json::json;
use std::sync::Arc;

/// Bytes of a sector, the least block size.
pub const SECTOR: u64 = 512;
/// `discard_granularity` without a value.
const AUTO: u64 = u32::MAX as u64;
/// Largest block.
const MAX_BLOCK: u64 = 2 << 20;

/// The properties.
pub struct DiskConf {
    /// `drive`.
    pub drive: DriveSlot,
    /// One more than `bootindex`.
    bootindex: Prop<i32>,
    logical_block_size: Prop<Size>,
    physical_block_size: Prop<Size>,
    min_io_size: Prop<Size>,
    opt_io_size: Prop<Size>,
    discard_granularity: Prop<Size>,
    write_cache: Prop<OnOffAuto>,
    share_rw: Prop<bool>,
    rerror: Prop<OnError>,
    werror: Prop<OnError>,
    account_failed: Prop<OnOffAuto>,
    account_invalid: Prop<OnOffAuto>,
    backend_defaults: Prop<OnOffAuto>,
}

impl Default for DiskConf {
    fn default() -> Self {
        Self {
            drive: DriveSlot::default(),
            bootindex: Prop::default(),
            logical_block_size: Prop::default(),
            physical_block_size: Prop::default(),
            min_io_size: Prop::default(),
            opt_io_size: Prop::default(),
            discard_granularity: Prop::new(Size(AUTO)),
            write_cache: Prop::new(OnOffAuto::Auto),
            share_rw: Prop::default(),
            rerror: Prop::default(),
            werror: Prop::default(),
            account_failed: Prop::new(OnOffAuto::Auto),
            account_invalid: Prop::new(OnOffAuto::Auto),
            backend_defaults: Prop::new(OnOffAuto::Auto),
        }
    }
}

/// A device that is a disk.
pub trait HasDisk: Level {
    /// Its properties.
    fn disk_conf(&self) -> &DiskConf;
}

/// Cylinders, heads and sectors per track of a disk whose user does not say otherwise: 16 heads, 63 sectors.
pub fn guessed_geometry(bytes: u64) -> (u32, u32, u32) {
    ((bytes / SECTOR / (16 * 63)).clamp(2, 16383) as u32, 16, 63)
}

impl DiskConf {
    /// Gives a class the properties that all disks have.
    pub fn properties<T: HasDisk>(c: &mut Class) {
        c.property(DriveSlot::property("drive", |d: &T| &d.disk_conf().drive));
        let size = |name, f: fn(&T) -> &Prop<Size>, default: u64| {
            Property::field(name, f).default_value(Size(default).to_json())
        };
        c.property(size("logical_block_size", |d| &d.disk_conf().logical_block_size, 0));
        c.property(size("physical_block_size", |d| &d.disk_conf().physical_block_size, 0));
        c.property(size("min_io_size", |d| &d.disk_conf().min_io_size, 0));
        c.property(size("opt_io_size", |d| &d.disk_conf().opt_io_size, 0));
        c.property(size("discard_granularity", |d| &d.disk_conf().discard_granularity, AUTO));
        let switch =
            |name, f: fn(&T) -> &Prop<OnOffAuto>| Property::field(name, f).default_value(OnOffAuto::Auto.to_json());
        c.property(switch("write-cache", |d| &d.disk_conf().write_cache));
        c.property(switch("account-failed", |d| &d.disk_conf().account_failed));
        c.property(switch("account-invalid", |d| &d.disk_conf().account_invalid));
        c.property(switch("backend_defaults", |d| &d.disk_conf().backend_defaults));
        c.property(Property::field("share-rw", |d: &T| &d.disk_conf().share_rw).default_value(false));
        c.property(Property::new("stats-intervals", "list").reader(|_| Ok(json!([]))).default_value(json!([])));
    }

    /// Gives a class `bootindex`.
    pub fn boot_property<T: HasDisk>(c: &mut Class) {
        c.property(
            Property::computed::<i32>("bootindex").getter(|d: &T| Ok(d.disk_conf().bootindex.get() - 1)).setter(
                |d: &T, n: i32| {
                    d.disk_conf().bootindex.set(n.saturating_add(1));
                    Ok(())
                },
            ),
        );
    }

    /// Gives a class `rerror` and `werror`.
    pub fn policy_properties<T: HasDisk>(c: &mut Class) {
        let action =
            |name, f: fn(&T) -> &Prop<OnError>| Property::field(name, f).default_value(OnError::Auto.to_json());
        c.property(action("rerror", |d| &d.disk_conf().rerror));
        c.property(action("werror", |d| &d.disk_conf().werror));
    }

    /// Checks sizes and fills in what has no value; `block` is the logical block where the user names none, `granularity` what discards
    /// are multiples of then, if the device wants a value.
    ///
    /// # Errors
    /// What does not fit.
    pub fn check(&self, block: u64, granularity: Option<u64>) -> Result<()> {
        if [&self.account_failed, &self.account_invalid].iter().any(|p| p.get() == OnOffAuto::Off) {
            return Err(Error::generic("account-failed=off and account-invalid=off are not built yet"));
        }
        for (name, size) in
            [("logical_block_size", &self.logical_block_size), ("physical_block_size", &self.physical_block_size)]
        {
            match size.get().0 {
                0 => size.set(Size(block)),
                n if n.is_power_of_two() && (SECTOR..=MAX_BLOCK).contains(&n) => {}
                _ => return Err(Error::generic(format!("{name} must be a power of 2 between 512 and {MAX_BLOCK}"))),
            }
        }
        let logical = self.block_size();
        if logical > self.physical_block_size.get().0 {
            return Err(Error::generic("logical_block_size > physical_block_size not supported"));
        }
        if let Some(granularity) = granularity.filter(|_| self.discard_granularity.get().0 == AUTO) {
            self.discard_granularity.set(Size(logical.max(granularity)));
        }
        for (name, n) in [
            ("min_io_size", self.min_io_size()),
            ("opt_io_size", self.opt_io_size()),
            ("discard_granularity", self.discard_granularity()),
        ] {
            if !n.is_multiple_of(logical) {
                return Err(Error::generic(format!("{name} must be a multiple of logical_block_size")));
            }
            if n > u64::from(u32::MAX) {
                return Err(Error::generic(format!("{name} must be at most {}", u32::MAX)));
            }
        }
        Ok(())
    }

    /// The device takes its drive: permissions, error policy, write cache.
    ///
    /// # Errors
    /// It has none, another device has it, or another user of the image is in the way.
    pub fn claim(&self, device: &Device, removable: bool) -> Result<Arc<Backend>> {
        let backend = self.drive.claim(device, removable, self.share_rw.get())?;
        let policy = |own: OnError, old: OnError| if own == OnError::Auto { old } else { own };
        let old = backend.policy();
        backend.set_policy(ErrorPolicy {
            read: policy(self.rerror.get(), old.read),
            write: policy(self.werror.get(), old.write),
        });
        match self.write_cache.get() {
            OnOffAuto::Auto => {}
            on => backend.set_write_cache(on == OnOffAuto::On),
        }
        Ok(backend)
    }

    /// The drive.
    pub fn backend(&self) -> Option<Arc<Backend>> {
        self.drive.get()
    }

    /// Place in the boot order, if it has one.
    pub fn boot_index(&self) -> Option<i32> {
        Some(self.bootindex.get() - 1).filter(|n| *n >= 0)
    }

    /// Bytes of a logical block, at least a sector.
    pub fn block_size(&self) -> u64 {
        self.logical_block_size.get().0.max(SECTOR)
    }

    /// Logical blocks of a physical one, as a power of two.
    pub fn physical_exponent(&self) -> u8 {
        (self.physical_block_size.get().0.max(self.block_size()) / self.block_size()).trailing_zeros() as u8
    }

    /// Bytes of the least transfer that is worth it; 0: not known.
    pub fn min_io_size(&self) -> u64 {
        self.min_io_size.get().0
    }

    /// Bytes of the best transfer; 0: not known.
    pub fn opt_io_size(&self) -> u64 {
        self.opt_io_size.get().0
    }

    /// Bytes that discards are multiples of; 0: the drive does not discard.
    pub fn discard_granularity(&self) -> u64 {
        match self.discard_granularity.get().0 {
            AUTO => self.block_size(),
            n => n,
        }
    }
}
