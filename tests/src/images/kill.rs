//! `kill -9` while an image is written: a program of its own (`image-writer`) writes numbered, checksummed blocks and says what it was told is
//! stable; whoever kills it looks for all of that.

use super::{crash, open, tool};
use crate::contract::Rng;
use crate::packages::Peer;
use anyhow::{Context, Result, bail, ensure};
use block::{Op, Request};
use serde_json::json;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

/// Bytes of a block.
pub(super) const BLOCK: usize = 4096;
/// Blocks of the image.
const BLOCKS: u64 = 2048;
/// Writes at once.
const DEPTH: u64 = 8;
/// `cache=` of a run.
pub const CACHES: [&str; 3] = ["none", "writeback", "writethrough"];

fn mix(mut z: u64) -> u64 {
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

/// The block of `blocks` that write number `n` goes to: those of one batch differ.
pub(super) fn place(seed: u64, n: u64, blocks: u64) -> u64 {
    (mix(seed ^ (n / DEPTH)) % (blocks / DEPTH)) * DEPTH + n % DEPTH
}

/// What write number `n` writes: its number, its block, words that depend on both, and their sum.
pub(super) fn contents(seed: u64, n: u64, blocks: u64) -> Vec<u8> {
    let words = (BLOCK / 8) as u64;
    let mut all = vec![n, place(seed, n, blocks)];
    all.extend((2..words - 1).map(|w| mix(seed ^ n << 16 ^ w)));
    all.push(all.iter().fold(0, |s, w| s.wrapping_add(*w)));
    all.iter().flat_map(|w| w.to_le_bytes()).collect()
}

/// The number of the write that a block holds; None: none ever.
fn number(seed: u64, block: u64, bytes: &[u8], blocks: u64) -> Result<Option<u64>> {
    if bytes.iter().all(|b| *b == 0) {
        return Ok(None);
    }
    let n = u64::from_le_bytes(bytes[..8].try_into()?);
    ensure!(
        place(seed, n, blocks) == block && contents(seed, n, blocks) == bytes,
        "block {block} holds what nobody wrote"
    );
    Ok(Some(n))
}

/// A program that says something in lines until it is killed.
pub(super) struct Watched {
    child: Child,
    /// It has said something.
    begun: mpsc::Receiver<()>,
    reader: std::thread::JoinHandle<Vec<String>>,
}

impl Watched {
    /// Starts it.
    pub(super) fn start(program: &Path, args: &[String]) -> Result<Self> {
        let mut child = Command::new(program)
            .args(args)
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run {}", program.display()))?;
        let out = child.stdout.take().context("its output")?;
        let (first, begun) = mpsc::channel();
        let reader = std::thread::spawn(move || {
            let lines = BufReader::new(out).lines().map_while(Result::ok);
            lines.inspect(|_| _ = first.send(())).collect()
        });
        Ok(Self { child, begun, reader })
    }

    /// Kills it that many microseconds after it has begun to say something; what it said, whole lines.
    pub(super) fn kill_after(mut self, micros: u64) -> Result<Vec<String>> {
        let begun = self.begun.recv_timeout(Duration::from_secs(60));
        std::thread::sleep(Duration::from_micros(micros));
        self.child.kill()?;
        let status = self.child.wait()?;
        let said = self.reader.join().map_err(|_| anyhow::anyhow!("the reader failed"))?;
        begun.with_context(|| format!("it never said anything and ended with {status}"))?;
        ensure!(status.code().is_none(), "it ended by itself: {status}");
        Ok(said)
    }
}

/// The program: writes until it is killed. Arguments: format, image, `cache=`, `aio=`, seed.
///
/// # Errors
/// The image cannot be written.
pub fn writer(args: &[String]) -> Result<()> {
    let [format, image, cache, aio, seed] = args else { bail!("usage: image-writer FORMAT IMAGE CACHE AIO SEED") };
    let seed: u64 = seed.parse()?;
    let direct = cache == "none";
    let file = json!({"driver": "file", "filename": image, "aio": aio});
    let (blocks, node) = open(format, Path::new(image), &json!({"cache": {"direct": direct}, "file": file}))?;
    let drive = blocks.anonymous(Some(&node)).map_err(|e| anyhow::anyhow!("{e}"))?;
    let through = cache == "writethrough";
    drive.set_write_cache(!through);
    let mut out = std::io::stdout().lock();
    let failed = Arc::new(AtomicUsize::new(0));
    let submit = |request: Request| {
        let failed = failed.clone();
        let count = move |o: block::Outcome| _ = failed.fetch_add(usize::from(o.result.is_err()), Ordering::Relaxed);
        drive.submit(request, Box::new(count));
    };
    let mut n = 0;
    loop {
        for _ in 0..DEPTH {
            let mut write = Request::write(place(seed, n, BLOCKS) * BLOCK as u64, contents(seed, n, BLOCKS));
            if n % 64 == 9 {
                write.op = Op::Write { fua: true };
            }
            submit(write);
            n += 1;
        }
        blocks.drain();
        let flush = !through && n.is_multiple_of(DEPTH * 4);
        if flush {
            submit(Request::flush());
            blocks.drain();
        }
        ensure!(failed.load(Ordering::Relaxed) == 0, "a request failed");
        if through || flush {
            writeln!(out, "{n}")?;
            out.flush()?;
        }
    }
}

/// Runs the program on a new image, kills it after a random time, and looks for what it said.
///
/// # Errors
/// What is lost or corrupt.
pub fn kill_once(peer: &Peer, program: &Path, format: &str, cache: &str, aio: &str, seed: u64) -> Result<u64> {
    let dir = tempfile::tempdir_in(crate::packages::target_dir())?;
    let image = dir.path().join("image");
    let name = image.to_str().context("a plain path")?;
    let size = (BLOCKS * BLOCK as u64).to_string();
    let clusters = ["64k", "4k", "512"][(seed % 3) as usize];
    let options =
        format!("cluster_size={clusters},lazy_refcounts={}", if seed.is_multiple_of(2) { "on" } else { "off" });
    match format {
        "qcow2" => tool(peer, "qemu-img", &["create", "-q", "-f", format, "-o", &options, name, &size])?,
        _ => tool(peer, "qemu-img", &["create", "-q", "-f", format, name, &size])?,
    };
    let args = [format, name, cache, aio, &seed.to_string()].map(str::to_owned);
    let said = Watched::start(program, &args)?.kill_after(Rng::new(seed).below(300_000))?;
    let stable = said.last().and_then(|line| line.parse().ok()).unwrap_or(0);
    if format == "qcow2" {
        crash::check(peer, &image)?;
    }
    let mut expected = vec![None; BLOCKS as usize];
    for n in 0..stable {
        expected[place(seed, n, BLOCKS) as usize] = Some(n);
    }
    let (_blocks, node) = open(format, &image, &json!({}))?;
    let mut bytes = vec![0; BLOCK];
    for (block, least) in (0u64..).zip(&expected) {
        node.read(block * BLOCK as u64, &mut bytes)?;
        let found = number(seed, block, &bytes, BLOCKS)?;
        ensure!(found >= *least, "block {block} holds write {found:?}, {least:?} was flushed (of {stable})");
    }
    Ok(stable)
}
