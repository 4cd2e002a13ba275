//! The firmware configuration device on I/O ports, types `fw_cfg` and `fw_cfg_io`. Contents: [`super::fw_cfg_items`].
//! Source: the fw_cfg interface specification shared by QEMU, SeaBIOS and OVMF. Not modelled: writes to the data port.

use super::fw_cfg_data::Data;
use super::fw_cfg_items::{DmaRequest, FwCfgRegs, GuestAccess, Items, control, key};
use hw_core::{
    DeviceClass, DeviceImpl, Locked, MachineCell, MemoryRegion, Ops, Phase, Sizes, SysBusDevice,
    loader::{Rom, RomPlace},
    memory::{Endian, RamBlock},
};
use parking_lot::Mutex;
use qom::{Error, Object, Prop, Result};
use std::sync::Arc;

/// I/O port of the selector; data follows at +1, DMA at +4.
pub const PORT: u64 = 0x510;
const DMA_PORT: u64 = PORT + 4;
const SIGNATURE: u64 = u64::from_be_bytes(*b"QEMU CFG");
/// ID item: traditional interface, DMA interface.
const VERSION: u32 = 0x01;
const VERSION_DMA: u32 = 0x02;

/// Called when the guest selects an item that is made on demand.
type OnSelect = Arc<dyn Fn(&FwCfg, &mut Locked) + Send + Sync>;

/// Type `fw_cfg`: the store, for boards to fill.
#[derive(Object)]
#[qom(name = "fw_cfg", parent = SysBusDevice, abstract, methods(DeviceClass))]
pub struct FwCfg {
    parent: SysBusDevice,
    #[property(name = "dma_enabled", default = true)]
    dma_enabled: Prop<bool>,
    #[property(default = 0x20)]
    x_file_slots: Prop<u16>,
    #[property(default = true)]
    acpi_mr_restore: Prop<bool>,
    items: Mutex<Option<Items>>,
    /// Memory that mirrors files, see [`FwCfg::add_rom_file`].
    roms: Mutex<Vec<(String, MemoryRegion)>>,
    on_select: Mutex<Vec<(String, OnSelect)>>,
    #[state]
    regs: MachineCell<FwCfgRegs>,
}

impl FwCfg {
    fn with<R>(&self, f: impl FnOnce(&mut Items) -> R) -> R {
        let mut items = self.items.lock();
        f(items.get_or_insert_with(|| Items::new(self.x_file_slots.get())))
    }

    /// Sets a fixed item.
    pub fn set(&self, key: u16, data: impl Into<Data>) {
        self.with(|i| i.set(key, data));
    }

    /// Sets a fixed item to a 16-bit number.
    pub fn set_u16(&self, key: u16, v: u16) {
        self.set(key, v.to_le_bytes());
    }

    /// Sets a fixed item to a 32-bit number.
    pub fn set_u32(&self, key: u16, v: u32) {
        self.set(key, v.to_le_bytes());
    }

    /// Sets a fixed item to a 64-bit number.
    pub fn set_u64(&self, key: u16, v: u64) {
        self.set(key, v.to_le_bytes());
    }

    /// Adds a file.
    ///
    /// # Errors
    /// A bad or used name, or no slot.
    pub fn add_file(&self, name: &str, data: impl Into<Data>) -> Result<()> {
        self.with(|i| i.add_file(name, data, false)).map_err(|e| Error::generic(e.to_string()))
    }

    /// Adds a file that the guest may write by DMA.
    ///
    /// # Errors
    /// As [`FwCfg::add_file`].
    pub fn add_writable_file(&self, name: &str, data: impl Into<Data>) -> Result<()> {
        self.with(|i| i.add_file(name, data, true)).map_err(|e| Error::generic(e.to_string()))
    }

    /// Replaces or adds a file.
    ///
    /// # Errors
    /// As [`FwCfg::add_file`].
    pub fn modify_file(&self, name: &str, data: impl Into<Data>) -> Result<()> {
        self.with(|i| i.modify_file(name, data)).map_err(|e| Error::generic(e.to_string()))
    }

    /// Adds a file that is also one of the machine's ROMs, `max` bytes large at most: it is seen in the tree and in the list of ROMs, and
    /// its memory holds what the file holds.
    ///
    /// # Errors
    /// As [`FwCfg::add_file`]; the host has no memory.
    pub fn add_rom_file(&self, name: &str, data: impl Into<Arc<[u8]>>, max: u64) -> Result<()> {
        let (data, path): (Arc<[u8]>, _) = (data.into(), format!("/rom@{name}"));
        let block = RamBlock::new(&self.core().ram, &path, max)
            .map_err(|e| Error::generic(format!("cannot set up guest memory '{path}': {e}")))?;
        // The region shows what is used at first; regions are not resized.
        let region = MemoryRegion::ram_from(self, &path, data.len() as u64, block);
        self.roms.lock().push((name.to_owned(), region));
        self.modify_rom_file(name, data.clone())?;
        self.core().roms.add(Rom { name: name.to_owned(), data, size: max, place: RomPlace::FwCfg(path) })
    }

