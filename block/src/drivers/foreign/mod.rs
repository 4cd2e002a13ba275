//! Formats of others, for reading: `vdi`, `vpc`, `vhdx`, `vmdk`. Each says where a block of the disk is; everything else is here.

mod vdi;
mod vhdx;
mod vmdk;
mod vpc;

use crate::blocks::Blocks;
use crate::driver::{ChildOf, Driver};
use crate::node::{Common, Edge, Node, Perm};
use hw_core::opts::Opts;
use parking_lot::Mutex;
use qom::{Error, Result};
use std::io;
use std::sync::Arc;

/// Where bytes of a disk are, from one on to the end of their block.
#[derive(Clone)]
enum Place {
    /// Nowhere: zeros.
    Zeros,
    /// In the file.
    At(u64),
    /// In another file.
    In(Arc<Node>, u64),
    /// In memory, at an offset of the block.
    Unpacked(Arc<Vec<u8>>, usize),
}

/// One format.
trait Format: Send + Sync {
    /// Bytes of the disk.
    fn size(&self) -> u64;
    /// Where a byte is, and how many follow it there.
    fn place(&self, file: &Node, offset: u64) -> io::Result<(Place, u64)>;
    /// Other files it is in.
    fn extents(&self) -> Vec<Arc<Node>> {
        vec![]
    }
}

/// Makes a format from the file.
type Load = fn(&Blocks, &Common, &Node) -> Result<Box<dyn Format>>;

struct Foreign {
    file: Edge,
    extents: Vec<Edge>,
    format: Box<dyn Format>,
}

fn bad(text: impl Into<String>) -> Error {
    Error::generic(text.into())
}

fn eio() -> io::Error {
    io::Error::from_raw_os_error(libc::EIO)
}

fn unreadable(e: io::Error) -> Error {
    bad(format!("Could not read image: {}", crate::blocks::plain(&e)))
}

/// Little-endian numbers of a buffer; zeros beyond its end.
fn le32(bytes: &[u8], at: usize) -> u32 {
    let part = bytes.get(at..).and_then(|b| b.first_chunk::<4>());
    u32::from_le_bytes(part.copied().unwrap_or_default())
}

fn le64(bytes: &[u8], at: usize) -> u64 {
    let part = bytes.get(at..).and_then(|b| b.first_chunk::<8>());
    u64::from_le_bytes(part.copied().unwrap_or_default())
}

/// `len` bytes of the file, all of which must be there.
fn read(file: &Node, at: u64, len: usize) -> io::Result<Vec<u8>> {
    if at.checked_add(len as u64).is_none_or(|end| file.len().is_ok_and(|l| end > l)) {
        return Err(eio());
    }
    let mut bytes = vec![0; len];
    file.read(at, &mut bytes)?;
    Ok(bytes)
}

/// A table in the file, of which a part is kept.
#[derive(Default)]
struct Table {
    at: u64,
    part: Mutex<(u64, Vec<u8>)>,
}

impl Table {
    const PART: u64 = 64 << 10;

    fn new(at: u64) -> Self {
        Self { at, part: Mutex::default() }
    }

    /// The `N` bytes of entry number `n`.
    fn entry<const N: usize>(&self, file: &Node, n: u64) -> io::Result<[u8; N]> {
        let offset = n * N as u64;
        let start = offset - offset % Self::PART;
        let mut part = self.part.lock();
        if part.1.is_empty() || part.0 != start {
            let mut bytes = vec![0; Self::PART as usize];
            file.read(self.at.checked_add(start).ok_or_else(eio)?, &mut bytes)?;
            *part = (start, bytes);
        }
        let found = part.1.get((offset - start) as usize..).and_then(|b| b.first_chunk::<N>());
        found.copied().ok_or_else(eio)
    }
}

fn open(blocks: &Blocks, common: &mut Common, opts: &mut Opts, name: &str, load: Load) -> Result<Box<dyn Driver>> {
    if !common.read_only && !common.auto_read_only {
        return Err(bad(format!("{name} images can be opened with read-only=on only")));
    }
    common.read_only = true;
    let node = blocks.open_child(opts, "file", common)?;
    let file = Edge::child(&node, common, name, Perm::READ, Perm::all() - Perm::WRITE - Perm::RESIZE)?;
    let format = load(blocks, common, &node)?;
    let extents = format.extents();
    let extents: Result<Vec<Edge>> =
        extents.iter().map(|n| Edge::child(n, common, name, Perm::READ, Perm::READ)).collect();
    Ok(Box::new(Foreign { file, extents: extents?, format }))
}

impl Driver for Foreign {
    fn len(&self) -> io::Result<u64> {
        Ok(self.format.size())
    }
    fn read(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let (file, size) = (self.file.node(), self.format.size());
        let (mut at, mut rest) = (offset, buf);
        while !rest.is_empty() {
            let (place, there) = if at < size { self.format.place(file, at)? } else { (Place::Zeros, u64::MAX) };
            let there = there.min(size.checked_sub(at).filter(|n| *n > 0).unwrap_or(u64::MAX));
            let n = there.min(rest.len() as u64).max(1) as usize;
            let (part, more) = rest.split_at_mut_checked(n).ok_or_else(eio)?;
            match place {
                Place::Zeros => part.fill(0),
                Place::At(from) if file.len()? <= from => return Err(eio()),
                Place::At(from) => file.read(from, part)?,
                Place::In(node, from) => node.read(from, part)?,
                Place::Unpacked(bytes, from) => part.copy_from_slice(bytes.get(from..from + n).ok_or_else(eio)?),
            }
            at += n as u64;
            rest = more;
        }
        Ok(())
    }
    fn write(&self, _: u64, _: &[u8]) -> io::Result<()> {
        Err(io::Error::from_raw_os_error(libc::EPERM))
    }
    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
    fn set_perms(&self, _: Perm, _: Perm) -> Result<()> {
        Ok(())
    }
    fn filename(&self) -> String {
        self.file.node().driver().filename()
    }
    fn children(&self) -> Vec<ChildOf> {
        let mut all = vec![("file", self.file.node().clone())];
        all.extend(self.extents.iter().map(|e| ("extents", e.node().clone())));
        all
    }
    fn actual_size(&self) -> Option<u64> {
        let nodes = std::iter::once(&self.file).chain(&self.extents);
        nodes.map(|e| e.node().driver().actual_size()).sum()
    }
}
