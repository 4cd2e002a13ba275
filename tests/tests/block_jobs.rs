//! Jobs, limits and reopening, at the block layer: chains that the peer's tools made and look at afterwards.

use block::{Backend, JobOptions, Opts, Outcome, Request, Verb};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use tests::contract::Rng;
use tests::images::jobs::{Bench, Chain, SIZE, differs};
use tests::images::{self, fault, record};
use tests::packages::{self, Peer};

fn peer() -> Peer {
    packages::peer().expect("the peer can be fetched")
}

fn opts(v: Value) -> Opts {
    Opts::json(v.as_object().expect("an object").clone())
}

fn text<T>(r: qom::Result<T>) -> String {
    r.err().map_or_else(|| "no error".into(), |e| e.to_string())
}

/// Submits a request; failures are counted.
fn submit(drive: &Arc<Backend>, request: Request, failed: &Arc<AtomicUsize>) {
    let failed = failed.clone();
    let count = move |o: Outcome| _ = failed.fetch_add(usize::from(o.result.is_err()), Ordering::SeqCst);
    drive.submit(request, Box::new(count));
}

/// Submits and waits.
fn run(bench: &Bench, drive: &Arc<Backend>, request: Request) -> Outcome {
    let slot = Arc::new(Mutex::new(None));
    let to = slot.clone();
    drive.submit(request, Box::new(move |o| *to.lock().expect("not poisoned") = Some(o)));
    bench.blocks.drain();
    slot.lock().expect("not poisoned").take().expect("it has ended")
}

/// The guest writes until there are no more jobs, or a job is ready.
fn write_meanwhile(bench: &Bench, chain: &mut Chain, drive: &Arc<Backend>, r: &mut Rng, ready: bool) {
    let failed = Arc::new(AtomicUsize::new(0));
    let mut count = 0;
    bench.until("the job", || {
        if count < 400 {
            submit(drive, chain.request(r), &failed);
            count += 1;
        }
        let jobs = bench.blocks.query_block_jobs();
        let jobs = jobs.as_array().expect("a list");
        jobs.is_empty() || (ready && jobs[0]["ready"] == true)
    });
    bench.blocks.drain();
    assert_eq!(failed.load(Ordering::SeqCst), 0, "a write of the guest's failed");
}

/// What the drive reads is what the guest wrote.
fn reads(bench: &Bench, chain: &Chain, drive: &Arc<Backend>) {
    let o = run(bench, drive, Request::read(0, SIZE as usize));
    o.result.expect("read");
    assert_eq!(differs(&o.data, &chain.model), None);
}

const GOOD: [&str; 7] = ["created", "running", "waiting", "pending", "BLOCK_JOB_COMPLETED", "concluded", "null"];

#[test]
fn a_stream_frees_an_image_from_its_chain_while_it_is_written() {
    let peer = peer();
    for (seed, cluster) in [(1, 65536), (2, 4096), (3, 512)] {
        let mut r = Rng::new(seed);
        let mut chain = Chain::new(&peer, &mut r, 2, cluster).expect("a chain");
        let bench = Bench::default();
        let drive = bench.drive(chain.top()).expect("it opens");
        bench.blocks.block_stream(&JobOptions { device: "d".into(), ..JobOptions::default() }).expect("it begins");
        let again = bench.blocks.block_stream(&JobOptions { device: "d".into(), ..JobOptions::default() });
        assert_eq!(text(again), "Job ID 'd' already in use");
        write_meanwhile(&bench, &mut chain, &drive, &mut r, false);
        assert_eq!(bench.last("BLOCK_JOB_COMPLETED")["len"], SIZE);
        assert_eq!(bench.story(), GOOD);
        assert_eq!(bench.blocks.nodes().len(), 2, "the layers below are closed");
        reads(&bench, &chain, &drive);
        bench.blocks.close();
        let backing = chain.verify(&peer, chain.top(), "qcow2").unwrap_or_else(|e| panic!("seed {seed}: {e:#}"));
        assert_eq!(backing, None);
    }
}

