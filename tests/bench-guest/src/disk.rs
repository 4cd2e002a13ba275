//! Workloads on block devices, past the page cache (O_DIRECT): `DEVICE-OPERATION-DEPTH`, such as `raw-read4k-32`.
//!
//! Devices are those of `tests::peer_bench::devices`; natively they are files of the working folder. Every sector holds a number that
//! follows from its place, so that what was read and what is left after writing can be digested.

use crate::{
    digest::{Digest, Random},
    sys::{Aio, Pages},
};
use std::{
    fs::File,
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

/// Devices: name, place in the guest.
const DEVICES: [(&str, &str); 4] =
    [("raw", "/dev/vda"), ("qcow2", "/dev/vdb"), (NULL, "/dev/vdc"), ("ide", "/dev/sda")];
/// Reads as zeros and forgets what is written.
const NULL: &str = "null";
/// Operations: name, whether it writes, bytes of a request, whether they go anywhere.
const OPERATIONS: [(&str, bool, usize, bool); 4] = [
    ("read", false, 128 << 10, false),
    ("write", true, 128 << 10, false),
    ("read4k", false, BLOCK, true),
    ("write4k", true, BLOCK, true),
];
/// Requests in flight.
const DEPTHS: [usize; 2] = [1, 32];
/// Bytes of a device that are used.
const LEN: u64 = 128 << 20;
const BLOCK: usize = 4096;
const SECTOR: usize = 512;
/// Blocks of a device: a power of two.
const BLOCKS: u64 = LEN / BLOCK as u64;
/// What a device is filled with before, and what writing leaves.
const FILLED: u64 = 1;
const WRITTEN: u64 = 2;

/// One workload.
#[derive(Clone, Copy, Debug)]
pub struct Work {
    device: &'static str,
    at: &'static str,
    writes: bool,
    size: usize,
    random: bool,
    depth: usize,
}

/// All of them.
pub fn names() -> impl Iterator<Item = String> {
    DEVICES
        .into_iter()
        .flat_map(|(device, _)| {
            OPERATIONS.into_iter().flat_map(move |op| DEPTHS.into_iter().map(move |n| format!("{device}-{}-{n}", op.0)))
        })
        // (A disk on IDE does one thing at a time.)
        .filter(|n| !(n.starts_with("ide") && n.ends_with("-32")))
}

/// The workload of this name.
pub fn find(name: &str) -> Option<Work> {
    if !names().any(|n| n == name) {
        return None;
    }
    let [device, op, depth] = name.split('-').collect::<Vec<_>>()[..] else { return None };
    let (device, at) = DEVICES.into_iter().find(|d| d.0 == device)?;
    let (_, writes, size, random) = OPERATIONS.into_iter().find(|o| o.0 == op)?;
    Some(Work { device, at, writes, size, random, depth: depth.parse().ok()? })
}

/// The number at the beginning of a sector.
fn stamp(sector: u64, what: u64) -> u64 {
    Random::new(sector << 2 | what).word()
}

fn put_stamps(buf: &mut [u8], offset: u64, what: u64) {
    for (i, sector) in buf.chunks_mut(SECTOR).enumerate() {
        sector[..8].copy_from_slice(&stamp(offset / SECTOR as u64 + i as u64, what).to_le_bytes());
    }
}

/// The sum of the numbers of all sectors.
fn sum_stamps(buf: &[u8]) -> u64 {
    let numbers = buf.chunks(SECTOR).map(|s| u64::from_le_bytes(s[..8].try_into().expect("eight bytes")));
    numbers.fold(0, |sum, n| sum.wrapping_mul(31).wrapping_add(n))
}

/// The `n`th of the blocks, each once in [`BLOCKS`], in no order.
fn scattered(n: u64) -> u64 {
    let mut x = n % BLOCKS;
    for _ in 0..3 {
        x = x.wrapping_mul(0x6d2b) % BLOCKS;
        x ^= x >> 7;
    }
    x
}

impl Work {
    fn open(&self, folder: Option<&Path>) -> io::Result<File> {
        let (path, flags) = match folder {
            None => (PathBuf::from(self.at), libc::O_DIRECT),
            Some(_) if self.device == NULL => (PathBuf::from("/dev/zero"), 0),
            Some(folder) => (folder.join(format!("{}.disk", self.device)), libc::O_DIRECT),
        };
        let open =
            |flags| File::options().read(true).write(true).create(folder.is_some()).custom_flags(flags).open(&path);
        // Some folders have no way past the cache.
        match open(flags) {
            Err(e) if folder.is_some() && e.raw_os_error() == Some(libc::EINVAL) => open(0),
            other => other,
        }
        .map_err(|e| io::Error::other(format!("{}: {e}", path.display())))
    }

    /// Writes the whole device, so that its contents are known. `folder`: natively, where the files are.
    ///
    /// # Errors
    /// The device is not there or does not work.
    pub fn prepare(&self, folder: Option<&Path>) -> io::Result<()> {
        if self.device == NULL {
            return Ok(());
        }
        if let Some(folder) = folder {
            std::fs::create_dir_all(folder)?;
        }
        let all = Work { writes: true, size: 1 << 20, random: false, depth: 4, ..*self };
        all.transfer(&self.open(folder)?, LEN >> 20, FILLED).map(|_| ())
    }

    /// Moves `n` MiB, or 100 times `n` single blocks; the digest of what was read.
    ///
    /// # Errors
    /// The device's.
    pub fn run(&self, folder: Option<&Path>, n: u64) -> io::Result<u64> {
        let requests = if self.random { n * 100 } else { n * ((1 << 20) / self.size as u64) };
        self.transfer(&self.open(folder)?, requests, WRITTEN)
    }

    /// The digest of what is on the device now, if the workload wrote it; else `read`.
    ///
    /// # Errors
    /// The device's.
    pub fn digest(&self, folder: Option<&Path>, read: u64) -> io::Result<u64> {
        if !self.writes || self.device == NULL {
            return Ok(read);
        }
        let all = Work { writes: false, size: 1 << 20, random: false, depth: 1, ..*self };
        all.transfer(&self.open(folder)?, LEN >> 20, 0)
    }

    fn offset(&self, request: u64) -> u64 {
        if self.random { scattered(request) * BLOCK as u64 } else { request * self.size as u64 % LEN }
    }

    /// The requests, `depth` at a time. Answers the sum of what was read; of what was written, how many requests.
    fn transfer(&self, file: &File, requests: u64, what: u64) -> io::Result<u64> {
        if self.depth == 1 {
            return self.one_by_one(file, requests, what);
        }
        let mut digest = 0u64;
        let mut aio = Aio::new(file, self.depth, self.size)?;
        let (mut begun, mut ended) = (0, 0);
        // request of each slot
        let mut at = vec![0; self.depth];
        let mut free: Vec<usize> = (0..self.depth).collect();
        while ended < requests {
            let mut batch = vec![];
            while begun < requests
                && let Some(slot) = free.pop()
            {
                let offset = self.offset(begun);
                if self.writes {
                    put_stamps(aio.buffer(slot), offset, what);
                }
                at[slot] = begun;
                batch.push((slot, offset));
                begun += 1;
            }
            aio.submit(&batch, self.writes)?;
            for slot in aio.wait()? {
                // The order in which requests end is nobody's business: the sum has none.
                digest = digest.wrapping_add(match self.writes {
                    true => 1,
                    false => sum_stamps(aio.buffer(slot)).wrapping_mul(at[slot] | 1),
                });
                free.push(slot);
                ended += 1;
            }
        }
        Ok(digest)
    }

    fn one_by_one(&self, file: &File, requests: u64, what: u64) -> io::Result<u64> {
        let mut pages = Pages::map(self.size, false);
        let mut digest = Digest::new();
        for n in 0..requests {
            let (buf, offset) = (pages.bytes(), self.offset(n));
            if self.writes {
                put_stamps(buf, offset, what);
                file.write_all_at(buf, offset)?;
            } else {
                file.read_exact_at(buf, offset)?;
                digest.word(sum_stamps(buf));
            }
        }
        Ok(if self.writes { requests } else { digest.end() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_come_once_each() {
        let mut all: Vec<u64> = (0..BLOCKS).map(scattered).collect();
        let neighbours = all.windows(2).filter(|w| w[0] + 1 == w[1]).count();
        all.sort_unstable();
        assert!(all.into_iter().eq(0..BLOCKS) && neighbours < 10, "{neighbours}");
    }

    #[test]
    fn names_are_found_again() {
        assert_eq!(names().count(), 28);
        assert!(names().all(|n| find(&n).is_some() && n.len() <= 16));
        assert!(["raw-read-2", "raw-read", "ide-read-32", "raw-read-1-1"].iter().all(|n| find(n).is_none()));
    }

    #[test]
    fn depths_read_and_write_the_same() {
        let folder = std::env::temp_dir().join(format!("bench-guest-{}", std::process::id()));
        let run = |name: &str, n| {
            let work = find(name).expect(name);
            work.prepare(Some(&folder)).expect("filled");
            let read = work.run(Some(&folder), n).expect("run");
            (read, work.digest(Some(&folder), read).expect("read back"))
        };
        let (sequential, random) = (run("raw-write-1", 3).1, run("raw-write4k-1", 2).1);
        assert_eq!((run("raw-write-32", 3).1, run("raw-write4k-32", 2).1), (sequential, random));
        assert!(sequential != random && run("raw-write-1", 4).1 != sequential);
        let reads = ["raw-read-1", "raw-read-32", "raw-read4k-1"].map(|n| run(n, 1));
        assert!(reads.iter().all(|r| r.0 == r.1) && reads[0] != reads[2], "{reads:?}");
        assert_eq!(run("null-write-32", 2), (16, 16));
        std::fs::remove_dir_all(&folder).expect("removed");
    }
}
