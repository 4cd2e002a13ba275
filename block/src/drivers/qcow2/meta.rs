//! The tables of an open image, and the order in which they reach the file.
//!
//! Tables change in memory first. [`Meta::commit`] writes them so that the file is consistent at every moment, whatever of the writes between
//! two flushes gets through:
//!
//! 1. refcounts that went up, and new L2 tables (nothing refers to them yet); flush — which also makes the guest's data stable;
//! 2. the refcount table's new entries; flush;
//! 3. L2 entries, and L1 entries with the new tables they name; flush;
//! 4. only now do refcounts of what is not referred to any more go down, in memory: they are written by the next commit, and until then nobody
//!    gets those clusters.
//!
//! A crash thus leaks clusters at worst.

use super::cache::Cache;
use super::geometry::{COPIED, Geometry, OFFSET, eio};
use super::header::{AT_L1, AT_SIZE, Header, MAX_L1};
use super::host::Host;
use super::refcounts::{Kind, Refcounts};
use std::collections::BTreeSet;
use std::io;

/// Clusters that wait to be counted down, at most; then a commit comes by itself.
const MAX_FREES: usize = 1 << 16;

/// A host cluster that lost a reference.
#[derive(Clone, Copy, Debug)]
pub(super) struct Free {
    pub at: u64,
    /// The guest said that the contents do not matter: the host gets the space back.
    pub discard: bool,
}

/// The tables of an image that is open for writing, or for reading (without refcounts).
#[derive(Debug)]
pub(super) struct Meta {
    pub geo: Geometry,
    pub size: u64,
    l1: Vec<u64>,
    l1_at: u64,
    /// Entries that differ from the file.
    l1_dirty: BTreeSet<usize>,
    l2: Cache,
    refs: Option<Refcounts>,
    frees: Vec<Free>,
    /// Refcounts and tables contradict each other: nothing is written any more.
    broken: bool,
}

impl Meta {
    /// Reads the L1 table, and for writing the refcount table. `limit`: bytes of L2 tables to keep.
    ///
    /// # Errors
    /// A table is not in the file, overlaps another (for writing), or the host cannot read it.
    pub fn load(h: &Header, host: &Host, limit: u64, write: bool) -> io::Result<Self> {
        let geo = h.geometry();
        let bytes = host.read_all(h.l1_offset, u64::from(h.l1_size) * 8)?;
        let l1: Vec<u64> = bytes.as_chunks::<8>().0.iter().map(|b| u64::from_be_bytes(*b)).collect();
        let refs = if write {
            let mut refs = Refcounts::load(geo, host, h.reftable_offset, h.reftable_clusters)?;
            refs.claim(h.l1_offset, bytes.len() as u64, Kind::L1)?;
            for entry in l1.iter().filter(|e| *e & OFFSET != 0) {
                refs.claim(entry & OFFSET, 1, Kind::L2)?;
            }
            Some(refs)
        } else {
            None
        };
        let l2 = Cache::new(geo.cluster(), limit);
        Ok(Self {
            geo,
            size: h.size,
            l1,
            l1_at: h.l1_offset,
            l1_dirty: BTreeSet::new(),
            l2,
            refs,
            frees: vec![],
            broken: false,
        })
    }

    /// The refcounts, for writing.
    ///
    /// # Errors
    /// The image is open for reading, or broken.
    pub fn refs(&mut self) -> io::Result<&mut Refcounts> {
        match &mut self.refs {
            Some(refs) if !self.broken => Ok(refs),
            _ => Err(eio()),
        }
    }

    /// Nothing is written any more.
    pub fn give_up(&mut self) {
        self.broken = true;
    }

    /// Where the L2 table of a guest cluster is (0: nowhere), and its number.
    pub fn l2_at(&self, guest: u64) -> (u64, usize) {
        let (i1, _) = self.geo.indices(guest);
        (self.l1.get(i1).map_or(0, |e| e & OFFSET), i1)
    }

