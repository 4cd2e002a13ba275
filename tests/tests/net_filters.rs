//! Filters between a backend and its peer: a backend `n` whose far end is a socket of the test's, a hub, and another such backend.

use serde_json::{Value, json};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::time::Duration;
use tempfile::TempDir;
use tests::process;
use tests::qmp::Qmp;
use tests::qtest::Qtest;

struct Link {
    q: Qtest,
    qmp: Qmp,
    /// Behind `n`, and behind the other backend.
    near: UnixDatagram,
    far: UnixDatagram,
    dir: TempDir,
}

impl Link {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let path = |name: &str| dir.path().join(name);
        let bind = |name: &str| {
            let s = UnixDatagram::bind(path(name)).expect("a socket");
            s.set_read_timeout(Some(Duration::from_secs(60))).expect("a time-out");
            s
        };
        let (near, far) = (bind("near"), bind("far"));
        let netdev = |id: &str, remote: &str| {
            let (local, remote) = (path(id).display().to_string(), path(remote).display().to_string());
            format!("dgram,id={id},local.type=unix,local.path={local},remote.type=unix,remote.path={remote}")
        };
        let (n, m) = (netdev("n", "near"), netdev("m", "far"));
        let qmp = format!("unix:{},server=on,wait=off", path("qmp").display());
        let hubs = ["-netdev", "hubport,id=p,hubid=0,netdev=n", "-netdev", "hubport,id=o,hubid=0,netdev=m"];
        let args = ["-machine", "none", "-netdev", &n, "-netdev", &m, "-qmp", &qmp];
        let q = Qtest::start(&[&args[..], &hubs].concat());
        near.connect(path("n")).expect("its socket");
        far.connect(path("m")).expect("its socket");
        let mut qmp = Qmp::connect(&path("qmp"));
        qmp.run("qmp_capabilities", json!({}));
        Self { q, qmp, near, far, dir }
    }

    fn add(&mut self, kind: &str, id: &str, more: Value) {
        let mut props = json!({"qom-type": kind, "id": id, "netdev": "n"});
        props.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.qmp.run("object-add", props);
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

fn received(s: &UnixDatagram) -> Vec<u8> {
    let mut bytes = vec![0; 2000];
    let n = s.recv(&mut bytes).expect("a frame");
    bytes.truncate(n);
    bytes
}

fn nothing_at(s: &UnixDatagram) -> bool {
    s.set_nonblocking(true).expect("a socket");
    let nothing = s.recv(&mut [0; 2000]).is_err();
    s.set_nonblocking(false).expect("a socket");
    nothing
}

fn word(b: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(b[at..at + 4].try_into().unwrap())
}

/// The frames of a pcap file, each with its length on the wire, and their times in microseconds.
fn frames(path: &std::path::Path) -> (Vec<(Vec<u8>, u32)>, Vec<u64>) {
    let bytes = std::fs::read(path).expect("the file");
    assert_eq!((word(&bytes, 0), word(&bytes, 4), word(&bytes, 20)), (0xa1b2_c3d4, 4 << 16 | 2, 1));
    let (mut all, mut times, mut at) = (vec![], vec![], 24);
    while at < bytes.len() {
        let kept = word(&bytes, at + 8) as usize;
        times.push(u64::from(word(&bytes, at)) * 1_000_000 + u64::from(word(&bytes, at + 4)));
        all.push((bytes[at + 16..at + 16 + kept].to_vec(), word(&bytes, at + 12)));
        at += 16 + kept;
    }
    (all, times)
}

#[test]
fn frames_are_written_to_a_file() {
    let mut l = Link::new();
    for (id, queue) in [("all", "all"), ("rx", "rx"), ("tx", "tx")] {
        let more = json!({"file": l.file(id), "queue": queue, "maxlen": if id == "all" { 65536 } else { 20 }});
        l.add("filter-dump", id, more);
    }
    let shown = l.qmp.hmp("info network");
    assert!(shown.contains("filters:\r\n  - all: type=filter-dump,"), "{shown}");
    assert!(shown.contains("queue=rx") && shown.contains("maxlen=20") && shown.contains("status=on"), "{shown}");
    for n in 0..3u8 {
        l.near.send(&[n; 60]).unwrap();
        assert_eq!(received(&l.far), [n; 60]);
        l.q.clock_step(1_000_000);
        l.far.send(&[n; 100]).unwrap();
        assert_eq!(received(&l.near), [n; 100]);
    }
    let (all, times) = frames(&l.file("all"));
    assert_eq!(all.iter().map(|f| f.0.len()).collect::<Vec<_>>(), [60, 100, 60, 100, 60, 100]);
    assert_eq!((times[1] - times[0], times[5] - times[4], times[2] - times[1]), (1000, 1000, 0));
    let want = |len: u32| (0..3u8).map(|n| (vec![n; 20], len)).collect::<Vec<_>>();
    assert_eq!((frames(&l.file("rx")).0, frames(&l.file("tx")).0), (want(100), want(60)));
    // Switched off, and away.
    l.qmp.run("qom-set", json!({"path": "/objects/all", "property": "status", "value": "off"}));
    l.qmp.run("object-del", json!({"id": "tx"}));
    l.near.send(&[9; 60]).unwrap();
    received(&l.far);
    assert_eq!((frames(&l.file("all")).0.len(), frames(&l.file("tx")).0.len()), (6, 3));
    // With its backend a filter goes.
    l.qmp.run("netdev_del", json!({"id": "n"}));
    let left = l.qmp.run("qom-list", json!({"path": "/objects"}));
    assert!(left.as_array().unwrap().iter().all(|o| o["name"] != "all" && o["name"] != "rx"), "{left}");
}

#[test]
fn frames_are_held_until_the_next_interval() {
    let mut l = Link::new();
    l.add("filter-buffer", "b", json!({"interval": 1000}));
    l.add("filter-dump", "before", json!({"file": l.file("before"), "position": "id=b", "insert": "before"}));
    l.add("filter-dump", "behind", json!({"file": l.file("behind"), "position": "tail"}));
    let seen = |l: &Link| ["before", "behind"].map(|n| frames(&l.file(n)).0.len());
    for n in 0..3u8 {
        l.near.send(&[n; 60]).unwrap();
    }
    process::until("they come as far as the buffer", || seen(&l) == [3, 0]);
    l.q.clock_step(999_000);
    assert_eq!((seen(&l), nothing_at(&l.far)), ([3, 0], true));
    l.q.clock_step(1000);
    for n in 0..3u8 {
        assert_eq!(received(&l.far), [n; 60]);
    }
    assert_eq!(seen(&l), [3, 3]);
    // The other way the last filter is the first.
    l.far.send(&[7; 60]).unwrap();
    process::until("it comes as far as the buffer", || seen(&l) == [3, 4]);
    assert!(nothing_at(&l.near));
    l.qmp.run("qom-set", json!({"path": "/objects/b", "property": "status", "value": "off"}));
    assert_eq!((received(&l.near), seen(&l)), (vec![7; 60], [4, 4]));
    l.near.send(&[8; 60]).unwrap();
    assert_eq!(received(&l.far), [8; 60]);
    // What a filter holds when it goes is not lost.
    l.qmp.run("qom-set", json!({"path": "/objects/b", "property": "status", "value": "on"}));
    l.near.send(&[6; 60]).unwrap();
    process::until("it comes as far as the buffer", || seen(&l) == [6, 5]);
    assert!(nothing_at(&l.far));
    l.qmp.run("object-del", json!({"id": "b"}));
    assert_eq!(received(&l.far), [6; 60]);
}

#[test]
fn filters_that_cannot_be_are_refused() {
    let mut l = Link::new();
    let file = l.file("x");
    for (props, message) in [
        (
            json!({"qom-type": "filter-dump", "netdev": "x", "file": file}),
            "Parameter 'netdev' expects a network backend id",
        ),
        (
            json!({"qom-type": "filter-dump", "netdev": "n", "file": "/nowhere/x"}),
            "net dump: can't open /nowhere/x: No such file",
        ),
        (json!({"qom-type": "filter-dump", "netdev": "n", "file": ""}), "dump filter needs 'file' property set!"),
        (json!({"qom-type": "filter-dump", "netdev": "n", "file": file, "maxlen": 0}), "doesn't take value '0'"),
        (
            json!({"qom-type": "filter-dump", "netdev": "n", "file": file, "position": "middle"}),
            "Parameter 'position' expects",
        ),
        (json!({"qom-type": "filter-dump", "netdev": "n", "file": file, "position": "id=q"}), "filter 'q' not found"),
        (json!({"qom-type": "filter-dump", "netdev": "n", "file": file, "status": "maybe"}), "should be 'on' or 'off'"),
        (json!({"qom-type": "filter-buffer", "netdev": "n", "interval": 0}), "requires a positive value"),
    ] {
        let mut args = props.clone();
        args["id"] = json!("f");
        let (_, text) = l.qmp.error("object-add", args);
        assert!(text.contains(message), "{props}: {text}");
    }
    assert!(!l.qmp.hmp("info network").contains("filters"));
    l.near.send(&[1; 60]).unwrap();
    assert_eq!(received(&l.far), [1; 60]);
}
