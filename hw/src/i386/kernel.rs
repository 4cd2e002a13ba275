//! A kernel given on the command line: which protocol it follows and where its parts go.
//! Source: Linux `Documentation/arch/x86/boot.rst` (protocol 2.15), Multiboot 0.6.96 §3, PVH boot ABI (ELF note 18).

use super::boot_rom::BootRom;
use crate::nvram::{fw_cfg_data::Data, fw_cfg_items::key};
use object::{
    Endianness,
    elf::{FileHeader32, FileHeader64, NoteType, PT_LOAD, PT_NOTE},
    read::elf::{FileHeader, ProgramHeader},
};
use std::sync::Arc;

/// A file of the command line.
#[derive(Clone, Debug)]
pub struct Image {
    /// Its bytes, for as long as the plan is made.
    pub bytes: Arc<[u8]>,
    /// The same for the guest.
    pub data: Data,
}

impl From<Vec<u8>> for Image {
    fn from(bytes: Vec<u8>) -> Image {
        let bytes: Arc<[u8]> = bytes.into();
        Image { data: bytes.clone().into(), bytes }
    }
}

/// What the command line gave.
#[derive(Clone, Debug)]
pub struct KernelConfig {
    /// `-kernel`: the image.
    pub kernel: Image,
    /// `-initrd`: for multiboot the modules with their command lines, else the one initial RAM disk.
    pub initrd: Vec<(Image, String)>,
    /// `-append`.
    pub cmdline: String,
    /// Bytes of RAM below 4 GiB.
    pub below_4g: u64,
    /// Bytes at the top of low RAM that belong to the ACPI tables.
    pub acpi_data_size: u64,
}

/// Where everything goes.
#[derive(Clone, Debug)]
pub struct BootPlan {
    /// The option ROM that starts it.
    pub rom: BootRom,
    /// fw_cfg items to set.
    pub items: Vec<(u16, Data)>,
    /// Blobs to place in guest memory at reset: address, bytes.
    pub load: Vec<(u64, Arc<[u8]>)>,
}

/// Why a kernel cannot be started.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum KernelError {
    /// Neither a Linux image, nor multiboot, nor ELF with a PVH note.
    #[error("invalid kernel header: expected a bzImage, a multiboot image or an ELF image with a PVH note")]
    Format,
    /// The file ends before its header says.
    #[error("the kernel image is truncated: {0}")]
    Truncated(&'static str),
    /// An uncompressed Linux without the note.
    #[error("Error loading uncompressed kernel without PVH ELF Note")]
    NoPvh,
    /// A 64-bit multiboot kernel.
    #[error("Cannot load x86-64 image, give a 32bit one.")]
    Multiboot64,
    /// It does not fit.
    #[error("{what} is too large, cannot support. (max: {max}, need {need})")]
    TooLarge {
        /// What does not fit.
        what: &'static str,
        /// Bytes there is room for.
        max: u64,
        /// Bytes wanted.
        need: u64,
    },
    /// More than one initrd for a protocol that takes one.
    #[error("a Linux kernel takes one initrd")]
    Modules,
}

/// An initrd and its address.
type Placed = (u32, Data);

const BELOW_640K: u32 = 0x9_0000;

fn u16_at(b: &[u8], at: usize) -> Option<u16> {
    b.get(at..at + 2).and_then(|s| s.try_into().ok()).map(u16::from_le_bytes)
}

fn u32_at(b: &[u8], at: usize) -> Option<u32> {
    b.get(at..at.checked_add(4)?).and_then(|s| s.try_into().ok()).map(u32::from_le_bytes)
}

fn put(b: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(d) = b.get_mut(at..at + bytes.len()) {
        d.copy_from_slice(bytes);
    }
}

fn number(key: u16, v: u32) -> (u16, Data) {
    (key, v.to_le_bytes().into())
}

/// The command line as the guest reads it, with its terminating zero.
fn cstring(s: &str) -> Data {
    s.bytes().chain([0]).collect::<Vec<_>>().into()
}

/// Decides how to start a kernel.
///
/// # Errors
/// The image is of no known kind, damaged, or does not fit into RAM.
pub fn plan(c: &KernelConfig) -> Result<BootPlan, KernelError> {
    if u32_at(&c.kernel.bytes, 0x202) == Some(u32::from_le_bytes(*b"HdrS")) {
        let protocol = u16_at(&c.kernel.bytes, 0x206).ok_or(KernelError::Truncated("boot header"))?;
        return linux(c, protocol);
    }
    if let Some(at) = multiboot_header(&c.kernel.bytes) {
        return multiboot(c, at);
    }
    if c.kernel.bytes.starts_with(b"\x7fELF") {
        return pvh(c);
    }
    // Kernels before protocol 2.00 have no magic but the boot sector's.
    if u16_at(&c.kernel.bytes, 0x1fe) == Some(0xaa55) {
        return linux(c, 0);
    }
    Err(KernelError::Format)
}

