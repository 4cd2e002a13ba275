//! All nodes and drives of a machine.

use crate::backend::{Backend, ErrorPolicy, Legacy, OnError};
use crate::driver::{self, DriverDef};
use crate::drivers::probe;
use crate::job::Jobs;
use crate::node::{Common, Edge, Node, Opened, Owner, Perm, Recipe};
use crate::pool::Pool;
use crate::throttle::{Group, Limits};
use hw_core::Core;
use hw_core::clock::Clocks;
use hw_core::iothread::IoThreads;
use hw_core::opts::{Child, Opts};
use parking_lot::Mutex;
use qom::{Error, Result};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::os::unix::fs::FileTypeExt;
use std::sync::{Arc, Weak};

/// `-drive if=`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Interface {
    /// A device of the user's takes it by name.
    None,
    /// A disk or CD drive of the board's IDE controller.
    #[default]
    Ide,
    /// A drive of the board's floppy controller.
    Floppy,
    /// A disk on virtio, which comes with its function.
    Virtio,
}

impl Interface {
    /// Its word.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Ide => "ide",
            Self::Floppy => "floppy",
            Self::Virtio => "virtio",
        }
    }

    /// Devices of a bus; 0: there are no buses.
    fn max_devs(self) -> u32 {
        match self {
            Self::Ide => 2,
            _ => 0,
        }
    }
}

/// `-drive`, parsed.
#[derive(Clone, Debug, Default)]
pub struct DriveConfig {
    /// Its id; by default made of the place.
    pub id: Option<String>,
    /// What kind of device.
    pub interface: Interface,
    /// Place by number.
    pub index: Option<u32>,
    /// Place by bus …
    pub bus: Option<u32>,
    /// … and device.
    pub unit: Option<u32>,
    /// `media=cdrom`.
    pub cdrom: bool,
    /// Writes go to a temporary file.
    pub snapshot: bool,
    /// Writes are acknowledged before they are stable.
    pub write_cache: bool,
    /// `werror` and `rerror`.
    pub policy: ErrorPolicy,
    /// Image: a name as `file=` takes it.
    pub file: Option<String>,
    /// `copy-on-read`.
    pub copy_on_read: bool,
    /// `throttling.*`: the limits, and the name of the group, by default the drive's.
    pub limits: Limits,
    /// `throttling.group`.
    pub group: Option<String>,
    /// Options of the node, `driver` (the format) among them.
    pub opts: Opts,
}

struct Named {
    node: Weak<Node>,
    /// Made by `blockdev-add`: stays until `blockdev-del`.
    owned: Option<Arc<Node>>,
}

/// What an image says of its backing file.
pub(crate) struct Backing<'a> {
    /// Name of the image.
    pub image: &'a str,
    /// Name of the backing file, as the image has it.
    pub name: Option<&'a str>,
    /// Its format.
    pub format: Option<&'a str>,
}

/// Longest chain of backing files.
const MAX_CHAIN: usize = 200;

/// A name that an image has of another file, as seen from here: relative names are relative to the image's folder.
pub(crate) fn beside(image: &str, name: &str) -> String {
    let protocol = name.split_once(':').is_some_and(|(p, _)| !p.contains('/'));
    match image.rsplit_once('/') {
        Some((folder, _)) if !protocol && !name.starts_with('/') => format!("{folder}/{name}"),
        _ => name.to_owned(),
    }
}

