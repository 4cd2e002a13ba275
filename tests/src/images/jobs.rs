//! Chains of images for tests of jobs: what a guest sees of them, and the machine's part (clock, events) without a machine.

use super::tool;
use crate::contract::Rng;
use crate::packages::Peer;
use anyhow::{Context, Result, ensure};
use block::{Backend, Blocks, DriveConfig, Interface, Opts, Request};
use hw_core::Core;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Guest bytes.
pub const SIZE: u64 = 4 << 20;

/// The first byte that differs.
pub fn differs(a: &[u8], b: &[u8]) -> Option<usize> {
    if a == b { None } else { (0..a.len().max(b.len())).find(|n| a.get(*n) != b.get(*n)) }
}

/// A block layer, its clock and the events it sent.
pub struct Bench {
    core: Arc<Core>,
    /// The block layer.
    pub blocks: Arc<Blocks>,
    events: Arc<Mutex<Vec<Value>>>,
}

impl Default for Bench {
    fn default() -> Self {
        let core = Core::new();
        let blocks = Blocks::of(&core);
        let events = Arc::new(Mutex::new(vec![]));
        let to = events.clone();
        blocks.set_event_sink(move |name, data| to.lock().push(json!({"event": name, "data": data})));
        Self { core, blocks, events }
    }
}

impl Bench {
    /// One round of a main loop.
    pub fn turn(&self) {
        self.blocks.deliver();
        self.core.clocks.run_expired(&mut self.core.lock());
        std::thread::sleep(Duration::from_micros(200));
    }

    /// Rounds until `done`.
    ///
    /// # Panics
    /// It takes too long.
    pub fn until(&self, what: &str, mut done: impl FnMut() -> bool) {
        let begun = Instant::now();
        while !done() {
            assert!(begun.elapsed() < Duration::from_secs(60), "{what}: {}", self.blocks.query_block_jobs());
            self.turn();
        }
    }

    /// Rounds until a job has a status.
    ///
    /// # Panics
    /// As [`Bench::until`].
    pub fn status(&self, id: &str, status: &str) {
        let is = |j: &Value| j["id"] == id && j["status"] == status;
        self.until(status, || self.blocks.query_jobs().as_array().is_some_and(|l| l.iter().any(is)));
    }

    /// Rounds until there are no jobs.
    ///
    /// # Panics
    /// As [`Bench::until`].
    pub fn no_jobs(&self) {
        self.until("the end of all jobs", || self.blocks.query_jobs().as_array().is_none_or(Vec::is_empty));
    }

    /// The events so far, in words: what happened, or the status that a job changed to.
    pub fn story(&self) -> Vec<String> {
        let word = |e: &Value| {
            let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
            if e["event"] == "JOB_STATUS_CHANGE" { text(&e["data"]["status"]) } else { text(&e["event"]) }
        };
        self.events.lock().drain(..).map(|e| word(&e)).collect()
    }

    /// The data of the last event of a name.
    pub fn last(&self, name: &str) -> Value {
        let all = self.events.lock();
        all.iter().rfind(|e| e["event"] == name).map(|e| e["data"].clone()).unwrap_or_default()
    }

    /// A drive `d` over the image, as `-drive` makes it.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn drive(&self, image: &Path) -> Result<Arc<Backend>> {
        let config = DriveConfig {
            id: Some("d".into()),
            interface: Interface::None,
            write_cache: true,
            file: Some(image.to_str().context("a plain path")?.to_owned()),
            opts: Opts::keyval([("driver", "qcow2"), ("discard", "unmap")]).map_err(|e| anyhow::anyhow!("{e}"))?,
            ..DriveConfig::default()
        };
        let drive = self.blocks.add_drive(config).map_err(|e| anyhow::anyhow!("{e}"))?;
        use block::Perm;
        let shared = Perm::READ | Perm::WRITE_UNCHANGED | Perm::RESIZE;
        drive.set_perms(Perm::READ | Perm::WRITE, shared).map_err(|e| anyhow::anyhow!("{e}"))?;
        Ok(drive)
    }
}

