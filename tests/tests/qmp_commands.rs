//! Every QMP command, every event and every command of the human monitor, each met through a real socket: a row says how, and
//! what is listed without a row (or the other way round) fails. Replies and events are checked against QEMU's schema by the client.

use serde_json::{Value, json};
use std::collections::BTreeSet;
use tests::packages;
use tests::process;
use tests::qmp::Qmp;
use tests::schema::Schema;

/// `-L` with SeaBIOS, which the board loads even if nothing runs it.
fn firmware() -> String {
    let bios = packages::seabios().expect("SeaBIOS can be fetched");
    let folder = if bios.is_dir() { bios.as_path() } else { bios.parent().expect("a folder") };
    folder.to_str().expect("a plain path").to_owned()
}

/// The default machine with its firmware, but no guest code runs.
fn pc(args: &[&str]) -> Qmp {
    let folder = firmware();
    let own = ["-accel", "qtest", "-display", "none", "-L", folder.as_str()];
    Qmp::start(&[args, &own].concat())
}

fn path(q: &Qmp, name: &str) -> String {
    q.dir().join(name).to_str().expect("a plain path").to_owned()
}

/// An image in a folder that stays as long as the machine.
fn disk(q: &Qmp, size: u64) -> String {
    let file = path(q, "disk");
    std::fs::File::create(&file).and_then(|f| f.set_len(size)).expect("an image");
    file
}

/// The CD drive gets an overlay on an image: names of both.
fn chain(q: &mut Qmp) -> (String, String) {
    let (base, top) = (disk(q, 4 << 20), path(q, "top"));
    let medium = json!({"device": "ide1-cd0", "filename": base, "format": "raw", "read-only-mode": "read-write"});
    q.run("blockdev-change-medium", medium);
    q.run("blockdev-snapshot-sync", json!({"device": "ide1-cd0", "snapshot-file": top}));
    (base, top)
}

/// A stream on [`chain`], job `j`, that makes a step and then waits for a long time.
fn slow_stream(q: &mut Qmp) {
    chain(q);
    q.run("block-stream", json!({"device": "ide1-cd0", "job-id": "j", "speed": 1}));
}

/// A commit of the top of [`chain`], job `j`, that is ready.
fn ready_commit(q: &mut Qmp) {
    chain(q);
    q.run("block-commit", json!({"device": "ide1-cd0", "job-id": "j"}));
    q.event("BLOCK_JOB_READY");
}

/// A stream on [`chain`], job `j`, that waits for what a user says at its end.
fn waiting_stream(q: &mut Qmp) {
    chain(q);
    let args = json!({"device": "ide1-cd0", "job-id": "j", "auto-finalize": false, "auto-dismiss": false});
    q.run("block-stream", args);
    q.event("BLOCK_JOB_PENDING");
}

/// The top of [`chain`] with an L2 table whose first entry leads to where no cluster can be, in the drive.
fn spoiled(q: &mut Qmp) {
    use std::os::unix::fs::FileExt;
    let (_, top) = chain(q);
    q.run("eject", json!({"device": "ide1-cd0", "force": true}));
    let file = std::fs::File::options().write(true).open(&top).expect("the image");
    let word = |at: u64, value: u64| file.write_all_at(&value.to_be_bytes(), at).expect("written");
    word(0x3_0000, 1 << 63 | 0x4_0000);
    word(0x4_0000, 1 << 63 | 0x5_0200);
    file.write_all_at(&[0; 65528], 0x4_0008).expect("written");
    file.write_all_at(&1u16.to_be_bytes(), 0x2_0008).expect("written");
    q.run(
        "blockdev-change-medium",
        json!({"device": "ide1-cd0", "filename": top, "format": "qcow2", "read-only-mode": "read-write"}),
    );
}

fn status(q: &mut Qmp) -> Value {
    q.run("query-jobs", json!({}))[0]["status"].clone()
}

fn names(v: &Value) -> Vec<&str> {
    v.as_array().expect("a list").iter().map(|e| e["name"].as_str().expect("a name")).collect()
}

fn find<'a>(v: &'a Value, key: &str, value: &str) -> &'a Value {
    let found = v.as_array().expect("a list").iter().find(|e| e[key] == value);
    found.unwrap_or_else(|| panic!("no {key} {value} in {v}"))
}

/// Writes a byte or word of the PCI configuration space of 00:01.3, the power management function.
fn pm_config(q: &mut Qmp, register: u32, format: &str, value: u32) {
    q.hmp(&format!("o /w 0xcf8 {:#x}", 0x8000_0b00 | (register & !3)));
    q.hmp(&format!("o /{format} {:#x} {value:#x}", 0xcfc + (register & 3)));
}

/// Sends the machine to sleep as an operating system does: SLP_TYP 1 (S3) and SLP_EN in PM1a_CNT.
fn suspend(q: &mut Qmp) {
    pm_config(q, 0x40, "w", 0x601); // PMBA
    pm_config(q, 0x80, "b", 1); // PMREGMISC.PMIOSE
    q.hmp("o /h 0x604 0x2400");
    q.event("SUSPEND");
}

/// Has the PS/2 mouse report.
fn mouse_on(q: &mut Qmp) {
    q.hmp("o /b 0x64 0xd4");
    q.hmp("o /b 0x60 0xf4");
    assert_eq!(q.hmp("i /b 0x60"), "portb[0x0060] = 0xfa\r\n");
}

/// A CPU to plug, with id `c1`, into `-smp 1,maxcpus=2`.
fn second_cpu() -> Value {
    json!({"driver": "qemu64-x86_64-cpu", "id": "c1", "socket-id": 0, "core-id": 1, "thread-id": 0})
}

/// The same in the human monitor.
const PLUG: &str = "device_add qemu64-x86_64-cpu,id=c1,socket-id=0,core-id=1,thread-id=0";

macro_rules! rows {
    ($names:ident, $q:ident, $machine:expr, $done:expr; $($test:ident = $name:literal: $run:block)*) => {
        const $names: &[&str] = &[$($name),*];
        $(#[test]
        fn $test() {
            let mut machine = $machine;
            let $q = &mut machine;
            $run
            assert!($done($q, $name), "{} was never seen to work", $name);
        })*
    };
}

fn same(listed: impl IntoIterator<Item = String>, rows: &[&str]) {
    let (listed, rows): (BTreeSet<String>, BTreeSet<String>) =
        (listed.into_iter().collect(), rows.iter().map(|r| (*r).to_owned()).collect());
    let without: Vec<_> = listed.difference(&rows).collect();
    let gone: Vec<_> = rows.difference(&listed).collect();
    assert!(without.is_empty() && gone.is_empty(), "without a row: {without:?}; rows for nothing: {gone:?}");
}

#[test]
fn every_command_and_event_has_a_row() {
    let mut q = Qmp::start(&["-machine", "none", "-S"]);
    let listed = q.run("query-commands", json!({}));
    same(names(&listed).into_iter().map(str::to_owned), COMMANDS);
    let schema = Schema::new(&q.run("query-qmp-schema", json!({})));
    same(schema.named("event").into_iter().map(str::to_owned), EVENTS);
}

#[test]
fn every_command_of_the_human_monitor_has_a_row() {
    let mut q = Qmp::start(&["-machine", "none", "-S"]);
    let first = |text: String| -> Vec<String> {
        text.lines()
            .map(|l| l.split(' ').next().unwrap_or_default().split('|').next().unwrap_or_default().to_owned())
            .collect()
    };
    same(first(q.hmp("help")), HMP);
    let items = q.hmp("help info").replace("info ", "");
    same(first(items), INFO);
}

/// Where the schema differs from QEMU's for what both have, and why. Places are prefixes. It may shrink, not grow.
const DIFFERENCES: &[(&str, &str)] = &[
    ("blockdev-add.", "drivers and options that are not built"),
    ("blockdev-reopen.", "as for blockdev-add"),
    ("block-commit.backing-mask-protocol", "there are no protocols to mask"),
    ("block-commit.filter-node-name", "jobs have no filter nodes"),
    ("block-stream.backing-mask-protocol", "there are no protocols to mask"),
    ("block-stream.filter-node-name", "jobs have no filter nodes"),
    ("query-block=>", "bitmaps are not built"),
    ("query-blockstats=>", "histograms, intervals and statistics of drivers are not built"),
    ("query-named-block-nodes=>", "as for query-block"),
    ("input-send-event.events[].(key).data.key.(qcode).data: lacks word unmapped", "it is no key"),
    ("GUEST_CRASHLOADED.info: missing", "no device says more"),
    ("GUEST_PANICKED.info: missing", "as above"),
    ("NETDEV_STREAM_CONNECTED.addr", "options of sockets that are not built"),
    ("netdev_add.", "backends and options that are not built"),
    ("object-add.(memory-backend-file)", "the type has not all of its properties"),
    ("object-add.(memory-backend-memfd)", "the type has not all of its properties"),
    ("object-add.qom-type: lacks word ", "types that are not built"),
    ("query-cpus-fast=>[].target: lacks word ", "one target is built"),
    ("query-target=>.arch: lacks word ", "one target is built"),
    ("send-key.keys[].(qcode).data: lacks word unmapped", "it is no key"),
];

#[test]
fn the_schema_is_qemus_where_both_have_something() {
    let mut q = Qmp::start(&["-machine", "none", "-S"]);
    let schema = Schema::new(&q.run("query-qmp-schema", json!({})));
    let found = schema.differences(Schema::qemu());
    let new: Vec<_> = found.iter().filter(|f| !DIFFERENCES.iter().any(|(place, _)| f.starts_with(place))).collect();
    assert!(new.is_empty(), "{new:#?}");
    let gone: Vec<_> = DIFFERENCES.iter().filter(|(place, _)| !found.iter().any(|f| f.starts_with(place))).collect();
    assert!(gone.is_empty(), "not there any more: {gone:#?}");
}