type Report = Arc<dyn Fn(&str) + Send + Sync>;
/// Sends an event to whoever listens.
pub(crate) type Sink = Arc<dyn Fn(&'static str, Value) + Send + Sync>;
/// Calls something while no vCPU runs.
type Parked = Arc<dyn Fn(&mut dyn FnMut()) + Send + Sync>;

#[derive(Default)]
struct Inner {
    nodes: BTreeMap<u64, Named>,
    next: u64,
    generated: u32,
    backends: Vec<Arc<Backend>>,
    /// Backends without a name belong to their devices.
    anonymous: Vec<Weak<Backend>>,
    report: Option<Report>,
    sink: Option<Sink>,
    parked: Option<Parked>,
    clocks: Option<Arc<Clocks>>,
    threads: Option<Arc<IoThreads>>,
    /// Groups whose limits drives and nodes share, by name.
    groups: BTreeMap<String, Weak<Group>>,
}

/// The block layer of one machine: [`Core::service`]. Cheap to clone.
#[derive(Clone, Default)]
pub struct Blocks {
    inner: Arc<Mutex<Inner>>,
    pool: Arc<PoolGuard>,
    pub(crate) jobs: Arc<Jobs>,
}

#[derive(Default)]
struct PoolGuard(Arc<Pool>);

/// How drivers tell the user what happened to an image. Keeps nothing alive.
#[derive(Clone, Default)]
pub(crate) struct Reporter(Weak<Mutex<Inner>>);

impl Reporter {
    /// Sends `BLOCK_IMAGE_CORRUPTED` and a message. `place`: where in the image, offset and bytes.
    pub fn corrupted(&self, node: &str, text: &str, place: Option<(u64, u64)>, fatal: bool) {
        let Some(inner) = self.0.upgrade() else { return };
        let (backends, sink, report) = {
            let s = inner.lock();
            (s.backends.clone(), s.sink.clone(), s.report.clone())
        };
        let over = |b: &&Arc<Backend>| b.root().is_some_and(|n| n.name() == node);
        let device = backends.iter().find(over).map_or("", |b| b.name());
        let mut data = json!({"device": device, "node-name": node, "msg": text, "fatal": fatal});
        if let (Some((offset, size)), Some(map)) = (place, data.as_object_mut()) {
            map.insert("offset".into(), offset.into());
            map.insert("size".into(), size.into());
        }
        if let Some(sink) = sink {
            sink("BLOCK_IMAGE_CORRUPTED", data);
        }
        if let Some(report) = report {
            report(&if fatal {
                format!("qcow2: Marking image as corrupt: {text}; further corruption events will be suppressed")
            } else {
                format!("qcow2: Image is corrupt: {text}; further non-fatal corruption events will be suppressed")
            });
        }
    }
}

impl Drop for PoolGuard {
    fn drop(&mut self) {
        self.0.shut_down();
    }
}

/// What the host says, without Rust's "(os error N)".
pub(crate) fn plain(e: &std::io::Error) -> String {
    e.to_string().split(" (os error").next().unwrap_or_default().to_owned()
}

impl Blocks {
    /// The machine's.
    pub fn of(core: &Core) -> Arc<Blocks> {
        let blocks = core.service::<Blocks>();
        {
            let mut s = blocks.inner.lock();
            s.clocks.get_or_insert_with(|| core.clocks.clone());
            s.threads.get_or_insert_with(|| core.service::<IoThreads>());
        }
        blocks
    }

    /// The machine's clocks; without a machine, some that nobody runs.
    pub(crate) fn clocks(&self) -> Arc<Clocks> {
        self.inner.lock().clocks.get_or_insert_default().clone()
    }

    pub(crate) fn reporter(&self) -> Reporter {
        Reporter(Arc::downgrade(&self.inner))
    }

    pub(crate) fn pool(&self) -> &Arc<Pool> {
        &self.pool.0
    }

    /// Sets who sends events, from any thread.
    pub fn set_event_sink(&self, sink: impl Fn(&'static str, Value) + Send + Sync + 'static) {
        self.inner.lock().sink = Some(Arc::new(sink));
    }

    pub(crate) fn sink(&self) -> Option<Sink> {
        self.inner.lock().sink.clone()
    }

    pub(crate) fn emit(&self, event: &'static str, data: Value) {
        if let Some(sink) = self.sink() {
            sink(event, data);
        }
    }

    /// Sets what parks the vCPUs, calls what it is given, and lets them go on. Used on the main loop's thread with no lock held.
    pub fn set_parked(&self, parked: impl Fn(&mut dyn FnMut()) + Send + Sync + 'static) {
        self.inner.lock().parked = Some(Arc::new(parked));
    }

    /// Runs `f` while nobody submits requests and none are under way.
    pub(crate) fn quiet<R>(&self, f: impl FnOnce() -> R) -> Option<R> {
        let parked = self.inner.lock().parked.clone();
        let (mut f, mut result) = (Some(f), None);
        let mut call = || {
            self.drain();
            result = f.take().map(|f| f());
        };
        match parked {
            Some(parked) => parked(&mut call),
            None => call(),
        }
        result
    }

    /// Sets what is called, from any thread, when [`Blocks::deliver`] has something to do.
    pub fn set_wake(&self, wake: impl Fn() + Send + Sync + 'static) {
        self.pool.0.set_wake(wake);
    }

    /// Sets who is told of warnings.
    pub fn set_report(&self, report: impl Fn(&str) + Send + Sync + 'static) {
        self.inner.lock().report = Some(Arc::new(report));
    }

    pub(crate) fn warn(&self, text: &str) {
        let report = self.inner.lock().report.clone();
        if let Some(report) = report {
            report(text);
        }
    }

    /// Calls the callbacks of requests that have ended: on the main loop's thread, with no lock held.
    pub fn deliver(&self) {
        self.pool.0.deliver();
        self.jobs.pump(self);
    }

    /// Waits for all requests, callbacks included. With no lock held. Limits do not hold meanwhile, and jobs begin no new step.
    pub fn drain(&self) {
        let groups = self.groups();
        groups.iter().for_each(|g| g.lift(true));
        // (What drivers notified may still be on its way to a thread.)
        let threads = self.inner.lock().threads.clone();
        if let Some(threads) = threads {
            threads.settle();
        }
        self.pool.0.drain();
        groups.iter().for_each(|g| g.lift(false));
        self.jobs.after_drain(self);
    }

    /// Requests on the way.
    pub fn in_flight(&self) -> usize {
        self.pool.0.in_flight()
    }

    /// Makes everything written stable, as far as the options of the nodes allow.
    pub fn flush_all(&self) {
        for backend in self.backends() {
            if let Some(node) = backend.root()
                && let Err(e) = node.flush()
            {
                self.warn(&format!("could not flush '{}': {}", node.name(), plain(&e)));
            }
        }
    }

    /// Ends everything: requests are waited for, images closed.
    pub fn close(&self) {
        self.jobs.cancel_all(self);
        self.flush_all();
        let (backends, nodes) = {
            let mut s = self.inner.lock();
            (std::mem::take(&mut s.backends), std::mem::take(&mut s.nodes))
        };
        for b in &backends {
            _ = b.set_root(None);
        }
        drop((backends, nodes));
    }

    // ---- nodes ----

    /// All nodes, in the order they were made.
    pub fn nodes(&self) -> Vec<Arc<Node>> {
        self.inner.lock().nodes.values().filter_map(|n| n.node.upgrade()).collect()
    }

    /// The node called `name`.
    pub fn find_node(&self, name: &str) -> Option<Arc<Node>> {
        self.nodes().into_iter().find(|n| n.name() == name)
    }

    pub(crate) fn node_name(&self, given: Option<String>) -> Result<String> {
        let Some(name) = given else {
            let mut s = self.inner.lock();
            s.generated += 1;
            let n = s.generated;
            return Ok(format!("#block{n}{:02}", (n * 37 + 11) % 100));
        };
        let good = name.starts_with(|c: char| c.is_ascii_alphabetic())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c));
        if !good {
            return Err(Error::generic(format!("Invalid node-name: '{name}'")));
        }
        if name.len() > 31 {
            return Err(Error::generic("Node name too long"));
        }
        if self.backend(&name).is_some() {
            return Err(Error::generic(format!("node-name={name} is conflicting with a device id")));
        }
        if self.find_node(&name).is_some() {
            return Err(Error::generic(format!("Duplicate nodes with node-name='{name}'")));
        }
        Ok(name)
    }

    /// A number for a node to come: nodes are listed in their order.
    fn next_key(&self) -> u64 {
        let mut s = self.inner.lock();
        s.next += 1;
        s.next
    }

    fn register(&self, node: &Arc<Node>, key: u64) {
        let mut s = self.inner.lock();
        s.nodes.retain(|_, n| n.node.strong_count() > 0);
        s.nodes.insert(key, Named { node: Arc::downgrade(node), owned: None });
    }

    fn open_with(
        &self,
        def: &'static DriverDef,
        mut common: Common,
        mut opts: Opts,
        recipe: Recipe,
    ) -> Result<Arc<Node>> {
        let name = self.node_name(opts.take_str("node-name")?)?;
        // (Its number comes after its children's.)
        common.owner = Owner { node: self.next_key(), generation: 0 };
        common.node_name.clone_from(&name);
        let driver = (def.open)(self, &mut common, &mut opts)?;
        opts.finish_driver(def.name)?;
        check_depth(&driver.children())?;
        if self.find_node(&name).is_some() {
            // A child has taken it.
            return Err(Error::generic(format!("Duplicate nodes with node-name='{name}'")));
        }
        let node = Node::new(name, def, Opened { common, driver: driver.into() }, recipe);
        self.register(&node, self.next_key());
        Ok(node)
    }

    pub(crate) fn find_driver(name: &str, text: bool) -> Result<&'static DriverDef> {
        driver::find(name).ok_or_else(|| {
            let known: Vec<&str> = driver::all().iter().map(|d| d.name).collect();
            let accepted = known.join(", ");
            Error::generic(if text {
                format!("Unknown driver '{name}' (known: {accepted})")
            } else {
                format!("Parameter 'driver' does not accept value '{name}' (accepted: {accepted})")
            })
        })
    }

    fn open_node(&self, mut opts: Opts, parent: Option<&Common>) -> Result<Arc<Node>> {
        let name = opts.require_str("driver")?;
        let def = Self::find_driver(&name, opts.is_text())?;
        let recipe = Recipe { given: opts.clone(), inherited: parent.cloned() };
        let common = Common::take(&mut opts, parent)?;
        self.open_with(def, common, opts, recipe)
    }

    /// A driver's child: named, or made from options that inherit from `parent`.
    ///
    /// # Errors
    /// There is none, or it cannot be opened.
    pub fn open_child(&self, opts: &mut Opts, key: &str, parent: &Common) -> Result<Arc<Node>> {
        let child = self.open_below(opts, key, parent)?;
        if child.driver().limits().is_some() {
            // Formats and protocols do their work on threads, which limits would have to block.
            return Err(Error::generic(format!(
                "Node '{}' has driver 'throttle', which can only be below a drive or a filter",
                child.name()
            )));
        }
        Ok(child)
    }

    /// [`Blocks::open_child`] for filters, which may be above others.
    pub(crate) fn open_below(&self, opts: &mut Opts, key: &str, parent: &Common) -> Result<Arc<Node>> {
        match opts.take_child(key)? {
            None => Err(Error::generic("A block device must be specified for \"file\"")),
            Some(Child::Reference(name)) => self
                .find_node(&name)
                .ok_or_else(|| Error::generic(format!("Cannot find device='{name}' nor node-name='{name}'"))),
            Some(Child::Inline(inner)) => self.open_node(inner, Some(parent)),
        }
    }

    /// A child that an image names: the option's, or the file of that name beside the image.
    pub(crate) fn open_beside(
        &self,
        opts: &mut Opts,
        key: &str,
        parent: &Common,
        image: &str,
        name: Option<&str>,
    ) -> Result<Option<Arc<Node>>> {
        if opts.has(key) {
            return self.open_child(opts, key, parent).map(Some);
        }
        let Some(name) = name else { return Ok(None) };
        // A name in an image is a file's: it chooses no driver, no option and no other node.
        let mut child = Opts::default();
        child.or_insert("driver", "file");
        child.or_insert("filename", beside(image, name));
        let mut file = Opts::default();
        file.put_object("file", child);
        self.open_child(&mut file, "file", parent).map(Some)
    }

    /// The backing file: the option's (null: none), else the one that the image names, read-only.
    pub(crate) fn open_backing(&self, opts: &mut Opts, top: &Common, named: &Backing<'_>) -> Result<Option<Arc<Node>>> {
        if opts.take_null("backing") {
            return Ok(None);
        }
        let (mut inner, mut name) = (opts.empty(), named.name);
        match opts.take_child("backing")? {
            Some(Child::Reference(node)) if node.is_empty() => return Ok(None),
            Some(Child::Reference(node)) => {
                let found = self.find_node(&node);
                return found
                    .map(Some)
                    .ok_or_else(|| Error::generic(format!("Cannot find device='{node}' nor node-name='{node}'")));
            }
            Some(Child::Inline(options)) => {
                inner = options;
                if inner.has("file") {
                    name = None;
                }
            }
            None if name.is_none() => return Ok(None),
            None => {}
        }
        let failed = |e: Error| Error::generic(format!("Could not open backing file: {e}"));
        let mut parent = Common { read_only: true, auto_read_only: false, probed: false, ..top.clone() };
        parent.detect_zeroes = crate::node::DetectZeroes::Off;
        parent.chain.push(std::fs::canonicalize(named.image).unwrap_or_else(|_| named.image.into()));
        if parent.chain.len() > MAX_CHAIN {
            return Err(Error::generic(format!("Backing chain of '{}' is too long", named.image)));
        }
        let full = name.map(|n| beside(named.image, n));
        if let Some(full) = &full {
            if std::fs::canonicalize(full).is_ok_and(|path| parent.chain.contains(&path)) {
                return Err(Error::generic(format!("Backing file '{full}' of image '{}' creates a loop", named.image)));
            }
            if let (Some(format), false) = (named.format, inner.has("driver")) {
                inner.or_insert("driver", format);
            }
            inner = with_file(inner, full).map_err(failed)?;
        }
        let recipe = Recipe { given: inner.clone(), inherited: Some(parent.clone()) };
        let format = inner.take_str("driver")?;
        let common = Common::take(&mut inner, Some(&parent))?;
        let node = match format {
            Some(format) => Self::find_driver(&format, true).and_then(|def| self.open_with(def, common, inner, recipe)),
            None => self.probe(common, inner, full.as_deref().unwrap_or_default(), recipe),
        };
        node.map(Some).map_err(failed)
    }

    /// `blockdev-add`, `-blockdev`.
    ///
    /// # Errors
    /// An option that is none, or an image that cannot be opened: nothing is left behind.
    pub fn blockdev_add(&self, opts: Opts) -> Result<Arc<Node>> {
        if !opts.has("driver") {
            return Err(Error::generic("Parameter 'driver' is missing"));
        }
        if !opts.has("node-name") {
            return Err(Error::generic("'node-name' must be specified for the root node"));
        }
        let node = self.open_node(opts, None)?;
        self.own(&node);
        Ok(node)
    }

    /// The node stays until [`Blocks::blockdev_del`].
    fn own(&self, node: &Arc<Node>) {
        if let Some(named) = self.inner.lock().nodes.values_mut().find(|n| n.node.ptr_eq(&Arc::downgrade(node))) {
            named.owned = Some(node.clone());
        }
    }

    /// `blockdev-del`.
    ///
    /// # Errors
    /// No such node, not made by `blockdev-add`, or in use.
    pub fn blockdev_del(&self, name: &str) -> Result<()> {
        let none = || Error::generic(format!("Failed to find node with node-name='{name}'"));
        let node = self.find_node(name).ok_or_else(none)?;
        let owned = {
            let mut s = self.inner.lock();
            let named = s.nodes.values_mut().find(|n| n.node.ptr_eq(&Arc::downgrade(&node))).ok_or_else(none)?;
            if node.in_use() {
                return Err(Error::generic(format!("Node {name} is in use")));
            }
            named.owned.take().ok_or_else(|| Error::generic(format!("Node {name} is not owned by the monitor")))?
        };
        drop(owned);
        drop(node);
        self.inner.lock().nodes.retain(|_, n| n.node.strong_count() > 0);
        Ok(())
    }

    /// `block_resize`: waits for all requests first.
    ///
    /// # Errors
    /// Another user is in the way, a driver that cannot, or as the host says.
    pub fn resize(&self, node: &Arc<Node>, size: u64) -> Result<()> {
        if !size.is_multiple_of(crate::SECTOR) {
            return Err(Error::generic(format!("The new size must be a multiple of {}", crate::SECTOR)));
        }
        node.not_busy()?;
        self.drain();
        let _edge = Edge::new(node, "block_resize", Perm::RESIZE, Perm::all())?;
        node.resize(size).map_err(|e| Error::generic(format!("Could not resize '{}': {}", node.name(), plain(&e))))
    }

    /// `blockdev-snapshot-sync`: makes (or takes, if it is there) a qcow2 image `file` whose backing file is the medium of `drive`, and
    /// has the drive write to it from now on. Waits for all requests first.
    ///
    /// # Errors
    /// No medium, read-only, a name that is taken, or as the host says: the drive is as it was.
    pub fn snapshot(&self, drive: &Arc<Backend>, file: &str, node_name: Option<&str>, exists: bool) -> Result<()> {
        let base = drive.root().ok_or_else(|| Error::generic(format!("Device '{}' has no medium", drive.name())))?;
        base.not_busy()?;
        if base.is_read_only() {
            return Err(Error::generic(format!("Node '{}' is read-only", base.name())));
        }
        if node_name.is_some() {
            self.node_name(node_name.map(str::to_owned))?; // free, before anything is made
        }
        self.drain();
        let failed = |e: std::io::Error| Error::generic(format!("Could not create '{file}': {}", plain(&e)));
        base.flush().map_err(failed)?;
        if !exists {
            let (name, format) = self.nameable(&base)?;
            let size = base.len().map_err(failed)?;
            std::fs::File::options().create(true).append(true).open(file).map_err(failed)?;
            let opts = Opts::keyval([("driver", "file"), ("filename", file)])?;
            let target = self.open_node(opts, None)?;
            // Whoever uses that file is in the way.
            let _edge = Edge::new(&target, "create", Perm::READ | Perm::WRITE | Perm::RESIZE, Perm::empty())?;
            crate::drivers::create_qcow2(&target, size, &name, &format).map_err(failed)?;
        }
        let options = [("file.driver", "file"), ("file.filename", file), ("backing", base.name())];
        let opts = Opts::keyval(options.into_iter().chain(node_name.map(|n| ("node-name", n))))?;
        let word = |on: bool| if on { "on" } else { "off" };
        let base_common = base.common();
        let inherited = [
            ("cache.direct", word(base_common.cache.direct)),
            ("cache.no-flush", word(base_common.cache.no_flush)),
            ("discard", word(base_common.unmap)),
            ("detect-zeroes", base_common.detect_zeroes.name()),
        ];
        let given = Opts::keyval(options.into_iter().chain(inherited))?;
        let common = Common { probed: false, ..base_common };
        let recipe = Recipe { given, inherited: None };
        let overlay = self.open_with(Self::find_driver("qcow2", true)?, common, opts, recipe)?;
        drive.replace_root(&overlay)
    }

    // ---- drives ----

    /// The drives whose medium a node is.
    pub fn drives_on(&self, node: &Arc<Node>) -> Vec<Arc<Backend>> {
        let over = |b: &Arc<Backend>| b.root().is_some_and(|n| Arc::ptr_eq(&n, node));
        self.backends().into_iter().filter(over).collect()
    }

    /// All drives: those with names, then those of devices that name a node.
    pub fn backends(&self) -> Vec<Arc<Backend>> {
        let s = self.inner.lock();
        s.backends.iter().cloned().chain(s.anonymous.iter().filter_map(Weak::upgrade)).collect()
    }

    /// The drive called `name`.
    pub fn backend(&self, name: &str) -> Option<Arc<Backend>> {
        self.inner.lock().backends.iter().find(|b| b.name() == name).cloned()
    }

    /// The drive of a device by its id or path, or by the drive's own name.
    pub fn backend_of_device(&self, id: &str) -> Option<Arc<Backend>> {
        self.backends().into_iter().find(|b| b.qdev().as_deref() == Some(id))
    }

    /// A drive without a name, for a device: over the node, or empty.
    ///
    /// # Errors
    /// The node cannot be used.
    pub fn anonymous(&self, node: Option<&Arc<Node>>) -> Result<Arc<Backend>> {
        let backend = Backend::new(String::new(), None, self.pool.0.clone());
        backend.set_root(node)?;
        let mut s = self.inner.lock();
        s.anonymous.retain(|b| b.strong_count() > 0);
        s.anonymous.push(Arc::downgrade(&backend));
        Ok(backend)
    }

    /// The drive that `-drive` put at a place.
    pub fn drive_at(&self, interface: Interface, bus: u32, unit: u32) -> Option<Arc<Backend>> {
        let at = |b: &&Arc<Backend>| b.legacy().is_some_and(|l| (l.interface, l.bus, l.unit) == (interface, bus, unit));
        self.inner.lock().backends.iter().find(at).cloned()
    }

    fn place(&self, c: &DriveConfig) -> Result<(u32, u32)> {
        let max = c.interface.max_devs();
        let (bus, unit) = match (c.index, c.bus, c.unit) {
            (Some(_), Some(_), _) | (Some(_), _, Some(_)) => {
                return Err(Error::generic("index cannot be used with bus and unit"));
            }
            (Some(index), None, None) if max > 0 => (index / max, index % max),
            (Some(index), None, None) => (0, index),
            (None, bus, Some(unit)) => (bus.unwrap_or(0), unit),
            (None, bus, None) => {
                // The first free unit, over all buses unless one was named.
                let mut at = (bus.unwrap_or(0), 0);
                while self.drive_at(c.interface, at.0, at.1).is_some() {
                    at.1 += 1;
                    if max > 0 && at.1 >= max {
                        let bus = at.0.checked_add(1).ok_or_else(|| Error::generic("no unit is free"))?;
                        at = (bus, 0);
                    }
                }
                at
            }
        };
        if max > 0 && unit >= max {
            return Err(Error::generic(format!("unit {unit} too big (max is {})", max - 1)));
        }
        if self.drive_at(c.interface, bus, unit).is_some() {
            let index = u64::from(bus) * u64::from(max) + u64::from(unit);
            return Err(Error::generic(format!("drive with bus={bus}, unit={unit} (index={index}) exists")));
        }
        Ok((bus, unit))
    }

    /// `-drive`.
    ///
    /// # Errors
    /// A place or id that is taken, an image that cannot be opened.
    pub fn add_drive(&self, config: DriveConfig) -> Result<Arc<Backend>> {
        let (bus, unit) = self.place(&config)?;
        let name = config.id.clone().unwrap_or_else(|| {
            let media = match (config.interface, config.cdrom) {
                (Interface::Ide, true) => "-cd",
                (Interface::Ide, false) => "-hd",
                _ => "",
            };
            let word = config.interface.name();
            if config.interface.max_devs() > 0 {
                format!("{word}{bus}{media}{unit}")
            } else {
                format!("{word}{media}{unit}")
            }
        });
        if self.backend(&name).is_some() {
            return Err(Error::generic(format!("Duplicate ID '{name}' for drive")));
        }
        if self.find_node(&name).is_some() {
            return Err(Error::generic(format!("Device name '{name}' conflicts with an existing node name")));
        }
        let legacy = Legacy { interface: config.interface, bus, unit, cdrom: config.cdrom };
        let backend = Backend::new(name, Some(legacy), self.pool.0.clone());
        backend.set_write_cache(config.write_cache);
        backend.set_policy(config.policy);
        let mut opts = config.opts.clone();
        backend.set_copy_on_read(config.copy_on_read);
        if config.limits != Limits::default() || config.group.is_some() {
            let group = self.group(config.group.as_deref().unwrap_or(backend.name()));
            if config.limits != Limits::default() {
                group.set_limits(config.limits)?;
            }
            backend.set_group(Some(group));
        }
        backend.set_read_only(config.cdrom || opts.clone().take_bool("read-only")?.unwrap_or(false));
        if config.file.is_some() || opts.has("file") {
            let node = self.open_image(config.file.as_deref(), opts, config.cdrom, config.snapshot)?;
            backend.set_root(Some(&node))?;
        } else if let Some(driver) = opts.take_str("driver")? {
            if Self::find_driver(&driver, true)?.protocol {
                let mut whole = config.opts.clone();
                whole.or_insert("driver", driver);
                let node = self.open_node(whole, None)?;
                backend.set_root(Some(&node))?;
            } else {
                return Err(Error::generic("A block device must be specified for \"file\""));
            }
        }
        self.inner.lock().backends.push(backend.clone());
        Ok(backend)
    }

    /// `drive_add -n`: as [`Blocks::blockdev_add`], but a format may be guessed.
    ///
    /// # Errors
    /// As [`Blocks::blockdev_add`].
    pub fn node_add(&self, opts: Opts) -> Result<Arc<Node>> {
        if !opts.has("node-name") {
            return Err(Error::generic("'node-name' needs to be specified"));
        }
        let node =
            if opts.has("driver") { self.open_node(opts, None)? } else { self.open_image(None, opts, false, false)? };
        self.own(&node);
        Ok(node)
    }

    /// `drive_del`: the drive's name is free, and so is what was in it. A device that has it finds no medium there any more. Waits for all requests first.
    ///
    /// # Errors
    /// A job has the image, or what was written cannot be made stable.
    pub fn drive_del(&self, drive: &Arc<Backend>) -> Result<()> {
        if let Some(root) = drive.root() {
            root.not_busy()?;
            self.drain();
            let failed = |e| Error::generic(format!("Could not flush the medium of '{}': {}", drive.name(), plain(&e)));
            root.flush().map_err(failed)?;
        }
        drive.delete()?;
        let mut s = self.inner.lock();
        s.backends.retain(|b| !Arc::ptr_eq(b, drive));
        s.anonymous.retain(|b| b.strong_count() > 0);
        s.anonymous.push(Arc::downgrade(drive));
        Ok(())
    }

    /// A device is gone: what `-drive` made for it goes too. On the main loop's thread with no lock held.
    pub fn device_deleted(&self, path: &str) {
        let below = |p: String| p.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        for drive in self.backends() {
            let ours = drive.legacy().is_some() && !drive.name().is_empty() && !drive.is_attached();
            let orphan = ours && drive.left_by().is_some_and(below);
            // (Other disks are at work: nothing new begins while this waits for them.)
            if orphan && let Some(Err(e)) = self.quiet(|| self.drive_del(&drive)) {
                self.warn(&format!("the drive '{}' stays: {e}", drive.name()));
            }
        }
    }

    /// Opens an image as `-drive` and `blockdev-change-medium` name it. Without `driver` its format is guessed.
    ///
    /// # Errors
    /// As the drivers say.
    pub fn open_image(&self, file: Option<&str>, mut opts: Opts, read_only: bool, snapshot: bool) -> Result<Arc<Node>> {
        if let Some(file) = file {
            opts = with_file(opts, file)?;
        }
        if read_only {
            opts.or_insert("read-only", true);
        }
        let mut recipe = Recipe { given: opts.clone(), inherited: None };
        let format = opts.take_str("driver")?;
        let overlay = if snapshot { opts.clone().take_str("node-name")? } else { None };
        let mut common = Common::take(&mut opts, None)?;
        let snapshot = snapshot && !common.read_only;
        if snapshot {
            common.read_only = true;
            recipe.given.or_insert("read-only", true);
            _ = opts.take_str("node-name")?;
        }
        let node = match format {
            Some(format) => {
                self.open_with(Self::find_driver(&format, opts.is_text())?, common.clone(), opts, recipe)?
            }
            None => self.probe(common.clone(), opts, file.unwrap_or_default(), recipe)?,
        };
        if !snapshot {
            return Ok(node);
        }
        let top = crate::drivers::on_top(&node, self.node_name(overlay)?, &common)?;
        self.register(&top, self.next_key());
        Ok(top)
    }

    fn probe(&self, mut common: Common, mut opts: Opts, shown: &str, recipe: Recipe) -> Result<Arc<Node>> {
        let child = self.open_child(&mut opts, "file", &common)?;
        let mut head = vec![0; probe::HEAD];
        let failed = |e: std::io::Error| {
            Error::generic(format!("Could not read image for determining its format: {}", plain(&e)))
        };
        child.read(0, &mut head).map_err(failed)?;
        let format = probe::format_of(&head);
        let Some(def) = driver::find(format) else {
            return Err(Error::generic(format!(
                "Could not open '{shown}': it is a {format} image, a format that is not built yet"
            )));
        };
        if format == "raw" && !common.read_only {
            self.warn(&format!(
                "WARNING: Image format was not specified for '{shown}' and probing guessed raw.\n         \
                 Automatically detecting the format is dangerous for raw images, write operations on block 0 will be restricted.\n         \
                 Specify the 'raw' format explicitly to remove the restrictions."
            ));
            common.probed = true;
        }
        opts.or_insert("file", child.name());
        self.open_with(def, common, opts, recipe)
    }

    // ---- limits ----

    /// The group called `name`, if somebody uses it.
    pub fn find_group(&self, name: &str) -> Option<Arc<Group>> {
        self.inner.lock().groups.get(name).and_then(Weak::upgrade)
    }

    /// The group called `name`: the one there is, or a new one without limits.
    pub fn group(&self, name: &str) -> Arc<Group> {
        if let Some(found) = self.find_group(name) {
            return found;
        }
        let made = Group::new(name, &self.clocks());
        let mut s = self.inner.lock();
        s.groups.retain(|_, g| g.strong_count() > 0);
        s.groups.insert(name.to_owned(), Arc::downgrade(&made));
        made
    }

    /// `block_set_io_throttle`: the limits of a drive's group; none: it leaves the group.
    ///
    /// # Errors
    /// No medium, or limits that make no sense together.
    pub fn set_throttle(&self, drive: &Arc<Backend>, limits: Limits, group: Option<&str>) -> Result<()> {
        limits.check()?;
        if drive.root().is_none() {
            return Err(Error::generic(format!("Device '{}' has no medium", drive.label())));
        }
        if !limits.any() {
            // (What waits goes first.)
            if let Some(old) = drive.group() {
                old.lift(true);
                drive.set_group(None);
                old.lift(false);
            }
            return Ok(());
        }
        let own = drive.qdev().filter(|_| drive.name().is_empty());
        let now = drive.group().map(|g| g.name().to_owned());
        let name = group.map(str::to_owned).or(now).or(own).unwrap_or_else(|| drive.name().to_owned());
        let group = self.group(&name);
        group.set_limits(limits)?;
        let old = drive.group();
        drive.set_group(Some(group.clone()));
        if let Some(old) = old.filter(|o| !Arc::ptr_eq(o, &group)) {
            old.lift(true);
            old.lift(false);
        }
        Ok(())
    }

    fn groups(&self) -> Vec<Arc<Group>> {
        self.inner.lock().groups.values().filter_map(Weak::upgrade).collect()
    }
}

