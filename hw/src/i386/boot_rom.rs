//! Option ROMs that start a kernel given on the command line: `linuxboot_dma.bin` (Linux boot protocol),
//! `multiboot.bin` and `pvh.bin`. Assembled here; the firmware finds them as fw_cfg files below `genroms/` and starts
//! them by their bootstrap entry vector. They fetch everything through fw_cfg's DMA interface.
//! Source: Plug and Play BIOS 1.0A §2 (expansion header); Linux `Documentation/arch/x86/boot.rst`; Multiboot 0.6.96 §3.2;
//! Xen `public/arch-x86/hvm/start_info.h` (PVH start of day).

use crate::nvram::fw_cfg_items::{control, key};
use iced_x86::{IcedError, code_asm::*};

/// Real-mode segment of the request block and the scratch words: linear 0x8000, free once the firmware boots.
const SCRATCH: u16 = 0x800;
const SCRATCH_LINEAR: u32 = (SCRATCH as u32) << 4;
/// Offsets in the scratch segment: the DMA request (16 bytes), a fetched word, the descriptor table and its pointer.
const WORD: u32 = 0x10;
const GDT: u32 = 0x20;
const GDTR: u32 = 0x40;
/// Offset of the PVH start info and, behind it, its module list and memory map.
const START_INFO: u32 = 0x100;
const MODULE: u32 = 0x180;
const MEMMAP: u32 = 0x200;
/// Offset of the multiboot information structure: linear 0x9000, where the board puts it.
const MULTIBOOT_INFO: u32 = 0x1000;
/// Entries the memory map has room for.
const MEMMAP_MAX: u32 = 64;
const ROM_UNIT: usize = 512;

/// What a ROM starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BootRom {
    /// bzImage and older images with a real-mode setup.
    Linux,
    /// Multiboot 1.
    Multiboot,
    /// ELF with a PVH entry point.
    Pvh,
}

impl BootRom {
    /// Name below `genroms/`.
    pub fn file_name(self) -> &'static str {
        match self {
            BootRom::Linux => "linuxboot_dma.bin",
            BootRom::Multiboot => "multiboot_dma.bin",
            BootRom::Pvh => "pvh.bin",
        }
    }

    /// The ROM's bytes, a multiple of 512 that sums to zero.
    ///
    /// # Errors
    /// The assembler refused an instruction: a mistake in this file.
    pub fn assemble(self) -> Result<Vec<u8>, IcedError> {
        let mut a = CodeAssembler::new(16)?;
        let (mut boot, mut dma, mut word, mut copy) =
            (a.create_label(), a.create_label(), a.create_label(), a.create_label());
        a.set_label(&mut boot)?;
        a.cli()?;
        a.cld()?;
        a.mov(ax, u32::from(SCRATCH))?;
        a.mov(ds, ax)?;
        a.mov(es, ax)?;
        let mut blobs = Blobs { a: &mut a, word, copy };
        match self {
            BootRom::Linux => {
                blobs.fetch(key::SETUP_ADDR, key::SETUP_SIZE, key::SETUP_DATA)?;
                blobs.fetch(key::CMDLINE_ADDR, key::CMDLINE_SIZE, key::CMDLINE_DATA)?;
                blobs.fetch_initrd()?;
                blobs.fetch(key::KERNEL_ADDR, key::KERNEL_SIZE, key::KERNEL_DATA)?;
                start_linux(&mut a, word)?;
            }
            BootRom::Multiboot => {
                blobs.fetch(key::KERNEL_ADDR, key::KERNEL_SIZE, key::KERNEL_DATA)?;
                blobs.fetch(key::INITRD_ADDR, key::INITRD_SIZE, key::INITRD_DATA)?;
                memory_map(&mut a, true)?;
                a.imul_3(eax, ebp, 24)?;
                a.mov(dword_ptr(MULTIBOOT_INFO + 44), eax)?;
                a.mov(dword_ptr(MULTIBOOT_INFO + 48), SCRATCH_LINEAR + MEMMAP - 4)?;
                start_protected(&mut a, word, 0x2bad_b002, SCRATCH_LINEAR + MULTIBOOT_INFO)?;
            }
            BootRom::Pvh => {
                blobs.fetch(key::INITRD_ADDR, key::INITRD_SIZE, key::INITRD_DATA)?;
                blobs.fetch(key::CMDLINE_ADDR, key::CMDLINE_SIZE, key::CMDLINE_DATA)?;
                start_info(&mut a, word)?;
                memory_map(&mut a, false)?;
                a.mov(dword_ptr(START_INFO + 48), ebp)?;
                start_protected(&mut a, word, 0, SCRATCH_LINEAR + START_INFO)?;
            }
        }
        subroutines(&mut a, &mut dma, &mut word, &mut copy)?;
        wrap(&a.assemble(u64::from(CODE))?)
    }
}

