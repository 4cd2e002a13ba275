//! Tables of one cluster each (L2 tables, refcount blocks) as memory holds them: in the form they have in the file, with the pages
//! that differ from it.

use super::geometry::eio;
use super::header::be64;
use super::host::Host;
use std::collections::{BTreeSet, HashMap};
use std::io;

/// What is written as one piece.
const PAGE: usize = 4096;

/// One table.
#[derive(Debug)]
pub(super) struct Table {
    bytes: Vec<u8>,
    /// Pages that differ from the file.
    dirty: BTreeSet<usize>,
    /// Nothing in the file refers to it yet.
    fresh: bool,
    used: u64,
}

impl Table {
    /// A number of eight bytes.
    pub fn entry(&self, n: usize) -> u64 {
        be64(&self.bytes, n * 8)
    }

    /// Sets it.
    pub fn set_entry(&mut self, n: usize, value: u64) {
        self.update(n * 8, &value.to_be_bytes());
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Changes bytes, none of which cross a page.
    pub fn update(&mut self, at: usize, new: &[u8]) {
        if let Some(old) = self.bytes.get_mut(at..at + new.len()) {
            old.copy_from_slice(new);
            self.dirty.insert(at / PAGE);
        }
    }

    fn write(&mut self, host: &Host, at: u64) -> io::Result<()> {
        if self.fresh {
            host.write(at, &self.bytes)?;
        } else {
            for page in &self.dirty {
                let start = page * PAGE;
                let part = self.bytes.get(start..self.bytes.len().min(start + PAGE)).unwrap_or_default();
                host.write(at + start as u64, part)?;
            }
        }
        self.dirty.clear();
        self.fresh = false;
        Ok(())
    }
}

/// Tables by where they are.
#[derive(Debug)]
pub(super) struct Cache {
    tables: HashMap<u64, Table>,
    cluster: u64,
    /// Most tables to keep.
    limit: usize,
    clock: u64,
}

impl Cache {
    /// A cache of at most `limit` bytes, or two tables.
    pub fn new(cluster: u64, limit: u64) -> Self {
        Self { tables: HashMap::new(), cluster, limit: (limit / cluster).max(2) as usize, clock: 0 }
    }

    /// The table at `at`.
    ///
    /// # Errors
    /// It is not at a cluster of the file, or the host cannot read it.
    pub fn get(&mut self, host: &Host, at: u64) -> io::Result<&mut Table> {
        self.clock += 1;
        if !self.tables.contains_key(&at) {
            if !at.is_multiple_of(self.cluster) || at == 0 || !host.contains(at, 1)? {
                return Err(eio());
            }
            let mut bytes = vec![0; self.cluster as usize];
            host.read(at, &mut bytes)?;
            self.make_room();
            self.tables.insert(at, Table { bytes, dirty: BTreeSet::new(), fresh: false, used: 0 });
        }
        let table = self.tables.get_mut(&at).ok_or_else(eio)?;
        table.used = self.clock;
        Ok(table)
    }

    /// Puts a new table, which nothing refers to yet.
    pub fn insert(&mut self, at: u64, bytes: Vec<u8>) {
        self.clock += 1;
        self.make_room();
        self.tables.insert(at, Table { bytes, dirty: BTreeSet::from([0]), fresh: true, used: self.clock });
    }

    /// Forgets a table that is none any more.
    pub fn remove(&mut self, at: u64) {
        self.tables.remove(&at);
    }

    /// Lets go of tables that are as in the file, the oldest first, while there are too many.
    fn make_room(&mut self) {
        while self.tables.len() >= self.limit {
            let clean = self.tables.iter().filter(|(_, t)| t.dirty.is_empty());
            let Some(at) = clean.min_by_key(|(_, t)| t.used).map(|(at, _)| *at) else { return };
            self.tables.remove(&at);
        }
    }

    /// Whether most of the room is taken by tables that differ from the file.
    pub fn is_full(&self) -> bool {
        self.tables.len() >= self.limit && self.dirty() * 2 >= self.limit
    }

    fn dirty(&self) -> usize {
        self.tables.values().filter(|t| !t.dirty.is_empty()).count()
    }

    /// Whether any differs from the file.
    pub fn is_dirty(&self) -> bool {
        self.tables.values().any(|t| !t.dirty.is_empty())
    }

    /// Writes what differs: `fresh`: only tables nothing refers to yet. Whether there was any.
    ///
    /// # Errors
    /// The host does not take it; what was not written stays.
    pub fn write(&mut self, host: &Host, fresh: bool) -> io::Result<bool> {
        let wanted = |t: &Table| !t.dirty.is_empty() && (t.fresh || !fresh);
        let mut order: Vec<u64> = self.tables.iter().filter(|(_, t)| wanted(t)).map(|(at, _)| *at).collect();
        order.sort_unstable();
        for at in &order {
            if let Some(table) = self.tables.get_mut(at) {
                table.write(host, *at)?;
            }
        }
        Ok(!order.is_empty())
    }
}
