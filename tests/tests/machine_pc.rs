//! The default machine through its monitors, without guest code: plugging, keys, screen, resets, ports, names.

use serde_json::json;
use std::path::Path;
use tests::packages;
use tests::qmp::Qmp;
use tests::qtest::Qtest;

/// `-L` with SeaBIOS, which the board loads even if nothing runs it.
fn firmware() -> String {
    let bios = packages::seabios().expect("SeaBIOS can be fetched");
    let folder = if bios.is_dir() { bios } else { bios.parent().expect("a folder").to_owned() };
    folder.to_str().expect("a plain path").to_owned()
}

fn pc(args: &[&str]) -> Qmp {
    let folder = firmware();
    let own = ["-accel", "qtest", "-display", "none", "-L", folder.as_str()];
    Qmp::start(&[args, &own].concat())
}

#[test]
fn it_is_the_default_machine_with_its_devices() {
    let mut q = pc(&[]);
    assert_eq!(q.run("qom-get", json!({"path": "/machine", "property": "type"})), "pc-i440fx-11.1-machine");
    let pci = q.hmp("info pci");
    for line in [
        "Host bridge: PCI device 8086:1237",
        "ISA bridge: PCI device 8086:7000",
        "VGA controller: PCI device 1234:1111",
    ] {
        assert!(pci.contains(line), "{pci}");
    }
    assert!(q.hmp("info pic").contains("pic0: irr="));
    assert!(q.hmp("info qtree").contains("    bus: pci.0\r\n      type PCI\r\n"));
    assert!(q.hmp("info mtree -f").contains("(prio 0, rom): pc.bios\r\n"));
    assert!(q.hmp("info roms").contains("bios-256k.bin"));
    let cpus = q.run("query-cpus-fast", json!({}));
    assert_eq!((&cpus[0]["cpu-index"], &cpus[0]["target"]), (&json!(0), &json!("x86_64")));
    let slots = q.run("query-hotpluggable-cpus", json!({}));
    assert_eq!(slots[0]["vcpus-count"], 1);
    assert_eq!(slots[0]["qom-path"], cpus[0]["qom-path"]);
    // The default serial port leads to a console that nobody can see.
    let list = q.run("query-chardev", json!({}));
    assert!(list.as_array().unwrap().iter().any(|c| c["label"] == "serial0" && c["filename"] == "vc"));
    assert!(q.hmp("x /1xw 0xfffffff0").starts_with("00000000fffffff0: 0x"));
}

#[test]
fn what_cannot_be_plugged_or_unplugged_says_why() {
    let mut q = pc(&["-device", "isa-debug-exit,id=x0"]);
    let mut refused = |command: &str, args: serde_json::Value, text: &str| {
        let (_, desc) = q.error(command, args);
        assert!(desc.contains(text), "{desc}");
    };
    refused("device_add", json!({"driver": "isa-debug-exit"}), "Bus 'isa.0' does not support hotplugging");
    refused("device_del", json!({"id": "x0"}), "Bus 'isa.0' does not support hotplugging");
    refused("device_add", json!({"driver": "isa-debug-exti"}), "(did you mean 'isa-debug-exit'");
    refused("device_add", json!({"driver": "VGA"}), "expects a pluggable device type");
    refused("device_add", json!({"driver": "isa-debug-exit", "bus": "isa.7"}), "Bus 'isa.7' not found");
    refused("device_add", json!({"driver": "isa-debug-exit", "bus": "pci.0"}), "can't go on PCI bus");
    refused("device_add", json!({"driver": "pci-device"}), "non-abstract device type");
    refused("device_add", json!({}), "Parameter 'driver' is missing");
    assert_eq!(
        q.error("device_del", json!({"id": "nope"})),
        ("DeviceNotFound".into(), "Device 'nope' not found".into())
    );
}

#[test]
fn keys_reach_the_keyboard_controller() {
    let mut q = pc(&[]);
    // Translation is off until firmware switches it on: set 2's make code of `a`.
    q.run("send-key", json!({"keys": [{"type": "qcode", "data": "a"}], "hold-time": 1}));
    assert_eq!(q.hmp("i /b 0x60"), "portb[0x0060] = 0x1c\r\n");
    q.hmp("sendkey ctrl-alt-delete 1");
    assert_eq!(q.hmp("sendkey ctrl-nokey"), "Error: Parameter 'keys[1].data' does not accept value 'nokey'\r\n");
    let (_, text) = q.error("send-key", json!({"keys": [{"type": "qcode", "data": "ctlr"}]}));
    assert!(text.contains("'ctrl'"), "{text}");
    assert!(q.error("send-key", json!({"keys": [{"type": "number", "data": 100_000}]})).1.contains("100000"));
}

