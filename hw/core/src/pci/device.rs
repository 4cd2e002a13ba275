//! Type `pci-device`: one PCI function.

use parking_lot::RwLock;
use qom::{Class, Error, Level, Object, Prop, Property, Ref, Result, Size};
use serde::{Deserialize, Serialize};

use super::bar::Bar;
use super::bus::PciBus;
use super::config::{CONFIG_SIZE, ConfigSpace, Masks, command, reg, status};
use super::devfn::Devfn;
use super::msix::{Msix, MsixState};
use crate::locked::{Locked, MachineCell};
use crate::memory::{AddressSpace, Attrs, MemTxResult, MemoryRegion};
use crate::qdev::{Device, DeviceClass, DeviceImpl};

/// Subsystem of functions that name none (Red Hat, "QEMU virtual machine").
const DEFAULT_SUBSYSTEM: (u16, u16) = (0x1af4, 0x1100);

/// Class struct of PCI functions.
#[derive(Clone)]
pub struct PciDeviceClass {
    /// Vendor.
    pub vendor_id: u16,
    /// Device.
    pub device_id: u16,
    /// Revision.
    pub revision: u8,
    /// Base class and subclass, as in offsets 0AH and 0BH.
    pub class_id: u16,
    /// Programming interface, offset 09H.
    pub prog_if: u8,
    /// Subsystem vendor; both 0: the default subsystem.
    pub subsystem_vendor_id: u16,
    /// Subsystem.
    pub subsystem_id: u16,
    /// Header type 1.
    pub is_bridge: bool,
    /// Expansion ROM without `romfile=`.
    pub romfile: Option<&'static str>,
    /// Expansion ROM without `romfile=` where the firmware's folders have it: network cards work without.
    pub optional_romfile: Option<&'static str>,
    /// Name of the expansion ROM's region before `.rom`, where it is not the type's.
    pub rom_name: Option<&'static str>,
    /// See [`PciImpl::config_read`].
    pub config_read: fn(&dyn Object, &mut Locked, u32, u32) -> u32,
    /// See [`PciImpl::config_write`].
    pub config_write: fn(&dyn Object, &mut Locked, u32, u32, u32),
}

impl Default for PciDeviceClass {
    fn default() -> Self {
        Self {
            vendor_id: 0,
            device_id: 0,
            revision: 0,
            class_id: 0,
            prog_if: 0,
            subsystem_vendor_id: 0,
            subsystem_id: 0,
            is_bridge: false,
            romfile: None,
            optional_romfile: None,
            rom_name: None,
            config_read: |o, m, at, len| as_pci(o, u32::MAX, |d| d.default_config_read(m, at, len)),
            config_write: |o, m, at, len, val| as_pci(o, (), |d| d.default_config_write(m, at, len, val)),
        }
    }
}

fn as_pci<R>(o: &dyn Object, other: R, f: impl FnOnce(&PciDevice) -> R) -> R {
    o.cast::<PciDevice>().map_or(other, f)
}

/// Configuration cycles of a function that does something special; enter it into the class with
/// `#[qom(methods(DeviceClass, PciDeviceClass))]`.
pub trait PciImpl: Level {
    /// A guest reads `len` bytes at `at`. [`PciDevice::default_config_read`] is the plain way.
    fn config_read(&self, m: &mut Locked, at: u32, len: u32) -> u32;
    /// A guest writes `len` bytes at `at`. Call [`PciDevice::default_config_write`], then act on what changed.
    fn config_write(&self, m: &mut Locked, at: u32, len: u32, val: u32);
}

impl PciDeviceClass {
    /// Enters the methods of `T` into its class.
    pub fn implement<T: PciImpl>(&mut self) {
        self.config_read = |o, m, at, len| qom::of_class::<T>(o).config_read(m, at, len);
        self.config_write = |o, m, at, len, val| qom::of_class::<T>(o).config_write(m, at, len, val);
    }
}

/// What a snapshot keeps of every function.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct PciState {
    /// Levels of INTA to INTD as the function drives them.
    pub intx: u8,
}

