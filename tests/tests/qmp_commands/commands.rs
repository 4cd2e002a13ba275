//! Commands of QMP that are not about drives.

use crate::harness::*;
use serde_json::{Value, json};
use tests::process;
use tests::qmp::Qmp;
use tests::schema::Schema;

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
    query_iothreads = "query-iothreads": {
        assert_eq!(q.run("query-iothreads", json!({})), json!([]));
        q.run("object-add", json!({"qom-type": "iothread", "id": "t", "poll-max-ns": 5}));
        let all = q.run("query-iothreads", json!({}));
        assert_eq!((&all[0]["id"], &all[0]["poll-max-ns"]), (&json!("t"), &json!(5)));
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