    /// The L2 entry of a guest cluster.
    ///
    /// # Errors
    /// Its table is not in the file, or the host cannot read it.
    pub fn entry(&mut self, host: &Host, guest: u64) -> io::Result<u64> {
        let (i1, i2) = self.geo.indices(guest);
        match self.l1.get(i1).map_or(0, |e| e & OFFSET) {
            0 => Ok(0),
            at => Ok(self.l2.get(host, at)?.entry(i2)),
        }
    }

    /// Whether the guest clusters that one L2 table maps have none; the end of its span.
    pub fn l2_missing(&self, guest: u64) -> (bool, u64) {
        let (i1, _) = self.geo.indices(guest);
        let missing = self.l1.get(i1).is_none_or(|e| e & OFFSET == 0);
        (missing, (i1 as u64 + 1).saturating_mul(self.geo.l2_span()))
    }

    /// Sets the L2 entry of a guest cluster. The L2 table gets into a cluster of its own first, if others refer to it.
    ///
    /// # Errors
    /// No room, contradictions, or as the host says; nothing has changed then.
    pub fn set_entry(&mut self, host: &Host, guest: u64, entry: u64) -> io::Result<()> {
        let (i1, i2) = self.geo.indices(guest);
        let l1 = *self.l1.get(i1).ok_or_else(eio)?;
        let old = l1 & OFFSET;
        if old != 0 && l1 & COPIED != 0 {
            self.l2.get(host, old)?.set_entry(i2, entry);
            return Ok(());
        }
        let mut bytes = vec![0; self.geo.cluster() as usize];
        if old != 0 {
            bytes.copy_from_slice(self.l2.get(host, old)?.bytes());
        }
        let new = self.refs()?.alloc(host)?;
        self.refs()?.claim(new, 1, Kind::L2).map_err(|_| eio())?;
        self.l2.insert(new, bytes);
        self.l2.get(host, new)?.set_entry(i2, entry);
        if let Some(slot) = self.l1.get_mut(i1) {
            *slot = new | COPIED;
        }
        self.l1_dirty.insert(i1);
        if old != 0 {
            self.forget_l2(old)?;
        }
        Ok(())
    }

    /// An L2 table of ours is one no more.
    fn forget_l2(&mut self, at: u64) -> io::Result<()> {
        let cluster = at >> self.geo.cluster_bits;
        self.refs()?.used.remove(&cluster);
        self.l2.remove(at);
        self.frees.push(Free { at, discard: false });
        Ok(())
    }

    /// Takes a host cluster for guest data.
    ///
    /// # Errors
    /// As [`Refcounts::alloc`].
    pub fn alloc(&mut self, host: &Host) -> io::Result<u64> {
        self.refs()?.alloc(host)
    }

    /// A cluster lost a reference: it is counted down when the file says so.
    pub fn free(&mut self, free: Free) {
        self.frees.push(free);
    }

    /// Whether it is time for a commit that nobody asked for.
    pub fn is_full(&self) -> bool {
        self.frees.len() >= MAX_FREES || self.l2.is_full() || self.refs.as_ref().is_some_and(|r| r.blocks.is_full())
    }

    /// Whether anything differs from the file.
    pub fn is_dirty(&self) -> bool {
        !self.frees.is_empty()
            || !self.l1_dirty.is_empty()
            || self.l2.is_dirty()
            || self.refs.as_ref().is_some_and(Refcounts::is_dirty)
    }

