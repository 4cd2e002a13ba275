//! Dirty bitmaps of a RAM block: one bit per 4 KiB page and client.
//!
//! A set bit means "written since the client last looked". For [`DirtyClient::Code`] a clear bit means that the page holds
//! decoded instructions: a store to it must be told to the code watcher.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

/// Size of the pages that bits stand for.
pub const PAGE: u64 = 4096;

/// Who wants to know about stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DirtyClient {
    /// The accelerator's decoded and compiled code.
    Code,
    /// Display adapters: which lines to draw again.
    Vga,
    /// Snapshots taken while the machine runs.
    Migration,
}

/// The clients, in the order of their bitmaps.
pub const CLIENTS: [DirtyClient; 3] = [DirtyClient::Code, DirtyClient::Vga, DirtyClient::Migration];

/// One client's bits.
#[derive(Debug)]
pub(super) struct Bitmap(Vec<AtomicU64>);

impl Bitmap {
    /// `pages` bits, all set.
    pub(super) fn new(pages: u64) -> Self {
        Self((0..pages.div_ceil(64)).map(|_| AtomicU64::new(u64::MAX)).collect())
    }

    fn word(&self, page: u64) -> Option<&AtomicU64> {
        usize::try_from(page / 64).ok().and_then(|i| self.0.get(i))
    }

    pub(super) fn get(&self, page: u64) -> bool {
        self.word(page).is_some_and(|w| w.load(Ordering::Acquire) >> (page % 64) & 1 != 0)
    }

    /// Whether every page of the range is dirty.
    pub(super) fn all(&self, pages: Range<u64>) -> bool {
        pages.into_iter().all(|p| self.get(p))
    }

    /// Sets a range, a word at a time; words that are set already are not written.
    pub(super) fn set(&self, pages: Range<u64>) {
        self.for_words(pages, |w, mask| {
            if w.load(Ordering::Relaxed) & mask != mask {
                w.fetch_or(mask, Ordering::AcqRel);
            }
        });
    }

    pub(super) fn clear(&self, pages: Range<u64>) {
        self.for_words(pages, |w, mask| _ = w.fetch_and(!mask, Ordering::AcqRel));
    }

    /// Takes the dirty pages of a range and clears them.
    pub(super) fn take(&self, pages: Range<u64>) -> Vec<u64> {
        let mut dirty = vec![];
        let mut at = pages.start / 64 * 64;
        self.for_words(pages, |w, mask| {
            let mut set = w.fetch_and(!mask, Ordering::AcqRel) & mask;
            while set != 0 {
                dirty.push(at + u64::from(set.trailing_zeros()));
                set &= set - 1;
            }
            at += 64;
        });
        dirty
    }

    fn for_words(&self, pages: Range<u64>, mut f: impl FnMut(&AtomicU64, u64)) {
        let mut page = pages.start;
        while page < pages.end {
            let stop = pages.end.min(page / 64 * 64 + 64);
            let (low, count) = (page % 64, stop - page);
            let mask = if count == 64 { u64::MAX } else { ((1 << count) - 1) << low };
            if let Some(w) = self.word(page) {
                f(w, mask);
            }
            page = stop;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taking_returns_each_dirty_page_once() {
        let b = Bitmap::new(200);
        assert_eq!(b.take(0..200).len(), 200);
        b.set(60..70);
        b.set(199..200);
        assert!(b.all(60..70) && !b.all(59..70));
        assert_eq!(b.take(63..200), [63, 64, 65, 66, 67, 68, 69, 199]);
        assert_eq!(b.take(0..200), [60, 61, 62]);
        assert!(!b.get(1_000_000));
    }
}
