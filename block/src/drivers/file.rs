//! `file` and `host_device`: a regular file, or a block or character device, of the host.

use super::direct;
use crate::blocks::Blocks;
use crate::data::ALIGN;
use crate::driver::{Driver, DriverDef, read_by_copy, write_by_copy, write_zeros_by_hand};
use crate::lock::{self, Locks};
use crate::node::{Common, Perm};
use crate::ring::{Entry, Ring};
use crate::transfer::{Bytes, Ended, Transfer, Way};
use hw_core::memory::RamRanges;
use hw_core::opts::Opts;
use parking_lot::{Mutex, MutexGuard};
use qom::{Error, Result};
use rustix::fs::FallocateFlags;
use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::ops::Deref;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

inventory::submit! {
    DriverDef { name: "file", protocol: true, open: |blocks, common, opts| open(blocks, common, opts, false) }
}
inventory::submit! {
    DriverDef { name: "host_device", protocol: true, open: |blocks, common, opts| open(blocks, common, opts, true) }
}

/// A file of the host's. What is begun without a thread keeps it as well.
struct HostFile {
    open: Arc<OpenFile>,
    ring: Option<Arc<Ring>>,
}

impl Deref for HostFile {
    type Target = OpenFile;
    fn deref(&self) -> &OpenFile {
        &self.open
    }
}

struct OpenFile {
    file: Arc<File>,
    /// Bytes of a regular file. Whoever has it open for writing is asked to let no others change it, so the host is not asked for each request.
    size: AtomicU64,
    path: String,
    direct: bool,
    device: bool,
    /// Whether permissions become locks, and those there are.
    locking: bool,
    locks: Mutex<Locks>,
    /// Held while pages of which only a part is written are read and written back: another part may be written at the same time.
    pages: Mutex<()>,
    /// Errno of a flush that failed: the host has given up what it held, and says so once only.
    lost: AtomicI32,
}

