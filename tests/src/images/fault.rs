//! A block driver that passes requests on until it is told to fail.

use block::driver::{ChildOf, Driver, DriverDef};
use block::{Common, Edge, Opts, Perm};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

inventory::submit! {
    DriverDef { name: "fault", protocol: false, open }
}

/// Errno that reads and writes fail with; 0: they do not; below 0: they panic.
#[derive(Debug, Default)]
pub struct Switch {
    /// Reads.
    pub read: AtomicI32,
    /// Writes.
    pub write: AtomicI32,
}

static SWITCHES: Mutex<BTreeMap<String, Arc<Switch>>> = Mutex::new(BTreeMap::new());

/// The switch of the nodes with option `switch` = `name`.
pub fn switch(name: &str) -> Arc<Switch> {
    SWITCHES.lock().entry(name.to_owned()).or_default().clone()
}

fn look(errno: &AtomicI32) -> io::Result<()> {
    match errno.load(Ordering::SeqCst) {
        0 => Ok(()),
        n if n < 0 => panic!("as it was told"),
        n => Err(io::Error::from_raw_os_error(n)),
    }
}

struct Fault {
    file: Edge,
    switch: Arc<Switch>,
}

fn open(blocks: &block::Blocks, common: &mut Common, opts: &mut Opts) -> qom::Result<Box<dyn Driver>> {
    let node = blocks.open_child(opts, "file", common)?;
    common.read_only |= node.is_read_only();
    let switch = switch(&opts.require_str("switch")?);
    Ok(Box::new(Fault { file: Edge::child(&node, common, "fault", Perm::empty(), Perm::all())?, switch }))
}

impl Driver for Fault {
    fn len(&self) -> io::Result<u64> {
        self.file.node().len()
    }
    fn read(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        look(&self.switch.read)?;
        self.file.node().read(offset, buf)
    }
    fn write(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        look(&self.switch.write)?;
        self.file.node().write(offset, buf)
    }
    fn resize(&self, len: u64) -> io::Result<()> {
        self.file.node().resize(len)
    }
    fn flush(&self) -> io::Result<()> {
        self.file.node().flush()
    }
    fn set_perms(&self, perm: Perm, shared: Perm) -> qom::Result<()> {
        self.file.set(perm, shared)
    }
    fn filename(&self) -> String {
        self.file.node().driver().filename()
    }
    fn children(&self) -> Vec<ChildOf> {
        vec![("file", self.file.node().clone())]
    }
}
