//! Images by our block layer and by the peer's tools.

use serde_json::{Value, json};
use std::path::Path;
use tests::qmp::Qmp;
use tests::{images, packages};

#[test]
fn random_sequences_agree_with_the_peer() {
    let peer = packages::peer().expect("the peer can be fetched");
    for seed in 1..=8 {
        images::sequence(&peer, seed).unwrap_or_else(|e| panic!("{e:#}"));
    }
}

/// What the monitor says of an image and its backing chain is what the peer's tool says.
#[test]
fn the_monitor_shows_formats_and_chains() {
    let peer = packages::peer().expect("the peer can be fetched");
    let dir = tempfile::tempdir().expect("a folder");
    let path = |name: &str| dir.path().join(name).to_str().expect("a plain path").to_owned();
    let img = |args: &[&str]| images::tool(&peer, "qemu-img", args).unwrap_or_else(|e| panic!("{e:#}"));
    let (base, middle, top) = (path("base.raw"), path("middle.qcow2"), path("top.qcow2"));
    img(&["create", "-q", "-f", "raw", &base, "3M"]);
    img(&["create", "-q", "-f", "qcow2", "-o", "compat=0.10", "-b", "base.raw", "-F", "raw", &middle, "4M"]);
    let options = "cluster_size=4k,refcount_bits=8,compression_type=zstd,lazy_refcounts=on";
    img(&["create", "-q", "-f", "qcow2", "-o", options, "-b", "middle.qcow2", "-F", "qcow2", &top]);
    img(&["snapshot", "-c", "before", &top]);
    let drive = format!("if=none,id=d,node-name=n,file={top}");
    let mut q = Qmp::start(&["-machine", "none", "-S", "-drive", &drive]);
    let all = q.run("query-block", json!({}));
    let inserted = &all[0]["inserted"];
    assert_eq!((&inserted["backing_file_depth"], &inserted["backing_file"]), (&json!(2), &json!(middle)));
    let mut ours = inserted["image"].clone();
    let theirs: Value =
        serde_json::from_str(&img(&["info", "-U", "--output=json", "--backing-chain", &top])).expect("JSON");
    for theirs in theirs.as_array().expect("a list") {
        for key in [
            "filename",
            "format",
            "virtual-size",
            "actual-size",
            "dirty-flag",
            "cluster-size",
            "backing-filename",
            "full-backing-filename",
            "backing-filename-format",
            "snapshots",
            "format-specific",
        ] {
            let ours = ours.get(key).filter(|_| key != "format-specific" || theirs["format"] == "qcow2");
            let theirs = theirs.get(key).filter(|_| key != "format-specific" || theirs["format"] == "qcow2");
            assert_eq!(ours, theirs, "{key}");
        }
        ours = ours["backing-image"].take();
    }
    let flat = q.run("query-named-block-nodes", json!({"flat": true}));
    assert!(flat.as_array().expect("a list").iter().all(|n| n["image"].get("backing-image").is_none()));
}

/// The file ends in the middle of the last cluster: what is behind its end was never written.
#[test]
fn the_last_cluster_may_be_cut_short() {
    let peer = packages::peer().expect("the peer can be fetched");
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("image");
    let name = path.to_str().expect("a plain path");
    images::tool(&peer, "qemu-img", &["create", "-q", "-f", "qcow2", name, "1M"]).unwrap_or_else(|e| panic!("{e:#}"));
    let (_blocks, node) = images::open("qcow2", &path, &json!({})).expect("it opens");
    node.write(512, &[7; 512]).expect("written");
    let mut buf = [1; 4096];
    for at in [4096, 32768, 61440] {
        node.read(at, &mut buf).expect("there is something to read");
        assert_eq!(buf, [0; 4096], "at {at}");
    }
}

