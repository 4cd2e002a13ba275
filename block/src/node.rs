//! Nodes and the edges between them and their users.

use crate::driver::{Driver, DriverDef};
use crate::transfer::{Transfer, Way};
use hw_core::memory::RamRanges;
use hw_core::opts::Opts;
use parking_lot::{Mutex, RwLock};
use qom::{Error, Result};
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

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

/// Whose edge it is: a node, and how often that was opened before. A node that is opened again holds the edges of both openings for a moment;
/// they are not in each other's way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// 0: no node.
    pub(crate) node: u64,
    pub(crate) generation: u32,
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
    /// The node that is being opened.
    pub owner: Owner,
    /// Its name.
    pub node_name: String,
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
            owner: Owner::default(),
            node_name: String::new(),
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
    owner: Owner,
    /// Of an opening that has been replaced: does not count any more.
    retired: bool,
    perm: Perm,
    shared: Perm,
}

impl User {
    /// What the one does and the other does not allow, and the name of the other.
    fn conflict<'a>(&'a self, other: &'a Self) -> Option<(Perm, &'a str)> {
        let same = self.owner.node != 0 && self.owner.node == other.owner.node;
        if self.retired || other.retired || same {
            return None;
        }
        match (self.perm - other.shared, other.perm - self.shared) {
            (p, _) if !p.is_empty() => Some((p, &other.name)),
            (_, p) if !p.is_empty() => Some((p, &self.name)),
            _ => None,
        }
    }
}

#[derive(Default)]
struct Users {
    next: u64,
    all: Vec<User>,
}

impl Users {
    /// All that any of them has, and what all of them let others do.
    fn together(&self) -> (Perm, Perm) {
        let none = (Perm::empty(), Perm::all());
        self.all.iter().filter(|u| !u.retired).fold(none, |(p, s), u| (p | u.perm, s & u.shared))
    }
}

/// A node as it is open now: opening it again makes another of these.
pub(crate) struct Opened {
    pub common: Common,
    pub driver: Arc<dyn Driver>,
}

/// What a node was opened from.
#[derive(Clone, Default)]
pub(crate) struct Recipe {
    /// Options as they were given.
    pub given: Opts,
    /// Of the node above, if it was opened as that one's child.
    pub inherited: Option<Common>,
}

/// Hears of what changes in a node.
pub(crate) trait Watch: Send + Sync {
    /// Bytes of a range may have changed. Called after it has happened, before whoever asked for it hears of the end.
    fn changed(&self, offset: u64, len: u64);
}

/// One layer of an image.
pub struct Node {
    name: String,
    def: &'static DriverDef,
    open: RwLock<Arc<Opened>>,
    recipe: Mutex<Recipe>,
    users: Mutex<Users>,
    watches: RwLock<Vec<Weak<dyn Watch>>>,
    /// Jobs that rely on its children being what they are.
    frozen: AtomicUsize,
}

impl Node {
    pub(crate) fn new(name: String, def: &'static DriverDef, opened: Opened, recipe: Recipe) -> Arc<Self> {
        Arc::new(Self {
            name,
            def,
            open: RwLock::new(Arc::new(opened)),
            recipe: Mutex::new(recipe),
            users: Mutex::default(),
            watches: RwLock::default(),
            frozen: AtomicUsize::new(0),
        })
    }

