//! Memory of decoded ops: cells of two sizes, so that of a dropped page whole pages of the host become free, and the next one
//! fits where it was.
#![expect(unsafe_code, reason = "memory by the slab")]

use super::env::discard;
use std::{
    alloc::{Layout, alloc, dealloc, handle_alloc_error},
    ptr::NonNull,
};

/// Sizes of cells, in bytes. Most pages need few ops: their first cell is small.
pub(super) const SIZES: [usize; 2] = [1 << 10, 1 << 12];
/// Memory is taken from the heap by this many bytes.
const SLAB: Layout = match Layout::from_size_align(1 << 17, 1 << 12) {
    Ok(l) => l,
    Err(_) => panic!("a size below its limit"),
};

/// Cells of all sizes.
#[derive(Default)]
pub(super) struct Cells {
    slabs: Vec<NonNull<u8>>,
    /// By size; the last is taken next.
    free: [Vec<NonNull<u8>>; SIZES.len()],
}
impl Cells {
    /// A cell of a size, by index. It is aligned to its size; what is in it may be anything.
    pub fn take(&mut self, size: usize) -> NonNull<u8> {
        let (free, bytes) = (&mut self.free[size], SIZES[size]);
        if free.is_empty() {
            // SAFETY: the layout is not empty.
            let slab = NonNull::new(unsafe { alloc(SLAB) }).unwrap_or_else(|| handle_alloc_error(SLAB));
            self.slabs.push(slab);
            // SAFETY: within the slab.
            free.extend((0..SLAB.size() / bytes).rev().map(|n| unsafe { slab.add(n * bytes) }))
        }
        free.pop().expect("there are some now")
    }
    /// Takes a cell back.
    ///
    /// # Safety
    /// It was taken with this size, and nobody uses it any more.
    pub unsafe fn give(&mut self, size: usize, cell: NonNull<u8>) {
        self.free[size].push(cell)
    }
    /// Gives the host the pages in which no cell is used.
    pub fn rest(&mut self) {
        for (free, bytes) in self.free.iter_mut().zip(SIZES) {
            free.sort_unstable_by(|a, b| b.cmp(a));
            for run in free.chunk_by(|a, b| a.addr().get() - bytes == b.addr().get()) {
                let Some(first) = run.last() else { continue };
                // SAFETY: cells that nobody uses, one behind the other.
                unsafe { discard(std::ptr::slice_from_raw_parts_mut(first.as_ptr(), run.len() * bytes)) }
            }
        }
    }
}
impl Drop for Cells {
    fn drop(&mut self) {
        for s in &self.slabs {
            // SAFETY: allocated with this layout; pages whose ops are there went before.
            unsafe { dealloc(s.as_ptr(), SLAB) }
        }
    }
}
// SAFETY: plain memory, which is nobody else's.
unsafe impl Send for Cells {}