/// What the host says, without Rust's "(os error N)".
pub(super) fn plain(e: &io::Error) -> String {
    let text = e.to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

fn open_as(path: &str, common: &Common, writable: bool) -> io::Result<File> {
    let flags = if common.cache.direct { libc::O_DIRECT } else { 0 };
    OpenOptions::new().read(true).write(writable).custom_flags(flags | libc::O_NONBLOCK).open(path)
}

/// How requests reach the host: `aio`.
fn ring(blocks: &Blocks, common: &Common, opts: &mut Opts) -> Result<Option<Arc<Ring>>> {
    match opts.take_choice("aio", &["threads", "native", "io_uring"])? {
        Some("io_uring") => match blocks.pool().ring() {
            Ok(ring) => Ok(Some(ring)),
            Err(e) => {
                let why = match e.raw_os_error() {
                    Some(libc::EPERM | libc::ENOSYS) => {
                        " (disabled via io_uring_disabled sysctl or blocked by container runtime seccomp policy?)"
                            .into()
                    }
                    _ => format!(": {}", plain(&e)),
                };
                Err(Error::generic(format!("aio=io_uring was specified, but is not available{why}")))
            }
        },
        Some("native") if !common.cache.direct => {
            Err(Error::generic("aio=native was specified, but it requires cache.direct=on, which was not specified."))
        }
        Some("native") => Err(Error::generic("aio=native is not built yet (accepted: threads, io_uring)")),
        _ => Ok(None),
    }
}

fn open(blocks: &Blocks, common: &mut Common, opts: &mut Opts, device: bool) -> Result<Box<dyn Driver>> {
    let path = opts.require_str("filename")?;
    let locking = opts.take_choice("locking", &["auto", "on", "off"])? != Some("off");
    let ring = ring(blocks, common, opts)?;
    let failed = |e: io::Error| match e.raw_os_error() {
        Some(libc::EINVAL) if common.cache.direct => {
            Error::generic(format!("Could not open '{path}': filesystem does not support O_DIRECT"))
        }
        _ => Error::generic(format!("Could not open '{path}': {}", plain(&e))),
    };
    let refused = |e: &io::Error| {
        matches!(e.raw_os_error(), Some(libc::EACCES | libc::EPERM | libc::EROFS)) && common.auto_read_only
    };
    let (file, read_only) = match open_as(&path, common, !common.read_only) {
        Err(e) if !common.read_only && refused(&e) => (open_as(&path, common, false).map_err(failed)?, true),
        opened => (opened.map_err(failed)?, common.read_only),
    };
    let metadata = file.metadata().map_err(failed)?;
    let kind = metadata.file_type();
    let is_device = kind.is_block_device() || kind.is_char_device();
    if device && !is_device {
        return Err(Error::generic(format!(
            "'host_device' driver requires '{path}' to be either a character or block device"
        )));
    }
    if !device && !kind.is_file() {
        return Err(Error::generic(format!("'file' driver requires '{path}' to be a regular file")));
    }
    let direct = common.cache.direct;
    common.read_only = read_only;
    let locking = locking && !common.force_share;
    let open = OpenFile {
        file: Arc::new(file),
        size: AtomicU64::new(metadata.len()),
        path,
        direct,
        device,
        locking,
        locks: Mutex::new(Locks::NONE),
        pages: Mutex::default(),
        lost: AtomicI32::new(0),
    };
    Ok(Box::new(HostFile { open: Arc::new(open), ring }))
}

impl OpenFile {
    /// Asks the host for the size of a regular file.
    fn look(&self) {
        if let (false, Ok(metadata)) = (self.device, self.file.metadata()) {
            self.size.store(metadata.len(), Ordering::Release)
        }
    }

    /// After a flush: what the host has given up once is lost.
    fn flushed(&self, result: io::Result<()>) -> io::Result<()> {
        result.inspect_err(|e| {
            if !self.direct {
                self.lost.store(e.raw_os_error().unwrap_or(libc::EIO), Ordering::Release)
            }
        })
    }

    /// Whether the host takes a transfer as it is.
    fn takes_transfer(&self, t: &Transfer) -> bool {
        let placed = match (t.way, &t.bytes) {
            (Way::Sync, _) => return self.lost.load(Ordering::Acquire) == 0,
            (_, Bytes::Guest(ranges)) => self.takes(t.offset, ranges),
            (_, Bytes::Own(data)) => !self.direct || direct::fits(t.offset, data),
        };
        placed && !t.bytes.is_empty() && Self::range(t.offset, t.bytes.len()).is_ok()
    }

    /// A transfer has ended, after so many bytes.
    fn transferred(&self, way: Way, end: u64, len: u64, moved: io::Result<u64>, bytes: &Bytes) -> Ended {
        if let (Way::Read, Bytes::Guest(ranges)) = (way, bytes) {
            ranges.mark_dirty();
        }
        match (way, moved) {
            // (That says nothing of what was written.)
            (_, Err(e)) if matches!(e.raw_os_error(), Some(libc::EAGAIN | libc::EINTR | libc::EINVAL)) => Ended::Again,
            (Way::Sync, done) => Ended::Done(self.flushed(done.map(|_| ()))),
            (Way::Read, Ok(n)) if n == len => Ended::Done(Ok(())),
            (Way::Write, Ok(n)) if n == len => Ended::Done(self.grown(end, Ok(()))),
            (_, Ok(_)) => Ended::Again,
            (Way::Write, Err(e)) => Ended::Done(self.grown(end, Err(e))),
            (_, Err(e)) => Ended::Done(Err(e)),
        }
    }

    /// Keeps others from pages that are not wholly in a range while it changes, where writes go by pages.
    fn edges(&self, offset: u64, len: u64) -> Option<MutexGuard<'_, ()>> {
        (self.direct && !direct::is_aligned(offset, len)).then(|| self.pages.lock())
    }

    /// Whether the host takes guest memory as it is for what begins at `offset`.
    fn takes(&self, offset: u64, memory: &RamRanges) -> bool {
        !self.direct || (direct::is_aligned(offset, 0) && memory.is_aligned(ALIGN as u64))
    }

    /// Calls `once` with what is left of `memory` and how much is done, until nothing is left or nothing happens; what was done.
    fn whole(&self, memory: &RamRanges, once: impl Fn(&RamRanges, u64) -> io::Result<u64>) -> io::Result<u64> {
        let (mut done, mut rest) = (0, None);
        while done < memory.len() {
            match once(rest.as_ref().unwrap_or(memory), done) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            }
            if self.direct && !direct::is_aligned(done, 0) {
                break; // the end of the file
            }
            if done < memory.len() {
                rest = Some(memory.part(done, memory.len()));
            }
        }
        Ok(done)
    }

    /// After something that may have changed the size: what was done, up to `end`, or whatever the host says if it failed.
    fn grown<T>(&self, end: u64, result: io::Result<T>) -> io::Result<T> {
        match &result {
            Ok(_) => _ = self.size.fetch_max(end, Ordering::AcqRel),
            Err(_) => self.look(),
        }
        result
    }

    fn range(offset: u64, len: u64) -> io::Result<()> {
        match offset.checked_add(len).filter(|end| i64::try_from(*end).is_ok()) {
            Some(_) => Ok(()),
            None => Err(io::Error::from_raw_os_error(libc::EIO)),
        }
    }
}

