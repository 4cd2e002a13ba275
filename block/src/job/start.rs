//! How jobs begin: `block-stream` and `block-commit`, and what both change in a chain.

use super::commit::{Commit, Dirty};
use super::stream::Stream;
use super::{Job, Kind, Status, Task, chain};
use crate::OnError;
use crate::blocks::{Blocks, plain};
use crate::node::{Edge, Frozen, Node, Owner, Perm};
use crate::reopen::Other;
use parking_lot::Mutex;
use qom::{Error, Result};
use std::sync::Arc;

/// Arguments of both commands, as QAPI has them.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "QAPI's names")]
pub struct JobOptions {
    pub job_id: Option<String>,
    pub device: String,
    pub base: Option<String>,
    pub base_node: Option<String>,
    pub bottom: Option<String>,
    pub top: Option<String>,
    pub top_node: Option<String>,
    pub backing_file: Option<String>,
    pub speed: u64,
    pub on_error: OnError,
    pub auto_finalize: bool,
    pub auto_dismiss: bool,
}

impl Default for JobOptions {
    fn default() -> Self {
        Self {
            job_id: None,
            device: String::new(),
            base: None,
            base_node: None,
            bottom: None,
            top: None,
            top_node: None,
            backing_file: None,
            speed: 0,
            on_error: OnError::Report,
            auto_finalize: true,
            auto_dismiss: true,
        }
    }
}

/// What others may do with a layer that a job reads.
fn shared() -> Perm {
    Perm::READ | Perm::WRITE_UNCHANGED
}

fn io(what: &str, node: &Node) -> impl Fn(std::io::Error) -> Error {
    let text = format!("{what} '{}'", node.name());
    move |e| Error::generic(format!("{text}: {}", plain(&e)))
}

/// Has a node that was opened for writing be what its options say again.
pub(super) fn make_read_only(blocks: &Blocks, node: &Arc<Node>) {
    if let Err(e) = blocks.reopen_with(node, &Other::default()) {
        blocks.warn(&format!("warning: node '{}' stays writable: {e}", node.name()));
    }
}

/// Gives an image another backing file, or none, in its header and here. What it shows must be the same with both. Nothing is under way.
pub(super) fn change_backing(
    blocks: &Blocks,
    node: &Arc<Node>,
    base: Option<&Arc<Node>>,
    named: Option<&(String, String)>,
) -> Result<()> {
    let was_read_only = node.is_read_only();
    if was_read_only {
        blocks.reopen_with(node, &Other { read_only: Some(false), ..Other::default() })?;
    }
    let changed = node
        .flush()
        .and_then(|()| node.driver().set_backing_name(named.map(|(n, f)| (n.as_str(), f.as_str()))))
        .map_err(io("Could not change the backing file of", node))
        .and_then(|()| blocks.reopen_with(node, &Other { backing: Some(base.cloned()), ..Other::default() }));
    if changed.is_err() && was_read_only {
        make_read_only(blocks, node);
    }
    changed
}

impl Blocks {
    /// A name by which an image can call `node` its backing file, and its format.
    ///
    /// # Errors
    /// Its options say more than a name can.
    pub(crate) fn nameable(&self, node: &Arc<Node>) -> Result<(String, String)> {
        let driver = node.driver();
        let below = driver.children().first().map(|(_, n)| n.clone());
        let cannot = || Error::generic(format!("An overlay cannot name node '{}' as its backing file", node.name()));
        if node.is_protocol() || driver.filtered().is_some() || !below.as_ref().is_some_and(|n| n.is_protocol()) {
            return Err(cannot());
        }
        if node.driver_name() == "raw" && below.is_some_and(|n| n.len().ok() != node.len().ok()) {
            return Err(Error::generic("An overlay cannot name a part of a raw image as its backing file"));
        }
        let path = std::fs::canonicalize(driver.filename()).map_err(|_| cannot())?;
        let name = path.to_str().ok_or_else(|| Error::generic("The image's name is not UTF-8"))?;
        Ok((name.to_owned(), node.driver_name().to_owned()))
    }