#[test]
fn the_pointer_reaches_the_ps2_mouse() {
    let mut q = pc(&[]);
    // The controller's way to the mouse, and the mouse's command to report.
    q.hmp("o /b 0x64 0xd4");
    q.hmp("o /b 0x60 0xf4");
    let take = |q: &mut Qmp, n: usize| -> Vec<String> {
        (0..n).map(|_| q.hmp("i /b 0x60").trim_end().replace("portb[0x0060] = ", "")).collect()
    };
    assert_eq!(take(&mut q, 1), ["0xfa"]);
    assert_eq!(q.hmp("mouse_move 3 4"), "");
    assert_eq!(take(&mut q, 3), ["0x28", "0x3", "0xfc"]);
    q.hmp("mouse_button 5");
    assert_eq!(take(&mut q, 3), ["0xb", "0x0", "0x0"], "left and right");
    let events = json!([
        {"type": "btn", "data": {"button": "left", "down": false}},
        {"type": "rel", "data": {"axis": "x", "value": -1}},
    ]);
    q.run("input-send-event", json!({"events": events}));
    assert_eq!(take(&mut q, 3), ["0x1a", "0xff", "0x0"]);
    // Nobody takes positions, and nobody has that many buttons.
    let to = |axis: &str| json!({"type": "abs", "data": {"axis": axis, "value": 9}});
    let (_, text) = q.error("input-send-event", json!({"events": [to("x"), to("y")]}));
    assert_eq!(text, "Input handler not found for event type abs");
    let touch = json!({"type": "btn", "data": {"button": "touch", "down": true}});
    assert!(q.error("input-send-event", json!({"events": [touch]})).1.contains("'touch'"));
    assert!(q.hmp("mouse_move x 1").contains("'x' is not a number"));
}

#[test]
fn the_screen_goes_into_a_file() {
    let mut q = pc(&[]);
    let at = |q: &Qmp, name: &str| q.dir().join(name).to_str().unwrap().to_owned();
    let (ppm, png) = (at(&q, "a.ppm"), at(&q, "a.png"));
    q.run("screendump", json!({"filename": ppm}));
    assert!(std::fs::read(&ppm).unwrap().starts_with(b"P6\n"));
    q.hmp(&format!("screendump {png} -f png"));
    assert!(std::fs::read(Path::new(&png)).unwrap().starts_with(b"\x89PNG"));
    assert!(q.error("screendump", json!({"filename": "/nowhere/x"})).1.starts_with("failed to open file '/nowhere/x'"));
    assert!(q.error("screendump", json!({"filename": ppm, "device": "nope"})).1.contains("nope"));
    assert!(q.error("screendump", json!({"filename": ppm, "format": "bmp"})).1.contains("accepted: ppm, png"));
    let mut none = pc(&["-vga", "none"]);
    assert!(none.error("screendump", json!({"filename": ppm})).1.contains("no console"));
}

#[test]
fn memory_goes_into_a_file() {
    let mut q = pc(&["-m", "16"]);
    let path = q.dir().join("mem").to_str().unwrap().to_owned();
    q.run("pmemsave", json!({"val": 0xffff_0000u32, "size": 0x10000, "filename": path}));
    let top = std::fs::read(&path).unwrap();
    assert_eq!((top.len(), top[0xfff0]), (0x10000, 0xea), "SeaBIOS starts with a far jump");
    assert_eq!(q.hmp("xp /1xb 0xfffffff0"), "00000000fffffff0: 0xea\r\n");
    assert!(q.error("pmemsave", json!({"val": -1, "size": 1, "filename": path})).1.contains("non-negative"));
    assert!(q.error("pmemsave", json!({"val": 0, "size": 1, "filename": "/nowhere/x"})).1.contains("/nowhere/x"));
}