#[test]
fn a_stream_stops_at_its_base() {
    let peer = peer();
    let mut r = Rng::new(7);
    let mut chain = Chain::new(&peer, &mut r, 3, 65536).expect("a chain");
    let bench = Bench::default();
    let drive = bench.drive(chain.top()).expect("it opens");
    let name = chain.files[1].to_str().expect("a plain path").to_owned();
    let stream = |base: &str| {
        let base = Some(base.to_owned());
        bench.blocks.block_stream(&JobOptions { device: "d".into(), base, ..JobOptions::default() })
    };
    assert_eq!(text(stream("/none")), "Can't find '/none' in the backing chain");
    stream(&name).expect("it begins");
    write_meanwhile(&bench, &mut chain, &drive, &mut r, false);
    assert_eq!(bench.story(), GOOD);
    reads(&bench, &chain, &drive);
    bench.blocks.close();
    let backing = chain.verify(&peer, chain.top(), "qcow2").expect("the peer agrees");
    assert_eq!(
        backing.map(|b| b.canonicalize().expect("it is there")),
        Some(chain.files[1].canonicalize().expect("there"))
    );
}

#[test]
fn layers_in_between_are_committed_while_the_top_is_written() {
    let peer = peer();
    for (seed, cluster) in [(11, 65536), (12, 4096)] {
        let mut r = Rng::new(seed);
        let mut chain = Chain::new(&peer, &mut r, 3, cluster).expect("a chain");
        let bench = Bench::default();
        let drive = bench.drive(chain.top()).expect("it opens");
        let top = Some(chain.files[2].to_str().expect("a plain path").to_owned());
        let o = JobOptions { device: "d".into(), job_id: Some("c".into()), top, ..JobOptions::default() };
        bench.blocks.block_commit(&o).expect("it begins");
        let busy = bench.blocks.block_stream(&JobOptions { device: "d".into(), ..JobOptions::default() });
        assert!(text(busy).contains("is busy: block device is in use by block job"));
        write_meanwhile(&bench, &mut chain, &drive, &mut r, false);
        assert_eq!(bench.story(), GOOD);
        reads(&bench, &chain, &drive);
        let base = bench.blocks.nodes().into_iter().find(|n| n.driver_name() == "raw").expect("the base is there");
        assert!(base.is_read_only(), "as before");
        bench.blocks.close();
        let backing = chain.verify(&peer, chain.top(), "qcow2").unwrap_or_else(|e| panic!("seed {seed}: {e:#}"));
        assert_eq!(backing, Some(chain.files[0].canonicalize().expect("there")));
    }
}

#[test]
fn the_image_in_use_is_committed_and_the_drive_changes_over() {
    let peer = peer();
    for (seed, base_format) in [(21, "raw"), (22, "qcow2")] {
        let mut r = Rng::new(seed);
        let mut chain = Chain::new(&peer, &mut r, 3, 65536).expect("a chain");
        let bench = Bench::default();
        let drive = bench.drive(chain.top()).expect("it opens");
        let base = if base_format == "raw" { 0 } else { 1 };
        let name = Some(chain.files[base].to_str().expect("a plain path").to_owned());
        bench
            .blocks
            .block_commit(&JobOptions { device: "d".into(), base: name, ..JobOptions::default() })
            .expect("it begins");
        write_meanwhile(&bench, &mut chain, &drive, &mut r, true);
        bench.status("d", "ready");
        // What is written then is not lost either.
        let failed = Arc::new(AtomicUsize::new(0));
        for _ in 0..50 {
            submit(&drive, chain.request(&mut r), &failed);
        }
        bench.blocks.job("d", Verb::Complete).expect("it is ready");
        for _ in 0..50 {
            submit(&drive, chain.request(&mut r), &failed);
            bench.turn();
        }
        bench.no_jobs();
        bench.blocks.drain();
        assert_eq!(failed.load(Ordering::SeqCst), 0);
        let want = [
            "created",
            "running",
            "ready",
            "BLOCK_JOB_READY",
            "waiting",
            "pending",
            "BLOCK_JOB_COMPLETED",
            "concluded",
            "null",
        ];
        assert_eq!(bench.story(), want);
        let root = drive.root().expect("a medium");
        assert_eq!((root.driver_name(), root.is_read_only()), (base_format, false));
        drop(root);
        submit(&drive, chain.request(&mut r), &failed);
        reads(&bench, &chain, &drive);
        bench.blocks.close();
        chain.verify(&peer, &chain.files[base], base_format).unwrap_or_else(|e| panic!("seed {seed}: {e:#}"));
    }
}

