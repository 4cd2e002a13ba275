//! `-snapshot` and `-drive snapshot=on`: writes go to a temporary file without a name, the image below stays as it is.
//!
//! QEMU makes a temporary qcow2 image for this; here it is a sparse file and a map of what it holds.

use crate::driver::{ChildOf, Driver, DriverDef};
use crate::node::{Common, Edge, Node, Opened, Perm, Recipe};
use parking_lot::RwLock;
use qom::{Error, Result};
use rustix::fs::{Mode, OFlags};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// What is copied as one piece.
const CLUSTER: u64 = 64 << 10;
/// Largest image; a byte is kept for each cluster.
const LARGEST: u64 = 1 << 46;

/// Not among the registered ones: no option makes it by name.
static DEF: DriverDef = DriverDef {
    name: "snapshot",
    protocol: false,
    open: |_, _, _| Err(Error::generic("Block driver 'snapshot' is made by snapshot=on only")),
};

struct Overlay {
    base: Edge,
    file: File,
    len: u64,
    /// Which clusters are in the file. Held while a cluster is copied up.
    map: RwLock<Vec<bool>>,
}

fn temporary() -> io::Result<File> {
    let folder = std::env::var_os("TMPDIR").unwrap_or_else(|| "/var/tmp".into());
    let fd = rustix::fs::open(folder, OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC, Mode::RUSR | Mode::WUSR)?;
    Ok(fd.into())
}

/// A node called `name` that keeps what is written to it and reads the rest from `base`.
///
/// # Errors
/// No temporary file, or somebody else writes to `base`.
pub(crate) fn on_top(base: &Arc<Node>, name: String, common: &Common) -> Result<Arc<Node>> {
    let failed = |e: io::Error| Error::generic(format!("Could not create temporary overlay: {e}"));
    let len = base.len().map_err(failed)?;
    let whole = len.checked_next_multiple_of(CLUSTER).filter(|n| *n <= LARGEST);
    let whole = whole.ok_or_else(|| Error::generic(format!("An image of {len} bytes is too large for snapshot=on")))?;
    let file = temporary().map_err(failed)?;
    file.set_len(whole).map_err(failed)?;
    let edge = Edge::new(base, "snapshot", Perm::READ, Perm::READ | Perm::WRITE_UNCHANGED)?;
    let map = RwLock::new(vec![false; len.div_ceil(CLUSTER) as usize]);
    let common = Common { read_only: false, node_name: name.clone(), ..common.clone() };
    let driver = Arc::new(Overlay { base: edge, file, len, map });
    Ok(Node::new(name, &DEF, Opened { common, driver }, Recipe::default()))
}

/// The pieces of a range, by cluster: cluster, offset and length.
fn pieces(offset: u64, len: u64) -> impl Iterator<Item = (usize, u64, usize)> {
    let end = offset + len;
    (offset / CLUSTER..end.div_ceil(CLUSTER)).map(move |c| {
        let (from, to) = (offset.max(c * CLUSTER), end.min((c + 1) * CLUSTER));
        (c as usize, from, (to - from) as usize)
    })
}

impl Overlay {
    fn check(&self, offset: u64, len: u64) -> io::Result<()> {
        let limit = self.len.next_multiple_of(crate::SECTOR);
        let inside = offset.checked_add(len).is_some_and(|end| end <= limit);
        if inside { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::EIO)) }
    }
}

impl Driver for Overlay {
    fn len(&self) -> io::Result<u64> {
        Ok(self.len)
    }
    fn read(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.check(offset, buf.len() as u64)?;
        let map = self.map.read();
        for (cluster, at, n) in pieces(offset, buf.len() as u64) {
            let start = (at - offset) as usize;
            let Some(part) = buf.get_mut(start..start + n) else { continue };
            if map.get(cluster).copied().unwrap_or(false) {
                self.file.read_exact_at(part, at)?;
            } else {
                self.base.node().read(at, part)?;
            }
        }
        Ok(())
    }
    fn write(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.check(offset, buf.len() as u64)?;
        let mut map = self.map.write();
        for (cluster, at, n) in pieces(offset, buf.len() as u64) {
            let start = (at - offset) as usize;
            let Some(part) = buf.get(start..start + n) else { continue };
            let Some(present) = map.get_mut(cluster) else { continue };
            if !*present && n as u64 != CLUSTER {
                let first = cluster as u64 * CLUSTER;
                let mut old = vec![0; CLUSTER.min(self.len.saturating_sub(first)) as usize];
                self.base.node().read(first, &mut old)?;
                self.file.write_all_at(&old, first)?;
            }
            self.file.write_all_at(part, at)?;
            *present = true;
        }
        Ok(())
    }
    fn flush(&self) -> io::Result<()> {
        Ok(()) // it is gone with the process anyway
    }
    fn set_perms(&self, _: Perm, _: Perm) -> Result<()> {
        Ok(())
    }
    fn filename(&self) -> String {
        self.base.node().driver().filename()
    }
    fn children(&self) -> Vec<ChildOf> {
        vec![("backing", self.base.node().clone())]
    }
}
