//! Memory regions: the tree that says what is where.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock, Weak};

use parking_lot::{Mutex, MutexGuard};
use qom::{Base, Level, Object};

use super::node::RegionNode;
use super::ops::{FreeOps, Io, Ops, Run};
use super::ram::RamBlock;
use super::view::RangeKind;
use crate::core::{Core, weak};
use crate::locked::Locked;
use crate::qdev::Device;

/// A region of guest memory or I/O space. A handle: clones name the same region. Its QOM object, type `memory-region`, is a
/// child of the owner.
#[derive(Clone)]
pub struct MemoryRegion(Arc<Region>);

/// What a region is made of.
enum Content {
    Container,
    Alias,
    Ram(Arc<RamBlock>),
    RomDevice(Arc<RamBlock>, Io),
    Io(Io),
    /// Answers with all ones, ignores writes: what an I/O bus does where nobody is.
    Unassigned(Arc<dyn Run>),
}

struct Region {
    name: String,
    content: Content,
    owner: Weak<dyn Object>,
    node: OnceLock<Weak<dyn Object>>,
    state: Mutex<State>,
}

/// The changeable part.
pub(super) struct State {
    /// Bytes; 2^64 for a whole address space.
    pub size: u128,
    pub addr: u64,
    pub priority: i32,
    pub enabled: bool,
    pub readonly: bool,
    /// ROM device: reads come from memory.
    pub romd: bool,
    pub alias: Option<(MemoryRegion, u64)>,
    /// Sorted: higher priority first, of equal ones the newest.
    pub children: Vec<MemoryRegion>,
    container: Weak<Region>,
    mapped: bool,
}

pub(super) struct Rendered {
    pub kind: RangeKind,
    pub run: Option<Arc<dyn Run>>,
}

/// Kind of a region, as `info mtree` prints it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegionKind {
    /// Holds other regions only.
    Container,
    /// Shows a part of another region.
    Alias,
    /// RAM.
    Ram,
    /// Read-only memory.
    Rom,
    /// Memory for reads, handlers for writes.
    RomDevice,
    /// Handlers.
    Io,
}

impl RegionKind {
    /// `info mtree`'s word. An alias has its target's.
    pub fn name(self) -> &'static str {
        match self {
            RegionKind::Container | RegionKind::Io | RegionKind::Alias => "i/o",
            RegionKind::Ram => "ram",
            RegionKind::Rom => "rom",
            RegionKind::RomDevice => "romd",
        }
    }
}

/// A region as a monitor shows it.
#[derive(Clone)]
pub struct RegionInfo {
    /// Name given at creation.
    pub name: String,
    /// Kind; of an alias the target's in [`RegionInfo::alias`].
    pub kind: RegionKind,
    /// Address in its container.
    pub addr: u64,
    /// Bytes; 2^64 for a whole address space.
    pub size: u128,
    /// Priority in its container.
    pub priority: i32,
    /// Whether it answers.
    pub enabled: bool,
    /// Canonical path of the owner; empty for none.
    pub owner: String,
    /// Target and offset of an alias.
    pub alias: Option<(MemoryRegion, u64)>,
    /// Subregions, highest priority first.
    pub children: Vec<MemoryRegion>,
}

fn size_of(size: u64) -> u128 {
    if size == u64::MAX { 1 << 64 } else { size.into() }
}

impl MemoryRegion {
    fn new(owner: Weak<dyn Object>, name: &str, size: u128, content: Content) -> Self {
        let state = State {
            size,
            addr: 0,
            priority: 0,
            enabled: true,
            readonly: false,
            romd: true,
            alias: None,
            children: vec![],
            container: Weak::new(),
            mapped: false,
        };
        let (name, node) = (name.to_owned(), OnceLock::new());
        Self(Arc::new(Region { name, content, owner, node, state: Mutex::new(state) }))
    }

    fn owned(owner: &dyn Object, name: &str, size: u64, content: Content) -> Self {
        let r = Self::new(weak(owner), name, size_of(size), content);
        r.publish(owner);
        r
    }

