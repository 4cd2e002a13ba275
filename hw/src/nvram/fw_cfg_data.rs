//! The bytes of a fw_cfg item: in memory, or a part of a host file that is read when the guest asks for it, so that a kernel
//! of many megabytes costs no memory once the guest has booted.

use parking_lot::Mutex;
use std::{fs::File, ops::Range, os::unix::fs::FileExt, sync::Arc};

/// Largest piece of a file that is in memory at once.
const PIECE: usize = 64 << 10;
/// What a guest that reads byte by byte is served from.
const WINDOW: usize = 4096;

/// Bytes that do not change. Clones and slices share them.
#[derive(Clone, Debug)]
pub struct Data {
    source: Source,
    /// Part of the source.
    start: usize,
    len: usize,
}

#[derive(Clone, Debug)]
enum Source {
    Memory(Arc<[u8]>),
    File(Arc<Windowed>),
}

#[derive(Debug)]
struct Windowed {
    file: File,
    /// Where it lies in the file, and the bytes.
    window: Mutex<(u64, Vec<u8>)>,
}

impl Windowed {
    /// A file that has become shorter, or cannot be read any more, reads as zeros from there on.
    fn read(&self, at: u64, buf: &mut [u8]) {
        let mut done = 0;
        while let Some(rest) = buf.get_mut(done..).filter(|r| !r.is_empty()) {
            match self.file.read_at(rest, at + done as u64) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => {
                    tracing::warn!("a file that the guest reads failed: {e}");
                    break;
                }
            }
        }
        buf.iter_mut().skip(done).for_each(|b| *b = 0);
    }

    fn byte(&self, at: u64) -> u8 {
        let (from, bytes) = &mut *self.window.lock();
        if bytes.is_empty() || !(*from..*from + bytes.len() as u64).contains(&at) {
            bytes.resize(WINDOW, 0);
            *from = at;
            self.read(at, bytes);
        }
        bytes.get((at - *from) as usize).copied().unwrap_or(0)
    }
}

impl Data {
    /// The first `len` bytes of a file, which stays open.
    pub fn file(file: File, len: usize) -> Data {
        Data { source: Source::File(Arc::new(Windowed { file, window: Mutex::default() })), start: 0, len }
    }

    /// Size in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// A part of it; cut at the end.
    #[must_use]
    pub fn slice(&self, range: Range<usize>) -> Data {
        let (start, end) = (range.start.min(self.len), range.end.min(self.len));
        Data { source: self.source.clone(), start: self.start + start, len: end.saturating_sub(start) }
    }

    /// The byte at `at`.
    pub fn get(&self, at: usize) -> Option<u8> {
        (at < self.len).then(|| match &self.source {
            Source::Memory(bytes) => bytes.get(self.start + at).copied().unwrap_or(0),
            Source::File(f) => f.byte((self.start + at) as u64),
        })
    }

    /// Hands all bytes to `each`, in pieces with their offsets, while it answers true. False if it did not to the end.
    pub fn pieces(&self, mut each: impl FnMut(usize, &[u8]) -> bool) -> bool {
        match &self.source {
            Source::Memory(bytes) => {
                self.len == 0 || each(0, bytes.get(self.start..self.start + self.len).unwrap_or_default())
            }
            Source::File(f) => {
                let mut buf = vec![0; PIECE.min(self.len)];
                (0..self.len).step_by(PIECE).all(|at| {
                    let piece = buf.get_mut(..PIECE.min(self.len - at)).unwrap_or_default();
                    f.read((self.start + at) as u64, piece);
                    each(at, piece)
                })
            }
        }
    }

    /// A copy of all bytes.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut all = Vec::with_capacity(self.len);
        self.pieces(|_, piece| {
            all.extend_from_slice(piece);
            true
        });
        all
    }
}

impl<T: Into<Arc<[u8]>>> From<T> for Data {
    fn from(bytes: T) -> Data {
        let bytes = bytes.into();
        let len = bytes.len();
        Data { source: Source::Memory(bytes), start: 0, len }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_read_like_memory_and_zeros_where_they_were_cut() {
        let bytes: Vec<u8> = (0..200_000u32).map(|i| (i / 7) as u8).collect();
        let path = std::env::temp_dir().join(format!("fw-cfg-data-{}", std::process::id()));
        std::fs::write(&path, &bytes).unwrap();
        let file = Data::file(File::open(&path).unwrap(), bytes.len());
        let memory = Data::from(bytes.clone());
        for range in [0..200_000, 5..5, 100..150_000, 199_990..300_000] {
            let (a, b) = (file.slice(range.clone()), memory.slice(range.clone()));
            assert_eq!((a.len(), a.to_vec()), (b.len(), b.to_vec()));
            for at in [0, 1, 4095, 4096, 5000, 3] {
                assert_eq!(a.get(at), b.get(at));
            }
        }
        std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(10).unwrap();
        std::fs::remove_file(&path).unwrap();
        let mut expected = bytes[..10].to_vec();
        expected.resize(200_000, 0);
        assert_eq!(file.to_vec(), expected);
    }
}
