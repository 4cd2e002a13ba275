//! IDENTIFY DEVICE and IDENTIFY PACKET DEVICE. Source: ATA/ATAPI-7 volume 1, §6.17 and §6.18 (words), ATA8-ACS §7.18 (TRIM, rotation
//! rate, world wide name). Values where the standard leaves the choice are those of QEMU's drives.

use super::drive::{DriveInfo, DriveRegs, Kind};

/// Most sectors of READ MULTIPLE and WRITE MULTIPLE.
pub const MAX_MULTIPLE: u8 = 16;

/// The 256 words.
struct Words([u16; 256]);

impl Words {
    fn set(&mut self, at: usize, v: u16) {
        if let Some(w) = self.0.get_mut(at) {
            *w = v;
        }
    }

    fn set_u32(&mut self, at: usize, v: u32) {
        self.set(at, v as u16);
        self.set(at + 1, (v >> 16) as u16);
    }

    /// Text: two characters a word, the first in the high byte, padded with blanks.
    fn text(&mut self, at: usize, words: usize, text: &str) {
        let mut bytes = text.bytes().chain(std::iter::repeat(b' '));
        for n in 0..words {
            let (a, b) = (bytes.next().unwrap_or(b' '), bytes.next().unwrap_or(b' '));
            self.set(at + n, u16::from_be_bytes([a, b]));
        }
    }

    fn bytes(&self) -> Vec<u8> {
        self.0.iter().flat_map(|w| w.to_le_bytes()).collect()
    }
}

/// Whether bits 15:14 of a word of feature sets say that the word is valid.
const VALID: u16 = 1 << 14;

/// Data of IDENTIFY DEVICE.
pub fn disk(r: &DriveRegs, i: &DriveInfo) -> Vec<u8> {
    let mut w = Words([0; 256]);
    let (heads, secs) = (u32::from(r.heads), u32::from(r.sectors_per_track));
    let cyls = i.chs.0;
    w.set(0, 0x0040);
    w.set(1, cyls as u16);
    w.set(3, i.chs.1 as u16);
    w.set(4, (512 * i.chs.2) as u16);
    w.set(5, 512);
    w.set(6, i.chs.2 as u16);
    w.text(10, 10, &i.serial);
    w.set(20, 3); // buffer type
    w.set(21, 512); // buffer size, sectors
    w.set(22, 4); // ECC bytes
    w.text(23, 4, &i.version);
    w.text(27, 20, &i.model);
    w.set(47, 0x8000 | u16::from(MAX_MULTIPLE));
    w.set(48, 1); // double word I/O
    w.set(49, 1 << 11 | 1 << 9 | 1 << 8); // IORDY, LBA, DMA
    w.set(51, 0x200); // PIO cycle
    w.set(52, 0x200); // DMA cycle
    w.set(53, 1 | 1 << 1 | 1 << 2); // words 54-58, 64-70 and 88 are valid
    w.set(54, cyls as u16);
    w.set(55, heads as u16);
    w.set(56, secs as u16);
    w.set_u32(57, cyls * heads * secs);
    if r.multiple > 0 {
        w.set(59, 0x100 | u16::from(r.multiple));
    }
    w.set_u32(60, i.sectors.min(0x0fff_ffff) as u32);
    w.set(62, 0x07); // single word DMA 0-2
    w.set(63, r.mdma | 0x07); // multiword DMA 0-2
    w.set(64, 0x03); // PIO 3 and 4
    for n in 65..=68 {
        w.set(n, 120); // cycle times, ns
    }
    if i.discard {
        w.set(69, 1 << 14); // reads after TRIM are deterministic
    }
    if i.queue_depth > 0 {
        w.set(75, u16::from(i.queue_depth) - 1);
        w.set(76, 1 << 8); // native command queuing
    }
    w.set(80, 0xf0); // ATA-4 to ATA-7
    w.set(81, 0x16);
    w.set(82, VALID | 1 << 5 | 1); // NOP, write cache, SMART
    w.set(83, VALID | 1 << 13 | 1 << 12 | 1 << 10); // FLUSH CACHE (EXT), LBA48
    let wwn = if i.wwn != 0 { 1 << 8 } else { 0 };
    w.set(84, VALID | wwn);
    w.set(85, VALID | if i.write_cache { 1 << 5 } else { 0 } | u16::from(r.smart_enabled));
    w.set(86, 1 << 13 | 1 << 12 | 1 << 10);
    w.set(87, VALID | wwn);
    w.set(88, r.udma | 0x3f); // Ultra DMA 0-5
    w.set(93, 1 | VALID | 0x2000); // reset result: device 0 by jumper, cable detected
    w.set_u32(100, i.sectors as u32);
    w.set_u32(102, (i.sectors >> 32) as u32);
    if i.physical_exponent > 0 {
        w.set(106, 0x6000 | i.physical_exponent);
    }
    if i.wwn != 0 {
        for (n, shift) in [(108, 48), (109, 32), (110, 16), (111, 0)] {
            w.set(n, (i.wwn >> shift) as u16);
        }
    }
    if i.discard {
        w.set(169, 1);
    }
    if i.rotation_rate != 0 {
        w.set(217, i.rotation_rate);
    }
    w.bytes()
}

/// Data of IDENTIFY PACKET DEVICE.
pub fn packet(r: &DriveRegs, i: &DriveInfo) -> Vec<u8> {
    let mut w = Words([0; 256]);
    w.set(0, 2 << 14 | 5 << 8 | 1 << 7 | 2 << 5); // ATAPI CD-ROM, removable, DRQ within 50 µs, 12 byte packets
    w.text(10, 10, &i.serial);
    w.set(20, 3);
    w.set(21, 512);
    w.set(22, 4);
    w.text(23, 4, &i.version);
    w.text(27, 20, &i.model);
    w.set(48, 1);
    w.set(49, 1 << 9 | 1 << 8); // LBA, DMA
    w.set(53, 7);
    w.set(62, 7);
    w.set(63, r.mdma | 7);
    w.set(64, 3);
    for n in [65, 66, 67, 68] {
        w.set(n, 0xb4);
    }
    w.set(71, 30); // ns to release
    w.set(72, 30);
    w.set(80, 0x1e); // ATA-1 to ATA-4
    if i.wwn != 0 {
        w.set(84, 1 << 8);
        w.set(87, 1 << 8);
        for (n, shift) in [(108, 48), (109, 32), (110, 16), (111, 0)] {
            w.set(n, (i.wwn >> shift) as u16);
        }
    }
    w.set(88, r.udma | 0x3f);
    w.bytes()
}

/// Data of the drive's kind.
pub fn data(r: &DriveRegs, i: &DriveInfo) -> Vec<u8> {
    match i.kind {
        Kind::Hd => disk(r, i),
        Kind::Cd => packet(r, i),
    }
}