#[test]
fn jobs_are_paused_slowed_cancelled_finalized_and_dismissed() {
    let peer = peer();
    let mut r = Rng::new(31);
    let mut chain = Chain::new(&peer, &mut r, 1, 65536).expect("a chain");
    let bench = Bench::default();
    let drive = bench.drive(chain.top()).expect("it opens");
    let slow = JobOptions {
        device: "d".into(),
        job_id: Some("j".into()),
        speed: 1,
        auto_finalize: false,
        auto_dismiss: false,
        ..JobOptions::default()
    };
    let job = |verb: Verb| text(bench.blocks.job("j", verb));
    bench.blocks.block_stream(&slow).expect("it begins");
    bench.until("a step", || bench.blocks.query_jobs()[0]["current-progress"] != 0);
    let done = bench.blocks.query_jobs()[0]["current-progress"].clone();
    (0..50).for_each(|_| bench.turn());
    assert_eq!(bench.blocks.query_jobs()[0]["current-progress"], done, "a byte in a second");
    assert_eq!(job(Verb::Resume), "Can't resume a job that was not paused");
    assert_eq!(job(Verb::Complete), "Job 'j' in state 'running' cannot accept command verb 'complete'");
    assert_eq!(job(Verb::Dismiss), "Job 'j' in state 'running' cannot accept command verb 'dismiss'");
    assert_eq!(job(Verb::Pause), "no error");
    bench.status("j", "paused");
    assert_eq!(job(Verb::Pause), "Job is already paused");
    assert_eq!(job(Verb::SetSpeed(0)), "no error");
    (0..50).for_each(|_| bench.turn());
    assert_eq!(bench.blocks.query_jobs()[0]["current-progress"], done);
    assert_eq!(job(Verb::Resume), "no error");
    bench.status("j", "pending");
    write_meanwhile_pending(&bench, &mut chain, &drive, &mut r);
    assert_eq!(job(Verb::Finalize), "no error");
    bench.status("j", "concluded");
    assert_eq!(job(Verb::Dismiss), "no error");
    assert_eq!(job(Verb::Dismiss), "Job not found");
    let want = [
        "created",
        "running",
        "paused",
        "running",
        "waiting",
        "pending",
        "BLOCK_JOB_PENDING",
        "BLOCK_JOB_COMPLETED",
        "concluded",
        "null",
    ];
    assert_eq!(bench.story(), want);
    bench.blocks.close();
    assert_eq!(chain.verify(&peer, chain.top(), "qcow2").expect("the peer agrees"), None);
}

fn write_meanwhile_pending(bench: &Bench, chain: &mut Chain, drive: &Arc<Backend>, r: &mut Rng) {
    let failed = Arc::new(AtomicUsize::new(0));
    (0..20).for_each(|_| submit(drive, chain.request(r), &failed));
    bench.blocks.drain();
    assert_eq!(failed.load(Ordering::SeqCst), 0);
}

