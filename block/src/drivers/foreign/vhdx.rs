//! `vhdx`: Hyper-V's images. Source: Microsoft, [MS-VHDX], "Virtual Hard Disk v2 File Format".
//! Not supported: differencing images, and images whose log must be replayed first. Checksums of headers and region tables are checked.

use super::{Format, Place, Table, bad, le32, le64, read, unreadable};
use crate::driver::DriverDef;
use crate::node::Node;
use qom::Result;
use std::io;

inventory::submit! {
    DriverDef { name: "vhdx", protocol: false, open: |b, c, o| super::open(b, c, o, "vhdx", |_, _, file| load(file)) }
}

/// Both headers, both region tables.
const HEADERS: [u64; 2] = [64 << 10, 128 << 10];
const REGIONS: [u64; 2] = [192 << 10, 256 << 10];
/// Largest disk.
const MAX_SIZE: u64 = 64 << 40;

const BAT: [u8; 16] = [0x66, 0x77, 0xc2, 0x2d, 0x23, 0xf6, 0, 0x42, 0x9d, 0x64, 0x11, 0x5e, 0x9b, 0xfd, 0x4a, 8];
const METADATA: [u8; 16] = [6, 0xa2, 0x7c, 0x8b, 0x90, 0x47, 0x9a, 0x4b, 0xb8, 0xfe, 0x57, 0x5f, 5, 0x0f, 0x88, 0x6e];
const PARAMETERS: [u8; 16] =
    [0x37, 0x67, 0xa1, 0xca, 0x36, 0xfa, 0x43, 0x4d, 0xb3, 0xb6, 0x33, 0xf0, 0xaa, 0x44, 0xe7, 0x6b];
const SIZE: [u8; 16] = [0x24, 0x42, 0xa5, 0x2f, 0x1b, 0xcd, 0x76, 0x48, 0xb2, 0x11, 0x5d, 0xbe, 0xd8, 0x3b, 0xf4, 0xb8];
const SECTOR: [u8; 16] = [0x1d, 0xbf, 0x41, 0x81, 0x6f, 0xa9, 9, 0x47, 0xba, 0x47, 0xf2, 0x33, 0xa8, 0xfa, 0xab, 0x5f];

struct Vhdx {
    size: u64,
    block: u64,
    /// Payload blocks between two entries for sector bitmaps.
    ratio: u64,
    bat: Table,
}

/// CRC-32C of a structure whose checksum is at byte 4.
fn is_intact(bytes: &[u8]) -> bool {
    let crc = bytes.iter().enumerate().fold(u32::MAX, |crc, (n, b)| {
        let b = if (4..8).contains(&n) { 0 } else { *b };
        (0..8).fold(crc ^ u32::from(b), |c, _| c >> 1 ^ if c & 1 != 0 { 0x82f6_3b78 } else { 0 })
    });
    !crc == le32(bytes, 4)
}

/// The first of two copies that is intact.
fn copies(file: &Node, at: [u64; 2], len: usize, signature: &[u8]) -> io::Result<Vec<Vec<u8>>> {
    let both: io::Result<Vec<Vec<u8>>> = at.iter().map(|at| read(file, *at, len)).collect();
    Ok(both?.into_iter().filter(|c| c.starts_with(signature) && is_intact(c)).collect())
}

fn load(file: &Node) -> Result<Box<dyn Format>> {
    let headers = copies(file, HEADERS, 4096, b"head").map_err(unreadable)?;
    let header = headers.iter().max_by_key(|h| le64(h, 8)).ok_or_else(|| bad("No valid VHDX header found"))?;
    if header.get(48..64).is_some_and(|log| log.iter().any(|b| *b != 0)) {
        return Err(bad("VHDX image has a log that must be replayed: 'qemu-img check -r all' does that"));
    }
    let regions = copies(file, REGIONS, 64 << 10, b"regi").map_err(unreadable)?;
    let regions = regions.first().ok_or_else(|| bad("No valid VHDX region table found"))?;
    let region = |id: &[u8; 16]| {
        let all = regions.get(16..).unwrap_or_default().chunks_exact(32).take(le32(regions, 8) as usize);
        let mut found = all.filter(|r| r.starts_with(id));
        found.next().map(|r| le64(r, 16)).ok_or_else(|| bad("VHDX image lacks a region"))
    };
    let (bat, metadata) = (region(&BAT)?, region(&METADATA)?);
    let table = read(file, metadata, 64 << 10).map_err(unreadable)?;
    if !table.starts_with(b"metadata") {
        return Err(bad("VHDX image has no metadata"));
    }
    let item = |id: &[u8; 16]| {
        let count = (le32(&table, 8) >> 16) as usize;
        let all = table.get(32..).unwrap_or_default().chunks_exact(32).take(count);
        let found = all.into_iter().find(|r| r.starts_with(id)).ok_or_else(|| bad("VHDX image lacks metadata"))?;
        let at = metadata.checked_add(u64::from(le32(found, 16))).ok_or_else(|| bad("invalid VHDX metadata"))?;
        let mut bytes = vec![0; 8];
        file.read(at, &mut bytes).map_err(unreadable)?;
        Ok::<u64, qom::Error>(le64(&bytes, 0))
    };
    let (parameters, size, sector) = (item(&PARAMETERS)?, item(&SIZE)?, item(&SECTOR)? & 0xffff_ffff);
    let block = parameters & 0xffff_ffff;
    if parameters >> 33 & 1 != 0 {
        return Err(bad("differencing VHDX images are not supported"));
    }
    let good = block.is_power_of_two() && (1 << 20..=256 << 20).contains(&block) && [512, 4096].contains(&sector);
    if !good || size > MAX_SIZE {
        return Err(bad("invalid VHDX metadata"));
    }
    Ok(Box::new(Vhdx { size, block, ratio: (1 << 23) * sector / block, bat: Table::new(bat) }))
}

impl Format for Vhdx {
    fn size(&self) -> u64 {
        self.size
    }
    fn place(&self, file: &Node, offset: u64) -> io::Result<(Place, u64)> {
        let (n, within) = (offset / self.block, offset % self.block);
        let entry = u64::from_le_bytes(self.bat.entry(file, n + n / self.ratio)?);
        let place = match entry & 7 {
            6 => Place::At((entry & !0xf_ffff).checked_add(within).ok_or_else(super::eio)?),
            7 => return Err(io::Error::from_raw_os_error(libc::ENOTSUP)), // needs a parent
            _ => Place::Zeros,
        };
        Ok((place, self.block - within))
    }
}