    /// Without an owner, for the roots of a machine's address spaces; [`MemoryRegion::publish`] shows it later.
    pub(crate) fn root(name: &str, size: u64) -> Self {
        Self::new(Weak::<Base>::new(), name, size_of(size), Content::Container)
    }

    /// As [`MemoryRegion::root`], for an I/O space: reads as all ones where nobody answers.
    pub(crate) fn io_root(name: &str, size: u64) -> Self {
        Self::new(Weak::<Base>::new(), name, size_of(size), Content::Unassigned(Arc::new(AllOnes)))
    }

    /// A region that only holds others. `size` `u64::MAX` stands for 2^64.
    pub fn container(owner: &dyn Object, name: &str, size: u64) -> Self {
        Self::owned(owner, name, size, Content::Container)
    }

    /// A region that shows `size` bytes of `target` from `offset` on.
    pub fn alias(owner: &dyn Object, name: &str, target: &MemoryRegion, offset: u64, size: u64) -> Self {
        let r = Self::new(weak(owner), name, size_of(size), Content::Alias);
        r.0.state.lock().alias = Some((target.clone(), offset));
        r.publish(owner);
        r
    }

    /// Zeroed RAM.
    ///
    /// # Errors
    /// When the host cannot give the memory.
    pub fn ram(owner: &dyn Object, name: &str, size: u64) -> qom::Result<Self> {
        let block = RamBlock::new(&Core::of(owner).ram, name, size)
            .map_err(|e| qom::Error::generic(format!("cannot set up guest memory '{name}': {e}")))?;
        Ok(Self::ram_from(owner, name, size, block))
    }

    /// RAM with the given block (a memory back end's).
    pub fn ram_from(owner: &dyn Object, name: &str, size: u64, block: Arc<RamBlock>) -> Self {
        Self::owned(owner, name, size.min(block.len()), Content::Ram(block))
    }

    /// Zeroed memory that the guest can only read. Writes by [`MemoryRegion::ram_block`].
    ///
    /// # Errors
    /// When the host cannot give the memory.
    pub fn rom(owner: &dyn Object, name: &str, size: u64) -> qom::Result<Self> {
        let r = Self::ram(owner, name, size)?;
        r.0.state.lock().readonly = true;
        Ok(r)
    }

    /// Memory for reads, `ops.write` for writes; without romd mode `ops` for both.
    ///
    /// # Errors
    /// When the host cannot give the memory.
    pub fn rom_device<T: Level>(owner: &T, name: &str, size: u64, ops: Ops<T>) -> qom::Result<Self> {
        let block = RamBlock::new(&Core::of(owner).ram, name, size)
            .map_err(|e| qom::Error::generic(format!("cannot set up guest memory '{name}': {e}")))?;
        let io = Io::locked(owner, busy_of(owner), ops);
        Ok(Self::owned(owner, name, size, Content::RomDevice(block, io)))
    }

    /// Registers of a device.
    pub fn io<T: Level>(device: &T, name: &str, size: u64, ops: Ops<T>) -> Self {
        Self::io_in(device, device, name, size, ops)
    }

    /// Registers of `device` that belong to another object in the tree.
    pub fn io_in<T: Level>(owner: &dyn Object, device: &T, name: &str, size: u64, ops: Ops<T>) -> Self {
        let io = Io::locked(device, busy_of(device), ops);
        Self::owned(owner, name, size, Content::Io(io))
    }

    /// Registers of a device whose handlers need no machine lock.
    pub fn io_free<T: Level>(device: &T, name: &str, size: u64, ops: FreeOps<T>) -> Self {
        Self::owned(device, name, size, Content::Io(Io::free(device, ops)))
    }