#[test]
fn a_job_that_is_cancelled_leaves_the_chain_as_it_was() {
    let peer = peer();
    let mut r = Rng::new(41);
    let mut chain = Chain::new(&peer, &mut r, 2, 65536).expect("a chain");
    let bench = Bench::default();
    let drive = bench.drive(chain.top()).expect("it opens");
    let o = JobOptions { device: "d".into(), speed: 1, ..JobOptions::default() };
    bench.blocks.block_stream(&o).expect("it begins");
    bench.until("a step", || bench.blocks.query_jobs()[0]["current-progress"] != 0);
    bench.blocks.job("d", Verb::Cancel { force: true }).expect("it runs");
    bench.no_jobs();
    assert_eq!(bench.story(), ["created", "running", "aborting", "BLOCK_JOB_CANCELLED", "concluded", "null"]);
    bench.blocks.block_commit(&JobOptions { device: "d".into(), ..JobOptions::default() }).expect("it begins");
    write_meanwhile(&bench, &mut chain, &drive, &mut r, true);
    bench.status("d", "ready");
    bench.blocks.job("d", Verb::Cancel { force: false }).expect("it is ready");
    bench.no_jobs();
    assert_eq!(bench.story().last_chunk::<3>(), Some(&["BLOCK_JOB_COMPLETED", "concluded", "null"].map(str::to_owned)));
    assert_eq!(drive.root().expect("a medium").driver_name(), "qcow2", "the drive stays where it was");
    reads(&bench, &chain, &drive);
    bench.blocks.close();
    let backing = chain.verify(&peer, chain.top(), "qcow2").expect("the peer agrees");
    assert_eq!(backing, Some(chain.files[1].clone()));
}

/// A chain whose top lies on a switch: a drive without a name over node `top`.
fn on_a_switch(chain: &Chain, name: &str) -> (Bench, Arc<Backend>) {
    let bench = Bench::default();
    let file = |path: &PathBuf| json!({"driver": "file", "filename": path});
    let top = json!({"driver": "qcow2", "node-name": "top", "discard": "unmap",
        "file": {"driver": "fault", "switch": name, "file": file(&chain.files[1])},
        "backing": {"driver": "raw", "read-only": true, "file": file(&chain.files[0])}});
    bench.blocks.blockdev_add(opts(top)).expect("it opens");
    let drive = bench.blocks.anonymous(bench.blocks.find_node("top").as_ref()).expect("a drive");
    (bench, drive)
}

#[test]
fn errors_stop_a_job_end_it_or_are_passed_over() {
    let peer = peer();
    let mut r = Rng::new(51);
    for (n, policy) in [block::OnError::Report, block::OnError::Stop, block::OnError::Ignore].into_iter().enumerate() {
        let chain = Chain::new(&peer, &mut r, 1, 65536).expect("a chain");
        let name = format!("errors{n}");
        let (bench, drive) = on_a_switch(&chain, &name);
        let o = JobOptions {
            device: "top".into(),
            job_id: Some("j".into()),
            on_error: policy,
            backing_file: None,
            ..JobOptions::default()
        };
        let switch = fault::switch(&name);
        switch.write.store(rustix::io::Errno::NOSPC.raw_os_error(), Ordering::SeqCst);
        bench.blocks.block_stream(&o).expect("it begins");
        match policy {
            block::OnError::Stop => {
                bench.status("j", "paused");
                assert_eq!(
                    bench.last("BLOCK_JOB_ERROR"),
                    json!({"device": "j", "operation": "read", "action": "stop"})
                );
                assert_eq!(bench.blocks.query_block_jobs()[0]["io-status"], "nospace");
                switch.write.store(0, Ordering::SeqCst);
                bench.blocks.job("j", Verb::Resume).expect("it is paused");
                bench.no_jobs();
                assert!(bench.last("BLOCK_JOB_COMPLETED").get("error").is_none());
            }
            _ => {
                bench.no_jobs();
                let data = bench.last("BLOCK_JOB_COMPLETED");
                assert_eq!(data["error"], "No space left on device");
                assert_eq!(data["offset"] == data["len"], policy == block::OnError::Ignore, "{data}");
                switch.write.store(0, Ordering::SeqCst);
            }
        }
        reads(&bench, &chain, &drive);
        drop(drive);
        bench.blocks.close();
        let backing = chain.verify(&peer, chain.top(), "qcow2").expect("the peer agrees");
        assert_eq!(backing.is_none(), policy == block::OnError::Stop);
    }
}

