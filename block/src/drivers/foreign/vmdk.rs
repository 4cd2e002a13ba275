//! `vmdk`: VMware's images: sparse (also `streamOptimized`), and a text that names flat and sparse extents. Source: VMware, "Virtual Disk Format
//! 5.0". Not supported: parents, extents of ESX (`VMFSSPARSE`, `SESPARSE`).

use super::{Format, Place, Table, bad, eio, le32, le64, read, unreadable};
use crate::blocks::Blocks;
use crate::driver::DriverDef;
use crate::node::{Common, Node};
use flate2::{Decompress, FlushDecompress};
use parking_lot::Mutex;
use qom::Result;
use std::io;
use std::sync::Arc;

inventory::submit! {
    DriverDef { name: "vmdk", protocol: false, open: |b, c, o| super::open(b, c, o, "vmdk", load) }
}

const SECTOR: u64 = 512;
/// Flags: entry 1 of a grain table means zeros; grains are compressed; grains have markers.
const ZERO_GRAINS: u32 = 1 << 2;
const COMPRESSED: u32 = 1 << 16;
/// Largest text.
const MAX_TEXT: u64 = 64 << 10;
/// Most extents of a text.
const MAX_EXTENTS: usize = 256;
/// Largest grain: 64 MiB in sectors.
const MAX_GRAIN: u64 = 1 << 17;

struct Sparse {
    size: u64,
    grain: u64,
    entries: u64,
    directory: Table,
    flags: u32,
    /// The grain table and the grain looked at last.
    table: Mutex<(u64, Arc<Table>)>,
    unpacked: Mutex<(u64, Arc<Vec<u8>>)>,
}

/// One extent of a text.
enum Extent {
    Zero,
    Flat(Arc<Node>, u64),
    Sparse(Arc<Node>, Sparse),
}

/// Extents by the disk's byte they begin at.
struct Text {
    size: u64,
    extents: Vec<(u64, Extent)>,
}

fn load(blocks: &Blocks, common: &Common, file: &Node) -> Result<Box<dyn Format>> {
    let mut head = [0; 21];
    file.read(0, &mut head).map_err(unreadable)?;
    if head.starts_with(b"KDMV") {
        return Ok(Box::new(sparse(file)?));
    }
    if !head.starts_with(b"# Disk DescriptorFile") {
        return Err(bad("Image not in VMDK format"));
    }
    let len = file.len().map_err(unreadable)?.min(MAX_TEXT);
    let text = read(file, 0, len as usize).map_err(unreadable)?;
    text_file(blocks, common, file, &String::from_utf8_lossy(&text))
}

fn sparse(file: &Node) -> Result<Sparse> {
    let mut h = read(file, 0, 512).map_err(unreadable)?;
    if le64(&h, 56) == u64::MAX {
        // The header at the end says where the directory is.
        let end = file.len().map_err(unreadable)?;
        h = read(file, end.saturating_sub(1024), 512).map_err(unreadable)?;
    }
    let version = le32(&h, 4);
    if !h.starts_with(b"KDMV") || !(1..=3).contains(&version) {
        return Err(bad(format!("Unsupported VMDK version {version}")));
    }
    let (capacity, grain, entries) = (le64(&h, 12), le64(&h, 20), u64::from(le32(&h, 44)));
    let flags = le32(&h, 8);
    if !grain.is_power_of_two() || grain > MAX_GRAIN || entries == 0 || entries > 512 {
        return Err(bad("Invalid granularity or grain table size, image may be corrupt"));
    }
    let size = capacity.checked_mul(SECTOR).filter(|s| *s <= 1 << 50);
    let size = size.ok_or_else(|| bad("VMDK image is too large"))?;
    let directory = le64(&h, 56).checked_mul(SECTOR).ok_or_else(|| bad("Invalid grain directory"))?;
    Ok(Sparse {
        size,
        grain: grain * SECTOR,
        entries,
        directory: Table::new(directory),
        flags,
        table: Mutex::default(),
        unpacked: Mutex::new((u64::MAX, Arc::default())),
    })
}

