//! Refcounts and the allocation of host clusters. Source: the qcow2 specification, "Host cluster management".
//!
//! A new refcount block lies in the first cluster of the range it counts. What is counted up here reaches the file before whatever refers to
//! the cluster, what is counted down after: see `commit`.

use super::cache::Cache;
use super::geometry::{Geometry, REFBLOCK, eio};
use super::header::{AT_REFTABLE, MAX_REFTABLE};
use super::host::Host;
use std::collections::{BTreeSet, HashMap};
use std::io;

/// Bytes of refcount blocks kept.
const CACHE: u64 = 8 << 20;

/// What a cluster is used for beside guest data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Header,
    L1,
    L2,
    RefcountTable,
    RefcountBlock,
    Snapshots,
}

impl Kind {
    /// QEMU's words for it.
    pub fn words(self) -> &'static str {
        match self {
            Self::Header => "qcow2_header",
            Self::L1 => "active L1 table",
            Self::L2 => "active L2 table",
            Self::RefcountTable => "refcount table",
            Self::RefcountBlock => "refcount block",
            Self::Snapshots => "snapshot table",
        }
    }
}

/// The refcounts of an image.
#[derive(Debug)]
pub(super) struct Refcounts {
    geo: Geometry,
    table: Vec<u64>,
    table_at: u64,
    /// Entries that differ from the file.
    dirty: BTreeSet<usize>,
    pub blocks: Cache,
    /// No cluster below is free.
    hint: u64,
    /// The table has moved, which the header does not say yet: where it was, and its bytes.
    moved: Option<(u64, u64)>,
    /// The table could not be moved for reasons that do not go away.
    torn: bool,
    /// Clusters of metadata, by number: never handed out, never written as data.
    pub used: HashMap<u64, Kind>,
}

/// The number of a refcount among those of a byte or less, and the mask of one.
fn shift(geo: Geometry, index: u64) -> (u32, u64) {
    let bits = 1u32 << geo.refcount_order;
    let per_byte = 8 / bits;
    ((index % u64::from(per_byte)) as u32 * bits, (1 << bits) - 1)
}

/// The refcount number `index` of a block.
pub(super) fn get(block: &[u8], geo: Geometry, index: u64) -> u64 {
    let byte = |at: u64| u64::from(block.get(at as usize).copied().unwrap_or(0));
    if geo.refcount_order < 3 {
        let (shift, mask) = shift(geo, index);
        return byte((index << geo.refcount_order) / 8) >> shift & mask;
    }
    let width = 1u64 << (geo.refcount_order - 3);
    (0..width).fold(0, |v, n| v << 8 | byte(index * width + n))
}

/// The bytes of a block that hold the refcount number `index` when it is `value`, and where they are.
fn encode(block: &[u8], geo: Geometry, index: u64, value: u64) -> (usize, Vec<u8>) {
    if geo.refcount_order < 3 {
        let (shift, mask) = shift(geo, index);
        let at = ((index << geo.refcount_order) / 8) as usize;
        let old = u64::from(block.get(at).copied().unwrap_or(0));
        return (at, vec![(old & !(mask << shift) | value << shift) as u8]);
    }
    let width = 1usize << (geo.refcount_order - 3);
    (index as usize * width, value.to_be_bytes().get(8 - width..).unwrap_or_default().to_vec())
}

/// Sets the refcount number `index` of a block that is being made.
///
/// # Errors
/// It does not fit.
pub(super) fn put(block: &mut [u8], geo: Geometry, index: u64, value: u64) -> io::Result<()> {
    let bits = 1u32 << geo.refcount_order;
    if bits < 64 && value >> bits != 0 {
        return Err(eio());
    }
    let (at, new) = encode(block, geo, index, value);
    block.get_mut(at..at + new.len()).ok_or_else(eio)?.copy_from_slice(&new);
    Ok(())
}

impl Refcounts {
    /// Reads the table.
    ///
    /// # Errors
    /// It is not in the file, or the host cannot read it.
    pub fn load(geo: Geometry, host: &Host, at: u64, clusters: u32) -> io::Result<Self> {
        let bytes = host.read_all(at, u64::from(clusters) << geo.cluster_bits)?;
        let table: Vec<u64> = bytes.as_chunks::<8>().0.iter().map(|b| u64::from_be_bytes(*b)).collect();
        let (blocks, used) = (Cache::new(geo.cluster(), CACHE), HashMap::new());
        let mut refs =
            Self { geo, table, table_at: at, dirty: BTreeSet::new(), blocks, hint: 0, moved: None, torn: false, used };
        refs.claim(0, 1, Kind::Header)?;
        refs.claim(at, bytes.len() as u64, Kind::RefcountTable)?;
        let blocks: Vec<u64> = refs.table.iter().map(|e| e & REFBLOCK).filter(|e| *e != 0).collect();
        for block in blocks {
            refs.claim(block, 1, Kind::RefcountBlock)?;
        }
        Ok(refs)
    }