/// Highest address + 1 an initrd may reach, page-aligned placement as high as possible below it.
fn place_initrd(c: &KernelConfig, kernel_max: u64) -> Result<Option<Placed>, KernelError> {
    let [(initrd, _)] = c.initrd.as_slice() else {
        return if c.initrd.is_empty() { Ok(None) } else { Err(KernelError::Modules) };
    };
    let max = kernel_max.min(c.below_4g.saturating_sub(c.acpi_data_size).saturating_sub(1));
    let need = initrd.bytes.len() as u64;
    if need >= max {
        return Err(KernelError::TooLarge { what: "initrd", max, need });
    }
    Ok(Some((((max - need) & !0xfff) as u32, initrd.data.clone())))
}

fn linux(c: &KernelConfig, protocol: u16) -> Result<BootPlan, KernelError> {
    const LOADED_HIGH: u8 = 1;
    const CAN_USE_HEAP: u8 = 0x80;
    const CAN_BE_LOADED_ABOVE_4G: u16 = 2;
    let image = &c.kernel.bytes;
    let setup_sects = match image.get(0x1f1).copied().ok_or(KernelError::Truncated("boot header"))? {
        0 => 4,
        n => usize::from(n),
    };
    let setup_size = (setup_sects + 1) * 512;
    let (setup, kernel) = image.split_at_checked(setup_size).ok_or(KernelError::Truncated("setup"))?;
    let high = protocol >= 0x200 && setup.get(0x211).is_some_and(|f| f & LOADED_HIGH != 0);
    let cmdline = cstring(&c.cmdline);
    let (real, command, protected) = if high {
        (0x1_0000, 0x2_0000, 0x10_0000)
    } else {
        (0x9_0000, 0x9_a000u32.saturating_sub(cmdline.len() as u32), 0x1_0000)
    };
    let initrd_max = match protocol {
        0x20c.. if u16_at(setup, 0x236).is_some_and(|x| x & CAN_BE_LOADED_ABOVE_4G != 0) => u32::MAX,
        0x203.. => u32_at(setup, 0x22c).unwrap_or(0x37ff_ffff),
        _ => 0x37ff_ffff,
    };
    if u64::from(protected) + kernel.len() as u64 > c.below_4g {
        let max = c.below_4g.saturating_sub(protected.into());
        return Err(KernelError::TooLarge { what: "kernel", max, need: kernel.len() as u64 });
    }
    let initrd = place_initrd(c, initrd_max.into())?;
    let mut setup = setup.to_vec();
    if protocol >= 0x202 {
        put(&mut setup, 0x228, &command.to_le_bytes());
    } else {
        put(&mut setup, 0x20, &0xa33fu16.to_le_bytes());
        put(&mut setup, 0x22, &((command - real) as u16).to_le_bytes());
    }
    if let Some(mode) = video_mode(&c.cmdline) {
        put(&mut setup, 0x1fa, &mode.to_le_bytes());
    }
    if protocol >= 0x200 {
        put(&mut setup, 0x210, &[0xb0]); // type_of_loader: QEMU's number
    }
    if protocol >= 0x201 {
        let flags = setup.get(0x211).copied().unwrap_or(0) | CAN_USE_HEAP;
        put(&mut setup, 0x211, &[flags]);
        put(&mut setup, 0x224, &((command - real).wrapping_sub(0x200) as u16).to_le_bytes());
    }
    let mut items = Vec::new();
    if let Some((address, data)) = &initrd {
        if protocol < 0x200 {
            return Err(KernelError::TooLarge { what: "initrd", max: 0, need: data.len() as u64 });
        }
        put(&mut setup, 0x218, &address.to_le_bytes());
        put(&mut setup, 0x21c, &(data.len() as u32).to_le_bytes());
        items.extend([number(key::INITRD_ADDR, *address), number(key::INITRD_SIZE, data.len() as u32)]);
        items.push((key::INITRD_DATA, data.clone()));
    }
    items.extend([
        number(key::CMDLINE_ADDR, command),
        number(key::CMDLINE_SIZE, cmdline.len() as u32),
        (key::CMDLINE_DATA, cmdline),
        number(key::KERNEL_ADDR, protected),
        number(key::KERNEL_SIZE, kernel.len() as u32),
        (key::KERNEL_DATA, c.kernel.data.slice(setup_size..image.len())),
        number(key::SETUP_ADDR, real),
        number(key::SETUP_SIZE, setup.len() as u32),
        (key::SETUP_DATA, setup.into()),
    ]);
    Ok(BootPlan { rom: BootRom::Linux, items, load: Vec::new() })
}

