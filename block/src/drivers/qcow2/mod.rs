//! `qcow2`: images of versions 2 and 3. Source: the qcow2 specification (QEMU's `docs/interop/qcow2`).
//!
//! Read: backing chains, compressed clusters (deflate, zstd), zero clusters, refcounts of all widths, external data files. Written: all of
//! these, except that a compressed cluster becomes a plain one. Internal snapshots are listed and what they share is copied before it changes.
//! Changed tables stay in memory until a flush, the end, or until they are many; `meta` says in which order they reach the file. Refcounts
//! are never behind (`lazy-refcounts` images are written like others), so the dirty bit is never set here; whoever left it set, the image is
//! repaired when it is opened for writing.
//!
//! Reads and writes in place run side by side; what changes tables runs alone. Persistent bitmaps are not kept: writing an image invalidates them.
//! Not supported, and refused: encryption, subclusters (extended L2 entries).

mod cache;
mod compressed;
mod corrupt;
mod create;
mod data;
mod geometry;
mod header;
mod host;
mod layers;
mod meta;
mod refcounts;
mod rename;
mod repair;
mod snapshots;
#[cfg(test)]
mod tests;

pub(crate) use create::create;

use crate::blocks::{Backing, Blocks, Reporter};
use crate::driver::{ChildOf, Driver, DriverDef, Status};
use crate::node::{Common, Edge, Perm};
use geometry::Geometry;
use header::{Compression, Header};
use host::Host;
use hw_core::memory::RamRanges;
use hw_core::opts::Opts;
use meta::Meta;
use parking_lot::{Mutex, RwLock};
use qom::{Error, Result};
use serde_json::{Map, Value, json};
use snapshots::Snapshot;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

inventory::submit! {
    DriverDef { name: "qcow2", protocol: false, open }
}

/// Bytes of L2 tables kept: QEMU's default.
const L2_CACHE: u64 = 32 << 20;

struct Qcow2 {
    file: Host,
    /// Holds the guest's clusters, if that is not `file`.
    data: Option<Host>,
    backing: Option<Edge>,
    header: Header,
    geo: Geometry,
    snapshots: Vec<Snapshot>,
    size: AtomicU64,
    writable: bool,
    /// Discards give space back to the host.
    pass_discard: bool,
    /// Held while guest data is read or written where the tables say; alone by whoever changes the tables.
    lock: RwLock<()>,
    /// Taken before it by writes, for as long as they are not known to change no tables: they come in order.
    turn: Mutex<()>,
    meta: Mutex<Meta>,
    /// The cluster that was unpacked last, by its place in the file, which never holds another compressed one.
    unpacked: Mutex<Option<(u64, Arc<Vec<u8>>)>>,
    /// Who is told that something is wrong with it, the node's name for that, and whether that has happened.
    reporter: Reporter,
    name: String,
    alarmed: AtomicBool,
}

fn failed(what: &'static str) -> impl Fn(io::Error) -> Error {
    move |e| Error::generic(format!("{what}: {}", crate::blocks::plain(&e)))
}

/// What the format needs of its file, and lets others do with it.
fn file_perms(writable: bool) -> (Perm, Perm) {
    let perm = if writable { Perm::READ | Perm::WRITE | Perm::RESIZE } else { Perm::READ };
    (perm, Perm::all() - Perm::WRITE - Perm::RESIZE)
}

fn read_header(file: &Host) -> Result<Header> {
    let failed = failed("Could not read qcow2 header");
    let mut head = vec![0; 512];
    file.read(0, &mut head).map_err(&failed)?;
    let bits = header::cluster_bits(&head)?;
    let mut first = vec![0; 1 << bits];
    file.read(0, &mut first).map_err(&failed)?;
    Header::parse(&first)
}

/// The external data file: the option's, else the one that the header names.
fn open_data(blocks: &Blocks, common: &Common, opts: &mut Opts, header: &Header, image: &str) -> Result<Option<Host>> {
    match (header.has_data_file(), opts.has("data-file")) {
        (false, false) => return Ok(None),
        (false, true) => {
            return Err(Error::generic("'data-file' can only be set for images with an external data file"));
        }
        _ => {}
    }
    let node = blocks.open_beside(opts, "data-file", common, image, header.data_file.as_deref())?;
    let node = node.ok_or_else(|| Error::generic("'data-file' is required for this image"))?;
    let (perm, shared) = file_perms(!common.read_only);
    Ok(Some(Host::new(Edge::child(&node, common, "qcow2", perm, shared)?)))
}