    /// Says what the clusters of a range are used for.
    ///
    /// # Errors
    /// They are used for something already, or do not begin at a cluster.
    pub fn claim(&mut self, at: u64, len: u64, kind: Kind) -> io::Result<()> {
        let end = at.checked_add(len).filter(|_| at.is_multiple_of(self.geo.cluster()));
        let end = end.ok_or_else(|| io::Error::other(format!("{kind:?} at {at:#x} is not at a cluster")))?;
        for n in at >> self.geo.cluster_bits..end.div_ceil(self.geo.cluster()) {
            if let Some(old) = self.used.insert(n, kind) {
                return Err(io::Error::other(format!("{kind:?} at {at:#x} overlaps {old:?}")));
            }
        }
        Ok(())
    }

    /// What a host cluster is used for; None: it may hold what a guest wrote.
    pub fn kind(&self, at: u64) -> Option<Kind> {
        self.used.get(&(at >> self.geo.cluster_bits)).copied()
    }

    fn block_of(&self, cluster: u64) -> (usize, u64) {
        let n = self.geo.refblock_entries();
        ((cluster / n) as usize, cluster % n)
    }

    fn block_at(&self, index: usize) -> u64 {
        self.table.get(index).map_or(0, |e| e & REFBLOCK)
    }

    /// The refcount of a cluster.
    ///
    /// # Errors
    /// Its block is not in the file, or the host cannot read it.
    pub fn refcount(&mut self, host: &Host, cluster: u64) -> io::Result<u64> {
        let (index, n) = self.block_of(cluster);
        match self.block_at(index) {
            0 => Ok(0),
            at => Ok(get(self.blocks.get(host, at)?.bytes(), self.geo, n)),
        }
    }

    /// Sets the refcount of a cluster whose block exists.
    ///
    /// # Errors
    /// As [`Refcounts::refcount`]; or it does not.
    pub fn set(&mut self, host: &Host, cluster: u64, value: u64) -> io::Result<()> {
        let (index, n) = self.block_of(cluster);
        let at = self.block_at(index);
        let bits = 1u32 << self.geo.refcount_order;
        if at == 0 || (bits < 64 && value >> bits != 0) {
            return Err(eio());
        }
        let table = self.blocks.get(host, at)?;
        let (byte, new) = encode(table.bytes(), self.geo, n, value);
        table.update(byte, &new);
        if value == 0 {
            self.hint = self.hint.min(cluster);
        }
        Ok(())
    }

    /// One user of a cluster less; what is left.
    ///
    /// # Errors
    /// There was none, or as [`Refcounts::refcount`].
    pub fn drop_one(&mut self, host: &Host, cluster: u64) -> io::Result<u64> {
        let left = self.refcount(host, cluster)?.checked_sub(1).ok_or_else(eio)?;
        self.set(host, cluster, left)?;
        Ok(left)
    }

    /// Takes a free cluster; where it is.
    ///
    /// # Errors
    /// The image cannot grow, its refcounts contradict its tables, or as the host says.
    pub fn alloc(&mut self, host: &Host) -> io::Result<u64> {
        self.finish_move(host)?;
        loop {
            let cluster = self.hint;
            let (index, _) = self.block_of(cluster);
            if self.block_at(index) == 0 {
                self.add_block(host, index)?;
                continue;
            }
            self.hint += 1;
            if self.refcount(host, cluster)? == 0 {
                if self.used.contains_key(&cluster) {
                    return Err(eio()); // a table in a cluster that nobody counted
                }
                self.set(host, cluster, 1)?;
                return Ok(cluster << self.geo.cluster_bits);
            }
        }
    }

    /// Takes `count` free clusters in a row.
    ///
    /// # Errors
    /// As [`Refcounts::alloc`].
    pub fn alloc_many(&mut self, host: &Host, count: u64) -> io::Result<u64> {
        let mut run = vec![];
        while (run.len() as u64) < count {
            let at = match self.alloc(host) {
                Ok(at) => at,
                Err(e) => {
                    self.give_back(host, &run)?;
                    return Err(e);
                }
            };
            if run.last().is_some_and(|last| last + self.geo.cluster() != at) {
                let skipped = std::mem::take(&mut run);
                let hint = self.hint;
                self.give_back(host, &skipped)?;
                self.hint = hint; // those were no use
            }
            run.push(at);
        }
        self.hint = 0;
        run.first().copied().ok_or_else(eio)
    }

