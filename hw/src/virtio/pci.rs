//! Type `virtio-pci`: virtio over PCI, and its bus `virtio-pci-bus`. Source: virtio 1.2 §4.1; §4.1.5.1 (legacy registers): §4.1.4.10.
//!
//! A function shows the modern registers in a memory window that vendor capabilities describe, the legacy ones in an I/O window, or
//! both. Registers: `pci_regs`; the types users see: `pci_types`. PCI Express properties (`ats`, `aer`,
//! `x-pcie-*`) have no effect on a conventional bus, as on QEMU. Not modelled: the migration of a bus master bug of old versions.

use super::device::{Transport, VirtioBus, VirtioDevice, feature};
use super::pci_regs::{PciRegs, WINDOW};
use hw_core::memory::Attrs;
use hw_core::pci::{BarKind, cap, command, reg};
use hw_core::{
    AddressSpace, Bus, Category, Device, DeviceClass, DeviceImpl, Locked, MachineCell, MemoryRegion, PciDevice,
    PciDeviceClass, PciImpl, Phase,
};
use parking_lot::RwLock;
use qom::{Class, Error, Handle, Level, Object, OnOffAuto, Prop, Ref, Result};
use std::sync::Arc;

/// Device ids of modern functions begin here. §4.1.2.1
const MODERN_ID: u16 = 0x1040;
/// Base address registers, as QEMU numbers them: legacy registers, MSI-X, notifications by port, modern registers.
const LEGACY_BAR: usize = 0;
const MSIX_BAR: u8 = 1;
const PORT_BAR: usize = 2;
const MODERN_BAR: usize = 4;
/// `vectors` without a value: as many as the device has use for.
pub const AUTO_VECTORS: u32 = u32::MAX;

/// Which registers a type shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// What `disable-legacy` and `disable-modern` say.
    #[default]
    Chosen,
    /// Both.
    Transitional,
    /// The modern ones.
    Modern,
}

/// Class struct of virtio functions.
#[derive(Clone, Debug, Default)]
pub struct VirtioPciClass {
    /// Type of the device behind it.
    pub backend: &'static str,
    /// Device id of a function with legacy registers; 0: there is none.
    pub transitional_id: u16,
    /// Which registers the type shows.
    pub mode: Mode,
    /// Interrupt vectors besides one a queue, where `vectors` has no value.
    pub extra_vectors: u32,
}

/// Type `virtio-pci-bus`.
#[derive(Object)]
#[qom(name = "virtio-pci-bus", parent = VirtioBus)]
pub struct VirtioPciBus {
    parent: VirtioBus,
}

/// Where a capability's registers are. §4.1.4
#[derive(Clone, Copy, Debug)]
struct Window {
    kind: u8,
    bar: usize,
    offset: u32,
    len: u32,
    /// Bytes of the capability.
    size: usize,
    /// Last word of a larger capability.
    more: u32,
}

/// `cfg_type` of the configuration access capability.
const PCI_CFG: u8 = 5;

/// Type `virtio-pci`.
#[derive(Object)]
#[qom(name = "virtio-pci", parent = PciDevice, abstract, methods(DeviceClass, PciDeviceClass),
    class_init = VirtioPci::class_init, instance_init = VirtioPci::instance_init)]