/// Masks of a function; made for a conventional one.
struct MaskCell(RwLock<Masks>);
impl Default for MaskCell {
    fn default() -> Self {
        Self(RwLock::new(Masks::new(CONFIG_SIZE)))
    }
}

/// Type `pci-device`.
#[derive(qom::Object)]
#[qom(name = "pci-device", parent = Device, abstract, methods(DeviceClass), class_init = PciDevice::class_init,
    instance_init = PciDevice::instance_init)]
pub struct PciDevice {
    parent: Device,
    #[property(default = Devfn(-1), desc = "Slot and optional function number, example: 06.0 or 06")]
    addr: Prop<Devfn>,
    #[property]
    pub(super) romfile: Prop<String>,
    #[property(default = u32::MAX)]
    pub(super) romsize: Prop<u32>,
    #[property(default = -1)]
    pub(super) rombar: Prop<i32>,
    #[property(default = false)]
    multifunction: Prop<bool>,
    #[property(name = "x-pcie-lnksta-dllla", default = true)]
    lnksta_dllla: Prop<bool>,
    #[property(name = "x-pcie-ext-tag", default = true)]
    ext_tag: Prop<bool>,
    #[property(name = "failover_pair_id")]
    failover_pair_id: Prop<String>,
    #[property(name = "acpi-index", default = 0)]
    acpi_index: Prop<u32>,
    #[property(name = "x-pcie-err-unc-mask", default = true)]
    err_unc_mask: Prop<bool>,
    #[property(name = "x-pcie-ari-nextfn-1", default = false)]
    ari_nextfn_1: Prop<bool>,
    #[property(name = "x-max-bounce-buffer-size", default = Size(4096))]
    bounce: Prop<Size>,
    #[property(name = "sriov-pf")]
    sriov_pf: Prop<String>,
    #[state]
    config: MachineCell<ConfigSpace>,
    #[state]
    state: MachineCell<PciState>,
    #[state]
    pub(super) msix_state: MachineCell<MsixState>,
    masks: MaskCell,
    bars: RwLock<[Option<Bar>; 7]>,
    master: RwLock<Option<(AddressSpace, MemoryRegion)>>,
    pub(super) msi_cap: RwLock<Option<usize>>,
    pub(super) msix: RwLock<Option<Msix>>,
}

impl PciDevice {
    fn class_init(c: &mut Class) {
        c.edit::<PciDeviceClass>();
        c.edit::<DeviceClass>().bus_type = Some("PCI");
        c.property(
            Property::computed::<u32>("busnr")
                .type_named("busnr")
                .getter(|d: &PciDevice| Ok(d.pci_bus().map_or(0, |b| b.number_hint().into()))),
        );
    }