/// `RW 8192 FLAT "disk-flat.vmdk" 0`.
fn text_file(blocks: &Blocks, common: &Common, file: &Node, text: &str) -> Result<Box<dyn Format>> {
    let parent = text.lines().find_map(|l| l.trim().strip_prefix("parentCID="));
    if parent.is_some_and(|p| !p.eq_ignore_ascii_case("ffffffff")) {
        return Err(bad("VMDK images with a parent are not supported"));
    }
    let (mut size, mut extents) = (0u64, vec![]);
    for line in text.lines() {
        let access = line.split_whitespace().next().unwrap_or_default();
        if !["RW", "RDONLY"].contains(&access) {
            continue;
        }
        let wrong = || bad(format!("Invalid extent line: {line}"));
        let words: Vec<&str> = line.split('"').next().unwrap_or_default().split_whitespace().collect();
        let [_, sectors, kind, ..] = words[..] else { return Err(wrong()) };
        let len = sectors.parse::<u64>().ok().and_then(|n| n.checked_mul(SECTOR)).ok_or_else(wrong)?;
        let open = || -> Result<Arc<Node>> {
            let name = line.split('"').nth(1).ok_or_else(wrong)?;
            let (mut options, image) = (hw_core::opts::Opts::default(), file.driver().filename());
            let node = blocks.open_beside(&mut options, "extents", common, &image, Some(name))?;
            node.ok_or_else(wrong)
        };
        let extent = match kind {
            "ZERO" => Extent::Zero,
            "FLAT" => {
                let from = line.split('"').nth(2).unwrap_or_default().trim();
                let from = if from.is_empty() { Some(0) } else { from.parse::<u64>().ok() };
                Extent::Flat(open()?, from.and_then(|n| n.checked_mul(SECTOR)).ok_or_else(wrong)?)
            }
            "SPARSE" => {
                let node = open()?;
                let inner = sparse(&node)?;
                Extent::Sparse(node, inner)
            }
            other => return Err(bad(format!("Unsupported extent type '{other}'"))),
        };
        extents.push((size, extent));
        size = size.checked_add(len).filter(|s| *s <= 1 << 50).ok_or_else(wrong)?;
        if extents.len() > MAX_EXTENTS {
            return Err(bad("VMDK image has too many extents"));
        }
    }
    if extents.is_empty() {
        return Err(bad("VMDK image has no extents"));
    }
    Ok(Box::new(Text { size, extents }))
}

impl Sparse {
    fn unpack(&self, file: &Node, at: u64) -> io::Result<Arc<Vec<u8>>> {
        let mut last = self.unpacked.lock();
        if last.0 == at {
            return Ok(last.1.clone());
        }
        let marker = read(file, at, 12)?;
        let len = u64::from(le32(&marker, 8));
        if len > self.grain * 2 {
            return Err(eio());
        }
        let packed = read(file, at + 12, len as usize)?;
        let mut grain = vec![0; self.grain as usize];
        let mut d = Decompress::new(true);
        d.decompress(&packed, &mut grain, FlushDecompress::Finish).map_err(|_| eio())?;
        if d.total_out() != self.grain {
            return Err(eio());
        }
        let grain = Arc::new(grain);
        *last = (at, grain.clone());
        Ok(grain)
    }
}

impl Format for Sparse {
    fn size(&self) -> u64 {
        self.size
    }
    fn place(&self, file: &Node, offset: u64) -> io::Result<(Place, u64)> {
        let (grain, within) = (offset / self.grain, offset % self.grain);
        let left = self.grain - within;
        let table_at = u64::from(u32::from_le_bytes(self.directory.entry(file, grain / self.entries)?)) * SECTOR;
        if table_at == 0 {
            return Ok((Place::Zeros, left));
        }
        let table = {
            let mut last = self.table.lock();
            if last.0 != table_at {
                *last = (table_at, Arc::new(Table::new(table_at)));
            }
            last.1.clone()
        };
        let place = match u32::from_le_bytes(table.entry(file, grain % self.entries)?) {
            0 => Place::Zeros,
            1 if self.flags & ZERO_GRAINS != 0 => Place::Zeros,
            n if self.flags & COMPRESSED != 0 => {
                Place::Unpacked(self.unpack(file, u64::from(n) * SECTOR)?, within as usize)
            }
            n => Place::At(u64::from(n) * SECTOR + within),
        };
        Ok((place, left))
    }
}

impl Format for Text {
    fn size(&self) -> u64 {
        self.size
    }
    fn place(&self, _: &Node, offset: u64) -> io::Result<(Place, u64)> {
        let n = self.extents.partition_point(|e| e.0 <= offset).checked_sub(1).ok_or_else(eio)?;
        let end = self.extents.get(n + 1).map_or(self.size, |e| e.0);
        let (start, extent) = self.extents.get(n).ok_or_else(eio)?;
        let (within, left) = (offset - start, end - offset);
        Ok(match extent {
            Extent::Zero => (Place::Zeros, left),
            Extent::Flat(node, from) => (Place::In(node.clone(), from.checked_add(within).ok_or_else(eio)?), left),
            Extent::Sparse(node, inner) if within < inner.size => {
                let (place, n) = inner.place(node, within)?;
                let place = if let Place::At(at) = place { Place::In(node.clone(), at) } else { place };
                (place, n.min(left))
            }
            Extent::Sparse(..) => (Place::Zeros, left),
        })
    }
    fn extents(&self) -> Vec<Arc<Node>> {
        let of = |e: &(u64, Extent)| match &e.1 {
            Extent::Flat(node, _) | Extent::Sparse(node, _) => Some(node.clone()),
            Extent::Zero => None,
        };
        self.extents.iter().filter_map(of).collect()
    }
}