    /// Node name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Name of its driver.
    pub fn driver_name(&self) -> &'static str {
        self.def.name
    }

    pub(crate) fn def(&self) -> &'static DriverDef {
        self.def
    }

    /// Whether it is of a protocol, not of a format.
    pub fn is_protocol(&self) -> bool {
        self.def.protocol
    }

    pub(crate) fn opened(&self) -> Arc<Opened> {
        self.open.read().clone()
    }

    /// What does its work.
    pub fn driver(&self) -> Arc<dyn Driver> {
        self.open.read().driver.clone()
    }

    /// Options every node has, as they are in force.
    pub fn common(&self) -> Common {
        self.open.read().common.clone()
    }

    pub(crate) fn recipe(&self) -> Recipe {
        self.recipe.lock().clone()
    }

    pub(crate) fn set_recipe(&self, recipe: Recipe) {
        *self.recipe.lock() = recipe;
    }

    /// Whether it refuses writes.
    pub fn is_read_only(&self) -> bool {
        self.open.read().common.read_only
    }

    /// The node below, of nodes that only pass requests on (filters).
    pub fn filtered(&self) -> Option<Arc<Node>> {
        self.driver().filtered()
    }

    /// The node of the backing file; of a filter, of the node that it filters.
    pub fn backing(&self) -> Option<Arc<Node>> {
        let driver = self.driver();
        match driver.filtered() {
            Some(below) => below.backing(),
            None => driver.children().into_iter().find(|(role, _)| *role == "backing").map(|(_, n)| n),
        }
    }

    /// Keeps the children what they are until the guard goes.
    pub(crate) fn freeze(self: &Arc<Self>) -> Frozen {
        self.frozen.fetch_add(1, Ordering::SeqCst);
        Frozen(self.clone())
    }

    /// Whether a job relies on its children.
    pub fn is_frozen(&self) -> bool {
        self.frozen.load(Ordering::SeqCst) > 0
    }

    /// Nobody relies on its children: they may change, and its size.
    ///
    /// # Errors
    /// A job does.
    pub fn not_busy(&self) -> Result<()> {
        if self.is_frozen() {
            return Err(Error::generic(format!("Node '{}' is busy: block device is in use by block job", self.name)));
        }
        Ok(())
    }

    /// Has `watch` hear of changes as long as it lives.
    pub(crate) fn watch(&self, watch: Weak<dyn Watch>) {
        let mut all = self.watches.write();
        all.retain(|w| w.strong_count() > 0);
        all.push(watch);
    }

    pub(crate) fn changed(&self, offset: u64, len: u64) {
        for watch in self.watches.read().iter().filter_map(Weak::upgrade) {
            watch.changed(offset, len);
        }
    }

    /// Size in bytes.
    ///
    /// # Errors
    /// The host does not say.
    pub fn len(&self) -> io::Result<u64> {
        self.driver().len()
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
        self.driver().read(offset, buf)
    }

    /// [`Node::read`] into memory of the guest's.
    ///
    /// # Errors
    /// As the host says.
    pub fn read_into(&self, offset: u64, to: &RamRanges) -> io::Result<()> {
        self.driver().read_into(offset, to)
    }

    /// [`Node::write`] of what is in memory of the guest's.
    ///
    /// # Errors
    /// As [`Node::write`].
    pub fn write_from(&self, offset: u64, from: &RamRanges) -> io::Result<()> {
        let open = self.writable()?;
        if open.common.detect_zeroes != DetectZeroes::Off {
            return self.write(offset, &from.to_vec()); // what is looked at must stay what it is
        }
        let done = open.driver.write_from(offset, from);
        self.changed(offset, from.len());
        done
    }

    /// Writes.
    ///
    /// # Errors
    /// Read-only, or as the host says.
    pub fn write(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        let open = self.writable()?;
        let detect = open.common.detect_zeroes;
        let done = if detect != DetectZeroes::Off && buf.iter().all(|b| *b == 0) {
            open.driver.write_zeroes(offset, buf.len() as u64, detect == DetectZeroes::Unmap)
        } else {
            open.driver.write(offset, buf)
        };
        self.changed(offset, buf.len() as u64);
        done
    }

    /// Begins a transfer, if what there is to do about it is to pass it on.
    ///
    /// # Errors
    /// The transfer, if it is to be done as always.
    pub fn begin(self: &Arc<Self>, mut transfer: Transfer) -> std::result::Result<(), Transfer> {
        let open = self.opened();
        let common = &open.common;
        let passes = match transfer.way {
            Way::Read => true,
            Way::Write => !common.read_only && common.detect_zeroes == DetectZeroes::Off,
            Way::Sync => !common.read_only && !common.cache.no_flush,
        };
        if !passes {
            return Err(transfer);
        }
        transfer.passed.push((self.clone(), transfer.offset));
        open.driver.begin(transfer)
    }

    /// Makes a range read as zeros.
    ///
    /// # Errors
    /// As [`Node::write`].
    pub fn write_zeroes(&self, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
        let open = self.writable()?;
        let done = open.driver.write_zeroes(offset, len, unmap && open.common.unmap);
        self.changed(offset, len);
        done
    }

    /// Says that a range's contents do not matter.
    ///
    /// # Errors
    /// As [`Node::write`].
    pub fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        let open = self.writable()?;
        if !open.common.unmap {
            return Ok(());
        }
        let done = open.driver.discard(offset, len);
        self.changed(offset, len);
        done
    }

    /// Copies up what a range has in the backing file only.
    ///
    /// # Errors
    /// As [`Node::write`].
    pub fn populate(&self, offset: u64, len: u64) -> io::Result<()> {
        self.writable()?.driver.populate(offset, len)
    }

    /// Makes what was written stable.
    ///
    /// # Errors
    /// As the host says.
    pub fn flush(&self) -> io::Result<()> {
        let open = self.opened();
        let skip = open.common.read_only || (open.common.cache.no_flush && self.def.protocol);
        if skip { Ok(()) } else { open.driver.flush() }
    }

    /// Changes the size.
    ///
    /// # Errors
    /// Read-only, a driver that cannot, or as the host says.
    pub fn resize(&self, len: u64) -> io::Result<()> {
        self.writable()?.driver.resize(len)
    }

    fn writable(&self) -> io::Result<Arc<Opened>> {
        let open = self.opened();
        if open.common.read_only { Err(io::Error::from_raw_os_error(libc::EPERM)) } else { Ok(open) }
    }

    /// Puts another opening in the place of this one, with no requests under way; answers the old one.
    ///
    /// # Errors
    /// Another process is in the way of its permissions; nothing has changed then.
    pub(crate) fn swap(&self, new: Arc<Opened>) -> Result<Arc<Opened>> {
        let users = self.users.lock();
        let (perm, shared) = users.together();
        let old = self.opened();
        let first = new.driver.set_perms(perm, shared);
        // (Two openings of one file are in each other's way as two processes are.)
        _ = old.driver.set_perms(Perm::empty(), Perm::all());
        if first.is_err() {
            new.driver.set_perms(perm, shared).inspect_err(|_| _ = old.driver.set_perms(perm, shared))?;
        }
        // The other opening may have written after this one looked.
        new.driver.look();
        *self.open.write() = new;
        Ok(old)
    }

    /// The users that are an opening of another node count no more, or again.
    ///
    /// # Errors
    /// Somebody below is in the way.
    pub(crate) fn retire(&self, owner: Owner, retired: bool) -> Result<()> {
        let mut users = self.users.lock();
        users.all.iter_mut().filter(|u| u.owner == owner).for_each(|u| u.retired = retired);
        let (perm, shared) = users.together();
        self.driver().set_perms(perm, shared)
    }

    /// Whether all users may do what they do.
    ///
    /// # Errors
    /// Two are in each other's way, or one writes what is read-only.
    pub(crate) fn check_users(&self) -> Result<()> {
        let users = self.users.lock();
        if self.is_read_only() && users.together().0.contains(Perm::WRITE) {
            return Err(Error::generic("Block node is read-only"));
        }
        for (n, user) in users.all.iter().enumerate() {
            for other in users.all.iter().skip(n + 1) {
                if let Some((refused, by)) = user.conflict(other) {
                    return Err(self.refused(refused, by));
                }
            }
        }
        Ok(())
    }

    fn refused(&self, perm: Perm, by: &str) -> Error {
        Error::generic(format!(
            "Conflicts with use by {by} as 'root', which does not allow '{}' on {}",
            perm.word(),
            self.name
        ))
    }

    /// Checks the permissions of one user against the others', and puts them in force below.
    fn set_user(&self, new: User) -> Result<()> {
        let mut users = self.users.lock();
        if new.perm.contains(Perm::WRITE) && self.is_read_only() {
            return Err(Error::generic("Block node is read-only"));
        }
        let others = || users.all.iter().filter(|u| u.id != new.id);
        if let Some((refused, by)) = others().find_map(|u| new.conflict(u)) {
            return Err(self.refused(refused, by));
        }
        let (held, let_be) =
            others().filter(|u| !u.retired).fold((new.perm, new.shared), |(p, s), u| (p | u.perm, s & u.shared));
        self.driver().set_perms(held, let_be)?;
        match users.all.iter_mut().find(|u| u.id == new.id) {
            Some(u) => (u.perm, u.shared) = (new.perm, new.shared),
            None => users.all.push(new),
        }
        Ok(())
    }

    fn remove_user(&self, id: u64) {
        let mut users = self.users.lock();
        users.all.retain(|u| u.id != id);
        let (perm, shared) = users.together();
        // Fewer permissions are always granted.
        _ = self.driver().set_perms(perm, shared);
    }
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Node").field(&self.name).finish()
    }
}

