//! The ops of a decoded page: runs, which are boxed slices, and where in them the op for an offset is.
//!
//! A guest's working set is some hundred thousand instructions, so what is known of one is kept small: six bytes beside its
//! op, sorted by offset.
#![expect(unsafe_code, reason = "ops are reached by pointer")]

use super::{env::Op, target::Target};
use std::ptr::NonNull;

/// An op, by its run and its place there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    run: u16,
    op: u16,
}
/// Where an offset is in a sorted list, or would be.
fn find(entries: &[(u16, Place)], off: u16) -> Result<usize, usize> {
    entries.binary_search_by_key(&off, |e| e.0)
}

/// The ops of a page.
pub(super) struct Runs<T: Target> {
    runs: Vec<NonNull<[Op<T>]>>,
    /// Where the op for an offset is, by offset.
    entries: Vec<(u16, Place)>,
    /// Branches that go to an offset which is not decoded yet.
    waiting: Vec<(u16, Place)>,
}
impl<T: Target> Runs<T> {
    /// No op.
    pub fn new() -> Runs<T> {
        Runs { runs: Vec::new(), entries: Vec::new(), waiting: Vec::new() }
    }
    /// Takes a run; its number.
    pub fn push(&mut self, ops: Box<[Op<T>]>) -> usize {
        let count = ops.len();
        let first = NonNull::new(Box::into_raw(ops).cast::<Op<T>>()).expect("a box");
        self.runs.push(NonNull::slice_from_raw_parts(first, count));
        self.runs.len() - 1
    }
    /// The place of an op of a run.
    ///
    /// # Panics
    /// There is none.
    pub fn place(&self, run: usize, op: usize) -> Place {
        assert!(op < self.runs[run].len(), "an op of the run");
        let small = |n| u16::try_from(n).expect("a page has 4096 offsets, a run some hundred ops");
        Place { run: small(run), op: small(op) }
    }
    /// The op at a place of this page.
    pub fn at(&self, p: Place) -> NonNull<Op<T>> {
        let run = self.runs[p.run as usize];
        assert!((p.op as usize) < run.len(), "a place of this page");
        // SAFETY: below the run's length.
        unsafe { run.cast::<Op<T>>().add(p.op.into()) }
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
        self.runs.iter().flat_map(|r| (0..r.len()).map(|n| r.as_ptr().cast::<Op<T>>().wrapping_add(n).cast_const()))
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
impl<T: Target> Drop for Runs<T> {
    fn drop(&mut self) {
        for r in &self.runs {
            // SAFETY: made by `Box::into_raw`; no handler runs and the jump cache was invalidated.
            drop(unsafe { Box::from_raw(r.as_ptr()) })
        }
    }
}
