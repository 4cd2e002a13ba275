//! What a dirty image needs when it is opened for writing: its refcounts counted anew. They go into new tables behind everything else, which
//! the header then names: a crash in between changes nothing. Source: the qcow2 specification, "Dirty bit".

use super::geometry::{COPIED, Geometry, OFFSET, Place, eio};
use super::header::{AT_REFTABLE, Header, MAX_REFTABLE, be64};
use super::host::Host;
use super::refcounts;
use super::snapshots::Snapshot;
use std::collections::{BTreeMap, BTreeSet};
use std::io;

/// Clusters by how often they are referred to.
type Counts = BTreeMap<u64, u64>;

struct Walk<'a> {
    geo: Geometry,
    host: &'a Host,
    data_file: bool,
    counts: Counts,
    /// First cluster behind the file.
    end: u64,
}

impl Walk<'_> {
    fn count(&mut self, at: u64, len: u64, times: u64) -> io::Result<()> {
        let last = at.checked_add(len.max(1) - 1).ok_or_else(eio)? >> self.geo.cluster_bits;
        if last >= self.end {
            return Err(eio());
        }
        for n in at >> self.geo.cluster_bits..=last {
            *self.counts.entry(n).or_default() += times;
        }
        Ok(())
    }

    fn l1(&mut self, at: u64, entries: u32) -> io::Result<Vec<u64>> {
        let len = u64::from(entries) * 8;
        if len == 0 {
            return Ok(vec![]);
        }
        self.count(at, len, 1)?;
        let l1 = self.host.read_all(at, len)?;
        let tables: Vec<u64> = l1.as_chunks::<8>().0.iter().map(|b| u64::from_be_bytes(*b)).collect();
        // (However often a table is named, it is read once.)
        let mut named = Counts::new();
        for table in tables.iter().map(|e| e & OFFSET).filter(|t| *t != 0) {
            *named.entry(table).or_default() += 1;
        }
        for (table, times) in named {
            self.count(table, self.geo.cluster(), times)?;
            self.l2(table, times)?;
        }
        Ok(tables)
    }

    fn l2(&mut self, at: u64, times: u64) -> io::Result<()> {
        let table = self.host.read_all(at, self.geo.cluster())?;
        for n in 0..self.geo.l2_entries() as usize {
            match self.geo.place(be64(&table, n * 8))? {
                Place::Compressed { at, len } => self.count(at, len, times)?,
                Place::Here { at, .. } | Place::Zero { at: Some(at), .. } if !self.data_file => {
                    self.count(at, self.geo.cluster(), times)?;
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// Counts anew, and sets the header's fields about the refcount table. The dirty bit stays.
///
/// # Errors
/// Tables that are not in the file, an image too large for its refcounts, or as the host says.
pub(super) fn rebuild(h: &mut Header, host: &Host, snapshots: &[Snapshot], snapshots_len: u64) -> io::Result<()> {
    let geo = h.geometry();
    let end = host.len()?.div_ceil(geo.cluster());
    let mut walk = Walk { geo, host, data_file: h.has_data_file(), counts: Counts::new(), end };
    walk.count(0, 1, 1)?;
    let l1 = walk.l1(h.l1_offset, h.l1_size)?;
    if snapshots_len > 0 {
        walk.count(h.snapshots_offset, snapshots_len, 1)?;
    }
    for s in snapshots {
        walk.l1(s.l1_offset, s.l1_size)?;
    }
    let mut counts = walk.counts;
    copied_flags(h, host, &l1, &counts)?;

    let per_block = geo.refblock_entries();
    let mut ranges: BTreeSet<u64> = counts.keys().map(|c| c / per_block).collect();
    let (blocks, clusters) = loop {
        let blocks = ranges.len() as u64;
        let last = ranges.last().copied().unwrap_or(0);
        let clusters = ((last + 1) * 8).div_ceil(geo.cluster());
        let taken = end..end + blocks + clusters;
        let before = ranges.len();
        ranges.extend(taken.clone().map(|c| c / per_block));
        if ranges.len() == before {
            counts.extend(taken.map(|c| (c, 1)));
            break (blocks, clusters);
        }
    };
    if clusters << geo.cluster_bits > MAX_REFTABLE {
        return Err(io::Error::from_raw_os_error(libc::EFBIG));
    }
    let mut table = vec![0u8; (clusters << geo.cluster_bits) as usize];
    for (n, range) in ranges.iter().enumerate() {
        let at = (end + n as u64) << geo.cluster_bits;
        let mut block = vec![0u8; geo.cluster() as usize];
        for (cluster, count) in counts.range(range * per_block..(range + 1) * per_block) {
            refcounts::put(&mut block, geo, cluster % per_block, *count)?;
        }
        host.write(at, &block)?;
        let slot = *range as usize * 8;
        table.get_mut(slot..slot + 8).ok_or_else(eio)?.copy_from_slice(&at.to_be_bytes());
    }
    h.reftable_offset = (end + blocks) << geo.cluster_bits;
    h.reftable_clusters = clusters as u32;
    host.write(h.reftable_offset, &table)?;
    host.flush()?;
    let mut named = h.reftable_offset.to_be_bytes().to_vec();
    named.extend(h.reftable_clusters.to_be_bytes());
    host.write(AT_REFTABLE, &named)?;
    host.flush()
}

/// Sets the flags of the active tables that say whether a cluster is referred to once.
fn copied_flags(h: &Header, host: &Host, l1: &[u64], counts: &Counts) -> io::Result<()> {
    let geo = h.geometry();
    let once = |at: u64| counts.get(&(at >> geo.cluster_bits)) == Some(&1);
    let flag = |entry: u64, on: bool| if on { entry | COPIED } else { entry & !COPIED };
    for (n, entry) in l1.iter().enumerate().filter(|(_, e)| *e & OFFSET != 0) {
        let at = entry & OFFSET;
        let right = flag(*entry, once(at));
        if right != *entry {
            host.write(h.l1_offset + n as u64 * 8, &right.to_be_bytes())?;
        }
        if h.has_data_file() {
            continue;
        }
        let mut table = host.read_all(at, geo.cluster())?;
        let mut changed = false;
        for slot in table.as_chunks_mut::<8>().0 {
            let entry = u64::from_be_bytes(*slot);
            let right = match geo.place(entry)? {
                Place::Here { at, .. } | Place::Zero { at: Some(at), .. } => flag(entry, once(at)),
                _ => entry,
            };
            changed |= right != entry;
            *slot = right.to_be_bytes();
        }
        if changed {
            host.write(at, &table)?;
        }
    }
    Ok(())
}
