//! Guest memory: RAM blocks, the tree of memory regions, the flat views made from it, and address spaces.
//!
//! A [`MemoryRegion`] tree says what is where, with priorities, aliases and switches. A commit (under the machine lock) turns
//! it into one immutable [`FlatView`] per [`AddressSpace`]; equal views are not swapped. Accesses find their range in the
//! current view without a lock; only I/O handlers take the machine lock, and [`FreeOps`] handlers do not even do that.
//!
//! Not modelled: IOMMU regions, coalesced MMIO, sections that only reserve addresses for another back end.

mod access;
mod dirty;
mod node;
mod ops;
#[expect(unsafe_code, reason = "guest RAM")]
mod ram;
mod ranges;
mod region;
mod space;
mod topology;
mod view;

pub use access::{Access, Attrs, MemTxError, MemTxResult};
pub use dirty::{DirtyClient, PAGE};
pub use node::RegionNode;
pub use ops::{Endian, FreeOps, Ops, Sizes};
pub use ram::{CodeWatcher, RamBlock, RamList};
pub use ranges::RamRanges;
pub use region::{MemoryRegion, RegionInfo, RegionKind};
pub use space::{AddressSpace, Listener};
pub(crate) use topology::Topology;
pub use view::{FlatRange, FlatView, RangeKind};
