//! The i440FX: host bridge `i440FX-pcihost` and its function 0, type `i440FX`.
//! Source: Intel 82441FX (290549) §3.2 (PAM0-6 59h-5Fh, SMRAM 72h). Not modelled: DRAM timing and row registers (they
//! read back), ECC, AGP.

use super::pam::{PamSegment, SEGMENTS};
use hw_core::{
    Category, DeviceClass, DeviceImpl, Locked, MemoryRegion, Phase,
    memory::RegionNode,
    pci::{PciDevice, PciDeviceClass, PciHostBridge, PciImpl, command, reg},
};
use parking_lot::RwLock;
use qom::{Error, Link, Object, Prop, Property, Result, Size};
use std::sync::OnceLock;

const PAM: u32 = 0x59;
const PAM_COUNT: usize = 7;
const SMRAM: u32 = 0x72;
/// System management RAM: visible to everybody; enabled for SMM.
const D_OPEN: u8 = 0x40;
const G_SMRAME: u8 = 0x08;
/// Base segment A0000, fixed.
const C_BASE_SEG: u8 = 0x02;
const D_LCK: u8 = 0x10;
const SMRAM_BASE: u64 = 0xa_0000;
const SMRAM_SIZE: u64 = 0x2_0000;
const HOLE_END: u32 = 0xfec0_0000;

/// Type `i440FX-pcihost`.
#[derive(Object)]
#[qom(name = "i440FX-pcihost", parent = PciHostBridge, methods(DeviceClass), class_init = I440FxHost::class_init,
    instance_init = I440FxHost::instance_init)]
pub struct I440FxHost {
    parent: PciHostBridge,
    #[property(link)]
    ram_mem: Link<RegionNode>,
    #[property(link)]
    pci_mem: Link<RegionNode>,
    #[property(link)]
    system_mem: Link<RegionNode>,
    #[property(link)]
    io_mem: Link<RegionNode>,
    #[property(default = Size(0))]
    below_4g_mem_size: Prop<Size>,
    #[property(default = Size(0))]
    above_4g_mem_size: Prop<Size>,
    #[property(default = Size(2 << 30))]
    pci_hole64_size: Prop<Size>,
    #[property(default = true)]
    x_pci_hole64_fix: Prop<bool>,
    #[property]
    pci_type: Prop<String>,
    /// CONFIG_ADDRESS and CONFIG_DATA.
    config: OnceLock<(MemoryRegion, MemoryRegion)>,
}

impl I440FxHost {
    fn class_init(c: &mut qom::Class) {
        let d = c.edit::<DeviceClass>();
        d.user_creatable = false;
        d.categories = vec![Category::Bridge];
        d.fw_name = Some("pci");
        c.property(Property::computed::<u32>("pci-hole-start").getter(|h: &I440FxHost| Ok(h.hole().0)));
        c.property(Property::computed::<u32>("pci-hole-end").getter(|_: &I440FxHost| Ok(HOLE_END)));
        c.property(Property::computed::<u64>("pci-hole64-start").getter(|h: &I440FxHost| Ok(h.hole64().0)));
        c.property(Property::computed::<u64>("pci-hole64-end").getter(|h: &I440FxHost| Ok(h.hole64().1)));
    }

    fn instance_init(&self) -> Result<()> {
        _ = self.config.set(self.config_regions());
        Ok(())
    }

    /// The window below 4 GiB that functions may be mapped in: start, end (exclusive).
    pub fn hole(&self) -> (u32, u32) {
        (u32::try_from(self.below_4g_mem_size.get().0).unwrap_or(u32::MAX), HOLE_END)
    }

    /// The window above RAM: start, end (exclusive).
    pub fn hole64(&self) -> (u64, u64) {
        let start = (4u64 << 30) + self.above_4g_mem_size.get().0;
        let start = start.next_multiple_of(1 << 30);
        (start, start.saturating_add(self.pci_hole64_size.get().0))
    }

    fn region(link: &Link<RegionNode>, what: &str) -> Result<MemoryRegion> {
        let region = link.get().and_then(|n| n.region().cloned());
        region.ok_or_else(|| Error::generic(format!("i440FX-pcihost: property '{what}' is not set")))
    }
}

impl DeviceImpl for I440FxHost {
    fn realize(&self, m: &mut Locked) -> Result<()> {
        self.parent_realize(m)?;
        let pci = Self::region(&self.pci_mem, "pci-mem")?;
        let io = Self::region(&self.io_mem, "io-mem")?;
        let system = Self::region(&self.system_mem, "system-mem")?;
        let ram = Self::region(&self.ram_mem, "ram-mem")?;
        let (idx, data) = self.config.get().ok_or("i440FX-pcihost without its registers")?;
        io.add_subregion(m, 0xcf8, idx);
        io.add_subregion(m, 0xcfc, data);
        self.init_ioport(idx);
        self.init_ioport(data);
        let bus = hw_core::pci::PciBus::create_root(self, Some("pci.0"), &pci, &io, 0)?;
        self.set_root_bus(&bus);
        let name = if self.pci_type.get().is_empty() { "i440FX".to_owned() } else { self.pci_type.get() };
        let function = bus.new_function(&name, 0, false)?;
        if let Some(f) = function.object().cast::<I440Fx>() {
            *f.spaces.write() = Some(Spaces { system, pci, ram });
            f.ram_size.set(self.below_4g_mem_size.get().0.saturating_add(self.above_4g_mem_size.get().0));
        }
        bus.realize_function(m, &function)
    }
}