    /// The node that `device` says, and the id that a job of it has by default.
    fn job_device(&self, device: &str) -> Result<(Option<String>, Arc<Node>)> {
        if let Some(drive) = self.backend(device) {
            let none = || Error::generic(format!("Device '{device}' has no medium"));
            return Ok((Some(device.to_owned()), drive.root().ok_or_else(none)?));
        }
        let none = || Error::generic(format!("Cannot find device='{device}' nor node-name='{device}'"));
        let node = self.find_node(device).ok_or_else(none)?;
        let drive = self.drives_on(&node).into_iter().find(|d| !d.name().is_empty());
        Ok((drive.map(|d| d.name().to_owned()), node))
    }

    fn job_id(&self, given: Option<&String>, default: Option<String>) -> Result<String> {
        let none = || Error::generic("An explicit job ID is required for this node");
        let id = given.cloned().or(default).ok_or_else(none)?;
        if !qom::is_well_formed_id(&id) {
            return Err(Error::generic(format!("Invalid job ID '{id}'")));
        }
        if self.has_job(&id) {
            return Err(Error::generic(format!("Job ID '{id}' already in use")));
        }
        Ok(id)
    }

    /// The policy: `auto` is the drive's.
    fn job_policy(&self, o: &JobOptions, device: &Arc<Node>) -> OnError {
        match o.on_error {
            OnError::Auto => match self.drives_on(device).first().map(|d| d.policy().read) {
                None | Some(OnError::Auto) => OnError::Report,
                Some(policy) => policy,
            },
            policy => policy,
        }
    }

    fn begin_job(&self, id: String, kind: Kind, o: &JobOptions, on_error: OnError, task: Box<dyn Task>) {
        let mut job = Job {
            id,
            kind,
            status: Status::Null,
            progress: task.progress(),
            task: Some(task),
            user_paused: false,
            cancelled: false,
            completing: None,
            idle: false,
            ready: false,
            speed: o.speed,
            on_error,
            io_status: "ok",
            error: None,
            auto_finalize: o.auto_finalize,
            auto_dismiss: o.auto_dismiss,
            not_before: 0,
        };
        self.to_status(&mut job, Status::Created);
        self.to_status(&mut job, Status::Running);
        let job = Arc::new(Mutex::new(job));
        self.jobs.list.lock().push(job.clone());
        self.advance(&job);
    }

    /// A layer below `top` by its file's name.
    fn layer_by_name(layers: &[Arc<Node>], name: &str) -> Option<Arc<Node>> {
        let full = std::fs::canonicalize(name).ok();
        let is = |n: &&Arc<Node>| {
            let own = n.driver().filename();
            own == name || (full.is_some() && std::fs::canonicalize(own).ok() == full)
        };
        layers.iter().find(is).cloned()
    }

    /// A layer below `top` by its node's name.
    fn layer_by_node(&self, layers: &[Arc<Node>], name: &str, of: &Node) -> Result<Arc<Node>> {
        let none = || Error::generic(format!("Cannot find device='' nor node-name='{name}'"));
        let node = chain::unfiltered(&self.find_node(name).ok_or_else(none)?);
        let found = layers.iter().any(|n| Arc::ptr_eq(n, &node));
        let outside = || Error::generic(format!("Node '{name}' is not a backing image of '{}'", of.name()));
        if found { Ok(node) } else { Err(outside()) }
    }

    /// Layers from `top` down to `last`, which are there as long as the job is.
    fn hold(layers: &[Arc<Node>], job: &str) -> Result<(Vec<Edge>, Vec<Frozen>)> {
        layers.iter().try_for_each(|n| n.not_busy())?;
        let edges = layers.iter().map(|n| Edge::new(n, &format!("job '{job}'"), Perm::READ, shared()));
        Ok((edges.collect::<Result<_>>()?, layers.iter().map(Node::freeze).collect()))
    }

