//! `raw`: the bytes as they are, or a window of them.

use super::probe;
use crate::blocks::Blocks;
use crate::driver::{ChildOf, Driver, DriverDef};
use crate::node::{Common, Edge, Perm};
use crate::transfer::{Transfer, Way};
use hw_core::memory::RamRanges;
use hw_core::opts::Opts;
use qom::{Error, Result};
use std::io;

inventory::submit! {
    DriverDef { name: "raw", protocol: false, open }
}

struct Raw {
    file: Edge,
    offset: u64,
    size: Option<u64>,
    /// The format was guessed: the guest may not write what would make the next guess another.
    guarded: bool,
}

fn open(blocks: &Blocks, common: &mut Common, opts: &mut Opts) -> Result<Box<dyn Driver>> {
    let node = blocks.open_child(opts, "file", common)?;
    common.read_only |= node.is_read_only();
    let offset = opts.take_size("offset")?.unwrap_or(0);
    let size = opts.take_size("size")?;
    let whole = node.len().map_err(|e| Error::generic(format!("Could not get image size: {e}")))?;
    if offset > whole || size.is_some_and(|s| s > whole - offset) {
        return Err(Error::generic(match size {
            Some(size) if offset <= whole => {
                format!(
                    "The sum of offset ({offset}) and size ({size}) has to be smaller or equal to the actual size of the containing file ({whole})"
                )
            }
            _ => format!("Offset ({offset}) cannot be greater than size of the containing file ({whole})"),
        }));
    }
    if size.is_some_and(|s| s % crate::SECTOR != 0) {
        return Err(Error::generic(format!("Specified size is not multiple of {}", crate::SECTOR)));
    }
    let file = Edge::child(&node, common, "raw", Perm::empty(), Perm::all())?;
    Ok(Box::new(Raw { file, offset, size, guarded: common.probed }))
}

impl Raw {
    fn at(&self, offset: u64, len: u64) -> io::Result<u64> {
        let end = offset.checked_add(len);
        let inside = match (end, self.size) {
            (Some(end), Some(size)) => end <= size,
            (Some(_), None) => true,
            (None, _) => false,
        };
        let moved = offset.checked_add(self.offset).filter(|_| inside);
        moved.ok_or_else(|| io::Error::from_raw_os_error(libc::EIO))
    }

    fn check(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        if self.guarded && offset < probe::HEAD as u64 {
            let mut head = vec![0; probe::HEAD];
            self.file.node().read(self.offset, &mut head)?;
            let at = offset as usize;
            let n = buf.len().min(probe::HEAD - at);
            if let (Some(to), Some(from)) = (head.get_mut(at..at + n), buf.get(..n)) {
                to.copy_from_slice(from);
            }
            if probe::format_of(&head) != "raw" {
                return Err(io::Error::from_raw_os_error(libc::EPERM));
            }
        }
        Ok(())
    }
}

impl Driver for Raw {
    fn len(&self) -> io::Result<u64> {
        match self.size {
            Some(size) => Ok(size),
            None => Ok(self.file.node().len()?.saturating_sub(self.offset)),
        }
    }
    fn read(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.file.node().read(self.at(offset, buf.len() as u64)?, buf)
    }
    fn write(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.check(offset, buf)?;
        self.file.node().write(self.at(offset, buf.len() as u64)?, buf)
    }
    fn read_into(&self, offset: u64, to: &RamRanges) -> io::Result<()> {
        self.file.node().read_into(self.at(offset, to.len())?, to)
    }
    fn write_from(&self, offset: u64, from: &RamRanges) -> io::Result<()> {
        if self.guarded && offset < probe::HEAD as u64 {
            return self.write(offset, &from.to_vec()); // what is checked must stay what it is
        }
        self.file.node().write_from(self.at(offset, from.len())?, from)
    }
    fn write_zeroes(&self, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
        self.file.node().write_zeroes(self.at(offset, len)?, len, unmap)
    }
    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        self.file.node().discard(self.at(offset, len)?, len)
    }
    fn resize(&self, len: u64) -> io::Result<()> {
        if self.size.is_some() {
            return Err(io::Error::from_raw_os_error(libc::ENOTSUP)); // a window of a given size
        }
        let whole = len.checked_add(self.offset).ok_or_else(|| io::Error::from_raw_os_error(libc::EFBIG))?;
        self.file.node().resize(whole)
    }
    fn flush(&self) -> io::Result<()> {
        self.file.node().flush()
    }
    fn set_perms(&self, perm: Perm, shared: Perm) -> Result<()> {
        self.file.set(perm, shared)
    }
    fn filename(&self) -> String {
        self.file.node().driver().filename()
    }
    fn has_ring(&self) -> bool {
        self.file.node().driver().has_ring()
    }
    fn begin(&self, mut t: Transfer) -> std::result::Result<(), Transfer> {
        let looked_at = t.way == Way::Write && self.guarded && t.offset < probe::HEAD as u64;
        let place = if t.way == Way::Sync { Ok(0) } else { self.at(t.offset, t.bytes.len()) };
        match place {
            Ok(at) if !looked_at => {
                t.offset = at;
                self.file.node().begin(t)
            }
            _ => Err(t),
        }
    }
    fn is_instant(&self) -> bool {
        self.file.node().driver().is_instant()
    }
    fn children(&self) -> Vec<ChildOf> {
        vec![("file", self.file.node().clone())]
    }
    fn actual_size(&self) -> Option<u64> {
        self.file.node().driver().actual_size()
    }
}
