//! The QOM object of a region: type `memory-region`, with QEMU's properties.

use std::sync::OnceLock;

use qom::{Base, Class, Property};

use super::region::MemoryRegion;

/// A region in the composition tree.
#[derive(qom::Object)]
#[qom(name = "memory-region", parent = Base, class_init = RegionNode::class_init)]
pub struct RegionNode {
    parent: Base,
    pub(super) region: OnceLock<MemoryRegion>,
}

impl RegionNode {
    /// The region.
    pub fn region(&self) -> Option<&MemoryRegion> {
        self.region.get()
    }

    fn class_init(c: &mut Class) {
        let info = |o: &RegionNode| o.region.get().map(MemoryRegion::info);
        c.property(Property::computed::<u64>("addr").getter(move |o: &RegionNode| Ok(info(o).map_or(0, |i| i.addr))));
        c.property(
            Property::computed::<u64>("size").getter(|o: &RegionNode| Ok(o.region.get().map_or(0, MemoryRegion::size))),
        );
        c.property(
            Property::computed::<i32>("priority")
                .type_named("uint32")
                .getter(move |o: &RegionNode| Ok(info(o).map_or(0, |i| i.priority))),
        );
        c.property(Property::new("container", "link<memory-region>").reader(|o| {
            let parent = o.cast::<RegionNode>().and_then(|n| n.region.get()?.parent_region()?.node());
            Ok(parent.map_or_else(String::new, |p| p.path()).into())
        }));
    }
}
