//! The ops of a decoded page: runs, which are neighbours in a cell of memory, and where the op for an offset is.
//!
//! A guest's working set is some hundred thousand instructions, so what is known of one is kept small: six bytes beside its
//! op, sorted by offset.
#![expect(unsafe_code, reason = "ops are reached by pointer")]

use super::{
    cells::{Cells, SIZES},
    env::Op,
    target::Target,
};
use std::ptr::NonNull;

/// An op, by its cell and its place there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    cell: u16,
    op: u16,
}
impl Place {
    /// The op so many behind it in its run.
    pub fn after(self, n: usize) -> Place {
        Place { op: self.op + n as u16, ..self }
    }
}
/// Where an offset is in a sorted list, or would be.
fn find(entries: &[(u16, Place)], off: u16) -> Result<usize, usize> {
    entries.binary_search_by_key(&off, |e| e.0)
}

/// Ops that are neighbours.
struct Cell<T: Target> {
    first: NonNull<Op<T>>,
    size: usize,
    used: usize,
}
impl<T: Target> Cell<T> {
    const ROOM: [usize; SIZES.len()] = [SIZES[0] / size_of::<Op<T>>(), SIZES[1] / size_of::<Op<T>>()];
    fn room(&self) -> usize {
        Self::ROOM[self.size] - self.used
    }
}

/// The ops of a page.
pub(super) struct Runs<T: Target> {
    cells: Vec<Cell<T>>,
    /// Where the op for an offset is, by offset.
    entries: Vec<(u16, Place)>,
    /// Branches that go to an offset which is not decoded yet.
    waiting: Vec<(u16, Place)>,
}
impl<T: Target> Runs<T> {
    /// Most ops of a run.
    pub const LONGEST: usize = Cell::<T>::ROOM[1];
    /// No op.
    pub fn new() -> Runs<T> {
        Runs { cells: Vec::new(), entries: Vec::new(), waiting: Vec::new() }
    }
    /// Takes a run: the place of its first op, and bytes of memory that were needed.
    ///
    /// # Panics
    /// It is longer than [`LONGEST`](Self::LONGEST).
    pub fn push(&mut self, memory: &mut Cells, ops: &[Op<T>]) -> (Place, usize) {
        assert!(ops.len() <= Self::LONGEST, "ops that fit into a cell");
        let (i, bytes) = match self.cells.iter().position(|c| c.room() >= ops.len()) {
            Some(i) => (i, 0),
            None => {
                let size = usize::from(!self.cells.is_empty() || ops.len() > Cell::<T>::ROOM[0]);
                self.cells.push(Cell { first: memory.take(size).cast(), size, used: 0 });
                (self.cells.len() - 1, SIZES[size])
            }
        };
        let cell = &mut self.cells[i];
        let place = Place { cell: u16::try_from(i).expect("a page has 4096 offsets"), op: cell.used as u16 };
        // SAFETY: there is room for them, which nobody has used.
        unsafe { cell.first.add(cell.used).copy_from_nonoverlapping(NonNull::from(ops).cast(), ops.len()) }
        cell.used += ops.len();
        (place, bytes)
    }
    /// Gives the memory of all ops back.
    ///
    /// # Safety
    /// It is of this memory. Nobody uses the ops any more.
    pub unsafe fn release(&mut self, memory: &mut Cells) {
        self.entries.clear();
        self.waiting.clear();
        for c in self.cells.drain(..) {
            // SAFETY: as demanded of the caller.
            unsafe { memory.give(c.size, c.first.cast()) }
        }
    }
    /// The op at a place of this page.
    pub fn at(&self, p: Place) -> NonNull<Op<T>> {
        let cell = &self.cells[p.cell as usize];
        assert!((p.op as usize) < cell.used, "a place of this page");
        // SAFETY: below what is used.
        unsafe { cell.first.add(p.op.into()) }
    }
    /// The op for an offset.
    pub fn get(&self, off: u16) -> Option<NonNull<Op<T>>> {
        Some(self.at(self.entries[find(&self.entries, off).ok()?].1))
    }
    /// There is an op for an offset.
    pub fn has(&self, off: u16) -> bool {
        find(&self.entries, off).is_ok()
    }
    /// All offsets with an op, in order.
    pub fn iter(&self) -> impl Iterator<Item = (u16, NonNull<Op<T>>)> {
        self.entries.iter().map(|&(off, p)| (off, self.at(p)))
    }
    /// All ops, those without an instruction included.
    pub fn all(&self) -> impl Iterator<Item = *const Op<T>> {
        self.cells.iter().flat_map(|c| (0..c.used).map(|n| c.first.as_ptr().wrapping_add(n).cast_const()))
    }
    /// Says where the ops for offsets are, which ascend.
    pub fn insert(&mut self, new: &[(u16, Place)]) {
        let (Some(first), Some(last)) = (new.first(), new.last()) else { return };
        let entries = &mut self.entries;
        if entries.capacity() - entries.len() < new.len() {
            // (Little is kept free: most pages never grow again.)
            entries.reserve_exact(new.len().max(entries.len() / 4))
        }
        match find(entries, first.0) {
            // Between two neighbours, nearly always: instructions seldom overlap.
            Err(i) if entries.get(i).is_none_or(|e| e.0 > last.0) => _ = entries.splice(i..i, new.iter().copied()),
            _ => {
                for &(off, p) in new {
                    match find(entries, off) {
                        Ok(i) => entries[i].1 = p,
                        Err(i) => entries.insert(i, (off, p)),
                    }
                }
            }
        }
    }
    /// A branch goes to an offset that is not decoded: once it is, [`settle`](Self::settle) says so.
    pub fn wait(&mut self, off: u16, branch: Place) {
        self.waiting.push((off, branch))
    }
    /// Branches that wait for offsets that have an op now: branch and op. They wait no longer.
    pub fn settle(&mut self, mut f: impl FnMut(NonNull<Op<T>>, NonNull<Op<T>>)) {
        let mut waiting = std::mem::take(&mut self.waiting);
        waiting.retain(|&(off, branch)| match self.get(off) {
            Some(op) => {
                f(self.at(branch), op);
                false
            }
            None => true,
        });
        self.waiting = waiting
    }
}
