//! `-perfmap` and `-jitdump`: names of generated code for Linux's perf.
//!
//! Sources: tools/perf/Documentation/jit-interface.txt (the map), jitdump-specification.txt (the dump, version 1). Code is named after
//! the guest address it was first met at. A map only grows: an address that was used again has two lines, the later one counts.
//! Not there: guest symbols and lines.
#![expect(unsafe_code, reason = "maps the dump, which is how perf finds it")]

use parking_lot::Mutex;
use rustix::mm::{MapFlags, ProtFlags};
use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    path::Path,
    ptr::null_mut,
};

/// A file of `start size name` lines.
pub(super) struct PerfMap(Mutex<File>);
impl PerfMap {
    pub fn create(path: &Path) -> io::Result<PerfMap> {
        Ok(PerfMap(Mutex::new(File::create(path)?)))
    }
    pub fn add(&self, name: &str, at: u64, code: &[u8]) {
        // (A full disk costs names, not the machine.)
        let _ = self.0.lock().write_all(format!("{at:x} {:x} {name}\n", code.len()).as_bytes());
    }
}

/// "JiTD", in the byte order of who reads it as a number.
const MAGIC: u32 = 0x4a69_5444;
const VERSION: u32 = 1;
/// ELF machine of the code.
const MACHINE: u32 = if cfg!(target_arch = "aarch64") { 183 } else { 62 };
/// Bytes of the file's header, and of a record's.
const HEADER: u32 = 40;
const RECORD: u32 = 16;
const CODE_LOAD: u32 = 0;
const CODE_CLOSE: u32 = 3;

/// A file of records with names and code.
pub(super) struct JitDump {
    file: Mutex<(File, u64)>,
    /// One page of the file, mapped executable: the event by which perf notes which file it is.
    mark: usize,
}
/// Size of the mark.
const PAGE: usize = 4096;

fn now() -> u64 {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64
}
fn process() -> u32 {
    std::process::id()
}

impl JitDump {
    pub fn create(path: &Path) -> io::Result<JitDump> {
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?;
        let mut head = Vec::new();
        for word in [MAGIC, VERSION, HEADER, MACHINE, 0, process()] {
            head.extend(word.to_ne_bytes());
        }
        head.extend(now().to_ne_bytes());
        head.extend(0u64.to_ne_bytes());
        file.write_all(&head)?;
        // SAFETY: a new mapping at an address of the kernel's choice; nothing refers to its memory.
        let mark = unsafe {
            rustix::mm::mmap(null_mut(), PAGE, ProtFlags::READ | ProtFlags::EXEC, MapFlags::PRIVATE, &file, 0)?
        };
        Ok(JitDump { file: Mutex::new((file, 0)), mark: mark.expose_provenance() })
    }
    /// A record's header and the words after it.
    fn record(id: u32, size: usize) -> Vec<u8> {
        let mut r = Vec::with_capacity(size);
        r.extend(id.to_ne_bytes());
        r.extend((size as u32).to_ne_bytes());
        r.extend(now().to_ne_bytes());
        r
    }
    pub fn add(&self, name: &str, at: u64, code: &[u8]) {
        let mut f = self.file.lock();
        let mut r = Self::record(CODE_LOAD, RECORD as usize + 40 + name.len() + 1 + code.len());
        r.extend(process().to_ne_bytes());
        r.extend((rustix::thread::gettid().as_raw_nonzero().get() as u32).to_ne_bytes());
        for word in [at, at, code.len() as u64, f.1] {
            r.extend(word.to_ne_bytes());
        }
        r.extend(name.as_bytes());
        r.push(0);
        r.extend(code);
        f.1 += 1;
        let _ = f.0.write_all(&r);
    }
}
impl Drop for JitDump {
    fn drop(&mut self) {
        let _ = self.file.get_mut().0.write_all(&Self::record(CODE_CLOSE, RECORD as usize));
        // SAFETY: mapped by `create`, and nothing refers to it.
        let _ = unsafe { rustix::mm::munmap(std::ptr::with_exposed_provenance_mut(self.mark), PAGE) };
    }
}
