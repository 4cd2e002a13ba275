//! Images in guest memory: firmware, option ROMs, kernels. They are kept here and written at every reset, as if they
//! were soldered in.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use qom::{Error, Result};

use crate::core::Core;
use crate::locked::Locked;
use crate::memory::MemoryRegion;

/// Largest image that is read: bigger files are a mistake.
const MAX_FILE: u64 = 2 << 30;

/// Where an image goes.
#[derive(Clone)]
pub enum RomPlace {
    /// Into guest memory at this address (through ROM, unlike a guest's store).
    Address(u64),
    /// Into a region's memory, at its start.
    Region(MemoryRegion),
    /// Nowhere: fw_cfg hands it out under this name.
    FwCfg(String),
}

/// One image.
#[derive(Clone)]
pub struct Rom {
    /// Name, for `info roms`.
    pub name: String,
    /// The bytes.
    pub data: Arc<[u8]>,
    /// Bytes it takes; what is beyond the data is zero.
    pub size: u64,
    /// Where it goes.
    pub place: RomPlace,
}

impl Rom {
    /// First address, for images in guest memory.
    fn range(&self) -> Option<(u64, u64)> {
        match self.place {
            RomPlace::Address(a) => Some((a, a.saturating_add(self.size))),
            _ => None,
        }
    }
}

/// The machine's images, by address.
#[derive(Default)]
pub struct Roms {
    roms: RwLock<Vec<Rom>>,
    search: Mutex<Vec<PathBuf>>,
}

impl Roms {
    /// Sets the folders in which [`Roms::find`] looks, best first.
    pub fn set_search_path(&self, folders: Vec<PathBuf>) {
        *self.search.lock() = folders;
    }

    /// A firmware file by name: as it is, if there is such a file, else in the folders.
    pub fn find(&self, name: &str) -> Option<PathBuf> {
        let plain = Path::new(name);
        if plain.is_file() {
            return Some(plain.to_owned());
        }
        self.search.lock().iter().map(|d| d.join(name)).find(|p| p.is_file())
    }

    /// Reads a file whole.
    ///
    /// # Errors
    /// It cannot be read, is empty, or is longer than `max`.
    pub fn read_file(path: &Path, max: u64) -> Result<Vec<u8>> {
        use std::io::Read;
        let fail = |e: std::io::Error| Error::generic(format!("Could not open '{}': {e}", path.display()));
        let max = max.min(MAX_FILE);
        let too_large = || Error::generic(format!("'{}' is larger than {max} bytes", path.display()));
        let mut data = vec![];
        let file = std::fs::File::open(path).map_err(fail)?;
        // A regular file tells before it is read; a pipe does not.
        if file.metadata().is_ok_and(|m| m.is_file() && m.len() > max) {
            return Err(too_large());
        }
        file.take(max + 1).read_to_end(&mut data).map_err(fail)?;
        if data.len() as u64 > max {
            return Err(too_large());
        }
        if data.is_empty() {
            return Err(Error::generic(format!("'{}' is empty", path.display())));
        }
        Ok(data)
    }

    /// Adds an image.
    ///
    /// # Errors
    /// It overlaps another one in guest memory.
    pub fn add(&self, rom: Rom) -> Result<()> {
        let mut roms = self.roms.write();
        if let Some((start, end)) = rom.range() {
            let hit = roms.iter().find(|o| o.range().is_some_and(|(s, e)| start < e && s < end));
            if let Some(o) = hit {
                let (s, e) = o.range().unwrap_or_default();
                return Err(Error::generic(format!(
                    "ROM images must not overlap: '{}' ({start:#x} to {end:#x}) and '{}' ({s:#x} to {e:#x})",
                    rom.name, o.name
                )));
            }
        }
        let at = match rom.range() {
            Some((start, _)) => roms.iter().position(|o| o.range().is_none_or(|r| r.0 > start)),
            None => None,
        };
        let at = at.unwrap_or(roms.len());
        roms.insert(at, rom);
        Ok(())
    }

    /// Adds bytes at an address of guest memory.
    ///
    /// # Errors
    /// As [`Roms::add`].
    pub fn add_blob(&self, name: &str, data: &[u8], addr: u64) -> Result<()> {
        let (name, size) = (name.to_owned(), data.len() as u64);
        self.add(Rom { name, data: data.into(), size, place: RomPlace::Address(addr) })
    }

    /// Adds bytes at the start of a region's memory.
    ///
    /// # Errors
    /// They are more than the region holds, or it is not memory.
    pub fn add_to_region(&self, name: &str, data: &[u8], region: &MemoryRegion) -> Result<()> {
        let room = region.ram_block().map_or(0, |b| b.len());
        if data.len() as u64 > room {
            return Err(Error::generic(format!("ROM '{name}' does not fit into region '{}'", region.name())));
        }
        let (name, size) = (name.to_owned(), data.len() as u64);
        self.add(Rom { name, data: data.into(), size, place: RomPlace::Region(region.clone()) })
    }

    /// Adds a file's bytes at an address of guest memory.
    ///
    /// # Errors
    /// The file cannot be read; as [`Roms::add`].
    pub fn add_file(&self, path: &Path, addr: u64) -> Result<u64> {
        let data = Self::read_file(path, MAX_FILE)?;
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        self.add_blob(&name, &data, addr)?;
        Ok(data.len() as u64)
    }

    /// All images, for `info roms`.
    pub fn list(&self) -> Vec<Rom> {
        self.roms.read().clone()
    }

    /// Writes every image to its place: part of a system reset.
    pub fn reset(&self, core: &Core, _m: &mut Locked) {
        for rom in self.list() {
            match &rom.place {
                RomPlace::Address(addr) => write_rom(core, *addr, &rom),
                RomPlace::Region(r) => {
                    if let Some(b) = r.ram_block() {
                        b.write(0, &rom.data);
                    }
                }
                RomPlace::FwCfg(_) => {}
            }
        }
    }
}

/// Writes through ROM: into the memory behind whatever answers.
fn write_rom(core: &Core, mut addr: u64, rom: &Rom) {
    let view = core.memory.view();
    let mut data: &[u8] = &rom.data;
    while !data.is_empty() {
        let found = view.find(addr);
        let room = found.map_or_else(|| view.next_start(addr).map_or(u64::MAX, |s| s - addr), |r| r.last - addr + 1);
        let n = usize::try_from(room).unwrap_or(usize::MAX).min(data.len());
        let Some((piece, rest)) = data.split_at_checked(n) else { return };
        match found.and_then(|r| r.readable(addr)) {
            Some((block, off)) => _ = block.write(off, piece),
            None => tracing::warn!(rom = rom.name, addr, "no memory at the place of an image"),
        }
        data = rest;
        addr = addr.wrapping_add(n as u64);
    }
}