/// Checks how many nodes are on top of each other below a new one. (Requests go down by calls.)
///
/// # Errors
/// Too many.
pub(crate) fn check_depth(children: &[(&'static str, Arc<Node>)]) -> Result<()> {
    fn depth(node: &Arc<Node>, known: &mut HashMap<*const Node, usize>) -> usize {
        if let Some(found) = known.get(&Arc::as_ptr(node)) {
            return *found;
        }
        let below = node.driver().children().iter().map(|(_, n)| depth(n, known)).max().unwrap_or(0);
        known.insert(Arc::as_ptr(node), below + 1);
        below + 1
    }
    let mut known = HashMap::new();
    if children.iter().any(|(_, n)| depth(n, &mut known) >= MAX_CHAIN) {
        return Err(Error::generic("Too many nodes on top of each other"));
    }
    Ok(())
}

/// Puts the image that `file=` names below `opts`.
fn with_file(mut opts: Opts, file: &str) -> Result<Opts> {
    if let Some(json) = file.strip_prefix("json:") {
        let parsed: Value =
            serde_json::from_str(json).map_err(|e| Error::generic(format!("Could not parse the JSON options: {e}")))?;
        let Value::Object(map) = parsed else { return Err(Error::generic("Invalid JSON object given")) };
        let inner = Opts::json(map);
        for (key, value) in inner.into_map() {
            opts.or_insert(&key, value);
        }
        return Ok(opts);
    }
    let mut child = opts.take_object("file")?.unwrap_or_else(|| opts.empty());
    let scheme = file
        .split_once(':')
        .map(|(s, _)| s)
        .filter(|s| s.len() > 1 && s.chars().all(|c| c.is_ascii_alphanumeric() || "+-._".contains(c)));
    let (driver, name) = match scheme {
        _ if child.has("driver") => (None, file),
        Some("null-co") => (Some("null-co"), ""),
        Some(s @ ("file" | "host_device")) => (Some(s), file.get(s.len() + 1..).unwrap_or_default()),
        Some(scheme) => return Err(Error::generic(format!("Unknown protocol '{scheme}'"))),
        None => {
            let kind = std::fs::metadata(file).map(|m| m.file_type());
            let device = kind.is_ok_and(|k| k.is_block_device() || k.is_char_device());
            (Some(if device { "host_device" } else { "file" }), file)
        }
    };
    if let Some(driver) = driver {
        child.or_insert("driver", driver);
    }
    if !name.is_empty() {
        child.or_insert("filename", name);
    }
    opts.put_object("file", child);
    Ok(opts)
}

/// The word of `werror` or `rerror`.
///
/// # Errors
/// It is none, or one that the other takes only.
pub fn on_error(word: &str, read: bool) -> Result<OnError> {
    match word {
        "ignore" => Ok(OnError::Ignore),
        "stop" => Ok(OnError::Stop),
        "report" => Ok(OnError::Report),
        "enospc" if !read => Ok(OnError::Enospc),
        _ => Err(Error::generic(format!("'{word}' invalid {} error action", if read { "read" } else { "write" }))),
    }
}