    /// Takes back clusters that nothing refers to.
    ///
    /// # Errors
    /// As [`Refcounts::drop_one`].
    pub fn give_back(&mut self, host: &Host, clusters: &[u64]) -> io::Result<()> {
        for at in clusters {
            self.drop_one(host, at >> self.geo.cluster_bits)?;
        }
        Ok(())
    }

    /// Makes the block number `index`, in the first cluster that it counts.
    fn add_block(&mut self, host: &Host, index: usize) -> io::Result<()> {
        if index >= self.table.len() {
            return self.grow_table(host, index);
        }
        let first = index as u64 * self.geo.refblock_entries();
        self.put_block(index, first, 1)
    }

    /// Puts a new block at cluster `at`, and counts the first `taken` clusters of its range.
    fn put_block(&mut self, index: usize, at: u64, taken: u64) -> io::Result<()> {
        let offset = at << self.geo.cluster_bits;
        self.claim(offset, 1, Kind::RefcountBlock).map_err(|_| eio())?;
        let mut bytes = vec![0; self.geo.cluster() as usize];
        for n in 0..taken {
            put(&mut bytes, self.geo, n, 1)?;
        }
        self.blocks.insert(offset, bytes);
        *self.table.get_mut(index).ok_or_else(eio)? = offset;
        self.dirty.insert(index);
        Ok(())
    }

    /// Moves the table, which has no entry `index`, to a larger one: in clusters that the new entry is the first to count.
    fn grow_table(&mut self, host: &Host, index: usize) -> io::Result<()> {
        let (per_block, per_cluster) = (self.geo.refblock_entries(), self.geo.l2_entries());
        let clusters = (index as u64 + 1 + index as u64 / 2).div_ceil(per_cluster) + 1;
        if clusters << self.geo.cluster_bits > MAX_REFTABLE {
            return Err(io::Error::from_raw_os_error(libc::EFBIG));
        }
        // Blocks that count themselves and the new table.
        let mut blocks = 1;
        while blocks * per_block < blocks + clusters {
            blocks += 1;
        }
        let first = index as u64 * per_block;
        self.torn = true;
        let old = (self.table_at, self.table.len() as u64 * 8);
        self.table.resize((clusters * per_cluster) as usize, 0);
        for n in 0..blocks {
            let taken = (blocks + clusters).saturating_sub(n * per_block).min(per_block);
            self.put_block(index + n as usize, first + n, taken)?;
        }
        self.table_at = (first + blocks) << self.geo.cluster_bits;
        self.claim(self.table_at, clusters << self.geo.cluster_bits, Kind::RefcountTable).map_err(|_| eio())?;
        self.moved = Some(old);
        self.torn = false;
        self.finish_move(host)
    }

    /// Puts a table that has moved in the file: it and all blocks it names are stable before the header names it. Until that has
    /// worked, nothing else is written.
    fn finish_move(&mut self, host: &Host) -> io::Result<()> {
        if self.torn {
            return Err(eio());
        }
        let Some((old_at, old_len)) = self.moved else { return Ok(()) };
        self.blocks.write(host, false)?;
        let bytes: Vec<u8> = self.table.iter().flat_map(|e| e.to_be_bytes()).collect();
        host.write(self.table_at, &bytes)?;
        host.flush()?;
        let mut named = self.table_at.to_be_bytes().to_vec();
        named.extend(((bytes.len() as u64 >> self.geo.cluster_bits) as u32).to_be_bytes());
        host.write(AT_REFTABLE, &named)?;
        host.flush()?;
        self.moved = None;
        self.dirty.clear();
        for cluster in old_at >> self.geo.cluster_bits..(old_at + old_len) >> self.geo.cluster_bits {
            self.used.remove(&cluster);
            self.drop_one(host, cluster)?;
        }
        Ok(())
    }

    /// Whether anything differs from the file.
    pub fn is_dirty(&self) -> bool {
        !self.dirty.is_empty() || self.moved.is_some() || self.blocks.is_dirty()
    }

    /// Writes all that differs from the file; the table's entries only when what they name is stable. Whether there was any.
    ///
    /// # Errors
    /// As the host says; what was not written stays.
    pub fn write(&mut self, host: &Host) -> io::Result<bool> {
        self.finish_move(host)?;
        let any = self.blocks.write(host, false)?;
        if self.dirty.is_empty() {
            return Ok(any);
        }
        host.flush()?;
        for n in &self.dirty {
            let entry = self.table.get(*n).copied().unwrap_or(0);
            host.write(self.table_at + *n as u64 * 8, &entry.to_be_bytes())?;
        }
        self.dirty.clear();
        Ok(true)
    }
}
