//! What a driver is, and the registry of drivers.

use crate::blocks::Blocks;
use crate::drivers::direct;
use crate::node::{Common, Node, Perm};
use crate::throttle::Group;
use crate::transfer::Transfer;
use hw_core::memory::RamRanges;
use hw_core::opts::Opts;
use qom::Result;
use serde_json::Value;
use std::io;
use std::sync::Arc;

/// A name for a node's child, as `query-named-block-nodes` shows it, and the child.
pub type ChildOf = (&'static str, Arc<Node>);

/// What one layer of an image has of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Nothing: what the backing file has shows.
    Below,
    /// It reads as zeros.
    Zero,
    /// Bytes.
    Data,
}

/// The work of one node. Called from several threads at once, with no lock held.
pub trait Driver: Send + Sync {
    /// Size in bytes.
    ///
    /// # Errors
    /// The host does not say.
    fn len(&self) -> io::Result<u64>;
    /// Whether there are no bytes.
    fn is_empty(&self) -> bool {
        self.len().unwrap_or(0) == 0
    }
    /// Fills `buf`; bytes beyond the end are zeros.
    ///
    /// # Errors
    /// As the host says.
    fn read(&self, offset: u64, buf: &mut [u8]) -> io::Result<()>;
    /// Writes all of `buf`.
    ///
    /// # Errors
    /// As the host says.
    fn write(&self, offset: u64, buf: &[u8]) -> io::Result<()>;
    /// [`Driver::read`] into memory of the guest's.
    ///
    /// # Errors
    /// As the host says; what is in the memory then is not known.
    fn read_into(&self, offset: u64, to: &RamRanges) -> io::Result<()> {
        read_by_copy(self, offset, to)
    }
    /// [`Driver::write`] of what is in memory of the guest's, which may change meanwhile: whoever looks at it does so at a copy.
    ///
    /// # Errors
    /// As the host says.
    fn write_from(&self, offset: u64, from: &RamRanges) -> io::Result<()> {
        write_by_copy(self, offset, from)
    }
    /// Makes a range read as zeros; `unmap`: and gives it back.
    ///
    /// # Errors
    /// As the host says.
    fn write_zeroes(&self, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
        _ = unmap;
        write_zeros_by_hand(self, offset, len)
    }
    /// A range's contents do not matter.
    ///
    /// # Errors
    /// As the host says.
    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        _ = (offset, len);
        Ok(())
    }
    /// Something else may have changed the size: asks the host again.
    fn look(&self) {}
    /// Changes the size; what is new reads as zeros.
    ///
    /// # Errors
    /// It cannot, or as the host says.
    fn resize(&self, len: u64) -> io::Result<()> {
        _ = len;
        Err(io::Error::from_raw_os_error(libc::ENOTSUP))
    }
    /// Makes what was written stable. Also called when flushes are off (`no-flush`), of formats: what they keep in memory must reach the
    /// node below.
    ///
    /// # Errors
    /// As the host says.
    fn flush(&self) -> io::Result<()>;
    /// The users' permissions changed: all that any of them has, and what all of them let others do.
    ///
    /// # Errors
    /// Somebody below, or another process, is in the way; nothing has changed then.
    fn set_perms(&self, perm: Perm, shared: Perm) -> Result<()>;
    /// Name of the image, as QEMU shows it.
    fn filename(&self) -> String;
    /// Nodes below.
    fn children(&self) -> Vec<ChildOf> {
        vec![]
    }
    /// Bytes it occupies on the host.
    fn actual_size(&self) -> Option<u64> {
        None
    }
    /// What this layer itself has of a range: of its first bytes, and how many are alike.
    ///
    /// # Errors
    /// As the host says.
    fn status(&self, offset: u64, len: u64) -> io::Result<(Status, u64)> {
        _ = offset;
        Ok((Status::Data, len))
    }
    /// Copies up what a range has in the backing file only, atomically with regard to writes. Nothing to do without one.
    ///
    /// # Errors
    /// As [`Driver::write`].
    fn populate(&self, offset: u64, len: u64) -> io::Result<()> {
        _ = (offset, len);
        Ok(())
    }
    /// Makes everything stable and has nothing left to write: another opening of the same image comes next.
    ///
    /// # Errors
    /// As the host says.
    fn settle(&self) -> io::Result<()> {
        self.flush()
    }
    /// Writes into the image which backing file it has; None: none.
    ///
    /// # Errors
    /// A format that has no such field or no room for the name, or as the host says.
    fn set_backing_name(&self, name: Option<(&str, &str)>) -> io::Result<()> {
        _ = name;
        Err(io::Error::from_raw_os_error(libc::ENOTSUP))
    }
    /// The node below, if this one only passes requests on.
    fn filtered(&self) -> Option<Arc<Node>> {
        None
    }
    /// Whether requests take no time, so that whoever makes one may do it at once.
    fn is_instant(&self) -> bool {
        false
    }
    /// Whether it, or the node that it passes requests on to, moves bytes without a thread that waits for it.
    fn has_ring(&self) -> bool {
        false
    }
    /// Begins to do so.
    ///
    /// # Errors
    /// The transfer, if these bytes are to be moved as always.
    fn begin(&self, transfer: Transfer) -> std::result::Result<(), Transfer> {
        Err(transfer)
    }
    /// The group whose limits hold for requests that pass.
    fn limits(&self) -> Option<Arc<Group>> {
        None
    }
    /// `ImageInfoSpecific` and cluster size of formats that have such.
    fn specific(&self) -> Option<Value> {
        None
    }
}