impl Driver for HostFile {
    fn len(&self) -> io::Result<u64> {
        if self.device { (&*self.file).seek(SeekFrom::End(0)) } else { Ok(self.size.load(Ordering::Acquire)) }
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        OpenFile::range(offset, buf.len() as u64)?;
        let mut done = 0;
        if self.direct {
            done = direct::read(&self.file, offset, buf)?;
        } else {
            while let Some(rest) = buf.get_mut(done..).filter(|r| !r.is_empty()) {
                match self.file.read_at(rest, offset + done as u64) {
                    Ok(0) => break,
                    Ok(n) => done += n,
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    Err(e) => return Err(e),
                }
            }
        }
        if let Some(rest) = buf.get_mut(done..) {
            rest.fill(0);
        }
        Ok(())
    }

    fn write(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        OpenFile::range(offset, buf.len() as u64)?;
        if buf.is_empty() {
            return Ok(());
        }
        let end = offset + buf.len() as u64;
        if !self.direct {
            return self.grown(end, self.file.write_all_at(buf, offset));
        }
        let _alone = self.edges(offset, buf.len() as u64);
        self.grown(end, direct::write(&self.file, offset, buf))
    }

    fn read_into(&self, offset: u64, to: &RamRanges) -> io::Result<()> {
        OpenFile::range(offset, to.len())?;
        if !self.takes(offset, to) {
            return read_by_copy(self, offset, to);
        }
        let done = self.whole(to, |rest, done| rest.read_file(self.file.as_fd(), offset + done))?;
        // What lies beyond the end reads as zeros.
        to.part(done, to.len() - done).clear();
        Ok(())
    }

    fn write_from(&self, offset: u64, from: &RamRanges) -> io::Result<()> {
        OpenFile::range(offset, from.len())?;
        if !self.takes(offset, from) {
            return write_by_copy(self, offset, from);
        }
        let done = self.whole(from, |rest, done| rest.write_file(self.file.as_fd(), offset + done));
        let done = done.and_then(|n| if n < from.len() { Err(io::ErrorKind::WriteZero.into()) } else { Ok(()) });
        self.grown(offset + from.len(), done)
    }

