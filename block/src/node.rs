//! Nodes and the edges between them and their users.

use crate::driver::{Driver, DriverDef};
use hw_core::opts::Opts;
use parking_lot::Mutex;
use qom::{Error, Result};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

bitflags::bitflags! {
    /// What a user of a node does, or lets others do (QEMU's block permissions, bit for bit).
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct Perm: u8 {
        /// Reads, and expects what it wrote.
        const READ = 1;
        /// Writes.
        const WRITE = 2;
        /// Writes what is there already.
        const WRITE_UNCHANGED = 4;
        /// Changes the size.
        const RESIZE = 8;
    }
}

impl Perm {
    /// Its name in messages; of several, the first.
    pub fn word(self) -> &'static str {
        match self.iter().next() {
            Some(Perm::READ) => "consistent read",
            Some(Perm::WRITE) => "write",
            Some(Perm::WRITE_UNCHANGED) => "write unchanged",
            Some(_) => "resize",
            None => "no permission",
        }
    }
}

/// `cache.*`: how the host caches an image. Whether writes are acknowledged before they are stable is the drive's choice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cache {
    /// Past the host's page cache (O_DIRECT).
    pub direct: bool,
    /// Flushes do nothing.
    pub no_flush: bool,
}

/// `detect-zeroes`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DetectZeroes {
    /// Zeros are written as they are.
    #[default]
    Off,
    /// A write of zeros becomes a cheap one.
    On,
    /// The range is given back to the host.
    Unmap,
}

impl DetectZeroes {
    /// QAPI's word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::On => "on",
            Self::Unmap => "unmap",
        }
    }
}

/// Options every node has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Common {
    /// No writes.
    pub read_only: bool,
    /// Becomes read-only if the host does not let it be written.
    pub auto_read_only: bool,
    /// Caching.
    pub cache: Cache,
    /// `discard=unmap`: discards reach the host.
    pub unmap: bool,
    /// Looks for zeros in what is written.
    pub detect_zeroes: DetectZeroes,
    /// Takes no locks that exclude others; read-only.
    pub force_share: bool,
    /// The format was guessed from the contents.
    pub probed: bool,
    /// Images whose backing file this is, and theirs: none of them may come again below.
    pub chain: Vec<PathBuf>,
}

impl Common {
    /// Takes them out of `opts`; what is not said is as in `parent`.
    ///
    /// # Errors
    /// A value that is none.
    pub fn take(opts: &mut Opts, parent: Option<&Common>) -> Result<Self> {
        let inherited = parent.cloned().unwrap_or_default();
        let mut cache = inherited.cache;
        if let Some(mut c) = opts.take_object("cache")? {
            cache.direct = c.take_bool("direct")?.unwrap_or(cache.direct);
            cache.no_flush = c.take_bool("no-flush")?.unwrap_or(cache.no_flush);
            c.finish_driver("cache")?;
        }
        let unmap = match opts.take_choice("discard", &["ignore", "unmap", "off", "on"])? {
            Some(word) => word == "unmap" || word == "on",
            None => inherited.unmap,
        };
        let common = Self {
            read_only: opts.take_bool("read-only")?.unwrap_or(inherited.read_only),
            auto_read_only: opts.take_bool("auto-read-only")?.unwrap_or(inherited.auto_read_only),
            cache,
            unmap,
            detect_zeroes: match opts.take_choice("detect-zeroes", &["off", "on", "unmap"])? {
                Some("on") => DetectZeroes::On,
                Some("unmap") if !unmap => {
                    return Err(Error::generic(
                        "setting detect-zeroes to unmap is not allowed without setting discard operation to unmap",
                    ));
                }
                Some("unmap") => DetectZeroes::Unmap,
                _ => DetectZeroes::Off,
            },
            force_share: opts.take_bool("force-share")?.unwrap_or(inherited.force_share),
            probed: false,
            chain: inherited.chain,
        };
        if common.force_share && !common.read_only {
            return Err(Error::generic("force-share=on can only be used with read-only images"));
        }
        Ok(common)
    }
}

struct User {
    id: u64,
    /// Who, for messages: `node 'fmt'`, `block device 'ide0-hd0'`.
    name: String,
    perm: Perm,
    shared: Perm,
}

#[derive(Default)]
struct Users {
    next: u64,
    all: Vec<User>,
}

/// One layer of an image.
pub struct Node {
    name: String,
    def: &'static DriverDef,
    common: Common,
    driver: Box<dyn Driver>,
    depth: usize,
    users: Mutex<Users>,
}

impl Node {
    pub(crate) fn new(name: String, def: &'static DriverDef, common: Common, driver: Box<dyn Driver>) -> Arc<Self> {
        let depth = 1 + driver.children().iter().map(|(_, n)| n.depth).max().unwrap_or(0);
        Arc::new(Self { name, def, common, driver, depth, users: Mutex::default() })
    }

