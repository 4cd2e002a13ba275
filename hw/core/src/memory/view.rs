//! Flat views: the region tree of one address space turned into disjoint ranges.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::ops::Run;
use super::ram::RamBlock;
use super::region::{MemoryRegion, Rendered};

/// What answers in a range.
#[derive(Clone, Debug)]
pub enum RangeKind {
    /// Memory: reads and writes go straight to the block.
    Ram(Arc<RamBlock>),
    /// Memory that is read only.
    Rom(Arc<RamBlock>),
    /// Reads go to the block, writes to the handler.
    RomDevice(Arc<RamBlock>),
    /// The handler.
    Io,
}

/// A range of a view: one region answers all of it.
#[derive(Clone)]
pub struct FlatRange {
    /// First address.
    pub start: u64,
    /// Last address (inclusive, so that the end of 64 bits can be named).
    pub last: u64,
    /// Offset in the region of the first address.
    pub offset: u64,
    /// The region.
    pub region: MemoryRegion,
    /// What answers.
    pub kind: RangeKind,
    pub(crate) run: Option<Arc<dyn Run>>,
}

impl FlatRange {
    /// The block and the offset in it of `addr`, where reads go straight to memory.
    pub fn readable(&self, addr: u64) -> Option<(&Arc<RamBlock>, u64)> {
        match &self.kind {
            RangeKind::Ram(b) | RangeKind::Rom(b) | RangeKind::RomDevice(b) => Some((b, self.offset_of(addr))),
            RangeKind::Io => None,
        }
    }

    /// The block and the offset in it of `addr`, where writes go straight to memory.
    pub fn writable(&self, addr: u64) -> Option<(&Arc<RamBlock>, u64)> {
        match &self.kind {
            RangeKind::Ram(b) => Some((b, self.offset_of(addr))),
            _ => None,
        }
    }

    /// Offset in the region of `addr`, which lies in the range.
    pub fn offset_of(&self, addr: u64) -> u64 {
        addr.wrapping_sub(self.start).wrapping_add(self.offset)
    }

    fn same(&self, o: &FlatRange) -> bool {
        self.start == o.start && self.last == o.last && self.offset == o.offset && self.continues(o)
    }

    /// Same region in the same mode.
    fn continues(&self, o: &FlatRange) -> bool {
        self.region.is(&o.region)
            && std::mem::discriminant(&self.kind) == std::mem::discriminant(&o.kind)
            && self.run.is_some() == o.run.is_some()
    }
}

/// The ranges of an address space, sorted, disjoint, immutable.
#[derive(Clone, Default)]
pub struct FlatView {
    ranges: Vec<FlatRange>,
    /// Last addresses of the ranges, apart for the search.
    lasts: Vec<u64>,
    hints: Hints,
}

/// Length of tables that are looked up by [`slot`].
pub(super) const SLOTS: usize = 64;

/// A hash of an address, below [`SLOTS`]: neighbouring registers and ports seldom meet.
#[inline]
pub(super) fn slot(addr: u64) -> usize {
    (addr.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize % SLOTS // the golden ratio: Fibonacci hashing
}

/// Where the searches of late ended: the index of a range by the [`slot`] of the address. What stands there may be of another
/// address.
struct Hints([AtomicU32; SLOTS]);

impl Hints {
    #[inline]
    fn slot(&self, addr: u64) -> &AtomicU32 {
        #[expect(clippy::indexing_slicing, reason = "a slot is below the array's length")]
        &self.0[slot(addr)]
    }
}

impl Default for Hints {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU32::new(0)))
    }
}

impl Clone for Hints {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl FlatView {
    /// The ranges in ascending order.
    pub fn ranges(&self) -> &[FlatRange] {
        &self.ranges
    }

    /// The range that holds `addr`.
    #[inline]
    pub fn find(&self, addr: u64) -> Option<&FlatRange> {
        let hint = self.hints.slot(addr);
        match self.ranges.get(hint.load(Ordering::Relaxed) as usize) {
            Some(r) if r.start <= addr && addr <= r.last => Some(r),
            _ => self.search(addr, hint),
        }
    }

