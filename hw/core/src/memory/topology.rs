//! Memory transactions: changes of region trees take effect together, when the outermost transaction ends.

use std::sync::{Arc, Weak};

use super::region::MemoryRegion;
use super::space::{AddressSpace, SpaceInner};
use super::view::FlatView;
use crate::locked::Locked;

/// The transaction in progress, and the machine's address spaces.
#[derive(Default)]
pub(crate) struct Topology {
    depth: u32,
    pending: bool,
    pub(super) spaces: Vec<Weak<SpaceInner>>,
}

impl Topology {
    /// Something changed: the outermost commit makes new views.
    pub(super) fn changed(&mut self) {
        self.pending = true;
    }
}

impl Locked {
    /// Runs `f`; changes of memory regions made in it take effect when the outermost transaction ends.
    pub fn memory_transaction<R>(&mut self, f: impl FnOnce(&mut Locked) -> R) -> R {
        self.memory_begin();
        let r = f(self);
        self.memory_commit();
        r
    }

    /// The machine's live address spaces.
    pub fn all_spaces(&self) -> Vec<AddressSpace> {
        self.topology.spaces.iter().filter_map(Weak::upgrade).map(AddressSpace::from).collect()
    }

    /// Opens a memory transaction; [`Locked::memory_commit`] closes it.
    pub fn memory_begin(&mut self) {
        self.topology.depth += 1;
    }

    /// Closes a memory transaction; the outermost one makes new views of what changed.
    pub fn memory_commit(&mut self) {
        self.topology.depth = self.topology.depth.saturating_sub(1);
        if self.topology.depth != 0 || !std::mem::take(&mut self.topology.pending) {
            return;
        }
        self.topology.spaces.retain(|s| s.strong_count() != 0);
        let spaces: Vec<Arc<SpaceInner>> = self.topology.spaces.iter().filter_map(Weak::upgrade).collect();
        // Spaces that see the same tree share one view.
        let mut made: Vec<(MemoryRegion, Arc<FlatView>)> = vec![];
        for space in spaces {
            let root = effective_root(&space.root());
            let known = made.iter().find(|(r, _)| r.is(&root)).map(|(_, v)| v.clone());
            let view = known.unwrap_or_else(|| {
                let v = Arc::new(FlatView::of(&root));
                made.push((root, v.clone()));
                v
            });
            space.publish(self, view);
        }
    }
}

/// Follows roots that do nothing but show all of another region: spaces with different roots often see one tree.
fn effective_root(root: &MemoryRegion) -> MemoryRegion {
    let mut at = root.clone();
    loop {
        let next = {
            let s = at.state();
            if !s.enabled || s.readonly || s.addr != 0 {
                return at.clone();
            }
            match &s.alias {
                Some((target, 0)) if target.state().size <= s.size => target.clone(),
                Some(_) => return at.clone(),
                None if at.terminates() => return at.clone(),
                None => {
                    let mut on = s.children.iter().filter(|c| c.state().enabled);
                    match (on.next(), on.next()) {
                        (Some(c), None) if c.addr() == 0 && c.state().size <= s.size => c.clone(),
                        _ => return at.clone(),
                    }
                }
            }
        };
        at = next;
    }
}