fn open(blocks: &Blocks, common: &mut Common, opts: &mut Opts) -> Result<Box<dyn Driver>> {
    let node = blocks.open_child(opts, "file", common)?;
    common.read_only |= node.is_read_only();
    let writable = !common.read_only;
    let (perm, shared) = file_perms(writable);
    let file = Host::new(Edge::child(&node, common, "qcow2", perm, shared)?);
    let mut header = read_header(&file)?;
    if writable && header.is_corrupt() {
        return Err(Error::generic("qcow2: Image is corrupt; cannot be opened read/write"));
    }
    let image = node.driver().filename();
    let data = open_data(blocks, common, opts, &header, &image)?;
    let limit = opts.take_size("l2-cache-size")?.unwrap_or(L2_CACHE);
    let pass_discard = opts.take_bool("pass-discard-request")?.unwrap_or(common.unmap);
    let (snapshots, snapshots_len) = snapshots::load(&header, &file).map_err(failed("Could not read snapshots"))?;
    let tables = failed("Could not read qcow2 tables");
    let mut meta = Meta::load(&header, &file, limit, writable).map_err(&tables)?;
    if writable {
        let claim = |meta: &mut Meta| -> io::Result<()> {
            meta.refs()?.claim(header.snapshots_offset, snapshots_len, refcounts::Kind::Snapshots)?;
            snapshots
                .iter()
                .try_for_each(|s| meta.refs()?.claim(s.l1_offset, u64::from(s.l1_size) * 8, refcounts::Kind::Snapshots))
        };
        claim(&mut meta).map_err(&tables)?;
    }
    let backing = open_backing(blocks, common, opts, &header, &image)?;
    if writable {
        let repairing = failed("Could not repair dirty image");
        let mut changed = header.clone();
        let dirty = header.is_dirty();
        if dirty {
            if header.has_bitmaps() {
                return Err(Error::generic(
                    "qcow2: Image is dirty and has persistent bitmaps; 'qemu-img check -r all' repairs it",
                ));
            }
            repair::rebuild(&mut changed, &file, &snapshots, snapshots_len).map_err(&repairing)?;
        }
        for (at, bits) in changed.for_writing() {
            file.write(at, &bits.to_be_bytes())
                .and_then(|()| file.flush())
                .map_err(failed("Could not update qcow2 header"))?;
        }
        header = changed;
        if dirty {
            meta = Meta::load(&header, &file, limit, true).map_err(&tables)?;
        }
    }
    Ok(Box::new(Qcow2 {
        geo: header.geometry(),
        size: AtomicU64::new(header.size),
        file,
        data,
        backing,
        header,
        snapshots,
        writable,
        pass_discard,
        lock: RwLock::new(()),
        turn: Mutex::new(()),
        meta: Mutex::new(meta),
        unpacked: Mutex::default(),
        reporter: blocks.reporter(),
        name: common.node_name.clone(),
        alarmed: AtomicBool::new(false),
    }))
}

fn open_backing(
    blocks: &Blocks,
    common: &Common,
    opts: &mut Opts,
    header: &Header,
    image: &str,
) -> Result<Option<Edge>> {
    if header.has_data_file() && header.is_data_file_raw() && header.backing.is_some() {
        return Err(Error::generic("data-file-raw images cannot have a backing file"));
    }
    let named = Backing { image, name: header.backing.as_deref(), format: header.backing_format.as_deref() };
    let node = blocks.open_backing(opts, common, &named)?;
    node.map(|n| Edge::child(&n, common, "qcow2", Perm::READ, Perm::all())).transpose()
}

impl Qcow2 {
    /// Where guest clusters are.
    fn data(&self) -> &Host {
        self.data.as_ref().unwrap_or(&self.file)
    }

    fn commit(&self, meta: &mut Meta) -> io::Result<()> {
        let punch = |at: u64| {
            // The space is free either way.
            _ = self.file.edge.node().discard(at, self.geo.cluster());
        };
        meta.commit(&self.file, self.data.as_ref(), &punch)
    }
}

impl Driver for Qcow2 {
    fn len(&self) -> io::Result<u64> {
        Ok(self.size.load(Ordering::Acquire))
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.read_guest(offset, buf)
    }

    fn write(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.write_guest(offset, buf)
    }

    fn read_into(&self, offset: u64, to: &RamRanges) -> io::Result<()> {
        self.read_guest_into(offset, to)
    }

    fn write_from(&self, offset: u64, from: &RamRanges) -> io::Result<()> {
        self.write_guest_from(offset, from)
    }

