//! Objects, types and introspection through QMP.

use serde_json::{Value, json};
use tests::qmp::Qmp;

fn names(v: &Value) -> Vec<&str> {
    v.as_array().unwrap().iter().map(|e| e["name"].as_str().unwrap()).collect()
}

#[test]
fn the_tree_is_walked_by_path() {
    let mut q = Qmp::start(&["-machine", "none", "-S"]);
    let root = q.run("qom-list", json!({"path": "/"}));
    for folder in ["machine", "objects", "chardevs"] {
        assert!(names(&root).contains(&folder), "{root}");
    }
    assert_eq!(q.run("qom-get", json!({"path": "/machine", "property": "type"})), "none-machine");
    let listed = q.run("qom-list-get", json!({"paths": ["/machine", "/chardevs/compat_monitor0"]}));
    assert_eq!(listed.as_array().unwrap().len(), 2);
    let (class, text) = q.error("qom-list", json!({"path": "/nowhere"}));
    assert_eq!((class.as_str(), text.as_str()), ("DeviceNotFound", "Device '/nowhere' not found"));
    let (_, text) = q.error("qom-get", json!({"path": "/machine", "property": "kernl"}));
    assert!(text.starts_with("Property 'none-machine.kernl' not found") && text.contains("'kernel'"), "{text}");
}

#[test]
fn properties_are_set_with_their_type() {
    let mut q = Qmp::start(&["-machine", "none", "-S"]);
    let at = |v: Value| json!({"path": "/machine", "property": "usb", "value": v});
    let (_, text) = q.error("qom-set", at(json!("on")));
    assert!(text.contains("expected: boolean"), "{text}");
    q.run("object-add", json!({"qom-type": "memory-backend-ram", "id": "m0", "size": 4096}));
    assert_eq!(q.run("qom-get", json!({"path": "/objects/m0", "property": "size"})), 4096);
    let (_, text) = q.error("object-add", json!({"qom-type": "memory-backend-ram", "id": "m0", "size": 4096}));
    assert!(text.contains("duplicate") && text.contains("m0"), "{text}");
    q.run("object-del", json!({"id": "m0"}));
    let (_, text) = q.error("object-del", json!({"id": "m0"}));
    assert_eq!(text, "object 'm0' not found");
    let (_, text) = q.error("object-add", json!({"qom-type": "memory-backend-rma", "id": "m1"}));
    assert!(text.contains("memory-backend-ram"), "{text}");
    for (props, why) in [
        (json!({"qom-type": "edu"}), "Parameter 'qom-type' does not accept value 'edu'"),
        (json!({"qom-type": "memory-backend-ram"}), "Parameter 'size' is missing"),
        (
            json!({"qom-type": "memory-backend-ram", "size": 4096, "mem-path": "/x"}),
            "Parameter 'mem-path' is unexpected",
        ),
        (json!({"qom-type": "memory-backend-file", "size": 4096}), "Parameter 'mem-path' is missing"),
        (
            json!({"qom-type": "memory-backend-ram", "size": "4k"}),
            "Invalid parameter type for 'size', expected: integer",
        ),
        (json!({"qom-type": "monitor-qmp", "chardev": "x", "close-action": "go"}), "does not accept value 'go'"),
    ] {
        let mut args = props.clone();
        args["id"] = json!("m2");
        let (_, text) = q.error("object-add", args);
        assert!(text.contains(why), "{props}: {text}");
    }
}

#[test]
fn types_are_listed_and_described() {
    let mut q = Qmp::start(&["-machine", "none", "-S"]);
    let machines = q.run("qom-list-types", json!({"implements": "machine"}));
    assert!(names(&machines).contains(&"none-machine"));
    assert!(!names(&machines).contains(&"machine"));
    let all = q.run("qom-list-types", json!({"implements": "machine", "abstract": true}));
    assert!(names(&all).contains(&"machine"));
    let props = q.run("qom-list-properties", json!({"typename": "none-machine"}));
    assert!(names(&props).contains(&"memory-backend"));
    for (command, text) in
        [("device-list-properties", "Device 'nope' not found"), ("qom-list-properties", "Class 'nope' not found")]
    {
        let (class, desc) = q.error(command, json!({"typename": "nope"}));
        assert_eq!((class.as_str(), desc.as_str()), ("DeviceNotFound", text));
    }
}