/// A raw image and qcow2 images on top of it, each with some clusters of its own.
pub struct Chain {
    /// Where they are.
    pub dir: tempfile::TempDir,
    /// Names, the base first.
    pub files: Vec<PathBuf>,
    /// What a guest sees.
    pub model: Vec<u8>,
}

impl Chain {
    /// `layers` images on top of the base, of `cluster` bytes a cluster. The base is longer or shorter than they are.
    ///
    /// # Errors
    /// The peer's tools fail.
    pub fn new(peer: &Peer, r: &mut Rng, layers: usize, cluster: u64) -> Result<Self> {
        let dir = tempfile::tempdir_in(crate::packages::target_dir())?;
        let base = dir.path().join("base");
        let len = SIZE - (r.below(64) << 14);
        let bytes: Vec<u8> = (0..len).map(|n| if n >> 16 & 3 == 0 { 0 } else { (n >> 12) as u8 | 1 }).collect();
        std::fs::write(&base, &bytes)?;
        let mut model = bytes;
        model.resize(SIZE as usize, 0);
        let mut files = vec![base];
        for n in 1..=layers {
            let file = dir.path().join(format!("layer{n}"));
            let name = file.to_str().context("a plain path")?.to_owned();
            let below = files.last().and_then(|f| f.file_name()).and_then(|f| f.to_str()).context("a plain path")?;
            let format = if n == 1 { "raw" } else { "qcow2" };
            let options = format!("cluster_size={cluster}");
            let size = SIZE.to_string();
            tool(
                peer,
                "qemu-img",
                &["create", "-q", "-f", "qcow2", "-o", &options, "-b", below, "-F", format, &name, &size],
            )?;
            let mut commands = vec![];
            for _ in 0..6 {
                let at = r.below(SIZE >> 9) << 9;
                let len = ((1 + r.below(400)) << 9).min(SIZE - at);
                let byte = (n * 16) as u8 + r.below(16) as u8;
                let zero = r.one_in(4);
                commands.push(if zero {
                    format!("write -z {at} {len}")
                } else {
                    format!("write -P {byte} {at} {len}")
                });
                model[at as usize..(at + len) as usize].fill(if zero { 0 } else { byte });
            }
            let mut args = vec!["-f", "qcow2"];
            args.extend(commands.iter().flat_map(|c| ["-c", c.as_str()]));
            args.push(&name);
            tool(peer, "qemu-io", &args)?;
            files.push(file);
        }
        Ok(Self { dir, files, model })
    }

    /// The image that the guest uses.
    ///
    /// # Panics
    /// There is none.
    pub fn top(&self) -> &Path {
        self.files.last().expect("a chain has a top")
    }

    /// A random write, zeros or discard of the guest's, which keeps the model.
    pub fn request(&mut self, r: &mut Rng) -> Request {
        let at = r.below(SIZE >> 9) << 9;
        let len = ((1 + r.below(300)) << 9).min(SIZE - at);
        let byte = r.below(256) as u8;
        self.model[at as usize..(at + len) as usize].fill(byte);
        Request::write(at, vec![byte; len as usize])
    }

    /// The image's backing file by the peer, and whether it reads as the model by the peer and `qemu-img check` finds nothing.
    ///
    /// # Errors
    /// It does not, or corruption.
    pub fn verify(&self, peer: &Peer, image: &Path, format: &str) -> Result<Option<PathBuf>> {
        let name = image.to_str().context("a plain path")?;
        if format == "qcow2" {
            tool(peer, "qemu-img", &["check", "-f", format, name])?;
        }
        let raw = self.dir.path().join("converted");
        tool(peer, "qemu-img", &["convert", "-f", format, "-O", "raw", name, raw.to_str().context("a plain path")?])?;
        let theirs = std::fs::read(&raw)?;
        ensure!(theirs.len() == self.model.len(), "{} bytes, not {}", theirs.len(), self.model.len());
        let wrong = differs(&theirs, &self.model);
        ensure!(wrong.is_none(), "the peer reads something else at {:#x}", wrong.unwrap_or_default());
        let info: Value =
            serde_json::from_str(&tool(peer, "qemu-img", &["info", "-f", format, "--output=json", name])?)?;
        Ok(info["full-backing-filename"].as_str().map(PathBuf::from))
    }
}