    /// `block-stream`. On the main loop's thread with no lock held.
    ///
    /// # Errors
    /// Layers that are none, a user who is in the way, or an image that cannot have another backing file.
    pub fn block_stream(&self, o: &JobOptions) -> Result<()> {
        let both = |a: &Option<String>, b: &Option<String>, text: &str| {
            if a.is_some() && b.is_some() { Err(Error::generic(text)) } else { Ok(()) }
        };
        both(&o.base, &o.base_node, "'base' and 'base-node' cannot be specified at the same time")?;
        both(&o.base, &o.bottom, "'base' and 'bottom' cannot be specified at the same time")?;
        both(&o.bottom, &o.base_node, "'bottom' and 'base-node' cannot be specified at the same time")?;
        let (default, device) = self.job_device(&o.device)?;
        let id = self.job_id(o.job_id.as_ref(), default)?;
        let layers = chain::layers(&device);
        let top = layers.first().cloned().unwrap_or_else(|| device.clone());
        let below = layers.get(1..).unwrap_or_default();
        let base = match (&o.base, &o.base_node, &o.bottom) {
            (Some(name), ..) => {
                let none = || Error::generic(format!("Can't find '{name}' in the backing chain"));
                Some(Self::layer_by_name(below, name).ok_or_else(none)?)
            }
            (_, Some(name), _) => Some(self.layer_by_node(below, name, &device)?),
            (.., Some(name)) => {
                let bottom = self.layer_by_node(&layers, name, &device)?;
                bottom.backing().map(|b| chain::unfiltered(&b))
            }
            _ => None,
        };
        if base.is_none() && o.backing_file.is_some() {
            return Err(Error::generic("backing file specified, but streaming the entire chain"));
        }
        let named = match (&base, &o.backing_file) {
            (Some(base), Some(name)) => Some((name.clone(), base.driver_name().to_owned())),
            (Some(base), None) => Some(self.nameable(base)?),
            (None, _) => None,
        };
        if !below.is_empty() && top.driver_name() != "qcow2" {
            return Err(Error::generic(format!(
                "Driver '{}' of node '{}' does not support another backing file",
                top.driver_name(),
                top.name()
            )));
        }
        let len = top.len().map_err(io("Could not get the size of", &top))?;
        let until = base.as_ref().and_then(|b| layers.iter().position(|n| Arc::ptr_eq(n, b)));
        let between = layers.get(1..until.unwrap_or(layers.len())).unwrap_or_default();
        top.not_busy()?;
        let (mut edges, mut frozen) = Self::hold(between, &id)?;
        let was_read_only = top.is_read_only();
        if was_read_only && !below.is_empty() {
            let write = Other { read_only: Some(false), ..Other::default() };
            self.quiet(|| self.reopen_with(&top, &write)).unwrap_or(Ok(()))?;
        }
        let edge = Edge::new(
            &top,
            &format!("job '{id}'"),
            if was_read_only && below.is_empty() { Perm::READ } else { Perm::READ | Perm::WRITE_UNCHANGED },
            Perm::all() - Perm::RESIZE,
        );
        let edge = edge.inspect_err(|_| {
            if was_read_only {
                make_read_only(self, &top);
            }
        })?;
        edges.push(edge);
        frozen.push(top.freeze());
        let on_error = self.job_policy(o, &device);
        let task = Stream { top, base, named, len, at: 0, tried: 0, was_read_only, edges, frozen };
        self.begin_job(id, Kind::Stream, o, on_error, Box::new(task));
        Ok(())
    }