pub struct VirtioPci {
    parent: PciDevice,
    #[property(name = "virtio-pci-bus-master-bug-migration", default = false)]
    bus_master_bug: Prop<bool>,
    #[property(name = "modern-pio-notify", default = false)]
    modern_pio_notify: Prop<bool>,
    #[property(name = "page-per-vq", default = false)]
    page_per_vq: Prop<bool>,
    #[property(default = false)]
    ats: Prop<bool>,
    #[property(name = "x-ats-page-aligned", default = true)]
    ats_page_aligned: Prop<bool>,
    #[property(name = "x-pcie-flr-init", default = true)]
    pcie_flr_init: Prop<bool>,
    #[property(name = "x-pcie-pm-no-soft-reset", default = false)]
    pcie_pm_no_soft_reset: Prop<bool>,
    #[property(default = false)]
    aer: Prop<bool>,
    /// `vectors`, of the types that have it.
    pub vectors: Prop<u32>,
    /// `class`, of the types that have it.
    pub class_code: Prop<u32>,
    /// `ioeventfd`: where notifications would be taken without leaving the guest; here it makes no difference.
    pub ioeventfd: Prop<bool>,
    /// `disable-legacy`, of the types that have it.
    pub disable_legacy: Prop<OnOffAuto>,
    /// `disable-modern`, of the types that have it.
    pub disable_modern: Prop<bool>,
    #[state]
    pub(super) regs: MachineCell<PciRegs>,
    backend: RwLock<Handle<VirtioDevice>>,
    /// Place of the configuration access capability.
    window: RwLock<Option<usize>>,
}

/// Interrupts and memory of a function.
struct PciTransport(Handle<VirtioPci>);

impl Transport for PciTransport {
    fn interrupt(&self, m: &mut Locked, vector: u16) {
        self.0.with(|d| {
            if d.msix_enabled(m) {
                d.msix_notify(m, vector.into());
            } else {
                d.update_line(m);
            }
        });
    }

    fn dma(&self, m: &Locked) -> Option<(AddressSpace, Attrs)> {
        let d = self.0.upgrade()?;
        let master = d.config().ro(m).word(reg::COMMAND) & command::MASTER != 0;
        master.then(|| (d.dma_space(), Attrs::requester(d.requester_id(m))))
    }
}

impl VirtioPci {
    fn class_init(c: &mut Class) {
        c.edit::<VirtioPciClass>();
        c.edit::<DeviceClass>().categories = vec![Category::Misc];
        let p = c.edit::<PciDeviceClass>();
        (p.vendor_id, p.device_id, p.class_id) = (0x1af4, 0, 0x00ff);
    }

    /// Makes the device behind it, whose properties become its own.
    fn instance_init(&self) -> Result<()> {
        self.vectors.set(AUTO_VECTORS);
        self.ioeventfd.set(true);
        self.disable_legacy.set(OnOffAuto::Auto);
        let backend = self.scope().object_new(self.virtio_pci_class().backend)?;
        let me = self.object();
        me.add_child("virtio-backend", &backend)?;
        let ordinary = qom::Registry::global().class("device")?;
        for p in backend.class().properties() {
            if ordinary.find_property(p.name()).is_none() && !me.has_property(p.name()) {
                me.add_alias(p.name(), &backend, p.name())?;
            }
        }
        *self.backend.write() = Handle::new(&backend).unwrap_or_default();
        Ok(())
    }

