//! Random sequences on qcow2 images, done by our block layer and by the peer's tools in turn; after each turn both read what a
//! plain array says, and `qemu-img check` finds nothing.

pub mod crash;
pub mod fault;
pub mod hostile;
pub mod jobs;
pub mod kill;
pub mod kill_job;
pub mod record;

use crate::contract::Rng;
use crate::packages::Peer;
use anyhow::{Context, Result, ensure};
use block::{Blocks, Node, Opts};
use hw_core::memory::{RamBlock, RamRanges};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Opens an image by our block layer. The node goes when the last of both goes.
///
/// # Errors
/// As the driver says.
pub fn open(driver: &str, path: &Path, more: &Value) -> Result<(Blocks, Arc<Node>)> {
    let mut options = json!({
        "driver": driver, "node-name": "n", "discard": "unmap",
        "file": {"driver": "file", "filename": path.to_str().context("a plain path")?},
    });
    if let (Some(all), Some(more)) = (options.as_object_mut(), more.as_object()) {
        all.extend(more.clone());
    }
    let blocks = Blocks::default();
    let Value::Object(options) = options else { unreachable!() };
    let node = blocks.blockdev_add(Opts::json(options)).map_err(|e| anyhow::anyhow!("{e}"))?;
    Ok((blocks, node))
}

/// What `aio` can be on this host, which may refuse to give rings.
///
/// # Errors
/// It refuses by other words than those that are to be expected.
pub fn ways() -> Result<Vec<&'static str>> {
    let file = tempfile::NamedTempFile::new()?;
    let name = file.path().to_str().context("a plain path")?;
    let ring = json!({"file": {"driver": "file", "filename": name, "aio": "io_uring"}});
    match open("raw", file.path(), &ring) {
        Ok(_) => Ok(vec!["threads", "io_uring"]),
        Err(e) => {
            ensure!(e.to_string().starts_with("aio=io_uring was specified, but is not available"), "{e}");
            Ok(vec!["threads"])
        }
    }
}

/// Runs one of the peer's tools; its output.
///
/// # Errors
/// It fails: what it said.
pub fn tool(peer: &Peer, program: &str, args: &[&str]) -> Result<String> {
    let out = peer.command(program).args(args).output()?;
    let text = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    ensure!(out.status.success(), "{program} {}: {text}", args.join(" "));
    Ok(text)
}

/// What an image is made with.
struct Shape {
    cluster: u64,
    v2: bool,
    backed: bool,
    compressible: bool,
    options: String,
}

impl Shape {
    fn random(r: &mut Rng, dir: &Path) -> Self {
        let cluster = 1u64 << [9, 9, 10, 12, 12, 16, 16, 21][r.below(8) as usize];
        let v2 = r.one_in(5);
        let mut options =
            vec![format!("cluster_size={cluster}"), format!("compat={}", if v2 { "0.10" } else { "1.1" })];
        let mut data_file = false;
        if !v2 {
            options.push(format!("refcount_bits={}", [1, 2, 4, 8, 16, 16, 32, 64][r.below(8) as usize]));
            data_file = r.one_in(6);
            if data_file {
                let raw = if r.one_in(2) { ",data_file_raw=on" } else { "" };
                options.push(format!("data_file={}{raw}", dir.join("data").display()));
            } else {
                options.push(format!("lazy_refcounts={}", ["on", "off"][r.below(2) as usize]));
                options.push(format!("compression_type={}", ["zlib", "zstd"][r.below(2) as usize]));
            }
        }
        let backed = !data_file && r.one_in(2);
        if !backed && r.one_in(6) {
            options.push("preallocation=metadata".into());
        }
        Self { cluster, v2, backed, compressible: !data_file, options: options.join(",") }
    }

    /// Snapshots and compressed clusters that share a host cluster need refcounts above those of narrow fields.
    fn has_snapshots(&self) -> bool {
        let narrow = ["refcount_bits=1,", "refcount_bits=2,", "refcount_bits=4,"];
        self.compressible && !self.options.contains("preallocation") && !narrow.iter().any(|n| self.options.contains(n))
    }
}