    /// `block-commit`. On the main loop's thread with no lock held.
    ///
    /// # Errors
    /// As [`Blocks::block_stream`].
    pub fn block_commit(&self, o: &JobOptions) -> Result<()> {
        // (libvirt asks with a device that there is not whether the command works: this comes first, and its class is known.)
        if self.backend(&o.device).is_none() && self.find_node(&o.device).is_none() {
            let desc = format!("Device '{}' not found", o.device);
            return Err(Error::Class { class: "DeviceNotFound", desc });
        }
        let both = |a: &Option<String>, b: &Option<String>, text: &str| {
            if a.is_some() && b.is_some() { Err(Error::generic(text)) } else { Ok(()) }
        };
        both(&o.top, &o.top_node, "'top-node' and 'top' are mutually exclusive")?;
        both(&o.base, &o.base_node, "'base-node' and 'base' are mutually exclusive")?;
        let (default, device) = self.job_device(&o.device)?;
        let id = self.job_id(o.job_id.as_ref(), default)?;
        let layers = chain::layers(&device);
        let active = layers.first().cloned().unwrap_or_else(|| device.clone());
        let top = match (&o.top, &o.top_node) {
            (Some(name), _) => {
                let none = || Error::generic(format!("Top image file {name} not found"));
                Self::layer_by_name(&layers, name).ok_or_else(none)?
            }
            (_, Some(name)) => self.layer_by_node(&layers, name, &device)?,
            _ => active.clone(),
        };
        let top_at = layers.iter().position(|n| Arc::ptr_eq(n, &top)).unwrap_or(0);
        let below = layers.get(top_at + 1..).unwrap_or_default();
        let base = match (&o.base, &o.base_node) {
            (Some(name), _) => {
                let none = || Error::generic(format!("Can't find '{name}' in the backing chain"));
                Self::layer_by_name(layers.get(top_at..).unwrap_or_default(), name).ok_or_else(none)?
            }
            (_, Some(name)) => self.layer_by_node(layers.get(top_at..).unwrap_or_default(), name, &device)?,
            _ => layers.last().cloned().unwrap_or_else(|| top.clone()),
        };
        if Arc::ptr_eq(&top, &base) {
            return Err(Error::generic("cannot commit an image into itself"));
        }
        let overlay = match top_at.checked_sub(1).and_then(|n| layers.get(n)) {
            None if o.backing_file.is_some() => {
                return Err(Error::generic("'backing-file' specified, but 'top' is the active layer"));
            }
            None => None,
            Some(overlay) if overlay.driver_name() != "qcow2" => {
                return Err(Error::generic(format!(
                    "Driver '{}' of node '{}' does not support another backing file",
                    overlay.driver_name(),
                    overlay.name()
                )));
            }
            Some(overlay) => {
                let named = match &o.backing_file {
                    Some(name) => (name.clone(), base.driver_name().to_owned()),
                    None => self.nameable(&base)?,
                };
                Some((overlay.clone(), named))
            }
        };
        let base_at = below.iter().position(|n| Arc::ptr_eq(n, &base)).unwrap_or(0);
        let mut held: Vec<Arc<Node>> = below.get(..base_at).unwrap_or_default().to_vec();
        let above_base = held.last().unwrap_or(&top).clone();
        top.not_busy()?;
        base.not_busy()?;
        if let Some((overlay, _)) = &overlay {
            overlay.not_busy()?;
            held.push(top.clone());
        }
        let (mut edges, mut frozen) = Self::hold(&held, &id)?;
        let len = top.len().map_err(io("Could not get the size of", &top))?;
        let was_read_only = base.is_read_only();
        if was_read_only {
            let write = Other { read_only: Some(false), ..Other::default() };
            self.quiet(|| self.reopen_with(&base, &write)).unwrap_or(Ok(()))?;
        }
        let mut more = || -> Result<Option<Arc<Dirty>>> {
            if base.is_read_only() {
                return Err(Error::generic(format!("Node '{}' is read-only", base.name())));
            }
            let name = format!("job '{id}'");
            // The layer above lets nobody write what it shows; what the job writes does not show.
            let perm = Perm::READ | Perm::WRITE | Perm::RESIZE;
            edges.push(Edge::owned(&base, user_of(&above_base, &base), &name, perm, shared())?);
            if base.len().map_err(io("Could not get the size of", &base))? < len {
                base.resize(len).map_err(io("Could not resize", &base))?;
            }
            if overlay.is_some() {
                return Ok(None);
            }
            edges.push(Edge::new(&top, &name, Perm::READ, Perm::all() - Perm::RESIZE)?);
            let dirty = Arc::new(Dirty::new(&top, &base, len));
            let watch: Arc<dyn crate::node::Watch> = dirty.clone();
            top.watch(Arc::downgrade(&watch));
            Ok(Some(dirty))
        };
        let more = more();
        let dirty = match more {
            Ok(dirty) => dirty,
            Err(e) => {
                edges.clear();
                if was_read_only {
                    make_read_only(self, &base);
                }
                return Err(e);
            }
        };
        frozen.extend([top.freeze(), base.freeze()]);
        frozen.extend(overlay.as_ref().map(|(n, _)| n.freeze()));
        let on_error = self.job_policy(o, &device);
        let task = Commit { top, base, overlay, dirty, len, at: 0, again: 0, was_read_only, edges, frozen };
        self.begin_job(id, Kind::Commit, o, on_error, Box::new(task));
        Ok(())
    }
}

/// The node whose child `base` is, below `above` (or that one itself).
fn user_of(above: &Arc<Node>, base: &Arc<Node>) -> Owner {
    let mut parent = above.clone();
    let mut child = parent.driver().children().into_iter().find(|(role, _)| *role == "backing").map(|(_, n)| n);
    while let Some(n) = child {
        if Arc::ptr_eq(&n, base) {
            break;
        }
        child = n.filtered();
        parent = n;
    }
    parent.common().owner
}
