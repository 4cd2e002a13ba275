//! What the guest's power management tells the user: sleep, soft-off, `_OST`, through the registers and a QMP socket.

use serde_json::json;
use tests::{builtin_guest, qmp::Qmp};

/// A `pc` without guest code, its PM registers at 600H.
fn pc(args: &[&str]) -> (Qmp, tempfile::TempDir) {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("rom");
    std::fs::write(&path, builtin_guest::rom().expect("assembles")).expect("write");
    let bios = path.to_str().expect("UTF-8");
    let own = ["-accel", "qtest", "-nodefaults", "-display", "none", "-m", "64", "-bios", bios];
    let mut q = Qmp::start(&[&own, args].concat());
    for (register, value) in [(0x40, 0x601), (0x80, 1)] {
        q.hmp(&format!("o /w 0xcf8 {:#x}", 0x8000_0b00u32 | register));
        q.hmp(&format!("o /w 0xcfc {value:#x}"));
    }
    (q, dir)
}

#[test]
fn hibernation_is_told_before_the_machine_shuts_down() {
    let (mut q, _dir) = pc(&["-no-shutdown"]);
    q.hmp("o /h 0x604 0x2800"); // SLP_EN, type 2
    assert!(q.event("SUSPEND_DISK").get("data").is_none());
    assert_eq!(q.event("SHUTDOWN")["data"], json!({"guest": true, "reason": "guest-shutdown"}));
}

#[test]
fn another_s4_value_is_the_boards_choice() {
    let (mut q, _dir) = pc(&["-no-shutdown", "-global", "PIIX4_PM.s4_val=4"]);
    q.hmp("o /h 0x604 0x2800");
    assert_eq!(q.run("query-status", json!({}))["status"], "running");
    q.hmp("o /h 0x604 0x3000");
    q.event("SUSPEND_DISK");
    q.event("SHUTDOWN");
}

#[test]
fn ost_of_a_processor_is_an_event() {
    let (mut q, _dir) = pc(&["-smp", "1,maxcpus=2"]);
    let ost = |q: &mut Qmp, source: u32, status: u32| {
        // The selector's first write leaves the old interface's bitmap.
        for (at, size, val) in [(0, 'w', 0), (0, 'w', 1), (5, 'b', 1), (8, 'w', source), (5, 'b', 2), (8, 'w', status)]
        {
            q.hmp(&format!("o /{size} {:#x} {val:#x}", 0xaf00 + at));
        }
        q.event("ACPI_DEVICE_OST")["data"]["info"].clone()
    };
    assert_eq!(ost(&mut q, 1, 0x80), json!({"slot": "1", "slot-type": "CPU", "source": 1, "status": 0x80}));
    let slots = q.run("query-hotpluggable-cpus", json!({}));
    let free = slots.as_array().unwrap().iter().find(|s| s.get("qom-path").is_none()).expect("a free slot");
    let mut add = free["props"].clone();
    (add["driver"], add["id"]) = (free["type"].clone(), "second".into());
    q.run("device_add", add);
    let info = ost(&mut q, 0x103, 0);
    assert_eq!(info, json!({"device": "second", "slot": "1", "slot-type": "CPU", "source": 0x103, "status": 0}));
}

#[test]
fn the_local_apic_is_shown() {
    let (mut q, _dir) = pc(&["-smp", "2"]);
    let (own, second) = (q.hmp("info lapic"), q.hmp("info lapic 1"));
    for (text, cpu) in [(&own, 0), (&second, 1)] {
        assert!(text.starts_with(&format!("APIC {cpu:#x} base 0xfee00")), "{text}");
        assert!(text.contains("\r\nLVT timer"), "{text}");
    }
    assert_eq!(q.hmp("info lapic 7"), "Error: No CPU available\r\n");
}