#[test]
fn a_driver_that_panics_fails_the_request() {
    let peer = peer();
    let chain = Chain::new(&peer, &mut Rng::new(61), 1, 65536).expect("a chain");
    let (bench, drive) = on_a_switch(&chain, "panics");
    fault::switch("panics").read.store(-1, Ordering::SeqCst);
    // (A place that nothing has been read of.)
    let reads = (0..SIZE >> 16).map(|n| run(&bench, &drive, Request::read(n << 16, 512)));
    let failed = reads
        .filter(|o| o.result.as_ref().is_err_and(|e| e.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error())))
        .count();
    assert!(failed > 0, "nothing was read of the image itself");
    fault::switch("panics").read.store(0, Ordering::SeqCst);
    assert!(run(&bench, &drive, Request::read(0, 512)).result.is_ok());
}

#[test]
fn a_crash_during_a_stream_loses_nothing_flushed() {
    let peer = peer();
    for seed in 71..74 {
        let mut r = Rng::new(seed);
        let cluster = [512, 4096, 65536][seed as usize % 3];
        let mut chain = Chain::new(&peer, &mut r, 1, cluster).expect("a chain");
        let name = format!("stream{seed}");
        let log = record::log(&name);
        let before = std::fs::read(chain.top()).expect("an image");
        let bench = Bench::default();
        let file = |path: &PathBuf| json!({"driver": "file", "filename": path});
        let top = json!({"driver": "qcow2", "node-name": "top",
            "file": {"driver": "record", "log": name, "file": file(&chain.files[1])},
            "backing": {"driver": "raw", "read-only": true, "file": file(&chain.files[0])}});
        bench.blocks.blockdev_add(opts(top)).expect("it opens");
        let drive = bench.blocks.anonymous(bench.blocks.find_node("top").as_ref()).expect("a drive");
        let o = JobOptions { device: "top".into(), job_id: Some("j".into()), ..JobOptions::default() };
        // What was acknowledged as stable, and what changed after.
        let mut known = vec![(0, chain.model.clone())];
        bench.blocks.block_stream(&o).expect("it begins");
        let mut open = vec![vec![]];
        while bench.blocks.has_job("j") {
            let request = chain.request(&mut r);
            let range = request.offset as usize..(request.offset + request.len()) as usize;
            open.last_mut().expect("one").push(range);
            assert!(run(&bench, &drive, request).result.is_ok());
            if r.one_in(3) {
                assert!(run(&bench, &drive, Request::flush()).result.is_ok());
                known.push((log.lock().len(), chain.model.clone()));
                open.push(vec![]);
            }
            bench.turn();
        }
        let events = log.lock().clone();
        drop(drive);
        bench.blocks.close();
        for n in 0..8 {
            let when = if n == 0 { events.len() } else { r.below(events.len() as u64 + 1) as usize };
            let left = record::crash(before.clone(), &events[..when], &mut r);
            let path = chain.dir.path().join("crashed");
            record::save(&path, &left).expect("it is written");
            images::crash::check(&peer, &path).unwrap_or_else(|e| panic!("seed {seed}, event {when}: {e:#}"));
            let (_blocks, node) = images::open("qcow2", &path, &json!({"read-only": true})).expect("it opens");
            let mut now = vec![0; SIZE as usize];
            node.read(0, &mut now).expect("read");
            let last = known.iter().rposition(|k| k.0 <= when).expect("the beginning is known");
            // What was written since may be old or new.
            let mut want = known[last].1.clone();
            open[last..].iter().flatten().for_each(|r| want[r.clone()].copy_from_slice(&now[r.clone()]));
            assert_eq!(differs(&now, &want), None, "seed {seed}: lost at event {when} of {}", events.len());
        }
    }
}