    #[inline(never)]
    fn search(&self, addr: u64, hint: &AtomicU32) -> Option<&FlatRange> {
        let i = self.lasts.partition_point(|l| *l < addr);
        let found = self.ranges.get(i).filter(|r| r.start <= addr)?;
        hint.store(i as u32, Ordering::Relaxed);
        Some(found)
    }

    /// First address above `addr` that a range holds.
    pub fn next_start(&self, addr: u64) -> Option<u64> {
        let i = self.lasts.partition_point(|l| *l < addr);
        self.ranges.get(i..)?.iter().map(|r| r.start).find(|s| *s > addr)
    }

    /// Whether both views answer every access alike.
    pub fn same(&self, o: &FlatView) -> bool {
        self.ranges.len() == o.ranges.len() && self.ranges.iter().zip(&o.ranges).all(|(a, b)| a.same(b))
    }

    /// Renders the tree below `root`.
    pub(super) fn of(root: &MemoryRegion) -> Self {
        let mut b = Builder::default();
        b.render(root, 0, (0, u128::from(u64::MAX)), false);
        b.finish()
    }
}

/// Collects ranges while the tree is walked, higher priorities first.
#[derive(Default)]
struct Builder {
    ranges: Vec<FlatRange>,
}

impl Builder {
    /// Renders `region`, placed at `base` (may be negative through an alias), clipped to `clip` (inclusive).
    fn render(&mut self, region: &MemoryRegion, base: i128, clip: (u128, u128), readonly: bool) {
        let s = region.state();
        if !s.enabled || s.size == 0 {
            return;
        }
        let base = base + i128::from(s.addr);
        let readonly = readonly || s.readonly;
        let (first, last) = (base, base + s.size as i128 - 1);
        let first = first.max(clip.0 as i128);
        let last = last.min(clip.1 as i128);
        if first > last {
            return;
        }
        let clip = (first as u128, last as u128);
        if let Some((target, offset)) = &s.alias {
            let at = base - i128::from(target.state().addr) - i128::from(*offset);
            return self.render(target, at, clip, readonly);
        }
        for child in &s.children {
            self.render(child, base, clip, readonly);
        }
        if let Some(Rendered { kind, run }) = region.rendered(&s, readonly) {
            let (start, last) = (clip.0 as u64, clip.1 as u64);
            let offset = (clip.0 as i128 - base) as u64;
            self.fill(FlatRange { start, last, offset, region: region.clone(), kind, run });
        }
    }

    /// Adds those parts of `r` that no range holds yet.
    fn fill(&mut self, mut r: FlatRange) {
        let mut i = self.ranges.partition_point(|o| o.last < r.start);
        loop {
            let next = self.ranges.get(i).map(|o| (o.start, o.last)).filter(|o| o.0 <= r.last);
            let Some((start, last)) = next else {
                self.ranges.insert(i, r);
                return;
            };
            if r.start < start {
                self.ranges.insert(i, FlatRange { last: start - 1, ..r.clone() });
                i += 1;
            }
            if last >= r.last {
                return;
            }
            r.offset = r.offset_of(last + 1);
            r.start = last + 1;
            i += 1;
        }
    }

    /// Joins neighbours of one region.
    fn finish(self) -> FlatView {
        let mut ranges: Vec<FlatRange> = Vec::with_capacity(self.ranges.len());
        for r in self.ranges {
            match ranges.last_mut() {
                Some(p) if p.last.wrapping_add(1) == r.start && p.offset_of(r.start) == r.offset && p.continues(&r) => {
                    p.last = r.last;
                }
                _ => ranges.push(r),
            }
        }
        FlatView { lasts: ranges.iter().map(|r| r.last).collect(), ranges, hints: Hints::default() }
    }
}