/// Where the bridge's windows lead.
#[derive(Clone)]
struct Spaces {
    system: MemoryRegion,
    pci: MemoryRegion,
    ram: MemoryRegion,
}

/// What realize makes.
struct Windows {
    pam: Vec<PamSegment>,
    /// The PCI window at A0000 that covers RAM unless SMRAM is open.
    smram_region: MemoryRegion,
    /// Memory as SMM sees it in addition.
    smram: MemoryRegion,
}

/// Type `i440FX`.
#[derive(Object)]
#[qom(name = "i440FX", parent = PciDevice, methods(DeviceClass, PciDeviceClass), class_init = I440Fx::class_init,
    interfaces("conventional-pci-device"))]
pub struct I440Fx {
    parent: PciDevice,
    spaces: RwLock<Option<Spaces>>,
    ram_size: Prop<u64>,
    windows: RwLock<Option<Windows>>,
}

impl I440Fx {
    fn class_init(c: &mut qom::Class) {
        let d = c.edit::<DeviceClass>();
        d.user_creatable = false;
        d.hotpluggable = false;
        d.desc = "Host bridge";
        let p = c.edit::<PciDeviceClass>();
        (p.vendor_id, p.device_id, p.revision, p.class_id) = (0x8086, 0x1237, 0x02, 0x0600);
    }

    /// Memory that only a CPU in SMM sees, for the board to put over system memory.
    pub fn smram(&self) -> Option<MemoryRegion> {
        self.windows.read().as_ref().map(|w| w.smram.clone())
    }

    fn update(&self, m: &mut Locked) {
        let config = self.config().ro(m);
        let smram = config.byte(SMRAM as usize);
        let mut pam = [0; PAM_COUNT];
        for (i, p) in pam.iter_mut().enumerate() {
            *p = config.byte(PAM as usize + i);
        }
        if let Some(w) = &*self.windows.read() {
            m.memory_transaction(|m| {
                w.pam.iter().for_each(|s| s.update(m, pam));
                w.smram_region.set_enabled(m, smram & D_OPEN == 0);
                w.smram.set_enabled(m, smram & G_SMRAME != 0);
            });
        }
    }
}

impl PciImpl for I440Fx {
    fn config_read(&self, m: &mut Locked, at: u32, len: u32) -> u32 {
        self.default_config_read(m, at, len)
    }

    fn config_write(&self, m: &mut Locked, at: u32, len: u32, val: u32) {
        let locked = self.config().ro(m).byte(SMRAM as usize);
        self.default_config_write(m, at, len, val);
        let touches = |first: u32, n: u32| at < first + n && first < at + len;
        if touches(SMRAM, 1) {
            // The base segment is fixed; the lock (bit 4) freezes the register and closes it until reset.
            let c = self.config().rw(m);
            let new = c.byte(SMRAM as usize);
            let new = match (locked & D_LCK != 0, new & D_LCK != 0) {
                (true, _) => locked,
                (false, true) => new & !D_OPEN,
                (false, false) => new,
            };
            c.set_byte(SMRAM as usize, new & 0x78 | C_BASE_SEG);
        }
        if touches(PAM, PAM_COUNT as u32) || touches(SMRAM, 1) {
            self.update(m);
        }
    }
}

impl DeviceImpl for I440Fx {
    fn realize(&self, m: &mut Locked) -> Result<()> {
        self.parent_realize(m)?;
        let spaces = self.spaces.read().clone();
        let Spaces { system, pci, ram } = spaces.ok_or("i440FX: part of i440FX-pcihost only")?;
        let smram_region = MemoryRegion::alias(self, "smram-region", &pci, SMRAM_BASE, SMRAM_SIZE);
        system.add_subregion_overlap(m, SMRAM_BASE, &smram_region, 1);
        let smram = MemoryRegion::container(self, "smram", 4 << 30);
        let low = MemoryRegion::alias(self, "smram-low", &ram, SMRAM_BASE, SMRAM_SIZE);
        smram.add_subregion(m, SMRAM_BASE, &low);
        let pam = (0..SEGMENTS).map(|i| PamSegment::new(self, m, &system, &ram, &pci, i)).collect();
        *self.windows.write() = Some(Windows { pam, smram_region, smram });
        self.set_write_mask(PAM as usize, PAM_COUNT, 0x33_3333_3333_3330);
        self.set_write_mask(SMRAM as usize, 1, 0x78);
        self.update(m);
        Ok(())
    }

    fn reset(&self, m: &mut Locked, phase: Phase) {
        self.parent_reset(m, phase);
        match phase {
            Phase::Enter => {
                let ram = (self.ram_size.get() >> 23).min(255) as u8;
                let c = self.config().rw(m);
                // §3.2: default values.
                c.set_word(reg::COMMAND, command::MEMORY | command::MASTER);
                (0..PAM_COUNT).for_each(|i| c.set_byte(PAM as usize + i, 0));
                c.set_byte(SMRAM as usize, C_BASE_SEG);
                c.set_byte(0x57, ram); // DRAM size in units of 8 MiB: what firmware without fw_cfg reads
            }
            Phase::Hold => self.update(m),
            Phase::Exit => {}
        }
    }

    fn post_load(&self, m: &mut Locked) -> Result<()> {
        self.update(m);
        self.parent_post_load(m)
    }
}