    /// The PCI part of its class.
    pub fn pci_class(&self) -> &'static PciDeviceClass {
        self.class().get().expect("classes below 'pci-device' have a PciDeviceClass")
    }

    /// The bus it is on.
    pub fn pci_bus(&self) -> Option<Ref<PciBus>> {
        self.bus_as()
    }

    /// Device and function number as one byte; 0 before realize.
    pub fn devfn(&self) -> u8 {
        self.addr.get().byte().unwrap_or(0)
    }

    /// Device number.
    pub fn slot(&self) -> u8 {
        self.devfn() >> 3
    }

    /// Function number.
    pub fn function(&self) -> u8 {
        self.devfn() & 7
    }

    /// Chooses device and function before realize.
    pub fn set_devfn(&self, d: Devfn) {
        self.addr.set(d);
    }

    pub(super) fn wanted(&self) -> Devfn {
        self.addr.get()
    }

    /// Whether the device says that it has several functions.
    pub fn is_multifunction(&self) -> bool {
        self.multifunction.get()
    }

    /// Says that the device has several functions; before realize.
    pub fn set_multifunction(&self) {
        self.multifunction.set(true);
    }

    /// Index that ACPI shows, 0 for none.
    pub fn acpi_index(&self) -> u32 {
        self.acpi_index.get()
    }

    /// Whether it has a bridge's header.
    pub fn is_bridge(&self) -> bool {
        self.pci_class().is_bridge
    }

    /// Bus, device and function number: what marks its DMA and messages.
    pub fn requester_id(&self, m: &Locked) -> u16 {
        let bus = self.pci_bus().map_or(0, |b| b.number(m));
        u16::from(bus) << 8 | u16::from(self.devfn())
    }

    // ---- configuration space ----

    /// The bytes.
    pub fn config(&self) -> &MachineCell<ConfigSpace> {
        &self.config
    }

    pub(super) fn edit_masks<R>(&self, f: impl FnOnce(&mut Masks) -> R) -> R {
        f(&mut self.masks.0.write())
    }

    /// Says which bits of `len` bytes at `at` a guest may write.
    pub fn set_write_mask(&self, at: usize, len: usize, mask: u64) {
        self.edit_masks(|k| k.write.set(at, len, mask));
    }

    /// Bits of `len` bytes at `at` that a guest may write.
    pub fn write_mask(&self, at: usize, len: usize) -> u64 {
        self.masks.0.read().write.get(at, len)
    }

    /// Says which bits of `len` bytes at `at` a guest clears by writing ones.
    pub fn set_w1c_mask(&self, at: usize, len: usize, mask: u64) {
        self.edit_masks(|k| k.w1c.set(at, len, mask));
    }

    /// Adds a capability of `size` bytes with read-only contents; answers its offset. `at`: where, or anywhere.
    ///
    /// # Errors
    /// No room, or the place is taken.
    pub fn add_capability(&self, m: &mut Locked, id: u8, at: Option<usize>, size: usize) -> Result<usize> {
        let at = self.edit_masks(|k| {
            let at = match at {
                Some(at) if (at..at + size).all(|i| k.used.byte(i) == 0) && at + size <= CONFIG_SIZE => at,
                Some(at) => {
                    return Err(Error::generic(format!(
                        "{}: Attempt to add PCI capability {id:#x} at offset {at:#x} overlaps existing capability",
                        self.type_name()
                    )));
                }
                None => k.find_space(size).ok_or_else(|| Error::generic("out of PCI config space"))?,
            };
            k.used.fill(at..at.next_multiple_of(4).max(at + size).next_multiple_of(4), 0xff);
            k.write.fill(at..at + size, 0);
            Ok(at)
        })?;
        let c = self.config.rw(m);
        c.set_byte(at, id);
        c.set_byte(at + 1, c.byte(reg::CAPABILITY_LIST));
        c.set_byte(reg::CAPABILITY_LIST, at as u8);
        c.set_word(reg::STATUS, c.word(reg::STATUS) | status::CAP_LIST);
        Ok(at)
    }

    /// Offset of a capability.
    pub fn find_capability(&self, m: &Locked, id: u8) -> Option<usize> {
        let c = self.config.ro(m);
        let mut at = usize::from(c.byte(reg::CAPABILITY_LIST) & !3);
        for _ in 0..48 {
            if at < reg::HEADER_END {
                return None;
            }
            if c.byte(at) == id {
                return Some(at);
            }
            at = usize::from(c.byte(at + 1) & !3);
        }
        None
    }

    /// A configuration read cycle.
    pub fn config_read(&self, m: &mut Locked, at: u32, len: u32) -> u32 {
        (self.pci_class().config_read)(&*self.object(), m, at, len)
    }

    /// A configuration write cycle.
    pub fn config_write(&self, m: &mut Locked, at: u32, len: u32, val: u32) {
        (self.pci_class().config_write)(&*self.object(), m, at, len, val);
    }

    /// What plain functions do on a configuration read.
    pub fn default_config_read(&self, m: &mut Locked, at: u32, len: u32) -> u32 {
        self.config.ro(m).get(at as usize, len.min(4) as usize) as u32
    }

    /// What plain functions do on a configuration write: masks, base addresses, INTx disable, bus master, MSI and MSI-X.
    pub fn default_config_write(&self, m: &mut Locked, at: u32, len: u32, val: u32) {
        let (at, len) = (at as usize, len.min(4) as usize);
        let was_disabled = self.intx_disabled(m);
        {
            let masks = self.masks.0.read();
            masks.apply(self.config.rw(m), at, len, val);
        }
        let touches = |start: usize, size: usize| at < start + size && start < at + len;
        let rom = super::bar::offset(super::bar::ROM, self.is_bridge());
        if touches(reg::BAR0, 24) || touches(rom, 4) || touches(reg::COMMAND, 2) {
            self.update_mappings(m);
        }
        if touches(reg::COMMAND, 2) {
            self.update_intx_disabled(m, was_disabled);
            self.update_master(m);
        }
        self.msi_config_written(m, at, len);
        self.msix_config_written(m, at, len);
    }

    pub(super) fn bars(&self) -> &RwLock<[Option<Bar>; 7]> {
        &self.bars
    }

    // ---- INTx ----

    fn intx_disabled(&self, m: &Locked) -> bool {
        self.config.ro(m).word(reg::COMMAND) & command::INTX_DISABLE != 0
    }

    /// Pin the function uses: 0 for INTA; `None` for none.
    pub fn intx_pin(&self, m: &Locked) -> Option<usize> {
        usize::from(self.config.ro(m).byte(reg::INTERRUPT_PIN)).checked_sub(1).filter(|p| *p < 4)
    }

    /// Says which pin the function uses, 1 for INTA; in realize.
    pub fn set_intx_pin(&self, m: &mut Locked, pin: u8) {
        self.config.rw(m).set_byte(reg::INTERRUPT_PIN, pin);
    }

    /// Asserts or releases the function's pin.
    pub fn set_intx(&self, m: &mut Locked, on: bool) {
        let Some(pin) = self.intx_pin(m) else { return };
        let s = self.state.rw(m);
        if (s.intx >> pin & 1 != 0) == on {
            return;
        }
        s.intx ^= 1 << pin;
        let any = s.intx != 0;
        let c = self.config.rw(m);
        let word = c.word(reg::STATUS);
        c.set_word(reg::STATUS, if any { word | status::INTERRUPT } else { word & !status::INTERRUPT });
        if !self.intx_disabled(m) {
            self.change_intx(m, pin, on);
        }
    }

    /// Whether the function asserts its pin.
    pub fn intx(&self, m: &Locked) -> bool {
        self.state.ro(m).intx != 0
    }

    fn change_intx(&self, m: &mut Locked, pin: usize, on: bool) {
        if let Some(bus) = self.pci_bus() {
            bus.change_irq(m, self, pin, on);
        }
    }

    fn update_intx_disabled(&self, m: &mut Locked, was: bool) {
        let now = self.intx_disabled(m);
        let asserted = self.state.ro(m).intx;
        if now != was {
            for pin in (0..4).filter(|p| asserted >> p & 1 != 0) {
                self.change_intx(m, pin, !now);
            }
        }
    }

    // ---- bus mastering ----

    fn update_master(&self, m: &mut Locked) {
        let on = self.config.ro(m).word(reg::COMMAND) & command::MASTER != 0;
        let alias = self.master.read().as_ref().map(|(_, alias)| alias.clone());
        if let Some(alias) = alias {
            alias.set_enabled(m, on);
        }
    }

    /// Memory as the function's DMA sees it: nothing, until the guest makes it a bus master.
    pub fn dma_space(&self) -> AddressSpace {
        self.master.read().as_ref().map_or_else(|| self.core().memory.clone(), |(space, _)| space.clone())
    }

    fn dma_attrs(&self, m: &Locked) -> Attrs {
        Attrs::requester(self.requester_id(m))
    }

    /// Copies from guest memory.
    ///
    /// # Errors
    /// Not a bus master, or nobody answers.
    pub fn dma_read(&self, m: &mut Locked, addr: u64, buf: &mut [u8]) -> MemTxResult {
        let attrs = self.dma_attrs(m);
        self.dma_space().read_with(m, addr, buf, attrs)
    }

    /// Copies into guest memory.
    ///
    /// # Errors
    /// Not a bus master, or nobody answers.
    pub fn dma_write(&self, m: &mut Locked, addr: u64, buf: &[u8]) -> MemTxResult {
        let attrs = self.dma_attrs(m);
        self.dma_space().write_with(m, addr, buf, attrs)
    }

    /// Sends a message-signalled interrupt: a store with the function's requester id.
    pub fn send_message(&self, m: &mut Locked, addr: u64, data: u32) {
        let attrs = self.dma_attrs(m);
        if let Err(e) = self.dma_space().store_with(m, addr, 4, data.into(), attrs) {
            tracing::debug!(target: "guest_errors", device = self.type_name(), addr, "MSI goes nowhere: {e}");
        }
    }

    // ---- reset, by the bus ----

    /// What the bus's reset does to every function. PCI 3.0 §6.2: registers back to their defaults, decoding off.
    pub(super) fn bus_reset(&self, m: &mut Locked) {
        let asserted = self.state.ro(m).intx;
        let disabled = self.intx_disabled(m);
        for pin in (0..4).filter(|p| asserted >> p & 1 != 0 && !disabled) {
            self.change_intx(m, pin, false);
        }
        self.state.rw(m).intx = 0;
        {
            let masks = self.masks.0.read();
            let c = self.config.rw(m);
            for (at, len) in [(reg::COMMAND, 2), (reg::STATUS, 2), (reg::INTERRUPT_LINE, 1)] {
                let keep = !(masks.write.get(at, len) | masks.w1c.get(at, len));
                c.set(at, len, c.get(at, len) & keep);
            }
            c.set_word(reg::STATUS, c.word(reg::STATUS) & !status::INTERRUPT);
            c.set_byte(reg::CACHE_LINE_SIZE, 0);
        }
        self.reset_bars(m);
        self.update_master(m);
        self.msi_reset(m);
        self.msix_reset(m);
    }
}

