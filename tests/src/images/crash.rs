//! Crashes of the host while an image is written: what was flushed is there, and `qemu-img check` finds leaks at worst.

use super::record::{self, Event};
use super::{open, tool};
use crate::contract::Rng;
use crate::packages::Peer;
use anyhow::{Context, Result, ensure};
use block::{Op, Request};
use serde_json::json;
use std::path::Path;

/// Guest bytes.
const SIZE: u64 = 1 << 20;
/// Guest bytes that an image does not grow beyond by more than [`SIZE`].
const MOST: u64 = 4 << 20;
/// What operations begin and end at.
const UNIT: u64 = 512;

/// What the guest knows at a moment of the log.
struct Acknowledged {
    /// Events by then.
    events: usize,
    contents: Vec<u8>,
    /// Operations by then.
    operations: usize,
}

/// `qemu-img check`: nothing, or leaks only.
///
/// # Errors
/// Corruption.
pub fn check(peer: &Peer, image: &Path) -> Result<()> {
    let out = peer.command("qemu-img").args(["check", "-f", "qcow2"]).arg(image).output()?;
    let said = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    ensure!(matches!(out.status.code(), Some(0 | 3)), "qemu-img check: {said}");
    Ok(())
}

/// One run of random operations, and `crashes` moments of it.
///
/// # Errors
/// What is lost or corrupt, with the seed.
pub fn run(peer: &Peer, seed: u64, crashes: usize) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let image = dir.path().join("image");
    let mut r = Rng::new(seed);
    let cluster = [512, 1024, 4096, 65536][r.below(4) as usize];
    let options = format!("cluster_size={cluster},refcount_bits={}", [1, 8, 16, 64][r.below(4) as usize]);
    let name = image.to_str().context("a plain path")?;
    tool(peer, "qemu-img", &["create", "-q", "-f", "qcow2", "-o", &options, name, &SIZE.to_string()])?;
    if !options.ends_with("bits=1") && r.one_in(2) {
        tool(peer, "qemu-io", &["-f", "qcow2", "-c", "write -P 7 0 300k", name])?;
        tool(peer, "qemu-img", &["snapshot", "-c", "s", name])?;
    }
    let before = std::fs::read(&image)?;
    let log_name = format!("{}", dir.path().display());
    let log = record::log(&log_name);
    let below = json!({"driver": "record", "log": log_name, "file": {"driver": "file", "filename": name}});
    let (blocks, node) = open("qcow2", &image, &json!({"file": below, "pass-discard-request": false}))?;
    let mut contents = vec![0; SIZE as usize];
    node.read(0, &mut contents)?;
    // Ranges by operation; what is acknowledged as stable.
    let mut touched: Vec<(usize, usize)> = vec![];
    let mut acknowledged = vec![Acknowledged { events: 0, contents: contents.clone(), operations: 0 }];
    for _ in 0..40 + r.below(60) {
        let size = contents.len() as u64;
        let at = r.below(size / UNIT) * UNIT;
        let len = ((1 + r.below(4 * cluster / UNIT)) * UNIT).min(size - at);
        let range = at as usize..(at + len) as usize;
        match r.below(9) {
            0..=4 => {
                let byte = r.below(256) as u8;
                node.write(at, &vec![byte; len as usize])?;
                contents[range.clone()].fill(byte);
            }
            5 => {
                node.write_zeroes(at, len, r.one_in(2))?;
                contents[range.clone()].fill(0);
            }
            6 => {
                node.discard(at, len)?;
                node.read(at, &mut contents[range.clone()])?;
            }
            7 => {
                // Often beyond what the L1 table maps. A new size is stable at once, as a flush is.
                if size < MOST {
                    let size = size + (1 + r.below(SIZE / UNIT)) * UNIT;
                    node.resize(size)?;
                    contents.resize(size as usize, 0);
                }
                continue;
            }
            _ => {
                node.flush()?;
                let events = log.lock().len();
                ensure!(
                    log.lock().iter().rev().take_while(|e| **e != Event::Flush).next().is_none(),
                    "seed {seed}: something follows the last fdatasync of an acknowledged flush"
                );
                acknowledged.push(Acknowledged { events, contents: contents.clone(), operations: touched.len() });
                continue;
            }
        }
        touched.push((range.start, range.end));
    }
    drop((node, blocks));
    let events = log.lock().clone();
    for n in 0..crashes {
        let when = r.below(events.len() as u64 + 1) as usize;
        let left = record::crash(before.clone(), &events[..when], &mut r);
        let path = dir.path().join("crashed");
        record::save(&path, &left)?;
        let verdict = verify(peer, &path, &acknowledged, when, &touched);
        verdict
            .with_context(|| format!("seed {seed} ({options}), crash {n} after event {when} of {}", events.len()))?;
    }
    Ok(())
}

