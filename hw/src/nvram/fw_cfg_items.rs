//! What fw_cfg offers: numbered items and named files, and the cursor a guest reads them with. No wiring.
//! Source: the fw_cfg interface specification shared by QEMU, SeaBIOS and OVMF (selector, data, DMA control word).

use super::fw_cfg_data::Data;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Fixed selector keys.
pub mod key {
    #![expect(missing_docs, reason = "names of the interface")]
    pub const SIGNATURE: u16 = 0x00;
    pub const ID: u16 = 0x01;
    pub const UUID: u16 = 0x02;
    pub const RAM_SIZE: u16 = 0x03;
    pub const NOGRAPHIC: u16 = 0x04;
    pub const NB_CPUS: u16 = 0x05;
    pub const MACHINE_ID: u16 = 0x06;
    pub const KERNEL_ADDR: u16 = 0x07;
    pub const KERNEL_SIZE: u16 = 0x08;
    pub const KERNEL_CMDLINE: u16 = 0x09;
    pub const INITRD_ADDR: u16 = 0x0a;
    pub const INITRD_SIZE: u16 = 0x0b;
    pub const BOOT_DEVICE: u16 = 0x0c;
    pub const NUMA: u16 = 0x0d;
    pub const BOOT_MENU: u16 = 0x0e;
    pub const MAX_CPUS: u16 = 0x0f;
    pub const KERNEL_ENTRY: u16 = 0x10;
    pub const KERNEL_DATA: u16 = 0x11;
    pub const INITRD_DATA: u16 = 0x12;
    pub const CMDLINE_ADDR: u16 = 0x13;
    pub const CMDLINE_SIZE: u16 = 0x14;
    pub const CMDLINE_DATA: u16 = 0x15;
    pub const SETUP_ADDR: u16 = 0x16;
    pub const SETUP_SIZE: u16 = 0x17;
    pub const SETUP_DATA: u16 = 0x18;
    pub const FILE_DIR: u16 = 0x19;
    pub const FILE_FIRST: u16 = 0x20;
    pub const ARCH_LOCAL: u16 = 0x8000;
    pub const INVALID: u16 = 0xffff;
}

/// Longest file name, without the terminating zero.
pub const MAX_NAME: usize = 55;
/// Selector bits that name an item: the write channel bit is ignored, as on QEMU since 2.4.
const KEY_MASK: u16 = 0xbfff;

/// Control word of a DMA request.
pub mod control {
    #![expect(missing_docs, reason = "names of the interface")]
    pub const ERROR: u32 = 0x01;
    pub const READ: u32 = 0x02;
    pub const SKIP: u32 = 0x04;
    pub const SELECT: u32 = 0x08;
    pub const WRITE: u32 = 0x10;
}

/// One item's bytes; files that the guest may write say so.
#[derive(Clone, Debug)]
pub struct Item {
    data: Data,
    writable: bool,
}

/// A named file.
#[derive(Clone, Debug)]
struct File {
    item: Item,
    key: u16,
}

/// Why an item or file was refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ItemError {
    /// The name is empty, too long or holds a zero byte.
    #[error("fw_cfg file name '{0}' must have 1 to {MAX_NAME} bytes")]
    Name(String),
    /// A file of this name exists.
    #[error("duplicate fw_cfg file name: {0}")]
    Duplicate(String),
    /// All file slots are taken.
    #[error("no fw_cfg file slot is left for '{0}' (x-file-slots={1})")]
    Full(String, u16),
    /// More than a 32-bit size can tell.
    #[error("fw_cfg file '{0}' is larger than 4 GiB")]
    Size(String),
}

/// All items of a machine. Files are numbered in the order of their names.
#[derive(Clone, Debug)]
pub struct Items {
    fixed: BTreeMap<u16, Item>,
    files: BTreeMap<String, File>,
    slots: u16,
    directory: Data,
}

