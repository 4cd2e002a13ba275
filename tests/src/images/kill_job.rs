//! `kill -9` in the midst of a job: a program writes numbered blocks to the top of a chain while the chain is streamed or committed; whoever kills
//! it finds all that it said was stable in the image that the guest would go on with, and what was there before in all other places.

use super::jobs::{Bench, Chain, SIZE};
use super::kill::{BLOCK, Watched, contents, place};
use super::{crash, open};
use crate::contract::Rng;
use crate::packages::Peer;
use anyhow::{Context, Result, bail, ensure};
use block::{JobOptions, Request, Verb};
use serde_json::json;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What is done to the chain: all of it into the top, the layer in between into the base, the top into the base.
pub const JOBS: [&str; 3] = ["stream", "commit", "active"];
/// Blocks of an image.
const BLOCKS: u64 = SIZE / BLOCK as u64;
/// Writes at once.
const DEPTH: u64 = 8;
/// What the program says when the job has ended.
const ENDED: &str = "ended";

fn begin(bench: &Bench, job: &str, middle: &str, speed: u64) -> Result<()> {
    let o = JobOptions { device: "d".into(), job_id: Some("j".into()), speed, ..JobOptions::default() };
    let begun = match job {
        "stream" => bench.blocks.block_stream(&o),
        "commit" => bench.blocks.block_commit(&JobOptions { top: Some(middle.into()), ..o }),
        "active" => bench.blocks.block_commit(&o),
        _ => bail!("no job '{job}'"),
    };
    begun.map_err(|e| anyhow::anyhow!("{e}"))
}

/// The program: writes until it is killed. Arguments: job, top image, the one below it, seed.
///
/// # Errors
/// The image cannot be written, or the job fails.
pub fn writer(args: &[String]) -> Result<()> {
    let [job, top, middle, seed] = args else { bail!("usage: image-writer job JOB TOP MIDDLE SEED") };
    let seed: u64 = seed.parse()?;
    let mut r = Rng::new(seed);
    let bench = Bench::default();
    let drive = bench.drive(Path::new(top))?;
    begin(&bench, job, middle, (4 + r.below(40)) << 20)?;
    let patience = r.below(40);
    let (mut n, mut ready_for, mut ended) = (0, 0, false);
    let mut out = std::io::stdout().lock();
    let over = Arc::new((AtomicUsize::new(0), AtomicUsize::new(0)));
    loop {
        let mut requests: Vec<Request> = vec![];
        for _ in 0..DEPTH {
            requests.push(Request::write(place(seed, n, BLOCKS) * BLOCK as u64, contents(seed, n, BLOCKS)));
            n += 1;
        }
        let flush = n % (DEPTH * 4) == 0;
        for request in requests.into_iter().chain(flush.then(Request::flush)) {
            if request.is_empty() {
                bench.blocks.drain(); // what is flushed has been written before
            }
            let over = over.clone();
            drive.submit(
                request,
                Box::new(move |o| {
                    over.1.fetch_add(usize::from(o.result.is_err()), Ordering::Relaxed);
                    over.0.fetch_add(1, Ordering::Relaxed);
                }),
            );
        }
        let all = (n + n / (DEPTH * 4)) as usize;
        while over.0.load(Ordering::Relaxed) < all {
            bench.turn();
        }
        bench.turn();
        ensure!(over.1.load(Ordering::Relaxed) == 0, "a request failed");
        let jobs = bench.blocks.query_block_jobs();
        if jobs[0]["ready"] == true && !ended {
            ready_for += 1;
            if ready_for == patience + 1 {
                bench.blocks.job("j", Verb::Complete).map_err(|e| anyhow::anyhow!("{e}"))?;
            }
        }
        let completed = bench.last("BLOCK_JOB_COMPLETED");
        if !completed.is_null() && !ended {
            ensure!(completed.get("error").is_none(), "the job failed: {completed}");
            ended = true;
            writeln!(out, "{ENDED}")?;
        }
        if flush {
            writeln!(out, "{n}")?;
        }
        out.flush()?;
    }
}

/// Runs the program on a new chain, kills it after a random time, and looks for what it said. Whether the job was at work then.
///
/// # Errors
/// What is lost or corrupt.
pub fn kill_once(peer: &Peer, program: &Path, job: &str, seed: u64) -> Result<bool> {
    let mut r = Rng::new(seed ^ 0x6b69_6c6c);
    let cluster = [65536, 4096, 512][(seed % 3) as usize];
    let chain = Chain::new(peer, &mut r, 2, cluster)?;
    let name = |n: usize| chain.files[n].to_str().context("a plain path").map(str::to_owned);
    let args = ["job".to_owned(), job.to_owned(), name(2)?, name(1)?, seed.to_string()];
    let said = Watched::start(program, &args)?.kill_after(r.below(500_000))?;
    let ended = said.iter().any(|l| l == ENDED);
    let stable = said.iter().rev().find_map(|l| l.parse::<u64>().ok()).unwrap_or(0);
    for image in &chain.files[1..] {
        crash::check(peer, image)?;
    }
    let (format, image) = if ended && job == "active" { ("raw", 0) } else { ("qcow2", 2) };
    let (_blocks, node) = open(format, &chain.files[image], &json!({"read-only": true}))?;
    let mut expected = vec![None; BLOCKS as usize];
    for n in 0..stable {
        expected[place(seed, n, BLOCKS) as usize] = Some(n);
    }
    let mut bytes = vec![0; BLOCK];
    for (block, least) in (0u64..).zip(&expected) {
        let at = block as usize * BLOCK;
        node.read(at as u64, &mut bytes)?;
        // The last write that is stable (what was there before, if there is none), or of those after it any, sector by sector.
        let before = || chain.model[at..at + BLOCK].to_vec();
        let mut possible = vec![least.map_or_else(before, |n| contents(seed, n, BLOCKS))];
        let later = (stable..stable + 2 * DEPTH * 4).filter(|n| place(seed, *n, BLOCKS) == block);
        possible.extend(later.map(|n| contents(seed, n, BLOCKS)));
        let wrong = (0..BLOCK).step_by(512).find(|s| possible.iter().all(|p| p[*s..*s + 512] != bytes[*s..*s + 512]));
        ensure!(wrong.is_none(), "block {block} is neither write {least:?} of {stable} nor a later one at {wrong:?}");
    }
    Ok(!ended)
}