rows! { COMMANDS, q, pc(&["-smp", "1,maxcpus=2", "-chardev", "ringbuf,id=r,size=16", "-chardev", "null,id=n"]), Qmp::worked;
    netdev_add = "netdev_add": {
        q.run("netdev_add", json!({"type": "user", "id": "n", "restrict": true, "hostfwd": [{"str": "udp:127.0.0.1:0-:9"}]}));
        let twice = q.error("netdev_add", json!({"type": "hubport", "id": "n", "hubid": 1}));
        assert_eq!(twice.1, "Duplicate ID 'n' for netdev");
        q.run("device_add", json!({"driver": "e1000", "id": "card", "netdev": "n"}));
        let used = q.error("device_add", json!({"driver": "e1000", "netdev": "n"}));
        assert_eq!(used.1, "Property 'e1000.netdev' can't take value 'n', it's in use");
        assert!(q.hmp("info network").contains("\r\n \\ n: index=0,type=user,net=10.0.2.0,restrict=on\r\n"));
    }
    netdev_del = "netdev_del": {
        q.run("netdev_add", json!({"type": "user", "id": "n"}));
        q.run("device_add", json!({"driver": "e1000", "id": "card", "netdev": "n"}));
        assert_eq!(q.error("netdev_del", json!({"id": "card"})).1, "Device 'card' is not a netdev");
        q.run("netdev_del", json!({"id": "n"}));
        assert_eq!(q.error("netdev_del", json!({"id": "n"})), ("DeviceNotFound".into(), "Device 'n' not found".into()));
    }
    set_link = "set_link": {
        q.run("netdev_add", json!({"type": "user", "id": "n"}));
        q.run("device_add", json!({"driver": "e1000", "id": "card", "netdev": "n", "addr": "7"}));
        assert_eq!(q.error("set_link", json!({"name": "x", "up": true})).0, "DeviceNotFound");
        // STATUS.LU of the card, by its I/O window.
        for write in ["o /w 0xcf8 0x80003814", "o /w 0xcfc 0xd000", "o /w 0xcf8 0x80003804", "o /w 0xcfc 1", "o /w 0xd000 8"] {
            q.hmp(write);
        }
        for up in [true, false, true] {
            q.run("set_link", json!({"name": "n", "up": up}));
            process::until("the card sees it", || q.hmp("i /w 0xd004").ends_with(if up { "3\r\n" } else { "1\r\n" }));
        }
        q.run("set_link", json!({"name": "card", "up": false}));
        process::until("the card sees it", || q.hmp("i /w 0xd004").ends_with("1\r\n"));
    }
    query_rx_filter = "query-rx-filter": {
        assert_eq!(q.error("query-rx-filter", json!({"name": "x"})).1, "invalid net client name: x");
        q.run("device_add", json!({"driver": "e1000", "id": "card"}));
        let none = q.error("query-rx-filter", json!({"name": "card"}));
        assert_eq!(none.1, "net client(card) doesn't support rx-filter querying");
        assert_eq!(q.run("query-rx-filter", json!({})), json!([]));
    }
    balloon = "balloon": {
        q.run("device_add", json!({"driver": "virtio-balloon-pci", "addr": "7"}));
        assert_eq!(q.error("balloon", json!({"value": 0})).1, "Parameter 'target' expects a size");
        q.run("balloon", json!({"value": 1 << 20}));
        // The driver has done nothing yet.
        assert_eq!(q.run("query-balloon", json!({})), json!({"actual": 128 << 20}));
    }
    query_balloon = "query-balloon": {
        assert_eq!(q.error("query-balloon", json!({})).0, "DeviceNotActive");
        q.run("device_add", json!({"driver": "virtio-balloon-pci", "id": "b"}));
        assert_eq!(q.run("query-balloon", json!({})), json!({"actual": 128 << 20}));
    }
    qmp_capabilities = "qmp_capabilities": {
        assert_eq!(q.error("qmp_capabilities", json!({})).0, "CommandNotFound");
    }
    query_version = "query-version": {
        let v = q.run("query-version", json!({}));
        assert_eq!(v["qemu"], json!({"major": 11, "minor": 1, "micro": 3}));
        assert_eq!(q.greeting["QMP"]["version"], v);
    }
    query_commands = "query-commands": {
        assert!(names(&q.run("query-commands", json!({}))).contains(&"quit"));
    }
    query_qmp_schema = "query-qmp-schema": {
        let schema = q.run("query-qmp-schema", json!({}));
        assert!(Schema::new(&schema).check_reply("query-status", &json!({"return": {"running": true, "status": "running"}})).is_ok());
    }
    query_command_line_options = "query-command-line-options": {
        let all = q.run("query-command-line-options", json!({}));
        assert!(names(&find(&all, "option", "rtc")["parameters"]).contains(&"driftfix"));
        // The machine's parameters are the properties of all machine types.
        assert!(names(&find(&all, "option", "machine")["parameters"]).contains(&"vmport"));
        assert_eq!(q.run("query-command-line-options", json!({"option": "msg"})).as_array().unwrap().len(), 1);
        assert!(q.error("query-command-line-options", json!({"option": "nope"})).1.contains("invalid option name: nope"));
    }
    query_target = "query-target": { assert_eq!(q.run("query-target", json!({})), json!({"arch": "x86_64"})); }
    query_kvm = "query-kvm": { assert_eq!(q.run("query-kvm", json!({})), json!({"enabled": false, "present": false})); }
    query_accelerators = "query-accelerators": {
        let v = q.run("query-accelerators", json!({}));
        assert_eq!((&v["enabled"], &v["present"]), (&json!("qtest"), &json!(["qtest", "tcg"])));
    }
    human_monitor_command = "human-monitor-command": {
        assert_eq!(q.hmp("info name"), "");
        assert!(q.error("human-monitor-command", json!({"command-line": "info cpus", "cpu-index": 9})).1.contains("no CPU 9"));
    }
    query_status = "query-status": {
        assert_eq!(q.run("query-status", json!({})), json!({"running": true, "status": "running"}));
    }
    query_name = "query-name": {
        assert_eq!(q.run("query-name", json!({})), json!({}));
        let mut named = Qmp::start(&["-machine", "none", "-name", "a,,b"]);
        assert_eq!(named.run("query-name", json!({})), json!({"name": "a,b"}));
    }
    query_uuid = "query-uuid": {
        assert_eq!(q.run("query-uuid", json!({})), json!({"UUID": "00000000-0000-0000-0000-000000000000"}));
    }
    stop = "stop": {
        q.run("stop", json!({}));
        assert_eq!(q.run("query-status", json!({})), json!({"running": false, "status": "paused"}));
    }
    cont = "cont": {
        q.run("stop", json!({}));
        q.run("cont", json!({}));
        assert_eq!(q.run("query-status", json!({}))["status"], "running");
    }
    system_reset = "system_reset": {
        q.run("stop", json!({}));
        q.run("system_reset", json!({}));
        q.event("RESET");
        assert_eq!(q.run("query-status", json!({}))["status"], "prelaunch", "a reset leaves `paused`");
    }
    system_powerdown = "system_powerdown": {
        pm_config(q, 0x40, "w", 0x601);
        pm_config(q, 0x80, "b", 1);
        q.run("system_powerdown", json!({}));
        q.event("POWERDOWN");
        assert_eq!(q.hmp("i /h 0x600"), "portw[0x0600] = 0x101\r\n", "PM1 status: timer carry, power button");
    }
    system_wakeup = "system_wakeup": {
        assert_eq!(q.error("system_wakeup", json!({})).1, "Unable to wake up: guest is not in suspended state");
        suspend(q);
        let asleep = json!({"running": false, "status": "suspended"});
        assert_eq!(q.run("query-status", json!({})), asleep);
        // Stopping and going on does not wake it.
        q.run("stop", json!({}));
        assert_eq!(q.run("query-status", json!({}))["status"], "paused");
        q.run("cont", json!({}));
        assert_eq!(q.run("query-status", json!({})), asleep);
        q.run("system_wakeup", json!({}));
        q.event("WAKEUP");
        assert_eq!(q.run("query-status", json!({}))["status"], "running");
    }
    quit = "quit": {
        q.run("quit", json!({}));
        assert_eq!(q.event("SHUTDOWN")["data"], json!({"guest": false, "reason": "host-qmp-quit"}));
        assert_eq!(q.wait().code(), Some(0));
    }
    set_action = "set-action": {
        q.run("set-action", json!({"reboot": "shutdown", "shutdown": "pause", "panic": "none", "watchdog": "debug"}));
        q.hmp("o /b 0xcf9 6");
        assert_eq!(q.event("SHUTDOWN")["data"]["reason"], "guest-reset");
        q.event("STOP");
    }
    watchdog_set_action = "watchdog-set-action": {
        q.run("watchdog-set-action", json!({"action": "pause"}));
        let (_, text) = q.error("watchdog-set-action", json!({"action": "bark"}));
        assert!(text.contains("does not accept value 'bark'") && text.contains("inject-nmi"), "{text}");
    }
    qom_list = "qom-list": {
        let list = q.run("qom-list", json!({"path": "/machine/unattached"}));
        assert!(find(&list, "type", "child<qemu64-x86_64-cpu>")["name"].as_str().unwrap().starts_with("device["));
        assert_eq!(q.error("qom-list", json!({"path": "/nope"})).0, "DeviceNotFound");
    }
    qom_list_get = "qom-list-get": {
        let all = q.run("qom-list-get", json!({"paths": ["/machine", "/chardevs/r"]}));
        assert_eq!(find(&all[0]["properties"], "name", "type")["value"], "pc-i440fx-11.1-machine");
        assert_eq!(find(&all[1]["properties"], "name", "type")["value"], "chardev-ringbuf");
    }
    qom_get = "qom-get": {
        assert_eq!(q.run("qom-get", json!({"path": "/machine", "property": "graphics"})), true);
        let (_, text) = q.error("qom-get", json!({"path": "/machine", "property": "grahpics"}));
        assert!(text.contains("'graphics'"), "{text}");
    }
    qom_set = "qom-set": {
        let at = |v: Value| json!({"path": "/machine", "property": "dump-guest-core", "value": v});
        q.run("qom-set", at(json!(false)));
        assert_eq!(q.run("qom-get", json!({"path": "/machine", "property": "dump-guest-core"})), false);
        assert!(q.error("qom-set", at(json!(1))).1.contains("expected: boolean"));
    }
    qom_list_types = "qom-list-types": {
        let all = q.run("qom-list-types", json!({"implements": "pci-device"}));
        assert_eq!(find(&all, "name", "VGA")["parent"], "pci-vga");
        assert!(!names(&all).contains(&"pci-device"), "abstract types only on request");
        assert!(names(&q.run("qom-list-types", json!({"abstract": true}))).contains(&"object"));
    }
    qom_list_properties = "qom-list-properties": {
        let all = q.run("qom-list-properties", json!({"typename": "pc-i440fx-11.1-machine"}));
        assert_eq!(find(&all, "name", "vmport")["type"], "OnOffAuto");
    }
    device_list_properties = "device-list-properties": {
        let all = q.run("device-list-properties", json!({"typename": "isa-serial"}));
        assert_eq!(find(&all, "name", "iobase")["type"], "uint32");
        assert!(!names(&all).contains(&"realized"));
        assert_eq!(q.error("device-list-properties", json!({"typename": "nope"})).0, "DeviceNotFound");
    }
    object_add = "object-add": {
        q.run("object-add", json!({"qom-type": "memory-backend-ram", "id": "m", "size": 8192}));
        assert_eq!(q.run("qom-get", json!({"path": "/objects/m", "property": "size"})), 8192);
    }
    object_del = "object-del": {
        q.run("object-add", json!({"qom-type": "memory-backend-ram", "id": "m", "size": 8192}));
        q.run("object-del", json!({"id": "m"}));
        assert_eq!(q.error("object-del", json!({"id": "m"})).1, "object 'm' not found");
    }
    device_add = "device_add": {
        q.run("device_add", second_cpu());
        assert_eq!(q.run("query-cpus-fast", json!({}))[1]["qom-path"], "/machine/peripheral/c1");
        assert!(q.error("device_add", second_cpu()).1.contains("Duplicate"));
        let (_, text) = q.error("device_add", json!({"driver": "qemu64-x86_64-cpu", "socket-id": "x"}));
        assert!(text.contains("socket-id"), "{text}");
    }
    device_del = "device_del": {
        q.run("device_add", second_cpu());
        q.run("device_del", json!({"id": "c1"}));
        // The guest has not let go of it yet.
        assert_eq!(q.run("query-cpus-fast", json!({}))[1]["qom-path"], "/machine/peripheral/c1");
        assert_eq!(q.error("device_del", json!({"id": "nope"})).0, "DeviceNotFound");
    }
    x_query_jit = "x-query-jit": {
        let (_, error) = q.error("x-query-jit", json!({}));
        assert_eq!(error, "JIT information is only available with accel=tcg");
        *q = Qmp::start(&["-S", "-display", "none", "-smp", "2", "-icount", "shift=4", "-L", &firmware()]);
        let text = q.run("x-query-jit", json!({}))["human-readable-text"].as_str().expect("text").to_owned();
        for part in ["\nStatistics:\nTB flush count      0\n", "\nCPU #0\n", "\nCPU #1\n", "instructions        0\nshift               4\n"] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
    query_machines = "query-machines": {
        let all = q.run("query-machines", json!({"compat-props": true}));
        let pc = find(&all, "alias", "pc");
        assert_eq!((&pc["name"], &pc["is-default"], &pc["cpu-max"]), (&json!("pc-i440fx-11.1"), &json!(true), &json!(255)));
        assert!(!find(&all, "name", "pc-i440fx-9.0")["compat-props"].as_array().unwrap().is_empty());
    }
    query_cpu_definitions = "query-cpu-definitions": {
        let all = q.run("query-cpu-definitions", json!({}));
        assert_eq!(find(&all, "name", "qemu64")["typename"], "qemu64-x86_64-cpu");
    }
    query_cpu_model_expansion = "query-cpu-model-expansion": {
        let ask = |t: &str| json!({"type": t, "model": {"name": "qemu64", "props": {"sse3": false}}});
        let full = q.run("query-cpu-model-expansion", ask("full"));
        assert_eq!((&full["model"]["props"]["sse3"], &full["model"]["props"]["sse2"]), (&json!(false), &json!(true)));
        assert_eq!(q.run("query-cpu-model-expansion", ask("static"))["model"]["name"], "base");
        assert!(q.error("query-cpu-model-expansion", ask("half")).1.contains("static, full"));
    }
    query_cpus_fast = "query-cpus-fast": {
        let cpus = q.run("query-cpus-fast", json!({}));
        assert_eq!((&cpus[0]["cpu-index"], &cpus[0]["props"]["socket-id"]), (&json!(0), &json!(0)));
    }
    query_acpi_ospm_status = "query-acpi-ospm-status": {
        let mut more = pc(&["-smp", "1,maxcpus=2"]);
        let slot = |n: &str| json!({"slot": n, "slot-type": "CPU", "source": 0, "status": 0});
        assert_eq!(more.run("query-acpi-ospm-status", json!({})), json!([slot("0"), slot("1")]));
        more.run("device_add", second_cpu());
        // What the OS says of the second one; it has a name by now.
        for write in ["o /w 0xaf00 1", "o /b 0xaf05 1", "o /w 0xaf08 3", "o /b 0xaf05 2", "o /w 0xaf08 0x80"] {
            assert_eq!(more.hmp(write), "");
        }
        let said = json!({"device": "c1", "slot": "1", "slot-type": "CPU", "source": 3, "status": 128});
        assert_eq!(more.run("query-acpi-ospm-status", json!({})), json!([slot("0"), said]));
        q.run("query-acpi-ospm-status", json!({}));
        let mut none = Qmp::start(&["-machine", "none"]);
        assert!(none.error("query-acpi-ospm-status", json!({})).1.contains("missing ACPI device"));
    }
    query_mice = "query-mice": {
        let ps2 = json!([{"name": "QEMU PS/2 Mouse", "index": 2, "current": true, "absolute": false}]);
        assert_eq!(q.run("query-mice", json!({})), ps2);
        let mut none = Qmp::start(&["-machine", "none"]);
        assert_eq!(none.run("query-mice", json!({})), json!([]));
    }
    query_hotpluggable_cpus = "query-hotpluggable-cpus": {
        let mut more = pc(&["-smp", "1,maxcpus=3"]);
        let slots = more.run("query-hotpluggable-cpus", json!({}));
        let used = slots.as_array().unwrap().iter().filter(|s| s.get("qom-path").is_some()).count();
        assert_eq!((slots.as_array().unwrap().len(), used), (3, 1));
        q.run("query-hotpluggable-cpus", json!({}));
    }
    query_block = "query-block": {
        let all = q.run("query-block", json!({}));
        let cd = find(&all, "device", "ide1-cd0");
        assert_eq!((&cd["removable"], &cd["tray_open"], &cd["io-status"]), (&json!(true), &json!(false), &json!("ok")));
        assert!(cd["inserted"].is_null() && cd["qdev"].as_str().unwrap().starts_with("/machine/unattached/device["));
    }
    query_named_block_nodes = "query-named-block-nodes": {
        q.run("blockdev-add", json!({"driver": "null-co", "node-name": "n", "size": 4096}));
        let all = q.run("query-named-block-nodes", json!({"flat": true}));
        assert_eq!(find(&all, "node-name", "n")["image"]["virtual-size"], 4096);
    }
    query_blockstats = "query-blockstats": {
        let all = q.run("query-blockstats", json!({}));
        assert_eq!(find(&all, "device", "ide1-cd0")["stats"]["rd_bytes"], 0);
        q.run("blockdev-add", json!({"driver": "null-co", "node-name": "n"}));
        assert_eq!(find(&q.run("query-blockstats", json!({"query-nodes": true})), "node-name", "n")["stats"]["wr_bytes"], 0);
    }
    blockdev_add = "blockdev-add": {
        let file = disk(q, 8192);
        q.run("blockdev-add", json!({"driver": "file", "filename": file, "node-name": "f", "read-only": true}));
        q.run("blockdev-add", json!({"driver": "raw", "file": "f", "offset": 512, "node-name": "w", "read-only": true}));
        let all = q.run("query-named-block-nodes", json!({}));
        assert_eq!(find(&all, "node-name", "w")["children"], json!([{"child": "file", "node-name": "f"}]));
        for (args, text) in [
            (json!({"driver": "qcow9", "node-name": "x"}), "does not accept value 'qcow9'"),
            (json!({"driver": "null-co", "node-name": "f"}), "Duplicate nodes with node-name='f'"),
            (json!({"driver": "file", "filename": "/none", "node-name": "x"}), "Could not open '/none': No such file or directory"),
            (json!({"driver": "null-co", "node-name": "x", "filename": "y"}), "Parameter 'filename' is unexpected"),
        ] {
            assert!(q.error("blockdev-add", args).1.contains(text), "{text}");
        }
    }
    block_resize = "block_resize": {
        let file = disk(q, 8192);
        q.run("blockdev-add", json!({"driver": "raw", "node-name": "n", "file": {"driver": "file", "filename": file}}));
        q.run("block_resize", json!({"node-name": "n", "size": 1 << 20}));
        assert_eq!(find(&q.run("query-named-block-nodes", json!({})), "node-name", "n")["image"]["virtual-size"], 1 << 20);
        assert_eq!(std::fs::metadata(&file).unwrap().len(), 1 << 20);
        q.run("blockdev-add", json!({"driver": "null-co", "node-name": "z"}));
        for (args, text) in [
            (json!({"node-name": "z", "size": 512}), "Could not resize 'z'"),
            (json!({"node-name": "n", "size": 513}), "The new size must be a multiple of 512"),
            (json!({"node-name": "n", "size": -1}), "Parameter 'size' expects a >0 size"),
            (json!({"device": "ide1-cd0", "size": 512}), "Device 'ide1-cd0' has no medium"),
            (json!({"size": 512}), "Need exactly one of 'device' and 'node-name'"),
        ] {
            assert!(q.error("block_resize", args).1.contains(text), "{text}");
        }
    }
    blockdev_snapshot_sync = "blockdev-snapshot-sync": {
        let (file, over) = (disk(q, 1 << 20), path(q, "over"));
        let mut more = pc(&["-drive", &format!("if=ide,id=d,format=raw,file={file}")]);
        let args = json!({"device": "d", "snapshot-file": over, "snapshot-node-name": "top"});
        more.run("blockdev-snapshot-sync", args.clone());
        let all = more.run("query-block", json!({}));
        let top = &find(&all, "device", "d")["inserted"];
        assert_eq!((&top["node-name"], &top["drv"], &top["backing_file_depth"]), (&json!("top"), &json!("qcow2"), &json!(1)));
        assert_eq!((&top["image"]["virtual-size"], &top["image"]["backing-filename-format"]), (&json!(1 << 20), &json!("raw")));
        assert!(more.error("blockdev-snapshot-sync", args).1.contains("Duplicate nodes with node-name='top'"));
        let all = more.run("query-block", json!({}));
        assert_eq!(find(&all, "device", "d")["inserted"]["node-name"], "top");
        more.run("block_resize", json!({"device": "d", "size": 2 << 20}));
        let vmdk = json!({"device": "d", "snapshot-file": over, "format": "vmdk"});
        assert!(more.error("blockdev-snapshot-sync", vmdk).1.contains("accepted: qcow2"));
        q.run("blockdev-add", json!({"driver": "null-co", "node-name": "n"}));
        let loose = json!({"node-name": "n", "snapshot-file": path(q, "x")});
        assert!(q.error("blockdev-snapshot-sync", loose).1.contains("not the medium of a device"));
        let used = json!({"device": "d", "snapshot-file": over});
        assert!(more.error("blockdev-snapshot-sync", used).1.contains("lock"));
        let own = path(q, "own");
        std::fs::write(&own, [0; 4096]).unwrap();
        q.run("blockdev-change-medium", json!({"device": "ide1-cd0", "filename": own, "format": "raw"}));
        let read_only = json!({"device": "ide1-cd0", "snapshot-file": path(q, "y")});
        assert!(q.error("blockdev-snapshot-sync", read_only).1.contains("read-only"));
        q.run("blockdev-change-medium", json!({"device": "ide1-cd0", "filename": own, "read-only-mode": "read-write"}));
        q.run("blockdev-snapshot-sync", json!({"device": "ide1-cd0", "snapshot-file": path(q, "z")}));
    }
    blockdev_reopen = "blockdev-reopen": {
        let file = disk(q, 4096);
        q.run("blockdev-add", json!({"driver": "raw", "node-name": "n", "file": {"driver": "file", "filename": file, "node-name": "f"}}));
        let again = |more: Value| {
            let mut v = json!({"driver": "raw", "node-name": "n", "file": "f"});
            v.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            json!({"options": [v]})
        };
        q.run("blockdev-reopen", again(json!({"read-only": true, "cache": {"no-flush": true}})));
        let all = q.run("query-named-block-nodes", json!({}));
        assert_eq!((&find(&all, "node-name", "n")["ro"], &find(&all, "node-name", "f")["ro"]), (&json!(true), &json!(true)));
        assert_eq!(find(&all, "node-name", "f")["cache"]["no-flush"], true);
        assert!(q.error("blockdev-reopen", again(json!({"offset": 8192}))).1.contains("cannot be greater"));
        assert!(q.error("blockdev-reopen", again(json!({"x": 1}))).1.contains("'options[0].x' is unexpected"));
    }
    block_set_io_throttle = "block_set_io_throttle": {
        chain(q);
        let none = json!({"bps": 0, "bps_rd": 0, "bps_wr": 0, "iops": 0, "iops_rd": 0, "iops_wr": 0});
        let set = |more: Value| {
            let mut v = none.clone();
            v.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            v
        };
        q.run("block_set_io_throttle", set(json!({"device": "ide1-cd0", "bps": 1000, "bps_max": 2000, "bps_max_length": 3})));
        let all = q.run("query-block", json!({}));
        let i = &find(&all, "device", "ide1-cd0")["inserted"];
        assert_eq!((&i["bps"], &i["bps_max"], &i["bps_max_length"], &i["group"]), (&json!(1000), &json!(2000), &json!(3), &json!("ide1-cd0")));
        assert!(q.hmp("info block").contains("I/O throttling:   bps=1000 bps_rd=0 bps_wr=0 bps_max=2000 bps_rd_max=0"));
        q.run("block_set_io_throttle", set(json!({"device": "ide1-cd0"})));
        let all = q.run("query-block", json!({}));
        assert!(find(&all, "device", "ide1-cd0")["inserted"].get("group").is_none());
        let both = set(json!({"device": "ide1-cd0", "bps": 1, "bps_rd": 1}));
        assert!(q.error("block_set_io_throttle", both).1.contains("cannot be used at the same time"));
    }
    query_jobs = "query-jobs": {
        assert_eq!(q.run("query-jobs", json!({})), json!([]));
        slow_stream(q);
        let all = q.run("query-jobs", json!({}));
        assert_eq!((&all[0]["id"], &all[0]["type"], &all[0]["status"]), (&json!("j"), &json!("stream"), &json!("running")));
    }
    job_pause = "job-pause": {
        slow_stream(q);
        q.run("job-pause", json!({"id": "j"}));
        process::until("the pause", || status(q) == "paused");
        assert_eq!(q.error("job-pause", json!({"id": "j"})).1, "Job is already paused");
    }
    job_resume = "job-resume": {
        slow_stream(q);
        assert_eq!(q.error("job-resume", json!({"id": "j"})).1, "Can't resume a job that was not paused");
        q.run("job-pause", json!({"id": "j"}));
        q.run("job-resume", json!({"id": "j"}));
        assert_eq!(status(q), "running");
    }
    job_cancel = "job-cancel": {
        slow_stream(q);
        q.run("job-cancel", json!({"id": "j"}));
        q.event("BLOCK_JOB_CANCELLED");
        assert_eq!(q.error("job-cancel", json!({"id": "j"})).1, "Job not found");
    }
    job_complete = "job-complete": {
        ready_commit(q);
        q.run("job-complete", json!({"id": "j"}));
        assert!(q.event("BLOCK_JOB_COMPLETED")["data"].get("error").is_none());
        let all = q.run("query-block", json!({}));
        assert_eq!(find(&all, "device", "ide1-cd0")["inserted"]["drv"], "raw");
    }
    job_finalize = "job-finalize": {
        waiting_stream(q);
        q.run("job-finalize", json!({"id": "j"}));
        q.event("BLOCK_JOB_COMPLETED");
        assert_eq!(status(q), "concluded");
    }
    job_dismiss = "job-dismiss": {
        waiting_stream(q);
        let error = q.error("job-dismiss", json!({"id": "j"})).1;
        assert_eq!(error, "Job 'j' in state 'pending' cannot accept command verb 'dismiss'");
        q.run("job-finalize", json!({"id": "j"}));
        q.event("BLOCK_JOB_COMPLETED");
        q.run("job-dismiss", json!({"id": "j"}));
        assert_eq!(q.run("query-jobs", json!({})), json!([]));
    }
    query_block_jobs = "query-block-jobs": {
        slow_stream(q);
        let all = q.run("query-block-jobs", json!({}));
        assert_eq!((&all[0]["device"], &all[0]["len"], &all[0]["speed"]), (&json!("j"), &json!(4 << 20), &json!(1)));
    }
    block_job_set_speed = "block-job-set-speed": {
        slow_stream(q);
        q.run("block-job-set-speed", json!({"device": "j", "speed": 0}));
        q.event("BLOCK_JOB_COMPLETED");
        let (class, text) = q.error("block-job-set-speed", json!({"device": "j", "speed": 0}));
        assert_eq!((class.as_str(), text.as_str()), ("DeviceNotActive", "Block job 'j' not found"));
    }
    block_job_cancel = "block-job-cancel": {
        slow_stream(q);
        q.run("job-pause", json!({"id": "j"}));
        let error = q.error("block-job-cancel", json!({"device": "j"})).1;
        assert_eq!(error, "The block job for device 'j' is currently paused");
        q.run("block-job-cancel", json!({"device": "j", "force": true}));
        q.event("BLOCK_JOB_CANCELLED");
    }
    block_job_pause = "block-job-pause": {
        slow_stream(q);
        q.run("block-job-pause", json!({"device": "j"}));
        process::until("the pause", || status(q) == "paused");
    }
    block_job_resume = "block-job-resume": {
        slow_stream(q);
        q.run("block-job-pause", json!({"device": "j"}));
        q.run("block-job-resume", json!({"device": "j"}));
        assert_eq!(status(q), "running");
    }
    block_job_complete = "block-job-complete": {
        ready_commit(q);
        q.run("block-job-complete", json!({"device": "j"}));
        q.event("BLOCK_JOB_COMPLETED");
    }
    block_job_finalize = "block-job-finalize": {
        waiting_stream(q);
        q.run("block-job-finalize", json!({"id": "j"}));
        q.event("BLOCK_JOB_COMPLETED");
    }
    block_job_dismiss = "block-job-dismiss": {
        waiting_stream(q);
        q.run("job-finalize", json!({"id": "j"}));
        q.event("BLOCK_JOB_COMPLETED");
        q.run("block-job-dismiss", json!({"id": "j"}));
        assert_eq!(q.run("query-jobs", json!({})), json!([]));
    }
    block_stream = "block-stream": {
        let (_, top) = chain(q);
        q.run("block-stream", json!({"device": "ide1-cd0"}));
        let data = q.event("BLOCK_JOB_COMPLETED")["data"].clone();
        assert_eq!(data, json!({"type": "stream", "device": "ide1-cd0", "len": 4 << 20, "offset": 4 << 20, "speed": 0}));
        assert_eq!(std::fs::read(&top).unwrap()[8..20], [0; 12], "no backing file in the header");
        let all = q.run("query-block", json!({}));
        assert_eq!(find(&all, "device", "ide1-cd0")["inserted"]["backing_file_depth"], 0);
    }
    block_commit = "block-commit": {
        let (base, _) = chain(q);
        let itself = json!({"device": "ide1-cd0", "top": base, "base": base});
        assert_eq!(q.error("block-commit", itself).1, "cannot commit an image into itself");
        q.run("blockdev-snapshot-sync", json!({"device": "ide1-cd0", "snapshot-file": path(q, "over")}));
        let top = path(q, "top");
        q.run("block-commit", json!({"device": "ide1-cd0", "top": top}));
        assert!(q.event("BLOCK_JOB_COMPLETED")["data"].get("error").is_none());
        let all = q.run("query-block", json!({}));
        let i = &find(&all, "device", "ide1-cd0")["inserted"];
        assert_eq!((&i["backing_file_depth"], &i["image"]["backing-image"]["format"]), (&json!(1), &json!("raw")));
    }
    blockdev_del = "blockdev-del": {
        q.run("blockdev-add", json!({"driver": "null-co", "node-name": "n"}));
        q.run("blockdev-add", json!({"driver": "raw", "file": "n", "node-name": "r"}));
        assert_eq!(q.error("blockdev-del", json!({"node-name": "n"})).1, "Node n is in use");
        q.run("blockdev-del", json!({"node-name": "r"}));
        q.run("blockdev-del", json!({"node-name": "n"}));
        assert_eq!(q.error("blockdev-del", json!({"node-name": "n"})).1, "Failed to find node with node-name='n'");
    }
    eject = "eject": {
        let file = disk(q, 8192);
        q.run("blockdev-change-medium", json!({"device": "ide1-cd0", "filename": file, "format": "raw"}));
        q.run("eject", json!({"device": "ide1-cd0"}));
        let all = q.run("query-block", json!({}));
        assert_eq!((&find(&all, "device", "ide1-cd0")["tray_open"], find(&all, "device", "ide1-cd0")["inserted"].is_null()), (&json!(true), true));
        assert_eq!(q.error("eject", json!({"device": "no"})).1, "Device 'no' not found");
        *q = pc(&["-drive", "if=none,id=d,driver=null-co", "-device", "ide-hd,drive=d,bus=ide.0"]);
        assert_eq!(q.error("eject", json!({"device": "d"})).1, "Device 'd' is not removable");
        let file = disk(q, 8192);
        *q = pc(&["-cdrom", &file]);
        q.run("eject", json!({"device": "ide1-cd0"}));
    }
    blockdev_change_medium = "blockdev-change-medium": {
        let file = disk(q, 8192);
        q.run("blockdev-change-medium", json!({"device": "ide1-cd0", "filename": file, "format": "raw"}));
        let all = q.run("query-block", json!({}));
        let cd = find(&all, "device", "ide1-cd0");
        assert_eq!((&cd["inserted"]["file"], &cd["inserted"]["ro"], &cd["tray_open"]), (&json!(file), &json!(true), &json!(false)));
        assert!(q.error("blockdev-change-medium", json!({"device": "ide1-cd0", "filename": "/none"})).1.contains("No such file"));
    }
    blockdev_open_tray = "blockdev-open-tray": {
        q.run("blockdev-open-tray", json!({"device": "ide1-cd0"}));
        assert_eq!(find(&q.run("query-block", json!({})), "device", "ide1-cd0")["tray_open"], true);
        assert_eq!(q.error("blockdev-open-tray", json!({})).1, "Need exactly one of 'device' and 'id'");
    }
    blockdev_close_tray = "blockdev-close-tray": {
        q.run("blockdev-open-tray", json!({"device": "ide1-cd0"}));
        q.run("blockdev-close-tray", json!({"device": "ide1-cd0"}));
        assert_eq!(find(&q.run("query-block", json!({})), "device", "ide1-cd0")["tray_open"], false);
    }
    blockdev_insert_medium = "blockdev-insert-medium": {
        *q = pc(&["-device", "ide-cd,id=cd,bus=ide.1"]);
        q.run("blockdev-add", json!({"driver": "null-co", "node-name": "n", "read-only": true}));
        let insert = json!({"id": "cd", "node-name": "n"});
        assert_eq!(q.error("blockdev-insert-medium", insert.clone()).1, "Tray of device 'cd' is not open");
        q.run("blockdev-open-tray", json!({"id": "cd"}));
        q.run("blockdev-insert-medium", insert.clone());
        assert_eq!(q.error("blockdev-insert-medium", insert).1, "There already is a medium in device 'cd'");
        assert_eq!(q.error("blockdev-del", json!({"node-name": "n"})).1, "Node n is in use");
    }
    blockdev_remove_medium = "blockdev-remove-medium": {
        *q = pc(&["-device", "ide-cd,id=cd,bus=ide.1,drive=n", "-blockdev", "null-co,node-name=n,read-only=on"]);
        assert_eq!(q.error("blockdev-remove-medium", json!({"id": "cd"})).1, "Tray of device 'cd' is not open");
        q.run("blockdev-open-tray", json!({"id": "cd"}));
        q.run("blockdev-remove-medium", json!({"id": "cd"}));
        q.run("blockdev-del", json!({"node-name": "n"}));
    }
    query_chardev = "query-chardev": {
        let all = q.run("query-chardev", json!({}));
        assert_eq!(find(&all, "label", "r"), &json!({"label": "r", "filename": "ringbuf", "frontend-open": false}));
        assert_eq!(find(&all, "label", "compat_monitor0")["frontend-open"], true);
    }
    query_chardev_backends = "query-chardev-backends": {
        assert!(names(&q.run("query-chardev-backends", json!({}))).contains(&"ringbuf"));
    }
    chardev_send_break = "chardev-send-break": {
        // COM1's line status shows the break: data ready and break interrupt.
        let mut serial = pc(&["-serial", "null"]);
        serial.run("chardev-send-break", json!({"id": "serial0"}));
        assert_eq!(serial.hmp("i /b 0x3fd"), "portb[0x03fd] = 0x71\r\n");
        q.run("chardev-send-break", json!({"id": "n"}));
        assert_eq!(q.error("chardev-send-break", json!({"id": "x"})).1, "Chardev 'x' not found");
    }
    chardev_remove = "chardev-remove": {
        q.run("chardev-remove", json!({"id": "n"}));
        assert_eq!(q.error("chardev-remove", json!({"id": "n"})).1, "chardev 'n' not found");
        assert_eq!(q.error("chardev-remove", json!({"id": "compat_monitor0"})).1, "Chardev 'compat_monitor0' is busy");
    }
    ringbuf_write = "ringbuf-write": {
        q.run("ringbuf-write", json!({"device": "r", "data": "hé"}));
        q.run("ringbuf-write", json!({"device": "r", "data": "IQ==", "format": "base64"}));
        assert_eq!(q.error("ringbuf-write", json!({"device": "r", "data": "?", "format": "base64"})).1, "Base64 data is not valid");
        assert_eq!(q.run("ringbuf-read", json!({"device": "r", "size": 9})), "hé!");
    }
    ringbuf_read = "ringbuf-read": {
        // Sixteen bytes: the oldest go.
        q.run("ringbuf-write", json!({"device": "r", "data": "0123456789abcdefXY"}));
        assert_eq!(q.run("ringbuf-read", json!({"device": "r", "size": 3, "format": "utf8"})), "234");
        assert!(q.error("ringbuf-read", json!({"device": "r", "size": 0})).1.contains("greater than zero"));
    }
    pmemsave = "pmemsave": {
        let file = path(q, "m");
        q.run("pmemsave", json!({"val": 0xffff_fff0u32, "size": 16, "filename": file}));
        assert_eq!(std::fs::read(&file).unwrap()[0], 0xea, "the reset vector's far jump");
    }
    memsave = "memsave": {
        let file = path(q, "m");
        // Paging is off: linear is physical.
        q.run("memsave", json!({"val": 0xf_fff0, "size": 16, "filename": file, "cpu-index": 0}));
        assert_eq!(std::fs::read(&file).unwrap()[0], 0xea);
        assert!(q.error("memsave", json!({"val": 0, "size": 1, "filename": file, "cpu-index": 7})).1.contains("cpu-index"));
    }
    send_key = "send-key": {
        q.run("send-key", json!({"keys": [{"type": "qcode", "data": "b"}, {"type": "number", "data": 0x1e}], "hold-time": 1}));
        assert_eq!(q.hmp("i /b 0x60"), "portb[0x0060] = 0x32\r\n", "set 2's code of `b`");
    }
    input_send_event = "input-send-event": {
        mouse_on(q);
        let left = json!({"type": "btn", "data": {"button": "left", "down": true}});
        let right = json!({"type": "rel", "data": {"axis": "x", "value": 2}});
        let key = json!({"type": "key", "data": {"key": {"type": "qcode", "data": "a"}, "down": true}});
        q.run("input-send-event", json!({"events": [left, right, key]}));
        assert_eq!(q.hmp("i /b 0x60"), "portb[0x0060] = 0x1c\r\n");
        assert_eq!(q.hmp("i /b 0x60"), "portb[0x0060] = 0x9\r\n");
    }
    screendump = "screendump": {
        let file = path(q, "s.png");
        q.run("screendump", json!({"filename": file, "format": "png"}));
        assert!(std::fs::read(&file).unwrap().starts_with(b"\x89PNG\r\n\x1a\n"));
        assert!(q.error("screendump", json!({"filename": file, "head": 0})).1.contains("'device'"));
    }
}

rows! { EVENTS, q, pc(&["-smp", "1,maxcpus=2"]), Qmp::came;
    event_acpi_device_ost = "ACPI_DEVICE_OST": {
        // `_OST` of CPU 1: event 1, status 0x80.
        for write in ["o /w 0xaf00 0", "o /w 0xaf00 1", "o /b 0xaf05 1", "o /w 0xaf08 1", "o /b 0xaf05 2", "o /w 0xaf08 0x80"] {
            q.hmp(write);
        }
        let info = json!({"slot": "1", "slot-type": "CPU", "source": 1, "status": 0x80});
        assert_eq!(q.event("ACPI_DEVICE_OST")["data"], json!({ "info": info }));
    }
    event_block_io_error = "BLOCK_IO_ERROR": {
        // A guest that makes a guessed raw image look like another format.
        let file = disk(q, 8192);
        *q = pc(&["-hda", &file]);
        for write in ["o /b 0x1f2 1", "o /b 0x1f3 0", "o /b 0x1f4 0", "o /b 0x1f5 0", "o /b 0x1f6 0xe0", "o /b 0x1f7 0x30", "o /w 0x1f0 0x00444551"] {
            q.hmp(write);
        }
        (0..127).for_each(|_| _ = q.hmp("o /w 0x1f0 0"));
        let data = q.event("BLOCK_IO_ERROR")["data"].clone();
        assert_eq!((&data["device"], &data["operation"], &data["action"]), (&json!("ide0-hd0"), &json!("write"), &json!("report")));
        assert_eq!(data["reason"], "Operation not permitted");
        assert_eq!(q.hmp("i /b 0x1f7"), "portb[0x01f7] = 0x41\r\n");
    }
    event_block_image_corrupted = "BLOCK_IMAGE_CORRUPTED": {
        spoiled(q);
        q.run("block-stream", json!({"device": "ide1-cd0"}));
        let data = q.event("BLOCK_IMAGE_CORRUPTED")["data"].clone();
        assert_eq!((&data["device"], &data["fatal"]), (&json!("ide1-cd0"), &json!(true)));
        assert_eq!(data["msg"], "Cluster allocation offset 0x50200 unaligned (L2 offset: 0x40000, L2 index: 0x0)");
        let top = path(q, "top");
        assert_eq!(std::fs::read(&top).unwrap()[79], 2, "the image is marked");
        q.event("BLOCK_JOB_COMPLETED");
        q.run("eject", json!({"device": "ide1-cd0", "force": true}));
        let again = json!({"device": "ide1-cd0", "filename": top, "format": "qcow2", "read-only-mode": "read-write"});
        assert!(q.error("blockdev-change-medium", again).1.contains("Image is corrupt; cannot be opened read/write"));
    }
    event_block_job_error = "BLOCK_JOB_ERROR": {
        spoiled(q);
        q.run("block-stream", json!({"device": "ide1-cd0", "on-error": "stop"}));
        let data = q.event("BLOCK_JOB_ERROR")["data"].clone();
        assert_eq!(data, json!({"device": "ide1-cd0", "operation": "read", "action": "stop"}));
        process::until("the pause", || status(q) == "paused");
    }
    event_block_job_cancelled = "BLOCK_JOB_CANCELLED": {
        slow_stream(q);
        q.run("job-cancel", json!({"id": "j"}));
        let data = q.event("BLOCK_JOB_CANCELLED")["data"].clone();
        assert_eq!((&data["device"], &data["speed"]), (&json!("j"), &json!(1)));
    }
    event_block_job_completed = "BLOCK_JOB_COMPLETED": {
        chain(q);
        q.run("block-stream", json!({"device": "ide1-cd0", "job-id": "j"}));
        assert_eq!(q.event("BLOCK_JOB_COMPLETED")["data"]["device"], "j");
    }
    event_block_job_pending = "BLOCK_JOB_PENDING": {
        chain(q);
        q.run("block-stream", json!({"device": "ide1-cd0", "job-id": "j", "auto-finalize": false}));
        assert_eq!(q.event("BLOCK_JOB_PENDING")["data"], json!({"type": "stream", "id": "j"}));
    }
    event_block_job_ready = "BLOCK_JOB_READY": {
        chain(q);
        q.run("block-commit", json!({"device": "ide1-cd0", "job-id": "j"}));
        assert_eq!(q.event("BLOCK_JOB_READY")["data"]["type"], "commit");
        assert_eq!(status(q), "ready");
    }
    event_job_status_change = "JOB_STATUS_CHANGE": {
        chain(q);
        q.run("block-stream", json!({"device": "ide1-cd0", "job-id": "j"}));
        for status in ["created", "running", "waiting", "pending", "concluded", "null"] {
            assert_eq!(q.event("JOB_STATUS_CHANGE")["data"], json!({"id": "j", "status": status}));
        }
    }
    event_device_tray_moved = "DEVICE_TRAY_MOVED": {
        q.run("blockdev-open-tray", json!({"device": "ide1-cd0"}));
        assert_eq!(q.event("DEVICE_TRAY_MOVED")["data"], json!({"device": "ide1-cd0", "id": "", "tray-open": true}));
    }
    event_device_deleted = "DEVICE_DELETED": {
        q.run("device_add", second_cpu());
        q.run("device_del", json!({"id": "c1"}));
        // What the DSDT does for the guest: the modern register block, CPU 1, eject.
        for write in ["o /w 0xaf00 0", "o /w 0xaf00 1", "o /b 0xaf04 8"] {
            q.hmp(write);
        }
        assert_eq!(q.event("DEVICE_DELETED")["data"], json!({"device": "c1", "path": "/machine/peripheral/c1"}));
    }
    event_guest_panicked = "GUEST_PANICKED": {
        *q = pc(&["-device", "pvpanic"]);
        assert_eq!(q.hmp("i /b 0x505"), "portb[0x0505] = 0x7\r\n");
        q.run("set-action", json!({"panic": "pause"}));
        q.hmp("o /b 0x505 1");
        assert_eq!(q.event("GUEST_PANICKED")["data"], json!({"action": "pause"}));
        q.event("STOP");
        assert_eq!(q.run("query-status", json!({}))["status"], "guest-panicked");
        q.run("cont", json!({}));
        q.run("set-action", json!({"panic": "none"}));
        q.hmp("o /b 0x505 1");
        assert_eq!(q.event("GUEST_PANICKED")["data"], json!({"action": "run"}));
        q.run("set-action", json!({"panic": "exit-failure"}));
        q.hmp("o /b 0x505 1");
        assert_eq!(q.event("GUEST_PANICKED")["data"], json!({"action": "poweroff"}));
        assert_eq!(q.event("SHUTDOWN")["data"]["reason"], "guest-panic");
        assert_eq!(q.wait().code(), Some(1));
    }
    event_guest_crashloaded = "GUEST_CRASHLOADED": {
        *q = pc(&["-device", "pvpanic,ioport=0x600"]);
        q.hmp("o /b 0x600 2");
        assert_eq!(q.event("GUEST_CRASHLOADED")["data"], json!({"action": "run"}));
    }
    event_guest_pvshutdown = "GUEST_PVSHUTDOWN": {
        *q = pc(&["-device", "pvpanic,events=4"]);
        assert_eq!(q.hmp("i /b 0x505"), "portb[0x0505] = 0x4\r\n");
        q.hmp("o /b 0x505 4");
        q.event("GUEST_PVSHUTDOWN");
        assert_eq!(q.event("SHUTDOWN")["data"]["reason"], "guest-shutdown");
    }
    event_powerdown = "POWERDOWN": {
        q.hmp("system_powerdown");
        q.event("POWERDOWN");
    }
    event_reset = "RESET": {
        q.run("system_reset", json!({}));
        assert_eq!(q.event("RESET")["data"], json!({"guest": false, "reason": "host-qmp-system-reset"}));
        q.hmp("o /b 0x92 1");
        assert_eq!(q.event("RESET")["data"], json!({"guest": true, "reason": "guest-reset"}));
    }
    event_resume = "RESUME": {
        q.run("stop", json!({}));
        q.run("cont", json!({}));
        assert!(q.event("RESUME").get("data").is_none());
    }
    event_netdev_stream_connected = "NETDEV_STREAM_CONNECTED": {
        let file = path(q, "s");
        let addr = json!({"type": "unix", "path": file});
        q.run("netdev_add", json!({"type": "stream", "id": "n", "server": true, "addr": addr}));
        let _peer = std::os::unix::net::UnixStream::connect(&file).unwrap();
        assert_eq!(q.event("NETDEV_STREAM_CONNECTED")["data"], json!({"netdev-id": "n", "addr": addr}));
    }
    event_netdev_stream_disconnected = "NETDEV_STREAM_DISCONNECTED": {
        let file = path(q, "s");
        let listener = std::os::unix::net::UnixListener::bind(&file).unwrap();
        let addr = json!({"type": "unix", "path": file});
        q.run("netdev_add", json!({"type": "stream", "id": "n", "reconnect-ms": 1, "addr": addr}));
        for _ in 0..2 {
            let peer = listener.accept().unwrap();
            q.event("NETDEV_STREAM_CONNECTED");
            drop(peer);
            assert_eq!(q.event("NETDEV_STREAM_DISCONNECTED")["data"], json!({"netdev-id": "n"}));
        }
    }
    event_nic_rx_filter_changed = "NIC_RX_FILTER_CHANGED": {
        // An old driver that sets the address in the configuration, by the I/O window.
        q.run("device_add", json!({"driver": "virtio-net-pci", "id": "card", "addr": "7", "disable-modern": true}));
        for write in ["o /w 0xcf8 0x80003810", "o /w 0xcfc 0xd000", "o /w 0xcf8 0x80003804", "o /w 0xcfc 5", "o /b 0xd014 2"] {
            q.hmp(write);
        }
        let data = q.event("NIC_RX_FILTER_CHANGED")["data"].clone();
        assert_eq!(data, json!({"name": "card", "path": "/machine/peripheral/card/virtio-backend"}));
    }
    event_balloon_change = "BALLOON_CHANGE": {
        // An old driver says what the balloon holds, by the I/O window.
        q.run("device_add", json!({"driver": "virtio-balloon-pci", "addr": "7", "disable-modern": true}));
        for write in ["o /w 0xcf8 0x80003810", "o /w 0xcfc 0xd000", "o /w 0xcf8 0x80003804", "o /w 0xcfc 5", "o /w 0xd018 256"] {
            q.hmp(write);
        }
        assert_eq!(q.event("BALLOON_CHANGE")["data"], json!({"actual": 127 << 20}));
    }
    event_vserport_change = "VSERPORT_CHANGE": {
        // An old driver has its one port open as soon as it is there, and no more when it goes.
        q.run("device_add", json!({"driver": "virtio-serial-pci", "addr": "7", "disable-modern": true}));
        q.run("device_add", json!({"driver": "virtconsole", "id": "port"}));
        for write in ["o /w 0xcf8 0x80003810", "o /w 0xcfc 0xd000", "o /w 0xcf8 0x80003804", "o /w 0xcfc 5", "o /b 0xd012 7"] {
            q.hmp(write);
        }
        q.hmp("o /b 0xd012 0");
        assert_eq!(q.event("VSERPORT_CHANGE")["data"], json!({"id": "port", "open": false}));
    }
    event_rtc_change = "RTC_CHANGE": {
        // The hour register; update in progress is not observed by qtest's clock.
        q.hmp("o /b 0x70 4");
        q.hmp("o /b 0x71 0x01");
        let data = q.event("RTC_CHANGE")["data"].clone();
        assert!(data["qom-path"].as_str().unwrap().starts_with("/machine/"), "{data}");
    }
    event_shutdown = "SHUTDOWN": {
        pm_config(q, 0x40, "w", 0x601);
        pm_config(q, 0x80, "b", 1);
        q.hmp("o /h 0x604 0x2000");
        assert_eq!(q.event("SHUTDOWN")["data"], json!({"guest": true, "reason": "guest-shutdown"}));
        assert_eq!(q.wait().code(), Some(0));
    }
    event_stop = "STOP": {
        q.run("stop", json!({}));
        assert!(q.event("STOP").get("data").is_none());
    }
    event_suspend = "SUSPEND": { suspend(q); }
    event_suspend_disk = "SUSPEND_DISK": {
        pm_config(q, 0x40, "w", 0x601);
        pm_config(q, 0x80, "b", 1);
        q.hmp("o /h 0x604 0x2800"); // SLP_TYP 2 (S4) and SLP_EN
        q.event("SUSPEND_DISK");
    }
    event_watchdog = "WATCHDOG": {
        for (word, after) in [("reset", "RESET"), ("shutdown", "POWERDOWN"), ("pause", "STOP"), ("debug", ""), ("none", ""), ("inject-nmi", "")] {
            // (Time goes by for real.)
            let (folder, action) = (firmware(), format!("watchdog={word}"));
            *q = Qmp::start(&["-display", "none", "-L", &folder, "-nic", "none", "-device", "ib700", "-action", &action]);
            q.hmp("o /b 0x443 0xf");
            assert_eq!(q.event("WATCHDOG")["data"], json!({"action": word}));
            if !after.is_empty() {
                q.event(after);
            }
        }
    }
    event_wakeup = "WAKEUP": {
        suspend(q);
        q.run("system_wakeup", json!({}));
        q.event("WAKEUP");
    }
}

/// Whether the human monitor's command was run without an error: the rows check what it printed.
fn printed(_: &mut Qmp, _: &str) -> bool {
    true
}

rows! { HMP, q, pc(&["-smp", "1,maxcpus=2", "-chardev", "ringbuf,id=r,size=16", "-chardev", "null,id=n", "-serial", "null"]), printed;
    hmp_help = "help": {
        assert_eq!(q.hmp("help xp"), "xp /fmt addr -- physical memory dump starting at 'addr'\r\n");
        assert_eq!(q.hmp("? xp"), q.hmp("help xp"));
    }
    hmp_info = "info": { assert!(q.hmp("info").contains("info status -- ")); }
    hmp_quit = "quit": {
        q.hmp("q");
        assert_eq!(q.wait().code(), Some(0));
    }
    hmp_log = "log": {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let file = dir.path().join("log");
        assert_eq!(q.hmp(&format!("logfile {}", file.display())), "");
        let resets = || std::fs::read_to_string(&file).expect("a log").matches("CPU Reset (CPU 0)").count();
        for (items, expected) in [("cpu_reset", 1), ("none", 1), ("unimp,cpu_reset", 2)] {
            assert_eq!(q.hmp(&format!("log {items}")), "");
            q.hmp("system_reset");
            q.event("RESET");
            assert_eq!(resets(), expected, "{items}");
        }
        let help = q.hmp("log cpu_rest");
        assert!(help.starts_with("log item1[,...] -- ") && help.contains("\r\ncpu_reset "), "{help}");
    }
    hmp_logfile = "logfile": {
        assert!(q.hmp("logfile /nowhere/x").starts_with("Error: error opening logfile /nowhere/x: "));
    }
    hmp_stop = "stop": {
        q.hmp("s");
        q.event("STOP");
    }
    hmp_cont = "cont": {
        q.hmp("stop");
        q.hmp("c");
        q.event("RESUME");
    }
    hmp_system_reset = "system_reset": {
        q.hmp("system_reset");
        q.event("RESET");
    }
    hmp_system_powerdown = "system_powerdown": {
        q.hmp("system_powerdown");
        q.event("POWERDOWN");
    }
    hmp_system_wakeup = "system_wakeup": {
        assert_eq!(q.hmp("system_wakeup"), "Error: Unable to wake up: guest is not in suspended state\r\n");
        suspend(q);
        q.hmp("system_wakeup");
        q.event("WAKEUP");
    }
    hmp_x = "x": { assert_eq!(q.hmp("x /2xb 0xffff0"), "00000000000ffff0: 0xea 0x5b\r\n"); }
    hmp_xp = "xp": { assert_eq!(q.hmp("xp /1xh 0xffff0"), "00000000000ffff0: 0x5bea\r\n"); }
    hmp_i = "i": { assert_eq!(q.hmp("i /b 0x64"), "portb[0x0064] = 0x18\r\n"); }
    hmp_o = "o": {
        q.hmp("o /w 0xcf8 0x80000000");
        assert_eq!(q.hmp("i /w 0xcfc"), "portl[0x0cfc] = 0x12378086\r\n");
    }
    hmp_cpu = "cpu": {
        assert_eq!(q.hmp("cpu 0"), "");
        assert_eq!(q.hmp("cpu 7"), "Error: invalid CPU index\r\n");
    }
    hmp_pmemsave = "pmemsave": {
        let file = path(q, "m");
        assert_eq!(q.hmp(&format!("pmemsave 0xffff0 16 \"{file}\"")), "");
        assert_eq!(std::fs::read(&file).unwrap().len(), 16);
    }
    hmp_memsave = "memsave": {
        let file = path(q, "m");
        assert_eq!(q.hmp(&format!("memsave 0xffff0 16 {file}")), "");
        assert_eq!(std::fs::read(&file).unwrap()[0], 0xea);
    }
    hmp_sendkey = "sendkey": {
        q.hmp("sendkey a 1");
        assert_eq!(q.hmp("i /b 0x60"), "portb[0x0060] = 0x1c\r\n");
        assert_eq!(q.hmp("sendkey"), "Error: expected: keys [hold_ms]\r\n");
    }
    hmp_mouse_move = "mouse_move": {
        mouse_on(q);
        assert_eq!(q.hmp("mouse_move 1 2"), "");
        assert_eq!(q.hmp("i /b 0x60"), "portb[0x0060] = 0x28\r\n");
        assert_eq!(q.hmp("mouse_move 1"), "Error: expected: dx dy [dz]\r\n");
    }
    hmp_mouse_set = "mouse_set": {
        assert_eq!(q.hmp("mouse_set 2"), "");
        assert_eq!(q.hmp("mouse_set 0"), "Error: Mouse at index '0' not found\r\n");
        assert_eq!(q.hmp("mouse_set 1"), "Error: Input device 'QEMU PS/2 Keyboard' is not a mouse\r\n");
        // vmmouse takes nothing before its guest asks for it.
        assert_eq!(q.hmp("mouse_set 3"), "Error: Mouse at index '3' not found\r\n");
    }
    hmp_mouse_button = "mouse_button": {
        mouse_on(q);
        assert_eq!(q.hmp("mouse_button 1"), "");
        assert_eq!(q.hmp("i /b 0x60"), "portb[0x0060] = 0x9\r\n");
    }
    hmp_screendump = "screendump": {
        let file = path(q, "s");
        assert_eq!(q.hmp(&format!("screendump {file}")), "");
        assert!(std::fs::read(&file).unwrap().starts_with(b"P6\n"));
    }
    hmp_device_add = "device_add": {
        assert_eq!(q.hmp(PLUG), "");
        assert!(q.hmp("info cpus").contains("CPU #1"));
        assert!(q.hmp("device_add isa-debug-exti").contains("did you mean 'isa-debug-exit'"));
    }
    hmp_device_del = "device_del": {
        q.hmp(PLUG);
        assert_eq!(q.hmp("device_del c1"), "");
        assert!(q.hmp("device_del nope").contains("'nope' not found"));
    }
    hmp_object_add = "object_add": {
        assert_eq!(q.hmp("object_add memory-backend-ram,id=m,size=4k"), "");
        assert_eq!(q.hmp("qom-get /objects/m size"), "4096\r\n");
    }
    hmp_object_del = "object_del": {
        q.hmp("object_add memory-backend-ram,id=m,size=4k");
        assert_eq!(q.hmp("object_del m"), "");
        assert_eq!(q.hmp("object_del m"), "Error: object 'm' not found\r\n");
    }
    hmp_qom_list = "qom-list": { assert!(q.hmp("qom-list /chardevs").contains("r (child<chardev-ringbuf>)\r\n")); }
    hmp_qom_get = "qom-get": { assert_eq!(q.hmp("qom-get /machine type"), "\"pc-i440fx-11.1-machine\"\r\n"); }
    hmp_qom_set = "qom-set": {
        assert_eq!(q.hmp("qom-set /machine dump-guest-core off"), "");
        assert_eq!(q.hmp("qom-get /machine dump-guest-core"), "false\r\n");
    }
    hmp_netdev_add = "netdev_add": {
        assert_eq!(q.hmp("netdev_add user,id=n"), "");
        assert_eq!(q.hmp("netdev_add user,id=n"), "Error: Duplicate ID 'n' for netdev\r\n");
    }
    hmp_netdev_del = "netdev_del": {
        q.hmp("netdev_add user,id=n");
        assert_eq!(q.hmp("netdev_del n"), "");
        assert_eq!(q.hmp("netdev_del n"), "Error: Device 'n' not found\r\n");
    }
    hmp_set_link = "set_link": {
        q.hmp("netdev_add user,id=n");
        assert_eq!(q.hmp("set_link n off"), "");
        assert_eq!(q.hmp("set_link n"), "Error: expected: name on|off\r\n");
    }
    hmp_hostfwd_add = "hostfwd_add": {
        *q = pc(&["-nic", "none"]);
        assert_eq!(q.hmp("hostfwd_add tcp::1-:2"), "Error: user mode network stack not in use\r\n");
        q.hmp("netdev_add user,id=n");
        let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).unwrap().port();
        assert_eq!(q.hmp(&format!("hostfwd_add n tcp:127.0.0.1:{port}-:22")), "");
        std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        let again = q.hmp(&format!("hostfwd_add tcp:127.0.0.1:{port}-:22"));
        assert!(again.starts_with("Error: Could not set up host forwarding rule"), "{again}");
    }
    hmp_hostfwd_remove = "hostfwd_remove": {
        q.hmp("netdev_add user,id=n");
        let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).unwrap().port();
        q.hmp(&format!("hostfwd_add tcp:127.0.0.1:{port}-:22"));
        let rule = format!("tcp:127.0.0.1:{port}");
        assert_eq!(q.hmp(&format!("hostfwd_remove {rule}")), format!("host forwarding rule for {rule} removed\r\n"));
        assert_eq!(q.hmp(&format!("hostfwd_remove n {rule}")), format!("host forwarding rule for {rule} not found\r\n"));
        assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err());
    }
    hmp_balloon = "balloon": {
        assert_eq!(q.hmp("balloon 64"), "Error: No balloon device has been activated\r\n");
        q.hmp("device_add virtio-balloon-pci");
        assert_eq!(q.hmp("balloon 64"), "");
        assert_eq!(q.hmp("balloon 0"), "Error: Parameter 'target' expects a size\r\n");
    }
    hmp_block_stream = "block_stream": {
        let (base, _) = chain(q);
        assert_eq!(q.hmp("block_stream ide1-cd0 1B"), "");
        assert_eq!(q.hmp("block_stream ide1-cd0"), "Error: Job ID 'ide1-cd0' already in use\r\n");
        q.hmp("block_job_cancel -f ide1-cd0");
        q.event("BLOCK_JOB_CANCELLED");
        assert_eq!(q.hmp(&format!("block_stream ide1-cd0 1M {base}")), "");
        q.event("BLOCK_JOB_COMPLETED");
    }
    hmp_block_job_set_speed = "block_job_set_speed": {
        slow_stream(q);
        assert_eq!(q.hmp("block_job_set_speed j 1"), "");
        assert_eq!(q.run("query-block-jobs", json!({}))[0]["speed"], 1 << 20);
    }
    hmp_block_job_cancel = "block_job_cancel": {
        slow_stream(q);
        assert_eq!(q.hmp("block_job_cancel j"), "");
        q.event("BLOCK_JOB_CANCELLED");
        assert_eq!(q.hmp("block_job_cancel j"), "Error: Block job 'j' not found\r\n");
    }
    hmp_block_job_complete = "block_job_complete": {
        ready_commit(q);
        assert_eq!(q.hmp("block_job_complete j"), "");
        q.event("BLOCK_JOB_COMPLETED");
    }
    hmp_block_job_pause = "block_job_pause": {
        slow_stream(q);
        assert_eq!(q.hmp("block_job_pause j"), "");
        process::until("the pause", || status(q) == "paused");
    }
    hmp_block_job_resume = "block_job_resume": {
        slow_stream(q);
        assert_eq!(q.hmp("block_job_resume j"), "Error: Can't resume a job that was not paused\r\n");
        q.hmp("block_job_pause j");
        assert_eq!(q.hmp("block_job_resume j"), "");
    }
    hmp_block_set_io_throttle = "block_set_io_throttle": {
        chain(q);
        assert_eq!(q.hmp("block_set_io_throttle ide1-cd0 0 0 0 10 0 0"), "");
        assert!(q.hmp("info block").contains(" iops=10 iops_rd=0 "));
    }
    hmp_chardev_remove = "chardev-remove": {
        assert_eq!(q.hmp("chardev-remove n"), "");
        assert_eq!(q.hmp("chardev-remove n"), "Error: chardev 'n' not found\r\n");
    }
    hmp_chardev_send_break = "chardev-send-break": {
        assert_eq!(q.hmp("chardev-send-break serial0"), "");
        assert_eq!(q.hmp("i /b 0x3fd"), "portb[0x03fd] = 0x71\r\n");
    }
    hmp_ringbuf_read = "ringbuf_read": {
        q.hmp("ringbuf_write r abc");
        assert_eq!(q.hmp("ringbuf_read r 2"), "ab\r\n");
    }
    hmp_ringbuf_write = "ringbuf_write": {
        assert_eq!(q.hmp("ringbuf_write r abc"), "");
        assert_eq!(q.hmp("ringbuf_write n abc"), "Error: n is not a ringbuf device\r\n");
    }
}

