//! Room for other code: which decoded pages and regions are used, and which go.
//!
//! A block's entry counts down the heat of its op, in tier 0 and in quick code, so a page whose heat is what it was at the last
//! look has not been used since, unless a region of it was; regions are marked as their ops enter them, and a look makes them
//! be entered that way once. So use is noticed at no cost while code runs. What has been unused for the most looks goes first;
//! of those, what was made first.
//!
//! Quick code goes with its page, ops included: its blocks jump to each other.

use super::{super::jit::EVICTED, *};
use std::cmp::Reverse;

/// What there must be room for.
#[derive(Clone, Copy)]
pub(crate) enum Room {
    /// Code in the code cache: a part of the quick code goes.
    Code,
    /// Ops: all pages together shall take less than so many bytes.
    Decoded(usize),
}

/// The part of the limit by which decoded pages grow until it is looked again which are used.
const LOOKS: usize = 8;
/// What was compiled to be made differently need not be entered so often once more: one time in so many.
const SOONER: u16 = 64;
/// Bytes kept beside an op.
const OP_KEPT: usize = 6;

impl<T: Target> Page<T> {
    /// Takes a run and counts its bytes in those of the page and of all; the place of its first op.
    pub(super) fn push(&mut self, ops: &[Op<T>], cells: &mut Cells, all: &mut usize, looped: &mut Looped<T>) -> Place {
        let (first, bytes) = self.ops.push(cells, ops);
        let bytes = bytes + ops.len() * OP_KEPT;
        self.bytes += bytes;
        *all += bytes;
        // SAFETY: the ops just taken, which nobody else knows of.
        pause(looped, unsafe { std::slice::from_raw_parts_mut(self.ops.at(first).as_ptr(), ops.len()) });
        first
    }
    /// Notes whether it was used since the last look.
    fn look(&mut self) {
        // SAFETY: live ops, and no handler runs.
        let heat = self.ops.iter().map(|(_, op)| u64::from(unsafe { op.as_ref() }.heat)).sum();
        let used = std::mem::replace(&mut self.heat, heat) != heat || self.attached.iter().any(|r| r.is_young());
        self.age = if used { 0 } else { self.age.saturating_add(1) }
    }
    #[cfg(target_arch = "x86_64")]
    fn quick_bytes(&self) -> usize {
        self.pieces.bytes()
    }
    #[cfg(not(target_arch = "x86_64"))]
    fn quick_bytes(&self) -> usize {
        0
    }
}
impl<T: Target> Pages<T> {
    /// Decoded pages, and bytes kept of them.
    pub fn size(&self) -> (u64, u64) {
        (self.map.len() as u64, self.bytes as u64)
    }
    /// There is more than there may be; or so much that it is time to look what is used.
    pub fn is_large(&mut self, group: &Group) -> bool {
        if self.bytes < self.next_look {
            return false;
        }
        let limit = group.decoded_limit();
        self.next_look = self.bytes + limit / LOOKS;
        if self.bytes <= limit {
            self.look()
        }
        self.bytes > limit
    }
    /// Notes which pages were used since the last look.
    pub fn look(&mut self) {
        self.map.values_mut().for_each(|p| p.look())
    }
    /// Drops the pages that have been unused for longest; how many. `forget` as for [`drop_page`](Self::drop_page).
    pub fn shed(&mut self, room: Room, mut forget: impl FnMut(usize)) -> u64 {
        let size = |p: &Page<T>| match room {
            Room::Code => p.quick_bytes(),
            Room::Decoded(_) => p.bytes,
        };
        let pages = self.map.iter().map(|(key, p)| ((Reverse(p.age), p.number), *key, size(p)));
        let mut pages: Vec<_> = pages.filter(|p| p.2 != 0).collect();
        pages.sort_unstable_by_key(|p| p.0);
        let total: usize = pages.iter().map(|p| p.2).sum();
        let mut goal = match room {
            Room::Code => total.div_ceil(EVICTED),
            Room::Decoded(limit) => total.saturating_sub(limit - limit / EVICTED),
        };
        let mut gone = 0;
        for (_, key, size) in pages {
            if goal == 0 {
                break;
            }
            goal = goal.saturating_sub(size);
            gone += u64::from(self.drop_one(key, &mut forget))
        }
        let (map, modes) = (&self.map, &self.modes);
        self.followers.retain(|_, list| {
            list.retain(|&host| modes.iter().any(|&m| map.contains_key(&(host, m))));
            !list.is_empty()
        });
        self.next_look = 0;
        gone
    }
    /// Detaches regions that were evicted; those that are to be made differently are soon asked for again. Says where their code was, of
    /// which the caller rids the jump cache.
    pub fn detach_evicted(&mut self, retired: bool) -> Vec<*const u8> {
        let heat = self.jit.as_ref().map_or(0, |j| j.0.config.threshold);
        let heat = if retired { heat.div_ceil(SOONER) } else { heat };
        let mut code = Vec::new();
        for page in self.map.values_mut().filter(|p| p.attached.iter().any(|r| r.is_evicted())) {
            page.heads.retain(|_, (r, _)| !r.is_evicted());
            page.patched.retain(|&op| {
                // SAFETY: the page holds the region still.
                let gone = self.patched.get(&op).is_none_or(|p| unsafe { &*p.region }.is_evicted());
                if gone && let Some(p) = self.patched.remove(&op) {
                    // SAFETY: a live op, and no handler runs.
                    let o = unsafe { &mut *op.cast_mut() };
                    o.heat = heat;
                    match &mut self.looped {
                        Some(l) => _ = l.insert(op, p.run),
                        None => o.run = p.run,
                    }
                    #[cfg(target_arch = "x86_64")]
                    if let Some(quick) = &self.quick {
                        page.pieces.no_region(&quick.common, o.off & 0xfff)
                    }
                }
                !gone
            });
            code.extend(page.attached.iter().filter(|r| r.is_evicted()).map(|r| r.code()));
            page.attached.retain(|r| !r.is_evicted())
        }
        code
    }
}