#[test]
fn a_crash_during_a_commit_loses_nothing() {
    let peer = peer();
    let mut r = Rng::new(81);
    let chain = Chain::new(&peer, &mut r, 3, 4096).expect("a chain");
    let (base_log, top_log) = (record::log("commit-base"), record::log("commit-top"));
    let before = [&chain.files[1], &chain.files[3]].map(|f| std::fs::read(f).expect("an image"));
    let bench = Bench::default();
    let recorded = |n: usize, log: &str| json!({"driver": "record", "log": log, "file": {"driver": "file", "filename": chain.files[n]}});
    // Base: layer 1; committed into it: layer 2; layer 3 is the drive's.
    let base = json!({"driver": "qcow2", "node-name": "base", "read-only": true, "file": recorded(1, "commit-base")});
    bench.blocks.blockdev_add(opts(base)).expect("it opens");
    let mid = json!({"driver": "qcow2", "node-name": "mid", "read-only": true, "backing": "base",
        "file": {"driver": "file", "filename": chain.files[2]}});
    bench.blocks.blockdev_add(opts(mid)).expect("it opens");
    let top = json!({"driver": "qcow2", "node-name": "top", "backing": "mid", "file": recorded(3, "commit-top")});
    bench.blocks.blockdev_add(opts(top)).expect("it opens");
    let o = JobOptions {
        device: "top".into(),
        job_id: Some("j".into()),
        top_node: Some("mid".into()),
        base_node: Some("base".into()),
        backing_file: Some("layer1".into()),
        ..JobOptions::default()
    };
    bench.blocks.block_commit(&o).expect("it begins");
    bench.no_jobs();
    assert_eq!(bench.story(), GOOD);
    bench.blocks.close();
    let (base_events, top_events) = (base_log.lock().clone(), top_log.lock().clone());
    assert!(base_events.len() > 4 && !top_events.is_empty());
    let check = |what: &str| {
        let (_blocks, node) = images::open("qcow2", &chain.files[3], &json!({"read-only": true})).expect("it opens");
        let mut now = vec![0; SIZE as usize];
        node.read(0, &mut now).expect("read");
        assert_eq!(differs(&now, &chain.model), None, "{what}");
    };
    for _ in 0..6 {
        // While the base is written, the top is as it was.
        let when = r.below(base_events.len() as u64 + 1) as usize;
        record::save(&chain.files[1], &record::crash(before[0].clone(), &base_events[..when], &mut r))
            .expect("written");
        record::save(&chain.files[3], &before[1]).expect("written");
        images::crash::check(&peer, &chain.files[1]).expect("no corruption");
        check(&format!("base at event {when}"));
        // When the top changes, the base is stable.
        let when = r.below(top_events.len() as u64 + 1) as usize;
        let stable = base_events.iter().rposition(|e| *e == record::Event::Flush).expect("flushed") + 1;
        record::save(&chain.files[1], &record::crash(before[0].clone(), &base_events[..stable], &mut r))
            .expect("written");
        record::save(&chain.files[3], &record::crash(before[1].clone(), &top_events[..when], &mut r)).expect("written");
        images::crash::check(&peer, &chain.files[3]).expect("no corruption");
        check(&format!("top at event {when}"));
    }
}

#[test]
fn what_is_read_is_copied_up() {
    let peer = peer();
    let mut r = Rng::new(91);
    for filter in [false, true] {
        let chain = Chain::new(&peer, &mut r, 2, 65536).expect("a chain");
        let bench = Bench::default();
        let drive = if filter {
            let file = |path: &PathBuf| json!({"driver": "file", "filename": path});
            let top = json!({"driver": "copy-on-read", "node-name": "top", "file": {"driver": "qcow2", "file": file(&chain.files[2])}});
            bench.blocks.blockdev_add(opts(top)).expect("it opens");
            bench.blocks.anonymous(bench.blocks.find_node("top").as_ref()).expect("a drive")
        } else {
            let drive = bench.drive(chain.top()).expect("it opens");
            drive.set_copy_on_read(true);
            drive
        };
        reads(&bench, &chain, &drive);
        drop(drive);
        bench.blocks.close();
        // What it has by itself now is all there is.
        let name = chain.top().to_str().expect("a plain path");
        images::tool(&peer, "qemu-img", &["rebase", "-u", "-f", "qcow2", "-b", "", name]).expect("rebased");
        assert_eq!(chain.verify(&peer, chain.top(), "qcow2").expect("the peer agrees"), None);
    }
}