rows! { INFO, q, pc(&["-name", "vm", "-smp", "2"]), printed;
    info_balloon = "balloon": {
        assert_eq!(q.hmp("info balloon"), "Error: No balloon device has been activated\r\n");
        q.hmp("device_add virtio-balloon-pci");
        assert_eq!(q.hmp("info balloon"), "balloon: actual=128\r\n");
    }
    info_block = "block": {
        let text = q.hmp("info block");
        assert!(text.starts_with("ide1-cd0: [not inserted]\r\n") && text.contains("\r\n    Removable device: not locked, tray closed"), "{text}");
    }
    info_block_jobs = "block-jobs": {
        assert_eq!(q.hmp("info block-jobs"), "No active jobs\r\n");
        slow_stream(q);
        let text = q.hmp("info block-jobs");
        assert!(text.starts_with("Streaming device j: Completed ") && text.ends_with(" of 4194304 bytes, speed limit 1 bytes/s\r\n"), "{text}");
    }
    info_chardev = "chardev": { assert!(q.hmp("info chardev").contains("serial0: filename=vc\r\n")); }
    info_network = "network": {
        *q = pc(&["-nic", "none"]);
        assert_eq!(q.hmp("info network"), "");
        q.hmp("netdev_add user,id=n");
        assert_eq!(q.hmp("info network"), "n: index=0,type=user,net=10.0.2.0,restrict=off\r\n");
    }
    info_usernet = "usernet": {
        *q = pc(&["-nic", "none"]);
        q.hmp("netdev_add user,id=n,hostfwd=udp:127.0.0.1:0-:53");
        let text = q.hmp("info usernet");
        assert!(text.starts_with("Hub -1 (n):\r\n  Protocol[State] ") && text.contains("\r\n  UDP[HOST_FORWARD]"), "{text}");
    }
    info_cpus = "cpus": {
        let text = q.hmp("info cpus");
        assert!(text.starts_with("* CPU #0: thread_id=") && text.contains("\r\n  CPU #1: thread_id="), "{text}");
    }
    info_jit = "jit": {
        assert_eq!(q.hmp("info jit"), "Error: JIT information is only available with accel=tcg\r\n");
        let mut tcg = Qmp::start(&["-display", "none", "-L", &firmware()]);
        let counted = |text: String| {
            let line = text.lines().find_map(|l| l.trim().strip_prefix("instructions "));
            line.and_then(|n| n.trim().parse::<u64>().ok()).unwrap_or_else(|| panic!("{text}"))
        };
        process::until("instructions", || counted(tcg.hmp("info jit")) > 100_000);
        let text = tcg.hmp("info jit");
        for line in ["one-insn-per-tb: off", "gen code size       ", "TB count            ", "TLB full flushes    ", "  TLB", "tier 1"] {
            assert!(text.lines().any(|l| l.starts_with(line)), "{line}: {text}");
        }
        // As QEMU 11, which has none any more.
        assert!(tcg.hmp("info opcount").starts_with("unknown command: 'info opcount'"));
    }
    info_kvm = "kvm": { assert_eq!(q.hmp("info kvm"), "kvm support: not compiled\r\n"); }
    info_lapic = "lapic": {
        assert!(q.hmp("info lapic").starts_with("APIC 0x0 base 0xfee00900"));
        assert!(q.hmp("info lapic 1").starts_with("APIC 0x1 base 0xfee00800"));
    }
    info_mice = "mice": {
        assert_eq!(q.hmp("info mice"), "* Mouse #2: QEMU PS/2 Mouse\r\n");
        assert_eq!(Qmp::start(&["-machine", "none"]).hmp("info mice"), "No mouse devices connected\r\n");
    }
    info_mtree = "mtree": { assert!(q.hmp("info mtree").contains("00000000000003f8-00000000000003ff (prio 0, i/o): serial\r\n")); }
    info_name = "name": { assert_eq!(q.hmp("info name"), "vm\r\n"); }
    info_pci = "pci": { assert!(q.hmp("info pci").contains("VGA controller: PCI device 1234:1111")); }
    info_pic = "pic": { assert!(q.hmp("info pic").contains("pic1: irr=")); }
    info_irq = "irq": {
        q.hmp("sendkey a 1");
        assert!(q.hmp("info irq").lines().all(|l| l.contains(':')));
    }
    info_qom_tree = "qom-tree": { assert!(q.hmp("info qom-tree").contains("/fw_cfg (fw_cfg_io)\r\n")); }
    info_qtree = "qtree": { assert!(q.hmp("info qtree").contains("dev: isa-serial, id \"\"\r\n")); }
    info_registers = "registers": {
        let mut tcg = Qmp::start(&["-S", "-display", "none", "-L", &firmware()]);
        let text = tcg.hmp("info registers");
        assert!(text.contains("EIP=0000fff0 EFL=00000002"), "{text}");
        let text = q.hmp("info registers -a");
        assert!(text.contains("CPU#0\r\n") && text.contains("CPU#1\r\n"), "{text}");
        assert!(!q.hmp("info registers").contains("CPU#1"));
    }
    info_roms = "roms": { assert!(q.hmp("info roms").contains("bios-256k.bin")); }
    info_status = "status": { assert_eq!(q.hmp("info status"), "VM status: running\r\n"); }
    info_uuid = "uuid": { assert_eq!(q.hmp("info uuid"), "00000000-0000-0000-0000-000000000000\r\n"); }
    info_version = "version": { assert!(q.hmp("info version").starts_with("11.1.3")); }
}

#[test]
fn the_chosen_cpu_stays_chosen_on_a_monitor() {
    use std::io::{Read, Write};
    let dir = tempfile::tempdir().expect("a temporary folder");
    let socket = dir.path().join("hmp");
    let folder = firmware();
    let monitor = format!("unix:{},server=on,wait=off", socket.display());
    let args = ["-smp", "2", "-accel", "qtest", "-L", &folder, "-monitor", &monitor];
    let mut child = process::start(&args, &[]);
    let mut stream = None;
    process::until("a connection", || {
        stream = std::os::unix::net::UnixStream::connect(&socket).ok();
        stream.is_some()
    });
    let mut stream = stream.expect("connected");
    stream.write_all(b"cpu 1\ninfo cpus\nquit\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert!(text.contains("* CPU #1: thread_id="), "{text}");
    assert_eq!(process::wait(&mut child).code(), Some(0));
}