impl Items {
    /// An empty store with room for `slots` files.
    pub fn new(slots: u16) -> Items {
        Items { fixed: BTreeMap::new(), files: BTreeMap::new(), slots, directory: Data::from([0; 4]) }
    }

    /// Sets a fixed item, replacing what was there.
    pub fn set(&mut self, key: u16, data: impl Into<Data>) {
        self.fixed.insert(key & KEY_MASK, Item { data: data.into(), writable: false });
    }

    /// Adds a file.
    ///
    /// # Errors
    /// A bad or used name, too many files, or more than 4 GiB.
    pub fn add_file(&mut self, name: &str, data: impl Into<Data>, writable: bool) -> Result<(), ItemError> {
        let data = data.into();
        if name.is_empty() || name.len() > MAX_NAME || name.contains('\0') {
            return Err(ItemError::Name(name.into()));
        }
        if self.files.contains_key(name) {
            return Err(ItemError::Duplicate(name.into()));
        }
        if self.files.len() >= usize::from(self.slots) {
            return Err(ItemError::Full(name.into(), self.slots));
        }
        if u32::try_from(data.len()).is_err() {
            return Err(ItemError::Size(name.into()));
        }
        self.files.insert(name.into(), File { item: Item { data, writable }, key: 0 });
        self.renumber();
        Ok(())
    }

    /// Replaces the contents of a file, or adds it.
    ///
    /// # Errors
    /// As for [`Items::add_file`].
    pub fn modify_file(&mut self, name: &str, data: impl Into<Data>) -> Result<(), ItemError> {
        let data = data.into();
        match self.files.get_mut(name) {
            Some(_) if u32::try_from(data.len()).is_err() => Err(ItemError::Size(name.into())),
            Some(file) => {
                file.item.data = data;
                self.renumber();
                Ok(())
            }
            None => self.add_file(name, data, false),
        }
    }

    /// The contents of a file.
    pub fn file(&self, name: &str) -> Option<&Data> {
        Some(&self.files.get(name)?.item.data)
    }

    /// The contents of a fixed item.
    pub fn fixed(&self, key: u16) -> Option<&Data> {
        Some(&self.fixed.get(&(key & KEY_MASK))?.data)
    }

    /// Names of all files, in the order of their keys.
    pub fn file_names(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(String::as_str)
    }

    fn renumber(&mut self) {
        let mut directory = Vec::with_capacity(4 + 64 * self.files.len());
        directory.extend((self.files.len() as u32).to_be_bytes());
        for (i, (name, file)) in (0u16..).zip(&mut self.files) {
            file.key = key::FILE_FIRST + i;
            directory.extend((file.item.data.len() as u32).to_be_bytes());
            directory.extend(file.key.to_be_bytes());
            directory.extend([0, 0]);
            directory.extend(name.bytes().chain(std::iter::repeat(0)).take(MAX_NAME + 1));
        }
        self.directory = directory.into();
    }

    fn data(&self, key: u16) -> Option<&Data> {
        if key == key::FILE_DIR {
            return Some(&self.directory);
        }
        match self.fixed.get(&key) {
            Some(item) => Some(&item.data),
            None => self.files.values().find(|f| f.key == key).map(|f| &f.item.data),
        }
    }

    /// Name of the file behind a selector key.
    pub fn name_of(&self, key: u16) -> Option<&str> {
        self.files.iter().find(|(_, f)| f.key == key & KEY_MASK).map(|(n, _)| n.as_str())
    }

    /// Writes into a writable file; false if the item cannot be written there.
    fn write(&mut self, key: u16, offset: usize, bytes: &[u8]) -> bool {
        let Some(file) = self.files.values_mut().find(|f| f.key == key && f.item.writable) else { return false };
        let mut data = file.item.data.to_vec();
        let end = offset.saturating_add(bytes.len());
        let Some(range) = data.get_mut(offset..end) else { return false };
        range.copy_from_slice(bytes);
        file.item.data = data.into();
        true
    }
}