/// The `vga=` option: a number, or normal, ext, ask.
fn video_mode(cmdline: &str) -> Option<u16> {
    let value = cmdline.split_whitespace().find_map(|w| w.strip_prefix("vga="))?;
    match value {
        "normal" => Some(0xffff),
        "ext" => Some(0xfffe),
        "ask" => Some(0xfffd),
        hex if hex.starts_with("0x") => u16::from_str_radix(hex.get(2..)?, 16).ok(),
        number => number.parse().ok(),
    }
}

/// The image has a multiboot header and is no Linux image.
pub fn is_multiboot(image: &[u8]) -> bool {
    u32_at(image, 0x202) != Some(u32::from_le_bytes(*b"HdrS")) && multiboot_header(image).is_some()
}

/// Offset of a valid multiboot header, which lies in the first 8 KiB on a dword.
fn multiboot_header(image: &[u8]) -> Option<usize> {
    (0..8192usize).step_by(4).find(|&at| {
        let word = |i: usize| u32_at(image, at + 4 * i);
        word(0) == Some(0x1bad_b002)
            && matches!((word(1), word(2)), (Some(f), Some(c)) if 0x1bad_b002u32.wrapping_add(f).wrapping_add(c) == 0)
    })
}

/// Address of the multiboot information structure; `boot_rom` fills in the memory map.
const MULTIBOOT_INFO: u32 = 0x9000;

fn multiboot(c: &KernelConfig, header: usize) -> Result<BootPlan, KernelError> {
    const AOUT_KLUDGE: u32 = 1 << 16;
    const MEMORY: u32 = 1 << 0;
    const CMDLINE: u32 = 1 << 2;
    const MODULES: u32 = 1 << 3;
    const MEMORY_MAP: u32 = 1 << 6;
    const LOADER_NAME: u32 = 1 << 9;
    let field = |i: usize| u32_at(&c.kernel.bytes, header + 4 * i).ok_or(KernelError::Truncated("multiboot header"));
    let (base, mut blob, entry) = if field(1)? & AOUT_KLUDGE != 0 {
        let (header_addr, load, load_end, bss_end, entry) = (field(3)?, field(4)?, field(5)?, field(6)?, field(7)?);
        let start = header.checked_sub(header_addr.wrapping_sub(load) as usize);
        let start = start.ok_or(KernelError::Truncated("multiboot load address"))?;
        let length = if load_end == 0 { c.kernel.bytes.len() - start } else { load_end.wrapping_sub(load) as usize };
        let text =
            c.kernel.bytes.get(start..start.saturating_add(length)).ok_or(KernelError::Truncated("multiboot text"))?;
        let mut blob = text.to_vec();
        let bss = if bss_end == 0 { 0 } else { bss_end.saturating_sub(load) as usize };
        room("kernel", c, load.into(), bss.max(length) as u64)?;
        blob.resize(bss.max(length), 0);
        (load, blob, entry)
    } else {
        let elf = Segments::of(&c.kernel.bytes)?;
        if elf.is_64 {
            return Err(KernelError::Multiboot64);
        }
        let base = elf.loads.iter().map(|l| l.address).min().ok_or(KernelError::Format)?;
        let end = elf.loads.iter().map(|l| l.address.saturating_add(l.memory)).max().unwrap_or(base);
        room("kernel", c, base, end - base)?;
        let mut blob = vec![0; (end - base) as usize];
        for load in &elf.loads {
            put(&mut blob, (load.address - base) as usize, load.bytes);
        }
        (base as u32, blob, elf.entry as u32)
    };
    // The strings and the module list follow the information structure; modules follow the kernel.
    let mut info = vec![0u8; 88];
    let mut flags = MEMORY | MEMORY_MAP | CMDLINE | LOADER_NAME;
    let text = |info: &mut Vec<u8>, s: &str| {
        let at = MULTIBOOT_INFO + info.len() as u32;
        info.extend(cstring(s).to_vec());
        at
    };
    let cmdline = text(&mut info, &c.cmdline);
    let name = text(&mut info, "qomet");
    let mut list = Vec::new();
    for (module, args) in &c.initrd {
        blob.resize(blob.len().next_multiple_of(4096), 0);
        let start = base.wrapping_add(blob.len() as u32);
        room("initrd", c, start.into(), module.bytes.len() as u64)?;
        blob.extend_from_slice(&module.bytes);
        let args = text(&mut info, args);
        list.extend([start, start.wrapping_add(module.bytes.len() as u32), args, 0]);
    }
    info.resize(info.len().next_multiple_of(4), 0);
    let modules = MULTIBOOT_INFO + info.len() as u32;
    info.extend(list.iter().flat_map(|v| v.to_le_bytes()));
    if u32::try_from(info.len()).map_or(true, |n| MULTIBOOT_INFO + n > BELOW_640K) {
        let max = (BELOW_640K - MULTIBOOT_INFO).into();
        return Err(KernelError::TooLarge { what: "command line", max, need: info.len() as u64 });
    }
    if !list.is_empty() {
        flags |= MODULES;
    }
    let upper = (c.below_4g.saturating_sub(1 << 20) >> 10) as u32;
    let fields =
        [(0, flags), (4, 639), (8, upper), (16, cmdline), (20, c.initrd.len() as u32), (24, modules), (64, name)];
    for (at, v) in fields {
        put(&mut info, at, &v.to_le_bytes());
    }
    let items = vec![
        number(key::KERNEL_ENTRY, entry),
        number(key::KERNEL_ADDR, base),
        number(key::KERNEL_SIZE, blob.len() as u32),
        (key::KERNEL_DATA, blob.into()),
        number(key::INITRD_ADDR, MULTIBOOT_INFO),
        number(key::INITRD_SIZE, info.len() as u32),
        (key::INITRD_DATA, info.into()),
    ];
    Ok(BootPlan { rom: BootRom::Multiboot, items, load: Vec::new() })
}