/// Keeps the children of a node what they are.
pub(crate) struct Frozen(Arc<Node>);

impl Drop for Frozen {
    fn drop(&mut self) {
        self.0.frozen.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A user's hold on a node: dropping it lets go.
pub struct Edge {
    node: Arc<Node>,
    id: u64,
    name: String,
    owner: Owner,
}

impl Edge {
    /// `name` uses `node` in these ways, and lets others use it in those.
    ///
    /// # Errors
    /// Another user, here or in another process, is in the way.
    pub fn new(node: &Arc<Node>, name: &str, perm: Perm, shared: Perm) -> Result<Self> {
        Self::owned(node, Owner::default(), name, perm, shared)
    }

    /// The node that is being opened with the options `parent` uses `node`.
    ///
    /// # Errors
    /// As [`Edge::new`].
    pub fn child(node: &Arc<Node>, parent: &Common, name: &str, perm: Perm, shared: Perm) -> Result<Self> {
        Self::owned(node, parent.owner, name, perm, shared)
    }

    pub(crate) fn owned(node: &Arc<Node>, owner: Owner, name: &str, perm: Perm, shared: Perm) -> Result<Self> {
        let id = {
            let mut users = node.users.lock();
            users.next += 1;
            users.next
        };
        let edge = User { id, name: name.to_owned(), owner, retired: false, perm, shared };
        node.set_user(edge)?;
        Ok(Self { node: node.clone(), id, name: name.to_owned(), owner })
    }

    /// Changes the permissions.
    ///
    /// # Errors
    /// As [`Edge::new`]; nothing has changed then.
    pub fn set(&self, perm: Perm, shared: Perm) -> Result<()> {
        let user = User { id: self.id, name: self.name.clone(), owner: self.owner, retired: false, perm, shared };
        self.node.set_user(user)
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
