//! Input and output past the host's page cache (O_DIRECT): buffers, offsets and lengths are multiples of a page; what is not goes
//! through a buffer that is.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// What satisfies every device's alignment.
const ALIGN: usize = 4096;

/// A buffer that begins at a multiple of [`ALIGN`].
struct Aligned {
    bytes: Vec<u8>,
    skip: usize,
    len: usize,
}

impl Aligned {
    fn new(len: usize) -> Self {
        let bytes = vec![0u8; len + ALIGN];
        let skip = bytes.as_ptr().align_offset(ALIGN).min(ALIGN);
        Self { bytes, skip, len }
    }

    fn get(&self) -> &[u8] {
        self.bytes.get(self.skip..self.skip + self.len).unwrap_or_default()
    }

    fn get_mut(&mut self) -> &mut [u8] {
        self.bytes.get_mut(self.skip..self.skip + self.len).unwrap_or_default()
    }
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

/// Reads as much of `buf` as the file has; the bytes read.
pub(super) fn read(file: &File, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
    let (start, before, whole) = around(offset, buf.len());
    let mut bounce = Aligned::new(whole);
    let mut done = 0;
    while done < whole {
        let rest = bounce.get_mut().get_mut(done..).unwrap_or_default();
        match file.read_at(rest, start + done as u64) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        }
        if done % ALIGN != 0 {
            break; // the end of the file
        }
    }
    let got = done.saturating_sub(before).min(buf.len());
    if let (Some(to), Some(from)) = (buf.get_mut(..got), bounce.get().get(before..before + got)) {
        to.copy_from_slice(from);
    }
    Ok(got)
}

/// Writes all of `buf`, reading what lies around it first where it is not aligned. The file keeps its size if it was larger, and gets the
/// size it would have without alignment.
pub(super) fn write(file: &File, offset: u64, buf: &[u8]) -> io::Result<()> {
    let (start, before, whole) = around(offset, buf.len());
    let mut bounce = Aligned::new(whole);
    let size = file.metadata()?.len();
    if before != 0 || whole != buf.len() {
        read(file, start, bounce.get_mut())?;
    }
    if let Some(to) = bounce.get_mut().get_mut(before..before + buf.len()) {
        to.copy_from_slice(buf);
    }
    file.write_all_at(bounce.get(), start)?;
    let (end, written) = (offset + buf.len() as u64, start + whole as u64);
    if written > size.max(end) && file.metadata()?.is_file() {
        file.set_len(size.max(end))?;
    }
    Ok(())
}