/// Reads into memory of the guest's by way of a buffer.
///
/// # Errors
/// As [`Driver::read`].
pub fn read_by_copy<D: Driver + ?Sized>(driver: &D, offset: u64, to: &RamRanges) -> io::Result<()> {
    direct::with_bounce(to.len() as usize, |bounce| {
        driver.read(offset, bounce)?;
        to.copy_in(bounce);
        Ok(())
    })
}

/// Writes memory of the guest's as it is now.
///
/// # Errors
/// As [`Driver::write`].
pub fn write_by_copy<D: Driver + ?Sized>(driver: &D, offset: u64, from: &RamRanges) -> io::Result<()> {
    direct::with_bounce(from.len() as usize, |bounce| {
        from.copy_out(bounce);
        driver.write(offset, bounce)
    })
}

/// Writes zeros where nothing cheaper will do.
///
/// # Errors
/// As [`Driver::write`].
pub fn write_zeros_by_hand<D: Driver + ?Sized>(driver: &D, offset: u64, len: u64) -> io::Result<()> {
    const CHUNK: u64 = 1 << 20;
    let zeros = vec![0; len.min(CHUNK) as usize];
    let mut done = 0;
    while done < len {
        let n = (len - done).min(CHUNK);
        driver.write(offset + done, zeros.get(..n as usize).unwrap_or_default())?;
        done += n;
    }
    Ok(())
}

/// Makes a driver for a node. It takes its own options out of the rest, and may make `Common` stricter (read-only).
pub type Open = fn(&Blocks, &mut Common, &mut Opts) -> Result<Box<dyn Driver>>;

/// A kind of node.
pub struct DriverDef {
    /// QAPI's name.
    pub name: &'static str,
    /// A protocol, not a format.
    pub protocol: bool,
    /// Makes one.
    pub open: Open,
}

inventory::collect!(DriverDef);

/// All drivers, by name.
pub fn all() -> Vec<&'static DriverDef> {
    let mut all: Vec<_> = inventory::iter::<DriverDef>().collect();
    all.sort_by_key(|d| d.name);
    all
}

/// The driver called `name`.
pub fn find(name: &str) -> Option<&'static DriverDef> {
    inventory::iter::<DriverDef>().find(|d| d.name == name)
}