    fn virtio_pci_class(&self) -> &'static VirtioPciClass {
        self.class().get().expect("classes below 'virtio-pci' have a VirtioPciClass")
    }

    /// The device behind it.
    pub fn backend(&self) -> Option<Ref<VirtioDevice>> {
        self.backend.read().upgrade()
    }

    /// Whether legacy and modern registers are shown.
    fn modes(&self) -> (bool, bool) {
        match self.virtio_pci_class().mode {
            Mode::Transitional => (true, true),
            Mode::Modern => (false, true),
            Mode::Chosen => (self.disable_legacy.get() != OnOffAuto::On, !self.disable_modern.get()),
        }
    }

    /// INTA follows the interrupt status while no vectors are in use.
    pub(super) fn update_line(&self, m: &mut Locked) {
        let on = self.backend().is_some_and(|d| d.regs().ro(m).isr & 1 != 0);
        self.set_intx(m, on);
    }

    /// Vectors of the function.
    pub(super) fn vector_count(&self) -> u32 {
        self.vectors.get()
    }

    /// Bytes between the notification registers of two queues.
    pub(super) fn notify_step(&self) -> u32 {
        if self.page_per_vq.get() { 4096 } else { 4 }
    }

    /// The device is there: registers, capabilities, interrupts.
    fn show(&self, m: &mut Locked, dev: &VirtioDevice, legacy: bool, modern: bool) -> Result<()> {
        let own = if modern { feature::VERSION_1 } else { 0 };
        dev.plug(Arc::new(PciTransport(self.this())), own | feature::BAD_FEATURE);
        let id = dev.virtio_class().device_id;
        let class = self.class_code.get();
        let c = self.config().rw(m);
        if legacy {
            c.set_word(reg::DEVICE_ID, self.virtio_pci_class().transitional_id);
            c.set_word(reg::SUBSYSTEM_VENDOR_ID, self.pci_class().vendor_id);
            c.set_word(reg::SUBSYSTEM_ID, id);
        } else {
            c.set_word(reg::DEVICE_ID, MODERN_ID + id);
            c.set_byte(reg::REVISION_ID, 1);
        }
        if class != 0 {
            c.set_word(reg::CLASS_DEVICE, class as u16);
        }
        self.patch_rom_ids(m);
        self.set_intx_pin(m, 1);
        if modern {
            self.show_modern(m, dev)?;
        }
        if self.vectors.get() == AUTO_VECTORS {
            let queues = dev.regs().ro(m).queues.iter().filter(|q| q.max != 0).count() as u32;
            self.vectors.set(queues + self.virtio_pci_class().extra_vectors);
        }
        match self.vectors.get() {
            0 => {}
            n => self.msix_init_exclusive_bar(m, n as usize, MSIX_BAR)?,
        }
        if legacy {
            let fixed = if self.vectors.get() == 0 { 20 } else { 24 };
            let size = (fixed + dev.config_len(m) as u64).next_power_of_two();
            let region = MemoryRegion::io(self, "virtio-pci", size, Self::legacy_ops());
            self.register_bar(m, LEGACY_BAR, BarKind::Io, &region)?;
        }
        Ok(())
    }

    /// The modern registers and the capabilities that say where they are. §4.1.4
    fn show_modern(&self, m: &mut Locked, dev: &VirtioDevice) -> Result<()> {
        let notify_len = self.notify_step() * super::device::MAX_QUEUES as u32;
        let name = dev.virtio_class().name;
        let windows = [("common", 1, 0u32, WINDOW), ("isr", 3, WINDOW, WINDOW), ("device", 4, 2 * WINDOW, WINDOW)];
        let size = u64::from(3 * WINDOW + notify_len).next_power_of_two();
        let bar = MemoryRegion::container(&*self.object(), "virtio-pci", size);
        let mut caps = vec![];
        for ((what, kind, offset, len), ops) in windows.into_iter().zip(Self::modern_ops()) {
            let region = MemoryRegion::io(self, &format!("virtio-pci-{what}-{name}"), len.into(), ops);
            bar.add_subregion(m, offset.into(), &region);
            caps.push(Window { kind, bar: MODERN_BAR, offset, len, size: 16, more: 0 });
        }
        let notify =
            MemoryRegion::io(self, &format!("virtio-pci-notify-{name}"), notify_len.into(), Self::notify_ops());
        bar.add_subregion(m, u64::from(3 * WINDOW), &notify);
        let (offset, more) = (3 * WINDOW, self.notify_step());
        caps.push(Window { kind: 2, bar: MODERN_BAR, offset, len: notify_len, size: 20, more });
        if self.modern_pio_notify.get() {
            let name = format!("virtio-pci-notify-pio-{name}");
            let port = MemoryRegion::io(self, &name, 4, Self::port_ops());
            let io = MemoryRegion::container(&*self.object(), "virtio-pci-io", 4);
            io.add_subregion(m, 0, &port);
            self.register_bar(m, PORT_BAR, BarKind::Io, &io)?;
            caps.push(Window { kind: 2, bar: PORT_BAR, offset: 0, len: 4, size: 20, more: 0 });
        }
        caps.push(Window { kind: PCI_CFG, bar: 0, offset: 0, len: 0, size: 20, more: 0 });
        for w in caps {
            let at = self.add_capability(m, cap::VENDOR, None, w.size)?;
            let c = self.config().rw(m);
            c.set_byte(at + 2, w.size as u8);
            c.set_byte(at + 3, w.kind);
            c.set_byte(at + 4, w.bar as u8);
            c.set_long(at + 8, w.offset);
            c.set_long(at + 12, w.len);
            if w.size > 16 {
                c.set_long(at + 16, w.more);
            }
            if w.kind == PCI_CFG {
                for (offset, len) in [(4, 1), (8, 4), (12, 4), (16, 4)] {
                    self.set_write_mask(at + offset, len, u64::MAX);
                }
                *self.window.write() = Some(at);
            }
        }
        self.register_bar(m, MODERN_BAR, BarKind::Mem64Prefetch, &bar)
    }

    /// Whether an access of configuration space meets the data of the window onto the modern registers; then where they are: offset and
    /// width. §4.1.4.9
    fn windowed(&self, m: &Locked, at: u32, len: u32) -> Option<(usize, u64, u32)> {
        let window = (*self.window.read())?;
        let data = window + 16;
        let (at, len) = (at as usize, len as usize);
        if at >= data + 4 || at + len <= data {
            return None;
        }
        let c = self.config().ro(m);
        let (offset, width) = (c.long(window + 8), c.long(window + 12));
        (matches!(width, 1 | 2 | 4) && offset.is_multiple_of(width)).then_some((data, offset.into(), width))
    }
}

