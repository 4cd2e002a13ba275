//! Images with wrong bytes: opening, reading and writing end, with or without an error; what is only read stays as it was.

use super::{open, tool};
use crate::contract::Rng;
use crate::packages::Peer;
use anyhow::{Context, Result, ensure};
use serde_json::json;
use std::path::Path;

/// Guest bytes.
const SIZE: u64 = 2 << 20;

/// A good image with some of everything: data, zeros, compressed clusters, a snapshot.
///
/// # Errors
/// The peer's tools fail.
pub fn good(peer: &Peer, image: &Path, options: &str, snapshot: bool) -> Result<Vec<u8>> {
    let name = image.to_str().context("a plain path")?;
    tool(peer, "qemu-img", &["create", "-q", "-f", "qcow2", "-o", options, name, &SIZE.to_string()])?;
    let work = ["write -P 1 0 200k", "write -c -P 2 512k 64k", "write -z 300k 64k", "write -P 3 1500k 100k"];
    let mut args = vec!["-f", "qcow2"];
    args.extend(work.iter().flat_map(|w| ["-c", w]));
    args.push(name);
    tool(peer, "qemu-io", &args)?;
    if snapshot {
        tool(peer, "qemu-img", &["snapshot", "-c", "s", name])?;
        tool(peer, "qemu-io", &["-f", "qcow2", "-c", "write -P 4 100k 300k", name])?;
    }
    Ok(std::fs::read(image)?)
}

/// Changes some bytes of what is likely a table, or cuts the image.
pub fn spoil(image: &mut Vec<u8>, r: &mut Rng) {
    for _ in 0..1 + r.below(4) {
        let len = image.len() as u64;
        let at = match r.below(4) {
            0 => r.below(128),
            // Words that are not zero: most are entries of tables.
            _ => {
                let start = r.below(len / 8);
                let word = (start..len / 8).find(|n| image[*n as usize * 8..][..8] != [0; 8]);
                word.unwrap_or(0) * 8 + r.below(8)
            }
        };
        let Some(byte) = image.get_mut(at as usize) else { continue };
        *byte = match r.below(4) {
            0 => 0,
            1 => 0xff,
            2 => *byte ^ 1 << r.below(8),
            _ => r.bits() as u8,
        };
    }
    if r.one_in(8) {
        let keep = r.below(image.len() as u64) as usize;
        image.truncate(keep);
    }
}

/// Opens a spoiled image both ways and uses it.
///
/// # Errors
/// Reading changed it.
pub fn use_it(path: &Path, image: &[u8], r: &mut Rng) -> Result<()> {
    std::fs::write(path, image)?;
    let mut buf = vec![0; 256 << 10];
    let ends = |len: u64| [0, len / 2, len.saturating_sub(256 << 10)].map(|at| at & !511);
    if let Ok((_blocks, node)) = open("qcow2", path, &json!({"read-only": true, "backing": null})) {
        let len = node.len()?;
        let all = (0..len.min(SIZE)).step_by(buf.len()).chain(ends(len));
        for at in all {
            let n = (buf.len() as u64).min(len - at) as usize;
            _ = node.read(at, &mut buf[..n]); // an error is an answer
        }
    }
    ensure!(std::fs::read(path)? == image, "reading changed the image");
    let opened = open("qcow2", path, &json!({"backing": null}));
    let Ok((_blocks, node)) = opened else {
        ensure!(std::fs::read(path)? == image, "an image that cannot be opened was changed");
        return Ok(());
    };
    let len = node.len()?;
    for at in ends(len) {
        let n = (1 + r.below(128)) * 512;
        let n = n.min(len - at);
        // Errors are answers.
        _ = match r.below(4) {
            0 => node.discard(at, n),
            1 => node.write_zeroes(at, n, true),
            _ => node.write(at, &buf[..n as usize]),
        };
        _ = node.flush();
    }
    _ = node.resize(len.saturating_add(1 << 20) & !511);
    Ok(())
}

/// Spoils images `count` times.
///
/// # Errors
/// As [`use_it`], with the seed.
pub fn run(peer: &Peer, seed: u64, count: u64) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("image");
    let images = [
        good(peer, &path, "cluster_size=4k", true)?,
        good(peer, &path, "cluster_size=512,compat=0.10", true)?,
        good(peer, &path, "cluster_size=64k,refcount_bits=1,compression_type=zstd", false)?,
    ];
    for n in 0..count {
        let mut r = Rng::new(seed + n);
        let mut image = images[r.below(3) as usize].clone();
        spoil(&mut image, &mut r);
        use_it(&path, &image, &mut r).with_context(|| format!("seed {}", seed + n))?;
    }
    Ok(())
}