#[test]
fn nodes_are_opened_again_together_or_not_at_all() {
    let peer = peer();
    let chain = Chain::new(&peer, &mut Rng::new(101), 2, 65536).expect("a chain");
    let bench = Bench::default();
    let b = &bench.blocks;
    let file = |n: usize, more: Value| {
        let mut v = json!({"driver": "file", "filename": chain.files[n], "node-name": format!("f{n}")});
        v.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        v
    };
    for n in 0..3 {
        b.blockdev_add(opts(file(n, json!({})))).expect("it opens");
    }
    let node = |name: &str, file: &str, more: Value| {
        let mut v = json!({"driver": "qcow2", "node-name": name, "file": file});
        v.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        v
    };
    b.blockdev_add(opts(node(
        "mid",
        "f1",
        json!({"read-only": true, "backing": {"driver": "raw", "file": "f0", "read-only": true, "node-name": "base"}}),
    )))
    .expect("it opens");
    b.blockdev_add(opts(node("top", "f2", json!({"backing": "mid"})))).expect("it opens");
    let drive = b.anonymous(b.find_node("top").as_ref()).expect("a drive");
    drive.set_perms(block::Perm::READ | block::Perm::WRITE, block::Perm::READ).expect("writes");
    let state = || {
        let all = b.query_nodes(true);
        let of = |n: &Value| {
            (
                n["node-name"].clone(),
                n["ro"].clone(),
                n["cache"].clone(),
                n["children"].clone(),
                n["detect_zeroes"].clone(),
            )
        };
        all.as_array().expect("a list").iter().map(of).collect::<Vec<_>>()
    };
    let first = state();
    let reopen = |all: &[Value]| text(b.reopen(all.iter().cloned().map(opts).collect()));
    for (all, said) in [
        (vec![node("top", "f2", json!({}))], "backing is missing for 'top'"),
        (vec![json!({"driver": "raw", "node-name": "top", "file": "f2"})], "Cannot change the option 'driver'"),
        (
            vec![json!({"driver": "raw", "node-name": "none", "file": "f2"})],
            "Failed to find node with node-name='none'",
        ),
        (vec![file(0, json!({"filename": "/other"}))], "Cannot change the option 'filename'"),
        (
            vec![node("top", "f2", json!({"backing": "top"}))],
            "Making 'top' a backing child of 'top' would create a cycle",
        ),
        (
            vec![node("mid", "f1", json!({"read-only": true, "backing": "top"}))],
            "Making 'top' a backing child of 'mid' would create a cycle",
        ),
        (vec![node("top", "f0", json!({"backing": "mid"}))], "which does not allow 'write' on f0"),
        (vec![node("top", "f2", json!({"backing": "mid", "read-only": true}))], "Block node is read-only"),
        (vec![file(2, json!({"read-only": true}))], "Block node is read-only"),
        // The first of them alone would work.
        (
            vec![file(1, json!({"cache": {"no-flush": true}})), node("top", "f2", json!({"backing": "mid", "x": 1}))],
            "Parameter 'x' is unexpected",
        ),
        (
            vec![node("top", "f2", json!({"backing": null})), file(2, json!({"read-only": true}))],
            "Block node is read-only",
        ),
    ] {
        let got = reopen(&all);
        assert!(got.contains(said), "{said}: {got}");
        assert_eq!(state(), first, "{said}: nothing has changed");
    }
    reads(&bench, &chain, &drive);
    // What works: caching, zeros, discards; a layer becomes writable; the chain gets shorter.
    let zeros = json!({"backing": "mid", "detect-zeroes": "unmap", "discard": "unmap", "cache": {"no-flush": true}});
    let all = [node("top", "f2", zeros), file(2, json!({"cache": {"direct": true}, "discard": "unmap"}))];
    assert_eq!(reopen(&all), "no error");
    let named = |name: &str| state().into_iter().find(|s| s.0 == name).expect("it is there");
    assert_eq!((named("top").4, &named("f2").2["direct"]), (json!("unmap"), &json!(true)));
    reads(&bench, &chain, &drive);
    assert_eq!(reopen(&[node("mid", "f1", json!({"backing": "base"}))]), "no error");
    assert_eq!(named("mid").1, false);
    assert_eq!(reopen(&[node("top", "f2", json!({"backing": null}))]), "no error");
    assert_eq!(named("top").3.as_array().map(Vec::len), Some(1));
    assert!(run(&bench, &drive, Request::write(0, vec![5; 4096])).result.is_ok());
    b.blockdev_del("mid").expect("nobody uses it any more");
    // A window of the file moves.
    assert_eq!(
        text(b.blockdev_add(opts(json!({"driver": "raw", "node-name": "w", "file": "f0", "size": 512})))),
        "no error"
    );
    assert_eq!(
        reopen(&[json!({"driver": "raw", "node-name": "w", "file": "f0", "offset": 1024, "size": 1024})]),
        "no error"
    );
    assert_eq!(b.find_node("w").expect("it is there").len().expect("a size"), 1024);
}

