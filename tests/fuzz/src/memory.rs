//! A block driver whose file is a vector, which counts what is asked of it.

use block::driver::{Driver, DriverDef};
use block::{Blocks, Common, Opts, Perm};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

inventory::submit! {
    DriverDef { name: "fuzz-memory", protocol: true, open }
}

/// Largest file. Beyond it the disk is full.
const MOST: u64 = 16 << 20;
/// Name of the driver's errors.
const ENOSPC: i32 = 28;

/// A file.
#[derive(Debug, Default)]
pub struct File {
    bytes: Mutex<Vec<u8>>,
    accesses: AtomicU64,
}

static FILES: Mutex<BTreeMap<u64, Arc<File>>> = Mutex::new(BTreeMap::new());
static NEXT: AtomicU64 = AtomicU64::new(0);

/// A file that drivers find by its number, as long as this is there.
#[derive(Debug)]
pub struct Named {
    /// The number: option `number` of the driver.
    pub number: u64,
    file: Arc<File>,
}

impl Named {
    /// A file with these bytes.
    pub fn new(bytes: Vec<u8>) -> Self {
        let file = Arc::new(File { bytes: Mutex::new(bytes), accesses: AtomicU64::new(0) });
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        FILES.lock().insert(number, file.clone());
        Self { number, file }
    }

    /// What it holds now.
    pub fn bytes(&self) -> Vec<u8> {
        self.file.bytes.lock().clone()
    }

    /// How often it was accessed.
    pub fn accesses(&self) -> u64 {
        self.file.accesses.load(Ordering::Relaxed)
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        FILES.lock().remove(&self.number);
    }
}

struct Memory(Arc<File>);

fn open(_: &Blocks, _: &mut Common, opts: &mut Opts) -> qom::Result<Box<dyn Driver>> {
    let number = opts.take_size("number")?.unwrap_or(u64::MAX);
    let file = FILES.lock().get(&number).cloned();
    Ok(Box::new(Memory(file.ok_or_else(|| qom::Error::generic("no such file"))?)))
}

impl Memory {
    fn count(&self) {
        self.0.accesses.fetch_add(1, Ordering::Relaxed);
    }

    fn grow(&self, len: u64) -> io::Result<()> {
        if len > MOST {
            return Err(io::Error::from_raw_os_error(ENOSPC));
        }
        let mut bytes = self.0.bytes.lock();
        let len = bytes.len().max(len as usize);
        bytes.resize(len, 0);
        Ok(())
    }
}

impl Driver for Memory {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.bytes.lock().len() as u64)
    }
    fn read(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.count();
        let bytes = self.0.bytes.lock();
        let from = usize::try_from(offset).ok().and_then(|at| bytes.get(at..)).unwrap_or_default();
        let n = from.len().min(buf.len());
        let (now, beyond) = buf.split_at_mut(n);
        now.copy_from_slice(&from[..n]);
        beyond.fill(0);
        Ok(())
    }
    fn write(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.count();
        self.grow(offset.saturating_add(buf.len() as u64))?;
        self.0.bytes.lock()[offset as usize..][..buf.len()].copy_from_slice(buf);
        Ok(())
    }
    fn resize(&self, len: u64) -> io::Result<()> {
        self.count();
        self.grow(len)?;
        self.0.bytes.lock().truncate(len as usize);
        Ok(())
    }
    fn flush(&self) -> io::Result<()> {
        self.count();
        Ok(())
    }
    fn set_perms(&self, _: Perm, _: Perm) -> qom::Result<()> {
        Ok(())
    }
    fn filename(&self) -> String {
        // (Names of other files in an image are meant beside it: there are none.)
        "/nonexistent/fuzz/image".into()
    }
}