    fn write_zeroes(&self, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
        self.zero_guest(offset, len, unmap)
    }

    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        self.discard_guest(offset, len)
    }

    fn flush(&self) -> io::Result<()> {
        {
            let _shared = self.lock.read();
            if !self.meta.lock().is_dirty() {
                return self.data().flush();
            }
        }
        let _alone = self.lock.write();
        self.commit(&mut self.meta.lock())?;
        self.data().flush()
    }

    fn resize(&self, len: u64) -> io::Result<()> {
        self.resize_guest(len)
    }

    fn status(&self, offset: u64, len: u64) -> io::Result<(Status, u64)> {
        self.status_guest(offset, len)
    }

    fn populate(&self, offset: u64, len: u64) -> io::Result<()> {
        self.populate_guest(offset, len)
    }

    fn settle(&self) -> io::Result<()> {
        let _alone = self.lock.write();
        let mut meta = self.meta.lock();
        // The second time writes what the first one counted down.
        self.commit(&mut meta)?;
        self.commit(&mut meta)?;
        self.data().flush()
    }

    fn set_backing_name(&self, name: Option<(&str, &str)>) -> io::Result<()> {
        let _alone = self.lock.write();
        self.commit(&mut self.meta.lock())?;
        rename::set_backing(&self.file, self.geo.cluster(), self.header.version, name)
    }

    fn set_perms(&self, perm: Perm, shared: Perm) -> Result<()> {
        let Some(backing) = &self.backing else { return Ok(()) };
        let mut let_be = Perm::READ | Perm::WRITE_UNCHANGED;
        if shared.contains(Perm::WRITE) {
            let_be |= Perm::WRITE | Perm::RESIZE;
        }
        backing.set(Perm::READ & perm, let_be)
    }

    fn filename(&self) -> String {
        self.file.edge.node().driver().filename()
    }

    fn children(&self) -> Vec<ChildOf> {
        let mut all = vec![("file", self.file.edge.node().clone())];
        all.extend(self.data.as_ref().map(|d| ("data-file", d.edge.node().clone())));
        all.extend(self.backing.as_ref().map(|b| ("backing", b.node().clone())));
        all
    }

    fn actual_size(&self) -> Option<u64> {
        let of = |h: &Host| h.edge.node().driver().actual_size();
        Some(of(&self.file)? + self.data.as_ref().and_then(of).unwrap_or(0))
    }

    fn specific(&self) -> Option<Value> {
        let h = &self.header;
        let mut more = json!({
            "compat": if h.version == 2 { "0.10" } else { "1.1" },
            "compression-type": if h.compression == Compression::Zstd { "zstd" } else { "zlib" },
        });
        if let (3, Some(map)) = (h.version, more.as_object_mut()) {
            map.insert("lazy-refcounts".into(), h.lazy_refcounts().into());
            map.insert("refcount-bits".into(), (1u32 << h.refcount_order).into());
            let corrupt = h.is_corrupt() || self.alarmed.load(Ordering::SeqCst);
            map.insert("corrupt".into(), corrupt.into());
            map.insert("extended-l2".into(), false.into());
            if h.has_data_file() {
                map.extend(h.data_file.as_ref().map(|name| ("data-file".to_owned(), name.as_str().into())));
                map.insert("data-file-raw".into(), h.is_data_file_raw().into());
            }
        } else if let Some(map) = more.as_object_mut() {
            map.insert("refcount-bits".into(), 16.into());
        }
        let mut all = Map::new();
        all.insert("cluster-size".into(), self.geo.cluster().into());
        all.insert("format-specific".into(), json!({"type": "qcow2", "data": more}));
        all.insert("dirty-flag".into(), h.is_dirty().into());
        if !self.snapshots.is_empty() {
            all.insert("snapshots".into(), self.snapshots.iter().map(Snapshot::info).collect());
        }
        if let (Some(name), Some(_)) = (&h.backing, &self.backing) {
            all.insert("backing-filename".into(), name.as_str().into());
            let full = crate::blocks::beside(&self.filename(), name);
            all.insert("full-backing-filename".into(), full.into());
            all.extend(h.backing_format.as_ref().map(|f| ("backing-filename-format".to_owned(), f.as_str().into())));
        }
        Some(all.into())
    }
}

impl Drop for Qcow2 {
    fn drop(&mut self) {
        if self.writable {
            let mut meta = self.meta.lock();
            // The second time writes what the first one counted down. Who needed to know of errors has asked for a flush.
            _ = self.commit(&mut meta).and_then(|()| self.commit(&mut meta));
        }
    }
}