#[test]
fn limits_hold_for_drives_and_nodes_and_are_shared() {
    let core = hw_core::Core::new();
    core.clocks.set_stepped();
    core.clocks.start();
    let blocks = block::Blocks::of(&core);
    let group = blocks.group("g");
    let mut limits = block::throttle::Limits::default();
    assert!(limits.set("iops-total", 10));
    group.set_limits(limits).expect("they make sense");
    blocks.blockdev_add(opts(json!({"driver": "null-co", "node-name": "a"}))).expect("it opens");
    blocks.blockdev_add(opts(json!({"driver": "null-co", "node-name": "b"}))).expect("it opens");
    let node = json!({"driver": "throttle", "throttle-group": "g", "file": "a", "node-name": "t"});
    blocks.blockdev_add(opts(node)).expect("it opens");
    let none = json!({"driver": "throttle", "throttle-group": "h", "file": "a", "node-name": "u"});
    assert_eq!(text(blocks.blockdev_add(opts(none))), "Throttle group 'h' does not exist");
    let above = json!({"driver": "raw", "file": "t", "node-name": "r"});
    assert!(text(blocks.blockdev_add(opts(above))).contains("can only be below a drive or a filter"));
    let by_node = blocks.anonymous(blocks.find_node("t").as_ref()).expect("a drive");
    let by_drive = blocks.anonymous(blocks.find_node("b").as_ref()).expect("a drive");
    by_drive.set_group(Some(group));
    let done = [Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0))];
    for (drive, done) in [&by_node, &by_drive].into_iter().zip(&done) {
        for n in 0..100 {
            let done = done.clone();
            drive.submit(Request::read(n * 4096, 512), Box::new(move |_| _ = done.fetch_add(1, Ordering::SeqCst)));
        }
    }
    let count = |want: usize| {
        tests::process::until("requests", || {
            blocks.deliver();
            done.iter().map(|d| d.load(Ordering::SeqCst)).sum::<usize>() >= want
        });
        // Nothing more comes without time.
        std::thread::sleep(std::time::Duration::from_millis(5));
        blocks.deliver();
        done.iter().map(|d| d.load(Ordering::SeqCst)).collect::<Vec<_>>()
    };
    assert_eq!(count(2).iter().sum::<usize>(), 2);
    core.clocks.step(&mut core.lock(), 2_000_000_000);
    let got = count(22);
    assert_eq!(got.iter().sum::<usize>(), 22, "{got:?}");
    assert!(got.iter().all(|n| *n >= 10), "they take turns: {got:?}");
    blocks.drain();
    assert_eq!(done.iter().map(|d| d.load(Ordering::SeqCst)).collect::<Vec<_>>(), [100, 100]);
    drop((by_node, by_drive));
    blocks.close();
}