    /// Writes all that differs from the file, in the order above; `data`: what holds the guest's clusters if that is another file.
    /// Clusters that the host gets back are handed to `discard`.
    ///
    /// # Errors
    /// As the host says; what was not written stays, and the next commit goes on with it.
    pub fn commit(&mut self, host: &Host, data: Option<&Host>, discard: &dyn Fn(u64)) -> io::Result<()> {
        if self.refs.is_none() || !self.is_dirty() {
            return Ok(());
        }
        self.refs()?.write(host)?;
        self.l2.write(host, true)?;
        if let Some(data) = data {
            data.flush()?;
        }
        host.flush()?;
        let mut any = self.l2.write(host, false)?;
        while let Some(n) = self.l1_dirty.first().copied() {
            let entry = self.l1.get(n).copied().unwrap_or(0);
            host.write(self.l1_at + n as u64 * 8, &entry.to_be_bytes())?;
            self.l1_dirty.remove(&n);
            any = true;
        }
        if any {
            host.flush()?;
        }
        for free in std::mem::take(&mut self.frees) {
            let cluster = free.at >> self.geo.cluster_bits;
            match self.refs()?.drop_one(host, cluster) {
                Ok(0) if free.discard => discard(free.at),
                Ok(_) => {}
                Err(e) => {
                    self.broken = true;
                    return Err(e);
                }
            }
        }
        Ok(())
    }

    /// Changes the size. Clusters beyond a smaller one must be gone already.
    ///
    /// # Errors
    /// Too large, no room, or as the host says.
    pub fn resize(&mut self, host: &Host, data: Option<&Host>, size: u64) -> io::Result<()> {
        let entries = self.geo.l1_entries(size).filter(|n| n * 8 <= MAX_L1);
        let entries = entries.ok_or_else(|| io::Error::from_raw_os_error(libc::EFBIG))? as usize;
        if entries > self.l1.len() {
            self.grow_l1(host, data, entries)?;
        }
        let first_gone = self.geo.l1_entries(size).unwrap_or(0) as usize;
        for n in first_gone..self.l1.len() {
            let Some(slot) = self.l1.get_mut(n) else { break };
            let old = *slot & OFFSET;
            if old != 0 {
                *slot = 0;
                self.l1_dirty.insert(n);
                self.forget_l2(old)?;
            }
        }
        self.commit(host, data, &|_| ())?;
        host.write(AT_SIZE, &size.to_be_bytes())?;
        host.flush()?;
        self.size = size;
        Ok(())
    }

    fn grow_l1(&mut self, host: &Host, data: Option<&Host>, entries: usize) -> io::Result<()> {
        let (cluster, bits) = (self.geo.cluster(), self.geo.cluster_bits);
        let clusters = (entries as u64 * 8).div_ceil(cluster);
        let at = self.refs()?.alloc_many(host, clusters)?;
        let mut l1 = self.l1.clone();
        l1.resize(entries, 0);
        let taken: Vec<u64> = (0..clusters).map(|n| at + n * cluster).collect();
        let mut moved = || -> io::Result<()> {
            // L2 tables that no old entry names must be in the file before the new table names them.
            self.commit(host, data, &|_| ())?;
            self.refs()?.write(host)?;
            let mut bytes: Vec<u8> = l1.iter().flat_map(|e| e.to_be_bytes()).collect();
            bytes.resize((clusters * cluster) as usize, 0);
            host.write(at, &bytes)?;
            host.flush()
        };
        if let Err(e) = moved() {
            self.refs()?.give_back(host, &taken)?;
            return Err(e);
        }
        let mut named = (entries as u32).to_be_bytes().to_vec();
        named.extend(at.to_be_bytes());
        if let Err(e) = host.write(AT_L1, &named).and_then(|()| host.flush()) {
            self.broken = true; // which of the two tables counts is not known
            return Err(e);
        }
        let (old_at, old_len) = (self.l1_at, self.l1.len() as u64 * 8);
        for n in old_at >> bits..(old_at + old_len).div_ceil(cluster) {
            self.refs()?.used.remove(&n);
            self.frees.push(Free { at: n << bits, discard: false });
        }
        (self.l1, self.l1_at) = (l1, at);
        self.l1_dirty.clear();
        self.refs()?.claim(at, clusters * cluster, Kind::L1).map_err(|_| eio())
    }
}