/// An image and what it should hold.
struct Run<'a> {
    r: Rng,
    peer: &'a Peer,
    dir: &'a Path,
    image: PathBuf,
    shape: Shape,
    model: Vec<u8>,
    /// Name, contents.
    snapshots: Vec<(String, Vec<u8>)>,
    log: Vec<String>,
}

const SECTOR: u64 = 512;

impl Run<'_> {
    fn name(&self) -> &str {
        self.image.to_str().expect("a plain path")
    }

    fn range(&mut self) -> (u64, u64) {
        let size = self.model.len() as u64;
        let at = self.r.below(size / SECTOR) * SECTOR;
        let longest = if self.r.one_in(4) { 16 * self.shape.cluster } else { 3 * self.shape.cluster };
        let len = (1 + self.r.below(longest.min(1 << 20) / SECTOR)) * SECTOR;
        if self.r.one_in(3) {
            let (at, c) = (at / self.shape.cluster * self.shape.cluster, self.shape.cluster);
            return (at, len.next_multiple_of(c).min(size - at));
        }
        (at, len.min(size - at))
    }

    fn set(&mut self, at: u64, len: u64, byte: u8) {
        self.model[at as usize..(at + len) as usize].fill(byte);
    }

    /// What a discard makes zero: whole clusters, and the rest at the end.
    fn discarded(&mut self, at: u64, len: u64) {
        if self.shape.v2 && self.shape.backed {
            return;
        }
        let (c, size) = (self.shape.cluster, self.model.len() as u64);
        let first = at.next_multiple_of(c);
        let last = if at + len == size { size } else { (at + len) / c * c };
        if first < last {
            self.set(first, last - first, 0);
        }
    }

    fn new_size(&mut self) -> u64 {
        let size = self.model.len() as u64;
        let step = (1 + self.r.below(2048)) * SECTOR;
        if self.r.one_in(2) && size > step + SECTOR { size - step } else { size + step }
    }

    /// Calls `f` with `len` bytes of guest memory, in pieces of any length.
    fn guest(&mut self, len: u64, f: impl FnOnce(&RamRanges) -> std::io::Result<()>) -> Result<()> {
        let block = RamBlock::new(&Arc::default(), "guest", 2 * len + 4096)?;
        let (mut guest, mut at) = (RamRanges::default(), 0);
        while guest.len() < len {
            let n = (1 + self.r.below(len)).min(len - guest.len());
            ensure!(guest.push(&block, at, n), "a range outside of its block");
            at += n + 1;
        }
        Ok(f(&guest)?)
    }

    fn ours(&mut self) -> Result<()> {
        let (blocks, node) = open("qcow2", &self.image, &json!({}))?;
        for _ in 0..4 + self.r.below(12) {
            let (at, len) = self.range();
            let what = self.r.below(12);
            self.log.push(format!("ours {what} {at:#x}+{len:#x}"));
            match what {
                0..=4 => {
                    let salt = self.r.bits();
                    let data: Vec<u8> = (0..len).map(|n| (salt >> (n % 8)) as u8 ^ (n >> 9) as u8).collect();
                    if self.r.one_in(2) {
                        self.guest(len, |guest| {
                            guest.copy_in(&data);
                            node.write_from(at, guest)
                        })?;
                    } else {
                        node.write(at, &data)?;
                    }
                    self.model[at as usize..(at + len) as usize].copy_from_slice(&data);
                }
                5 | 6 => {
                    node.write_zeroes(at, len, self.r.one_in(2))?;
                    self.set(at, len, 0);
                }
                7 | 8 => {
                    node.discard(at, len)?;
                    self.discarded(at, len);
                }
                9 => node.flush()?,
                10 if self.snapshots.is_empty() => {
                    let size = self.new_size();
                    self.log.push(format!("  to {size:#x}"));
                    node.resize(size)?;
                    self.model.resize(size as usize, 0);
                }
                _ => {
                    let mut got = vec![0; len as usize];
                    if self.r.one_in(2) {
                        self.guest(len, |guest| {
                            guest.copy_in(&vec![0xdb; len as usize]);
                            node.read_into(at, guest)?;
                            guest.copy_out(&mut got);
                            Ok(())
                        })?;
                    } else {
                        node.read(at, &mut got)?;
                    }
                    ensure!(got == self.model[at as usize..(at + len) as usize], "reads back something else");
                }
            }
        }
        drop((blocks, node));
        Ok(())
    }

    fn theirs(&mut self) -> Result<()> {
        let mut commands: Vec<String> = vec![];
        for _ in 0..2 + self.r.below(8) {
            let (at, len) = self.range();
            let byte = self.r.below(255) as u8 + 1;
            let command = match self.r.below(8) {
                0..=2 => format!("write -P {byte} {at} {len}"),
                3 => format!("write -z {at} {len}"),
                4 => format!("write -z -u {at} {len}"),
                5 => format!("discard {at} {len}"),
                _ if self.shape.compressible && !(self.shape.v2 && self.shape.backed) => {
                    // The peer compresses into clusters that hold nothing only.
                    let at = at / self.shape.cluster * self.shape.cluster;
                    let len = self.shape.cluster.min(self.model.len() as u64 - at);
                    self.set(at, len, byte);
                    commands.push(format!("discard {at} {len}"));
                    commands.push(format!("write -c -P {byte} {at} {len}"));
                    continue;
                }
                _ => continue,
            };
            match command.split(' ').next() {
                Some("discard") => self.discarded(at, len),
                _ if command.starts_with("write -P") => self.set(at, len, byte),
                _ => self.set(at, len, 0),
            }
            commands.push(command);
        }
        self.log.extend(commands.iter().cloned());
        // One compressed cluster a process: the peer (10.0) remembers where the next one could go beside the last, also when that cluster has been
        // given up and has become an L2 table since; then it finds its own write to be one to a table, and marks the image corrupt.
        let packs = |c: &String| c.starts_with("write -c");
        for part in commands.chunk_by(|_, next| !packs(next)) {
            let mut args = vec!["-f", "qcow2", "-d", "unmap"];
            args.extend(part.iter().flat_map(|c| ["-c", c.as_str()]));
            args.push(self.name());
            let said = tool(self.peer, "qemu-io", &args)?;
            ensure!(!said.contains("failed"), "{said}");
        }
        if self.shape.has_snapshots() && self.r.one_in(2) {
            self.snapshot()?;
        } else if self.snapshots.is_empty() && !(self.shape.v2 && self.shape.backed) && self.r.one_in(3) {
            // Without zero clusters the peer cannot hide what the backing file has.
            let size = self.new_size();
            self.log.push(format!("resize {size:#x}"));
            tool(self.peer, "qemu-img", &["resize", "--shrink", "-f", "qcow2", self.name(), &size.to_string()])?;
            let old = self.model.len() as u64;
            self.model.resize(size as usize, 0);
            if size > old {
                self.regrown(old)?;
            }
        }
        Ok(())
    }

    /// QEMU lets what a cluster holds beyond the end of the image show when the image grows.
    fn regrown(&mut self, old: u64) -> Result<()> {
        let end = old.next_multiple_of(self.shape.cluster).min(self.model.len() as u64);
        if end > old {
            let zero = format!("write -z {old} {}", end - old);
            tool(self.peer, "qemu-io", &["-f", "qcow2", "-c", &zero, self.name()])?;
        }
        Ok(())
    }

    fn snapshot(&mut self) -> Result<()> {
        let name = format!("s{}", self.snapshots.len());
        let which = self.r.below(4);
        let some = self.r.below(self.snapshots.len() as u64) as usize;
        match which {
            0 if !self.snapshots.is_empty() => {
                let (name, _) = self.snapshots.remove(some);
                self.log.push(format!("delete {name}"));
                tool(self.peer, "qemu-img", &["snapshot", "-d", &name, self.name()])?;
            }
            1 if !self.snapshots.is_empty() => {
                let (name, contents) = self.snapshots[some].clone();
                self.log.push(format!("apply {name}"));
                tool(self.peer, "qemu-img", &["snapshot", "-a", &name, self.name()])?;
                self.model = contents;
            }
            _ if self.snapshots.iter().all(|s| s.0 != name) && self.snapshots.len() < 2 => {
                self.log.push(format!("snapshot {name}"));
                tool(self.peer, "qemu-img", &["snapshot", "-c", &name, self.name()])?;
                self.snapshots.push((name, self.model.clone()));
            }
            _ => {}
        }
        Ok(())
    }

    fn compare(&mut self) -> Result<()> {
        tool(self.peer, "qemu-img", &["check", "-f", "qcow2", self.name()])?;
        let raw = self.dir.join("raw");
        let out = raw.to_str().context("a plain path")?;
        tool(self.peer, "qemu-img", &["convert", "-f", "qcow2", "-O", "raw", self.name(), out])?;
        let theirs = std::fs::read(&raw)?;
        ensure!(theirs.len() == self.model.len(), "the peer says {} bytes, not {}", theirs.len(), self.model.len());
        if let Some(at) = (0..theirs.len()).find(|n| theirs[*n] != self.model[*n]) {
            anyhow::bail!("the peer reads something else at {at:#x}");
        }
        let (_blocks, node) = open("qcow2", &self.image, &json!({"read-only": true}))?;
        let mut ours = vec![0; node.len()? as usize];
        node.read(0, &mut ours)?;
        ensure!(ours.len() == self.model.len(), "we say {} bytes, not {}", ours.len(), self.model.len());
        if let Some(at) = (0..ours.len()).find(|n| ours[*n] != self.model[*n]) {
            anyhow::bail!("we read something else at {at:#x}");
        }
        Ok(())
    }

    /// Makes a backing chain of one or two images and the image on top.
    fn create(&mut self, size: u64) -> Result<()> {
        let mut args = vec!["create".to_owned(), "-q".into(), "-f".into(), "qcow2".into()];
        args.extend(["-o".into(), self.shape.options.clone()]);
        if self.shape.backed {
            let longer = self.r.below(2 * size / SECTOR) * SECTOR + SECTOR;
            let base: Vec<u8> = (0..longer).map(|n| (n >> 9) as u8 | 1).collect();
            let raw = self.dir.join("base.raw");
            std::fs::write(&raw, &base)?;
            let (mut name, mut format) = ("base.raw", "raw");
            if self.r.one_in(2) {
                let middle = self.dir.join("base.qcow2");
                let path = middle.to_str().context("a plain path")?;
                let compress = if self.r.one_in(2) { "-c" } else { "-q" };
                let raw = raw.to_str().context("a plain path")?;
                tool(self.peer, "qemu-img", &["convert", compress, "-f", "raw", "-O", "qcow2", raw, path])?;
                (name, format) = ("base.qcow2", "qcow2");
            }
            args.extend(["-b", name, "-F", format].map(str::to_owned));
            let n = base.len().min(self.model.len());
            self.model[..n].copy_from_slice(&base[..n]);
        }
        args.extend([self.name().to_owned(), size.to_string()]);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        self.log.push(args.join(" "));
        tool(self.peer, "qemu-img", &args).map(drop)
    }
}

/// One sequence.
///
/// # Errors
/// Where the two differ, with the seed and what was done.
pub fn sequence(peer: &Peer, seed: u64) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut r = Rng::new(seed);
    let shape = Shape::random(&mut r, dir.path());
    let size = (1 + r.below(4 << 20 >> 9)) * SECTOR;
    let image = dir.path().join("image.qcow2");
    let model = vec![0; size as usize];
    let mut run = Run { r, peer, dir: dir.path(), image, shape, model, snapshots: vec![], log: vec![] };
    let mut go = || -> Result<()> {
        run.create(size)?;
        for _ in 0..2 + run.r.below(4) {
            if run.r.one_in(2) {
                run.ours()?
            } else {
                run.theirs()?
            }
            run.compare()?;
        }
        Ok(())
    };
    let done = go();
    done.with_context(|| format!("seed {seed}:\n  {}", run.log.join("\n  ")))
}
