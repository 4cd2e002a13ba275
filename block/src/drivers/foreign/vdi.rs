//! `vdi`: VirtualBox's images, dynamic and static. Source: the header as VirtualBox writes it (forum note "All about VDIs").
//! Not supported: differencing images.

use super::{Format, Place, Table, bad, eio, le32, le64, read, unreadable};
use crate::driver::DriverDef;
use crate::node::Node;
use qom::Result;
use std::io;

inventory::submit! {
    DriverDef { name: "vdi", protocol: false, open: |b, c, o| super::open(b, c, o, "vdi", |_, _, file| load(file)) }
}

/// Most bytes of a disk: more blocks than the map can have otherwise.
const MAX_SIZE: u64 = 1 << 50;

struct Vdi {
    size: u64,
    block: u64,
    map: Table,
    data: u64,
}

fn load(file: &Node) -> Result<Box<dyn Format>> {
    let h = read(file, 0, 512).map_err(unreadable)?;
    if le32(&h, 0x40) != 0xbeda_107f {
        return Err(bad("Image is not in VDI format"));
    }
    let (version, kind) = (le32(&h, 0x44), le32(&h, 0x4c));
    if version != 0x0001_0001 {
        return Err(bad(format!("unsupported VDI image (version {}.{})", version >> 16, version & 0xffff)));
    }
    if kind != 1 && kind != 2 {
        return Err(bad(format!("unsupported VDI image (type {kind})")));
    }
    let parent = h.get(0x1b8..0x1c8).unwrap_or_default();
    if parent.iter().any(|b| *b != 0) {
        return Err(bad("unsupported VDI image (non-NULL parent UUID)"));
    }
    let (size, block, blocks) = (le64(&h, 0x170), u64::from(le32(&h, 0x178)), u64::from(le32(&h, 0x180)));
    if block == 0 || block % 512 != 0 || le32(&h, 0x168) != 512 {
        return Err(bad("unsupported VDI image (block or sector size)"));
    }
    if size > MAX_SIZE || size.div_ceil(block) > blocks {
        return Err(bad("unsupported VDI image (disk size, image bitmap has room for less)"));
    }
    let (map, data) = (Table::new(u64::from(le32(&h, 0x154))), u64::from(le32(&h, 0x158)));
    Ok(Box::new(Vdi { size, block, map, data }))
}

impl Format for Vdi {
    fn size(&self) -> u64 {
        self.size
    }
    fn place(&self, file: &Node, offset: u64) -> io::Result<(Place, u64)> {
        let within = offset % self.block;
        let left = self.block - within;
        let place = match u32::from_le_bytes(self.map.entry(file, offset / self.block)?) {
            0xffff_fffe.. => Place::Zeros,
            n => Place::At((u64::from(n) * self.block).checked_add(self.data + within).ok_or_else(eio)?),
        };
        Ok((place, left))
    }
}