fn room(what: &'static str, c: &KernelConfig, base: u64, size: u64) -> Result<(), KernelError> {
    let max = c.below_4g.saturating_sub(base);
    if size > max { Err(KernelError::TooLarge { what, max, need: size }) } else { Ok(()) }
}

fn pvh(c: &KernelConfig) -> Result<BootPlan, KernelError> {
    let elf = Segments::of(&c.kernel.bytes)?;
    let entry = elf.pvh_entry.ok_or(KernelError::NoPvh)?;
    let mut load = Vec::new();
    for l in &elf.loads {
        room("kernel", c, l.address, l.memory)?;
        load.push((l.address, l.bytes.into()));
    }
    let cmdline = cstring(&c.cmdline);
    let mut items = vec![
        number(key::KERNEL_ENTRY, entry),
        number(key::CMDLINE_ADDR, 0x2_0000),
        number(key::CMDLINE_SIZE, cmdline.len() as u32),
        (key::CMDLINE_DATA, cmdline),
    ];
    match place_initrd(c, 0x37ff_ffff)? {
        Some((address, data)) => {
            items.extend([number(key::INITRD_ADDR, address), number(key::INITRD_SIZE, data.len() as u32)]);
            items.push((key::INITRD_DATA, data));
        }
        None => items.push(number(key::INITRD_SIZE, 0)),
    }
    Ok(BootPlan { rom: BootRom::Pvh, items, load })
}

struct Load<'a> {
    address: u64,
    memory: u64,
    bytes: &'a [u8],
}

struct Segments<'a> {
    is_64: bool,
    entry: u64,
    pvh_entry: Option<u32>,
    loads: Vec<Load<'a>>,
}

