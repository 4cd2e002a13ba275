//! Namespaces: type `nvme-ns` on `nvme-bus`, and the one that a controller's own `drive` is. Source: NVM Express 1.4 §6.1.

use super::ctrl::Nvme;
use crate::block::conf::{DiskConf, HasDisk};
use block::{Backend, Media};
use hw_core::{Bus, BusClass, BusImpl, Category, Device, DeviceClass, DeviceImpl, Locked};
use qom::{Class, Error, Handle, Level, Object, Prop, Ref, Result, Size};
use std::sync::Arc;

/// Highest number of a namespace.
pub(super) const MAX_NAMESPACES: u32 = 256;

/// Type `nvme-bus`.
#[derive(Object)]
#[qom(name = "nvme-bus", parent = Bus, methods(BusClass))]
pub struct NvmeBus {
    parent: Bus,
}

impl BusImpl for NvmeBus {}

/// What a controller knows of a namespace.
#[derive(Clone, Debug)]
pub(super) struct Namespace {
    pub backend: Arc<Backend>,
    /// Bytes of a block.
    pub block: u64,
    pub uuid: [u8; 16],
    pub nguid: [u8; 16],
    pub eui64: u64,
    /// Discards reach the host in pieces of so many bytes.
    pub granularity: u64,
    /// The write cache as the user wants it.
    pub write_cache: bool,
}

impl Namespace {
    /// Blocks.
    pub fn blocks(&self) -> u64 {
        self.backend.len() / self.block
    }

    /// Where blocks are, in bytes, if there are so many.
    pub fn place(&self, slba: u64, n: u64) -> Option<(u64, u64)> {
        let end = slba.checked_add(n).filter(|end| *end <= self.blocks())?;
        Some(((end - n) * self.block, n * self.block))
    }
}

/// A namespace's size: how its drive tells the controller.
pub(super) struct NsMedia {
    pub ctrl: Handle<Nvme>,
    pub nsid: u32,
}

impl Media for NsMedia {
    fn resized(&self) {
        self.ctrl.with(|c| c.namespace_changed(&mut c.core().lock(), self.nsid));
    }
}

/// Hexadecimal digits, `-` between them, as bytes.
fn hex(text: &str) -> Option<[u8; 16]> {
    let digits: Vec<u8> =
        text.chars().filter(|c| *c != '-').map(|c| c.to_digit(16).map(|d| d as u8)).collect::<Option<_>>()?;
    let bytes: Vec<u8> = digits.chunks_exact(2).map(|d| d.iter().fold(0, |v, d| v << 4 | d)).collect();
    if digits.len() == 32 { bytes.try_into().ok() } else { None }
}

/// Type `nvme-ns`.
#[derive(Object)]
#[qom(name = "nvme-ns", parent = Device, methods(DeviceClass), class_init = NvmeNs::class_init)]
pub struct NvmeNs {
    parent: Device,
    conf: DiskConf,
    #[property(default = 0)]
    nsid: Prop<u32>,
    #[property]
    uuid: Prop<String>,
    #[property]
    nguid: Prop<String>,
    #[property(default = 0)]
    eui64: Prop<u64>,
    #[property(name = "eui64-default", default = false)]
    eui64_default: Prop<bool>,
    /// With one controller there is nobody to share with.
    #[property(default = true)]
    shared: Prop<bool>,
    #[property(default = false)]
    detached: Prop<bool>,
    #[property(default = 0)]
    ms: Prop<u16>,
    #[property(default = 0)]
    mset: Prop<u8>,
    #[property(default = 0)]
    pi: Prop<u8>,
    #[property(default = 0)]
    pil: Prop<u8>,
    #[property(default = 0)]
    pif: Prop<u8>,
    /// Limits of copies, which there are not.
    #[property(default = 128)]
    mssrl: Prop<u16>,
    #[property(default = 128)]
    mcl: Prop<u32>,
    #[property(default = 127)]
    msrc: Prop<u8>,
    #[property(default = false)]
    zoned: Prop<bool>,
    #[property(name = "zoned.zone_size", default = Size(128 << 20))]
    zone_size: Prop<Size>,
    #[property(name = "zoned.zone_capacity", default = Size(0))]
    zone_capacity: Prop<Size>,
    #[property(name = "zoned.cross_read", default = false)]
    cross_read: Prop<bool>,
    #[property(name = "zoned.max_active", default = 0)]
    max_active: Prop<u32>,
    #[property(name = "zoned.max_open", default = 0)]
    max_open: Prop<u32>,
    #[property(name = "zoned.descr_ext_size", default = 0)]
    descr_ext_size: Prop<u32>,
    #[property(name = "zoned.numzrwa", default = 0)]
    numzrwa: Prop<u32>,
    #[property(name = "zoned.zrwas", default = Size(0))]
    zrwas: Prop<Size>,
    #[property(name = "zoned.zrwafg", default = Size(u64::MAX))]
    zrwafg: Prop<Size>,
    #[property(name = "fdp.ruhs")]
    ruhs: Prop<String>,
    #[property(name = "atomic.nabo", default = 0)]
    nabo: Prop<u16>,
    #[property(name = "atomic.nabsn", default = 0)]
    nabsn: Prop<u16>,
    #[property(name = "atomic.nabspf", default = 0)]
    nabspf: Prop<u16>,
    #[property(name = "atomic.nawun", default = 0)]
    nawun: Prop<u16>,
    #[property(name = "atomic.nawupf", default = 0)]
    nawupf: Prop<u16>,
}