#[test]
fn machines_accelerators_and_version() {
    let mut q = Qmp::start(&["-machine", "none", "-S"]);
    let machines = q.run("query-machines", json!({}));
    let none = machines.as_array().unwrap().iter().find(|m| m["name"] == "none").unwrap().clone();
    assert_eq!(none["cpu-max"], 1);
    let accel = q.run("query-accelerators", json!({}));
    assert_eq!(accel["enabled"], "tcg");
    assert!(accel["present"].as_array().unwrap().contains(&json!("qtest")));
    assert_eq!(q.run("query-version", json!({}))["qemu"]["major"], 11);
    assert_eq!(q.run("query-target", json!({})), json!({"arch": "x86_64"}));
    assert_eq!(q.run("query-cpus-fast", json!({})), json!([]));
    let (_, text) = q.error("query-hotpluggable-cpus", json!({}));
    assert_eq!(text, "machine does not support hot-plugging CPUs");
    let options = q.run("query-command-line-options", json!({"option": "chardev"}));
    assert!(names(&options[0]["parameters"]).contains(&"reconnect-ms"));
    assert!(q.error("query-command-line-options", json!({"option": "nope"})).1.contains("nope"));
}

#[test]
fn cpu_models() {
    let mut q = Qmp::start(&["-machine", "none", "-S"]);
    let models = q.run("query-cpu-definitions", json!({}));
    let model = |n: &str| models.as_array().unwrap().iter().find(|m| m["name"] == n).unwrap();
    assert_eq!(
        (model("EPYC-IBPB")["alias-of"].clone(), model("base")["static"].clone()),
        (json!("EPYC-v2"), json!(true))
    );
    assert_eq!(model("qemu64-v1")["unavailable-features"], json!(["svm"]));
    let model = json!({"name": "Conroe", "props": {"avx": true}});
    let full = q.run("query-cpu-model-expansion", json!({"type": "full", "model": model}));
    assert_eq!((&full["model"]["props"]["avx"], &full["model"]["props"]["ssse3"]), (&json!(true), &json!(true)));
    let bad = json!({"type": "static", "model": {"name": "Conroy"}});
    assert!(q.error("query-cpu-model-expansion", bad).1.contains("'Conroe'"));
}

#[test]
fn the_human_monitor_answers_through_qmp() {
    let mut q = Qmp::start(&["-machine", "none", "-S"]);
    assert_eq!(q.hmp("info status"), "VM status: paused (prelaunch)\r\n");
    assert!(q.hmp("info qom-tree").starts_with("/machine (none-machine)\r\n  /peripheral (container)\r\n"));
    assert!(q.hmp("info qtree").starts_with("bus: main-system-bus\r\n  type System\r\n"));
    assert!(
        q.hmp("info mtree")
            .contains("address-space: memory\r\n  0000000000000000-ffffffffffffffff (prio 0, container): system\r\n")
    );
    assert!(q.hmp("info mtree -f").contains("(prio 0, container): io\r\n"));
    assert!(q.hmp("info version").starts_with("11.1.3"));
    assert_eq!(q.hmp("info roms"), "");
    assert_eq!(q.hmp("info registers"), "Error: No CPU available\r\n");
    assert_eq!(q.hmp("xp /2xb 0"), "0000000000000000:\r\nCannot access memory\r\n");
    assert!(q.hmp("help info").contains("info qom-tree [path] -- show QOM composition tree\r\n"));
    assert_eq!(q.hmp("infos"), "unknown command: 'infos' (did you mean 'info'?)\r\n");
    assert!(
        q.error("human-monitor-command", json!({"command-line": "info status", "cpu-index": 3})).1.contains("no CPU 3")
    );
}

#[test]
fn character_devices_are_listed_and_ring_buffers_read() {
    let mut q =
        Qmp::start(&["-machine", "none", "-S", "-chardev", "ringbuf,id=r,size=16", "-chardev", "null,id=n,mux=on"]);
    let list = q.run("query-chardev", json!({}));
    let find = |label: &str| list.as_array().unwrap().iter().find(|c| c["label"] == label).unwrap().clone();
    assert_eq!(find("r"), json!({"frontend-open": false, "filename": "ringbuf", "label": "r"}));
    assert_eq!((&find("n")["filename"], &find("n-base")["filename"]), (&json!("mux"), &json!("null")));
    assert!(find("compat_monitor0")["filename"].as_str().unwrap().starts_with("unix:"));
    q.run("ringbuf-write", json!({"device": "r", "data": "aGVsbG8=", "format": "base64"}));
    assert_eq!(q.run("ringbuf-read", json!({"device": "r", "size": 3})), "hel");
    assert_eq!(q.run("ringbuf-read", json!({"device": "r", "size": 30, "format": "base64"})), "bG8=");
    assert_eq!(q.error("ringbuf-read", json!({"device": "n", "size": 1})).1, "n is not a ringbuf device");
    assert_eq!(q.run("qom-get", json!({"path": "/chardevs/r", "property": "type"})), "chardev-ringbuf");
    q.run("chardev-remove", json!({"id": "r"}));
    assert_eq!(q.error("chardev-remove", json!({"id": "r"})).1, "chardev 'r' not found");
    assert_eq!(q.error("qom-list", json!({"path": "/chardevs/r"})).0, "DeviceNotFound");
}