    /// Makes the region's QOM object a child of `parent`, under the region's name with `[*]`. Once only.
    pub(crate) fn publish(&self, parent: &dyn Object) {
        if self.0.name.is_empty() || self.0.node.get().is_some() {
            return;
        }
        let name: String = self.0.name.chars().fold(String::new(), |mut s, c| {
            match c {
                '/' | '[' | ']' | '\\' => s.push_str(&format!("\\x{:02x}", c as u32)),
                c => s.push(c),
            }
            s
        });
        let made = parent.base().scope().object_new("memory-region").and_then(|node| {
            if let Some(n) = node.cast::<RegionNode>() {
                _ = n.region.set(self.clone());
            }
            parent.add_child(&format!("{name}[*]"), &node)?;
            Ok(node)
        });
        match made {
            Ok(node) => _ = self.0.node.set(weak(&*node)),
            Err(e) => tracing::error!(region = self.0.name, "cannot add the region to the tree: {e}"),
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock()
    }

    /// Whether both handles name one region.
    pub fn is(&self, other: &MemoryRegion) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Name given at creation.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Bytes; `u64::MAX` for 2^64.
    pub fn size(&self) -> u64 {
        u64::try_from(self.state().size).unwrap_or(u64::MAX)
    }

    /// Address in the container.
    pub fn addr(&self) -> u64 {
        self.state().addr
    }

    /// Whether it is in a container.
    pub fn is_mapped(&self) -> bool {
        self.state().mapped
    }

    /// Whether it answers where it is mapped.
    pub fn is_enabled(&self) -> bool {
        self.state().enabled
    }

    /// The region's object in the composition tree.
    pub fn node(&self) -> Option<qom::ObjRef> {
        self.0.node.get().and_then(Weak::upgrade)
    }

    /// Its memory, for RAM, ROM and ROM devices.
    pub fn ram_block(&self) -> Option<&Arc<RamBlock>> {
        match &self.0.content {
            Content::Ram(b) | Content::RomDevice(b, _) => Some(b),
            _ => None,
        }
    }

    /// The region that holds this one.
    pub fn parent_region(&self) -> Option<MemoryRegion> {
        self.state().container.upgrade().map(MemoryRegion)
    }

    /// What a monitor shows of the region.
    pub fn info(&self) -> RegionInfo {
        let s = self.state();
        let kind = match &self.0.content {
            Content::Container => RegionKind::Container,
            Content::Alias => RegionKind::Alias,
            Content::Ram(_) if s.readonly => RegionKind::Rom,
            Content::Ram(_) => RegionKind::Ram,
            Content::RomDevice(..) if s.romd => RegionKind::RomDevice,
            Content::RomDevice(..) | Content::Io(_) | Content::Unassigned(_) => RegionKind::Io,
        };
        RegionInfo {
            name: self.0.name.clone(),
            kind,
            addr: s.addr,
            size: s.size,
            priority: s.priority,
            enabled: s.enabled,
            owner: self.0.owner.upgrade().map_or_else(String::new, |o| o.path()),
            alias: s.alias.clone(),
            children: s.children.clone(),
        }
    }

    /// How a view shows the region itself (not its children); `None` if it does not answer.
    pub(super) fn rendered(&self, s: &State, readonly: bool) -> Option<Rendered> {
        match &self.0.content {
            Content::Container | Content::Alias => None,
            Content::Ram(b) if readonly => Some(Rendered { kind: RangeKind::Rom(b.clone()), run: None }),
            Content::Ram(b) => Some(Rendered { kind: RangeKind::Ram(b.clone()), run: None }),
            Content::RomDevice(b, io) if s.romd => {
                Some(Rendered { kind: RangeKind::RomDevice(b.clone()), run: Some(io.run()?) })
            }
            Content::RomDevice(_, io) | Content::Io(io) => Some(Rendered { kind: RangeKind::Io, run: Some(io.run()?) }),
            Content::Unassigned(run) => Some(Rendered { kind: RangeKind::Io, run: Some(run.clone()) }),
        }
    }

    pub(super) fn handlers(&self) -> Option<&Io> {
        match &self.0.content {
            Content::RomDevice(_, io) | Content::Io(io) => Some(io),
            _ => None,
        }
    }

    /// Whether the region answers itself where no child does.
    pub(super) fn terminates(&self) -> bool {
        !matches!(self.0.content, Content::Container | Content::Alias)
    }

    // ---- changes: each is a memory transaction of its own unless one is open ----

    /// Maps `child` at `off` with priority 0.
    pub fn add_subregion(&self, m: &mut Locked, off: u64, child: &MemoryRegion) {
        self.add_subregion_overlap(m, off, child, 0);
    }

    /// Maps `child` at `off`; where regions overlap the higher priority answers. A child that is mapped elsewhere moves.
    pub fn add_subregion_overlap(&self, m: &mut Locked, off: u64, child: &MemoryRegion, priority: i32) {
        m.memory_transaction(|m| {
            if let Some(old) = child.parent_region() {
                old.del_subregion(m, child);
            }
            {
                let mut c = child.state();
                (c.addr, c.priority, c.mapped) = (off, priority, true);
                c.container = Arc::downgrade(&self.0);
            }
            let mut s = self.state();
            let at = s.children.iter().position(|o| priority >= o.state().priority).unwrap_or(s.children.len());
            s.children.insert(at, child.clone());
            drop(s);
            m.topology.changed();
        });
    }

    /// Unmaps `child`; nothing happens if it is not mapped here.
    pub fn del_subregion(&self, m: &mut Locked, child: &MemoryRegion) {
        m.memory_transaction(|m| {
            let mut s = self.state();
            let before = s.children.len();
            s.children.retain(|c| !c.is(child));
            if s.children.len() == before {
                return;
            }
            drop(s);
            let mut c = child.state();
            c.container = Weak::new();
            c.mapped = false;
            drop(c);
            m.topology.changed();
        });
    }

    /// Unmaps the region from wherever it is.
    pub fn unmap(&self, m: &mut Locked) {
        if let Some(p) = self.parent_region() {
            p.del_subregion(m, self);
        }
    }

    fn change<R: PartialEq>(&self, m: &mut Locked, new: R, f: impl FnOnce(&mut State) -> &mut R) {
        m.memory_transaction(|m| {
            let mut s = self.state();
            let old = f(&mut s);
            if *old != new {
                *old = new;
                drop(s);
                m.topology.changed();
            }
        });
    }

    /// Switches the region (and what it holds) on or off.
    pub fn set_enabled(&self, m: &mut Locked, on: bool) {
        self.change(m, on, |s| &mut s.enabled);
    }

    /// Makes memory read-only, or writable again.
    pub fn set_readonly(&self, m: &mut Locked, on: bool) {
        self.change(m, on, |s| &mut s.readonly);
    }

    /// ROM device: reads from memory (`true`) or through the handler.
    pub fn set_romd(&self, m: &mut Locked, on: bool) {
        self.change(m, on, |s| &mut s.romd);
    }

    /// Changes the size. RAM does not grow beyond its block.
    pub fn set_size(&self, m: &mut Locked, size: u64) {
        let size = self.ram_block().map_or(size, |b| size.min(b.len()));
        self.change(m, size_of(size), |s| &mut s.size);
    }

    /// Moves the region inside its container; it becomes the newest of its priority.
    pub fn set_address(&self, m: &mut Locked, addr: u64) {
        if self.addr() == addr {
            return;
        }
        match self.parent_region() {
            Some(p) => {
                let priority = self.state().priority;
                p.add_subregion_overlap(m, addr, self, priority);
            }
            None => self.state().addr = addr,
        }
    }

    /// Changes which part of its target an alias shows.
    pub fn set_alias_offset(&self, m: &mut Locked, offset: u64) {
        m.memory_transaction(|m| {
            if let Some(a) = self.state().alias.as_mut() {
                a.1 = offset;
            }
            m.topology.changed();
        });
    }

    /// Makes an alias show another region.
    pub fn set_alias(&self, m: &mut Locked, target: &MemoryRegion, offset: u64) {
        m.memory_transaction(|m| {
            if let Some(a) = self.state().alias.as_mut() {
                *a = (target.clone(), offset);
            }
            m.topology.changed();
        });
    }
}

impl std::fmt::Debug for MemoryRegion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MemoryRegion({})", self.0.name)
    }
}

fn busy_of<T: Level>(device: &T) -> Arc<AtomicBool> {
    let object: &dyn Object = device;
    object.cast::<Device>().map(Device::busy).unwrap_or_default()
}

/// The handler of an I/O space's root.
struct AllOnes;
impl Run for AllOnes {
    fn read(&self, _: &mut Locked, _: &super::Access) -> u64 {
        u64::MAX
    }
    fn write(&self, _: &mut Locked, _: &super::Access, _: u64) {}
}