    /// Replaces a file that [`FwCfg::add_rom_file`] added, and what its memory holds.
    ///
    /// # Errors
    /// It is too large, or no such file.
    pub fn modify_rom_file(&self, name: &str, data: impl Into<Arc<[u8]>>) -> Result<()> {
        let data = data.into();
        let rom = self.roms.lock().iter().find(|(n, _)| n == name).map(|(_, r)| r.clone());
        let rom = rom.ok_or_else(|| Error::generic(format!("fw_cfg: '{name}' is no ROM")))?;
        let block = rom.ram_block().ok_or("a ROM without memory")?;
        let (len, old) = (data.len() as u64, self.file(name).map_or(0, |f| f.len() as u64));
        if len > block.len() {
            return Err(Error::generic(format!("fw_cfg: '{name}' has outgrown its {} bytes", block.len())));
        }
        block.write(0, &data);
        block.fill(len, old.saturating_sub(len), 0);
        self.modify_file(name, data)
    }

    /// Contents of a file.
    pub fn file(&self, name: &str) -> Option<Data> {
        self.with(|i| i.file(name).cloned())
    }

    /// Names of the files in the order of their keys.
    pub fn file_names(&self) -> Vec<String> {
        self.with(|i| i.file_names().map(str::to_owned).collect())
    }

    /// Has `f` called whenever the guest selects the file, before it reads it: `f` may replace its contents.
    pub fn on_select(&self, name: &str, f: impl Fn(&FwCfg, &mut Locked) + Send + Sync + 'static) {
        self.on_select.lock().push((name.to_owned(), Arc::new(f)));
    }

    fn select(&self, m: &mut Locked, selector: u16) {
        let name = self.with(|i| i.name_of(selector).map(str::to_owned));
        if let Some(name) = name {
            let calls: Vec<OnSelect> =
                self.on_select.lock().iter().filter(|(n, _)| *n == name).map(|(_, f)| f.clone()).collect();
            calls.iter().for_each(|f| f(self, m));
        }
        let regs = self.regs.rw(m);
        self.with(|i| regs.select(i, selector));
    }

    fn read_comb(&self, m: &mut Locked, _off: u64, size: u32) -> u64 {
        if size != 1 {
            return 0;
        }
        let regs = self.regs.rw(m);
        self.with(|i| regs.read(i, 1))
    }

    fn write_comb(&self, m: &mut Locked, off: u64, size: u32, val: u64) {
        if size == 2 && off == 0 {
            self.select(m, val as u16);
        }
    }

    fn read_dma(&self, _m: &mut Locked, off: u64, size: u32) -> u64 {
        let shift = (8u64.saturating_sub(off + u64::from(size))) * 8;
        let mask = u64::MAX >> (64 - 8 * u64::from(size.clamp(1, 8)));
        SIGNATURE >> shift & mask
    }

    fn write_dma(&self, m: &mut Locked, off: u64, size: u32, val: u64) {
        let regs = self.regs.rw(m);
        match (size, off) {
            (4, 0) => regs.dma_addr = val << 32,
            (4, 4) => {
                regs.dma_addr |= val & 0xffff_ffff;
                self.transfer(m);
            }
            (8, 0) => {
                regs.dma_addr = val;
                self.transfer(m);
            }
            _ => {}
        }
    }

    /// Carries out the request that the DMA address points at.
    fn transfer(&self, m: &mut Locked) {
        let memory = &self.core().memory;
        let at = std::mem::take(&mut self.regs.rw(m).dma_addr);
        let mut raw = [0; DmaRequest::SIZE];
        if memory.read(m, at, &mut raw).is_err() {
            let _ = memory.write(m, at, &control::ERROR.to_be_bytes());
            return;
        }
        let request = DmaRequest::decode(&raw);
        if request.control & control::SELECT != 0 {
            self.select(m, (request.control >> 16) as u16);
        }
        // The cursor is taken out while guest memory is accessed: the guest may aim the transfer at this very device.
        let mut regs = self.regs.ro(m).clone();
        let request = DmaRequest { control: request.control & !control::SELECT, ..request };
        let mut items = self.with(|i| i.clone());
        let answer = regs.dma(&mut items, request, |addr, access| match access {
            GuestAccess::Read(buf) => memory.read(m, addr, buf).is_ok(),
            GuestAccess::Write(data) => memory.write(m, addr, data).is_ok(),
        });
        if request.control & control::WRITE != 0 {
            *self.items.lock() = Some(items);
        }
        *self.regs.rw(m) = regs;
        let _ = memory.write(m, at, &answer.to_be_bytes());
    }
}