/// Images that the peer's tool makes read as what they were made of; nobody writes to them.
#[test]
fn formats_of_others_are_read() {
    let peer = packages::peer().expect("the peer can be fetched");
    let dir = tempfile::tempdir().expect("a folder");
    let path = |name: &str| dir.path().join(name).to_str().expect("a plain path").to_owned();
    let raw = path("raw");
    // 9 MiB and a bit: places with data, places without.
    let bytes: Vec<u8> = (0..9 * 2048 + 77u64)
        .flat_map(|sector| {
            let byte = if sector / 300 % 3 == 1 { 0 } else { (sector % 251) as u8 + 1 };
            [byte; 512]
        })
        .collect();
    std::fs::write(&raw, &bytes).expect("an image");
    for (format, options) in [
        ("vdi", ""),
        ("vdi", "static=on"),
        ("vpc", "force_size=on"),
        ("vpc", "force_size=on,subformat=fixed"),
        ("vhdx", ""),
        ("vhdx", "subformat=fixed,block_size=2M"),
        ("vmdk", ""),
        ("vmdk", "subformat=streamOptimized"),
        ("vmdk", "subformat=monolithicFlat"),
        ("vmdk", "subformat=twoGbMaxExtentSparse"),
        ("vmdk", "zeroed_grain=on"),
    ] {
        let image = path(&format!("{format}-{}", options.replace(['=', ','], "-")));
        let mut args = vec!["convert", "-f", "raw", "-O", format, &raw, &image];
        if !options.is_empty() {
            args.extend(["-o", options]);
        }
        images::tool(&peer, "qemu-img", &args).unwrap_or_else(|e| panic!("{e:#}"));
        let whole = std::fs::read(&image).expect("an image");
        let writable = images::open(format, Path::new(&image), &json!({})).map(drop).expect_err("refused");
        assert_eq!(writable.to_string(), format!("{format} images can be opened with read-only=on only"));
        let opened = images::open(format, Path::new(&image), &json!({"read-only": true}));
        let (_blocks, node) = opened.unwrap_or_else(|e| panic!("{format}, {options}: {e:#}"));
        assert_eq!(node.len().expect("a size"), bytes.len() as u64, "{format}, {options}");
        let mut got = vec![1; bytes.len()];
        node.read(0, &mut got).unwrap_or_else(|e| panic!("{format}, {options}: {e}"));
        let wrong = (0..bytes.len()).find(|n| got[*n] != bytes[*n]);
        assert_eq!(wrong, None, "{format}, {options}");
        // Not at the beginning of anything.
        let mut part = vec![1; 70_000];
        node.read(1_234_944, &mut part).expect("read");
        assert_eq!(part, bytes[1_234_944..][..70_000], "{format}, {options}");
        // Spoiled, it may be refused or read wrongly: it ends, and stays.
        drop(node);
        let mut r = tests::contract::Rng::new(7);
        for _ in 0..12 {
            let mut spoiled = whole.clone();
            images::hostile::spoil(&mut spoiled, &mut r);
            let path = dir.path().join("spoiled");
            std::fs::write(&path, &spoiled).expect("an image");
            if let Ok((_blocks, node)) = images::open(format, &path, &json!({"read-only": true})) {
                _ = node.read(0, &mut part);
                let len = node.len().expect("a size");
                _ = node.read(len.saturating_sub(70_000), &mut part);
            }
            assert_eq!(std::fs::read(&path).expect("an image"), spoiled, "{format}, {options}: changed");
        }
    }
}

/// A chain that comes back to itself, and names that lead nowhere.
#[test]
fn backing_files_that_are_wrong() {
    let peer = packages::peer().expect("the peer can be fetched");
    let dir = tempfile::tempdir().expect("a folder");
    let path = |name: &str| dir.path().join(name);
    for (name, backing) in [("a", "b"), ("b", "a"), ("self", "self"), ("none", "missing")] {
        let args = ["create", "-q", "-u", "-f", "qcow2", "-b", backing, "-F", "qcow2"];
        let image = path(name);
        let args = [&args[..], &[image.to_str().expect("a plain path"), "1M"]].concat();
        images::tool(&peer, "qemu-img", &args).unwrap_or_else(|e| panic!("{e:#}"));
    }
    for (name, said) in [("a", "creates a loop"), ("self", "creates a loop"), ("none", "Could not open backing file")] {
        let before = std::fs::read(path(name)).expect("an image");
        let error = images::open("qcow2", &path(name), &json!({})).map(drop).expect_err("refused").to_string();
        assert!(error.contains(said), "{name}: {error}");
        assert_eq!(std::fs::read(path(name)).expect("an image"), before, "{name} is as it was");
        images::open("qcow2", &path(name), &json!({"backing": null})).expect("without a chain it opens");
    }
}

#[test]
fn a_crash_of_the_host_loses_nothing_flushed() {
    let peer = packages::peer().expect("the peer can be fetched");
    for seed in 1..=4 {
        images::crash::run(&peer, seed, 8).unwrap_or_else(|e| panic!("{e:#}"));
    }
}

/// Whichever way a request goes, the file below sees its write before its end, and fdatasync between the write and the end of a flush.
#[test]
fn what_is_acknowledged_as_stable_was_made_stable_before() {
    for aio in images::ways().unwrap_or_else(|e| panic!("{e:#}")) {
        images::crash::acknowledged(aio).unwrap_or_else(|e| panic!("aio={aio}: {e:#}"));
    }
}

#[test]
fn kill_9_loses_nothing_flushed() {
    let peer = packages::peer().expect("the peer can be fetched");
    let program = Path::new(env!("CARGO_BIN_EXE_image-writer"));
    let ways = images::ways().unwrap_or_else(|e| panic!("{e:#}"));
    let runs = ["raw", "qcow2"].into_iter().flat_map(|f| images::kill::CACHES.map(|c| (f, c)));
    for (seed, (format, cache, aio)) in (1..).zip(runs.flat_map(|(f, c)| ways.iter().map(move |w| (f, c, *w)))) {
        images::kill::kill_once(&peer, program, format, cache, aio, seed)
            .unwrap_or_else(|e| panic!("{format}, cache={cache}, aio={aio}, seed {seed}: {e:#}"));
    }
}

#[test]
fn kill_9_in_the_midst_of_a_job_loses_nothing_flushed() {
    let peer = packages::peer().expect("the peer can be fetched");
    let program = Path::new(env!("CARGO_BIN_EXE_image-writer"));
    for (seed, job) in (1..).zip(images::kill_job::JOBS.repeat(2)) {
        let one = images::kill_job::kill_once(&peer, program, job, seed);
        one.unwrap_or_else(|e| panic!("{job}, seed {seed}: {e:#}"));
    }
}

#[test]
fn spoiled_images_end_in_errors() {
    let peer = packages::peer().expect("the peer can be fetched");
    images::hostile::run(&peer, 1, 250).unwrap_or_else(|e| panic!("{e:#}"));
}