/// The cursor: which item is selected and how far it has been read. All that a snapshot keeps of the interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FwCfgRegs {
    /// Selected key, [`key::INVALID`] if it names nothing.
    pub cur_entry: u16,
    /// Next byte of the selected item.
    pub cur_offset: u32,
    /// Address of the next DMA request, as written so far.
    pub dma_addr: u64,
}

impl Default for FwCfgRegs {
    fn default() -> Self {
        FwCfgRegs { cur_entry: key::SIGNATURE, cur_offset: 0, dma_addr: 0 }
    }
}

impl FwCfgRegs {
    /// Selects an item and rewinds it.
    pub fn select(&mut self, items: &Items, selector: u16) {
        let wanted = selector & KEY_MASK;
        let known = items.data(wanted).is_some() || wanted & !key::ARCH_LOCAL < key::FILE_FIRST + items.slots;
        self.cur_entry = if known { wanted } else { key::INVALID };
        self.cur_offset = 0;
    }

    /// The selected item's remaining bytes.
    fn rest(&self, items: &Items) -> Data {
        let at = self.cur_offset as usize;
        items.data(self.cur_entry).map_or_else(|| Data::from([]), |d| d.slice(at..d.len()))
    }

    /// Reads `size` bytes as a big-endian number; past the end, zeros follow.
    pub fn read(&mut self, items: &Items, size: u32) -> u64 {
        let rest = self.rest(items);
        let value = (0..size.min(8) as usize).fold(0, |v, i| v << 8 | u64::from(rest.get(i).unwrap_or(0)));
        self.advance(rest.len().min(size as usize));
        value
    }

    fn advance(&mut self, n: usize) {
        self.cur_offset = self.cur_offset.saturating_add(n as u32);
    }

    /// Carries out a DMA request. `read_guest` and `write_guest` answer false for addresses that are no memory.
    /// Returns the control word to store back: 0, or [`control::ERROR`].
    pub fn dma(
        &mut self,
        items: &mut Items,
        request: DmaRequest,
        mut guest: impl FnMut(u64, GuestAccess<'_>) -> bool,
    ) -> u32 {
        if request.control & control::SELECT != 0 {
            self.select(items, (request.control >> 16) as u16);
        }
        let length = request.length as usize;
        if request.control & control::READ != 0 {
            let rest = self.rest(items);
            let data = rest.slice(0..length);
            let mut ok =
                data.pieces(|at, piece| guest(request.address.wrapping_add(at as u64), GuestAccess::Write(piece)));
            let (mut at, mut left) = (request.address.wrapping_add(data.len() as u64), length - data.len());
            const ZEROS: [u8; 4096] = [0; 4096];
            while ok && left > 0 {
                let zeros = ZEROS.get(..left.min(ZEROS.len())).unwrap_or_default();
                ok = guest(at, GuestAccess::Write(zeros));
                at = at.wrapping_add(zeros.len() as u64);
                left -= zeros.len();
            }
            self.advance(data.len());
            return if ok { 0 } else { control::ERROR };
        }
        if request.control & control::WRITE != 0 {
            let fits = length.min(self.rest(items).len());
            let mut data = vec![0; fits];
            let ok = length == 0
                || fits == length
                    && guest(request.address, GuestAccess::Read(&mut data))
                    && items.write(self.cur_entry, self.cur_offset as usize, &data);
            // What is refused is passed over as well.
            self.advance(fits);
            return if ok { 0 } else { control::ERROR };
        }
        if request.control & control::SKIP != 0 {
            let left = self.rest(items).len();
            self.advance(length.min(left));
        }
        0
    }
}

/// A request as it stands in guest memory: three big-endian fields, 16 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DmaRequest {
    /// Control word and, in its upper half, the selector.
    pub control: u32,
    /// Bytes to transfer.
    pub length: u32,
    /// Guest physical address of the buffer.
    pub address: u64,
}

impl DmaRequest {
    /// Size of a request in guest memory.
    pub const SIZE: usize = 16;

