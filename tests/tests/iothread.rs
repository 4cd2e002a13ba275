//! Threads that serve devices: `-object iothread`, and the devices that have one.

use serde_json::json;
use std::path::PathBuf;
use tests::packages;
use tests::qmp::Qmp;
use tests::qtest::Qtest;
use tests::virtio::{Virtio, WRITE};

fn firmware() -> String {
    packages::seabios().expect("SeaBIOS can be fetched").to_str().expect("a plain path").to_owned()
}

/// An image whose sectors of 512 bytes each hold their number.
fn image() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("image");
    std::fs::write(&path, (0..64u16).flat_map(|n| n.to_le_bytes().repeat(256)).collect::<Vec<u8>>()).expect("an image");
    (dir, path)
}

fn start(args: &[&str]) -> Qmp {
    Qmp::start(&[&["-nodefaults", "-display", "none", "-S", "-L", &firmware()], args].concat())
}

/// How often a thread of the host's ran.
fn turns(thread: i64) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{thread}/schedstat")).expect("a thread");
    text.split_whitespace().nth(2).and_then(|n| n.parse().ok()).expect("three numbers")
}

#[test]
fn monitors_show_them_and_objects_come_and_go() {
    let mut q =
        start(&["-object", "iothread,id=io1,poll-max-ns=0", "-object", r#"{"qom-type":"iothread","id":"io2"}"#]);
    let all = q.run("query-iothreads", json!({}));
    let fields = |i: usize| {
        let t = &all[i];
        [&t["id"], &t["poll-max-ns"], &t["poll-grow"], &t["poll-shrink"], &t["poll-weight"], &t["aio-max-batch"]]
            .map(ToString::to_string)
    };
    assert_eq!(fields(0), ["\"io1\"", "0", "2", "2", "3", "0"]);
    assert_eq!(fields(1), ["\"io2\"", "32768", "2", "2", "3", "0"]);
    let thread = all[0]["thread-id"].as_i64().expect("a number");
    assert_eq!(std::fs::read_to_string(format!("/proc/{thread}/comm")).expect("a thread"), "IO io1\n");
    let text = q.hmp("info iothreads");
    assert!(text.starts_with(&format!("io1:\r\n  thread_id={thread}\r\n  poll-max-ns=0\r\n")), "{text}");
    // What can be changed later is, nothing else.
    let set = |property: &str, value: i64| json!({"path": "/objects/io1", "property": property, "value": value});
    q.run("qom-set", set("poll-max-ns", 77));
    assert_eq!(q.run("query-iothreads", json!({}))[0]["poll-max-ns"], json!(77));
    assert!(q.error("qom-set", set("poll-grow", -1)).1.contains("poll-grow value must be in range [0, "));
    q.error("qom-set", set("aio-max-batch", 1));
    q.run("object-del", json!({"id": "io1"}));
    q.run("object-add", json!({"qom-type": "iothread", "id": "io3"}));
    let ids: Vec<String> =
        q.run("query-iothreads", json!({})).as_array().unwrap().iter().map(|t| t["id"].to_string()).collect();
    assert_eq!(ids, ["\"io2\"", "\"io3\""]);
    for _ in 0..100 {
        if !std::path::Path::new(&format!("/proc/{thread}")).exists() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    panic!("the thread of a deleted object is still there");
}

#[test]
fn what_does_not_fit_is_refused() {
    let drive = ["-drive", "driver=null-co,if=none,id=d", "-object", "iothread,id=a", "-object", "iothread,id=b"];
    let mut q = start(&drive);
    let mut refused = |driver: &str, more: serde_json::Value, why: &str| {
        let mut args = json!({"driver": driver, "id": "x", "num-queues": 2, "drive": "d"});
        if driver == "virtio-scsi-pci" {
            args = json!({"driver": driver, "id": "x", "num_queues": 2});
        }
        args.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let error = q.error("device_add", args).1;
        assert!(error.contains(why), "{error}");
    };
    let map = |list: serde_json::Value| json!({"iothread-vq-mapping": list});
    for driver in ["virtio-blk-pci", "virtio-scsi-pci"] {
        refused(driver, json!({"iothread": "c"}), "Device 'c' not found");
        refused(driver, map(json!([{"iothread": "c"}])), "IOThread \"c\" object does not exist");
        refused(driver, map(json!([{"iothread": "a"}, {"iothread": "a"}])), "duplicate IOThread name \"a\"");
        refused(
            driver,
            map(json!([{"iothread": "a", "vqs": [0]}, {"iothread": "b"}])),
            "all items in iothread-vq-mapping",
        );
        refused(
            driver,
            map(json!([{"iothread": "a", "vqs": [0, 2]}])),
            "vq index 2 for IOThread \"a\" must be less than num_queues 2",
        );
        refused(
            driver,
            map(json!([{"iothread": "a", "vqs": [0, 1]}, {"iothread": "b", "vqs": [1]}])),
            "already assigned",
        );
        refused(driver, map(json!([{"iothread": "a", "vqs": [1]}])), "missing vq 0 IOThread assignment");
        let both = json!({"iothread": "a", "iothread-vq-mapping": [{"iothread": "b"}]});
        refused(driver, both, "cannot be set at the same time");
    }
    let error = q.error("object-add", json!({"qom-type": "iothread", "id": "y", "poll-max-ns": -1})).1;
    assert!(error.contains("poll-max-ns value must be in range [0, "), "{error}");
    let error = q.error("object-add", json!({"qom-type": "iothread", "id": "y", "thread-pool-max": 4})).1;
    assert!(error.contains("thread-pool-max=4 is not built yet"), "{error}");
}

const HEADER: u64 = 0x10_0000;
const DATA: u64 = 0x20_0000;
const STATUS: u64 = 0x10_0100;

#[test]
fn requests_of_a_queue_are_made_by_its_thread() {
    let (dir, path) = image();
    let socket = dir.path().join("qmp");
    let server = format!("unix:{},server=on,wait=off", socket.display());
    let drive = format!("if=none,id=d,file={},format=raw", path.display());
    let one = "virtio-blk-pci,drive=d,addr=4,num-queues=2,iothread=b";
    let mapped = r#"{"driver":"virtio-blk-pci","drive":"d","addr":"4","num-queues":2,
        "iothread-vq-mapping":[{"iothread":"a","vqs":[0]},{"iothread":"b","vqs":[1]}]}"#;
    for device in [one, mapped] {
        let args =
            ["-nodefaults", "-m", "64", "-L", &firmware(), "-object", "iothread,id=a", "-object", "iothread,id=b"];
        let q = Qtest::start(&[&args[..], &["-drive", &drive, "-device", device, "-qmp", &server]].concat());
        let mut v = Virtio::new(q, 4);
        let mut monitor = Qmp::connect(&socket);
        monitor.run("qmp_capabilities", json!({}));
        v.start(1 << 32);
        let mut ring = v.queue(1, false);
        v.driver_ok();
        let threads = monitor.run("query-iothreads", json!({}));
        let threads = [0, 1].map(|i| threads[i]["thread-id"].as_i64().expect("a number"));
        let before = threads.map(turns);
        for sector in 0..32u64 {
            v.q.store(HEADER, 4, 0);
            v.q.store(HEADER + 8, 8, sector);
            v.q.store(STATUS, 1, 0xee);
            v.q.store(DATA, 8, u64::MAX);
            ring.offer(&mut v, &[(HEADER, 16, 0), (DATA, 512, WRITE), (STATUS, 1, WRITE)]);
            ring.wait(&mut v);
            assert_eq!((v.q.load(STATUS, 1), v.q.load(DATA, 8)), (0, sector * 0x1_0001_0001_0001));
        }
        let after = threads.map(turns);
        // (Told, and ended: two turns each, or one where it still looked for work.)
        assert!(after[1] - before[1] >= 16, "{before:?} {after:?}");
        assert!(after[0] - before[0] < 8, "{before:?} {after:?}");
        // A reset and stop with requests on their way.
        for sector in 0..8u64 {
            v.q.store(HEADER + 8, 8, sector);
            ring.offer(&mut v, &[(HEADER, 16, 0), (DATA, 512, WRITE), (STATUS, 1, WRITE)]);
        }
        monitor.run("stop", json!({}));
        v.reset();
        // The object may go while a device has it; the thread stays until the device goes.
        monitor.run("object-del", json!({"id": "b"}));
        assert!(turns(threads[1]) >= after[1]);
    }
}