/// Offset of the code: the ROM header, the PnP header and the strings stand before it.
const CODE: u16 = 0x80;

/// Puts the headers before the code and makes the whole sum to zero.
#[expect(clippy::unnecessary_wraps, reason = "the caller's chain of `?`")]
fn wrap(code: &[u8]) -> Result<Vec<u8>, IcedError> {
    const PNP: u8 = 0x20;
    const MANUFACTURER: u16 = 0x48;
    const PRODUCT: u16 = 0x58;
    let size = (usize::from(CODE) + code.len() + 1).next_multiple_of(ROM_UNIT);
    let mut rom = vec![0x55, 0xaa, (size / ROM_UNIT) as u8, 0xcb]; // initialisation: RETF, nothing to do
    rom.resize(0x1a, 0);
    rom.extend([PNP, 0]);
    rom.resize(PNP.into(), 0);
    let mut pnp = b"$PnP\x01\x02\0\0\0\0\0\0\0\0".to_vec();
    pnp.extend(MANUFACTURER.to_le_bytes());
    pnp.extend(PRODUCT.to_le_bytes());
    pnp.extend([0; 8]); // device type, indicators, boot connection and disconnect vectors
    pnp.extend(CODE.to_le_bytes()); // bootstrap entry vector
    pnp.extend([0; 4]);
    let sum = pnp.iter().fold(0u8, |s, b| s.wrapping_add(*b));
    if let Some(checksum) = pnp.get_mut(9) {
        *checksum = sum.wrapping_neg();
    }
    rom.append(&mut pnp);
    for (at, text) in [(MANUFACTURER, "Qomet"), (PRODUCT, "Kernel given by -kernel")] {
        rom.resize(at.into(), 0);
        rom.extend(text.bytes());
    }
    rom.resize(CODE.into(), 0);
    rom.extend_from_slice(code);
    rom.resize(size - 1, 0);
    let sum = rom.iter().fold(0u8, |s, b| s.wrapping_add(*b));
    rom.push(sum.wrapping_neg());
    Ok(rom)
}

/// Emits the fetches of the blobs that a boot protocol names.
struct Blobs<'a> {
    a: &'a mut CodeAssembler,
    word: CodeLabel,
    copy: CodeLabel,
}

impl Blobs<'_> {
    /// Copies item `data` (its length and address are items too) to where it belongs.
    fn fetch(&mut self, address: u16, size: u16, data: u16) -> Result<(), IcedError> {
        item(self.a, self.word, address)?;
        self.a.mov(edi, eax)?;
        item(self.a, self.word, size)?;
        self.a.mov(ecx, eax)?;
        self.a.mov(ebx, select(data))?;
        self.a.call(self.copy)
    }

    /// Copies a Linux kernel's initrd to where the board wants it, or below what the firmware keeps for itself, if that is more than the
    /// board thought: then the setup, which is there already, is told. INT 15h E801 says where usable memory ends: CX KiB from 1 MiB on,
    /// DX times 64 KiB from 16 MiB on.
    fn fetch_initrd(&mut self) -> Result<(), IcedError> {
        const RAMDISK_IMAGE: u32 = 0x218; // boot.rst, "The Real-Mode Kernel Header"
        let a = &mut *self.a;
        let (mut keep, mut low, mut known) = (a.create_label(), a.create_label(), a.create_label());
        a.xor(ecx, ecx)?;
        a.xor(edx, edx)?;
        a.mov(eax, 0xe801)?;
        a.int(0x15)?;
        a.cli()?;
        a.jb(keep)?;
        a.movzx(ecx, cx)?;
        a.movzx(edx, dx)?;
        a.test(edx, edx)?;
        a.je(low)?;
        a.shl(edx, 16)?;
        a.add(edx, 16 << 20)?;
        a.jmp(known)?;
        a.set_label(&mut low)?;
        a.shl(ecx, 10)?;
        a.lea(edx, dword_ptr(ecx + (1 << 20)))?;
        a.set_label(&mut known)?;
        a.mov(ebp, edx)?;
        item(a, self.word, key::INITRD_SIZE)?;
        a.sub(ebp, eax)?;
        a.jb(keep)?;
        a.and(ebp, !0xfff)?;
        item(a, self.word, key::INITRD_ADDR)?;
        a.cmp(ebp, eax)?;
        a.jae(keep)?;
        item(a, self.word, key::SETUP_ADDR)?;
        a.shr(eax, 4)?;
        a.mov(es, ax)?;
        a.mov(dword_ptr(RAMDISK_IMAGE).es(), ebp)?;
        a.mov(edi, ebp)?;
        let mut fetch = a.create_label();
        a.jmp(fetch)?;
        a.set_label(&mut keep)?;
        item(a, self.word, key::INITRD_ADDR)?;
        a.mov(edi, eax)?;
        a.set_label(&mut fetch)?;
        item(a, self.word, key::INITRD_SIZE)?;
        a.mov(ecx, eax)?;
        a.mov(ebx, select(key::INITRD_DATA))?;
        a.call(self.copy)
    }
}