    /// Decodes a request.
    pub fn decode(b: &[u8; 16]) -> DmaRequest {
        let [c0, c1, c2, c3, l0, l1, l2, l3, a @ ..] = *b;
        DmaRequest {
            control: u32::from_be_bytes([c0, c1, c2, c3]),
            length: u32::from_be_bytes([l0, l1, l2, l3]),
            address: u64::from_be_bytes(a),
        }
    }
}

/// What a DMA request does to guest memory.
#[derive(Debug)]
pub enum GuestAccess<'a> {
    /// Fill the buffer from guest memory.
    Read(&'a mut [u8]),
    /// Store these bytes.
    Write(&'a [u8]),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items() -> Items {
        let mut items = Items::new(4);
        items.set(key::SIGNATURE, *b"QEMU");
        items.add_file("etc/b", *b"second", false).unwrap();
        items.add_file("etc/a", *b"first", true).unwrap();
        items
    }

    #[test]
    fn files_are_numbered_by_name() {
        let items = items();
        let mut regs = FwCfgRegs::default();
        regs.select(&items, key::FILE_DIR);
        assert_eq!(regs.read(&items, 4), 2);
        assert_eq!(regs.read(&items, 8), 0x0000_0005_0020_0000);
        regs.select(&items, 0x21);
        assert_eq!(regs.read(&items, 8), u64::from_be_bytes(*b"second\0\0"));
        assert_eq!(regs.read(&items, 1), 0);
    }

    #[test]
    fn names_and_slots_are_checked() {
        let mut items = items();
        assert!(matches!(items.add_file("", [], false), Err(ItemError::Name(_))));
        assert!(matches!(items.add_file(&"x".repeat(56), [], false), Err(ItemError::Name(_))));
        assert!(matches!(items.add_file("etc/a", [], false), Err(ItemError::Duplicate(_))));
        items.add_file("c", [], false).unwrap();
        items.add_file("d", [], false).unwrap();
        assert!(matches!(items.add_file("e", [], false), Err(ItemError::Full(..))));
    }

    #[test]
    fn unknown_selector_reads_zeros() {
        let items = items();
        let mut regs = FwCfgRegs::default();
        regs.select(&items, 0x3fff);
        assert_eq!((regs.cur_entry, regs.read(&items, 4)), (key::INVALID, 0));
    }

    #[test]
    fn dma_reads_skips_and_writes() {
        let (mut items, mut regs) = (items(), FwCfgRegs::default());
        let mut seen = Vec::new();
        let mut run = |items: &mut Items, control, length, fill: &[u8]| {
            let request = DmaRequest { control, length, address: 0x1000 };
            regs.dma(items, request, |_, access| {
                match access {
                    GuestAccess::Write(d) => seen.extend_from_slice(d),
                    GuestAccess::Read(d) => d.copy_from_slice(fill),
                }
                true
            })
        };
        assert_eq!(run(&mut items, 0x20 << 16 | control::SELECT | control::SKIP, 2, &[]), 0);
        assert_eq!(run(&mut items, control::READ, 5, &[]), 0);
        assert_eq!(run(&mut items, 0x20 << 16 | control::SELECT | control::WRITE, 2, b"FI"), 0);
        assert_eq!(run(&mut items, control::WRITE, 9, &[0; 9]), control::ERROR); // past the end
        assert_eq!(run(&mut items, 0x21 << 16 | control::SELECT | control::WRITE, 1, b"x"), control::ERROR); // read-only
        assert_eq!(seen, b"rst\0\0");
        assert_eq!(items.file("etc/a").unwrap().to_vec(), b"FIrst");
    }

    #[test]
    fn a_huge_dma_length_is_cut_by_the_guest_memory() {
        let (mut items, mut regs) = (items(), FwCfgRegs::default());
        let request = DmaRequest { control: control::READ, length: u32::MAX, address: 0 };
        let answer = regs.dma(&mut items, request, |at, _| at < 0x10000);
        assert_eq!(answer, control::ERROR);
    }
}