impl DeviceImpl for FwCfg {
    fn realize(&self, m: &mut Locked) -> Result<()> {
        self.parent_realize(m)?;
        if self.x_file_slots.get() < 0x10 {
            return Err(Error::generic(format!("\"file_slots\" must be at least 0x{:x}", 0x10)));
        }
        self.set(key::SIGNATURE, *b"QEMU");
        self.set_u32(key::ID, VERSION | if self.dma_enabled.get() { VERSION_DMA } else { 0 });
        Ok(())
    }

    fn reset(&self, m: &mut Locked, phase: Phase) {
        if phase == Phase::Enter {
            *self.regs.rw(m) = FwCfgRegs::default();
        }
        self.parent_reset(m, phase);
    }
}

/// Type `fw_cfg_io`.
#[derive(Object)]
#[qom(name = "fw_cfg_io", parent = FwCfg, methods(DeviceClass))]
pub struct FwCfgIo {
    parent: FwCfg,
}

impl DeviceImpl for FwCfgIo {
    fn realize(&self, m: &mut Locked) -> Result<()> {
        self.parent_realize(m)?;
        let read = |d: &FwCfgIo, m: &mut Locked, off: u64, size: u32| d.read_comb(m, off, size);
        let write = |d: &FwCfgIo, m: &mut Locked, off: u64, size: u32, val: u64| d.write_comb(m, off, size, val);
        let sizes = Sizes::new(1, 2);
        let ops = Ops { read, write, valid: sizes, imp: sizes, ..Ops::default() };
        self.map_io(m, PORT, &MemoryRegion::io(self, "fwcfg", 2, ops));
        if self.dma_enabled.get() {
            let read = |d: &FwCfgIo, m: &mut Locked, off: u64, size: u32| d.read_dma(m, off, size);
            let write = |d: &FwCfgIo, m: &mut Locked, off: u64, size: u32, val: u64| d.write_dma(m, off, size, val);
            let sizes = Sizes::new(1, 8);
            let ops = Ops { read, write, valid: sizes, imp: sizes, endian: Endian::Big };
            self.map_io(m, DMA_PORT, &MemoryRegion::io(self, "fwcfg.dma", 8, ops));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hw_core::Core;
    use qom::World;

    fn machine() -> (Arc<Core>, World) {
        let core = Core::new();
        let world = World::new(core.clone());
        let mut m = core.lock();
        let ram = MemoryRegion::ram(&**world.root(), "ram", 0x10000).unwrap();
        core.system_memory().add_subregion(&mut m, 0, &ram);
        let dev = world.object_new("fw_cfg_io").unwrap();
        let fw = dev.cast::<FwCfg>().unwrap();
        fw.add_file("etc/hello", *b"hello").unwrap();
        fw.realize_sysbus(&mut m).unwrap();
        drop(m);
        (core, world)
    }

    #[test]
    fn the_signature_reads_at_the_data_port() {
        let (core, _world) = machine();
        let mut m = core.lock();
        core.io.store(&mut m, PORT, 2, 0).unwrap();
        let got: Vec<u64> = (0..5).map(|_| core.io.load(&mut m, PORT + 1, 1).unwrap()).collect();
        assert_eq!(got, [0x51, 0x45, 0x4d, 0x55, 0]);
        assert_eq!(core.io.load(&mut m, DMA_PORT, 4).unwrap() as u32, u32::from_be_bytes(*b"QEMU").swap_bytes());
    }

    #[test]
    fn dma_copies_a_file_and_clears_the_control_word() {
        let (core, _world) = machine();
        let mut m = core.lock();
        let mut request = Vec::new();
        request.extend((0x20u32 << 16 | control::SELECT | control::READ).to_be_bytes());
        request.extend(8u32.to_be_bytes());
        request.extend(0x2000u64.to_be_bytes());
        core.memory.write(&mut m, 0x1000, &request).unwrap();
        core.io.store(&mut m, DMA_PORT + 4, 4, u64::from(0x1000u32.swap_bytes())).unwrap();
        let mut got = [0xff; 8];
        core.memory.read(&mut m, 0x2000, &mut got).unwrap();
        assert_eq!(&got, b"hello\0\0\0");
        assert_eq!(core.memory.load(&mut m, 0x1000, 4).unwrap(), 0);
    }

    #[test]
    fn dma_to_nowhere_is_an_error() {
        let (core, _world) = machine();
        let mut m = core.lock();
        let mut request = Vec::new();
        request.extend((0x20u32 << 16 | control::SELECT | control::READ).to_be_bytes());
        request.extend(8u32.to_be_bytes());
        request.extend(0x1234_5678_0000u64.to_be_bytes());
        core.memory.write(&mut m, 0x1000, &request).unwrap();
        core.io.store(&mut m, DMA_PORT + 4, 4, u64::from(0x1000u32.swap_bytes())).unwrap();
        assert_eq!(core.memory.load(&mut m, 0x1000, 4).unwrap() as u32, control::ERROR.swap_bytes());
    }
}
