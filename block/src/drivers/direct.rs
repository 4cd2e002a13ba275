//! Input and output past the host's page cache (O_DIRECT): buffers, offsets and lengths are multiples of a page; what is not goes
//! through a buffer that is.

use crate::data::ALIGN;
use std::cell::Cell;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Longest buffer that a thread keeps.
const KEPT: usize = 2 << 20;

thread_local! {
    /// This thread's buffer: requests come one after the other, mostly of one size.
    static BOUNCE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Calls `f` with `len` bytes that begin at a multiple of [`ALIGN`]. What is in them is of no use, and not to be passed on.
pub(crate) fn with_bounce<R>(len: usize, f: impl FnOnce(&mut [u8]) -> R) -> R {
    BOUNCE.with(|cell| {
        let mut bytes = cell.take();
        if bytes.len() < len + ALIGN {
            bytes = vec![0; len + ALIGN];
        }
        let skip = bytes.as_ptr().align_offset(ALIGN).min(ALIGN);
        let result = f(bytes.get_mut(skip..skip + len).unwrap_or_default());
        if bytes.len() <= KEPT {
            cell.set(bytes);
        }
        result
    })
}

/// Whether a range is whole pages.
pub(super) fn is_aligned(offset: u64, len: u64) -> bool {
    (offset | len).is_multiple_of(ALIGN as u64)
}

/// The aligned range around one, and where the range begins in it.
fn around(offset: u64, len: usize) -> (u64, usize, usize) {
    let start = offset - offset % ALIGN as u64;
    let before = (offset - start) as usize;
    (start, before, (before + len).next_multiple_of(ALIGN))
}

/// Whether the host can take a buffer for a range as it is.
pub(super) fn fits(offset: u64, buf: &[u8]) -> bool {
    is_aligned(offset, buf.len() as u64) && buf.as_ptr().addr().is_multiple_of(ALIGN)
}

/// Reads as much of `buf`, which fits, as the file has; the bytes read.
fn fill(file: &File, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
    let mut done = 0;
    while let Some(rest) = buf.get_mut(done..).filter(|r| !r.is_empty()) {
        match file.read_at(rest, offset + done as u64) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        }
        if !done.is_multiple_of(ALIGN) {
            break; // the end of the file
        }
    }
    Ok(done)
}

/// Reads as much of `buf` as the file has; the bytes read.
pub(super) fn read(file: &File, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
    if fits(offset, buf) {
        return fill(file, offset, buf);
    }
    let (start, before, whole) = around(offset, buf.len());
    with_bounce(whole, |bounce| {
        let done = fill(file, start, bounce)?;
        let got = done.saturating_sub(before).min(buf.len());
        if let (Some(to), Some(from)) = (buf.get_mut(..got), bounce.get(before..before + got)) {
            to.copy_from_slice(from);
        }
        Ok(got)
    })
}

/// Writes all of `buf`, reading what lies around it first where it is not aligned. The file keeps its size if it was larger, and gets the
/// size it would have without alignment.
pub(super) fn write(file: &File, offset: u64, buf: &[u8]) -> io::Result<()> {
    if fits(offset, buf) {
        return file.write_all_at(buf, offset);
    }
    let (start, before, whole) = around(offset, buf.len());
    with_bounce(whole, |bounce| {
        if before == 0 && whole == buf.len() {
            bounce.copy_from_slice(buf);
            return file.write_all_at(bounce, start);
        }
        let size = file.metadata()?.len();
        bounce.fill(0);
        read(file, start, bounce)?;
        if let Some(to) = bounce.get_mut(before..before + buf.len()) {
            to.copy_from_slice(buf);
        }
        file.write_all_at(bounce, start)?;
        let (end, written) = (offset + buf.len() as u64, start + whole as u64);
        if written > size.max(end) && file.metadata()?.is_file() {
            file.set_len(size.max(end))?;
        }
        Ok(())
    })
}