impl PciImpl for VirtioPci {
    fn config_read(&self, m: &mut Locked, at: u32, len: u32) -> u32 {
        if let Some((data, offset, width)) = self.windowed(m, at, len)
            && let Some(v) = self.modern_read(m, offset, width)
        {
            self.config().rw(m).set(data, width as usize, v);
        }
        self.default_config_read(m, at, len)
    }

    fn config_write(&self, m: &mut Locked, at: u32, len: u32, val: u32) {
        self.default_config_write(m, at, len, val);
        if let Some((data, offset, width)) = self.windowed(m, at, len) {
            let v = self.config().ro(m).get(data, width as usize);
            self.modern_write(m, offset, width, v);
        }
    }
}

impl DeviceImpl for VirtioPci {
    fn realize(&self, m: &mut Locked) -> Result<()> {
        let (legacy, modern) = self.modes();
        if !legacy && !modern {
            return Err(Error::generic(
                "device cannot work as neither modern nor legacy mode is enabled: set either disable-modern or \
                 disable-legacy to off",
            ));
        }
        if legacy && self.virtio_pci_class().transitional_id == 0 {
            return Err(Error::generic(format!("device {} is modern-only, use disable-legacy=on", self.type_name())));
        }
        let vectors = self.vectors.get();
        if vectors != AUTO_VECTORS && vectors > 2048 {
            return Err(Error::generic(format!("vectors={vectors}: MSI-X has at most 2048")));
        }
        let dev = self.backend().ok_or("the virtio device is gone")?;
        self.parent_realize(m)?;
        let bus: Ref<Bus> = match Bus::create(self, "virtio-pci-bus", Some("virtio-bus")) {
            Ok(bus) => bus,
            Err(e) => {
                self.parent_unrealize(m);
                return Err(e);
            }
        };
        let device: &Device = &dev;
        let done = device
            .realize_on(m, &bus)
            .and_then(|()| self.show(m, &dev, legacy, modern).inspect_err(|_| device.qdev_unrealize(m)));
        done.inspect_err(|_| self.take_back(m))
    }

    fn unrealize(&self, m: &mut Locked) {
        self.take_back(m);
    }

    fn reset(&self, m: &mut Locked, phase: Phase) {
        self.parent_reset(m, phase);
        if phase == Phase::Enter {
            *self.regs.rw(m) = PciRegs::default();
        }
    }

    fn post_load(&self, m: &mut Locked) -> Result<()> {
        self.parent_post_load(m)
    }
}

impl VirtioPci {
    fn take_back(&self, m: &mut Locked) {
        for bus in self.child_buses() {
            bus.unparent();
        }
        self.parent_unrealize(m);
    }
}
