//! `vpc`: Virtual PC's images (VHD), fixed and dynamic. Source: Microsoft, "Virtual Hard Disk Image Format Specification".
//! Not supported: differencing images. The sector bitmaps are not looked at: sectors they leave out are zeros in the file.

use super::{Format, Place, Table, bad, eio, read, unreadable};
use crate::driver::DriverDef;
use crate::node::Node;
use qom::Result;
use std::io;

inventory::submit! {
    DriverDef { name: "vpc", protocol: false, open: |b, c, o| super::open(b, c, o, "vpc", |_, _, file| load(file)) }
}

/// Programs that say the size itself; others mean that of the geometry.
const EXACT: [&[u8; 4]; 5] = [b"win ", b"qem2", b"d2v ", b"tap\0", b"CTXS"];
/// Sectors of the largest geometry, which says nothing.
const LARGEST: u64 = 65535 * 16 * 255;

struct Vpc {
    size: u64,
    /// Block size, bytes of a block's bitmap, and where blocks are; None: fixed.
    sparse: Option<(u64, u64, Table)>,
}

fn be(bytes: &[u8], at: usize, len: usize) -> u64 {
    let part = bytes.get(at..at + len).unwrap_or_default();
    part.iter().fold(0, |v, b| v << 8 | u64::from(*b))
}

fn is_footer(bytes: &[u8]) -> bool {
    let sum: u32 = bytes.iter().enumerate().filter(|(n, _)| !(64..68).contains(n)).map(|(_, b)| u32::from(*b)).sum();
    bytes.starts_with(b"conectix") && be(bytes, 64, 4) == u64::from(!sum)
}

fn load(file: &Node) -> Result<Box<dyn Format>> {
    let end = file.len().map_err(unreadable)?;
    let mut footer = read(file, 0, 512).map_err(unreadable)?;
    if !is_footer(&footer) {
        footer = read(file, end.saturating_sub(512), 512).map_err(unreadable)?;
    }
    if !is_footer(&footer) {
        return Err(bad("invalid VPC image"));
    }
    let geometry = be(&footer, 56, 2) * be(&footer, 58, 1) * be(&footer, 59, 1);
    let exact = EXACT.iter().any(|e| footer.get(28..32) == Some(&e[..])) || geometry >= LARGEST;
    let size = if exact { be(&footer, 48, 8) } else { geometry * 512 };
    let kind = be(&footer, 60, 4);
    if kind == 2 {
        return Ok(Box::new(Vpc { size: size.min(end.saturating_sub(512)), sparse: None }));
    }
    if kind != 3 {
        return Err(bad(format!("unsupported VPC image (type {kind})")));
    }
    let h = read(file, be(&footer, 16, 8), 1024).map_err(unreadable)?;
    let (table, entries, block) = (be(&h, 16, 8), be(&h, 28, 4), be(&h, 32, 4));
    if !h.starts_with(b"cxsparse") || !block.is_power_of_two() || block < 512 {
        return Err(bad("invalid VPC image (dynamic disk header)"));
    }
    if size > entries * block {
        return Err(bad("Page table too small"));
    }
    let bitmap = (block / 512 / 8).next_multiple_of(512);
    Ok(Box::new(Vpc { size, sparse: Some((block, bitmap, Table::new(table))) }))
}

impl Format for Vpc {
    fn size(&self) -> u64 {
        self.size
    }
    fn place(&self, file: &Node, offset: u64) -> io::Result<(Place, u64)> {
        let Some((block, bitmap, table)) = &self.sparse else { return Ok((Place::At(offset), self.size - offset)) };
        let within = offset % block;
        let place = match u32::from_be_bytes(table.entry(file, offset / block)?) {
            u32::MAX => Place::Zeros,
            sector => Place::At((u64::from(sector) * 512).checked_add(bitmap + within).ok_or_else(eio)?),
        };
        Ok((place, block - within))
    }
}