impl DeviceImpl for PciDevice {
    /// Takes a place on the bus, fills the header, makes the bus master view, loads the expansion ROM. Functions call it
    /// first in their own `realize`.
    fn realize(&self, m: &mut Locked) -> Result<()> {
        let bus = self.pci_bus().ok_or_else(|| Error::generic(format!("'{}' needs a PCI bus", self.type_name())))?;
        let devfn = bus.take_place(m, self)?;
        self.addr.set(Devfn(devfn.into()));
        let k = self.pci_class();
        {
            let c = self.config.rw(m);
            c.set_word(reg::VENDOR_ID, k.vendor_id);
            c.set_word(reg::DEVICE_ID, k.device_id);
            c.set_byte(reg::REVISION_ID, k.revision);
            c.set_byte(reg::CLASS_PROG, k.prog_if);
            c.set_word(reg::CLASS_DEVICE, k.class_id);
            c.set_byte(reg::HEADER_TYPE, u8::from(k.is_bridge) | u8::from(self.multifunction.get()) << 7);
            if !k.is_bridge {
                let own = (k.subsystem_vendor_id, k.subsystem_id);
                let (vendor, device) = if own == (0, 0) { DEFAULT_SUBSYSTEM } else { own };
                c.set_word(reg::SUBSYSTEM_VENDOR_ID, vendor);
                c.set_word(reg::SUBSYSTEM_ID, device);
            }
        }
        let object = self.object();
        let container = MemoryRegion::container(&*object, "bus master container", u64::MAX);
        let alias = MemoryRegion::alias(&*object, "bus master", &self.core().system_memory(), 0, u64::MAX);
        alias.set_enabled(m, false);
        container.add_subregion(m, 0, &alias);
        let space = self.core().address_space(m, self.type_name(), &container);
        *self.master.write() = Some((space, alias));
        self.load_rom(m)
    }

    fn unrealize(&self, m: &mut Locked) {
        self.unmap_all(m);
        if let Some(bus) = self.pci_bus() {
            self.set_intx(m, false);
            bus.leave_place(self);
        }
        *self.master.write() = None;
    }

    fn post_load(&self, m: &mut Locked) -> Result<()> {
        if self.config.ro(m).size() != CONFIG_SIZE {
            return Err(Error::generic("configuration space of another size"));
        }
        self.msix_post_load(m)?;
        self.update_mappings(m);
        self.update_master(m);
        Ok(())
    }
}