    /// Node name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Name of its driver.
    pub fn driver_name(&self) -> &'static str {
        self.def.name
    }

    /// Whether it is of a protocol, not of a format.
    pub fn is_protocol(&self) -> bool {
        self.def.protocol
    }

    /// Nodes on top of each other, this one included.
    pub fn depth(&self) -> usize {
        self.depth
    }

    /// What does its work.
    pub fn driver(&self) -> &dyn Driver {
        &*self.driver
    }

    /// Options every node has, as they are in force.
    pub fn common(&self) -> &Common {
        &self.common
    }

    /// Whether it refuses writes.
    pub fn is_read_only(&self) -> bool {
        self.common.read_only
    }

    /// Size in bytes.
    ///
    /// # Errors
    /// The host does not say.
    pub fn len(&self) -> io::Result<u64> {
        self.driver.len()
    }

    /// Whether it has no bytes; an unknown size counts as none.
    pub fn is_empty(&self) -> bool {
        self.len().unwrap_or(0) == 0
    }

    /// Whether somebody uses it.
    pub fn in_use(&self) -> bool {
        !self.users.lock().all.is_empty()
    }

    /// Reads; what lies beyond the end of the image within its last sector reads as zeros.
    ///
    /// # Errors
    /// As the host says.
    pub fn read(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.driver.read(offset, buf)
    }

    /// Writes.
    ///
    /// # Errors
    /// Read-only, or as the host says.
    pub fn write(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.writable()?;
        if self.common.detect_zeroes != DetectZeroes::Off && buf.iter().all(|b| *b == 0) {
            let unmap = self.common.detect_zeroes == DetectZeroes::Unmap;
            return self.driver.write_zeroes(offset, buf.len() as u64, unmap);
        }
        self.driver.write(offset, buf)
    }

    /// Makes a range read as zeros.
    ///
    /// # Errors
    /// As [`Node::write`].
    pub fn write_zeroes(&self, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
        self.writable()?;
        self.driver.write_zeroes(offset, len, unmap && self.common.unmap)
    }

    /// Says that a range's contents do not matter.
    ///
    /// # Errors
    /// As [`Node::write`].
    pub fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        self.writable()?;
        if self.common.unmap { self.driver.discard(offset, len) } else { Ok(()) }
    }

    /// Makes what was written stable.
    ///
    /// # Errors
    /// As the host says.
    pub fn flush(&self) -> io::Result<()> {
        let skip = self.common.read_only || (self.common.cache.no_flush && self.def.protocol);
        if skip { Ok(()) } else { self.driver.flush() }
    }

    /// Changes the size.
    ///
    /// # Errors
    /// Read-only, a driver that cannot, or as the host says.
    pub fn resize(&self, len: u64) -> io::Result<()> {
        self.writable()?;
        self.driver.resize(len)
    }

    fn writable(&self) -> io::Result<()> {
        if self.common.read_only { Err(io::Error::from_raw_os_error(libc::EPERM)) } else { Ok(()) }
    }

    /// Checks the permissions of one user against the others', and puts them in force below.
    fn set_user(&self, id: u64, name: &str, perm: Perm, shared: Perm) -> Result<()> {
        let mut users = self.users.lock();
        if perm.contains(Perm::WRITE) && self.common.read_only {
            return Err(Error::generic("Block node is read-only"));
        }
        for other in users.all.iter().filter(|u| u.id != id) {
            let (refused, by) = match (perm - other.shared, other.perm - shared) {
                (p, _) if !p.is_empty() => (p, other.name.as_str()),
                (_, p) if !p.is_empty() => (p, name),
                _ => continue,
            };
            return Err(Error::generic(format!(
                "Conflicts with use by {by} as 'root', which does not allow '{}' on {}",
                refused.word(),
                self.name
            )));
        }
        let others = users.all.iter().filter(|u| u.id != id);
        let (held, let_be) = others.fold((perm, shared), |(p, s), u| (p | u.perm, s & u.shared));
        self.driver.set_perms(held, let_be)?;
        match users.all.iter_mut().find(|u| u.id == id) {
            Some(u) => (u.perm, u.shared) = (perm, shared),
            None => users.all.push(User { id, name: name.to_owned(), perm, shared }),
        }
        Ok(())
    }

    fn remove_user(&self, id: u64) {
        let mut users = self.users.lock();
        users.all.retain(|u| u.id != id);
        let none = (Perm::empty(), Perm::all());
        let (perm, shared) = users.all.iter().fold(none, |(p, s), u| (p | u.perm, s & u.shared));
        // Fewer permissions are always granted.
        _ = self.driver.set_perms(perm, shared);
    }
}

/// A user's hold on a node: dropping it lets go.
pub struct Edge {
    node: Arc<Node>,
    id: u64,
    name: String,
}

impl Edge {
    /// `name` uses `node` in these ways, and lets others use it in those.
    ///
    /// # Errors
    /// Another user, here or in another process, is in the way.
    pub fn new(node: &Arc<Node>, name: &str, perm: Perm, shared: Perm) -> Result<Self> {
        let id = {
            let mut users = node.users.lock();
            users.next += 1;
            users.next
        };
        node.set_user(id, name, perm, shared)?;
        Ok(Self { node: node.clone(), id, name: name.to_owned() })
    }

    /// Changes the permissions.
    ///
    /// # Errors
    /// As [`Edge::new`]; nothing has changed then.
    pub fn set(&self, perm: Perm, shared: Perm) -> Result<()> {
        self.node.set_user(self.id, &self.name, perm, shared)
    }

    /// The node.
    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        self.node.remove_user(self.id);
    }
}