fn select(item: u16) -> u32 {
    u32::from(item) << 16 | control::SELECT | control::READ
}

/// EAX = a 32-bit item. Changes EBX, ECX, EDX; keeps EDI.
fn item(a: &mut CodeAssembler, word: CodeLabel, key: u16) -> Result<(), IcedError> {
    a.mov(ebx, select(key))?;
    a.call(word)
}

/// `word`: EBX = control; reads four bytes into EAX. `copy`: reads ECX bytes (may be none) to EDI. `dma`: one request.
fn subroutines(
    a: &mut CodeAssembler,
    dma: &mut CodeLabel,
    word: &mut CodeLabel,
    copy: &mut CodeLabel,
) -> Result<(), IcedError> {
    let (mut done, mut wait) = (a.create_label(), a.create_label());
    a.set_label(word)?;
    a.push(edi)?;
    a.mov(edi, SCRATCH_LINEAR + WORD)?;
    a.mov(ecx, 4)?;
    a.call(*dma)?;
    a.pop(edi)?;
    a.mov(eax, dword_ptr(WORD))?;
    a.ret()?;

    a.set_label(copy)?;
    a.test(ecx, ecx)?;
    a.je(done)?;
    a.call(*dma)?;
    a.set_label(&mut done)?;
    a.ret()?;

    a.set_label(dma)?;
    for (offset, register) in [(0u32, ebx), (4, ecx), (12, edi)] {
        a.mov(eax, register)?;
        a.bswap(eax)?;
        a.mov(dword_ptr(offset), eax)?;
    }
    a.mov(dword_ptr(8u32), 0)?;
    a.mov(dx, 0x514)?;
    a.xor(eax, eax)?;
    a.out(dx, eax)?;
    a.mov(dx, 0x518)?;
    a.mov(eax, SCRATCH_LINEAR.swap_bytes())?;
    a.out(dx, eax)?;
    a.set_label(&mut wait)?;
    a.mov(eax, dword_ptr(0u32))?;
    a.bswap(eax)?;
    a.and(eax, !control::ERROR as i32)?;
    a.jne(wait)?;
    a.ret()
}

/// Real-mode entry at setup segment + 0x20, stack below the command line (boot.rst, "The real-mode kernel").
fn start_linux(a: &mut CodeAssembler, word: CodeLabel) -> Result<(), IcedError> {
    item(a, word, key::CMDLINE_ADDR)?;
    a.mov(esi, eax)?;
    item(a, word, key::SETUP_ADDR)?;
    a.mov(edi, eax)?;
    a.sub(esi, edi)?;
    a.sub(esi, 16)?; // stack pointer
    a.shr(edi, 4)?;
    for segment in [ds, es, fs, gs, ss] {
        a.mov(segment, edi)?;
    }
    a.mov(esp, esi)?;
    a.mov(eax, edi)?;
    a.add(ax, 0x20)?;
    a.push(ax)?;
    a.push(0)?;
    a.retf()
}