    fn write_zeroes(&self, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
        OpenFile::range(offset, len)?;
        if len == 0 {
            return Ok(());
        }
        let alone = self.edges(offset, len);
        let inside = offset + len <= self.len()?;
        if unmap && inside {
            let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            if rustix::fs::fallocate(&self.file, hole, offset, len).is_ok() {
                return Ok(());
            }
        }
        match rustix::fs::fallocate(&self.file, FallocateFlags::ZERO_RANGE, offset, len) {
            Ok(()) => self.grown(offset + len, Ok(())),
            Err(rustix::io::Errno::NOSPC) => Err(rustix::io::Errno::NOSPC.into()),
            Err(_) => {
                drop(alone);
                write_zeros_by_hand(self, offset, len)
            }
        }
    }

    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        OpenFile::range(offset, len)?;
        if len == 0 {
            return Ok(());
        }
        let _alone = self.edges(offset, len);
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match rustix::fs::fallocate(&self.file, hole, offset, len) {
            // Keeping the bytes is a way of not caring about them.
            Ok(()) | Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS | rustix::io::Errno::NODEV) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    fn resize(&self, len: u64) -> io::Result<()> {
        OpenFile::range(0, len)?;
        if self.device {
            return Err(io::Error::from_raw_os_error(libc::ENOTSUP));
        }
        let done = self.file.set_len(len);
        self.look();
        done
    }

    fn flush(&self) -> io::Result<()> {
        match self.lost.load(Ordering::Acquire) {
            0 => {}
            errno => return Err(io::Error::from_raw_os_error(errno)),
        }
        self.flushed(self.file.sync_data())
    }

    fn has_ring(&self) -> bool {
        self.ring.is_some()
    }

    fn begin(&self, t: Transfer) -> std::result::Result<(), Transfer> {
        let Some(ring) = self.ring.as_ref().filter(|_| self.takes_transfer(&t)) else { return Err(t) };
        let Transfer { way, offset, bytes, done, passed } = t;
        let (open, len) = (self.open.clone(), bytes.len());
        let ended = move |moved: io::Result<u64>, bytes: Bytes| {
            let ended = open.transferred(way, offset + len, len, moved, &bytes);
            if way == Way::Write && !matches!(ended, Ended::Again) {
                passed.iter().for_each(|(node, at)| node.changed(*at, len));
            }
            // (Whoever hears of it may delete the node.)
            drop((open, passed));
            done(ended, bytes);
        };
        ring.begin(Entry { file: self.file.clone(), way, offset, bytes, done: Box::new(ended) });
        Ok(())
    }

    fn set_perms(&self, perm: Perm, shared: Perm) -> Result<()> {
        if !self.locking {
            return Ok(());
        }
        let mut locks = self.locks.lock();
        // Nobody uses it: others may do what they want.
        let to = Locks { held: perm, denied: if perm.is_empty() { Perm::empty() } else { !shared } };
        lock::change(&self.file, *locks, to).map_err(|word| {
            Error::generic(format!(
                "Failed to get \"{word}\" lock\nIs another process using the image [{}]?",
                self.path
            ))
        })?;
        *locks = to;
        Ok(())
    }

    fn filename(&self) -> String {
        self.path.clone()
    }

    fn look(&self) {
        self.open.look();
    }

    fn actual_size(&self) -> Option<u64> {
        self.file.metadata().ok().map(|m| m.blocks() * 512)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flush_that_the_host_did_not_begin_loses_nothing() {
        let open = OpenFile {
            file: Arc::new(tempfile::tempfile().unwrap()),
            size: AtomicU64::new(0),
            path: String::new(),
            direct: false,
            device: false,
            locking: false,
            locks: Mutex::new(Locks::NONE),
            pages: Mutex::default(),
            lost: AtomicI32::new(0),
        };
        let host = HostFile { open: Arc::new(open), ring: None };
        let nothing = Bytes::Own(Default::default());
        let ended = |errno| host.transferred(Way::Sync, 0, 0, Err(io::Error::from_raw_os_error(errno)), &nothing);
        assert!(matches!(ended(libc::EAGAIN), Ended::Again));
        host.flush().unwrap();
        // What it could not write is lost for good.
        assert!(matches!(ended(libc::EIO), Ended::Done(Err(_))));
        assert_eq!(host.flush().unwrap_err().raw_os_error(), Some(libc::EIO));
    }
}
