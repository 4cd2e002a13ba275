//! `throttle` and `copy-on-read`: filters, which pass requests on to the node below. Limits hold before a request gets a thread: whoever
//! submits asks for them ([`Driver::limits`]).

use crate::blocks::Blocks;
use crate::driver::{ChildOf, Driver, DriverDef, Status};
use crate::job::chain;
use crate::node::{Common, Edge, Node, Perm};
use crate::throttle::Group;
use crate::transfer::{Transfer, Way};
use hw_core::memory::RamRanges;
use hw_core::opts::Opts;
use qom::{Error, Result};
use std::io;
use std::sync::Arc;

inventory::submit! {
    DriverDef { name: "throttle", protocol: false, open: |blocks, common, opts| open(blocks, common, opts, "throttle") }
}
inventory::submit! {
    DriverDef { name: "copy-on-read", protocol: false, open: |blocks, common, opts| open(blocks, common, opts, "copy-on-read") }
}

/// What a filter adds.
enum Kind {
    Throttle(Arc<Group>),
    /// What is read is copied up from the backing file, as long as a layer above `bottom`'s backing file has it.
    CopyOnRead {
        bottom: Option<Edge>,
    },
}

struct Filter {
    file: Edge,
    kind: Kind,
}

fn open(blocks: &Blocks, common: &mut Common, opts: &mut Opts, name: &str) -> Result<Box<dyn Driver>> {
    let node = blocks.open_below(opts, "file", common)?;
    common.read_only |= node.is_read_only();
    let kind = if name == "throttle" {
        let group = opts.require_str("throttle-group")?;
        let found = blocks.find_group(&group);
        Kind::Throttle(found.ok_or_else(|| Error::generic(format!("Throttle group '{group}' does not exist")))?)
    } else {
        let bottom = opts.take_str("bottom")?.map(|name| bottom(blocks, common, &node, &name)).transpose()?;
        Kind::CopyOnRead { bottom }
    };
    let file = Edge::child(&node, common, name, Perm::empty(), Perm::all())?;
    Ok(Box::new(Filter { file, kind }))
}

fn bottom(blocks: &Blocks, common: &Common, top: &Arc<Node>, name: &str) -> Result<Edge> {
    let node = blocks.find_node(name).ok_or_else(|| Error::generic(format!("Bottom node '{name}' not found")))?;
    if !chain::layers(top).iter().any(|n| Arc::ptr_eq(n, &node)) {
        return Err(Error::generic(format!("Bottom node '{name}' is not in the backing chain of '{}'", top.name())));
    }
    Edge::child(&node, common, "copy-on-read", Perm::empty(), Perm::all())
}

impl Filter {
    fn below(&self) -> &Node {
        self.file.node()
    }

    /// Copies up what is about to be read, if it does so.
    fn copy_up(&self, offset: u64, len: u64) -> io::Result<()> {
        let Kind::CopyOnRead { bottom } = &self.kind else { return Ok(()) };
        let base = bottom.as_ref().and_then(|b| b.node().backing());
        chain::copy_up(self.file.node(), base.as_ref(), offset, len)
    }
}

impl Driver for Filter {
    fn len(&self) -> io::Result<u64> {
        self.below().len()
    }
    fn read(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.copy_up(offset, buf.len() as u64)?;
        self.below().read(offset, buf)
    }
    fn write(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.below().write(offset, buf)
    }
    fn read_into(&self, offset: u64, to: &RamRanges) -> io::Result<()> {
        self.copy_up(offset, to.len())?;
        self.below().read_into(offset, to)
    }
    fn write_from(&self, offset: u64, from: &RamRanges) -> io::Result<()> {
        self.below().write_from(offset, from)
    }
    fn write_zeroes(&self, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
        self.below().write_zeroes(offset, len, unmap)
    }
    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        self.below().discard(offset, len)
    }
    fn resize(&self, len: u64) -> io::Result<()> {
        self.below().resize(len)
    }
    fn flush(&self) -> io::Result<()> {
        self.below().flush()
    }
    fn set_perms(&self, mut perm: Perm, shared: Perm) -> Result<()> {
        let copies = matches!(self.kind, Kind::CopyOnRead { .. }) && !self.below().is_read_only();
        if copies && perm.contains(Perm::READ) {
            perm |= Perm::WRITE_UNCHANGED;
        }
        self.file.set(perm, shared)
    }
    fn filename(&self) -> String {
        self.below().driver().filename()
    }
    fn children(&self) -> Vec<ChildOf> {
        vec![("file", self.file.node().clone())]
    }
    fn actual_size(&self) -> Option<u64> {
        self.below().driver().actual_size()
    }
    fn status(&self, offset: u64, len: u64) -> io::Result<(Status, u64)> {
        self.below().driver().status(offset, len)
    }
    fn populate(&self, offset: u64, len: u64) -> io::Result<()> {
        self.below().populate(offset, len)
    }
    fn has_ring(&self) -> bool {
        self.below().driver().has_ring()
    }
    fn begin(&self, t: Transfer) -> std::result::Result<(), Transfer> {
        // What is to be copied up first is not only passed on.
        match self.kind {
            Kind::CopyOnRead { .. } if t.way == Way::Read => Err(t),
            _ => self.file.node().begin(t),
        }
    }
    fn filtered(&self) -> Option<Arc<Node>> {
        Some(self.file.node().clone())
    }
    fn limits(&self) -> Option<Arc<Group>> {
        match &self.kind {
            Kind::Throttle(group) => Some(group.clone()),
            Kind::CopyOnRead { .. } => None,
        }
    }
}