impl<'a> Segments<'a> {
    fn of(image: &'a [u8]) -> Result<Segments<'a>, KernelError> {
        match image.get(4) {
            Some(1) => Segments::parse::<FileHeader32<Endianness>>(image),
            Some(2) => Segments::parse::<FileHeader64<Endianness>>(image),
            _ => Err(KernelError::Format),
        }
    }

    fn parse<H: FileHeader<Endian = Endianness>>(image: &'a [u8]) -> Result<Segments<'a>, KernelError> {
        const XEN_ELFNOTE_PHYS32_ENTRY: NoteType = NoteType(18);
        let damaged = |_| KernelError::Truncated("ELF");
        let header = H::parse(image).map_err(damaged)?;
        let endian = header.endian().map_err(damaged)?;
        let mut s = Segments {
            is_64: header.is_class_64(),
            entry: header.e_entry(endian).into(),
            pvh_entry: None,
            loads: vec![],
        };
        for p in header.program_headers(endian, image).map_err(damaged)? {
            match p.p_type(endian) {
                PT_LOAD => s.loads.push(Load {
                    address: p.p_paddr(endian).into(),
                    memory: p.p_memsz(endian).into(),
                    bytes: p.data(endian, image).map_err(|()| KernelError::Truncated("ELF segment"))?,
                }),
                PT_NOTE => {
                    let Some(mut notes) = p.notes(endian, image).map_err(damaged)? else { continue };
                    while let Ok(Some(note)) = notes.next() {
                        if note.name() == b"Xen" && note.n_type(endian) == XEN_ELFNOTE_PHYS32_ENTRY {
                            s.pvh_entry = u32_at(note.desc(), 0);
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(s)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(kernel: Vec<u8>) -> KernelConfig {
        KernelConfig {
            kernel: kernel.into(),
            initrd: vec![],
            cmdline: "console=ttyS0".into(),
            below_4g: 128 << 20,
            acpi_data_size: 0x28000,
        }
    }

    fn bzimage() -> Vec<u8> {
        let mut k = vec![0u8; 0x5000 + 100];
        k[0x1f1] = 0x27;
        put(&mut k, 0x1fe, &[0x55, 0xaa]);
        put(&mut k, 0x202, b"HdrS\x0f\x02");
        k[0x211] = 1;
        put(&mut k, 0x22c, &0x7fff_ffffu32.to_le_bytes());
        put(&mut k, 0x236, &0x7fu16.to_le_bytes());
        k
    }

    fn item(plan: &BootPlan, key: u16) -> u32 {
        u32_at(&plan.items.iter().find(|i| i.0 == key).unwrap().1.to_vec(), 0).unwrap()
    }

    #[test]
    fn bzimage_is_placed_as_the_peer_places_it() {
        let mut c = config(bzimage());
        c.initrd = vec![(vec![0; 0xfe3dd].into(), String::new())];
        let plan = plan(&c).unwrap();
        assert_eq!(plan.rom, BootRom::Linux);
        assert_eq!(item(&plan, key::INITRD_ADDR), 0x7ed_9000);
        assert_eq!(item(&plan, key::SETUP_ADDR), 0x1_0000);
        assert_eq!(item(&plan, key::SETUP_SIZE), 0x5000);
        assert_eq!(item(&plan, key::CMDLINE_ADDR), 0x2_0000);
        assert_eq!(item(&plan, key::CMDLINE_SIZE), 14);
        assert_eq!(item(&plan, key::KERNEL_SIZE), 100);
    }

    #[test]
    fn bad_images_are_refused() {
        assert_eq!(plan(&config(vec![])).unwrap_err(), KernelError::Format);
        assert_eq!(plan(&config(vec![0; 0x210])).unwrap_err(), KernelError::Format);
        assert_eq!(plan(&config(bzimage()[..0x400].to_vec())).unwrap_err(), KernelError::Truncated("setup"));
        assert_eq!(plan(&config(b"\x7fELF\x02\x01\x01".to_vec())).unwrap_err(), KernelError::Truncated("ELF"));
        let mut c = config(bzimage());
        c.initrd = vec![(vec![0; 128 << 20].into(), String::new())];
        assert!(matches!(plan(&c), Err(KernelError::TooLarge { what: "initrd", .. })));
    }

    #[test]
    fn multiboot_with_addresses_in_its_header() {
        let mut k = vec![0x90u8; 256];
        let flags = 1u32 << 16;
        let words = [
            0x1bad_b002,
            flags,
            0u32.wrapping_sub(0x1bad_b002).wrapping_sub(flags),
            0x10_0040,
            0x10_0000,
            0x10_0100,
            0x10_2000,
            0x10_0060,
        ];
        for (i, w) in words.iter().enumerate() {
            put(&mut k, 0x40 + 4 * i, &w.to_le_bytes());
        }
        let mut c = config(k);
        c.initrd = vec![(vec![1, 2, 3].into(), "mod arg".into())];
        let plan = plan(&c).unwrap();
        assert_eq!((plan.rom, item(&plan, key::KERNEL_ADDR)), (BootRom::Multiboot, 0x10_0000));
        assert_eq!(item(&plan, key::KERNEL_ENTRY), 0x10_0060);
        assert_eq!(item(&plan, key::KERNEL_SIZE), 0x2003);
        let info = &plan.items.iter().find(|i| i.0 == key::INITRD_DATA).unwrap().1;
        assert_eq!(u32_at(&info.to_vec(), 20), Some(1));
    }
}
