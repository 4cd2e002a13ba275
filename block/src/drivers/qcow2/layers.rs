//! What the image itself has of a range, and copying up what it has not.

use super::Qcow2;
use super::geometry::{Place, ZERO, eio};
use super::meta::Meta;
use crate::driver::Status;
use std::io;

/// Most bytes that are copied up at once: others wait meanwhile.
const PORTION: u64 = 1 << 20;

impl Qcow2 {
    fn status_at(&self, meta: &mut Meta, at: u64) -> io::Result<Status> {
        Ok(match self.placed(meta, at)?.1 {
            Place::Nowhere => Status::Below,
            Place::Zero { .. } => Status::Zero,
            Place::Here { .. } | Place::Compressed { .. } => Status::Data,
        })
    }

    pub(super) fn status_guest(&self, offset: u64, len: u64) -> io::Result<(Status, u64)> {
        self.check(offset, len)?;
        if len == 0 {
            return Ok((Status::Below, 0));
        }
        let _shared = self.lock.read();
        let mut meta = self.meta.lock();
        let (end, mut at) = (offset + len, offset);
        let mut found = None;
        while at < end {
            let (missing, span_end) = meta.l2_missing(at);
            let (status, stop) = if missing {
                (Status::Below, span_end)
            } else {
                (self.status_at(&mut meta, at)?, self.geo.floor(at) + self.geo.cluster())
            };
            if found.is_some_and(|f| f != status) {
                break;
            }
            found = Some(status);
            at = stop.min(end);
        }
        Ok((found.unwrap_or(Status::Below), at - offset))
    }

    /// What the backing file has is read while others work; whether the image still has none of it is looked at alone, where it is written.
    pub(super) fn populate_guest(&self, offset: u64, len: u64) -> io::Result<()> {
        self.check(offset, len)?;
        if self.backing.is_none() || len == 0 {
            return Ok(());
        }
        let cluster = self.geo.cluster();
        let limit = self.size().next_multiple_of(crate::SECTOR);
        let end = (offset + len).next_multiple_of(cluster).min(limit);
        let mut at = self.geo.floor(offset);
        while at < end {
            let n = (end - at).min(PORTION.max(cluster));
            let (status, n) = self.status_guest(at, n)?;
            if status == Status::Below {
                let mut bytes = vec![0; n as usize];
                self.read_backing(at, &mut bytes)?;
                self.fill(at, &bytes)?;
            }
            at += n;
        }
        Ok(())
    }

    /// Writes those clusters of a range that the image has not.
    fn fill(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let _alone = self.lock.write();
        let mut meta = self.meta.lock();
        let zeros = self.geo.v3 && !self.header.is_data_file_raw();
        // Clusters in a row are written at once.
        let (mut first, mut row) = (offset, 0u64);
        let part = |at: u64, n: u64| {
            let start = (at - offset) as usize;
            bytes.get(start..start + n as usize).ok_or_else(eio)
        };
        for (at, n) in self.geo.pieces(offset, bytes.len() as u64) {
            let missing = self.status_at(&mut meta, at)? == Status::Below;
            let zero = zeros && part(at, n)?.iter().all(|b| *b == 0);
            if missing && !zero {
                if row == 0 {
                    first = at;
                }
                row += n;
                continue;
            }
            if row > 0 {
                self.write_new(&mut meta, first, part(first, row)?)?;
                row = 0;
            }
            if missing {
                meta.set_entry(&self.file, at, ZERO)?;
            }
        }
        if row > 0 {
            self.write_new(&mut meta, first, part(first, row)?)?;
        }
        if meta.is_full() { self.commit(&mut meta) } else { Ok(()) }
    }
}