#[test]
fn the_guest_resets_by_port_and_no_reboot_makes_that_the_end() {
    let mut q = pc(&[]);
    q.hmp("o /b 0xcf9 6");
    assert_eq!(q.event("RESET")["data"], json!({"guest": true, "reason": "guest-reset"}));
    q.hmp("o /b 0x64 0xfe");
    assert_eq!(q.event("RESET")["data"]["guest"], true);
    q.run("system_powerdown", json!({}));
    q.event("POWERDOWN");
    let mut q = pc(&["-no-reboot"]);
    q.hmp("o /b 0x92 1");
    assert_eq!(q.event("SHUTDOWN")["data"], json!({"guest": true, "reason": "guest-reset"}));
    assert_eq!(q.wait().code(), Some(0));
}

#[test]
fn a_debug_exit_port_sets_the_status() {
    let mut q = pc(&["-device", "isa-debug-exit,iobase=0xf4"]);
    q.hmp("o /b 0xf4 0x10");
    assert_eq!(q.wait().code(), Some(0x21));
}

#[test]
fn serial_ports_lead_where_the_options_say() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("serial").to_str().unwrap().to_owned();
    let serial = format!("file:{file}");
    let mut q = pc(&[
        "-serial",
        "none",
        "-serial",
        &serial,
        "-parallel",
        "none",
        "-debugcon",
        "chardev:d",
        "-chardev",
        "ringbuf,id=d",
    ]);
    // COM2 only: 2f8h answers, 3f8h does not.
    for c in b"hi" {
        q.hmp(&format!("o /b 0x2f8 {c}"));
        q.hmp(&format!("o /b 0xe9 {c}"));
    }
    q.hmp("o /b 0x3f8 0x78");
    assert_eq!(q.hmp("i /b 0x3fd"), "portb[0x03fd] = 0xff\r\n");
    tests::process::until("two bytes", || std::fs::read(&file).is_ok_and(|d| d == b"hi"));
    assert_eq!(q.run("ringbuf-read", json!({"device": "d", "size": 10})), "hi");
    let mut q = pc(&["-chardev", "null,id=c", "-device", "isa-serial,chardev=c,id=s"]);
    assert_eq!(q.run("qom-get", json!({"path": "/machine/peripheral/s", "property": "chardev"})), "c");
    let (_, text) = q.error("device_add", json!({"driver": "isa-serial", "chardev": "nope"}));
    assert!(text.contains("can't find value 'nope'") || text.contains("hotplugging"), "{text}");
}

#[test]
fn lines_are_intercepted_and_the_clock_drives_the_timer() {
    let folder = firmware();
    let mut q = Qtest::start(&["-M", "pc", "-L", &folder]);
    q.intercept_in("ioapic");
    // Counter 0, mode 2, 0x1000 ticks of 838 ns: the timer's line is the controller's input 0.
    q.outb(0x43, 0x34);
    q.outb(0x40, 0x00);
    q.outb(0x40, 0x10);
    q.take_changes();
    q.clock_step(4_000_000);
    assert!(q.take_changes().iter().any(|(n, level)| *n == 0 && *level));
    // The monitor's keyboard line through the same controller: set from outside.
    assert!(q.raw("set_irq_in ioapic nosuch 0 1").starts_with("FAIL"));
}

#[test]
fn bad_devices_end_start_up_with_one_line() {
    let folder = firmware();
    for (device, text) in [
        ("VGA,addr=0x1", "slot 1 function 0"),
        ("VGA,vgamem_mb=x", "vgamem_mb"),
        ("isa-serial,chardev=nope", "can't find value 'nope'"),
        ("isa-debug-exit,iosize=0", "'iosize' must not be 0"),
        ("VGA,id=1a", "expects an identifier"),
        ("VGA,bus=isa.0", "can't go on ISA bus"),
        ("pci-device", "non-abstract device type"),
        ("{\"driver\":\"VGA\",\"vgamem_mb\":\"x\"}", "expected: integer"),
    ] {
        let args = ["-M", "pc", "-accel", "qtest", "-display", "none", "-L", &folder, "-device", device];
        let out = tests::process::run(&args, "");
        assert_eq!(out.code, Some(1), "{device}: {out:?}");
        assert!(
            out.stderr.lines().count() == 1 && out.stderr.contains(&format!("-device {device}: ")),
            "{}",
            out.stderr
        );
        assert!(out.stderr.contains(text), "{device}: {}", out.stderr);
    }
}