fn verify(peer: &Peer, path: &Path, known: &[Acknowledged], when: usize, touched: &[(usize, usize)]) -> Result<()> {
    check(peer, path)?;
    let last = known.iter().rfind(|k| k.events <= when).context("the beginning is known")?;
    // What changed after the flush may be old or new.
    let mut open_to_both = vec![false; (MOST + SIZE) as usize];
    for (start, end) in touched.iter().skip(last.operations) {
        open_to_both[*start..*end].fill(true);
    }
    let (_blocks, node) = open("qcow2", path, &json!({"read-only": true}))?;
    let size = last.contents.len();
    ensure!(node.len()? >= size as u64, "the image is {} bytes, {size} were flushed", node.len()?);
    let mut now = vec![0; size];
    node.read(0, &mut now)?;
    let lost = (0..size).find(|n| !open_to_both[*n] && now[*n] != last.contents[*n]);
    ensure!(lost.is_none(), "byte {:#x} was flushed and is lost", lost.unwrap_or_default());
    Ok(())
}

/// Requests to a drive over a file that is recorded: at the end of each, the log says what must have happened before.
///
/// # Errors
/// Something was acknowledged too early.
pub fn acknowledged(aio: &str) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let image = dir.path().join("image");
    std::fs::write(&image, vec![0; 1 << 20])?;
    let (log_name, name) = (format!("{}", dir.path().display()), image.to_str().context("a plain path")?);
    let log = record::log(&log_name);
    let file = json!({"driver": "file", "filename": name, "aio": aio});
    let (blocks, node) = open("raw", &image, &json!({"file": {"driver": "record", "log": log_name, "file": file}}))?;
    let drive = blocks.anonymous(Some(&node)).map_err(|e| anyhow::anyhow!("{e}"))?;
    let last = |n: usize| -> Vec<Event> { log.lock().iter().rev().take(n).rev().cloned().collect() };
    let run = |request: Request| -> Result<()> {
        let (said, heard) = std::sync::mpsc::channel();
        drive.submit(request, Box::new(move |o| _ = said.send(o.result)));
        blocks.drain();
        Ok(heard.recv()??)
    };
    for n in 0..20u64 {
        let (at, bytes) = (n * 4096, vec![n as u8 + 1; 4096]);
        let written = Event::Write(at, bytes.clone());
        run(Request::write(at, bytes.clone()))?;
        ensure!(last(1) == [written.clone()], "a write was acknowledged that is not with the host");
        run(Request::flush())?;
        ensure!(last(2) == [written.clone(), Event::Flush], "a flush was acknowledged before fdatasync");
        run(Request { op: Op::Write { fua: true }, ..Request::write(at, bytes.clone()) })?;
        ensure!(last(2) == [written.clone(), Event::Flush], "a write with FUA was acknowledged before fdatasync");
        // Without a write cache every write is one.
        drive.set_write_cache(false);
        run(Request::write(at, bytes))?;
        drive.set_write_cache(true);
        ensure!(last(2) == [written, Event::Flush] && log.lock().len() as u64 == 6 * (n + 1), "write through");
    }
    Ok(())
}