/// Flat protected mode without paging, then to KERNEL_ENTRY with EAX = `magic` and EBX = `info`.
fn start_protected(a: &mut CodeAssembler, word: CodeLabel, magic: u32, info: u32) -> Result<(), IcedError> {
    /// Base 0, limit 4 GiB, 32-bit: code, data.
    const SEGMENTS: [(u32, u32); 2] = [(0x0000_ffff, 0x00cf_9b00), (0x0000_ffff, 0x00cf_9300)];
    item(a, word, key::KERNEL_ENTRY)?;
    a.mov(ebp, eax)?;
    a.mov(dword_ptr(GDT), 0)?;
    a.mov(dword_ptr(GDT + 4), 0)?;
    for (at, (low, high)) in (GDT + 8..).step_by(8).zip(SEGMENTS) {
        a.mov(dword_ptr(at), low)?;
        a.mov(dword_ptr(at + 4), high)?;
    }
    a.mov(word_ptr(GDTR), 23)?;
    a.mov(dword_ptr(GDTR + 2), SCRATCH_LINEAR + GDT)?;
    // A20: fast gate of port 0x92.
    a.in_(al, 0x92)?;
    a.or(al, 2)?;
    a.and(al, 0xfe)?;
    a.out(0x92, al)?;
    a.lgdt(dword_ptr(GDTR))?;
    a.mov(eax, cr0)?;
    a.or(eax, 1)?;
    a.mov(cr0, eax)?;
    a.mov(ax, 0x10)?;
    for segment in [ds, es, fs, gs, ss] {
        a.mov(segment, ax)?;
    }
    a.mov(esp, SCRATCH_LINEAR)?;
    a.mov(ebx, info)?;
    a.mov(eax, magic)?;
    a.push(8)?;
    a.push(ebp)?;
    // RETFD: 32-bit offset and selector from the stack built above, with the code segment still 16-bit.
    a.db(&[0x66, 0xcb])
}

/// Fills in the PVH start info: command line, one module (the initrd), the memory map from INT 15h E820.
fn start_info(a: &mut CodeAssembler, word: CodeLabel) -> Result<(), IcedError> {
    let at = |offset: u32| dword_ptr(START_INFO + offset);
    a.mov(ecx, 0x300 / 4)?;
    a.mov(di, START_INFO)?;
    a.xor(eax, eax)?;
    a.rep().stosd()?;
    a.mov(at(0), 0x336e_c578u32)?; // XEN_HVM_START_MAGIC_VALUE
    a.mov(at(4), 1)?; // version
    item(a, word, key::CMDLINE_ADDR)?;
    a.mov(at(24), eax)?;
    a.mov(at(40), SCRATCH_LINEAR + MEMMAP)?;
    // Module list, if there is an initrd.
    let mut no_initrd = a.create_label();
    item(a, word, key::INITRD_SIZE)?;
    a.test(eax, eax)?;
    a.je(no_initrd)?;
    a.mov(dword_ptr(MODULE + 8), eax)?;
    item(a, word, key::INITRD_ADDR)?;
    a.mov(dword_ptr(MODULE), eax)?;
    a.mov(at(12), 1)?;
    a.mov(at(16), SCRATCH_LINEAR + MODULE)?;
    a.set_label(&mut no_initrd)?;
    a.nop()
}

/// Reads the memory map from INT 15h E820 into 24-byte entries at `MEMMAP`; EBP = how many. Multiboot wants the size of
/// an entry in the dword before it (`sized`), PVH a zero in the dword behind it.
fn memory_map(a: &mut CodeAssembler, sized: bool) -> Result<(), IcedError> {
    let (mut next, mut end) = (a.create_label(), a.create_label());
    a.xor(ebx, ebx)?;
    a.xor(ebp, ebp)?;
    a.mov(di, MEMMAP)?;
    a.set_label(&mut next)?;
    a.mov(eax, 0xe820)?;
    a.mov(edx, 0x534d_4150)?;
    a.mov(ecx, 20)?;
    a.int(0x15)?;
    a.jb(end)?;
    if sized {
        a.mov(dword_ptr(di - 4), 20)?;
    }
    a.add(di, 24)?;
    a.inc(ebp)?;
    a.cmp(ebp, MEMMAP_MAX as i32)?;
    a.jae(end)?;
    a.test(ebx, ebx)?;
    a.jne(next)?;
    a.set_label(&mut end)?;
    a.cli()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roms_have_valid_headers_and_checksums() {
        for kind in [BootRom::Linux, BootRom::Multiboot, BootRom::Pvh] {
            let rom = kind.assemble().expect("assembles");
            assert_eq!(rom[..2], [0x55, 0xaa]);
            assert_eq!(usize::from(rom[2]) * ROM_UNIT, rom.len());
            assert_eq!(rom.iter().fold(0u8, |s, b| s.wrapping_add(*b)), 0);
            let pnp = &rom[0x20..0x40];
            assert_eq!(&pnp[..4], b"$PnP");
            assert_eq!(pnp.iter().fold(0u8, |s, b| s.wrapping_add(*b)), 0);
            assert_eq!(u16::from_le_bytes([pnp[26], pnp[27]]), CODE);
        }
    }
}
