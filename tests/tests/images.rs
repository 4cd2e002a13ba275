//! Images by our block layer and by the peer's tools.

use serde_json::{Value, json};
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