impl HasDisk for NvmeNs {
    fn disk_conf(&self) -> &DiskConf {
        &self.conf
    }
}

impl NvmeNs {
    fn class_init(c: &mut Class) {
        let d = c.edit::<DeviceClass>();
        d.bus_type = Some("nvme-bus");
        d.desc = "Virtual NVMe namespace";
        d.categories = vec![Category::Storage];
        DiskConf::properties::<NvmeNs>(c);
        DiskConf::boot_property::<NvmeNs>(c);
    }

    /// Its number.
    pub fn number(&self) -> u32 {
        self.nsid.get()
    }

    /// Says what is not built.
    fn check(&self) -> Result<()> {
        let asked = [
            (self.detached.get(), "detached"),
            ([self.ms.get(), self.mset.get().into(), self.pi.get().into()] != [0; 3], "metadata (ms, mset, pi)"),
            (self.pil.get() != 0 || self.pif.get() != 0, "protection information (pil, pif)"),
            (self.zoned.get(), "zoned"),
            (!self.ruhs.get().is_empty(), "fdp.ruhs"),
            (
                [&self.nabo, &self.nabsn, &self.nabspf, &self.nawun, &self.nawupf].iter().any(|p| p.get() != 0),
                "atomic writes (atomic.*)",
            ),
        ];
        match asked.iter().find(|a| a.0) {
            Some((_, what)) => Err(Error::generic(format!("nvme-ns: {what} is not built yet"))),
            None => Ok(()),
        }
    }

    fn controller(&self) -> Option<Ref<Nvme>> {
        let device: &Device = self;
        Ref::new(Ref::into_object(device.bus()?.parent_device()?))
    }
}

/// Makes a namespace of a drive, which the device takes.
///
/// # Errors
/// Block sizes or the drive do not fit.
pub(super) fn open(conf: &DiskConf, device: &Device) -> Result<Namespace> {
    conf.check(512, Some(4096))?;
    crate::i386::drives::check_boot_index(device.scope(), conf.boot_index())?;
    let backend = conf.claim(device, false)?;
    backend.without_io_status();
    if backend.root().is_none() {
        conf.drive.release();
        return Err(Error::generic("Device needs media, but drive is empty"));
    }
    let write_cache = backend.write_cache();
    Ok(Namespace {
        backend,
        write_cache,
        block: conf.block_size(),
        uuid: [0; 16],
        nguid: [0; 16],
        eui64: 0,
        granularity: conf.discard_granularity(),
    })
}

impl DeviceImpl for NvmeNs {
    fn realize(&self, m: &mut Locked) -> Result<()> {
        self.check()?;
        let ctrl = self.controller().ok_or_else(|| Error::generic("'nvme-ns' needs an NVMe controller"))?;
        let identifier = |name: &str, text: String| match (text.as_str(), hex(&text)) {
            ("" | "auto", _) => Ok([0; 16]),
            (_, Some(bytes)) => Ok(bytes),
            (_, None) => Err(Error::generic(format!("{name} must have 32 hexadecimal digits"))),
        };
        let (uuid, nguid) = (identifier("uuid", self.uuid.get())?, identifier("nguid", self.nguid.get())?);
        let nsid = match self.nsid.get() {
            0 => ctrl.free_namespace().ok_or_else(|| Error::generic("no free namespace id"))?,
            n if n > MAX_NAMESPACES => {
                return Err(Error::generic(format!("invalid namespace id (must be between 0 and {MAX_NAMESPACES})")));
            }
            n if ctrl.namespace(n).is_some() => {
                return Err(Error::generic(format!("namespace id '{n}' already allocated")));
            }
            n => n,
        };
        self.nsid.set(nsid);
        let device: &Device = self;
        let mut ns = open(&self.conf, device)?;
        // What machines before 6.1 had: Intel's prefix, then the number.
        let eui64 = if self.eui64_default.get() { 0x5254_0000_0000_0000 + u64::from(nsid) } else { 0 };
        (ns.uuid, ns.nguid) = (uuid, nguid);
        ns.eui64 = if self.eui64.get() != 0 { self.eui64.get() } else { eui64 };
        if let Err(e) = self.parent_realize(m) {
            self.conf.drive.release();
            return Err(e);
        }
        ns.backend.set_media(Arc::new(NsMedia { ctrl: ctrl.this(), nsid }));
        ctrl.attach(m, nsid, ns);
        Ok(())
    }

    fn unrealize(&self, m: &mut Locked) {
        if let Some(ctrl) = self.controller() {
            ctrl.detach(m, self.nsid.get());
        }
        self.parent_unrealize(m);
        self.conf.drive.release();
    }
}
